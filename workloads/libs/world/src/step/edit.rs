//! Stage edit: blocks change, blows land, goods are paid, forwarded orders arrive, new units appear. Moves nobody.

use std::collections::BTreeMap;

use fortia_proto::tick::v1 as pb;
use fortia_proto::world::v1::{Action, action};
use fortia_vec::{BlockPos, ChunkPos, RegionPos};
use rayon::prelude::*;

use super::observe::{Heard, in_order};
use super::task::{OCCUPIED, TOO_LATE};
use super::{StepError, Territory, letter};
use crate::block::Block;
use crate::chunk::Column;
use crate::entity::{Due, Entity, Event, Kind};
use crate::{rules, wire};

/// An edit as a letter brought it.
struct Edit {
    order: (u64, u64),
    from: BlockPos,
    at: BlockPos,
    expect: Block,
    put: Block,
    site: Option<Box<pb::Site>>,
}

/// What came of the edits of one chunk.
struct Tried<'a> {
    /// The chunk, as the edits left it.
    column: Option<Column>,
    /// Those that were made.
    done: Vec<&'a Edit>,
    answers: Vec<pb::Letter>,
}

/// The letters to regions of a territory, in the order in which they take effect.
#[derive(Default)]
struct Mail {
    edits: Vec<Edit>,
    strikes: Vec<(RegionPos, pb::Strike)>,
    pays: Vec<(RegionPos, pb::Pay)>,
    unloads: Vec<(RegionPos, pb::Unload)>,
    forwarded: BTreeMap<RegionPos, Vec<Action>>,
    approached: Vec<(RegionPos, ChunkPos)>,
}

impl Territory {
    /// Stage edit of a tick: takes the letters of stage observe and returns those for stage move.
    ///
    /// # Errors
    /// As [`Territory::observe`].
    pub fn edit(&mut self, tick: u64, inbox: Vec<pb::Letter>) -> Result<Vec<pb::Letter>, StepError> {
        let mail = self.sort(inbox)?;
        let mut outbox = Vec::with_capacity(mail.edits.len());
        // Edits of different chunks have nothing to do with each other.
        let by_chunk = mail.edits.par_chunk_by(|a, b| a.at.chunk() == b.at.chunk());
        let tried: Vec<Tried> = by_chunk.map(|edits| self.attempt(edits)).collect();
        for tried in tried {
            self.accept(tick, tried, &mut outbox);
        }
        outbox.extend(mail.pays.iter().filter_map(|(to, pay)| self.pay(*to, pay)));
        outbox.extend(mail.unloads.iter().filter_map(|(to, unload)| self.unload(*to, unload)));
        outbox.extend(mail.strikes.iter().filter_map(|(to, strike)| self.strike(tick, *to, strike)));
        for (region, actions) in &mail.forwarded {
            for action in in_order(actions) {
                self.receive_forwarded(*region, action);
            }
        }
        self.complete(tick);
        mail.approached.into_iter().for_each(|(to, at)| self.make(to, at));
        self.sound(outbox)
    }

    fn sort(&self, inbox: Vec<pb::Letter>) -> Result<Mail, StepError> {
        let mut mail = Mail::default();
        for letter in inbox {
            match self.open(letter, "edit")? {
                (to, pb::letter::Kind::Edit(edit)) => {
                    let edit = Edit::read(edit).filter(|edit| edit.at.region() == to);
                    mail.edits.push(edit.ok_or(StepError::Letter(to, "edit"))?);
                }
                (to, pb::letter::Kind::Strike(strike)) => mail.strikes.push((to, *strike)),
                (to, pb::letter::Kind::Pay(pay)) => mail.pays.push((to, *pay)),
                (to, pb::letter::Kind::Unload(unload)) => mail.unloads.push((to, *unload)),
                (to, pb::letter::Kind::Forward(action)) => {
                    mail.forwarded.entry(to).or_default().push(*action)
                }
                (to, pb::letter::Kind::Approached(at)) => {
                    mail.approached.push((to, wire::to_chunk_pos(&at)));
                }
                (to, _) => return Err(StepError::Letter(to, "edit")),
            }
        }
        mail.edits.par_sort_by_key(|edit| (edit.at.chunk(), edit.order));
        mail.strikes.sort_by_key(|(_, strike)| (strike.id, strike.unit));
        mail.pays.sort_by_key(|(_, pay)| (pay.id, pay.unit));
        Ok(mail)
    }

