//! How the program ends, by its exit code: what trying again does not mend has a code of its own.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fortia_common::boot::{Service, var};
use fortia_common::ending::Ending;
use fortia_common::failpoint;
use fortia_common::topology::Placement;
use fortia_rdb::keyspace::WorldKey;

use crate::hand::{Hand, layouts, wait};
use crate::writer::populated;

/// The program as the Job of a re-sharding from version 1 starts it on this source.
fn program(hand: &Hand, source: u32, failpoints: &str) -> Child {
    let boot = hand.plane.boot(Service::Migrator);
    Command::new(env!("CARGO_BIN_EXE_fortia-migrator"))
        .env_clear()
        .env(var::INSTANCE, &boot.instance)
        .env(var::CLUSTER, &boot.cluster)
        .env(var::CONTROL_DB, &boot.control_db)
        .env(var::LOG, "error")
        .env("FORTIA_PHASE", "Copying")
        .env("FORTIA_FROM", "1")
        .env("JOB_COMPLETION_INDEX", source.to_string())
        .env(failpoint::VARIABLE, failpoints)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts")
}

async fn code(mut program: Child) -> Option<i32> {
    let ended = tokio::task::spawn_blocking(move || {
        for _ in 0..3_000 {
            if let Some(status) = program.try_wait().expect("a child") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        program.kill().expect("killed");
        panic!("the program does not end");
    });
    ended.await.expect("no panic")
}

fn of(ending: Ending) -> Option<i32> {
    Some(i32::from(ending.code()))
}

#[tokio::test]
async fn a_value_no_world_has_ends_the_program_as_corrupt() {
    let mut hand = populated(1, Placement::Modulo).await;
    hand.plane.shards[0].run::<u64>(&["ZADD", "v1:e:4711", "1", "member"]).await;
    hand.begin(2).await;
    assert_eq!(code(program(&hand, 0, "")).await, of(Ending::Corrupt));
}

#[tokio::test]
async fn a_full_server_ends_the_program_as_out_of_memory() {
    for full in [0, 1] {
        let mut hand = populated(1, Placement::Modulo).await;
        hand.begin(2).await;
        hand.plane.shards[full].run::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
        assert_eq!(code(program(&hand, 0, "")).await, of(Ending::OutOfMemory), "shard {full}");
    }
}

#[tokio::test]
async fn damage_that_goes_on_ends_the_program_as_different() {
    let mut hand = populated(1, Placement::Modulo).await;
    let topology = hand.begin(2).await;
    let key = WorldKey::Entity(12_345);
    let shard = key.shard(&layouts(&topology).1) as usize;
    let mut connection = hand.plane.shards[shard].connect().await;
    let damaging = tokio::spawn(async move {
        let mut damage = redis::cmd("SET");
        damage.arg(key.physical(2)).arg("added");
        loop {
            damage.query_async::<redis::Value>(&mut connection).await.expect("damages");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    });
    assert_eq!(code(program(&hand, 0, "")).await, of(Ending::Different));
    damaging.abort();
}

#[tokio::test]
async fn a_program_that_is_not_wanted_any_more_ends_as_called_off_and_one_that_ends_after_the_flip_ends_well()
{
    let mut hand = populated(1, Placement::Modulo).await;
    hand.begin(2).await;
    let copying = program(&hand, 0, "copying.batch_carried=stop");
    wait("the program", async || hand.progress(0).await.is_some_and(|told| told.attempt > 0)).await;
    hand.abort().await;
    assert_eq!(code(copying).await, of(Ending::CalledOff));
    hand.begin(2).await;
    let whole = program(&hand, 0, "");
    hand.finish(Vec::new()).await;
    assert_eq!(code(whole).await, Some(0));
}

#[tokio::test]
async fn what_another_pod_may_do_better_has_no_code_of_its_own() {
    let mut hand = populated(1, Placement::Modulo).await;
    hand.begin(2).await;
    // There is no such source.
    let ended = code(program(&hand, 7, "")).await;
    assert_eq!((ended, ended.and_then(Ending::of)), (Some(1), None));
    let ended = code(program(&hand, 0, "pod.started=exit")).await;
    assert_eq!((ended, ended.and_then(Ending::of)), (Some(failpoint::EXIT_STATUS), None));
}
