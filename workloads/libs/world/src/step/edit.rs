//! Stage edit: blocks change, blows land, goods are paid, forwarded orders arrive, new units appear. Moves nobody.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;
use fortia_proto::tick::v1 as pb;
use fortia_proto::world::v1::{Action, action};
use fortia_vec::{BlockPos, ChunkPos, LocalPos, RegionPos};
use rayon::prelude::*;

use super::observe::{Heard, in_order};
use super::task::{OCCUPIED, TOO_LATE};
use super::{StepError, Territory, letter};
use crate::block::Block;
use crate::chunk::Column;
use crate::entity::{Due, Entity, Event, Kind};
use crate::{rules, wire};

/// An edit as a letter brought it.
struct Edit<'a> {
    /// Where in its chunk; none outside the world's height.
    place: Option<LocalPos>,
    order: (u64, u64),
    from: RegionPos,
    expect: Block,
    put: Block,
    site: Option<Box<pb::Site>>,
    /// What brought it, and takes the answer back: letters are many, and none is made or moved for that.
    letter: &'a mut pb::Letter,
}

/// The edits of one chunk.
struct Edits<'a> {
    at: ChunkPos,
    /// The letters that bring them.
    letters: Vec<&'a mut pb::Letter>,
    /// The chunk, while they are tried.
    column: Option<Column>,
    /// The blocks that were changed, as they were before; ascending.
    before: Vec<(LocalPos, Block)>,
    /// Where which buildings begin.
    sites: Vec<(Kind, BlockPos, Box<pb::Site>)>,
}

/// The letters to regions of a territory, in the order in which they take effect.
#[derive(Default)]
struct Mail {
    edits: Vec<pb::Letter>,
    strikes: Vec<(RegionPos, pb::Strike)>,
    pays: Vec<(RegionPos, pb::Pay)>,
    unloads: Vec<(RegionPos, pb::Unload)>,
    forwarded: BTreeMap<RegionPos, Vec<Action>>,
    approached: Vec<(RegionPos, ChunkPos)>,
}

