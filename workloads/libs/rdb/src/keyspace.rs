//! The text of every key of the world, and the shard it is on. The only place that writes or reads a key's text.

use std::fmt;

use fortia_common::placement::place;
use fortia_common::topology::Layout;
use fortia_vec::{ChunkPos, RegionPos};
use xxhash_rust::xxh3::xxh3_64;

/// A key of the world, without its version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorldKey {
    /// The world itself; written last, so its presence says the world is complete.
    Info,
    /// A chunk column.
    Chunk(ChunkPos),
    /// An entity.
    Entity(u64),
    /// A player in this world, by account name.
    Player(String),
    /// The ids of a player's entities.
    PlayerEntities(String),
    /// What players asked of a region for one tick.
    Actions {
        /// The tick it runs in.
        tick: u64,
        /// The region.
        region: RegionPos,
    },
    /// Claims on the blocks of a chunk, made and removed within one tick (strategy `Lock`).
    Lock(ChunkPos),
}

impl fmt::Display for WorldKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorldKey::Info => f.write_str("info"),
            WorldKey::Chunk(at) => write!(f, "c:{}:{}", at.x, at.y),
            WorldKey::Entity(id) => write!(f, "e:{id}"),
            WorldKey::Player(name) => write!(f, "u:{name}"),
            WorldKey::PlayerEntities(name) => write!(f, "ue:{name}"),
            WorldKey::Actions { tick, region } => write!(f, "actions:{tick}:{}:{}", region.x, region.y),
            WorldKey::Lock(at) => write!(f, "lock:{}:{}", at.x, at.y),
        }
    }
}

/// A text that is not a world key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a world key")]
pub struct NotAKey(String);

impl WorldKey {
    /// The key's text, without version.
    pub fn text(&self) -> String {
        self.to_string()
    }

    /// The key a text stands for. Exactly one text stands for a key.
    ///
    /// # Errors
    /// When the text is not what [`WorldKey::text`] gives for some key.
    pub fn parse(text: &str) -> Result<WorldKey, NotAKey> {
        let key = parts(text).filter(|key| key.text() == text);
        key.ok_or_else(|| NotAKey(text.to_owned()))
    }

    /// The name under which Redis has the key in this version of the database.
    pub fn physical(&self, version: u64) -> String {
        format!("v{version}:{self}")
    }

    /// The shard the key is on.
    pub fn shard(&self, layout: &Layout) -> u32 {
        shard_of(self.text().as_bytes(), layout)
    }
}

fn parts(text: &str) -> Option<WorldKey> {
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    let mut numbers = rest.split(':');
    match kind {
        "info" => Some(WorldKey::Info),
        "c" => Some(WorldKey::Chunk(ChunkPos { x: next(&mut numbers)?, y: next(&mut numbers)? })),
        "e" => Some(WorldKey::Entity(next(&mut numbers)?)),
        "u" if !rest.is_empty() => Some(WorldKey::Player(rest.to_owned())),
        "ue" if !rest.is_empty() => Some(WorldKey::PlayerEntities(rest.to_owned())),
        "actions" => Some(WorldKey::Actions {
            tick: next(&mut numbers)?,
            region: RegionPos { x: next(&mut numbers)?, y: next(&mut numbers)? },
        }),
        "lock" => Some(WorldKey::Lock(ChunkPos { x: next(&mut numbers)?, y: next(&mut numbers)? })),
        _ => None,
    }
}

fn next<'a, T: std::str::FromStr>(numbers: &mut impl Iterator<Item = &'a str>) -> Option<T> {
    numbers.next()?.parse().ok()
}

/// The shard of a key's text (without version) in a layout.
pub fn shard_of(text: &[u8], layout: &Layout) -> u32 {
    place(xxh3_64(text), layout.shards, layout.placement)
}

/// A key of the world as a migration sees it: its text without version, whatever it means.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyText(Vec<u8>);

impl KeyText {
    /// The text of a physical key of `version`; none when it is of another version or not of the world.
    pub fn of_physical(physical: &[u8], version: u64) -> Option<KeyText> {
        KeyText::behind(physical, prefix(version).as_bytes())
    }

    /// As [`KeyText::of_physical`], with what keys of the version begin with.
    pub(crate) fn behind(physical: &[u8], prefix: &[u8]) -> Option<KeyText> {
        let text = physical.strip_prefix(prefix)?;
        (!is_own(text)).then(|| KeyText(text.to_vec()))
    }

    /// As [`KeyText::of_physical`], for every name of the version.
    pub(crate) fn of_any(physical: &[u8], version: u64) -> Option<KeyText> {
        physical.strip_prefix(prefix(version).as_bytes()).map(|text| KeyText(text.to_vec()))
    }

    pub(crate) fn of_dirty(member: Vec<u8>) -> KeyText {
        KeyText(member)
    }

    /// The name under which Redis has the key in this version of the database.
    pub fn physical(&self, version: u64) -> Vec<u8> {
        [prefix(version).as_bytes(), &self.0].concat()
    }

    /// The shard the key is on.
    pub fn shard(&self, layout: &Layout) -> u32 {
        shard_of(&self.0, layout)
    }

    /// The text up to its first colon: keys of one class are alike.
    pub fn class(&self) -> &[u8] {
        self.0.split(|byte| *byte == b':').next().unwrap_or_default()
    }

    /// The text, as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&WorldKey> for KeyText {
    fn from(key: &WorldKey) -> KeyText {
        KeyText(key.text().into_bytes())
    }
}

