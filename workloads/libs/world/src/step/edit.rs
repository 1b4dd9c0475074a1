//! Stage edit: blocks change, forwarded orders arrive, new units appear. Moves nobody.

use std::collections::BTreeMap;

use fortia_proto::tick::v1 as pb;
use fortia_proto::world::v1::{Action, Spawn, action};
use fortia_vec::{BlockPos, RegionPos};

use super::observe::{Heard, in_order};
use super::rules::{OCCUPIED, TOO_LATE};
use super::view::{self, View};
use super::{Territory, letter};
use crate::block::Block;
use crate::entity::Entity;
use crate::wire;

/// Units one action may create.
const SPAWN_LIMIT: usize = 16;
/// How far from the ordered place new units may stand, in blocks.
const SPAWN_REACH: i32 = 3;

/// An edit as a letter brought it.
struct Edit {
    order: (u32, u64, u64),
    from: BlockPos,
    at: BlockPos,
    expect: Block,
    put: Block,
}

impl Territory {
    /// Stage edit of a tick: takes the letters of stage observe and returns those for stage move.
    pub fn edit(&mut self, tick: u64, inbox: Vec<pb::Letter>) -> Vec<pb::Letter> {
        // The rules of this stage do not depend on the tick; its order was put into the letters.
        let _ = tick;
        let mut edits = Vec::new();
        let mut forwarded = BTreeMap::<RegionPos, Vec<Action>>::new();
        for letter in inbox {
            let Some(to) = letter.to.as_ref().map(wire::to_region_pos).filter(|to| self.owns(*to)) else {
                continue;
            };
            match letter.kind {
                Some(pb::letter::Kind::Edit(edit)) => {
                    edits.extend(Edit::read(&edit).filter(|edit| edit.at.region() == to));
                }
                Some(pb::letter::Kind::Forward(action)) => forwarded.entry(to).or_default().push(action),
                _ => {}
            }
        }
        edits.sort_by_key(|edit| edit.order);
        let outbox = edits.iter().map(|edit| self.apply(edit)).collect();
        for (region, actions) in &forwarded {
            for action in in_order(actions) {
                self.receive_forwarded(*region, action);
            }
        }
        outbox
    }

    /// Changes the block if it still is what the unit saw; tells the unit what became of it.
    fn apply(&mut self, edit: &Edit) -> pb::Letter {
        let refused = if self.block(edit.at) != Some(edit.expect) {
            Some(TOO_LATE)
        } else if edit.put.is_solid() && self.is_occupied(edit.at) {
            Some(OCCUPIED)
        } else {
            None
        };
        if refused.is_none()
            && let (Some(local), Some(column)) = (edit.at.local(), self.column_mut(edit.at.chunk()))
        {
            column.set(local, edit.put);
            self.edited.insert(edit.at);
        }
        let outcome = pb::Outcome {
            unit: edit.order.2,
            done: refused.is_none(),
            taken: if refused.is_none() { edit.expect.kind() } else { 0 },
            reason: refused.unwrap_or_default().to_owned(),
        };
        letter(edit.from.region(), pb::letter::Kind::Outcome(outcome))
    }

    /// Whether a unit has its feet or head in the block. All units of a column are in the column's region.
    fn is_occupied(&self, at: BlockPos) -> bool {
        let Some(column) = self.columns.get(&at.chunk()) else { return false };
        let units = column.entities().iter().filter_map(|id| self.entities.get(id));
        units.into_iter().any(|unit| unit.at == at || unit.at.up() == at)
    }

    fn receive_forwarded(&mut self, region: RegionPos, action: &Action) {
        match &action.kind {
            Some(action::Kind::Command(command)) => {
                let heard = self.command(region, &action.player, command);
                if heard == Heard::Taken && self.pending.contains_key(&command.unit) {
                    self.redirected.insert(command.unit);
                }
            }
            Some(action::Kind::Spawn(spawn)) if spawn.owner == action.player => self.spawn(region, spawn),
            _ => {}
        }
    }

    /// Creates the units of a spawn that do not exist yet, each on a free cell of its own near the place.
    /// A repeated spawn is harmless as long as the units of the first are near; the game sends one a player.
    fn spawn(&mut self, region: RegionPos, spawn: &Spawn) {
        let Some(at) = spawn.at.as_ref().map(wire::to_block_pos) else { return };
        if spawn.owner.is_empty() || at.region() != region || !at.chunk().is_within(self.radius) {
            return;
        }
        let mut cells = self.landings(at).into_iter();
        for id in spawn.units.iter().take(SPAWN_LIMIT) {
            let here = self.entities.get(id).is_some_and(|unit| unit.at.region() == region);
            if here || View::new(self, at).lists(*id) {
                continue;
            }
            let cell = cells.next().unwrap_or_else(|| self.settled(at));
            self.stow(Entity::handyman(*id, &spawn.owner, cell), None);
        }
    }

    /// Free dry cells of the same region near a place, nearest first.
    fn landings(&self, at: BlockPos) -> Vec<BlockPos> {
        let near = -SPAWN_REACH..=SPAWN_REACH;
        let mut columns: Vec<(i32, i32)> =
            near.clone().flat_map(|x| near.clone().map(move |y| (x, y))).collect();
        columns.sort_by_key(|(x, y)| (x * x + y * y, *x, *y));
        let block = |at: BlockPos| self.solid_or_block(at);
        let cell = |(x, y): (i32, i32)| {
            let heights = [0, 1, -1, 2, -2, 3, -3].into_iter().map(|z| at.offset(x, y, z));
            let mut here = heights.filter(|cell| cell.region() == at.region());
            here.find(|cell| view::is_free(block, *cell) && block(*cell) != Block::Water)
        };
        columns.into_iter().filter_map(cell).collect()
    }

    /// Where a unit there ends up now; see [`view::settle`].
    pub(super) fn settled(&self, at: BlockPos) -> BlockPos {
        view::settle(|at| self.solid_or_block(at), at)
    }

    /// The block there now; above the world air, and rock where nothing is known.
    fn solid_or_block(&self, at: BlockPos) -> Block {
        let above = at.z >= i32::from(crate::HEIGHT) && at.chunk().is_within(self.radius);
        self.block(at).unwrap_or(if above { Block::Air } else { Block::Bedrock })
    }
}

impl Edit {
    fn read(edit: &pb::Edit) -> Option<Edit> {
        Some(Edit {
            order: (edit.priority, edit.id, edit.unit),
            from: edit.from.as_ref().map(wire::to_block_pos)?,
            at: edit.at.as_ref().map(wire::to_block_pos)?,
            expect: Block::from_kind(edit.expect)?,
            put: Block::from_kind(edit.put)?,
        })
    }
}
