//! Data to carry: values that follow from a number, so that nobody has to remember them. Knows types of values and how to
//! put them on a server; nothing of migrations.

use std::collections::{BTreeMap, BTreeSet};

use fortia_common::topology::Layout;
use fortia_rdb::keyspace::shard_of;
use fortia_testredis::TestServer;
use futures::future::join_all;

/// Keys put on a server in one go.
const BATCH: usize = 200;
/// An expiry in the year 2100.
const FAR: u64 = 4_102_444_800_000;

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Bytes, and the time in Unix ms at which they expire; 0: never.
    String(Vec<u8>, u64),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    Set(BTreeSet<Vec<u8>>),
    List(Vec<Vec<u8>>),
}

/// Which values there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Strings of 64 B to 2 KiB, uniform.
    Small,
    /// Strings of 16 KiB.
    Large,
    /// Two-slot hashes of 64 B to 2 KiB, as the world has them.
    Slots,
    /// Every type a world has, some with an expiry.
    Mixed,
}

/// Numbers that look random and follow from the first (SplitMix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

impl Shape {
    /// The text of key number `n`.
    pub(crate) fn text(self, n: u64) -> String {
        match (self, n % 10) {
            (Shape::Mixed, 5 | 6) => format!("u:{n}"),
            (Shape::Mixed, 7) => format!("ue:{n}"),
            (Shape::Mixed, 8) => format!("actions:{n}:0:0"),
            (Shape::Mixed, 9) => format!("s:{n}"),
            _ => format!("e:{n}"),
        }
    }

    /// What key number `n` holds.
    pub(crate) fn value(self, n: u64) -> Value {
        let mut dice = Dice(n.wrapping_mul(0x1234_5678_9ABC_DEF1));
        match (self, n % 10) {
            (Shape::Small, _) => {
                let length = 64 + dice.below(1985) as usize;
                Value::String(dice.bytes(length), 0)
            }
            (Shape::Large, _) => Value::String(dice.bytes(16 << 10), 0),
            (Shape::Slots, _) => slots(&mut dice, 1985),
            (Shape::Mixed, 5 | 6) => Value::String(dice.bytes(n as usize % 300), 0),
            (Shape::Mixed, 7) => Value::Set((0..1 + n % 7).map(|id| (n + id).to_string().into()).collect()),
            (Shape::Mixed, 8) => Value::List((0..1 + n % 5).map(|_| dice.bytes(20)).collect()),
            (Shape::Mixed, 9) => Value::String(dice.bytes(10), FAR + n),
            (Shape::Mixed, _) => slots(&mut dice, 256),
        }
    }

    /// Numbers of `count` keys for which `wanted` holds.
    pub(crate) fn numbers(self, count: usize, wanted: impl Fn(&[u8]) -> bool) -> Vec<u64> {
        (0u64..).filter(|n| wanted(self.text(*n).as_bytes())).take(count).collect()
    }
}

fn slots(dice: &mut Dice, most: u64) -> Value {
    let length = 32 + dice.below(most / 2) as usize;
    let mut slot = |tick: &str, data: &str, at: u64| {
        [(tick.into(), at.to_string().into_bytes()), (data.into(), dice.bytes(length))]
    };
    Value::Hash(slot("t0", "d0", 7).into_iter().chain(slot("t1", "d1", 8)).collect())
}

impl Value {
    /// Commands that make a key hold this; the key is absent before.
    pub(crate) fn put(&self, key: &str) -> redis::Cmd {
        let mut command = redis::cmd(match self {
            Value::String(..) => "SET",
            Value::Hash(_) => "HSET",
            Value::Set(_) => "SADD",
            Value::List(_) => "RPUSH",
        });
        command.arg(key);
        match self {
            Value::String(bytes, 0) => command.arg(bytes),
            Value::String(bytes, expires) => command.arg(bytes).arg("PXAT").arg(*expires),
            Value::Hash(fields) => {
                fields.iter().fold(&mut command, |c, (field, value)| c.arg(field).arg(value))
            }
            Value::Set(members) => members.iter().fold(&mut command, |c, member| c.arg(member)),
            Value::List(items) => items.iter().fold(&mut command, |c, item| c.arg(item)),
        };
        command
    }
}

/// Puts the keys of these numbers on one server, under names that begin with `prefix`.
pub(crate) async fn put(server: &TestServer, prefix: &str, shape: Shape, numbers: &[u64]) {
    let mut connection = server.connect().await;
    for part in numbers.chunks(BATCH) {
        let mut pipe = redis::pipe();
        for n in part {
            pipe.add_command(shape.value(*n).put(&format!("{prefix}{}", shape.text(*n)))).ignore();
        }
        pipe.query_async::<()>(&mut connection).await.expect("the server takes the data");
    }
}

/// Puts the keys of these numbers on the servers of a layout, each where it belongs.
pub(crate) async fn fill(servers: &[TestServer], layout: &Layout, shape: Shape, numbers: &[u64]) {
    let prefix = format!("v{}:", layout.version);
    let mut parts = vec![Vec::new(); layout.shards as usize];
    for n in numbers {
        parts[shard_of(shape.text(*n).as_bytes(), layout) as usize].push(*n);
    }
    join_all(servers.iter().zip(&parts).map(|(server, part)| put(server, &prefix, shape, part))).await;
}
