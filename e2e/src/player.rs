//! A player: registers, logs in, joins, enters, looks, and orders its units to move, chop, mine and build until
//! told to stop. Knows the public REST API only; its choices follow from its seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, ApiError, Place, Unit};
use crate::blocks::Blocks;

/// What players did, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deeds {
    /// Orders taken by the world.
    pub orders: u64,
    /// Orders put off because the world took no writes just then.
    pub put_off: u64,
    /// Requests that failed otherwise.
    pub failed: u64,
    /// What the last of them said.
    pub last_failure: Option<String>,
}

impl Deeds {
    /// Adds another player's.
    pub fn add(&mut self, other: Deeds) {
        self.orders += other.orders;
        self.put_off += other.put_off;
        self.failed += other.failed;
        self.last_failure = other.last_failure.or(self.last_failure.take());
    }

    fn count<T>(&mut self, result: Result<T, ApiError>) -> Option<T> {
        match result {
            Ok(value) => return Some(value),
            Err(error) if error.status() == Some(StatusCode::SERVICE_UNAVAILABLE) => self.put_off += 1,
            Err(error) => {
                self.failed += 1;
                self.last_failure = Some(error.to_string());
            }
        }
        None
    }
}

/// A player who is in the world.
#[derive(Debug)]
pub struct Player {
    api: Api,
    name: String,
    at: Place,
    /// Radius of the world, in chunks.
    radius: i32,
    dice: StdRng,
}

impl Player {
    /// Registers the account if it is new, logs in, joins and enters the world.
    ///
    /// # Errors
    /// When one of these is refused.
    pub async fn enter(mut api: Api, name: &str, seed: u64) -> Result<Player, ApiError> {
        let password = format!("{name}-password");
        match api.register(name, &password).await {
            Err(error) if error.status() != Some(StatusCode::CONFLICT) => return Err(error),
            _ => {}
        }
        api.login(name, &password).await?;
        let joined = api.join().await?;
        api.enter().await?;
        let at = serde_json::from_value(joined["start"].clone()).unwrap_or(Place { x: 0, y: 0, z: 0 });
        let radius = api.info().await?.radius;
        Ok(Player { api, name: name.into(), at, radius, dice: StdRng::seed_from_u64(seed) })
    }

    /// The player's session.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Where the player's first unit was last seen.
    pub fn at(&self) -> Place {
        self.at
    }

    /// The player's units in the chunks around where they were last seen.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn units(&mut self) -> Result<Vec<Unit>, ApiError> {
        let mut units = self.api.entities(&around(self.at)).await?;
        units.retain(|unit| unit.owner == self.name);
        if let Some(first) = units.first() {
            self.at = first.at;
        }
        Ok(units)
    }

    /// Looks around and gives idle units an order, about once in `pause`, until told to stop.
    pub async fn play(mut self, pause: Duration, stop: CancellationToken) -> Deeds {
        let mut deeds = Deeds::default();
        while !stop.is_cancelled() {
            let units = self.units().await;
            for unit in deeds.count(units).unwrap_or_default() {
                if let Some(order) = self.choose(&unit, &mut deeds).await {
                    let taken = self.api.order(&unit.id, order).await;
                    deeds.orders += u64::from(deeds.count(taken).is_some());
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
        deeds
    }

    async fn choose(&mut self, unit: &Unit, deeds: &mut Deeds) -> Option<Value> {
        if unit.order["kind"] != "hold" {
            return None;
        }
        match self.dice.random_range(0..4) {
            0 => {
                let looked = self.api.chunks(&[unit.at.chunk()]).await;
                let wood = find_wood(&deeds.count(looked)?)?;
                Some(json!({"kind": "chop", "at": place(wood)}))
            }
            1 => Some(json!({"kind": "mine", "at": self.near(unit, 1, 0, -1)})),
            2 => Some(json!({"kind": "build", "at": self.near(unit, 0, 1, 0), "block": "planks"})),
            _ => {
                let (dx, dy) = (self.dice.random_range(-8..=8), self.dice.random_range(-8..=8));
                Some(json!({"kind": "move", "to": self.near(unit, dx, dy, 0)}))
            }
        }
    }

    /// A place this far from a unit, or as far as the world goes.
    fn near(&self, unit: &Unit, dx: i32, dy: i32, dz: i32) -> Value {
        let inside = |along: i32| along.clamp(-16 * self.radius, 16 * self.radius + 15);
        let Place { x, y, z } = unit.at;
        place(Place { x: inside(x + dx), y: inside(y + dy), z: (z + dz).max(0) })
    }
}

fn place(at: Place) -> Value {
    json!({"x": at.x, "y": at.y, "z": at.z})
}

fn around(at: Place) -> Vec<(i32, i32)> {
    let (x, y) = at.chunk();
    (-1..=1).flat_map(|dx| (-1..=1).map(move |dy| (x + dx, y + dy))).collect()
}

/// The lowest block of wood in the chunks.
fn find_wood(chunks: &[Blocks]) -> Option<Place> {
    chunks.iter().flat_map(Blocks::iter).find(|(_, name)| *name == "wood").map(|(at, _)| at)
}
