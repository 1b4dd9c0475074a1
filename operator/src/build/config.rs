//! The configuration every Redis server of a cluster boots with: fenced, until the operator admits it. Pure.

use serde_json::json;

use super::{Kind, Object};
use crate::controller::validate::Plan;

/// The ConfigMap with `valkey.conf`.
pub(super) fn valkey(plan: &Plan) -> Object {
    let rest = json!({ "data": { "valkey.conf": text(plan.redis.max_memory) } });
    Object::new(plan, Kind::ConfigMap, plan.names.valkey(), plan.names.labels("redis"), rest)
}

fn text(max_memory: u64) -> String {
    let memory = if max_memory == 0 { String::new() } else { format!("maxmemory {max_memory}\n") };
    format!(
        "# Every server boots fenced: it reads its disk, serves reads and follows nobody. Only the operator admits it.\n\
         replicaof 127.0.0.1 1\n\
         replica-serve-stale-data yes\n\
         repl-diskless-load disabled\n\
         repl-diskless-sync-delay 0\n\
         port 6379\n\
         bind * -::*\n\
         protected-mode no\n\
         aclfile /etc/valkey/acl/users.acl\n\
         dir /data\n\
         appendonly yes\n\
         appendfsync everysec\n\
         save \"\"\n\
         {memory}maxmemory-policy noeviction\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_boots_fenced_keeps_its_data_and_never_evicts() {
        let text = text(1000);
        for line in
            ["replicaof 127.0.0.1 1", "appendonly yes", "maxmemory 1000", "maxmemory-policy noeviction"]
        {
            assert!(text.lines().any(|l| l == line), "{line}");
        }
    }
}
