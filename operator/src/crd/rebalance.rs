//! A re-sharding as status tells it: phase, plan, progress, and the one line people read. Knows shapes and words only.

use std::fmt;

use fortia_common::topology as wire;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::spec::Placement;
use super::status::{Layout, bar};

/// Phase of a re-sharding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// The plan is made; no key is touched.
    #[default]
    Planned,
    /// Keys are copied, while the world goes on.
    Copying,
    /// Keys written since are copied again.
    CatchingUp,
    /// Every key is compared, both ways.
    Verifying,
    /// The scheduler flips the topology between two ticks.
    Cutover,
    /// The previous version is kept, so that one can go back.
    Retaining,
    /// The previous version is unlinked, surplus groups are removed.
    Collecting,
    /// Back to the previous version; what was copied is removed.
    Aborting,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Phase; 8] = [
        Phase::Planned,
        Phase::Copying,
        Phase::CatchingUp,
        Phase::Verifying,
        Phase::Cutover,
        Phase::Retaining,
        Phase::Collecting,
        Phase::Aborting,
    ];

    /// The phase as servers read it.
    pub const fn wire(self) -> wire::Phase {
        match self {
            Phase::Planned => wire::Phase::Planned,
            Phase::Copying => wire::Phase::Copying,
            Phase::CatchingUp => wire::Phase::CatchingUp,
            Phase::Verifying => wire::Phase::Verifying,
            Phase::Cutover => wire::Phase::Cutover,
            Phase::Retaining => wire::Phase::Retaining,
            Phase::Collecting => wire::Phase::Collecting,
            Phase::Aborting => wire::Phase::Aborting,
        }
    }

    /// The word.
    pub const fn as_str(self) -> &'static str {
        self.wire().as_str()
    }

    /// Whether the target version is being made in this phase.
    pub const fn carries(self) -> bool {
        self.wire().carries()
    }
}

impl From<wire::Phase> for Phase {
    fn from(phase: wire::Phase) -> Phase {
        match phase {
            wire::Phase::Planned => Phase::Planned,
            wire::Phase::Copying => Phase::Copying,
            wire::Phase::CatchingUp => Phase::CatchingUp,
            wire::Phase::Verifying => Phase::Verifying,
            wire::Phase::Cutover => Phase::Cutover,
            wire::Phase::Retaining => Phase::Retaining,
            wire::Phase::Collecting => Phase::Collecting,
            wire::Phase::Aborting => Phase::Aborting,
        }
    }
}

/// A re-sharding and how far it is. What is not known is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rebalance {
    /// What is being done.
    pub phase: Phase,
    /// Generation of the spec that asked for it.
    pub generation: i64,
    /// What served when it began.
    pub from: Layout,
    /// What is to serve.
    pub to: Layout,
    /// Which plan of this FortiaCluster it is, counted from 1: an approval is of one plan, not of its like. A way back
    /// needs none, and has 0.
    pub number: u64,
    /// Whether it goes back to a version that was kept.
    pub rollback: bool,
    /// What it will move and need.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// The plan fits and, where asked for, was approved: groups may be made.
    pub accepted: bool,
    /// The target has been shown to servers: keys of it may exist.
    pub opened: bool,
    /// The version that had to go has been unlinked everywhere.
    pub collected: bool,
    /// Shards that only the layout that goes has, and that were lost with their volumes: nothing of them is left to clean.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<u32>,
    /// Keys to carry, as the pods have counted them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_keys: Option<u64>,
    /// Keys carried.
    pub keys: u64,
    /// Those of them that stayed on their server.
    pub stayed: u64,
    /// Value bytes that went from server to server: what is in the values, without their keys and what a server keeps beside
    /// each. So they are far less than `plan.movedMemory`, which counts all of that: about a seventh of it in a world of small
    /// values. How far it is, `percent` tells by keys.
    pub bytes: u64,
    /// Keys compared equal.
    pub verified: u64,
    /// Keys written since they were last carried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// Keys carried, of all, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
    /// Seconds until all is copied, at the speed measured so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
    /// What was proven equal before the flip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// Tries to flip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cutover: Option<Cutover>,
    /// When it was planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the first key was seen carried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copying_since: Option<Time>,
    /// The last tick committed before the topology flipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_tick: Option<u64>,
    /// When the topology flipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turned_at: Option<Time>,
    /// How long writes stood still at the flip, in ms, rounded up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_pause_ms: Option<u64>,
    /// Why it is given up for good; none: it goes on, or is planned anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailedRebalance>,
    /// What it is waiting for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What a re-sharding would move and need, as far as it can be known beforehand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Plan {
    /// What the annotation `fortia.dev/approve` must say, like `v2-3-modulo-1`: version, shards,
    /// placement, and which plan of this FortiaCluster it is.
    pub ticket: String,
    /// What serves.
    pub from: Layout,
    /// What would serve.
    pub to: Layout,
    /// Keys of the world.
    pub keys: u64,
    /// About so many of them go to another server.
    pub moved_keys: u64,
    /// About so many of them are copied inside their server.
    pub stay_keys: u64,
    /// About so much memory of servers, in bytes, is taken by the keys that go to another one: with their names and what a
    /// server keeps beside each. The values alone, which `rebalance.bytes` counts while they go, are far less: about a
    /// seventh in a world of small values.
    pub moved_memory: u64,
    /// Memory of each shard while both versions live, in bytes.
    pub memory: Vec<Need>,
    /// Disk of each shard while both versions live and its file is rewritten, in bytes.
    pub disk: Vec<Need>,
    /// Seconds to copy, by the speed of the last re-sharding; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
}

