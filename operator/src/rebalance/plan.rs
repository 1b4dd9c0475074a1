//! What a re-sharding will move and what it needs: forecast from what the shards hold, before anything is touched. Pure.

use fortia_common::placement;

use crate::crd::rebalance::{Need, Plan, sized};
use crate::crd::spec::Placement;
use crate::crd::status::{Layout, Load};

/// What noting a key that is written meanwhile takes, in bytes.
const NOTE: u64 = 100;

/// What one serving shard holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shard {
    /// Keys.
    pub keys: u64,
    /// Memory of the server.
    pub memory: u64,
    /// The part of it that is keys and values.
    pub data: u64,
    /// The append-only file.
    pub file: u64,
    /// The volume; 0: not known.
    pub volume: u64,
}

impl Shard {
    /// The shard when so many of its keys are gone, which take as much as the others.
    pub fn without(self, keys: u64) -> Shard {
        let left = self.keys.saturating_sub(keys);
        let part = |bytes: u64| (u128::from(bytes) * u128::from(left) / u128::from(self.keys.max(1))) as u64;
        let data = part(self.data);
        Shard {
            keys: left,
            data,
            memory: self.memory - (self.data - data).min(self.memory),
            file: part(self.file),
            ..self
        }
    }
}

/// What the serving shards hold, and what a server may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// By shard.
    pub shards: Vec<Shard>,
    /// `maxmemory` of a server in bytes; 0: without bound.
    pub max_memory: u64,
    /// The volume of a new server in bytes; 0: not known.
    pub volume: u64,
}

/// Why a plan is not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// One word.
    pub reason: &'static str,
    /// The number that does not fit, and the way out.
    pub message: String,
}

impl Sizes {
    /// All of it together.
    pub fn load(&self) -> Load {
        Load {
            keys: self.shards.iter().map(|shard| shard.keys).sum(),
            bytes: self.shards.iter().map(|shard| shard.memory).sum(),
        }
    }

    /// What the re-sharding that is the `number`-th to be planned would move and need; `rate`: keys a second that the last
    /// one copied.
    pub fn plan(&self, from: Layout, to: Layout, number: u64, rate: Option<u64>) -> Plan {
        let flows = placement::flows(&from.wire(), &to.wire());
        let (mut moved, mut moved_memory) = (0.0, 0.0);
        let mut incoming = vec![0.0; to.shards as usize];
        for (source, shard) in self.shards.iter().enumerate() {
            let row = flows.get(source).map(Vec::as_slice).unwrap_or_default();
            let all: f64 = row.iter().sum();
            for (target, share) in row.iter().enumerate() {
                let share = if all > 0.0 { share / all } else { 0.0 };
                incoming[target] += share * shard.data as f64;
                if source != target {
                    moved += share * shard.keys as f64;
                    moved_memory += share * shard.data as f64;
                }
            }
        }
        let keys = self.load().keys;
        let moved_keys = (moved.round() as u64).min(keys);
        let needs = |need: &dyn Fn(Shard, u64) -> Need| {
            let shards = 0..from.shards.max(to.shards);
            let own = |index: u32| self.shards.get(index as usize).copied().unwrap_or_default();
            let comes = |index: u32| incoming.get(index as usize).map_or(0, |bytes| *bytes as u64);
            shards.map(|shard| Need { shard, ..need(own(shard), comes(shard)) }).collect()
        };
        Plan {
            ticket: ticket(to, number),
            from,
            to,
            keys,
            moved_keys,
            stay_keys: keys - moved_keys,
            moved_memory: moved_memory as u64,
            memory: needs(&|own, comes| Need {
                now: own.memory,
                peak: own.memory + comes + NOTE * own.keys,
                limit: Some(self.max_memory).filter(|limit| *limit > 0),
                shard: 0,
            }),
            // A file that is rewritten stands beside its successor for a while.
            disk: needs(&|own, comes| Need {
                now: own.file,
                peak: 2 * (own.file + comes),
                limit: [own.volume, self.volume].into_iter().find(|limit| *limit > 0),
                shard: 0,
            }),
            eta_seconds: rate.filter(|rate| *rate > 0).map(|rate| keys.div_ceil(rate)),
        }
    }
}

/// What must be said to approve the `number`-th plan, which is for this layout.
pub fn ticket(to: Layout, number: u64) -> String {
    let placement = match to.placement {
        Placement::Modulo => "modulo",
        Placement::Jump => "jump",
    };
    format!("v{}-{}-{placement}-{number}", to.version, to.shards)
}

/// How many of all keys move from `from` to 1, 2, ... `most` shards with this placement, in percent.
pub fn moves(from: Layout, placement: Placement, most: u32) -> Vec<u32> {
    let to = |shards| Layout { shards, placement, ..from };
    (1..=most).map(|shards| percent(placement::moved(&from.wire(), &to(shards).wire()))).collect()
}

fn percent(share: f64) -> u32 {
    (share * 100.0).round().clamp(0.0, 100.0) as u32
}

