//! The topology as the control database has it, followed for as long as a pod works. Knows nothing of the work.

use std::convert::Infallible;
use std::time::Duration;

use fortia_common::control::Control;
use fortia_common::topology::Topology;
use fortia_rdb::control::ControlDb;
use tokio::sync::watch;

/// Word of a change may be lost: the record is read this often all the same.
const POLL: Duration = Duration::from_millis(200);

/// Tells every newer topology. Never ends.
pub(crate) async fn follow(control: &ControlDb, known: &watch::Sender<Topology>) -> Infallible {
    let mut answers = true;
    loop {
        if !matches!(tokio::time::timeout(POLL, control.topology_changed(POLL)).await, Ok(Ok(()))) {
            // Without word, or with none to be had: in its own time.
            tokio::time::sleep(POLL / 4).await;
        }
        match control.topology().await {
            Ok(newest) => {
                answers = true;
                known.send_if_modified(|known| match newest {
                    Some(newest) if newest.epoch > known.epoch => {
                        *known = newest;
                        true
                    }
                    _ => false,
                });
            }
            Err(error) if answers => {
                answers = false;
                tracing::warn!(%error, "topology cannot be read; keeping the last one");
            }
            Err(_) => {}
        }
    }
}
