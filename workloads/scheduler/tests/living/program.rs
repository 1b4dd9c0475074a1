//! The scheduler's program: what its environment arms happens.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fortia_common::boot::{Service, var};
use fortia_common::failpoint::{EXIT_STATUS, VARIABLE};
use fortia_common::topology::Phase;

use crate::cluster::Cluster;

fn program(cluster: &Cluster, failpoints: &str) -> Child {
    let boot = cluster.plane.boot(Service::Scheduler);
    Command::new(env!("CARGO_BIN_EXE_fortia-scheduler"))
        .env_clear()
        .env(var::INSTANCE, &boot.instance)
        .env(var::CLUSTER, &boot.cluster)
        .env(var::CONTROL_DB, &boot.control_db)
        .env(var::LISTEN, "127.0.0.1:0")
        .env(var::ADMIN, "127.0.0.1:0")
        .env(var::LOG, "error")
        .env(VARIABLE, failpoints)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_ends_at_the_point_that_its_environment_arms() {
    let mut cluster = Cluster::start(1).await;
    let mut scheduler = program(&cluster, "noting.done=exit");
    cluster.plane.retarget(2, Phase::Copying).await;
    for _ in 0..2_000 {
        if let Some(status) = scheduler.try_wait().expect("a child") {
            assert_eq!(status.code(), Some(EXIT_STATUS));
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    scheduler.kill().expect("killed");
    panic!("the scheduler does not end");
}
