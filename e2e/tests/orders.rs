//! An order: given through the API, run by a ticker, seen by everybody.

use std::error::Error;
use std::time::Duration;

use fortia_e2e::api::{Api, Place};
use fortia_e2e::events::Events;
use fortia_e2e::player::Player;
use fortia_e2e::shared;
use serde_json::json;

#[tokio::test]
async fn a_mined_block_is_gone_from_chunk_and_update_within_three_ticks() -> Result<(), Box<dyn Error>> {
    let world = shared::world().await?;
    let gateway = world.gateway().await?;
    let api = Api::new(&gateway.auth.url(), &gateway.game.url());
    let mut player = Player::enter(api, &format!("thor-{}", std::process::id()), 1).await?;
    let unit = first_unit(&mut player).await?;
    let block = Place { z: unit.1.z - 1, ..unit.1 };
    let chunk = block.chunk();
    let before = kind(player.api(), block).await?;
    assert_ne!(before, "air", "a unit stands on something");

    let mut events = Events::of(player.api().update(&[chunk]).await?);
    let given = player.api().info().await?.tick;
    let tick = player.api().order(&unit.0, json!({"kind": "mine", "at": block_json(block)})).await?;
    assert!(tick <= given + 3, "taken for tick {tick} at tick {given}");

    let seen = loop {
        let change = events.next(Duration::from_secs(15)).await?;
        let here = change.chunks.iter().find(|c| (c.x, c.y) == chunk);
        if here.and_then(|c| c.at(block)) == Some("air") {
            break change.tick;
        }
        assert!(change.tick <= given + 3, "not mined at tick {}, ordered at {given}", change.tick);
    };
    assert!(seen <= given + 3, "seen at {seen}, ordered at {given}");
    assert_eq!(kind(player.api(), block).await?, "air");
    Ok(())
}

#[tokio::test]
async fn a_strangers_unit_takes_no_orders() -> Result<(), Box<dyn Error>> {
    let world = shared::world().await?;
    let gateway = world.gateway().await?;
    let api = Api::new(&gateway.auth.url(), &gateway.game.url());
    let mut owner = Player::enter(api.clone(), &format!("odin-{}", std::process::id()), 2).await?;
    let stranger = Player::enter(api, &format!("hel-{}", std::process::id()), 3).await?;
    let (unit, at) = first_unit(&mut owner).await?;
    let refused = stranger
        .api()
        .order(&unit, json!({"kind": "move", "to": block_json(at)}))
        .await
        .expect_err("not the owner");
    assert_eq!(refused.status(), Some(reqwest::StatusCode::FORBIDDEN), "{refused}");
    Ok(())
}

/// Units appear in the tick after joining.
async fn first_unit(player: &mut Player) -> Result<(String, Place), Box<dyn Error>> {
    for _ in 0..50 {
        if let Some(unit) = player.units().await?.first() {
            return Ok((unit.id.clone(), unit.at));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Err("no units ten seconds after joining".into())
}

async fn kind(api: &Api, at: Place) -> Result<String, Box<dyn Error>> {
    let chunks = api.chunks(&[at.chunk()]).await?;
    Ok(chunks.first().and_then(|c| c.at(at)).ok_or("block is not in its chunk")?.to_owned())
}

fn block_json(at: Place) -> serde_json::Value {
    json!({"x": at.x, "y": at.y, "z": at.z})
}
