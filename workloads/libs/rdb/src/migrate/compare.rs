//! Values of both versions compared. Knows what is equal and what may only look different because it was written in
//! between; what follows from a difference is the migrator's.

use fortia_common::placement::place;
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed, xxh3_128_with_seed};

use crate::RdbError;
use crate::keyspace::{self, KeyText};

use super::carry::{self, Head};
use super::engine::{Attempt, Compared, Judged, Surplus};
use super::lane::{Lane, unexpected};
use super::read::{self, Item, Kind, Outcome, Pieces, Reader};
use super::wire::{Answers, Token, Wire};

/// Keys asked for at once.
const BATCH: usize = 512;
/// Keys looked at closely at once: all is asked of each, and a large value holds the others up.
const CLOSER: usize = 64;

impl Lane {
    /// Compares keys of the source with what the targets have. `expires`: whether any may have an expiry. Keys that do
    /// not belong on the source are left out.
    ///
    /// # Errors
    /// When a shard does not answer.
    pub async fn compare(&mut self, keys: &[KeyText], expires: bool) -> Result<Compared, RdbError> {
        self.settle().await?;
        let items = self.by_target(keys);
        read::ask(&mut self.reads, &self.prefixes[0], &items, expires);
        self.reads.flush().await?;
        let targets: Vec<&[Item<'_>]> = items.chunk_by(|a, b| a.target == b.target).collect();
        for some in &targets {
            if let Some(wire) = &mut self.wires[some[0].target as usize] {
                read::ask(wire, &self.prefixes[1], some, expires);
                wire.flush().await?;
            }
        }
        let mut compared = Compared::default();
        let answers = self.reads.answers().await?;
        let found = read::outcomes(answers, &items, expires)?;
        let (mut found, mut unclear) = (found.iter(), Vec::new());
        for some in targets {
            let Some(wire) = &mut self.wires[some[0].target as usize] else { continue };
            let theirs = wire.answers().await?;
            for (item, there) in some.iter().zip(read::outcomes(theirs, some, expires)?) {
                let Some(here) = found.next() else { continue };
                match same(item, (answers, here), (theirs, &there)) {
                    Some(digest) => {
                        compared.equal += 1;
                        compared.digest = compared.digest.wrapping_add(digest);
                    }
                    None => unclear.push(*item),
                }
            }
        }
        self.look_closer(&unclear, &mut compared).await?;
        Ok(compared)
    }

    /// Keys of the source with their targets, those of one target together.
    fn by_target<'k>(&self, keys: &'k [KeyText]) -> Vec<Item<'k>> {
        let (from, to) = (self.shared.from, self.shared.to);
        let item = |key: &'k KeyText| {
            let hash = xxh3_64(key.as_bytes());
            let belongs = place(hash, from.shards, from.placement) == self.source;
            let target = place(hash, to.shards, to.placement);
            belongs.then(|| Item { key, kind: self.guesses.of(key), target })
        };
        let mut items: Vec<Item<'k>> = keys.iter().filter_map(item).collect();
        items.sort_by_key(|item| item.target);
        items
    }

    /// Compares keys whose type was not the one taken for, or which are large, by what they are. What still differs is
    /// suspect.
    async fn look_closer(&mut self, items: &[Item<'_>], compared: &mut Compared) -> Result<(), RdbError> {
        for some in items.chunk_by(|a, b| a.target == b.target).flat_map(|of_one| of_one.chunks(CLOSER)) {
            let keys: Vec<&KeyText> = some.iter().map(|item| item.key).collect();
            let here = wholes(&mut self.reads, &self.prefixes[0], &keys).await?;
            let Some(wire) = &mut self.wires[some[0].target as usize] else { continue };
            let there = wholes(wire, &self.prefixes[1], &keys).await?;
            for ((key, here), there) in keys.into_iter().zip(here).zip(there) {
                if let Some((kind, _)) = here {
                    self.guesses.learn(key, kind);
                }
                match here {
                    Some((_, digest)) if here == there => {
                        compared.equal += 1;
                        compared.digest = compared.digest.wrapping_add(digest);
                    }
                    // Gone on both sides since the page was read.
                    None if there.is_none() => {}
                    _ => compared.suspects.push(key.clone()),
                }
            }
        }
        Ok(())
    }

    /// Looks at suspects again, so that a write in between is not taken for a difference. One answer a key.
    ///
    /// # Errors
    /// When a shard does not answer.
    pub async fn judge(&mut self, keys: &[KeyText]) -> Result<Vec<Judged>, RdbError> {
        self.settle().await?;
        let mut judged = vec![Judged::Dirty; keys.len()];
        let mut by_target: Vec<(u32, usize)> =
            keys.iter().enumerate().map(|(at, key)| (key.shard(&self.shared.to), at)).collect();
        by_target.sort_unstable();
        for some in by_target.chunk_by(|a, b| a.0 == b.0).flat_map(|of_one| of_one.chunks(CLOSER)) {
            let these: Vec<&KeyText> = some.iter().map(|(_, at)| &keys[*at]).collect();
            let found = self.judge_some(some[0].0, &these).await?;
            for ((_, at), found) in some.iter().zip(found) {
                judged[*at] = found;
            }
        }
        Ok(judged)
    }

    async fn judge_some(&mut self, target: u32, keys: &[&KeyText]) -> Result<Vec<Judged>, RdbError> {
        let dirty = keyspace::dirty(self.shared.from.version);
        let here = wholes(&mut self.reads, &self.prefixes[0], keys).await?;
        // After the values: one written and drained in between must not pass for a value that nobody writes.
        let noted = are_noted(&mut self.reads, &dirty, keys).await?;
        self.wire(target).await?;
        let Some(wire) = &mut self.wires[target as usize] else { return Ok(vec![Judged::Dirty; keys.len()]) };
        let there = wholes(wire, &self.prefixes[1], keys).await?;
        let mut judged: Vec<Judged> =
            here.iter().map(|here| Judged::Equal(here.map_or(0, |(_, d)| d))).collect();
        let differ: Vec<usize> = (0..keys.len()).filter(|at| here[*at] != there[*at]).collect();
        if differ.is_empty() {
            return Ok(judged);
        }
        let these: Vec<&KeyText> = differ.iter().map(|at| keys[*at]).collect();
        let noted_since = are_noted(&mut self.reads, &dirty, &these).await?;
        let again = wholes(&mut self.reads, &self.prefixes[0], &these).await?;
        for ((at, noted_since), again) in differ.into_iter().zip(noted_since).zip(again) {
            let written = noted[at] || noted_since || again != here[at];
            judged[at] = if written { Judged::Dirty } else { Judged::Different };
        }
        Ok(judged)
    }

    /// Which of these keys, found on a target, the sources do not account for: neither have nor have noted. `asked`:
    /// whether a key of the lane's own source is looked for there; those of others always are.
    ///
    /// # Errors
    /// When a shard does not answer.
    pub async fn surplus(
        &mut self,
        target: u32,
        keys: Vec<KeyText>,
        mut asked: impl FnMut(&KeyText) -> bool,
    ) -> Result<Vec<Surplus>, RdbError> {
        self.settle().await?;
        let (from, to) = (self.shared.from, self.shared.to);
        let mut by_source: Vec<Vec<KeyText>> = vec![Vec::new(); from.shards.max(1) as usize];
        let mut surplus = Vec::new();
        for key in keys {
            let hash = xxh3_64(key.as_bytes());
            let source = place(hash, from.shards, from.placement);
            if place(hash, to.shards, to.placement) != target {
                surplus.push(Surplus::Misplaced(key));
            } else if source != self.source || asked(&key) {
                by_source[source as usize].push(key);
            }
        }
        for (source, keys) in (0..).zip(by_source) {
            for some in keys.chunks(BATCH) {
                let unknown = self.unknown(source, target, some).await?;
                surplus.extend(unknown.into_iter().map(Surplus::Unknown));
            }
        }
        Ok(surplus)
    }

    /// Which of these keys a source neither has nor has noted, while the target has them.
    async fn unknown(
        &mut self,
        source: u32,
        target: u32,
        keys: &[KeyText],
    ) -> Result<Vec<KeyText>, RdbError> {
        let prefixes = self.prefixes.clone();
        let wire = self.wire(source).await?;
        wire.begin(1 + keys.len());
        wire.arg(b"EXISTS");
        keys.iter().for_each(|key| wire.joined(&prefixes[0], key.as_bytes()));
        if wire.answers().await?.int()? == keys.len() as u64 {
            return Ok(Vec::new());
        }
        let mut unknown = missing(wire, &prefixes[0], keys.to_vec()).await?;
        if unknown.is_empty() {
            return Ok(unknown);
        }
        // A key may have been removed, noted and drained while it was looked for: then the target lacks it by now.
        let lacks = missing(self.wire(target).await?, &prefixes[1], unknown.clone()).await?;
        unknown.retain(|key| !lacks.contains(key));
        let dirty = keyspace::dirty(self.shared.from.version);
        let wire = self.wire(source).await?;
        let still = missing(wire, &prefixes[0], unknown).await?;
        let noted = are_noted(wire, &dirty, &still.iter().collect::<Vec<_>>()).await?;
        Ok(still.into_iter().zip(noted).filter_map(|(key, noted)| (!noted).then_some(key)).collect())
    }

    /// Removes keys from a target on which they do not belong.
    ///
    /// # Errors
    /// As [`Lane::copy`].
    pub async fn remove_misplaced(
        &mut self,
        attempt: &Attempt,
        target: u32,
        keys: &[KeyText],
    ) -> Result<u64, RdbError> {
        self.settle().await?;
        let head: Head = self.shared.head(attempt)?;
        let prefix = self.prefixes[1].clone();
        let wire = self.wire(target).await?;
        let gone: Vec<carry::Parcel<'_>> = keys.iter().map(carry::Parcel::gone).collect();
        carry::carry(wire, &head, &prefix, carry::NOTHING, &gone);
        carry::heard(&mut self.wires).await
    }
}

