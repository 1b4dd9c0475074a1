//! Whole migrations on real servers: nothing is lost, damage is found, and every pod can be run again.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use fortia_common::failpoint::Failpoints;
use fortia_common::boot::Service;
use fortia_common::records::GUARD;
use fortia_common::topology::{Layout, Phase, Placement, Topology};
use fortia_migrator::{Job, MigrateError, Work, run};
use fortia_rdb::RdbError;
use fortia_rdb::control::ControlDb;
use fortia_rdb::keyspace::{KeyText, WorldKey};
use fortia_rdb::migrate::{Migration, ValueDigest};
use fortia_rdb::world::{Changes, Info, Player, World};
use fortia_testredis::DataPlane;
use fortia_vec::{BlockPos, ChunkPos, RegionPos};
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(5);

fn none() -> &'static Failpoints {
    Box::leak(Box::default())
}

fn job(work: Work, from: u64, index: u32) -> Job {
    Job { work, from, index, patience: PATIENCE }
}

/// A world with every kind of key, and a string and a wild name beside.
async fn populate(plane: &DataPlane) {
    let (_sender, topology) = watch::channel(plane.topology().await);
    let world = World::connect(&plane.boot(Service::Worldgen), topology);
    let text = |text: String| Bytes::from(text);
    let chunks: Vec<_> = ChunkPos::within(12).map(|at| (at, text(format!("chunk {at}").repeat(9)))).collect();
    world.write_chunks(&chunks).await.expect("writes chunks");
    let entities = (0..300).map(|id| (id, text(format!("entity {id}")))).collect();
    let changes = Changes { entities, chunks: chunks[..50].to_vec(), ..Changes::default() };
    world.commit_tick(1, 1, &changes, 0).await.expect("commits");
    for i in 0..40 {
        let player = Player { joined_ms: i, start: BlockPos { x: 1, y: 2, z: 3 } };
        world.create_player(&format!("player{i}"), &player, &[i, i + 100]).await.expect("writes a player");
        let region = RegionPos { x: i as i32 % 3, y: 0 };
        world.push_action(2, region, text(format!("action {i}\r\n\0"))).await.expect("pushes");
    }
    let info = Info { seed: 1, radius: 12, limit: 12, created_ms: 1, tick_period_ms: 50 };
    world.write_info(&info).await.expect("writes info");
    let topology = plane.topology().await;
    for i in 0..20 {
        let key = WorldKey::Player(format!("string {i} ä"));
        let shard = &plane.shards[key.shard(&topology.serving) as usize];
        shard.run::<()>(&["SET", &key.physical(topology.serving.version), &format!("value {i}")]).await;
    }
}

/// Every key of a layout with its digest, from every server there is; and no key where it does not belong.
async fn contents(plane: &DataPlane, layout: &Layout) -> BTreeMap<KeyText, ValueDigest> {
    let topology = Topology { serving: *layout, ..plane.topology().await };
    let migration = Migration::new(&plane.boot(Service::Migrator), topology);
    let mut all = BTreeMap::new();
    for shard in 0..plane.shards.len() as u32 {
        let mut cursor = 0;
        loop {
            let step = migration.scan(shard, layout.version, cursor).await.expect("scans");
            let digests = migration.digests(shard, layout.version, &step.keys).await.expect("digests");
            for (key, digest) in step.keys.into_iter().zip(digests) {
                assert_eq!(key.shard(layout), shard, "{key} is misplaced");
                all.insert(key, digest.expect("the key is there"));
            }
            cursor = step.cursor;
            if cursor == 0 {
                break;
            }
        }
    }
    all
}

/// Begins a re-sharding and freezes the shards, as operator and scheduler do.
async fn begin(plane: &mut DataPlane, shards: u32) -> (World, Topology) {
    let topology = plane.retarget(shards, Phase::Copying).await;
    let (_sender, receiver) = watch::channel(topology.clone());
    let world = World::connect(&plane.boot(Service::Scheduler), receiver);
    world.freeze(&topology).await.expect("freezes");
    (world, topology)
}

