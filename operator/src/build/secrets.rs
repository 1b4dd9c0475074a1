//! Redis passwords and the file of users a Redis server boots with. Pure but for the random source.

use std::collections::BTreeMap;

use fortia_common::boot::Service;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::names::GroupId;
use super::{Kind, Object, acl};
use crate::controller::validate::Plan;

/// The user of probes: without a password, and with no right but to ask whether the server answers.
pub(super) const PROBE: &str = "probe";
/// The user replicas follow their primary as.
pub const REPLICA: &str = "replica";

/// One password for each Redis user. Made once; never made again for the same cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct Passwords(BTreeMap<String, String>);

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl Passwords {
    /// New passwords for all users.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate() -> Result<Passwords, getrandom::Error> {
        let mut passwords = BTreeMap::new();
        for user in users() {
            let mut bytes = [0u8; 24];
            getrandom::fill(&mut bytes)?;
            passwords.insert(user.to_owned(), hex(&bytes));
        }
        Ok(Passwords(passwords))
    }

    /// Reads the data of the Secret; the name of the user that is missing otherwise.
    ///
    /// # Errors
    /// The user without a usable password.
    pub fn parse(data: &BTreeMap<String, Vec<u8>>) -> Result<Passwords, String> {
        let read = |user: &str| data.get(user).and_then(|bytes| String::from_utf8(bytes.clone()).ok());
        users()
            .map(|user| read(user).map(|p| (user.to_owned(), p)).ok_or_else(|| user.to_owned()))
            .collect::<Result<_, _>>()
            .map(Passwords)
    }

    /// The password of a user; empty for an unknown one.
    pub fn of(&self, user: &str) -> &str {
        self.0.get(user).map_or("", String::as_str)
    }

    /// Users and passwords.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(user, password)| (user.as_str(), password.as_str()))
    }
}

fn users() -> impl Iterator<Item = &'static str> {
    Service::ALL.into_iter().map(Service::as_str).chain([REPLICA])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The Secret with the passwords; created once, never applied again.
pub fn passwords(plan: &Plan, passwords: &Passwords) -> Object {
    let data: BTreeMap<_, _> = passwords.iter().collect();
    let rest = json!({ "type": "Opaque", "stringData": data });
    Object::new(plan, Kind::Secret, plan.names.passwords(), plan.names.labels("redis"), rest)
}

/// The Secret with the users of each kind of group, as a fenced server boots with them.
pub(super) fn acl(plan: &Plan, passwords: &Passwords) -> Object {
    let file = |group: GroupId| {
        let mut lines = vec![
            // Nobody can be the default user, but it must have all rights: a server that reads its append-only
            // file executes the transactions in it as this user, and drops those it has no rights for.
            "user default off resetpass ~* &* +@all".to_owned(),
            format!("user {PROBE} on nopass resetkeys resetchannels -@all +ping"),
            format!("user operator on #{} ~* &* +@all", sha256(passwords.of("operator"))),
            format!(
                "user {REPLICA} on #{} resetkeys resetchannels -@all +psync +replconf +ping",
                sha256(passwords.of(REPLICA))
            ),
        ];
        for service in Service::ALL.into_iter().filter(|s| *s != Service::Operator) {
            let rules = acl::fenced(service, group).join(" ");
            lines.push(format!("user {service} on #{} {rules}", sha256(passwords.of(service.as_str()))));
        }
        lines.join("\n") + "\n"
    };
    let rest = json!({ "type": "Opaque", "stringData": {
        "auth.acl": file(GroupId::Auth),
        "control.acl": file(GroupId::Control),
        "shard.acl": file(GroupId::Shard(0)),
    } });
    Object::new(plan, Kind::Secret, plan.names.acl(), plan.names.labels("redis"), rest)
}

fn sha256(password: &str) -> String {
    hex(Sha256::digest(password.as_bytes()).as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::validate::example;

    #[test]
    fn passwords_are_read_back_from_their_secret() {
        let passwords = Passwords::generate().expect("random");
        let data = passwords.iter().map(|(u, p)| (u.to_owned(), p.as_bytes().to_vec())).collect();
        assert!(Passwords::parse(&data) == Ok(passwords));
    }

    #[test]
    fn a_secret_without_a_user_names_the_user() {
        let passwords = Passwords::generate().expect("random");
        let mut data: BTreeMap<_, _> =
            passwords.iter().map(|(u, p)| (u.to_owned(), p.as_bytes().to_vec())).collect();
        data.remove("game");
        assert!(Passwords::parse(&data) == Err("game".into()));
    }

    fn is_unreachable_or_operator(line: &str) -> bool {
        line.starts_with("user operator ") || line.starts_with("user default off resetpass ")
    }

    #[test]
    fn nobody_but_the_operator_can_write_to_a_fenced_server() {
        let object = acl(&example("redisShards: 1"), &Passwords::generate().expect("random"));
        for (file, text) in object.body["stringData"].as_object().expect("files") {
            for line in text.as_str().expect("text").lines().filter(|l| !is_unreachable_or_operator(l)) {
                let writable =
                    line.split(' ').any(|rule| rule.starts_with('~') || rule == "+@all" || rule == "+@write");
                assert!(!writable, "{file}: {line}");
            }
        }
    }
}
