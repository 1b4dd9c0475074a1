//! One worker's connections, and the copying of batches over them. Knows which key stays and which goes where; the order
//! of batches is the migrator's.

use std::sync::Arc;

use fortia_common::placement::place;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::RdbError;
use crate::keyspace::{self, KeyText};

use super::carry::{self, Head, Parcel};
use super::engine::{Attempt, Copied, NEWER_TOPOLOGY, Page, Shared};
use super::read::{self, Guesses, Item, Outcome, Pieces};
use super::wire::{Answers, Token, Wire};

/// Connections of one worker: to a source and to all targets. One batch at a time; dropped after an error.
pub struct Lane {
    pub(super) shared: Arc<Shared>,
    pub(super) source: u32,
    /// To the source, for reading.
    pub(super) reads: Wire,
    /// To shards, by index, for everything else.
    pub(super) wires: Vec<Option<Wire>>,
    pub(super) guesses: Guesses,
    /// What keys of the two versions begin with.
    pub(super) prefixes: [Vec<u8>; 2],
    /// Where the look at notes goes on.
    pub(super) noted: Vec<u8>,
}

impl Lane {
    pub(super) async fn open(shared: Arc<Shared>, source: u32) -> Result<Lane, RdbError> {
        let reads = shared.open(source).await?;
        let prefix = |version| keyspace::prefix(version).into_bytes();
        let prefixes = [prefix(shared.from.version), prefix(shared.to.version)];
        let shards = shared.from.shards.max(shared.to.shards);
        let (wires, guesses) = ((0..shards).map(|_| None).collect(), Guesses::default());
        let mut lane = Lane { shared, source, reads, wires, guesses, prefixes, noted: b"0".to_vec() };
        for target in 0..lane.shared.to.shards {
            lane.wire(target).await?;
        }
        Ok(lane)
    }

    /// The connection to a shard.
    pub(super) async fn wire(&mut self, shard: u32) -> Result<&mut Wire, RdbError> {
        match self.wires.get_mut(shard as usize) {
            Some(Some(wire)) => Ok(wire),
            Some(none) => Ok(none.insert(self.shared.open(shard).await?)),
            None => {
                let reason = format!("there is no shard {shard}");
                Err(RdbError::Topology { epoch: self.shared.now()?.epoch, reason })
            }
        }
    }

    /// Drops what an earlier batch that was refused left on the connections.
    pub(super) async fn settle(&mut self) -> Result<(), RdbError> {
        self.reads.settle().await?;
        for wire in self.wires.iter_mut().flatten() {
            wire.settle().await?;
        }
        Ok(())
    }

    /// One step of a scan over the keys of a version on a shard, from `cursor` (0: the beginning).
    ///
    /// # Errors
    /// When the shard does not answer.
    pub async fn page(
        &mut self,
        shard: u32,
        version: u64,
        cursor: u64,
        count: u32,
    ) -> Result<Page, RdbError> {
        self.settle().await?;
        let own = shard == self.source;
        let wire = if own { &mut self.reads } else { self.wire(shard).await? };
        wire.begin(6);
        wire.arg(b"SCAN");
        wire.number(cursor);
        wire.arg(b"MATCH");
        wire.arg(keyspace::pattern(version).as_bytes());
        wire.arg(b"COUNT");
        wire.number(u64::from(count));
        let answers = wire.all_answers().await?;
        answers.refused()?;
        let [Token::Array(2), next, Token::Array(_), names @ ..] = answers.tokens else {
            return Err(unexpected(answers));
        };
        let next = answers.bytes(*next).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        let names = names.iter().filter_map(|name| answers.bytes(*name));
        let prefix = keyspace::prefix(version);
        Ok(Page {
            cursor: next.ok_or_else(|| unexpected(answers))?,
            keys: names.filter_map(|name| KeyText::behind(name, prefix.as_bytes())).collect(),
        })
    }

    /// Copies keys of the source to where the new layout has them. `expires`: whether any may have an expiry.
    ///
    /// # Errors
    /// `Attempt` when a newer attempt works; otherwise when a guard refuses or a shard does not answer.
    pub async fn copy(
        &mut self,
        attempt: &Attempt,
        keys: &[KeyText],
        expires: bool,
    ) -> Result<Copied, RdbError> {
        let by = Instant::now() + NEWER_TOPOLOGY;
        loop {
            let head = self.shared.head(attempt)?;
            match self.carry(&head, keys, expires).await {
                Err(stale @ RdbError::Stale { .. }) => {
                    self.shared.newer(head.epoch, by).await.ok_or(stale)?;
                }
                done => return done,
            }
        }
    }

    /// Copies under one epoch, and hears what all servers say.
    pub(super) async fn carry(
        &mut self,
        head: &Head,
        keys: &[KeyText],
        expires: bool,
    ) -> Result<Copied, RdbError> {
        self.settle().await?;
        let mut copied = Copied::default();
        let (stay, moved) = self.sorted(keys, &mut copied);
        if !stay.is_empty() {
            let from = self.shared.from.version;
            let wire = self.wire(self.source).await?;
            carry::stay(wire, head, from, &stay);
            wire.flush().await?;
        }
        let mut work = vec![moved];
        while let Some(items) = work.pop() {
            if !items.is_empty() {
                self.batch(head, &items, expires, &mut work, &mut copied).await?;
            }
        }
        carry::heard(&mut self.wires).await?;
        Ok(copied)
    }

