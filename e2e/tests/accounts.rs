//! Accounts through the public API: register, log in, look at oneself and the worlds, log out; and what is refused.

use std::error::Error;

use fortia_e2e::api::Api;
use fortia_e2e::shared;
use reqwest::StatusCode;

#[tokio::test]
async fn a_player_registers_logs_in_sees_the_worlds_and_logs_out() -> Result<(), Box<dyn Error>> {
    let world = shared::world().await?;
    let gateway = world.gateway().await?;
    let mut api = Api::new(&gateway.auth.url(), &gateway.game.url());
    let name = format!("freya-{}", std::process::id());

    api.register(&name, "a good password").await?;
    let again = api.register(&name, "another password").await.expect_err("the name is taken");
    assert_eq!(again.status(), Some(StatusCode::CONFLICT), "{again}");

    api.login(&name, "a good password").await?;
    assert_eq!(api.me().await?["name"], name.as_str());
    let worlds = api.worlds().await?.to_string();
    assert!(worlds.contains("midgard"), "{worlds}");

    api.logout().await?;
    let after = api.me().await.expect_err("the session has ended");
    assert_eq!(after.status(), Some(StatusCode::UNAUTHORIZED), "{after}");
    Ok(())
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_name_are_refused_alike() -> Result<(), Box<dyn Error>> {
    let world = shared::world().await?;
    let gateway = world.gateway().await?;
    let mut api = Api::new(&gateway.auth.url(), &gateway.game.url());
    let name = format!("loki-{}", std::process::id());
    api.register(&name, "a good password").await?;

    let wrong = api.login(&name, "a bad password").await.expect_err("wrong password");
    let unknown = api.login("nobody-at-all", "a bad password").await.expect_err("unknown name");
    assert_eq!(wrong.status(), Some(StatusCode::UNAUTHORIZED), "{wrong}");
    assert_eq!(wrong.to_string(), unknown.to_string());
    let me = api.me().await.expect_err("no session");
    assert_eq!(me.status(), Some(StatusCode::UNAUTHORIZED), "{me}");
    Ok(())
}
