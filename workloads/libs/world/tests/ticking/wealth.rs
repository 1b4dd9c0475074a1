//! An account of all wood and stone: what a tick may add and take, seen from what it did to blocks, camps and barracks.

// What a test stands on may end it: nothing here reads outside input.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use fortia_world::block::Block;
use fortia_world::chunk::Column;
use fortia_world::entity::{Entity, Event, Kind};
use fortia_world::goods::Goods;
use fortia_world::rules;

use crate::cluster::Cluster;

/// Pieces of wood and of stone; what is spent is negative.
type Pieces = [i64; 2];

fn pieces(goods: Goods) -> Pieces {
    [i64::from(goods.wood), i64::from(goods.stone)]
}

fn add(sum: &mut Pieces, goods: Goods, times: i64) {
    let [wood, stone] = pieces(goods);
    sum[0] += times * wood;
    sum[1] += times * stone;
}

/// One tick's account.
#[derive(Debug, Default)]
pub(crate) struct Account {
    before: Pieces,
    after: Pieces,
    /// By blocks mined and built, units trained and camps pitched.
    earned: Pieces,
    /// What the dead had, or was on its way to their hands: so much may be lost at most.
    lost: Pieces,
    pub(crate) deaths: u64,
}

impl Account {
    /// The account of the tick between two states of one world.
    pub(crate) fn of(before: &Cluster, after: &Cluster) -> Account {
        let mut account =
            Account { before: total(&before.entities), after: total(&after.entities), ..Account::default() };
        for is in &after.written.columns {
            let was = Column::decode(&before.chunks[&is.at()]).unwrap();
            for (was, is) in was.blocks().zip(is.blocks()).filter(|(was, is)| was != is) {
                if is == Block::Air {
                    add(&mut account.earned, rules::yields(was), 1);
                }
                add(&mut account.earned, rules::building(is).map_or(Goods::NONE, |it| it.cost), -1);
            }
        }
        for (id, bytes) in &after.written.entities {
            let is = Entity::decode(bytes).unwrap();
            let was = before.entities.get(id).map(|bytes| Entity::decode(bytes).unwrap());
            account.of_entity(was.as_ref(), &is);
        }
        account
    }

    fn of_entity(&mut self, was: Option<&Entity>, is: &Entity) {
        let trains = |it: &Entity| it.due.is_some_and(|due| due.event == Event::Trained);
        let Some(was) = was else {
            if is.kind == Kind::Camp {
                add(&mut self.earned, rules::FIRST_STOCK, 1);
            }
            return;
        };
        if trains(is) && !trains(was) {
            add(&mut self.earned, rules::RECRUITS[0].cost, -1);
        }
        if is.is_dead() && !was.is_dead() {
            self.deaths += 1;
            add(&mut self.lost, was.goods, 1);
            let dearest = rules::BUILDINGS.iter().map(|it| it.cost).max_by_key(|cost| cost.pieces());
            add(&mut self.lost, dearest.unwrap().plus(Goods::new(1, 1)), 1);
        }
    }

    /// Whether there was anything to count.
    pub(crate) fn trades(&self) -> bool {
        self.earned != [0, 0]
    }

    /// Checks that all goods are accounted for: exactly, unless somebody died.
    pub(crate) fn check(&self) -> Result<(), String> {
        for i in 0..2 {
            let least = self.before[i] + self.earned[i] - self.lost[i];
            if !(least..=least + self.lost[i]).contains(&self.after[i]) {
                return Err(format!("goods were made or lost: {self:?}"));
            }
        }
        Ok(())
    }
}

/// All there is in hands and stocks.
fn total(entities: &BTreeMap<u64, Vec<u8>>) -> Pieces {
    let mut sum = [0, 0];
    entities.values().for_each(|bytes| add(&mut sum, Entity::decode(bytes).unwrap().goods, 1));
    sum
}