/// What one shard needs of something, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Need {
    /// Which shard.
    pub shard: u32,
    /// What it uses now, as its server tells.
    pub now: u64,
    /// What it will use at most.
    pub peak: u64,
    /// What it may use; absent: without bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// The scheduler's tries to flip.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Cutover {
    /// How many there were.
    pub tries: u32,
    /// Why the last one failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How long writes stood still in the last one, in ms, rounded up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_ms: Option<u64>,
}

/// Every key was found equal, both ways.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Proof {
    /// How many keys.
    pub keys: u64,
    /// Digest of them all, 32 hex digits.
    pub digest: String,
}

/// Why a re-sharding was given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Reason {
    /// It failed.
    #[default]
    RebalanceFailed,
    /// The way back failed; nothing is lost, and both versions are kept.
    RollbackFailed,
    /// Verification failed for good: keys of source and target differ however often they are carried.
    KeysDiffer,
    /// A stored value or record cannot be understood.
    CorruptData,
    /// A Redis server took no more.
    ServerOutOfMemory,
    /// Somebody aborted it by annotation.
    Aborted,
    /// Somebody rolled it back by annotation.
    RolledBack,
}

impl Reason {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::RebalanceFailed => "RebalanceFailed",
            Reason::RollbackFailed => "RollbackFailed",
            Reason::KeysDiffer => "KeysDiffer",
            Reason::CorruptData => "CorruptData",
            Reason::ServerOutOfMemory => "ServerOutOfMemory",
            Reason::Aborted => "Aborted",
            Reason::RolledBack => "RolledBack",
        }
    }

    /// Whether it was nobody's wish.
    pub const fn is_trouble(self) -> bool {
        !matches!(self, Reason::Aborted | Reason::RolledBack)
    }
}

/// A re-sharding that was given up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FailedRebalance {
    /// Generation of the spec then: after trouble it is not tried again before that changes, for it may mend it.
    pub generation: i64,
    /// What was wanted: what somebody has stopped is not tried again before these change.
    pub shards: u32,
    /// Its placement.
    pub placement: Placement,
    /// Why, in a word.
    pub reason: Reason,
    /// Why, in words.
    pub message: String,
}

