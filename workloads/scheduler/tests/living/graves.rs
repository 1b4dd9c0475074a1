//! The dead are forgotten by the shards too, when their time has come.

use bytes::Bytes;
use fortia_rdb::world::Changes;
use fortia_vec::ChunkPos;
use fortia_world::chunk::{Column, Grave};

use crate::cluster::Cluster;

/// Of the one who died.
const ID: u64 = 77;

#[tokio::test(flavor = "multi_thread")]
async fn the_record_of_one_who_died_long_ago_goes_and_its_place_on_its_owners_list() {
    let cluster = Cluster::start(2).await;
    let (world, at) = (cluster.world().await, ChunkPos::new(0, 0));
    let stored = world.chunks(0, &[at]).await.expect("a read").remove(0).expect("a chunk");
    let mut column = Column::decode(&stored).expect("a column");
    column.bury(ID, Grave { owner: "ann".into(), until: 4 });
    let before = Changes {
        chunks: vec![(at, column.encode().into())],
        entities: vec![(ID, Bytes::from_static(b"dead"))],
        born: vec![("ann".into(), ID)],
        ..Changes::default()
    };
    world.commit_tick(0, 0, &before, 0).await.expect("writes");
    assert_eq!(world.player_entities("ann").await, Ok(vec![ID]));

    let cluster = cluster.alive().await;
    cluster.wait_until("the record to go", async |c| c.committed().await >= 4).await;
    let tick = cluster.committed().await;
    assert_eq!(world.entities(tick, &[ID]).await, Ok(vec![None]));
    assert_eq!(world.player_entities("ann").await, Ok(vec![]));
    for shard in &cluster.plane.shards {
        assert_eq!(shard.run::<u64>(&["EXISTS", "v1:e:77"]).await, 0, "nothing is left of it");
    }
}