/// The digest of a value that is the same on both sides; none when it is not, or not known well enough.
fn same(
    item: &Item<'_>,
    here: (Answers<'_>, &Outcome<'_>),
    there: (Answers<'_>, &Outcome<'_>),
) -> Option<u128> {
    let (Outcome::Value { parts, expires }, Outcome::Value { parts: theirs, expires: at }) =
        (here.1, there.1)
    else {
        return None;
    };
    if expires != at || parts.len() != theirs.len() {
        return None;
    }
    let digest = of(item.key, item.kind, *expires, here.0, parts);
    let equal = parts.iter().zip(*theirs).all(|(a, b)| here.0.bytes(*a) == there.0.bytes(*b));
    // Hashes and sets may tell their elements in another order.
    (equal || digest == of(item.key, item.kind, *at, there.0, theirs)).then_some(digest)
}

fn seed(key: &KeyText, kind: Kind, expires: u64) -> u64 {
    xxh3_64(key.as_bytes()) ^ (kind as u64 + 1) ^ expires.rotate_left(8)
}

fn of(key: &KeyText, kind: Kind, expires: u64, answers: Answers<'_>, parts: &[Token]) -> u128 {
    if let (Kind::String, [part]) = (kind, parts) {
        // The same number, for half the time that a digest in pieces takes.
        return xxh3_128_with_seed(answers.bytes(*part).unwrap_or_default(), seed(key, kind, expires));
    }
    let mut digest = Digest::new(kind, seed(key, kind, expires));
    digest.add(answers, parts);
    digest.done()
}

