//! What people ask for by annotation: things of one moment, which do not belong into the spec. Pure.

use std::collections::BTreeMap;

use super::fitting::unknown;
use crate::crd::spec::Placement;

/// Lets a planned re-sharding begin, where approval is required: its ticket, like `v2-3-modulo-1`.
pub const APPROVE: &str = "fortia.dev/approve";
/// Gives up the re-sharding to this version before its flip, like `v2`.
pub const ABORT: &str = "fortia.dev/abort";
/// Goes back to this version while it is kept, like `v1`.
pub const ROLLBACK: &str = "fortia.dev/rollback";
/// Shows what a re-sharding would do, in `status.plan`: shards, or shards and placement like `5/Jump`.
pub const PLAN: &str = "fortia.dev/plan";

/// Lets the world go on although a shard has forgotten something: the last committed tick, as the condition Ready names it.
pub const ACCEPT_LOSS: &str = "fortia.dev/accept-loss";

/// Most shards there can be, as in the spec.
const MOST: u32 = 64;

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Ticket of an approved plan.
    pub approved: Option<String>,
    /// The version that is not to be made.
    pub aborts: Option<u64>,
    /// The version to go back to.
    pub back_to: Option<u64>,
    /// Shards and placement to show a plan for.
    pub plan: Option<(u32, Option<Placement>)>,
    /// The tick after which the world goes on in spite of a loss.
    pub accepted_loss: Option<u64>,
    /// What is not understood, and what to write instead.
    pub unread: Option<String>,
}

/// Reads the annotations. One that is not understood changes nothing, and is told.
pub fn read(annotations: &BTreeMap<String, String>) -> Asked {
    let mut unread = None;
    let mut version = |name: &str| {
        let text = annotations.get(name)?;
        let version = text.strip_prefix('v').and_then(|number| number.parse().ok());
        if version.is_none() {
            unread = Some(format!("annotation {name}: {text:?} is no version: write one like v2"));
        }
        version
    };
    let (aborts, back_to) = (version(ABORT), version(ROLLBACK));
    let accepted_loss = annotations.get(ACCEPT_LOSS).and_then(|text| {
        let tick = text.parse().ok();
        if tick.is_none() {
            unread = Some(format!(
                "annotation {ACCEPT_LOSS}: {text:?} is no tick: write the one that the condition Ready names"
            ));
        }
        tick
    });
    let plan = annotations.get(PLAN).and_then(|text| {
        let plan = wanted(text);
        if plan.is_none() {
            unread = Some(format!(
                "annotation {PLAN}: {text:?} is no plan: write a number of shards from 1 to {MOST}, or one with a placement, like 5/Jump"
            ));
        }
        plan
    });
    Asked {
        approved: annotations.get(APPROVE).cloned(),
        aborts,
        back_to,
        plan,
        accepted_loss,
        unread: unread.or_else(|| unknown(annotations)),
    }
}

fn wanted(text: &str) -> Option<(u32, Option<Placement>)> {
    let (shards, placement) =
        text.split_once('/').map_or((text, None), |(shards, rest)| (shards, Some(rest)));
    let shards = shards.trim().parse().ok().filter(|shards| (1..=MOST).contains(shards))?;
    let placement = match placement.map(str::trim) {
        None => None,
        Some("Modulo") => Some(Placement::Modulo),
        Some("Jump") => Some(Placement::Jump),
        Some(_) => return None,
    };
    Some((shards, placement))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pairs: &[(&str, &str)]) -> Asked {
        read(&pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn versions_plans_and_tickets_are_read() {
        let all = asked(&[(APPROVE, "v2-3-modulo-1"), (ABORT, "v2"), (ROLLBACK, "v1"), (PLAN, "5/Jump")]);
        assert_eq!(all.approved.as_deref(), Some("v2-3-modulo-1"));
        assert_eq!((all.aborts, all.back_to), (Some(2), Some(1)));
        assert_eq!((all.plan, all.unread), (Some((5, Some(Placement::Jump))), None));
        assert_eq!(asked(&[(PLAN, "5")]).plan, Some((5, None)));
        assert_eq!(asked(&[(ACCEPT_LOSS, "417")]).accepted_loss, Some(417));
        assert_eq!(asked(&[]), Asked::default());
    }

    #[test]
    fn what_is_not_understood_does_nothing_and_says_what_to_write() {
        for (name, value, way_out) in [
            (ABORT, "2", "like v2"),
            (ROLLBACK, "vx", "like v2"),
            (PLAN, "65", "1 to 64"),
            (PLAN, "5/Ring", "5/Jump"),
            (ACCEPT_LOSS, "yes", "that the condition Ready names"),
        ] {
            let asked = asked(&[(name, value)]);
            assert_eq!((asked.aborts, asked.back_to, asked.plan), (None, None, None));
            assert_eq!(asked.accepted_loss, None);
            assert!(asked.unread.as_ref().is_some_and(|text| text.contains(way_out)), "{asked:?}");
        }
    }
}
