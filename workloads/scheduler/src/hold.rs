//! What re-sharding asks of the scheduler between two ticks. Pure; knows topology and held record, no guards, no I/O.
//!
//! Every step may be repeated: a leader that dies anywhere is followed by one that finds the same step again.

use fortia_common::records::Held;
use fortia_common::topology::{Layout, Phase, Topology};

/// What this leader knows of the guards of the serving version. A new leader knows nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guards {
    /// Nothing is known: a leader before this one, or a failed tick, may have left them in any state.
    #[default]
    Unknown,
    /// They are open for the serving version.
    Open,
    /// They are frozen for the re-sharding to this version.
    Frozen(u64),
}

/// What to do before the next tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Tick.
    Run,
    /// Freeze the guards of all groups for this target, then write the held record.
    Freeze(Layout),
    /// All is frozen: wait for the operator.
    Wait,
    /// Open the guards of this target's groups under the next epoch, then flip the topology to it.
    Flip(Layout),
    /// Make sure that the guards are open for the serving version.
    Open,
}

/// Decides what comes next.
pub fn step(topology: &Topology, held: Option<&Held>, guards: Guards) -> Step {
    let holding = topology.phase.filter(|phase| phase.holds_tick());
    match (holding, topology.target) {
        (Some(phase), Some(target)) => {
            let told = held.is_some_and(|held| held.version == target.version && held.pause_ms.is_none());
            // Frozen again by every new leader: what the one before left half done is not guessed.
            if guards != Guards::Frozen(target.version) || !told {
                Step::Freeze(target)
            } else if phase == Phase::Cutover {
                Step::Flip(target)
            } else {
                Step::Wait
            }
        }
        _ if guards == Guards::Open => Step::Run,
        _ => Step::Open,
    }
}

/// Whether the operator has asked for the flip.
pub fn cuts_over(topology: &Topology) -> bool {
    topology.phase == Some(Phase::Cutover)
}

/// The held record to write once a tick was committed at `now` (Unix ms), if a hold has ended without one.
pub fn resumed(held: Option<&Held>, now: u64) -> Option<Held> {
    let held = held.filter(|held| held.pause_ms.is_none())?;
    Some(Held { pause_ms: Some(now.saturating_sub(held.since)), ..held.clone() })
}

/// The topology after the flip to `target`: it serves, `v<n>` is retained.
pub fn flipped(topology: &Topology, target: Layout) -> Topology {
    Topology {
        epoch: topology.epoch + 1,
        serving: target,
        target: None,
        phase: Some(Phase::Retaining),
        ..topology.clone()
    }
}

#[cfg(test)]
mod tests {
    use fortia_common::topology::Placement;

    use super::*;

    const OLD: Layout = Layout { version: 1, shards: 1, placement: Placement::Modulo };
    const NEW: Layout = Layout { version: 2, shards: 2, placement: Placement::Modulo };

    fn topology(phase: Option<Phase>) -> Topology {
        Topology {
            epoch: 7,
            cluster: "uid".into(),
            serving: OLD,
            target: phase.filter(|p| *p < Phase::Retaining).map(|_| NEW),
            previous: None,
            phase,
            groups: Vec::new(),
            auth_db: String::new(),
        }
    }

    fn held(version: u64) -> Held {
        Held { version, tick: 5, since: 1000, pause_ms: None }
    }

    #[test]
    fn a_re_sharding_is_frozen_then_waited_for_then_flipped() {
        let copying = topology(Some(Phase::Copying));
        assert_eq!(step(&copying, None, Guards::Open), Step::Freeze(NEW));
        assert_eq!(step(&copying, Some(&held(2)), Guards::Frozen(2)), Step::Wait);
        assert_eq!(step(&topology(Some(Phase::Verifying)), Some(&held(2)), Guards::Frozen(2)), Step::Wait);
        let cutover = topology(Some(Phase::Cutover));
        assert_eq!(step(&cutover, Some(&held(2)), Guards::Frozen(2)), Step::Flip(NEW));
        let after = flipped(&cutover, NEW);
        assert_eq!((after.epoch, after.serving, after.target), (8, NEW, None));
        assert_eq!(step(&after, Some(&held(2)), Guards::Open), Step::Run);
    }

    #[test]
    fn a_planned_re_sharding_does_not_stop_the_ticks() {
        assert_eq!(step(&topology(Some(Phase::Planned)), None, Guards::Open), Step::Run);
    }

    #[test]
    fn a_new_leader_repeats_whatever_the_last_one_may_have_left_half_done() {
        for phase in [Phase::Copying, Phase::CatchingUp, Phase::Verifying, Phase::Cutover] {
            assert_eq!(step(&topology(Some(phase)), Some(&held(2)), Guards::Unknown), Step::Freeze(NEW));
        }
        for phase in [None, Some(Phase::Aborting), Some(Phase::Retaining)] {
            assert_eq!(step(&topology(phase), Some(&held(2)), Guards::Unknown), Step::Open);
        }
    }

    #[test]
    fn an_aborted_re_sharding_opens_the_guards_and_a_second_attempt_freezes_them_again() {
        assert_eq!(step(&topology(Some(Phase::Aborting)), Some(&held(2)), Guards::Frozen(2)), Step::Open);
        let old = resumed(Some(&held(2)), 3500).expect("a hold has ended");
        assert_eq!(old.pause_ms, Some(2500));
        assert_eq!(step(&topology(Some(Phase::Copying)), Some(&old), Guards::Open), Step::Freeze(NEW));
        assert_eq!(resumed(Some(&old), 9999), None);
    }

    #[test]
    fn a_held_record_of_another_version_is_not_taken_for_this_one() {
        let copying = topology(Some(Phase::Copying));
        assert_eq!(step(&copying, Some(&held(1)), Guards::Frozen(2)), Step::Freeze(NEW));
    }
}
