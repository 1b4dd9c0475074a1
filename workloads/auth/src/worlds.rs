//! Keeps this cluster's world in the list of worlds. Knows the configuration, not the world.

use std::time::Duration;

use fortia_common::records::Config;
use fortia_rdb::accounts::{Accounts, ListedWorld};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const RETRY: Duration = Duration::from_secs(1);

/// Lists the world where the configuration says it is, now and whenever that changes, until `stop`.
pub(crate) async fn list(accounts: Accounts, mut config: watch::Receiver<Config>, stop: CancellationToken) {
    loop {
        let world = {
            let config = config.borrow_and_update();
            ListedWorld { name: config.world.name.clone(), address: config.game_address.clone(), open: true }
        };
        let again = match accounts.put_world(&world).await {
            Ok(()) => {
                tracing::info!(world = world.name, address = world.address, "world listed");
                None
            }
            Err(error) => {
                tracing::warn!(world = world.name, %error, "world cannot be listed; trying again");
                Some(RETRY)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(again.unwrap_or_default()), if again.is_some() => {}
            changed = config.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}