    /// Which keys stay and which move, by the layouts; keys that do not belong on the source are left out.
    fn sorted<'k>(&self, keys: &'k [KeyText], copied: &mut Copied) -> (Vec<&'k KeyText>, Vec<Item<'k>>) {
        let (from, to) = (self.shared.from, self.shared.to);
        let (mut stay, mut moved) = (Vec::new(), Vec::with_capacity(keys.len()));
        for key in keys {
            let hash = xxh3_64(key.as_bytes());
            let target = place(hash, to.shards, to.placement);
            if place(hash, from.shards, from.placement) != self.source {
                copied.misplaced += 1;
            } else if target == self.source {
                stay.push(key);
            } else {
                moved.push(Item { key, kind: self.guesses.of(key), target });
            }
        }
        copied.stayed = stay.len() as u64;
        copied.keys = (stay.len() + moved.len()) as u64;
        (stay, moved)
    }

    /// Reads values and sends them to their targets; what was not what it was taken for goes back to work.
    async fn batch<'k>(
        &mut self,
        head: &Head,
        items: &[Item<'k>],
        expires: bool,
        work: &mut Vec<Vec<Item<'k>>>,
        copied: &mut Copied,
    ) -> Result<(), RdbError> {
        let (mut unsure, mut large) = (Vec::new(), Vec::new());
        read::ask(&mut self.reads, &self.prefixes[0], items, expires);
        let answers = self.reads.answers().await?;
        let mut parcels: Vec<Vec<Parcel<'_>>> = vec![Vec::new(); self.wires.len()];
        for (item, outcome) in items.iter().zip(read::outcomes(answers, items, expires)?) {
            match outcome {
                Outcome::Value { parts, expires } => {
                    let parcel =
                        Parcel { key: item.key, kind: Some(item.kind), parts, expires, appended: false };
                    copied.bytes += parcel.bytes() as u64;
                    parcels[item.target as usize].push(parcel);
                }
                Outcome::Unsure => unsure.push(*item),
                Outcome::Large => large.push(*item),
            }
        }
        for (wire, parcels) in self.wires.iter_mut().zip(&parcels) {
            if let (Some(wire), false) = (wire, parcels.is_empty()) {
                carry::carry(wire, head, &self.prefixes[1], answers, parcels);
                wire.flush().await?;
            }
        }
        self.look_again(head, &unsure, work).await?;
        match large.as_slice() {
            [] => {}
            [item] if items.len() == 1 => self.large(head, item, copied).await?,
            _ => work.extend(large.chunks(items.len().div_ceil(4)).map(<[Item<'k>]>::to_vec)),
        }
        Ok(())
    }

    /// Asks what keys are that were not what they were taken for: gone, or of another type.
    async fn look_again<'k>(
        &mut self,
        head: &Head,
        unsure: &[Item<'k>],
        work: &mut Vec<Vec<Item<'k>>>,
    ) -> Result<(), RdbError> {
        if unsure.is_empty() {
            return Ok(());
        }
        let keys: Vec<&KeyText> = unsure.iter().map(|item| item.key).collect();
        let kinds = read::kinds(&mut self.reads, &self.prefixes[0], &keys).await?;
        let mut again = Vec::new();
        for (item, kind) in unsure.iter().zip(kinds) {
            match (kind, &mut self.wires[item.target as usize]) {
                (Some(kind), _) => {
                    self.guesses.learn(item.key, kind);
                    again.push(Item { kind, ..*item });
                }
                (None, Some(wire)) => {
                    carry::carry(wire, head, &self.prefixes[1], carry::NOTHING, &[Parcel::gone(item.key)]);
                }
                (None, None) => {}
            }
        }
        work.push(again);
        Ok(())
    }

    /// Carries one large value by pieces, so that memory is bounded.
    async fn large(&mut self, head: &Head, item: &Item<'_>, copied: &mut Copied) -> Result<(), RdbError> {
        let Some(target) = &mut self.wires[item.target as usize] else { return Ok(()) };
        let expires = read::expiry(&mut self.reads, &self.prefixes[0], item.key).await?;
        let (mut pieces, mut appended) = (Pieces::of(item.kind), false);
        while !pieces.done {
            let piece = pieces.next(&mut self.reads, &self.prefixes[0], item.key).await?;
            if piece.parts.is_empty() {
                continue;
            }
            let parcel =
                Parcel { key: item.key, kind: Some(item.kind), parts: piece.parts, expires, appended };
            copied.bytes += parcel.bytes() as u64;
            carry::carry(target, head, &self.prefixes[1], piece.answers, &[parcel]);
            target.flush().await?;
            appended = true;
        }
        if !appended {
            carry::carry(target, head, &self.prefixes[1], carry::NOTHING, &[Parcel::gone(item.key)]);
        }
        Ok(())
    }
}

pub(super) fn unexpected(answers: Answers<'_>) -> RdbError {
    RdbError::Refused { address: answers.address.to_owned(), reason: "unexpected answer".into() }
}
