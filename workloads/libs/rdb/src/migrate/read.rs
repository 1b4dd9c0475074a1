//! Values of keys whose type is not known: asked for by the type their class had last, by few commands. Knows types of
//! values and how to read them, not where they go.

use crate::RdbError;
use crate::keyspace::KeyText;

use super::lane::unexpected;
use super::wire::{Answers, PIECE, Token, Wire};

/// Types of values a world has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    Hash,
    Set,
    List,
}

impl Kind {
    /// By the word that `TYPE` says; none: there is no such key.
    pub(super) fn parse(key: &KeyText, word: &[u8]) -> Result<Option<Kind>, RdbError> {
        match word {
            b"none" => Ok(None),
            b"string" => Ok(Some(Kind::String)),
            b"hash" => Ok(Some(Kind::Hash)),
            b"set" => Ok(Some(Kind::Set)),
            b"list" => Ok(Some(Kind::List)),
            other => Err(RdbError::corrupt(
                key.to_string(),
                format!("no world has a {}", String::from_utf8_lossy(other)),
            )),
        }
    }
}

/// The type last seen of each class of keys.
#[derive(Clone, Debug)]
pub(super) struct Guesses(Vec<(Vec<u8>, Kind)>);

impl Default for Guesses {
    fn default() -> Guesses {
        Guesses(vec![(b"ue".to_vec(), Kind::Set), (b"actions".to_vec(), Kind::List)])
    }
}

impl Guesses {
    pub(super) fn of(&self, key: &KeyText) -> Kind {
        let class = key.class();
        self.0.iter().find(|(known, _)| known == class).map_or(Kind::Hash, |(_, kind)| *kind)
    }

    pub(super) fn learn(&mut self, key: &KeyText, kind: Kind) {
        let class = key.class();
        match self.0.iter().position(|(known, _)| known == class) {
            Some(at) => self.0[at].1 = kind,
            // A world has few classes; keys of strange ones are looked at twice each time.
            None if self.0.len() < 64 => self.0.push((class.to_vec(), kind)),
            None => {}
        }
    }
}

/// A key and the type it is taken to have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item<'a> {
    pub(super) key: &'a KeyText,
    pub(super) kind: Kind,
    /// Where it goes.
    pub(super) target: u32,
}

/// What a key turned out to have.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome<'a> {
    /// Its elements (field, value, ... of a hash; the one value of a string), and when it expires, in Unix ms; 0: never.
    Value { parts: &'a [Token], expires: u64 },
    /// Nothing, or a value of another type.
    Unsure,
    /// More than an answer may take.
    Large,
}

