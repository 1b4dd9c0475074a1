//! Noted keys carried again, until none are left. Knows that a note goes only when its stamp is still the one that was
//! looked at before the value was read.

use tokio::time::Instant;

use crate::RdbError;
use crate::keyspace::{self, KeyText};

use super::carry::{self, Head};
use super::engine::{Attempt, Copied, Drained, NEWER_TOPOLOGY};
use super::lane::{Lane, unexpected};
use super::wire::{Answers, Token};

/// Keys carried at once.
const BATCH: usize = 128;

/// A noted key, and the stamp of its last writing.
pub(super) type Note = (KeyText, Vec<u8>);

impl Lane {
    /// Carries up to `most` of the keys noted as written, or a few more.
    ///
    /// # Errors
    /// As [`Lane::copy`].
    pub async fn drain(&mut self, attempt: &Attempt, most: usize) -> Result<Drained, RdbError> {
        let notes = self.notes(most).await?;
        let by = Instant::now() + NEWER_TOPOLOGY;
        let copied = loop {
            let head = self.shared.head(attempt)?;
            match self.carry_notes(&head, &notes).await {
                Err(stale @ RdbError::Stale { .. }) => {
                    self.shared.newer(head.epoch, by).await.ok_or(stale)?;
                }
                done => break done?,
            }
        };
        let left = self.left().await?;
        Ok(Drained { keys: notes.len() as u64, bytes: copied.bytes, left })
    }

    /// Carries noted keys under one epoch, and takes the notes away.
    pub(super) async fn carry_notes(&mut self, head: &Head, notes: &[Note]) -> Result<Copied, RdbError> {
        let mut all = Copied::default();
        for some in notes.chunks(BATCH) {
            let keys: Vec<KeyText> = some.iter().map(|(key, _)| key.clone()).collect();
            let copied = self.carry(head, &keys, true).await?;
            all.keys += copied.keys;
            all.stayed += copied.stayed;
            all.bytes += copied.bytes;
            carry::clean(&mut self.reads, head, some);
            self.reads.answers().await?.refused()?;
        }
        Ok(all)
    }

    /// Some of the notes; none when there are none.
    async fn notes(&mut self, most: usize) -> Result<Vec<Note>, RdbError> {
        self.settle().await?;
        let dirty = keyspace::dirty(self.shared.from.version);
        let (mut notes, mut begun, mut turned) = (Vec::new(), false, false);
        // A table that was large and has been emptied has long ways without a note.
        while notes.is_empty() && !turned {
            let wire = &mut self.reads;
            wire.begin(5);
            wire.arg(b"HSCAN");
            wire.arg(dirty.as_bytes());
            wire.arg(&self.noted);
            wire.arg(b"COUNT");
            wire.number(most as u64);
            let answers = wire.all_answers().await?;
            answers.refused()?;
            let [Token::Array(2), next, Token::Array(_), pairs @ ..] = answers.tokens else {
                return Err(unexpected(answers));
            };
            begun |= self.noted == b"0";
            self.noted = answers.bytes(*next).unwrap_or(b"0").to_vec();
            notes = read(answers, pairs);
            turned = begun && self.noted == b"0";
        }
        Ok(notes)
    }

    async fn left(&mut self) -> Result<u64, RdbError> {
        let dirty = keyspace::dirty(self.shared.from.version);
        self.reads.command(&[b"HLEN", dirty.as_bytes()]);
        // One field has the last stamp.
        Ok(self.reads.answers().await?.int()?.saturating_sub(1))
    }
}

/// Notes from texts and stamps in turn.
pub(super) fn read(answers: Answers<'_>, pairs: &[Token]) -> Vec<Note> {
    let pair = |pair: &[Token]| {
        let text = answers.bytes(*pair.first()?).filter(|text| !text.is_empty())?;
        Some((KeyText::of_dirty(text.to_vec()), answers.bytes(*pair.get(1)?)?.to_vec()))
    };
    pairs.chunks_exact(2).filter_map(pair).collect()
}
