//! Values on their way: grouped by target, encoded into fenced calls, and what the targets say. Knows the functions'
//! arguments; knows nothing of the order of the work.

use fortia_common::records;

use crate::RdbError;
use crate::keyspace::KeyText;

use super::read::Kind;
use super::wire::{Answers, Token, Wire};

/// Keys in one call.
const KEYS: usize = 128;
/// Value bytes in one call, unless one value is larger.
const BYTES: usize = 256 << 10;

/// As whom, into which version and for which attempt a call writes.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) cluster: String,
    pub(super) epoch: u64,
    pub(super) version: u64,
    pub(super) source: u32,
    pub(super) attempt: u64,
}

/// Arguments of a call before its own.
const HEAD: usize = 9;

impl Head {
    /// Begins a call with so many arguments of its own.
    pub(super) fn begin(&self, wire: &mut Wire, function: &[u8], own: usize) {
        wire.begin(HEAD + own);
        wire.arg(b"FCALL");
        wire.arg(function);
        wire.arg(b"1");
        wire.arg(records::GUARD.as_bytes());
        wire.arg(self.cluster.as_bytes());
        wire.number(self.epoch);
        wire.number(self.version);
        wire.number(u64::from(self.source));
        wire.number(self.attempt);
    }
}

/// For parcels without content.
pub(super) const NOTHING: Answers<'static> = Answers { address: "", data: &[], tokens: &[] };

/// A value for a target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parcel<'a> {
    pub(super) key: &'a KeyText,
    /// None: the key is gone.
    pub(super) kind: Option<Kind>,
    /// Its elements.
    pub(super) parts: &'a [Token],
    /// Unix ms; 0: never.
    pub(super) expires: u64,
    /// A further piece of a value that came before.
    pub(super) appended: bool,
}

impl Parcel<'_> {
    /// That there is no such key any more.
    pub(super) fn gone(key: &KeyText) -> Parcel<'_> {
        Parcel { key, kind: None, parts: &[], expires: 0, appended: false }
    }

    fn is_plain(&self) -> bool {
        self.kind == Some(Kind::String) && self.expires == 0 && !self.appended
    }

    fn op(&self) -> &'static [u8] {
        match (self.kind, self.appended) {
            (None, _) => b"gone",
            (Some(Kind::String), false) => b"string",
            (Some(Kind::String), true) => b"+string",
            (Some(Kind::Hash), false) => b"hash",
            (Some(Kind::Hash), true) => b"+hash",
            (Some(Kind::Set), false) => b"set",
            (Some(Kind::Set), true) => b"+set",
            (Some(Kind::List), false) => b"list",
            (Some(Kind::List), true) => b"+list",
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let length = |token: &Token| if let Token::Bulk { len, .. } = token { *len as usize } else { 0 };
        self.parts.iter().map(length).sum()
    }
}

/// Encodes the calls that put parcels into the target version, whose keys begin with `prefix`.
pub(super) fn carry(
    wire: &mut Wire,
    head: &Head,
    prefix: &[u8],
    answers: Answers<'_>,
    parcels: &[Parcel<'_>],
) {
    let (plain, other): (Vec<&Parcel<'_>>, Vec<&Parcel<'_>>) =
        parcels.iter().partition(|parcel| parcel.is_plain());
    for call in calls(&plain) {
        head.begin(wire, b"fortia_carry", 1 + 2 * call.len());
        wire.arg(b"strings");
        for parcel in call {
            wire.joined(prefix, parcel.key.as_bytes());
            parts(wire, answers, parcel);
        }
    }
    for call in calls(&other) {
        let own: usize = call.iter().map(|parcel| 4 + parcel.parts.len()).sum();
        head.begin(wire, b"fortia_carry", 1 + own);
        wire.arg(b"values");
        for parcel in call {
            wire.arg(parcel.op());
            wire.joined(prefix, parcel.key.as_bytes());
            wire.number(parcel.expires);
            wire.number(parcel.parts.len() as u64);
            parts(wire, answers, parcel);
        }
    }
}

fn parts(wire: &mut Wire, answers: Answers<'_>, parcel: &Parcel<'_>) {
    for part in parcel.parts {
        wire.arg(answers.bytes(*part).unwrap_or_default());
    }
}

/// Parcels by call.
fn calls<'p, 'a>(parcels: &'p [&'p Parcel<'a>]) -> impl Iterator<Item = &'p [&'p Parcel<'a>]> {
    let mut rest = parcels;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |(at, parcel): &(usize, &&Parcel<'_>)| {
            bytes += parcel.bytes();
            *at == 0 || (*at < KEYS && bytes <= BYTES)
        };
        let count = rest.iter().enumerate().take_while(fits).count();
        let (call, after) = rest.split_at(count);
        rest = after;
        (count > 0).then_some(call)
    })
}

/// Encodes the calls that copy keys inside their server, from version `from`.
pub(super) fn stay(wire: &mut Wire, head: &Head, from: u64, keys: &[&KeyText]) {
    for call in keys.chunks(KEYS) {
        head.begin(wire, b"fortia_stay", 1 + call.len());
        wire.number(from);
        call.iter().for_each(|key| wire.arg(key.as_bytes()));
    }
}

/// Encodes the calls that take notes away, unless the keys were written again.
pub(super) fn clean(wire: &mut Wire, head: &Head, notes: &[(KeyText, Vec<u8>)]) {
    for call in notes.chunks(512) {
        head.begin(wire, b"fortia_clean", 2 * call.len());
        for (key, stamp) in call {
            wire.arg(key.as_bytes());
            wire.arg(stamp);
        }
    }
}

/// What all servers say that were called: the sum of their numbers, or the first refusal. All are heard out, so that the
/// connections are good for the next batch.
pub(super) async fn heard(wires: &mut [Option<Wire>]) -> Result<u64, RdbError> {
    for wire in wires.iter_mut().flatten() {
        wire.flush().await?;
    }
    let (mut sum, mut refused) = (0, Ok(()));
    for wire in wires.iter_mut().flatten().filter(|wire| !wire.is_idle()) {
        let answers = wire.answers().await?;
        refused = refused.and(answers.refused());
        for token in answers.tokens {
            if let Token::Int(number) = token {
                sum += u64::try_from(*number).unwrap_or_default();
            }
        }
    }
    refused.map(|()| sum)
}