async fn copy_all(plane: &DataPlane, topology: &Topology) -> Result<(), MigrateError> {
    let boot = plane.boot(Service::Migrator);
    let from = topology.serving;
    let jobs: Vec<Job> = (0..from.shards).map(|index| job(Work::Copy, from.version, index)).collect();
    let pods = jobs.iter().map(|job| run(&boot, job, none(), |_| ()));
    for progress in futures::future::join_all(pods).await {
        let progress = progress?;
        assert!(progress.done && Some(progress.verified) == progress.total_keys, "{progress:?}");
    }
    Ok(())
}

async fn migrates(shards: u32, to: u32, placement: Placement) {
    let mut plane = DataPlane::with(shards, placement).await;
    populate(&plane).await;
    let (world, topology) = begin(&mut plane, to).await;
    let before = contents(&plane, &topology.serving).await;
    assert_eq!(before.len(), 625 + 300 + 80 + 3 + 1 + 20);
    copy_all(&plane, &topology).await.expect("migrates");
    let target = topology.target.expect("a target");
    assert_eq!(contents(&plane, &target).await, before);
    assert_eq!(contents(&plane, &topology.serving).await, before, "the source is as it was");
    let control = ControlDb::connect(&plane.boot(Service::Operator));
    let mut total = 0;
    for index in 0..shards {
        let progress = control.progress(target.version, index).await.expect("answers").expect("told");
        assert_eq!((progress.phase, Some(progress.keys)), (Phase::Verifying, progress.total_keys));
        total += progress.total_keys.expect("known");
    }
    assert_eq!(total as usize, before.len());
    // And on it goes: the new version serves what the old one had.
    world.open_target(&topology, topology.epoch + 1, 1).await.expect("opens");
    let flipped =
        Topology { epoch: topology.epoch + 1, serving: target, target: None, phase: None, ..topology };
    let (_sender, receiver) = watch::channel(flipped);
    let world = World::connect(&plane.boot(Service::Game), receiver);
    assert_eq!(world.entities(1, &[7]).await, Ok(vec![Some(Bytes::from_static(b"entity 7"))]));
    let region = RegionPos { x: 0, y: 0 };
    assert_eq!(world.push_action(1, region, Bytes::from_static(b"late")).await, Ok(2));
    let taken = world.take_actions(1, 2, &[region]).await.expect("takes");
    assert_eq!(taken[0].1.len(), 15);
}

#[tokio::test]
async fn one_shard_becomes_two_by_modulo() {
    migrates(1, 2, Placement::Modulo).await;
}

#[tokio::test]
async fn two_shards_become_three_by_modulo() {
    migrates(2, 3, Placement::Modulo).await;
}

#[tokio::test]
async fn three_shards_become_two_by_modulo() {
    migrates(3, 2, Placement::Modulo).await;
}

#[tokio::test]
async fn two_shards_become_three_by_jump() {
    migrates(2, 3, Placement::Jump).await;
}

#[tokio::test]
async fn three_shards_become_two_by_jump() {
    migrates(3, 2, Placement::Jump).await;
}

#[tokio::test]
async fn a_migration_run_again_or_by_two_pods_at_once_gives_the_same() {
    let mut plane = DataPlane::start(2).await;
    populate(&plane).await;
    let (_world, topology) = begin(&mut plane, 3).await;
    let before = contents(&plane, &topology.serving).await;
    copy_all(&plane, &topology).await.expect("migrates");
    let (one, two) = tokio::join!(copy_all(&plane, &topology), copy_all(&plane, &topology));
    one.and(two).expect("migrate again");
    assert_eq!(contents(&plane, &topology.target.expect("a target")).await, before);
}

#[tokio::test]
async fn a_pod_killed_anywhere_is_run_again_from_the_start() {
    let mut plane = DataPlane::start(2).await;
    populate(&plane).await;
    let (_world, topology) = begin(&mut plane, 3).await;
    let before = contents(&plane, &topology.serving).await;
    for killed_after in [3, 8, 15, 25, 40, 80] {
        let _ = tokio::time::timeout(Duration::from_millis(killed_after), copy_all(&plane, &topology)).await;
    }
    copy_all(&plane, &topology).await.expect("migrates");
    assert_eq!(contents(&plane, &topology.target.expect("a target")).await, before);
}