/// The digest of a value, taken piece by piece.
struct Digest {
    kind: Kind,
    seed: u64,
    sum: u128,
    string: Xxh3,
}

impl Digest {
    fn new(kind: Kind, seed: u64) -> Digest {
        Digest { kind, seed, sum: u128::from(seed), string: Xxh3::with_seed(seed) }
    }

    fn add(&mut self, answers: Answers<'_>, parts: &[Token]) {
        let bytes = |token: &Token| answers.bytes(*token).unwrap_or_default();
        match self.kind {
            Kind::String => parts.iter().for_each(|part| self.string.update(bytes(part))),
            Kind::Hash => {
                for pair in parts.chunks_exact(2) {
                    let field = xxh3_64_with_seed(bytes(&pair[0]), self.seed);
                    self.sum = self.sum.wrapping_add(xxh3_128_with_seed(bytes(&pair[1]), field));
                }
            }
            Kind::Set => {
                for part in parts {
                    self.sum = self.sum.wrapping_add(xxh3_128_with_seed(bytes(part), self.seed));
                }
            }
            Kind::List => {
                for part in parts {
                    let seed = self.sum as u64 ^ (self.sum >> 64) as u64;
                    self.sum = xxh3_128_with_seed(bytes(part), seed.wrapping_add(self.seed));
                }
            }
        }
    }

