//! Schedulers and tickers on real Redis servers: ticks advance whatever ticker or scheduler dies.

use crate::cluster::{Cluster, PERIOD_MS, RADIUS, SEED, config};
use fortia_common::boot::Service;
use fortia_proto::world::v1::{self as world, Action, Command, Mine, Order, Spawn, action, order};
use fortia_testredis::TestServer;
use fortia_vec::{BlockPos, regions_of};
use fortia_world::block::Block;
use fortia_world::chunk::Column;
use fortia_world::start;

fn pos(at: BlockPos) -> world::BlockPos {
    world::BlockPos { x: at.x, y: at.y, z: at.z }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tickers_share_the_world_and_a_mined_block_is_gone_within_three_ticks() {
    let cluster = Cluster::living(2).await;
    let regions = cluster.regions("scheduler-0");
    assert_eq!(regions.values().sum::<u64>(), regions_of(RADIUS).len() as u64);
    assert!(regions["ticker-0"] >= 5 && regions["ticker-1"] >= 5, "{regions:?}");
    for server in ["scheduler-0", "ticker-0", "ticker-1"] {
        assert!(
            cluster.get(server, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")),
            "{server}"
        );
    }

    let at = start::position(SEED, RADIUS, "ann");
    let unit = start::unit_ids("ann", 1)[0];
    let spawn = action::Kind::Spawn(Spawn { owner: "ann".into(), at: Some(pos(at)), units: vec![unit] });
    cluster.act(at.region(), &Action { id: 1, player: "ann".into(), kind: Some(spawn) }).await;
    cluster.ticks(2).await;

    let below = at.down();
    let block = async || {
        let column = Column::decode(&cluster.chunk(below.chunk()).await).expect("a column");
        column.get(below.local().expect("in the world"))
    };
    assert_ne!(block().await, Block::Air);
    let order = Order { kind: Some(order::Kind::Mine(Mine { at: Some(pos(below)) })) };
    let mine = action::Kind::Command(Command { unit, order: Some(order), ..Command::default() });
    let asked = cluster.committed().await;
    let runs_in = cluster.act(at.region(), &Action { id: 2, player: "ann".into(), kind: Some(mine) }).await;
    assert!(runs_in <= asked + 2);
    let ticks = cluster.ticks_after(asked, 3).await;
    assert_eq!(block().await, Block::Air, "the block is mined");
    let chunk = below.chunk();
    assert!(ticks.iter().any(|tick| tick.changed.contains(&world::ChunkPos { x: chunk.x, y: chunk.y })));
    cluster.ticks(3).await;
    let mut left: Vec<String> = Vec::new();
    for shard in &cluster.plane.shards {
        left.extend(shard.run::<Vec<String>>(&["KEYS", "v1:actions:*"]).await);
    }
    assert!(left.is_empty(), "actions that have run are removed: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_go_on_without_a_killed_ticker() {
    let mut cluster = Cluster::living(1).await;
    cluster.kill("ticker-0").await;
    let ticks = cluster.ticks(5).await;
    assert!(ticks.windows(2).all(|pair| pair[1].tick == pair[0].tick + 1));
    let all = regions_of(RADIUS).len() as u64;
    let only = async |c: &Cluster| c.regions("scheduler-0").get("ticker-1") == Some(&all);
    cluster.wait_until("the other ticker to own all regions", only).await;
    cluster.spawn(Service::Ticker, "ticker-2");
    cluster.wait_until("a new ticker to get regions", async |c| c.regions("scheduler-0").len() == 2).await;
    cluster.ticks(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_ticker_leaves_between_ticks_and_no_tick_is_run_twice() {
    let mut cluster = Cluster::living(1).await;
    let abandoned = cluster.abandoned("scheduler-0");
    cluster.drain("ticker-1").await;
    cluster.ended("ticker-1").await;
    cluster.ticks(3).await;
    assert_eq!(cluster.abandoned("scheduler-0"), abandoned);
    assert_eq!(cluster.regions("scheduler-0").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_from_a_killed_scheduler() {
    let mut cluster = Cluster::living(1).await;
    cluster.spawn(Service::Scheduler, "scheduler-1");
    let ready =
        async |c: &Cluster| c.get("scheduler-1", "/readyz").is_some_and(|a| a.starts_with("HTTP/1.1 200"));
    cluster.wait_until("the standby to be ready", ready).await;
    let before = cluster.world().await.guard(0).await.expect("a guard").tick_epoch;
    cluster.kill("scheduler-0").await;
    let last = cluster.committed().await;
    let ticks = cluster.ticks_after(last, 5).await;
    assert_eq!(
        ticks.iter().map(|t| t.tick).take(5).collect::<Vec<_>>(),
        (last + 1..=last + 5).collect::<Vec<_>>()
    );
    let after = cluster.world().await.guard(0).await.expect("a guard").tick_epoch;
    assert_eq!(after >> 20, (before >> 20) + 1, "a new lease epoch fences the old leader");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_that_no_replica_confirms_is_not_committed() {
    let cluster = Cluster::living(1).await;
    let mut replica = TestServer::start().await;
    replica.follow(&cluster.plane.shards[0]).await;
    let with_replicas = async |replicas: Vec<String>| {
        let mut topology = cluster.plane.topology().await;
        topology.epoch += 1;
        topology.groups[0].replicas = replicas;
        cluster.plane.set_topology(&topology).await;
        let epoch = topology.epoch as f64;
        let known =
            async |c: &Cluster| c.metric("scheduler-0", "fortia_scheduler_topology_epoch") == Some(epoch);
        cluster.wait_until("the scheduler to know the topology", known).await;
    };
    with_replicas(vec![replica.address()]).await;
    cluster.ticks(3).await;
    replica.kill();
    with_replicas(vec![replica.address()]).await;
    let abandoned = cluster.abandoned("scheduler-0");
    // Something to write.
    let at = start::position(SEED, RADIUS, "ann");
    let units = start::unit_ids("ann", 1);
    let spawn = action::Kind::Spawn(Spawn { owner: "ann".into(), at: Some(pos(at)), units });
    cluster.act(at.region(), &Action { id: 1, player: "ann".into(), kind: Some(spawn) }).await;
    let refused = async |c: &Cluster| c.abandoned("scheduler-0") > abandoned;
    cluster.wait_until("a commit to be refused", refused).await;
    let last = cluster.committed().await;
    cluster
        .wait_until("another to be refused", async |c: &Cluster| c.abandoned("scheduler-0") > abandoned + 1.0)
        .await;
    assert_eq!(cluster.committed().await, last);
    with_replicas(Vec::new()).await;
    cluster.ticks_after(last, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_that_do_not_fit_into_their_period_slow_the_world_down_and_are_never_queued() {
    let cluster = Cluster::living(1).await;
    // How long a tick takes is known from the second one on.
    cluster.ticks(2).await;
    let on_time = cluster.metric("scheduler-0", "fortia_scheduler_dilation");
    assert!(on_time.is_some_and(|dilation| dilation >= 0.9), "{on_time:?}");
    cluster.set_period(1).await;
    let ticks = cluster.ticks(40).await;
    let real_ms = (ticks[39].at - ticks[20].at) as f64 / 19.0;
    assert!(real_ms > 1.0, "a tick takes longer than a millisecond");
    let dilated = cluster.metric("scheduler-0", "fortia_scheduler_dilation");
    assert!(dilated.is_some_and(|dilation| dilation > 1.2), "{dilated:?}");
    // If ticks were queued, those that did not fit would come now, one after the other.
    cluster.set_period(PERIOD_MS).await;
    let ticks = cluster.ticks(8).await;
    let times: Vec<u64> = ticks.iter().map(|tick| tick.at).skip(1).collect();
    // A tick that was late is followed by the next at once, that one by none before a period is over.
    assert!(times.windows(3).all(|three| three[2] - three[0] >= PERIOD_MS - 1), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_scheduler_hands_over_at_once() {
    let mut cluster = Cluster::living(1).await;
    cluster.spawn(Service::Scheduler, "scheduler-1");
    cluster.drain("scheduler-0").await;
    cluster.ended("scheduler-0").await;
    let last = cluster.committed().await;
    cluster.ticks_after(last, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn worldgen_may_be_repeated_but_refuses_another_world() {
    let cluster = Cluster::start(2).await;
    let before = cluster.chunks().await;
    assert!(before.iter().all(Option::is_some));
    cluster.worldgen().await.expect("again");
    assert_eq!(cluster.chunks().await, before);

    cluster.plane.set_config(&config(SEED + 1)).await;
    let refused = cluster.worldgen().await.expect_err("another seed");
    assert!(refused.to_string().contains("set spec.world back"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn worldgen_goes_on_where_it_was_stopped() {
    let cluster = Cluster::start(1).await;
    let before = cluster.chunks().await;
    let shard = &cluster.plane.shards[0];
    shard.run::<i64>(&["DEL", "v1:info", "v1:c:0:0", "v1:c:-9:9"]).await;
    shard.run::<i64>(&["HSET", "v1:c:1:1", "mark", "kept"]).await;
    cluster.worldgen().await.expect("again");
    assert_eq!(cluster.chunks().await, before);
    let mark: Option<String> = shard.run(&["HGET", "v1:c:1:1", "mark"]).await;
    assert_eq!(mark.as_deref(), Some("kept"), "what is there is not written again");
    assert!(cluster.world().await.info().await.expect("a read").is_some());
}