/// Asks for the values of keys of one version.
pub(super) fn ask(wire: &mut Wire, prefix: &[u8], items: &[Item<'_>], expires: bool) {
    let strings = items.iter().filter(|item| item.kind == Kind::String);
    let count = strings.clone().count();
    if count > 0 {
        wire.begin(1 + count);
        wire.arg(b"MGET");
        strings.for_each(|item| wire.joined(prefix, item.key.as_bytes()));
    }
    for item in items {
        let (name, range): (&[u8], bool) = match item.kind {
            Kind::String => continue,
            Kind::Hash => (b"HGETALL", false),
            Kind::Set => (b"SMEMBERS", false),
            Kind::List => (b"LRANGE", true),
        };
        wire.begin(if range { 4 } else { 2 });
        wire.arg(name);
        wire.joined(prefix, item.key.as_bytes());
        if range {
            wire.arg(b"0");
            wire.arg(b"-1");
        }
    }
    for item in items.iter().filter(|_| expires) {
        wire.begin(2);
        wire.arg(b"PEXPIRETIME");
        wire.joined(prefix, item.key.as_bytes());
    }
}

/// The answers to [`ask`], one an item.
pub(super) fn outcomes<'a>(
    answers: Answers<'a>,
    items: &[Item<'_>],
    expires: bool,
) -> Result<Vec<Outcome<'a>>, RdbError> {
    let mut reader = Reader { answers, at: 0 };
    let mut found = vec![Outcome::Unsure; items.len()];
    let strings = (0..items.len()).filter(|i| items[*i].kind == Kind::String);
    if items.iter().any(|item| item.kind == Kind::String) {
        let all = reader.whole()?;
        match all {
            [Token::Skipped] => strings.for_each(|i| found[i] = Outcome::Large),
            _ => {
                for (i, part) in strings.zip(all.get(1..).unwrap_or_default().chunks(1)) {
                    if let [Token::Bulk { .. }] = part {
                        found[i] = Outcome::Value { parts: part, expires: 0 };
                    }
                }
            }
        }
    }
    for (i, _) in items.iter().enumerate().filter(|(_, item)| item.kind != Kind::String) {
        found[i] = match reader.value()? {
            [Token::Skipped] => Outcome::Large,
            [Token::Array(1..), parts @ ..] => Outcome::Value { parts, expires: 0 },
            _ => Outcome::Unsure,
        };
    }
    for outcome in found.iter_mut().filter(|_| expires) {
        let told = reader.whole()?;
        if let (Outcome::Value { expires, .. }, [Token::Int(at @ 1..)]) = (outcome, told) {
            *expires = *at as u64;
        }
    }
    Ok(found)
}

/// Answers, taken one after the other.
pub(super) struct Reader<'a> {
    pub(super) answers: Answers<'a>,
    pub(super) at: usize,
}

impl<'a> Reader<'a> {
    /// The parts of the next answer; an error when it is a refusal.
    pub(super) fn whole(&mut self) -> Result<&'a [Token], RdbError> {
        let parts = self.next();
        match parts {
            [token @ Token::Error { .. }] => Err(self.answers.refusal(*token)),
            _ => Ok(parts),
        }
    }

    /// As [`Reader::whole`]; that a key has another type is no error.
    fn value(&mut self) -> Result<&'a [Token], RdbError> {
        let parts = self.next();
        match parts {
            [token @ Token::Error { .. }] => match self.answers.bytes(*token) {
                Some(text) if text.starts_with(b"WRONGTYPE") => Ok(parts),
                _ => Err(self.answers.refusal(*token)),
            },
            _ => Ok(parts),
        }
    }

    fn next(&mut self) -> &'a [Token] {
        let (begin, mut open) = (self.at, 1u64);
        while let (1.., Some(token)) = (open, self.answers.tokens.get(self.at)) {
            open -= 1;
            if let Token::Array(parts) = token {
                open += u64::from(*parts);
            }
            self.at += 1;
        }
        &self.answers.tokens[begin..self.at]
    }
}

/// When a key expires, in Unix ms; 0: never.
pub(super) async fn expiry(wire: &mut Wire, prefix: &[u8], key: &KeyText) -> Result<u64, RdbError> {
    wire.begin(2);
    wire.arg(b"PEXPIRETIME");
    wire.joined(prefix, key.as_bytes());
    wire.answers().await?.int()
}

/// Asks what keys are whose guess was wrong.
pub(super) async fn kinds(
    wire: &mut Wire,
    prefix: &[u8],
    keys: &[&KeyText],
) -> Result<Vec<Option<Kind>>, RdbError> {
    for key in keys {
        wire.begin(2);
        wire.arg(b"TYPE");
        wire.joined(prefix, key.as_bytes());
    }
    let answers = wire.answers().await?;
    answers.refused()?;
    let word = |token: &Token| answers.bytes(*token).unwrap_or_default();
    keys.iter().zip(answers.tokens).map(|(key, token)| Kind::parse(key, word(token))).collect()
}