impl fmt::Display for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

const DIRTY: &str = "dirty";
const ACTING: &str = "acting";
const CHECKPOINT: &str = "checkpoint";
/// Locks live within one tick: between two they are worth nothing.
const LOCK: &[u8] = b"lock:";

/// Whether a text says something of its server, not of the world: no migration carries or compares it.
fn is_own(text: &[u8]) -> bool {
    [DIRTY, ACTING, CHECKPOINT].iter().any(|own| text == own.as_bytes()) || text.starts_with(LOCK)
}

pub(crate) fn prefix(version: u64) -> String {
    format!("v{version}:")
}

/// Pattern of all keys of a version.
pub fn pattern(version: u64) -> String {
    prefix(version) + "*"
}

/// The texts written while a version was being copied, each with its stamp; the empty text has the last one.
pub fn dirty(version: u64) -> String {
    prefix(version) + DIRTY
}

/// How far copying into a version is, by source shard.
pub fn checkpoint(version: u64) -> String {
    prefix(version) + CHECKPOINT
}

/// The set of a shard's lists of actions, as `tick:x:y`. The functions keep it.
pub fn acting(version: u64) -> String {
    prefix(version) + ACTING
}

/// The region a text `x:y` names, as in the set of lists of actions.
pub(crate) fn region(text: &str) -> Option<RegionPos> {
    let mut numbers = text.split(':');
    Some(RegionPos { x: next(&mut numbers)?, y: next(&mut numbers)? })
}

#[cfg(test)]
mod tests {
    use fortia_common::topology::Placement;
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = WorldKey> {
        prop_oneof![
            Just(WorldKey::Info),
            any::<(i32, i32)>().prop_map(|(x, y)| WorldKey::Chunk(ChunkPos { x, y })),
            any::<u64>().prop_map(WorldKey::Entity),
            "[^\u{0}]{1,20}".prop_map(WorldKey::Player),
            "[a-z:]{1,20}".prop_map(WorldKey::PlayerEntities),
            any::<(u64, i32, i32)>()
                .prop_map(|(tick, x, y)| WorldKey::Actions { tick, region: RegionPos { x, y } }),
            any::<(i32, i32)>().prop_map(|(x, y)| WorldKey::Lock(ChunkPos { x, y })),
        ]
    }

    proptest! {
        #[test]
        fn a_key_survives_its_text(key in key()) {
            prop_assert_eq!(WorldKey::parse(&key.text()), Ok(key.clone()));
            let text = KeyText::of_physical(key.physical(7).as_bytes(), 7);
            prop_assert_eq!(text.is_none(), matches!(key, WorldKey::Lock(_)));
            if let Some(text) = text {
                prop_assert_eq!(&text, &KeyText::from(&key));
                prop_assert_eq!(text.physical(8), key.physical(8).into_bytes());
            }
            prop_assert_eq!(KeyText::of_physical(key.physical(7).as_bytes(), 70), None);
        }

        #[test]
        fn a_text_that_parses_is_the_key_s_own(text in "(c|e|u|ue|info|actions|lock|x)(:[-+0-9a-z]{0,4}){0,4}") {
            if let Ok(key) = WorldKey::parse(&text) {
                prop_assert_eq!(key.text(), text);
            }
        }

        #[test]
        fn every_key_has_a_shard_of_its_layout(hash: u64, shards in 1u32..100) {
            for placement in [Placement::Modulo, Placement::Jump] {
                prop_assert!(place(hash, shards, placement) < shards);
            }
        }

        #[test]
        fn with_jump_a_key_moves_only_to_the_new_shard(hash: u64, shards in 1u32..100) {
            let (before, after) = (place(hash, shards, Placement::Jump), place(hash, shards + 1, Placement::Jump));
            prop_assert!(after == before || after == shards);
        }
    }

    #[test]
    fn jump_from_four_to_five_shards_moves_a_fifth_and_modulo_four_fifths() {
        let moved = |placement| {
            let keys = (0..20_000).map(|i| xxh3_64(format!("e:{i}").as_bytes()));
            keys.filter(|&hash| place(hash, 4, placement) != place(hash, 5, placement)).count() / 200
        };
        assert!((19..=21).contains(&moved(Placement::Jump)));
        assert!((79..=81).contains(&moved(Placement::Modulo)));
    }

    #[test]
    fn texts_that_are_not_canonical_are_refused() {
        for text in
            ["", "info:", "c:1", "c:1:2:3", "c:01:2", "c:+1:2", "c:-0:2", "e:", "e:-1", "u:", "actions:1:2"]
        {
            assert!(WorldKey::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_says_something_of_a_server_is_no_key_of_the_world() {
        assert_eq!(KeyText::of_physical(dirty(3).as_bytes(), 3), None);
        assert_eq!(KeyText::of_physical(acting(3).as_bytes(), 3), None);
        assert_eq!(KeyText::of_physical(checkpoint(3).as_bytes(), 3), None);
        assert_eq!(KeyText::of_physical(b"v3:lock:1:2", 3), None);
    }

    #[test]
    fn a_class_is_what_stands_before_the_first_colon() {
        let class = |text: &str| KeyText(text.as_bytes().to_vec()).class().to_vec();
        assert_eq!((class("c:1:2"), class("info"), class("")), (b"c".to_vec(), b"info".to_vec(), Vec::new()));
    }
}
