//! All that servers hold of a version, read by plain commands, and how it differs from what they should hold. Knows
//! nothing of how a migration reads.

use std::collections::BTreeMap;

use fortia_common::topology::Layout;
use fortia_rdb::keyspace::shard_of;
use fortia_testredis::TestServer;

use crate::data::Value;

/// Texts of keys with what they hold.
pub(crate) type Contents = BTreeMap<Vec<u8>, Value>;

/// How contents differ from what is expected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) missing: Vec<String>,
    pub(crate) extra: Vec<String>,
    pub(crate) changed: Vec<String>,
}

impl Difference {
    pub(crate) fn of(expected: &Contents, found: &Contents) -> Difference {
        let mut difference = Difference::default();
        let name = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
        for (key, value) in expected {
            match found.get(key) {
                None => difference.missing.push(name(key)),
                Some(now) if now != value => difference.changed.push(name(key)),
                Some(_) => {}
            }
        }
        difference.extra =
            found.keys().filter(|key| !expected.contains_key(*key)).map(|key| name(key)).collect();
        difference
    }

    pub(crate) fn is_none(&self) -> bool {
        self.missing.is_empty() && self.extra.is_empty() && self.changed.is_empty()
    }
}

/// Reads every key of a version from every server there is. A key that is not where the layout puts it comes under a
/// name that says so, so that it counts as extra.
pub(crate) async fn contents(servers: &[TestServer], layout: &Layout) -> Contents {
    let mut all = Contents::new();
    let prefix = format!("v{}:", layout.version);
    for (shard, server) in servers.iter().enumerate() {
        let mut connection = server.connect().await;
        let mut cursor = 0u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{prefix}*")).arg("COUNT").arg(1000);
            let (next, keys): (u64, Vec<Vec<u8>>) =
                scan.query_async(&mut connection).await.expect("the server scans");
            let keys: Vec<Vec<u8>> = keys.into_iter().filter(|key| !is_own(&key[prefix.len()..])).collect();
            for (key, value) in keys.iter().zip(values(&mut connection, &keys).await) {
                let text = key[prefix.len()..].to_vec();
                let home = shard_of(&text, layout) as usize == shard;
                all.insert(if home { text } else { [b"misplaced ".as_slice(), &text].concat() }, value);
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
    }
    all
}

/// Keys of a version that say something of their server, not of the world.
fn is_own(text: &[u8]) -> bool {
    matches!(text, b"dirty" | b"acting" | b"checkpoint") || text.starts_with(b"lock:")
}

async fn values(connection: &mut redis::aio::MultiplexedConnection, keys: &[Vec<u8>]) -> Vec<Value> {
    if keys.is_empty() {
        return Vec::new();
    }
    let mut pipe = redis::pipe();
    for key in keys {
        pipe.cmd("TYPE").arg(key.as_slice()).cmd("PEXPIRETIME").arg(key.as_slice());
    }
    let kinds: Vec<redis::Value> = pipe.query_async(connection).await.expect("the server tells types");
    let mut pipe = redis::pipe();
    let mut told = Vec::new();
    for (key, pair) in keys.iter().zip(kinds.chunks(2)) {
        let kind: String = redis::from_redis_value(pair[0].clone()).expect("a type");
        let expires: i64 = redis::from_redis_value(pair[1].clone()).expect("a time");
        match kind.as_str() {
            "string" => pipe.cmd("GET").arg(key.as_slice()),
            "hash" => pipe.cmd("HGETALL").arg(key.as_slice()),
            "set" => pipe.cmd("SMEMBERS").arg(key.as_slice()),
            "list" => pipe.cmd("LRANGE").arg(key.as_slice()).arg(0).arg(-1),
            other => panic!("{} is a {other}", String::from_utf8_lossy(key)),
        };
        told.push((kind, expires));
    }
    let answers: Vec<redis::Value> = pipe.query_async(connection).await.expect("the server tells values");
    told.into_iter().zip(answers).map(|((kind, expires), answer)| of(&kind, expires, answer)).collect()
}

fn of(kind: &str, expires: i64, answer: redis::Value) -> Value {
    if kind == "string" {
        let bytes: Option<Vec<u8>> = redis::from_redis_value(answer).expect("a string");
        return Value::String(bytes.unwrap_or_default(), expires.max(0) as u64);
    }
    assert!(expires < 0, "a {kind} expires");
    if kind == "hash" {
        return Value::Hash(redis::from_redis_value(answer).expect("a hash"));
    }
    let items: Vec<Vec<u8>> = redis::from_redis_value(answer).expect("a list or set");
    if kind == "set" { Value::Set(items.into_iter().collect()) } else { Value::List(items) }
}
