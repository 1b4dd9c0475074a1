//! What each service may do on each kind of Redis group: one table. The second lock behind the guard. Pure.

use fortia_common::boot::Service;

use super::names::GroupId;

/// Reading, and what clients say when they connect.
const READ: &[&str] = &[
    "+@read",
    "+@connection",
    "+@transaction",
    "+@blocking",
    "+@pubsub",
    // The lease's end is told by the server's clock.
    "+time",
    "-publish",
    "-@admin",
    "-@dangerous",
    // Which of two replicas is ahead.
    "+info",
];
/// What the functions do to world keys in the caller's name; see functions/tick.lua.
const WORLD: &[&str] = &["+fcall", "+hset", "+hincrby", "+sadd", "+srem", "+rpush", "+del"];
/// What tickers do beside that: a lock table that nobody removes goes by itself, and so does the note of a list of actions that
/// the version before never had.
const TICK: &[&str] =
    &["+fcall", "+hset", "+hincrby", "+hdel", "+sadd", "+srem", "+rpush", "+del", "+expire"];
/// What carrying does, see functions/migrate.lua: by the migrator, and by the scheduler for the last keys of a flip, which
/// also turns the guards. Which life of a server they speak to, they ask as everybody may (`READ`).
const CARRY: &[&str] = &[
    "+fcall",
    "+hset",
    "+hincrby",
    "+hdel",
    "+sadd",
    "+rpush",
    "+set",
    "+mset",
    "+append",
    "+copy",
    "+unlink",
    "+pexpireat",
];
/// Registering, acknowledging.
const REGISTER: &[&str] = &["+set", "+del", "+unlink", "+pexpire", "+expire", "+xadd"];
/// Leading: lease, commit, topology, the tries of a flip.
const LEAD: &[&str] =
    &["+set", "+del", "+unlink", "+pexpire", "+expire", "+xadd", "+xtrim", "+fcall", "+hset", "+publish"];
/// Accounts.
const ACCOUNTS: &[&str] = &["+@write", "-function", "-@admin", "-@dangerous"];

/// Keys and commands beyond reading. `{v}` stands for each version that may be written, `{s}` for the service.
struct Rights {
    keys: &'static [&'static str],
    commands: &'static [&'static str],
}

const NONE: Rights = Rights { keys: &[], commands: &[] };

/// The table.
fn rights(service: Service, group: GroupId) -> Rights {
    match (group, service) {
        (GroupId::Shard(_), Service::Game | Service::Worldgen) => {
            Rights { keys: &["~v{v}:*", "~fortia:guard"], commands: WORLD }
        }
        (GroupId::Shard(_), Service::Ticker) => {
            Rights { keys: &["~v{v}:*", "~fortia:guard"], commands: TICK }
        }
        (GroupId::Shard(_), Service::Migrator | Service::Scheduler) => {
            Rights { keys: &["~v{v}:*", "~fortia:guard"], commands: CARRY }
        }
        (GroupId::Shard(_), _) => NONE,
        (GroupId::Control, Service::Scheduler) => Rights {
            keys: &[
                "~fortia:instance:{s}:*",
                "~fortia:acks",
                "~fortia:topology",
                "~fortia:lease:scheduler",
                "~fortia:committed",
                "~fortia:ticks",
                "~fortia:cutover",
                "~fortia:forgotten",
            ],
            commands: LEAD,
        },
        (GroupId::Control, Service::Migrator) => Rights {
            keys: &["~fortia:instance:{s}:*", "~fortia:acks", "~fortia:rebalance:*"],
            commands: REGISTER,
        },
        (GroupId::Control, Service::Worldgen) => Rights {
            keys: &["~fortia:instance:{s}:*", "~fortia:acks", "~fortia:worldgen"],
            commands: REGISTER,
        },
        (GroupId::Control, _) => {
            Rights { keys: &["~fortia:instance:{s}:*", "~fortia:acks"], commands: REGISTER }
        }
        (GroupId::Auth, Service::Auth) => {
            Rights { keys: &["~u:*", "~t:*", "~worlds", "~world:*"], commands: ACCOUNTS }
        }
        (GroupId::Auth, _) => NONE,
    }
}

