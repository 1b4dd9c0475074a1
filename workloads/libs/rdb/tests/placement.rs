//! Where keys are must never change: the committed vectors, made by another implementation, say where.

use fortia_common::topology::{Layout, Placement};
use fortia_rdb::keyspace::WorldKey;
use xxhash_rust::xxh3::xxh3_64;

const SHARDS: [u32; 10] = [1, 2, 3, 4, 5, 7, 8, 16, 64, 1000];

fn check(vectors: &str, placement: Placement) {
    let mut checked = 0;
    for line in vectors.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let text = words.next().expect("a key");
        let hash = u64::from_str_radix(words.next().expect("a hash"), 16).expect("a hash in hex");
        let key = WorldKey::parse(text).expect("a world key");
        assert_eq!(xxh3_64(text.as_bytes()), hash, "{text}");
        for (shards, shard) in SHARDS.into_iter().zip(words) {
            let layout = Layout { version: 1, shards, placement };
            assert_eq!(key.shard(&layout).to_string(), shard, "{text} among {shards}");
            checked += 1;
        }
    }
    assert_eq!(checked, 24 * SHARDS.len());
}

#[test]
fn modulo_places_keys_where_the_vectors_say() {
    check(include_str!("vectors/modulo.txt"), Placement::Modulo);
}

#[test]
fn jump_places_keys_where_the_vectors_say() {
    check(include_str!("vectors/jump.txt"), Placement::Jump);
}
