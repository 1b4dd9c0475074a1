//! The strategy `Lock`: edits become claims on blocks in a table that all tickers share, and the table becomes edits and
//! refusals again. Pure: knows what a claim says, not where the table is or how its locks are taken.
//!
//! It gives the bytes that the strategy `Queue` gives. There, the edits of a block are tried in the order of (id,
//! unit); each expects the block of the tick before, which every unit sees alike, and changes it. So exactly one
//! succeeds: the first that nobody stands in the way of. All after it come too late, all before it were blocked. Who
//! stands where is fixed until stage move. So it is enough that each ticker leaves out the edits that are blocked, and
//! that of the others the first in that order stays in the table, whoever was first to claim.

use std::collections::{BTreeMap, BTreeSet};

use fortia_proto::tick::v1 as pb;
use fortia_vec::{BlockPos, ChunkPos, LocalPos};
use prost::Message;

use super::edit::occupies;
use super::task::{OCCUPIED, TOO_LATE};
use super::{StepError, Territory, letter};
use crate::block::Block;
use crate::entity::Entity;
use crate::wire;

/// Digits of a claim's rank; the shards compare so many characters.
pub const RANK: usize = 32;

/// A block's number in its chunk: what a claim is on.
pub type BlockId = u32;

/// The claims on blocks of one chunk, ascending: each begins with its rank, [`RANK`] digits.
pub type Claims = Vec<(BlockId, Vec<u8>)>;

/// What the table says of one chunk, once all have claimed: the edit that won each block.
pub type Won = BTreeMap<BlockId, pb::Edit>;

/// The edits that the units of one territory ask for in one tick.
#[derive(Debug, Clone, Default)]
pub struct Bids {
    /// By chunk and block; of one block in the order in which they win.
    bids: BTreeMap<ChunkPos, BTreeMap<BlockId, Vec<Bid>>>,
}

#[derive(Debug, Clone)]
struct Bid {
    edit: pb::Edit,
    /// Whether somebody stands where the edit puts a solid block.
    blocked: bool,
}

/// What came of the claims.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decided {
    /// Edits that won, for stage edit of the territories that own their chunks.
    pub edits: Vec<pb::Letter>,
    /// Outcomes of edits that did not win, for stage move of the regions their units stand in. Who won learns it
    /// from the owner of the chunk.
    pub refusals: Vec<pb::Letter>,
}

impl Bids {
    /// Takes the edits out of the letters of stage observe.
    pub fn of(outbox: &mut Vec<pb::Letter>) -> Bids {
        let mut bids = Bids::default();
        let edits = outbox.extract_if(.., |letter| matches!(letter.kind, Some(pb::letter::Kind::Edit(_))));
        for letter in edits {
            let Some(pb::letter::Kind::Edit(edit)) = letter.kind else { continue };
            // A unit asks for nothing outside the world, so there is nobody to be told.
            let Some((chunk, block)) = target(&edit) else { continue };
            let of_block = bids.bids.entry(chunk).or_default().entry(block).or_default();
            of_block.push(Bid { edit, blocked: false });
        }
        for of_block in bids.bids.values_mut().flat_map(BTreeMap::values_mut) {
            of_block.sort_by_key(|bid| order(&bid.edit));
        }
        bids
    }