/// Keys a service may read on a group, fenced or not.
fn readable(service: Service, group: GroupId) -> &'static [&'static str] {
    match (group, service) {
        (GroupId::Control, _) => &["%R~fortia:*", "&fortia:topology"],
        (GroupId::Shard(_), Service::Auth | Service::Logserver) => &[],
        (GroupId::Shard(_), _) => &["%R~v*", "%R~fortia:guard"],
        (GroupId::Auth, Service::Auth | Service::Game) => &["%R~*"],
        (GroupId::Auth, _) => &[],
    }
}

fn read_only(service: Service, group: GroupId) -> Vec<String> {
    let reset = ["resetkeys", "resetchannels", "-@all"];
    [&reset, readable(service, group), READ].concat().into_iter().map(str::to_owned).collect()
}

/// Rules of a service on a server that is not admitted: it may read.
pub fn fenced(service: Service, group: GroupId) -> Vec<String> {
    read_only(service, group)
}

/// Rules of a service on an admitted primary, where `versions` of the database may be written.
pub fn admitted(service: Service, group: GroupId, versions: &[u64]) -> Vec<String> {
    let mut rules = read_only(service, group);
    let rights = rights(service, group);
    for pattern in rights.keys {
        if pattern.contains("{v}") {
            rules.extend(versions.iter().map(|version| pattern.replace("{v}", &version.to_string())));
        } else {
            rules.push(pattern.replace("{s}", service.as_str()));
        }
    }
    rules.extend(rights.commands.iter().map(|command| (*command).to_owned()));
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: GroupId = GroupId::Shard(0);

    #[test]
    fn world_writers_reach_only_the_versions_named() {
        let rules = admitted(Service::Ticker, SHARD, &[7, 8]);
        assert!(rules.contains(&"~v7:*".to_owned()) && rules.contains(&"~v8:*".to_owned()));
        assert!(!rules.iter().any(|rule| rule == "~*"));
    }

    #[test]
    fn only_tickers_may_let_keys_of_the_world_go_by_themselves() {
        for service in Service::ALL.into_iter().filter(|s| *s != Service::Operator) {
            let may = admitted(service, SHARD, &[7]).contains(&"+expire".to_owned());
            assert_eq!(may, service == Service::Ticker, "{service}");
        }
    }

    #[test]
    fn nothing_is_allowed_twice_and_who_carries_may_ask_which_life_it_speaks_to() {
        for service in Service::ALL.into_iter().filter(|s| *s != Service::Operator) {
            for group in GroupId::all(1) {
                let rules = admitted(service, group, &[7]);
                let allowed: Vec<&String> = rules.iter().filter(|rule| rule.starts_with('+')).collect();
                for (at, rule) in allowed.iter().enumerate() {
                    assert!(!allowed[..at].contains(rule), "{service} on {group}: {rule} twice");
                }
            }
        }
        for service in [Service::Migrator, Service::Scheduler] {
            let rules = admitted(service, SHARD, &[7]);
            let last = rules.iter().rposition(|rule| rule == "-@dangerous");
            assert!(rules.iter().rposition(|rule| rule == "+info") > last, "{service}");
        }
    }

    #[test]
    fn an_auth_server_has_no_business_on_a_shard() {
        let rules = admitted(Service::Auth, SHARD, &[7]);
        assert!(!rules.iter().any(|rule| rule.contains('~')), "{rules:?}");
    }

    #[test]
    fn only_the_scheduler_may_flip_the_topology() {
        for service in
            Service::ALL.into_iter().filter(|s| *s != Service::Scheduler && *s != Service::Operator)
        {
            let rules = admitted(service, GroupId::Control, &[]);
            assert!(!rules.contains(&"~fortia:topology".to_owned()), "{service}");
        }
        assert!(admitted(Service::Scheduler, GroupId::Control, &[]).contains(&"~fortia:topology".to_owned()));
    }

    #[test]
    fn only_worldgen_may_say_how_far_the_world_is() {
        for service in Service::ALL.into_iter().filter(|s| *s != Service::Operator) {
            let may = admitted(service, GroupId::Control, &[]).contains(&"~fortia:worldgen".to_owned());
            assert_eq!(may, service == Service::Worldgen, "{service}");
        }
    }

    #[test]
    fn a_server_can_register_only_as_its_own_kind() {
        let rules = admitted(Service::Game, GroupId::Control, &[]);
        assert!(rules.contains(&"~fortia:instance:game:*".to_owned()));
    }
}