#[tokio::test]
async fn what_is_lost_changed_or_added_in_the_target_is_found_and_mended() {
    let mut plane = DataPlane::start(2).await;
    populate(&plane).await;
    let (_world, topology) = begin(&mut plane, 3).await;
    let (from, to) = (topology.serving, topology.target.expect("a target"));
    // Left over from an earlier try: on its shard, on another one, and of another type.
    for (i, shard) in plane.shards.iter().enumerate() {
        shard.run::<()>(&["SET", "v2:e:999999", "surplus"]).await;
        shard.run::<()>(&["SET", &format!("v2:c:{i}:0"), "stale"]).await;
    }
    let before = contents(&plane, &from).await;
    copy_all(&plane, &topology).await.expect("migrates");
    assert_eq!(contents(&plane, &to).await, before);
}

#[tokio::test]
async fn verification_catches_a_dropped_a_changed_and_an_added_key() {
    let mut plane = DataPlane::start(2).await;
    populate(&plane).await;
    let (_world, topology) = begin(&mut plane, 3).await;
    let to = topology.target.expect("a target");
    let key = |id| WorldKey::Entity(id);
    let on = |key: &WorldKey| &plane.shards[key.shard(&to) as usize];
    for spoil in ["DEL", "HSET", "ADD"] {
        copy_all(&plane, &topology).await.expect("migrates");
        // Something damages the target all the time, so that copying again does not help.
        let victim = if spoil == "ADD" { key(12_345) } else { key(7) };
        let name = victim.physical(2);
        let command: Vec<&str> = match spoil {
            "DEL" => vec!["DEL", &name],
            "HSET" => vec!["HSET", &name, "d0", "changed"],
            _ => vec!["SET", &name, "added"],
        };
        let damage = async {
            let mut connection = on(&victim).connect().await;
            let mut damage = redis::cmd(command[0]);
            damage.arg(&command[1..]);
            loop {
                damage.query_async::<redis::Value>(&mut connection).await.expect("damages");
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        };
        let index = victim.shard(&topology.serving);
        let job = job(Work::Copy, 1, index);
        let boot = plane.boot(Service::Migrator);
        let failed = tokio::select! {
            done = run(&boot, &job, none(), |_| ()) => done,
            () = damage => unreachable!("it never ends"),
        };
        let failed = failed.expect_err("the damage is found").to_string();
        assert!(failed.contains(&victim.text()), "{spoil}: {failed}");
        let control = ControlDb::connect(&boot);
        let progress = control.progress(2, index).await.expect("answers").expect("told");
        assert!(!progress.done, "{spoil}: {progress:?}");
    }
    copy_all(&plane, &topology).await.expect("mended once the damage ends");
}

#[tokio::test]
async fn a_key_that_does_not_belong_on_its_shard_never_overwrites_the_true_one() {
    let mut plane = DataPlane::start(2).await;
    populate(&plane).await;
    let (_world, topology) = begin(&mut plane, 3).await;
    let before = contents(&plane, &topology.serving).await;
    let key = WorldKey::Entity(7);
    let wrong = &plane.shards[1 - key.shard(&topology.serving) as usize];
    wrong.run::<()>(&["SET", &key.physical(1), "stray"]).await;
    for index in 0..2 {
        let boot = plane.boot(Service::Migrator);
        run(&boot, &job(Work::Copy, 1, index), none(), |_| ()).await.expect("migrates");
    }
    assert_eq!(contents(&plane, &topology.target.expect("a target")).await, before);
}

#[tokio::test]
async fn keys_written_while_copying_are_drained_by_name() {
    let mut plane = DataPlane::start(1).await;
    populate(&plane).await;
    let (_world, topology) = begin(&mut plane, 2).await;
    plane.shards[0].run::<()>(&["SADD", "v1:dirty", "e:1", "e:424242"]).await;
    copy_all(&plane, &topology).await.expect("migrates");
    assert_eq!(plane.shards[0].run::<u64>(&["EXISTS", "v1:dirty"]).await, 0);
}

#[tokio::test]
async fn a_pod_waits_for_the_freeze_and_says_which_shard_is_not_frozen() {
    let mut plane = DataPlane::start(1).await;
    populate(&plane).await;
    let topology = plane.retarget(2, Phase::Copying).await;
    let boot = plane.boot(Service::Migrator);
    let impatient = Job { patience: Duration::from_millis(300), ..job(Work::Copy, 1, 0) };
    let failed = run(&boot, &impatient, none(), |_| ()).await.expect_err("is not frozen");
    assert!(matches!(failed, MigrateError::NotFrozen { shard: 0, target: 2, .. }), "{failed}");
    let waiting = job(Work::Copy, 1, 0);
    let freeze = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (_sender, receiver) = watch::channel(topology.clone());
        World::connect(&boot, receiver).freeze(&topology).await.expect("freezes");
    };
    let (done, ()) = tokio::join!(run(&boot, &waiting, none(), |_| ()), freeze);
    done.expect("migrates");
}