    /// The chunks somebody wants to edit, ascending.
    pub fn chunks(&self) -> impl Iterator<Item = ChunkPos> + '_ {
        self.bids.keys().copied()
    }

    /// Units of others that may stand in the way, ascending: they must be known, as of the tick before, to claim.
    ///
    /// # Errors
    /// When a chunk somebody builds in is not loaded. Who builds sees it, so that needs bids of nobody in this territory.
    pub fn strangers(&self, territory: &Territory) -> Result<Vec<u64>, StepError> {
        let builds = |bids: &BTreeMap<BlockId, Vec<Bid>>| bids.values().flatten().any(is_solid);
        let abroad = self.bids.iter().filter(|(at, bids)| !territory.owns(at.region()) && builds(bids));
        let mut ids = BTreeSet::new();
        for (at, _) in abroad {
            ids.extend(territory.column(*at).ok_or(StepError::NotLoaded(*at))?.entities());
        }
        Ok(ids.into_iter().collect())
    }

    /// The claims to put into the table, by chunk and block, ascending, one a block: each begins with its rank, [`RANK`]
    /// digits. What is blocked claims nothing. To be asked before stage edit.
    pub fn claims(&mut self, territory: &Territory, strangers: &[Entity]) -> Vec<(ChunkPos, Claims)> {
        let mut claims = Vec::new();
        for (chunk, bids) in &mut self.bids {
            let owned = territory.owns(chunk.region());
            for bid in bids.values_mut().flatten().filter(|bid| is_solid(bid)) {
                let at = at(&bid.edit);
                let abroad = || strangers.iter().any(|unit| occupies(unit, at));
                bid.blocked = if owned { territory.is_occupied(at) } else { abroad() };
            }
            let first = |bids: &Vec<Bid>| bids.iter().find(|bid| !bid.blocked).map(|bid| claim(&bid.edit));
            let of_chunk: Vec<_> =
                bids.iter().filter_map(|(block, bids)| Some((*block, first(bids)?))).collect();
            if !of_chunk.is_empty() {
                claims.push((*chunk, of_chunk));
            }
        }
        claims
    }

    /// The letters that tell the owners of chunks, for stage edit, that there are claims on them.
    pub fn notices(claims: &[(ChunkPos, Claims)]) -> Vec<pb::Letter> {
        let notice = |at: &ChunkPos| letter(at.region(), pb::letter::Kind::Claimed(wire::chunk_pos(*at)));
        claims.iter().map(|(at, _)| notice(at)).collect()
    }

    /// Takes the chunks with claims on them out of the letters for stage edit.
    pub fn noticed(inbox: &mut Vec<pb::Letter>) -> BTreeSet<ChunkPos> {
        let notices =
            inbox.extract_if(.., |letter| matches!(letter.kind, Some(pb::letter::Kind::Claimed(_))));
        let chunk = |letter: pb::Letter| match letter.kind {
            Some(pb::letter::Kind::Claimed(at)) => Some(wire::to_chunk_pos(&at)),
            _ => None,
        };
        notices.filter_map(chunk).collect()
    }

    /// What follows from the table, as all left it, of the chunks that were claimed here or noticed.
    pub fn decide(&self, territory: &Territory, table: &BTreeMap<ChunkPos, Won>) -> Decided {
        let owned = table.iter().filter(|(at, _)| territory.owns(at.region()));
        let edit = |at: &ChunkPos, edit: &pb::Edit| letter(at.region(), pb::letter::Kind::Edit(edit.clone()));
        let edits = owned.flat_map(|(at, won)| won.values().map(move |won| edit(at, won))).collect();
        let mut refusals = Vec::new();
        for (at, bids) in &self.bids {
            for (block, bids) in bids {
                let won = table.get(at).and_then(|won| won.get(block)).map(order);
                refusals.extend(bids.iter().filter_map(|bid| bid.refusal(won)));
            }
        }
        Decided { edits, refusals }
    }
}

impl Bid {
    /// The outcome, unless this is the one that won the block.
    fn refusal(&self, won: Option<(u64, u64)>) -> Option<pb::Letter> {
        let mine = order(&self.edit);
        if won == Some(mine) {
            return None;
        }
        let reason = if self.blocked && won.is_none_or(|won| mine < won) { OCCUPIED } else { TOO_LATE };
        let from = self.edit.from.as_ref().map(wire::to_block_pos)?;
        let outcome =
            pb::Outcome { unit: self.edit.unit, reason: reason.to_owned(), ..pb::Outcome::default() };
        Some(letter(from.region(), pb::letter::Kind::Outcome(outcome)))
    }
}

/// Reads a claim without its rank, as the table gives it.
pub fn read_claim(bytes: &[u8]) -> Option<pb::Edit> {
    pb::Edit::decode(bytes).ok()
}