impl fmt::Display for Rebalance {
    /// The line people read, like
    /// `v1→v2, 2→3 shards  Copying [########............] 41 %  1,234 of 3,000 keys  1.2 MiB of values  about 12 s left`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.from, self.to);
        write!(f, "v{}→v{}, {}→{} shards", from.version, to.version, from.shards, to.shards)?;
        if self.rollback {
            f.write_str(", back")?;
        }
        write!(f, "  {}", self.phase.as_str())?;
        if !self.phase.carries() {
            return Ok(());
        }
        match self.total_keys {
            Some(total) => {
                let (percent, bar) = bar(self.keys, total);
                let keys = self.keys.min(total);
                write!(f, " {bar} {percent} %  {} of {} keys", grouped(keys), grouped(total))?;
            }
            None if self.keys > 0 => write!(f, "  {} keys", grouped(self.keys))?,
            None => {}
        }
        // Beside what was carried, never in its place: a number that people watch does not go back.
        if self.verified > 0 && self.phase >= Phase::Verifying {
            let verified = self.verified.min(self.total_keys.unwrap_or(self.verified));
            write!(f, "  {} compared", grouped(verified))?;
        }
        if self.bytes > 0 {
            write!(f, "  {} of values", sized(self.bytes))?;
        }
        match (self.phase, self.eta_seconds, self.lag) {
            (Phase::Copying, Some(seconds), _) => write!(f, "  about {seconds} s left")?,
            (Phase::CatchingUp | Phase::Verifying | Phase::Cutover, _, Some(lag)) => {
                write!(f, "  {} behind", grouped(lag))?;
            }
            _ => {}
        }
        match &self.cutover {
            Some(Cutover { tries, why: Some(why), .. }) => write!(f, "  try {tries}: {why}"),
            _ => Ok(()),
        }
    }
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the largest unit of which there is one.
pub(crate) fn sized(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (bytes.max(1).ilog2() / 10).min(4);
    match unit {
        0 => format!("{bytes} B"),
        _ => {
            format!("{:.1} {}", bytes as f64 / f64::from(1u32 << 10).powi(unit as i32), UNITS[unit as usize])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(phase: Phase) -> Rebalance {
        Rebalance {
            phase,
            from: Layout { version: 1, shards: 2, placement: Placement::Modulo },
            to: Layout { version: 2, shards: 3, placement: Placement::Modulo },
            ..Rebalance::default()
        }
    }

    #[test]
    fn a_running_copy_is_one_line_with_a_bar() {
        let copying = Rebalance {
            total_keys: Some(3_000),
            keys: 1_234,
            bytes: 1_258_291,
            eta_seconds: Some(12),
            ..running(Phase::Copying)
        };
        assert_eq!(
            copying.to_string(),
            "v1→v2, 2→3 shards  Copying [########............] 41 %  1,234 of 3,000 keys  1.2 MiB of values  about 12 s left"
        );
    }

    #[test]
    fn keys_that_were_carried_stay_told_while_they_are_compared_and_at_the_flip() {
        let line = |phase, keys, verified| {
            Rebalance { total_keys: Some(3_000), keys, verified, ..running(phase) }.to_string()
        };
        let full = "[####################] 100 %  3,000 of 3,000 keys";
        assert_eq!(line(Phase::CatchingUp, 3_010, 0), format!("v1→v2, 2→3 shards  CatchingUp {full}"));
        assert_eq!(
            line(Phase::Verifying, 3_010, 12),
            format!("v1→v2, 2→3 shards  Verifying {full}  12 compared")
        );
        assert_eq!(
            line(Phase::Cutover, 3_010, 3_020),
            format!("v1→v2, 2→3 shards  Cutover {full}  3,000 compared")
        );
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        assert_eq!(running(Phase::Copying).to_string(), "v1→v2, 2→3 shards  Copying");
        let counting = Rebalance { keys: 7, ..running(Phase::Copying) };
        assert_eq!(counting.to_string(), "v1→v2, 2→3 shards  Copying  7 keys");
        assert_eq!(running(Phase::Retaining).to_string(), "v1→v2, 2→3 shards  Retaining");
    }

    #[test]
    fn a_failed_try_to_flip_is_told_with_its_reason() {
        let cutover = Some(Cutover { tries: 2, why: Some("late".into()), pause_ms: Some(1000) });
        let late = Rebalance { cutover, lag: Some(1_000), ..running(Phase::Cutover) };
        assert_eq!(late.to_string(), "v1→v2, 2→3 shards  Cutover  1,000 behind  try 2: late");
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([grouped(0), grouped(999), grouped(1_000_000)], ["0", "999", "1,000,000"]);
        assert_eq!([sized(0), sized(1_023), sized(1 << 40)], ["0 B", "1023 B", "1.0 TiB"]);
    }
}
