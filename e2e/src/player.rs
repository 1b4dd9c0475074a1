//! A player: registers, logs in, joins, enters, looks, and orders its units to move, chop, mine and build, its barracks to
//! train and its fighters to attack until told to stop. Knows the public REST API only; its choices follow from its seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::api::{Api, ApiError, Holdings, Place, Stock, Unit};
use crate::blocks::Blocks;

/// What players did, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deeds {
    /// Orders taken by the world.
    pub orders: u64,
    /// Orders put off because the world took no writes just then, or the unit no orders.
    pub put_off: u64,
    /// Requests that failed otherwise.
    pub failed: u64,
    /// What the last of them said.
    pub last_failure: Option<String>,
    /// Times somebody had to log in again, because the session was not known any more.
    pub returns: u64,
}

impl Deeds {
    /// Adds another player's.
    pub fn add(&mut self, other: Deeds) {
        self.orders += other.orders;
        self.put_off += other.put_off;
        self.failed += other.failed;
        self.returns += other.returns;
        self.last_failure = other.last_failure.or(self.last_failure.take());
    }

    fn count<T>(&mut self, result: Result<T, ApiError>) -> Option<T> {
        match result {
            Ok(value) => return Some(value),
            // A unit may die, or its target, between the look and the order.
            Err(error)
                if [StatusCode::SERVICE_UNAVAILABLE, StatusCode::CONFLICT]
                    .map(Some)
                    .contains(&error.status()) =>
            {
                self.put_off += 1;
            }
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
    /// Whether the player has barracks, or has ordered some.
    armed: bool,
    /// Radius of the world, in chunks.
    radius: i32,
    /// Whether the player has to log in and join again: nobody knows the session.
    outside: bool,
    dice: StdRng,
}

/// How a player came in.
struct Entry {
    /// The account was not there before.
    is_new: bool,
    at: Place,
    radius: i32,
}

impl Player {
    /// Registers the account if it is new, logs in, joins and enters the world.
    ///
    /// # Errors
    /// When one of these is refused.
    pub async fn enter(mut api: Api, name: &str, seed: u64) -> Result<Player, ApiError> {
        let Entry { at, radius, .. } = go_in(&mut api, name).await?;
        let dice = StdRng::seed_from_u64(seed);
        Ok(Player { api, name: name.into(), at, armed: false, radius, outside: false, dice })
    }

    /// The player's session.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Where the player's first unit was last seen.
    pub fn at(&self) -> Place {
        self.at
    }

    /// The player's handymen and fighters, handymen first.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn units(&mut self) -> Result<Vec<Unit>, ApiError> {
        Ok(self.holdings().await?.units)
    }

    /// What the player has, handymen first.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn holdings(&mut self) -> Result<Holdings, ApiError> {
        let mut holdings = self.api.units().await?;
        holdings.units.sort_by_key(|unit| unit.kind != "handyman");
        if let Some(first) = holdings.units.first() {
            self.at = first.at;
        }
        self.armed |= holdings.buildings.iter().any(|building| building.kind == "barracks");
        Ok(holdings)
    }

