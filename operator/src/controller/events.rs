//! What becomes an event and what makes two events one: the series of the Events API. Knows words, not Kubernetes. Pure.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::crd::rebalance::{Phase, Rebalance};
use crate::crd::status::FortiaClusterStatus;

/// The API server takes a note of at most so many bytes, and loses the event of a longer one.
const NOTE: usize = 1024;

/// The action of an event. Events of one reason and action become one, which keeps the note of the first: so each note
/// has an action of its own, and only what is said again word by word is counted.
pub(super) fn action(note: &str) -> String {
    let mut hasher = DefaultHasher::new();
    note.hash(&mut hasher);
    format!("Reconcile-{:016x}", hasher.finish())
}

/// A note that fits.
pub(super) fn note(text: &str) -> String {
    if text.len() <= NOTE {
        return text.to_owned();
    }
    let end = (0..=NOTE - '…'.len_utf8()).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    format!("{}…", &text[..end])
}

/// Phases in which keys are carried that a re-sharding went through between two looks: a small world is copied, caught
/// up and compared within one. Each as it stood when it was over.
pub(super) fn passed(old: &FortiaClusterStatus, next: &FortiaClusterStatus) -> Vec<Rebalance> {
    let (Some(was), Some(now)) = (&old.rebalance, &next.rebalance) else { return Vec::new() };
    if was.to.version != now.to.version || was.rollback != now.rollback || now.phase == Phase::Aborting {
        return Vec::new();
    }
    let between = |phase: &Phase| phase.carries() && *phase > was.phase && *phase < now.phase;
    let phases = Phase::ALL.into_iter().filter(between);
    phases.map(|phase| Rebalance { phase, message: None, ..now.clone() }).collect()
}

/// Whether the second message says something else than the first. Numbers that stand alone change from look to look.
pub(super) fn differs(old: &str, new: &str) -> bool {
    let words = |text: &str| {
        let is_measure = |word: &&str| {
            word.starts_with(|c: char| c.is_ascii_digit())
                || ["B", "KiB", "MiB", "GiB", "TiB"].contains(&word.trim_end_matches([',', ';', ':']))
        };
        text.split_whitespace().filter(|word| !is_measure(word)).map(String::from).collect::<Vec<_>>()
    };
    words(old) != words(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(phase: Phase) -> FortiaClusterStatus {
        let rebalance = Some(Rebalance { phase, accepted: true, ..Rebalance::default() });
        FortiaClusterStatus { rebalance, ..FortiaClusterStatus::default() }
    }

    #[test]
    fn events_of_other_words_are_never_made_one() {
        assert_ne!(action("v1→v2, 2→3 shards  Copying"), action("v2→v3, 3→2 shards  Copying"));
        assert_eq!(action("the same"), action("the same"));
        assert!(action("").len() <= 128);
    }

    #[test]
    fn a_note_that_is_too_long_is_cut_and_its_event_not_lost() {
        let long = "→".repeat(500);
        assert!(note(&long).len() <= 1024 && note(&long).ends_with('…'));
        assert_eq!(note("short"), "short");
    }

    #[test]
    fn a_phase_that_is_passed_between_two_looks_is_told_all_the_same() {
        let between =
            |old, new| passed(&at(old), &at(new)).into_iter().map(|r| r.phase.as_str()).collect::<Vec<_>>();
        assert_eq!(between(Phase::Copying, Phase::Cutover), ["CatchingUp", "Verifying"]);
        assert_eq!(between(Phase::Copying, Phase::Retaining), ["CatchingUp", "Verifying", "Cutover"]);
        assert_eq!(between(Phase::Copying, Phase::CatchingUp), [""; 0]);
        assert_eq!(between(Phase::Copying, Phase::Aborting), [""; 0]);
        assert_eq!(between(Phase::Retaining, Phase::Collecting), [""; 0]);
        assert_eq!(between(Phase::Cutover, Phase::Verifying), [""; 0]);
    }

    #[test]
    fn numbers_that_change_at_every_look_are_no_news_and_names_are() {
        let memory = |now: &str| format!("shard-0 would need {now} of its 95.0 MiB while both versions live");
        assert!(!differs(&memory("180.1 MiB"), &memory("1.1 GiB")));
        assert!(differs("annotation fortia.dev/abort=v3", "annotation fortia.dev/abort=v4"));
        assert!(differs("pods cannot start: a (x)", "pods cannot start: b (x)"));
    }
}