    /// Tries the edits of one chunk in their order: each changes its block if that still is what the unit saw.
    fn attempt<'a>(&self, edits: &'a [Edit]) -> Tried<'a> {
        let at = edits[0].at.chunk();
        let occupied = self.occupied(at);
        let mut tried = Tried {
            // Copies share their blocks until one is changed; what changes nothing must not be written.
            column: self.columns.get(&at).cloned(),
            done: Vec::with_capacity(edits.len()),
            answers: Vec::with_capacity(edits.len()),
        };
        for edit in edits {
            let local = edit.at.local().filter(|local| local.z < crate::HEIGHT);
            let refused = match local.zip(tried.column.as_mut()) {
                Some((local, column)) if column.get(local) == edit.expect => {
                    let blocked = edit.put.is_solid() && occupied.binary_search(&edit.at).is_ok();
                    if !blocked {
                        column.set(local, edit.put);
                        tried.done.push(edit);
                    }
                    blocked.then_some(OCCUPIED)
                }
                _ => Some(TOO_LATE),
            };
            tried.answers.push(edit.answer(refused));
        }
        tried
    }

    /// Puts what came of a chunk's edits into the territory, and tells the units.
    fn accept(&mut self, tick: u64, tried: Tried, outbox: &mut Vec<pb::Letter>) {
        outbox.extend(tried.answers);
        if let (Some(column), [_, ..]) = (tried.column, &tried.done[..]) {
            self.replace(column);
        }
        self.edited.extend(tried.done.iter().map(|edit| edit.at));
        for edit in tried.done {
            // Buildings occupy nothing, so that no edit of this tick is about one that begins in it.
            if let (Some(kind), Some(site)) = (Kind::of_block(edit.put), &edit.site) {
                self.begin(tick, kind, edit.at, site);
            }
        }
    }

    /// A building begins to rise where its block was put.
    fn begin(&mut self, tick: u64, kind: Kind, at: BlockPos, site: &pb::Site) {
        let camp = site.camp.as_ref().map_or(at, wire::to_block_pos);
        let mut building = Entity::new(kind, site.building, &site.owner, at, camp);
        let ticks = kind.block().and_then(rules::building).map_or(0, |product| product.ticks);
        building.due = Some(Due { event: Event::Raised, tick: tick + ticks.max(1) });
        self.bear(building);
    }

    /// The blocks of a chunk in which units have their feet or heads, ascending.
    fn occupied(&self, at: ChunkPos) -> Vec<BlockPos> {
        let ids = self.columns.get(&at).into_iter().flat_map(|column| column.entities());
        let units = ids.filter_map(|id| self.entities.get(id)).filter(|unit| unit.kind.is_unit());
        let mut blocks: Vec<BlockPos> = units.flat_map(|unit| [unit.at, unit.at.up()]).collect();
        blocks.sort_unstable();
        blocks
    }

    /// Whether a unit has its feet or head in the block. All units of a column are in the column's region.
    pub(super) fn is_occupied(&self, at: BlockPos) -> bool {
        let Some(column) = self.columns.get(&at.chunk()) else { return false };
        let units = column.entities().iter().filter_map(|id| self.entities.get(id));
        units.into_iter().any(|unit| occupies(unit, at))
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
}

/// Whether the unit has its feet or head in the block.
pub(super) fn occupies(unit: &Entity, at: BlockPos) -> bool {
    unit.kind.is_unit() && (unit.at == at || unit.at.up() == at)
}

impl Edit {
    /// What the unit is told.
    fn answer(&self, refused: Option<&str>) -> pb::Letter {
        let outcome = pb::Outcome {
            unit: self.order.1,
            done: refused.is_none(),
            taken: if refused.is_none() { self.expect.kind() } else { 0 },
            reason: refused.unwrap_or_default().to_owned(),
            ..pb::Outcome::default()
        };
        letter(self.from.region(), pb::letter::Kind::Outcome(outcome))
    }

    fn read(edit: pb::Edit) -> Option<Edit> {
        Some(Edit {
            order: (edit.id, edit.unit),
            from: edit.from.as_ref().map(wire::to_block_pos)?,
            at: edit.at.as_ref().map(wire::to_block_pos)?,
            expect: Block::from_kind(edit.expect)?,
            put: Block::from_kind(edit.put)?,
            site: edit.site,
        })
    }
}
