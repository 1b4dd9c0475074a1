//! Which shard a hash belongs on, and how much of a world two layouts share. Pure; knows no keys and no servers.

use crate::topology::{Layout, Placement};

/// Hashes looked at to know how much goes where.
const SAMPLES: u32 = 1 << 16;

/// The shard for a hash; a layout without shards has only shard 0.
pub fn place(hash: u64, shards: u32, placement: Placement) -> u32 {
    let shards = shards.max(1);
    match placement {
        Placement::Modulo => (hash % u64::from(shards)) as u32,
        Placement::Jump => jump(hash, shards),
    }
}

/// Jump consistent hash (Lamping and Veach, 2014).
fn jump(mut hash: u64, shards: u32) -> u32 {
    let (mut shard, mut next) = (0i64, 0i64);
    while next < i64::from(shards) {
        shard = next;
        hash = hash.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((shard + 1) as f64 * ((1u64 << 31) as f64 / ((hash >> 33) + 1) as f64)) as i64;
    }
    shard as u32
}

/// Which share of all keys each source shard (first index) gives each target shard (second).
pub fn flows(from: &Layout, to: &Layout) -> Vec<Vec<f64>> {
    let mut flows = vec![vec![0.0; to.shards.max(1) as usize]; from.shards.max(1) as usize];
    for sample in 0..SAMPLES {
        let hash = split_mix(u64::from(sample));
        let source = place(hash, from.shards, from.placement) as usize;
        let target = place(hash, to.shards, to.placement) as usize;
        flows[source][target] += 1.0 / f64::from(SAMPLES);
    }
    flows
}

/// Which share of all keys changes its shard.
pub fn moved(from: &Layout, to: &Layout) -> f64 {
    let stays = flows(from, to).iter().enumerate().filter_map(|(i, targets)| targets.get(i)).sum::<f64>();
    1.0 - stays
}

/// SplitMix64 (Steele, Lea and Flood, 2014): hashes as even as a key's.
fn split_mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(shards: u32, placement: Placement) -> Layout {
        Layout { version: 1, shards, placement }
    }

    fn stays(from: u32, to: u32, placement: Placement) -> f64 {
        1.0 - moved(&layout(from, placement), &layout(to, placement))
    }

    fn lcm(a: u32, b: u32) -> u32 {
        (a..).step_by(a as usize).find(|n| n % b == 0).expect("a multiple")
    }

    #[test]
    fn with_modulo_the_smaller_by_the_least_common_multiple_stays() {
        for (from, to) in [(1, 2), (2, 3), (3, 5), (4, 8), (5, 2), (7, 7), (3, 64)] {
            let wanted = f64::from(from.min(to)) / f64::from(lcm(from, to));
            assert!((stays(from, to, Placement::Modulo) - wanted).abs() < 0.01, "{from} to {to}");
        }
    }

    #[test]
    fn with_jump_the_smaller_by_the_larger_stays() {
        for (from, to) in [(1, 2), (2, 3), (3, 5), (4, 8), (5, 2), (7, 7), (3, 64)] {
            let wanted = f64::from(from.min(to)) / f64::from(from.max(to));
            assert!((stays(from, to, Placement::Jump) - wanted).abs() < 0.01, "{from} to {to}");
        }
    }

    #[test]
    fn flows_are_shares_of_all_keys() {
        let flows = flows(&layout(2, Placement::Modulo), &layout(3, Placement::Jump));
        assert_eq!((flows.len(), flows[0].len()), (2, 3));
        assert!((flows.iter().flatten().sum::<f64>() - 1.0).abs() < 1e-9);
    }
}
