//! What the shards have confirmed, so that one which came back without its last second is found out before a tick goes on from
//! what it has. Pure; knows numbers of parts and ticks, no guards' other fields and no servers.
//!
//! A shard counts the parts of commits it is told (`fortia_part`). The control database loses nothing, so with each committed
//! tick it keeps the counts that were confirmed. A shard that has fewer has forgotten some of it, and with it perhaps a
//! neighbour of what another shard remembers: then no tick may be computed from the two.

use fortia_proto::tick::v1::{Committed, Part};
use fortia_rdb::guard::Guard;

/// The confirmed parts of commits of each shard of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    version: u64,
    /// By shard; 0: not known.
    parts: Vec<u64>,
    /// Whether the next tick may have been written by a run before. None: not known, the leader is new.
    begun: Option<bool>,
}

/// A shard that came back without something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forgotten {
    /// Parts of commits.
    #[error(
        "shard {shard} came back with {found} of {wanted} parts of commits: it has forgotten some of what is committed"
    )]
    Parts {
        /// Which.
        shard: u32,
        /// What it has.
        found: u64,
        /// What it had.
        wanted: u64,
    },
    /// Actions that a run of the next tick has read, and may have written the outcome of.
    #[error(
        "shard {shard} came back without the actions of tick {tick}, which a run of it has read: its outcome would be another"
    )]
    Actions {
        /// Which.
        shard: u32,
        /// Of which tick.
        tick: u64,
    },
}

impl Ledger {
    /// What is known after the last committed tick, if there was one.
    pub fn after(committed: Option<&Committed>) -> Ledger {
        committed.map_or_else(Ledger::default, |record| Ledger {
            version: record.version,
            parts: record.parts.clone(),
            begun: None,
        })
    }

    /// What is known of the shards of a version: nothing of one that was not written yet.
    pub fn parts(&self, version: u64) -> &[u64] {
        if version == self.version { &self.parts } else { &[] }
    }

    /// Whether a run of the next tick may have written.
    pub fn has_begun(&self) -> bool {
        self.begun.unwrap_or(false)
    }

    /// A run of the next tick begins to write.
    pub fn begins(&mut self) {
        self.begun = Some(true);
    }

    /// Takes in what shards of this version have confirmed.
    pub fn confirmed(&mut self, version: u64, parts: &[Part]) {
        if version != self.version {
            (self.version, self.parts) = (version, Vec::new());
        }
        for part in parts {
            let at = part.shard as usize;
            self.parts.resize(self.parts.len().max(at + 1), 0);
            self.parts[at] = self.parts[at].max(part.number);
        }
    }

    /// The tick is committed.
    pub fn committed(&mut self) {
        self.begun = Some(false);
    }

    /// What was forgotten was given up: the shards are taken as they are.
    pub fn forgive(&mut self) {
        self.parts.clear();
        self.begun = Some(false);
    }

    /// Whether the shards of a version, by their guards, still have what they confirmed, and what the next tick (`tick`) was made
    /// from if a run of it may have written.
    ///
    /// # Errors
    /// The first shard that has not.
    pub fn check(&mut self, version: u64, tick: u64, guards: &[Guard]) -> Result<(), Forgotten> {
        let wanted = self.parts(version).iter().copied().chain(std::iter::repeat(0));
        let mut wrote = false;
        for ((shard, guard), wanted) in (0..).zip(guards).zip(wanted) {
            if guard.parts < wanted {
                return Err(Forgotten::Parts { shard, found: guard.parts, wanted });
            }
            wrote |= wanted > 0 && guard.parts > wanted;
        }
        // A leader before this one may have begun it.
        let begun = *self.begun.get_or_insert(wrote);
        let forgot = (0..).zip(guards).find(|(_, guard)| begun && guard.closed < tick);
        forgot.map_or(Ok(()), |(shard, _)| Err(Forgotten::Actions { shard, tick }))
    }
}

#[cfg(test)]
mod tests {
    use fortia_rdb::guard::State;

    use super::*;

    fn guard(parts: u64, closed: u64) -> Guard {
        Guard {
            uid: "u".into(),
            group: "shard".into(),
            index: 0,
            epoch: 1,
            tick_epoch: 1,
            version: 1,
            state: State::Open,
            target: 0,
            closed,
            parts,
            since: 0,
            attempts: Default::default(),
        }
    }

    fn part(shard: u32, number: u64) -> Part {
        Part { shard, number }
    }

    /// After tick 7, which two shards have written.
    fn ledger() -> Ledger {
        Ledger::after(Some(&Committed { tick: 7, version: 1, parts: vec![10, 20], ..Committed::default() }))
    }

    #[test]
    fn a_shard_that_lost_a_part_of_a_commit_is_found_and_one_that_did_not_is_not() {
        assert_eq!(ledger().check(1, 8, &[guard(10, 7), guard(20, 7)]), Ok(()));
        let forgot = ledger().check(1, 8, &[guard(10, 7), guard(19, 7)]);
        assert_eq!(forgot, Err(Forgotten::Parts { shard: 1, found: 19, wanted: 20 }));
        let mut written = ledger();
        written.confirmed(1, &[part(1, 22), part(1, 21)]);
        assert!(written.check(1, 8, &[guard(10, 7), guard(21, 7)]).is_err());
    }

    #[test]
    fn a_tick_that_may_have_been_written_is_run_again_only_with_the_actions_it_was_run_with() {
        let mut begun = ledger();
        begun.committed();
        assert_eq!(begun.check(1, 8, &[guard(10, 7), guard(20, 8)]), Ok(()), "nothing was written yet");
        begun.begins();
        assert!(begun.has_begun());
        let forgot = begun.check(1, 8, &[guard(11, 8), guard(20, 7)]);
        assert_eq!(forgot, Err(Forgotten::Actions { shard: 1, tick: 8 }));
        assert_eq!(begun.check(1, 8, &[guard(11, 8), guard(20, 8)]), Ok(()));
    }

    #[test]
    fn a_new_leader_sees_by_the_shards_that_the_one_before_began_to_write() {
        let mut new = ledger();
        assert_eq!(
            new.check(1, 8, &[guard(11, 8), guard(20, 7)]),
            Err(Forgotten::Actions { shard: 1, tick: 8 })
        );
        let mut idle = ledger();
        assert_eq!(idle.check(1, 8, &[guard(10, 8), guard(20, 7)]), Ok(()));
        assert!(!idle.has_begun());
    }

    #[test]
    fn nothing_is_demanded_of_a_version_that_was_not_written_yet_or_of_what_was_given_up() {
        assert_eq!(ledger().check(2, 8, &[guard(0, 0), guard(0, 0), guard(0, 0)]), Ok(()));
        let mut given_up = ledger();
        given_up.forgive();
        assert_eq!(given_up.check(1, 8, &[guard(0, 0), guard(0, 0)]), Ok(()));
        given_up.confirmed(2, &[part(2, 3)]);
        assert_eq!((given_up.parts(1), given_up.parts(2)), (&[][..], &[0, 0, 3][..]));
    }
}
