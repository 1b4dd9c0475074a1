//! The control database: leases, the committed tick, the topology and what servers ask of it.

use std::time::Duration;

use fortia_common::boot::Service;
use fortia_common::command::{Ack, Action, Command};
use fortia_common::control::Control;
use fortia_common::records::{self, CutoverRecord, Instance, Progress};
use fortia_common::topology::Phase;
use fortia_proto::tick::v1::Committed;
use fortia_rdb::RdbError;
use fortia_rdb::control::ControlDb;
use fortia_testredis::DataPlane;

const LONG: Duration = Duration::from_secs(30);

fn tick(tick: u64) -> Committed {
    Committed { tick, at: 1000 + tick, ..Committed::default() }
}

#[tokio::test]
async fn a_standby_takes_the_lease_when_it_expires_and_the_old_leader_commits_no_more() {
    let plane = DataPlane::start(1).await;
    let first = ControlDb::connect(&plane.boot_as(Service::Scheduler, "scheduler-0"));
    let second = ControlDb::connect(&plane.boot_as(Service::Scheduler, "scheduler-1"));
    let lease = first.lease("first:1", Duration::from_millis(300)).await.expect("a lease");
    assert!(lease.held);
    first.commit(lease.epoch, &tick(1)).await.expect("commits");
    let other = second.lease("second:1", LONG).await.expect("an answer");
    assert_eq!((other.held, other.address.as_str()), (false, "first:1"));
    assert_eq!(second.leader().await, Ok(Some("first:1".into())));
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(second.leader().await, Ok(None));
    let taken = second.lease("second:1", LONG).await.expect("a lease");
    assert!(taken.held && taken.epoch > lease.epoch, "{taken:?}");
    let late = first.commit(lease.epoch, &tick(2)).await;
    assert!(matches!(late, Err(RdbError::NotLeader { .. })), "{late:?}");
    assert!(!first.lease("first:1", LONG).await.expect("an answer").held);
    second.commit(taken.epoch, &tick(2)).await.expect("commits");
    assert_eq!(first.committed().await, Ok(Some(2)));
}

#[tokio::test]
async fn a_lease_is_renewed_under_its_epoch_and_can_be_given_up() {
    let plane = DataPlane::start(1).await;
    let leader = ControlDb::connect(&plane.boot(Service::Scheduler));
    let lease = leader.lease("a:1", LONG).await.expect("a lease");
    assert_eq!(leader.lease("a:1", LONG).await, Ok(lease.clone()));
    // The same pod, restarted, is somebody else.
    let restarted = ControlDb::connect(&plane.boot(Service::Scheduler));
    assert!(!restarted.lease("a:1", LONG).await.expect("an answer").held);
    assert!(!leader.lease("a:1", Duration::ZERO).await.expect("an answer").held);
    let next = restarted.lease("a:1", LONG).await.expect("a lease");
    assert!(next.held && next.epoch == lease.epoch + 1, "{next:?}");
}

#[tokio::test]
async fn ticks_are_committed_one_after_the_other_and_only_once() {
    let plane = DataPlane::start(1).await;
    let control = ControlDb::connect(&plane.boot(Service::Scheduler));
    let epoch = control.lease("a:1", LONG).await.expect("a lease").epoch;
    assert_eq!(control.committed().await, Ok(None));
    control.commit(epoch, &tick(1)).await.expect("the first");
    for wrong in [1, 3, 0] {
        let refused = control.commit(epoch, &tick(wrong)).await;
        assert!(matches!(refused, Err(RdbError::Conflict { .. })), "{wrong}: {refused:?}");
    }
    control.commit(epoch, &tick(2)).await.expect("the second");
    assert_eq!(control.ticks(0, LONG).await, Ok(vec![tick(1), tick(2)]));
    assert_eq!(control.ticks(2, Duration::from_millis(20)).await, Ok(vec![]));
}