/// Asks what keys are and when they expire (Unix ms; 0: never), whatever was guessed.
pub(super) async fn kinds_and_expiries(
    wire: &mut Wire,
    prefix: &[u8],
    keys: &[&KeyText],
) -> Result<Vec<(Option<Kind>, u64)>, RdbError> {
    for key in keys {
        for name in [b"TYPE".as_slice(), b"PEXPIRETIME"] {
            wire.begin(2);
            wire.arg(name);
            wire.joined(prefix, key.as_bytes());
        }
    }
    let answers = wire.answers().await?;
    answers.refused()?;
    let both = |(key, told): (&&KeyText, &[Token])| match told {
        [kind, Token::Int(at)] => {
            let kind = Kind::parse(key, answers.bytes(*kind).unwrap_or_default())?;
            Ok((kind, u64::try_from(*at).unwrap_or_default()))
        }
        _ => Err(unexpected(answers)),
    };
    keys.iter().zip(answers.tokens.chunks(2)).map(both).collect()
}

/// Reads one large value by pieces; each holds whole elements. A hash's or set's element may come twice.
pub(super) struct Pieces {
    kind: Kind,
    cursor: Vec<u8>,
    /// Elements asked for at once, or bytes of a string: as many as make a piece.
    count: u64,
    /// Elements or bytes had.
    had: u64,
    pub(super) done: bool,
}

/// Bytes a piece should have at most and, if there are more elements, at least.
const WANTED: (usize, usize) = (PIECE / 2, PIECE / 16);

impl Pieces {
    pub(super) fn of(kind: Kind) -> Pieces {
        let count = if kind == Kind::String { PIECE as u64 / 2 } else { 16 };
        Pieces { kind, cursor: b"0".to_vec(), count, had: 0, done: false }
    }

    /// The next elements; empty at the end, or when there is no such value any more.
    pub(super) async fn next<'w>(
        &mut self,
        wire: &'w mut Wire,
        prefix: &[u8],
        key: &KeyText,
    ) -> Result<Piece<'w>, RdbError> {
        let name: &[u8] = match self.kind {
            Kind::String => b"GETRANGE",
            Kind::List => b"LRANGE",
            Kind::Hash => b"HSCAN",
            Kind::Set => b"SSCAN",
        };
        let scans = matches!(self.kind, Kind::Hash | Kind::Set);
        wire.begin(if scans { 5 } else { 4 });
        wire.arg(name);
        wire.joined(prefix, key.as_bytes());
        if scans {
            wire.arg(&self.cursor);
            wire.arg(b"COUNT");
            wire.number(self.count);
        } else {
            wire.number(self.had);
            wire.number(self.had + self.count - 1);
        }
        let answers = wire.all_answers().await?;
        answers.refused()?;
        let parts = match answers.tokens {
            [Token::Bulk { len: 1.., .. }] => answers.tokens,
            [Token::Array(2), cursor, Token::Array(_), parts @ ..] if scans => {
                self.cursor = answers.bytes(*cursor).unwrap_or_default().to_vec();
                self.done = self.cursor == b"0";
                parts
            }
            [Token::Array(_), parts @ ..] if !scans => parts,
            _ => &[],
        };
        self.done |= !scans && parts.is_empty();
        self.had += if self.kind == Kind::String { self.count } else { parts.len() as u64 };
        if self.kind != Kind::String {
            self.count = match answers.data.len() {
                size if size > WANTED.0 => (self.count / 2).max(1),
                size if size < WANTED.1 => (self.count * 2).min(4096),
                _ => self.count,
            };
        }
        Ok(Piece { answers, parts })
    }
}

/// Elements of a large value.
pub(super) struct Piece<'a> {
    pub(super) answers: Answers<'a>,
    pub(super) parts: &'a [Token],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::WorldKey;

    #[test]
    fn a_class_is_taken_for_what_its_last_key_was() {
        let (mut guesses, key) = (Guesses::default(), KeyText::from(&WorldKey::Entity(7)));
        assert_eq!(guesses.of(&key), Kind::Hash);
        guesses.learn(&key, Kind::String);
        assert_eq!(guesses.of(&key), Kind::String);
    }
}