impl Territory {
    /// Stage edit of a tick: takes the letters of stage observe and returns those for stage move, answers to edits first.
    ///
    /// # Errors
    /// As [`Territory::observe`].
    pub fn edit(&mut self, tick: u64, inbox: Vec<pb::Letter>) -> Result<Vec<pb::Letter>, StepError> {
        let mail = self.sort(inbox)?;
        let mut outbox = mail.edits;
        self.try_all(tick, &mut outbox)?;
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

    fn sort(&self, mut inbox: Vec<pb::Letter>) -> Result<Mail, StepError> {
        let mut mail = Mail::default();
        let is_edit = |letter: &pb::Letter| matches!(letter.kind, Some(pb::letter::Kind::Edit(_)));
        for letter in inbox.extract_if(.., |letter| !is_edit(letter)) {
            match self.open(letter, "edit")? {
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
        mail.edits = inbox;
        mail.strikes.sort_by_key(|(_, strike)| (strike.id, strike.unit));
        mail.pays.sort_by_key(|(_, pay)| (pay.id, pay.unit));
        Ok(mail)
    }

    /// Tries edits, and puts the answers in the place of the letters that brought them.
    fn try_all(&mut self, tick: u64, letters: &mut [pb::Letter]) -> Result<(), StepError> {
        let mut tried = self.by_chunk(letters)?;
        // Columns are taken out to be changed in place, and edits of different chunks have nothing to do with each other.
        for edits in &mut tried {
            let column = self.columns.get_mut(&edits.at);
            edits.column = column.map(|column| std::mem::replace(column, Column::empty(edits.at)));
        }
        tried.par_iter_mut().try_for_each(|edits| self.attempt(edits))?;
        tried.into_iter().for_each(|edits| self.accept(tick, edits));
        Ok(())
    }

    /// The edits by chunk, ascending.
    fn by_chunk<'a>(&self, letters: &'a mut [pb::Letter]) -> Result<Vec<Edits<'a>>, StepError> {
        let mut all = Vec::<Edits>::new();
        // Units ask in no order of places: letters are dealt to their chunks, not sorted.
        let mut known: HashMap<ChunkPos, usize, RandomState> = HashMap::default();
        for letter in letters {
            let at = chunk(letter).ok_or_else(|| astray(letter))?;
            let place = match known.entry(at) {
                Entry::Occupied(place) => *place.get(),
                Entry::Vacant(_) if !self.owns(at.region()) => return Err(StepError::NotOwned(at.region())),
                Entry::Vacant(place) => {
                    all.push(Edits::new(at));
                    *place.insert(all.len() - 1)
                }
            };
            all[place].letters.push(letter);
        }
        all.sort_unstable_by_key(|edits| edits.at);
        Ok(all)
    }

    /// Tries the edits of one chunk in their order: each changes its block if that still is what the unit saw.
    fn attempt(&self, tried: &mut Edits<'_>) -> Result<(), StepError> {
        let Edits { at, letters, column, before, sites } = tried;
        let occupied = column.as_ref().map(|column| self.occupied(column)).unwrap_or_default();
        let letters = std::mem::take(letters).into_iter();
        let mut edits = letters.map(|letter| Edit::read(*at, letter)).collect::<Result<Vec<_>, _>>()?;
        // Edits of different blocks have nothing to do with each other either.
        edits.sort_by_key(|edit| (edit.place, edit.order));
        before.reserve(edits.len());
        for edit in edits {
            let refused = match edit.place.zip(column.as_mut()) {
                Some((place, column)) if column.get(place) == edit.expect => {
                    let block = at.block(place);
                    let blocked = edit.put.is_solid() && occupied.binary_search(&block).is_ok();
                    if !blocked {
                        column.set(place, edit.put);
                        if before.last().is_none_or(|(last, _)| *last != place) {
                            before.push((place, edit.expect));
                        }
                        // Buildings occupy nothing, so that no edit of this tick is about one that begins in it.
                        sites.extend(
                            Kind::of_block(edit.put).zip(edit.site).map(|(kind, site)| (kind, block, site)),
                        );
                    }
                    blocked.then_some(OCCUPIED)
                }
                _ => Some(TOO_LATE),
            };
            *edit.letter = answer(edit.order.1, edit.from, edit.expect, refused);
        }
        Ok(())
    }

    /// Puts a chunk back as its edits left it.
    fn accept(&mut self, tick: u64, tried: Edits<'_>) {
        if let (Some(column), Some(place)) = (tried.column, self.columns.get_mut(&tried.at)) {
            *place = column;
        }
        // What changes nothing must not be written.
        if !tried.before.is_empty() {
            // Nothing changed a block before in this tick.
            self.before.insert(tried.at, tried.before);
        }
        for (kind, at, site) in tried.sites {
            self.begin(tick, kind, at, &site);
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

    /// The blocks of a column in which units have their feet or heads, ascending.
    fn occupied(&self, column: &Column) -> Vec<BlockPos> {
        let units = column
            .entities()
            .iter()
            .filter_map(|id| self.entities.get(id))
            .filter(|unit| unit.kind.is_unit());
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

impl Edits<'_> {
    fn new(at: ChunkPos) -> Self {
        Edits { at, letters: Vec::new(), column: None, before: Vec::new(), sites: Vec::new() }
    }
}

impl<'a> Edit<'a> {
    /// Reads an edit of this chunk.
    fn read(chunk: ChunkPos, letter: &'a mut pb::Letter) -> Result<Edit<'a>, StepError> {
        let stray = StepError::Letter(chunk.region(), "edit");
        let to = letter.to.as_ref().map(wire::to_region_pos).ok_or(StepError::NoRegion)?;
        let Some(pb::letter::Kind::Edit(edit)) = &mut letter.kind else { return Err(stray) };
        let read = |edit: &mut pb::Edit| {
            let at = edit.at.as_ref().map(wire::to_block_pos)?;
            Some((
                at.local().filter(|local| local.z < crate::HEIGHT),
                (edit.id, edit.unit),
                edit.from.as_ref().map(wire::to_block_pos)?.region(),
                Block::from_kind(edit.expect)?,
                Block::from_kind(edit.put)?,
                edit.site.take(),
            ))
        };
        let read = read(edit).filter(|_| to == chunk.region());
        let (place, order, from, expect, put, site) = read.ok_or(stray)?;
        Ok(Edit { place, order, from, expect, put, site, letter })
    }
}

/// The chunk that an edit is of.
fn chunk(letter: &pb::Letter) -> Option<ChunkPos> {
    match &letter.kind {
        Some(pb::letter::Kind::Edit(edit)) => edit.at.as_ref().map(|at| wire::to_block_pos(at).chunk()),
        _ => None,
    }
}

/// An edit that says not where.
fn astray(letter: &pb::Letter) -> StepError {
    let to = letter.to.as_ref().map(wire::to_region_pos);
    to.map_or(StepError::NoRegion, |to| StepError::Letter(to, "edit"))
}

/// What a unit is told that stands in this region.
fn answer(unit: u64, to: RegionPos, expect: Block, refused: Option<&str>) -> pb::Letter {
    let outcome = pb::Outcome {
        unit,
        done: refused.is_none(),
        taken: if refused.is_none() { expect.kind() } else { 0 },
        reason: refused.unwrap_or_default().to_owned(),
        ..pb::Outcome::default()
    };
    letter(to, pb::letter::Kind::Outcome(outcome))
}