#[tokio::test]
async fn readers_hear_of_a_tick_as_soon_as_it_is_committed_even_beside_readers_who_gave_up() {
    let plane = DataPlane::start(1).await;
    let control = ControlDb::connect(&plane.boot(Service::Scheduler));
    let epoch = control.lease("a:1", LONG).await.expect("a lease").epoch;
    let gave_up = tokio::time::timeout(Duration::from_millis(50), control.ticks(0, LONG)).await;
    assert!(gave_up.is_err());
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let control = control.clone();
            tokio::spawn(async move { control.ticks(0, LONG).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    control.commit(epoch, &tick(1)).await.expect("commits");
    for reader in readers {
        let heard =
            tokio::time::timeout(Duration::from_secs(5), reader).await.expect("at once").expect("joins");
        assert_eq!(heard, Ok(vec![tick(1)]));
    }
}

#[tokio::test]
async fn a_topology_is_swapped_only_by_who_knows_the_one_before_and_listeners_hear_of_it() {
    let plane = DataPlane::start(1).await;
    let control = ControlDb::connect(&plane.boot(Service::Scheduler));
    let mut topology = control.topology().await.expect("answers").expect("a topology");
    let listener = control.clone();
    let begun = std::time::Instant::now();
    let heard = tokio::spawn(async move { listener.topology_changed(LONG).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    topology.epoch = 2;
    control.flip(None, 1, &topology).await.expect("swaps");
    heard.await.expect("joins").expect("hears");
    assert!(begun.elapsed() < Duration::from_secs(10));
    topology.epoch = 3;
    for expected in [0, 1, 3] {
        let refused = control.flip(None, expected, &topology).await;
        assert!(matches!(refused, Err(RdbError::Conflict { .. })), "{expected}: {refused:?}");
    }
    topology.epoch = 2;
    assert!(
        matches!(control.flip(None, 2, &topology).await, Err(RdbError::Conflict { .. })),
        "epochs only grow"
    );
    assert_eq!(control.topology().await.expect("answers").expect("a topology").epoch, 2);
}

#[tokio::test]
async fn a_leader_that_was_deposed_flips_nothing() {
    let plane = DataPlane::start(1).await;
    let [old, new] = ["scheduler-0", "scheduler-1"]
        .map(|instance| ControlDb::connect(&plane.boot_as(Service::Scheduler, instance)));
    let mut topology = plane.topology().await;
    topology.epoch = 2;
    let first = old.lease("a:1", Duration::from_millis(1)).await.expect("answers");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let second = new.lease("b:1", LONG).await.expect("answers");
    let refused = old.flip(Some(first.epoch), 1, &topology).await;
    assert!(matches!(refused, Err(RdbError::NotLeader { .. })), "{refused:?}");
    assert_eq!(plane.topology().await.epoch, 1);
    new.flip(Some(second.epoch), 1, &topology).await.expect("the leader flips");
}

#[tokio::test]
async fn registrations_expire_unless_renewed() {
    let plane = DataPlane::start(1).await;
    let control = ControlDb::connect(&plane.boot(Service::Game));
    let instance = |name: &str| Instance {
        service: Service::Game,
        instance: name.into(),
        address: "a:1".into(),
        topology_epoch: 1,
        config_generation: 1,
    };
    control.register(&instance("lasting"), LONG).await.expect("registers");
    control.register(&instance("brief"), Duration::from_millis(150)).await.expect("registers");
    assert_eq!(control.instances().await.expect("answers").len(), 2);
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(control.instances().await, Ok(vec![instance("lasting")]));
    control.deregister(&instance("lasting")).await.expect("deregisters");
    assert_eq!(control.instances().await, Ok(vec![]));
}

#[tokio::test]
async fn a_server_hears_commands_sent_after_it_started_and_acknowledges_them() {
    let plane = DataPlane::start(1).await;
    let control = ControlDb::connect(&plane.boot(Service::Game));
    assert_eq!(control.last_command().await, Ok("0-0".into()));
    let command = |id: &str| Command { id: id.into(), service: None, instance: None, action: Action::Drain };
    let send = async |json: &str| {
        plane.control_db.run::<String>(&["XADD", records::COMMANDS, "*", "json", json]).await
    };
    send(&serde_json::to_string(&command("old")).expect("json")).await;
    let after = control.last_command().await.expect("answers");
    let listener = control.clone();
    let from = after.clone();
    let heard = tokio::spawn(async move { listener.commands(&from, LONG).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    send("{}").await;
    send(&serde_json::to_string(&command("new")).expect("json")).await;
    heard.await.expect("joins").expect("hears");
    let commands = control.commands(&after, LONG).await.expect("answers");
    assert_eq!(commands.into_iter().map(|(_, command)| command).collect::<Vec<_>>(), [command("new")]);
    let ack = Ack { id: "new".into(), service: Service::Game, instance: "game-0".into(), error: None };
    control.acknowledge(&ack).await.expect("acknowledges");
    assert_eq!(plane.control_db.run::<u64>(&["XLEN", records::ACKS]).await, 1);
}

#[tokio::test]
async fn cut_over_and_progress_come_back_as_written() {
    let plane = DataPlane::start(1).await;
    let control = ControlDb::connect(&plane.boot(Service::Scheduler));
    assert_eq!(control.cutover().await, Ok(None));
    let record =
        CutoverRecord { version: 2, tick: 7, tries: 1, pause_us: 99, flipped: true, why: None, at: 1 };
    control.set_cutover(&record).await.expect("writes");
    assert_eq!(control.cutover().await, Ok(Some(record)));
    assert_eq!(control.progress(2, 0).await, Ok(None));
    let progress = Progress { total_keys: Some(9), keys: 4, bytes: 100, ..Progress::new(Phase::Copying) };
    control.set_progress(2, 0, &progress).await.expect("writes");
    assert_eq!(control.progress(2, 0).await, Ok(Some(progress)));
}

#[tokio::test]
async fn an_empty_control_database_is_foreign_and_a_dead_one_unreachable() {
    let mut plane = DataPlane::start(1).await;
    plane.control_db.run::<()>(&["FLUSHALL"]).await;
    let control = ControlDb::connect(&plane.boot(Service::Game));
    assert!(matches!(control.topology().await, Err(RdbError::Foreign { .. })));
    assert!(matches!(control.ticks(0, LONG).await, Err(RdbError::Foreign { .. })));
    plane.control_db.kill();
    let control = ControlDb::connect(&plane.boot(Service::Game));
    assert!(matches!(control.topology().await, Err(RdbError::Unreachable { .. })));
    assert!(matches!(control.topology_changed(LONG).await, Err(RdbError::Unreachable { .. })));
}
