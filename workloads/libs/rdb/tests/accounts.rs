//! Accounts and sessions on a real account database.

use std::time::Duration;

use fortia_common::boot::Service;
use fortia_rdb::RdbError;
use fortia_rdb::accounts::{Accounts, ListedWorld};
use fortia_testredis::DataPlane;
use tokio::sync::watch;

async fn accounts(plane: &DataPlane) -> Accounts {
    let (_sender, topology) = watch::channel(plane.topology().await);
    Accounts::connect(&plane.boot(Service::Auth), topology)
}

#[tokio::test]
async fn who_registers_can_log_in_and_is_known_until_they_log_out() {
    let plane = DataPlane::start(1).await;
    let accounts = accounts(&plane).await;
    let account = accounts.register("ada", "ada@example.org", "lovelace1815").await.expect("registers");
    let token = accounts.login("ada", "lovelace1815").await.expect("logs in");
    assert_eq!(accounts.session(token.as_str()).await, Ok(Some(account)));
    assert_eq!(accounts.session("other").await, Ok(None));
    accounts.logout(token.as_str()).await.expect("logs out");
    assert_eq!(accounts.session(token.as_str()).await, Ok(None));
    accounts.logout(token.as_str()).await.expect("logs out twice");
}

#[tokio::test]
async fn a_name_is_given_once_even_when_many_ask_at_the_same_time() {
    let plane = DataPlane::start(1).await;
    let accounts = accounts(&plane).await;
    let tries = (0..6).map(|i| {
        let accounts = accounts.clone();
        tokio::spawn(async move { accounts.register("ada", &format!("{i}@example.org"), "password").await })
    });
    let tries = futures::future::join_all(tries).await.into_iter().map(|made| made.expect("joins"));
    let (made, refused): (Vec<_>, Vec<_>) = tries.partition(Result::is_ok);
    assert_eq!(made.len(), 1);
    let taken = RdbError::AccountExists { name: "ada".into() };
    assert!(refused.into_iter().all(|refused| refused == Err(taken.clone())));
    let token = accounts.login("ada", "password").await.expect("logs in");
    assert_eq!(accounts.session(token.as_str()).await.expect("answers"), made.into_iter().flatten().next());
    assert_eq!(plane.auth_db.run::<u64>(&["EXISTS", "u:ada:new"]).await, 0, "nothing is left over");
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_name_look_the_same() {
    let plane = DataPlane::start(1).await;
    let accounts = accounts(&plane).await;
    accounts.register("ada", "ada@example.org", "lovelace1815").await.expect("registers");
    assert_eq!(accounts.login("ada", "babbage1791").await, Err(RdbError::WrongLogin));
    assert_eq!(accounts.login("eve", "lovelace1815").await, Err(RdbError::WrongLogin));
}

#[tokio::test]
async fn a_session_ends_by_itself() {
    let plane = DataPlane::start(1).await;
    let accounts = accounts(&plane).await.with_session(Duration::from_millis(200));
    accounts.register("ada", "ada@example.org", "lovelace1815").await.expect("registers");
    let token = accounts.login("ada", "lovelace1815").await.expect("logs in");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(accounts.session(token.as_str()).await, Ok(None));
}

#[tokio::test]
async fn neither_passwords_nor_tokens_are_stored() {
    let plane = DataPlane::start(1).await;
    let accounts = accounts(&plane).await;
    accounts.register("ada", "ada@example.org", "lovelace1815").await.expect("registers");
    let token = accounts.login("ada", "lovelace1815").await.expect("logs in");
    let fields: Vec<String> = plane.auth_db.run(&["HGETALL", "u:ada"]).await;
    assert!(fields.iter().any(|field| field.starts_with("$argon2id$")));
    assert!(!fields.iter().any(|field| field.contains("lovelace")));
    let keys: Vec<String> = plane.auth_db.run(&["KEYS", "*"]).await;
    assert!(!keys.iter().any(|key| key.contains(token.as_str())));
}

#[tokio::test]
async fn worlds_are_listed_by_name() {
    let plane = DataPlane::start(1).await;
    let accounts = accounts(&plane).await;
    assert_eq!(accounts.worlds().await, Ok(vec![]));
    let world = |name: &str, open| ListedWorld { name: name.into(), address: "a:1".into(), open };
    for listed in [world("midgard", false), world("asgard", true), world("midgard", true)] {
        accounts.put_world(&listed).await.expect("writes");
    }
    assert_eq!(accounts.worlds().await, Ok(vec![world("asgard", true), world("midgard", true)]));
}