/// A rank in digits of fixed width, then the edit.
fn claim(edit: &pb::Edit) -> Vec<u8> {
    let (id, unit) = order(edit);
    let mut bytes = format!("{id:016x}{unit:016x}").into_bytes();
    bytes.extend(edit.encode_to_vec());
    bytes
}

fn order(edit: &pb::Edit) -> (u64, u64) {
    (edit.id, edit.unit)
}

fn is_solid(bid: &Bid) -> bool {
    Block::from_kind(bid.edit.put).is_some_and(Block::is_solid)
}

fn at(edit: &pb::Edit) -> BlockPos {
    edit.at.as_ref().map(wire::to_block_pos).unwrap_or_default()
}

fn target(edit: &pb::Edit) -> Option<(ChunkPos, BlockId)> {
    let at = edit.at.as_ref().map(wire::to_block_pos)?;
    let LocalPos { x, y, z } = at.local()?;
    Some((at.chunk(), u32::from(x) | u32::from(y) << 4 | u32::from(z) << 8))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn edit(id: u64, unit: u64, put: Block) -> pb::Edit {
        let at = Some(wire::block_pos(BlockPos::new(-3, 5, 9)));
        pb::Edit { id, unit, from: at, at, put: put.kind(), ..pb::Edit::default() }
    }

    fn reasons(decided: &Decided) -> Vec<(u64, &str)> {
        let outcome = |letter: &'_ pb::Letter| match &letter.kind {
            Some(pb::letter::Kind::Outcome(outcome)) => Some((outcome.unit, outcome.reason.clone())),
            _ => None,
        };
        let known = |reason: String| if reason == OCCUPIED { OCCUPIED } else { TOO_LATE };
        decided.refusals.iter().filter_map(outcome).map(|(unit, reason)| (unit, known(reason))).collect()
    }

    proptest! {
        #[test]
        fn claims_as_text_come_in_the_order_in_which_edits_win(
            a in any::<(u64, u64)>(), b in any::<(u64, u64)>(),
        ) {
            let claim = |(id, unit)| claim(&edit(id, unit, Block::Air))[..RANK].to_vec();
            prop_assert_eq!(claim(a).cmp(&claim(b)), a.cmp(&b));
        }
    }

    #[test]
    fn a_claim_gives_its_edit_back() {
        let edit = edit(2, 3, Block::Wall);
        assert_eq!(read_claim(&claim(&edit)[RANK..]), Some(edit));
    }

    #[test]
    fn who_is_blocked_claims_nothing_and_hears_why() {
        let territory = Territory::new([], 4);
        let letter = |edit: pb::Edit| letter(at(&edit).region(), pb::letter::Kind::Edit(edit));
        let edits = [(1, Block::Wall), (2, Block::Air), (3, Block::Wall), (4, Block::Air)];
        let mut outbox = edits.map(|(unit, put)| letter(edit(unit, unit, put))).to_vec();
        let mut bids = Bids::of(&mut outbox);
        assert!(outbox.is_empty());
        let guest = Entity::new(
            crate::entity::Kind::Handyman,
            9,
            "eve",
            BlockPos::new(-3, 5, 8),
            BlockPos::default(),
        );
        let claims = bids.claims(&territory, &[guest]);
        let (chunk, claimed) = &claims[0];
        assert_eq!((claims.len(), claimed.len()), (1, 1), "one claim a block");
        let first = read_claim(&claimed[0].1[RANK..]).expect("an edit");
        assert_eq!(first.unit, 2, "the first who is not blocked");
        let table = BTreeMap::from([(*chunk, BTreeMap::from([(claimed[0].0, first)]))]);
        let decided = bids.decide(&territory, &table);
        assert_eq!(reasons(&decided), [(1, OCCUPIED), (3, TOO_LATE), (4, TOO_LATE)]);
        assert!(decided.edits.is_empty(), "the chunk is another's");
        let nobody = bids.decide(&territory, &BTreeMap::new());
        assert_eq!(reasons(&nobody)[0], (1, OCCUPIED));
    }
}