    /// Looks around and gives idle units an order, about once in `pause`, until told to stop. A world that was replaced by a
    /// new one is entered anew; `news` gets a line about that.
    pub async fn play(
        mut self,
        pause: Duration,
        stop: CancellationToken,
        news: UnboundedSender<String>,
    ) -> Deeds {
        let mut deeds = Deeds::default();
        while !stop.is_cancelled() {
            if self.outside {
                self.come_back(&mut deeds, &news).await;
            } else {
                self.act(&mut deeds).await;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
        deeds
    }

    async fn act(&mut self, deeds: &mut Deeds) {
        let held = self.holdings().await;
        if let Err(error) = &held
            && error.status() == Some(StatusCode::UNAUTHORIZED)
        {
            self.outside = true;
            return;
        }
        let Some(held) = deeds.count(held) else { return };
        for unit in held.units.iter().chain(&held.buildings).filter(|unit| unit.is_idle()) {
            if let Some(order) = self.choose(unit, held.stock, deeds).await {
                let taken = self.api.order(&unit.id, order).await;
                deeds.orders += u64::from(deeds.count(taken).is_some());
            }
        }
    }

    /// Logs in and joins again; what cannot be done now is tried again at the next turn.
    async fn come_back(&mut self, deeds: &mut Deeds, news: &UnboundedSender<String>) {
        let entry = go_in(&mut self.api, &self.name).await;
        let Some(Entry { is_new, at, radius }) = deeds.count(entry) else { return };
        (self.at, self.radius, self.outside) = (at, radius, false);
        self.armed &= !is_new;
        deeds.returns += 1;
        let name = &self.name;
        let line = match is_new {
            true => format!(
                "the world was replaced by a new one, which does not know {name}: registered, logged in and joined anew"
            ),
            false => format!("the session of {name} had ended: logged in again"),
        };
        // Nobody may be listening.
        let _ = news.send(line);
    }

    async fn choose(&mut self, unit: &Unit, stock: Stock, deeds: &mut Deeds) -> Option<Value> {
        match unit.kind.as_str() {
            "handyman" => self.toil(unit, stock, deeds).await,
            "fighter" => self.fight(unit, deeds).await,
            "barracks" => {
                let often = stock.wood >= 4 && stock.stone >= 4 && self.dice.random_range(0..8) == 0;
                often.then(|| json!({"kind": "train", "recruit": "fighter"}))
            }
            _ => None,
        }
    }

    async fn toil(&mut self, unit: &Unit, stock: Stock, deeds: &mut Deeds) -> Option<Value> {
        if !self.armed && stock.wood >= 10 && stock.stone >= 8 {
            self.armed = true;
            let at = self.near(unit, 2, 1, 0);
            return Some(json!({"kind": "build", "at": at, "block": "barracks"}));
        }
        match self.dice.random_range(0..5) {
            0 => {
                let looked = self.api.chunks(&[unit.at.chunk()]).await;
                let wood = find_wood(&deeds.count(looked)?)?;
                Some(json!({"kind": "chop", "at": place(wood)}))
            }
            1 => Some(json!({"kind": "mine", "at": self.near(unit, 1, 0, -1)})),
            2 => Some(json!({"kind": "build", "at": self.near(unit, 0, 1, 0), "block": "planks"})),
            3 => Some(self.stroll(unit)),
            _ if self.dice.random_range(0..20) == 0 => {
                Some(json!({"kind": "build", "at": self.near(unit, 1, 1, 0), "block": "house"}))
            }
            _ => Some(self.stroll(unit)),
        }
    }

    /// Attacks a stranger in sight now and then.
    async fn fight(&mut self, unit: &Unit, deeds: &mut Deeds) -> Option<Value> {
        if self.dice.random_range(0..4) > 0 {
            return Some(self.stroll(unit));
        }
        let seen = self.api.entities(&around(unit.at)).await;
        let seen = deeds.count(seen)?;
        let foe = |it: &&Unit| it.owner != self.name && it.kind != "camp" && it.health > 0;
        let foes: Vec<&Unit> = seen.iter().filter(foe).collect();
        match foes.is_empty() {
            true => Some(self.stroll(unit)),
            false => {
                Some(json!({"kind": "attack", "target": foes[self.dice.random_range(0..foes.len())].id}))
            }
        }
    }

    fn stroll(&mut self, unit: &Unit) -> Value {
        let (dx, dy) = (self.dice.random_range(-8..=8), self.dice.random_range(-8..=8));
        json!({"kind": "move", "to": self.near(unit, dx, dy, 0)})
    }

    /// A place this far from a unit, or as far as the world goes.
    fn near(&self, unit: &Unit, dx: i32, dy: i32, dz: i32) -> Value {
        let inside = |along: i32| along.clamp(-16 * self.radius, 16 * self.radius + 15);
        let Place { x, y, z } = unit.at;
        place(Place { x: inside(x + dx), y: inside(y + dy), z: (z + dz).max(0) })
    }
}

/// Registers the account if it is new, logs in, joins and enters the world.
async fn go_in(api: &mut Api, name: &str) -> Result<Entry, ApiError> {
    let password = format!("{name}-password");
    let is_new = match api.register(name, &password).await {
        Err(error) if error.status() != Some(StatusCode::CONFLICT) => return Err(error),
        registered => registered.is_ok(),
    };
    api.login(name, &password).await?;
    let joined = api.join().await?;
    api.enter().await?;
    let at = serde_json::from_value(joined["start"].clone()).unwrap_or(Place { x: 0, y: 0, z: 0 });
    Ok(Entry { is_new, at, radius: api.info().await?.radius })
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
