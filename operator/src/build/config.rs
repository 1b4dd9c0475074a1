//! The configuration every Redis server of a cluster boots with: fenced, until the operator admits it. Pure.

use fortia_common::records::Durability;
use serde_json::json;

use super::names::GroupId;
use super::{Kind, Object};
use crate::controller::validate::Plan;

/// The ConfigMap with one file for each kind of group.
pub(super) fn valkey(plan: &Plan) -> Object {
    let text = |group| text(sync(plan, group), plan.redis.max_memory);
    let rest = json!({ "data": {
        file(GroupId::Control): text(GroupId::Control),
        file(GroupId::Auth): text(GroupId::Auth),
        file(GroupId::Shard(0)): text(GroupId::Shard(0)),
    } });
    Object::new(plan, Kind::ConfigMap, plan.names.valkey(), plan.names.labels("redis"), rest)
}

/// The file of the ConfigMap that a group boots with.
pub(super) fn file(group: GroupId) -> &'static str {
    match group {
        GroupId::Control => "control-db.conf",
        GroupId::Auth => "auth-db.conf",
        GroupId::Shard(_) => "valkey.conf",
    }
}

/// When a group's servers sync their files (`appendfsync`). With `everysec` Valkey 8.1 answers WAITAOF before it has synced, so
/// who asks for ticks on disk has them synced at every write.
pub fn sync(plan: &Plan, group: GroupId) -> &'static str {
    match group {
        // About one write a tick: a committed tick, which players have seen, must not go back when its node crashes.
        GroupId::Control => "always",
        GroupId::Shard(_) if plan.config.durability == Durability::Disk => "always",
        GroupId::Auth | GroupId::Shard(_) => "everysec",
    }
}

fn text(sync: &str, max_memory: u64) -> String {
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
         appendfsync {sync}\n\
         save \"\"\n\
         {memory}maxmemory-policy noeviction\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::validate::example;

    #[test]
    fn a_server_boots_fenced_keeps_its_data_and_never_evicts() {
        let text = text("everysec", 1000);
        for line in
            ["replicaof 127.0.0.1 1", "appendonly yes", "maxmemory 1000", "maxmemory-policy noeviction"]
        {
            assert!(text.lines().any(|l| l == line), "{line}");
        }
    }

    #[test]
    fn a_committed_tick_is_on_disk_before_it_is_answered_and_shards_sync_every_second_unless_ticks_wait_for_disks()
     {
        let syncs = |spec: &str, group: GroupId, how: &str| {
            let valkey = valkey(&example(spec));
            let text = valkey.body["data"][file(group)].as_str().expect("file").to_owned();
            text.lines().any(|line| line == format!("appendfsync {how}"))
        };
        let memory = "redisShards: 1";
        assert!(syncs(memory, GroupId::Control, "always"));
        assert!(syncs(memory, GroupId::Shard(1), "everysec") && syncs(memory, GroupId::Auth, "everysec"));
        let disk = "{redisShards: 1, ticker: {durability: Disk}}";
        assert!(syncs(disk, GroupId::Shard(1), "always") && syncs(disk, GroupId::Auth, "everysec"));
    }
}
