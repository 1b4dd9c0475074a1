//! A fight: a player builds barracks, trains a fighter and kills another player's handyman, all through the API.

use std::error::Error;
use std::time::Duration;

use fortia_e2e::api::{Api, ApiError, Place, Unit};
use fortia_e2e::player::Player;
use fortia_e2e::shared;
use reqwest::StatusCode;
use serde_json::{Value, json};

/// A world so small that players are near each other, and so fast that nobody waits long.
const WORLD: &str = "{redisShards: 1, world: {seed: 42, radius: 1, tickPeriod: 200ms}}";
const NAMESPACE: &str = "fights";
/// Ticks anything takes at most here: to rise, to train, to walk, to come back.
const TICKS: u64 = 300;

#[tokio::test]
async fn a_player_builds_barracks_trains_a_fighter_and_kills_anothers_handyman() -> Result<(), Box<dyn Error>>
{
    let world = shared::own_world(NAMESPACE, WORLD).await?;
    let gateway = world.gateway().await?;
    let api = Api::new(&gateway.auth.url(), &gateway.game.url());
    let mut tyr = Player::enter(api.clone(), "tyr", 4).await?;
    let mut fenrir = Player::enter(api, "fenrir", 5).await?;
    let builder = until(&mut tyr, 0, "a handyman", |it| it.kind == "handyman").await?;
    let victim = until(&mut fenrir, 0, "a handyman", |it| it.kind == "handyman").await?;
    let before = tyr.holdings().await?.stock;

    build_barracks(&mut tyr, &builder).await?;
    let barracks = until(&mut tyr, 0, "barracks", |it| it.kind == "barracks" && it.is_idle()).await?;
    tyr.api().order(&barracks.id, json!({"kind": "train", "recruit": "fighter"})).await?;
    let fighter = until(&mut tyr, 0, "a fighter", |it| it.kind == "fighter").await?;
    let after = tyr.holdings().await?.stock;
    assert!(after.wood < before.wood && after.stone < before.stone, "{before:?}, then {after:?}");

    let refused = tyr.api().order(&victim.id, json!({"kind": "hold"})).await.expect_err("not the owner");
    assert_eq!(refused.status(), Some(StatusCode::FORBIDDEN), "{refused}");
    let attack = json!({"kind": "attack", "target": victim.id});
    let told = tyr.api().order(&fighter.id, attack).await?;
    let dead = until(&mut fenrir, told, "its death", |it| it.id == victim.id && it.doing == "dead").await?;
    assert_eq!((dead.health, dead.outcome.as_str()), (0, "killed by tyr"));
    let seen = tyr.api().entities(&[dead.at.chunk()]).await?;
    assert!(seen.iter().any(|it| it.id == victim.id && it.health == 0), "everybody sees it: {seen:?}");
    let winner = until(&mut tyr, told, "its end", |it| it.id == fighter.id && it.is_idle()).await?;
    assert_eq!(winner.outcome, "done");
    let back = until(&mut fenrir, told, "its return", |it| it.id == victim.id && it.is_idle()).await?;
    assert!(back.health > 0, "{back:?}");
    shared::remove(&shared::cluster().await?, NAMESPACE).await?;
    Ok(())
}

/// Waits until the player has a unit or building like that after this tick.
async fn until(
    player: &mut Player,
    after: u64,
    what: &str,
    wanted: impl Fn(&Unit) -> bool,
) -> Result<Unit, Box<dyn Error>> {
    let begin = after.max(player.api().info().await?.tick);
    loop {
        let held = player.holdings().await?;
        let found = held.units.iter().chain(&held.buildings).find(|unit| wanted(unit));
        match found.filter(|_| held.tick >= after) {
            Some(unit) => return Ok(unit.clone()),
            None if held.tick > begin + TICKS => {
                return Err(format!("no sign of {what} after {TICKS} ticks: {held:?}").into());
            }
            None => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Lets the unit put barracks on the first place near it that is fit for them.
async fn build_barracks(player: &mut Player, unit: &Unit) -> Result<(), Box<dyn Error>> {
    let mut outcomes = Vec::new();
    for at in sites(player.api(), unit.at).await? {
        let order = json!({"kind": "build", "at": place(at), "block": "barracks"});
        let tick = player.api().order(&unit.id, order).await?;
        let ended = until(player, tick, "the end of building", |it| it.id == unit.id && it.is_idle()).await?;
        if ended.outcome == "done" {
            return Ok(());
        }
        outcomes.push(ended.outcome);
    }
    Err(format!("no place for barracks near the start: {outcomes:?}").into())
}

/// Air above solid ground near a place, nearest first.
async fn sites(api: &Api, near: Place) -> Result<Vec<Place>, ApiError> {
    let chunks = api.chunks(&[near.chunk()]).await?;
    let Some(chunk) = chunks.first() else { return Ok(Vec::new()) };
    let far = |at: &Place| (at.x - near.x).abs() + (at.y - near.y).abs() + (at.z - near.z).abs();
    let air = chunk.iter().filter(|(_, name)| *name == "air").map(|(at, _)| at);
    let mut free: Vec<Place> = air.filter(|at| (2..=6).contains(&far(at)) && at.z > 0).collect();
    let ground = ["grass", "dirt", "stone", "sand"];
    free.retain(|at| chunk.at(Place { z: at.z - 1, ..*at }).is_some_and(|name| ground.contains(&name)));
    free.sort_by_key(far);
    free.truncate(8);
    Ok(free)
}

fn place(at: Place) -> Value {
    json!({"x": at.x, "y": at.y, "z": at.z})
}