    fn done(self) -> u128 {
        if self.kind == Kind::String { self.string.digest128() } else { self.sum }
    }
}

/// What keys hold, however large: type and digest of the value; none when there is no such key.
async fn wholes(
    wire: &mut Wire,
    prefix: &[u8],
    keys: &[&KeyText],
) -> Result<Vec<Option<(Kind, u128)>>, RdbError> {
    let mut found = vec![None; keys.len()];
    let (mut at, mut items, mut expires) = (Vec::new(), Vec::new(), Vec::new());
    for (i, (kind, expiry)) in read::kinds_and_expiries(wire, prefix, keys).await?.into_iter().enumerate() {
        if let Some(kind) = kind {
            at.push(i);
            items.push(Item { key: keys[i], kind, target: 0 });
            expires.push(expiry);
        }
    }
    let mut large = Vec::new();
    read::ask(wire, prefix, &items, false);
    let answers = wire.answers().await?;
    for (n, outcome) in read::outcomes(answers, &items, false)?.into_iter().enumerate() {
        match outcome {
            Outcome::Value { parts, .. } => {
                let digest = of(items[n].key, items[n].kind, expires[n], answers, parts);
                found[at[n]] = Some((items[n].kind, digest));
            }
            Outcome::Large => large.push(n),
            // Gone since its type was asked.
            Outcome::Unsure => {}
        }
    }
    for n in large {
        let Item { key, kind, .. } = items[n];
        let mut digest = Digest::new(kind, seed(key, kind, expires[n]));
        let mut pieces = Pieces::of(kind);
        while !pieces.done {
            let piece = pieces.next(wire, prefix, key).await?;
            digest.add(piece.answers, piece.parts);
        }
        found[at[n]] = Some((kind, digest.done()));
    }
    Ok(found)
}

/// Which of these keys a server lacks.
async fn missing(wire: &mut Wire, prefix: &[u8], keys: Vec<KeyText>) -> Result<Vec<KeyText>, RdbError> {
    for key in &keys {
        wire.begin(2);
        wire.arg(b"EXISTS");
        wire.joined(prefix, key.as_bytes());
    }
    let answers = wire.answers().await?;
    let mut reader = Reader { answers, at: 0 };
    let mut lacks = Vec::new();
    for key in keys {
        if reader.whole()? == [Token::Int(0)] {
            lacks.push(key);
        }
    }
    Ok(lacks)
}

async fn are_noted(wire: &mut Wire, dirty: &str, keys: &[&KeyText]) -> Result<Vec<bool>, RdbError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    wire.begin(2 + keys.len());
    wire.arg(b"HMGET");
    wire.arg(dirty.as_bytes());
    keys.iter().for_each(|key| wire.arg(key.as_bytes()));
    let answers = wire.answers().await?;
    answers.refused()?;
    match answers.tokens {
        [Token::Array(_), stamps @ ..] if stamps.len() == keys.len() => {
            Ok(stamps.iter().map(|stamp| *stamp != Token::Nil).collect())
        }
        _ => Err(unexpected(answers)),
    }
}