#[tokio::test]
async fn a_pod_goes_on_under_a_newer_epoch_of_the_same_re_sharding_and_ends_when_it_is_called_off() {
    let mut plane = DataPlane::start(1).await;
    populate(&plane).await;
    let (world, topology) = begin(&mut plane, 2).await;
    // A new leader froze again under a newer epoch than the pod read: it reads again.
    let newer = Topology { epoch: topology.epoch + 1, phase: Some(Phase::Verifying), ..topology.clone() };
    world.freeze(&newer).await.expect("freezes again");
    let boot = plane.boot(Service::Migrator);
    let late_topology = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        plane.set_topology(&newer).await;
    };
    let pod = job(Work::Copy, 1, 0);
    let (done, ()) = tokio::join!(run(&boot, &pod, none(), |_| ()), late_topology);
    done.expect("migrates");
    let off = Topology { epoch: newer.epoch + 1, target: None, phase: None, ..newer };
    plane.set_topology(&off).await;
    let failed = run(&boot, &job(Work::Copy, 1, 0), none(), |_| ()).await.expect_err("called off");
    assert!(matches!(failed, MigrateError::CalledOff { from: 1, serving: 1, .. }), "{failed}");
}

#[tokio::test]
async fn what_is_copied_while_ticks_run_is_never_called_done() {
    let mut plane = DataPlane::start(1).await;
    populate(&plane).await;
    let (world, topology) = begin(&mut plane, 2).await;
    let boot = plane.boot(Service::Migrator);
    // A scheduler that thaws, ticks and freezes again, all under one epoch.
    let ticks = async {
        for tick in 2.. {
            world.unfreeze(&topology).await.expect("unfreezes");
            world.take_actions(1, tick, &[RegionPos { x: 0, y: 0 }]).await.expect("takes");
            world.freeze(&topology).await.expect("freezes");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let pod = Job { patience: Duration::from_millis(500), ..job(Work::Copy, 1, 0) };
    let failed = tokio::select! {
        done = run(&boot, &pod, none(), |_| ()) => done.expect_err("ticks ran"),
        () = ticks => unreachable!("it never ends"),
    };
    let control = ControlDb::connect(&boot);
    let told = control.progress(2, 0).await.expect("answers");
    assert!(told.is_none_or(|progress| !progress.done), "{failed}");
    world.freeze(&topology).await.expect("freezes for good");
    run(&boot, &job(Work::Copy, 1, 0), none(), |_| ()).await.expect("migrates once the world is held");
}

#[tokio::test]
async fn collecting_removes_the_old_version_only() {
    let mut plane = DataPlane::start(3).await;
    populate(&plane).await;
    let (world, topology) = begin(&mut plane, 2).await;
    copy_all(&plane, &topology).await.expect("migrates");
    let to = topology.target.expect("a target");
    world.open_target(&topology, topology.epoch + 1, 1).await.expect("opens");
    let flipped = Topology {
        epoch: topology.epoch + 1,
        serving: to,
        target: None,
        phase: Some(Phase::Collecting),
        ..topology
    };
    plane.set_topology(&flipped).await;
    let before = contents(&plane, &to).await;
    plane.shards[0].run::<()>(&["SADD", "v1:dirty", "e:1"]).await;
    plane.shards[0].run::<()>(&["SET", "v10:info", "another version"]).await;
    let boot = plane.boot(Service::Migrator);
    for index in 0..3 {
        let progress = run(&boot, &job(Work::Collect, 1, index), none(), |_| ()).await.expect("collects");
        assert!(progress.done && Some(progress.keys) == progress.total_keys && progress.keys > 0, "{progress:?}");
    }
    assert_eq!(contents(&plane, &to).await, before);
    for (i, shard) in plane.shards.iter().enumerate() {
        assert_eq!(shard.run::<Vec<String>>(&["KEYS", "v1:*"]).await, Vec::<String>::new());
        assert_eq!(shard.run::<u64>(&["EXISTS", GUARD]).await, 1);
        assert_eq!(shard.run::<u64>(&["EXISTS", "v10:info"]).await, u64::from(i == 0));
    }
    assert_eq!(
        plane.shards[2].run::<u64>(&["DBSIZE"]).await,
        1,
        "the surplus group is empty but for its guard"
    );
    run(&boot, &job(Work::Collect, 1, 0), none(), |_| ()).await.expect("again does no harm");
}

#[tokio::test]
async fn a_version_in_use_is_never_collected() {
    let mut plane = DataPlane::start(1).await;
    populate(&plane).await;
    let (_world, topology) = begin(&mut plane, 2).await;
    copy_all(&plane, &topology).await.expect("migrates");
    let before = contents(&plane, &topology.serving).await;
    let boot = plane.boot(Service::Migrator);
    for version in [1, 2] {
        let refused = run(&boot, &job(Work::Collect, version, 0), none(), |_| ()).await.expect_err("is in use");
        assert!(matches!(refused, MigrateError::InUse { .. }), "{refused}");
    }
    // The topology has moved on, but this shard's guard still lets the version be written.
    let moved =
        Topology { epoch: topology.epoch + 1, serving: topology.target.expect("a target"), ..topology };
    plane.set_topology(&Topology { target: None, ..moved.clone() }).await;
    plane.shards[0].run::<()>(&["HSET", GUARD, "state", "open"]).await;
    let refused = run(&boot, &job(Work::Collect, 1, 0), none(), |_| ()).await.expect_err("is written");
    assert!(matches!(refused, MigrateError::InUse { .. }), "{refused}");
    let old = Layout { version: 1, shards: 1, placement: Placement::Modulo };
    assert_eq!(contents(&plane, &old).await, before);
}

#[tokio::test]
async fn a_late_collect_of_a_version_that_came_into_use_is_refused_by_the_guard() {
    let mut plane = DataPlane::start(1).await;
    populate(&plane).await;
    let old = plane.topology().await;
    let boot = plane.boot(Service::Migrator);
    let count =
        async |version: u64| Migration::new(&boot, old.clone()).count(0, version).await.expect("counts");
    // Pods that looked at everything before it changed, and hold keys that they found then.
    let refused = async |topology: &Topology, version: u64| {
        let pod = Migration::new(&boot, topology.clone());
        let keys = pod.scan(0, version, 0).await.expect("scans").keys;
        let before = count(version).await;
        assert!(!keys.is_empty() && before > 0);
        let unlinked = [pod.unlink(0, version, &keys).await.map(drop), pod.unlink_own(0, version).await];
        assert_eq!(count(version).await, before, "nothing is unlinked");
        unlinked
    };
    let in_use = |unlinked: [Result<(), RdbError>; 2]| {
        assert!(unlinked.iter().all(|one| matches!(one, Err(RdbError::WrongVersion { .. }))), "{unlinked:?}");
    };
    in_use(refused(&old, 1).await);
    plane.shards[0].run::<()>(&["HSET", GUARD, "state", "copying"]).await;
    in_use(refused(&old, 1).await);
    let (world, topology) = begin(&mut plane, 1).await;
    copy_all(&plane, &topology).await.expect("migrates");
    in_use(refused(&topology, 1).await);
    in_use(refused(&topology, 2).await);
    let opened = topology.epoch + 1;
    world.open_target(&topology, opened, 1).await.expect("opens");
    in_use(refused(&Topology { epoch: opened, ..topology.clone() }, 2).await);
    let late = refused(&topology, 1).await;
    assert!(matches!(&late[0], Err(RdbError::Stale { .. })), "{late:?}");
    let keys = vec![KeyText::from(&WorldKey::Info)];
    let pod = Migration::new(&boot, Topology { epoch: opened, ..topology });
    assert_eq!(pod.unlink(0, 1, &keys).await, Ok(1), "the version that was left may go");
}