/// Whether both versions fit while they live side by side.
///
/// # Errors
/// What is missing and what to do, in words.
pub fn fits(plan: &Plan) -> Result<(), Refused> {
    let short = |needs: &[Need]| needs.iter().copied().find_map(|need| Some((need, usable(need)?)));
    if let Some((need, usable)) = short(&plan.memory) {
        return Err(Refused {
            reason: "InsufficientMemory",
            message: format!(
                "shard-{} would need {} of its {} while both versions live: raise \
                 spec.redis.resources.limits.memory or choose more shards",
                need.shard,
                sized(need.peak),
                sized(usable)
            ),
        });
    }
    if let Some((need, usable)) = short(&plan.disk) {
        return Err(Refused {
            reason: "InsufficientDisk",
            message: format!(
                "shard-{} would need {} of its {} of disk while both versions live: grow its \
                 PersistentVolumeClaims or choose more shards",
                need.shard,
                sized(need.peak),
                sized(usable)
            ),
        });
    }
    Ok(())
}

/// How much may be used, where it is too little. A twentieth is left for what players do meanwhile.
fn usable(need: Need) -> Option<u64> {
    let usable = need.limit? / 100 * 95;
    (need.peak > usable).then_some(usable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn layout(version: u64, shards: u32) -> Layout {
        Layout { version, shards, placement: Placement::Modulo }
    }

    fn sizes(shards: usize, mib: u64) -> Sizes {
        let shard =
            Shard { keys: 1_000, memory: mib * MIB, data: mib * MIB, file: mib * MIB, volume: 1024 * MIB };
        Sizes { shards: vec![shard; shards], max_memory: 100 * MIB, volume: 1024 * MIB }
    }

    fn about(value: u64, wanted: u64) -> bool {
        value.abs_diff(wanted) <= wanted / 50 + 1
    }

    #[test]
    fn two_to_three_by_modulo_moves_two_thirds_and_says_what_each_shard_needs() {
        let plan = sizes(2, 30).plan(layout(1, 2), layout(2, 3), 7, None);
        assert_eq!((plan.ticket.as_str(), plan.keys), ("v2-3-modulo-7", 2_000));
        assert!(about(plan.moved_keys, 1_333), "{plan:?}");
        assert_eq!(plan.stay_keys, 2_000 - plan.moved_keys);
        assert!(about(plan.moved_memory, 40 * MIB), "{plan:?}");
        assert!(about(plan.memory[0].peak, 50 * MIB + 100_000), "{plan:?}");
        assert!(about(plan.memory[2].peak, 20 * MIB), "{plan:?}");
        assert!(about(plan.disk[2].peak, 40 * MIB), "{plan:?}");
        assert_eq!((fits(&plan), plan.eta_seconds), (Ok(()), None));
    }

    #[test]
    fn how_long_it_takes_is_told_only_when_it_was_measured_before() {
        let plan = |rate| sizes(2, 30).plan(layout(1, 2), layout(2, 3), 7, rate);
        assert_eq!([plan(None), plan(Some(300))].map(|p| p.eta_seconds), [None, Some(7)]);
    }

    #[test]
    fn a_plan_that_needs_more_memory_than_there_is_names_the_shard_and_the_way_out() {
        let refused = fits(&sizes(2, 60).plan(layout(1, 2), layout(2, 1), 7, None)).expect_err("refused");
        assert_eq!(refused.reason, "InsufficientMemory");
        let message = refused.message;
        assert!(message.starts_with("shard-0 would need 180.1 MiB of its 95.0 MiB"), "{message}");
        assert!(message.contains("limits.memory"), "{message}");
    }

    #[test]
    fn a_plan_that_needs_more_disk_than_there_is_is_refused_as_well() {
        let mut sizes = sizes(1, 30);
        (sizes.shards[0].volume, sizes.volume) = (100 * MIB, 20 * MIB);
        let refused = fits(&sizes.plan(layout(1, 1), layout(2, 2), 7, None)).expect_err("refused");
        assert_eq!(refused.reason, "InsufficientDisk");
        assert!(refused.message.starts_with("shard-1 would need"), "{}", refused.message);
        sizes.volume = 100 * MIB;
        assert_eq!(fits(&sizes.plan(layout(1, 1), layout(2, 2), 7, None)), Ok(()));
    }

    #[test]
    fn keys_of_a_version_that_is_only_kept_are_no_load_and_do_not_move() {
        let mut kept = sizes(2, 30);
        kept.shards.iter_mut().for_each(|shard| *shard = shard.without(600));
        let plan = kept.plan(layout(2, 2), layout(3, 3), 7, None);
        assert_eq!((kept.load().keys, plan.keys), (800, 800));
        assert!(about(plan.moved_keys, 533) && about(plan.moved_memory, 16 * MIB), "{plan:?}");
        assert!(about(plan.memory[0].now, 12 * MIB), "{plan:?}");
        assert_eq!(Shard::default().without(7), Shard::default());
    }

    #[test]
    fn without_a_limit_everything_fits() {
        let mut sizes = sizes(2, 1 << 20);
        (sizes.max_memory, sizes.volume, sizes.shards[0].volume, sizes.shards[1].volume) = (0, 0, 0, 0);
        assert_eq!(fits(&sizes.plan(layout(1, 2), layout(2, 1), 7, None)), Ok(()));
    }

    #[test]
    fn what_each_number_of_shards_would_move_is_known_beforehand() {
        let anew = moves(layout(1, 2), Placement::Jump, 4);
        assert!(anew[0].abs_diff(50) < 2 && anew[1].abs_diff(50) < 2, "{anew:?}");
        let moves = moves(layout(1, 2), Placement::Modulo, 4);
        assert_eq!((moves[1], moves.len()), (0, 4));
        assert!(moves[0].abs_diff(50) < 2 && moves[2].abs_diff(67) < 2 && moves[3].abs_diff(50) < 2);
    }
}
