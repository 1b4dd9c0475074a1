//! Tests of the barrier.

use fortia_common::topology::{Layout, Placement};
use fortia_proto::tick::v1::{Committed, Cost, Frame, Part};
use fortia_vec::ChunkPos;
use proptest::prelude::*;

use super::*;

/// After tick 41, of which two shards have confirmed 5 and 6 parts.
fn barrier() -> Barrier {
    let topology = Topology {
        cluster: "u".into(),
        epoch: 7,
        serving: Layout { version: 2, shards: 2, placement: Placement::Modulo },
        target: None,
        previous: None,
        phase: None,
        groups: Vec::new(),
        auth_db: String::new(),
    };
    let last = Committed { tick: 41, version: 2, parts: vec![5, 6], ..Committed::default() };
    Barrier::new(3, &topology, 41, Ledger::after(Some(&last)), fortia_vec::regions_of(16), Costs::new(16))
}

fn join(barrier: &mut Barrier, conn: Conn) {
    joins(barrier, conn, &format!("ticker-{conn}"), &format!("process-{conn}"));
}

fn joins(barrier: &mut Barrier, conn: Conn, instance: &str, process: &str) -> Vec<Command> {
    barrier.next(Event::Joined { conn, instance: instance.into(), process: process.into() })
}

fn frames(commands: &[Command]) -> Vec<(Conn, Frame)> {
    commands
        .iter()
        .filter_map(|command| match command {
            Command::Send { conn, frame } => Some((*conn, frame.clone())),
            _ => None,
        })
        .collect()
}

fn done(frame: &Frame, outbox: Vec<Letter>) -> Answer {
    let costs = frame.regions.iter().map(|r| Cost { region: Some(*r), micros: 10 }).collect();
    let done =
        Done { epoch: frame.epoch, tick: frame.tick, stage: frame.stage, outbox, costs, ..Done::default() };
    Answer { kind: Some(answer::Kind::Done(done)) }
}

fn failed(frame: &Frame) -> Answer {
    let failed = Failed { epoch: frame.epoch, tick: frame.tick, stage: frame.stage, reason: "no".into() };
    Answer { kind: Some(answer::Kind::Failed(failed)) }
}

/// Starts a tick; returns its observe frames.
fn start(barrier: &mut Barrier) -> Vec<(Conn, Frame)> {
    let mut commands = barrier.next(Event::Due);
    while let [Command::Raise { epoch, .. }] = commands[..] {
        commands = barrier.next(Event::Raised { epoch, ok: true });
    }
    frames(&commands)
}

/// Runs a started tick up to its commit; returns what was sent.
fn finish(barrier: &mut Barrier, mut now: Vec<(Conn, Frame)>) -> Vec<(Conn, Frame)> {
    let mut sent = Vec::new();
    while !now.is_empty() {
        let mut after = Vec::new();
        for (conn, frame) in &now {
            after.extend(barrier.next(Event::Answered { conn: *conn, answer: done(frame, Vec::new()) }));
        }
        sent.append(&mut now);
        now = frames(&after);
        if let Some(Command::Commit { tick, .. }) = after.last() {
            barrier.next(Event::Committed { tick: *tick });
        }
    }
    sent
}

#[test]
fn a_tick_runs_through_four_stages_and_is_committed() {
    let mut barrier = barrier();
    join(&mut barrier, 1);
    join(&mut barrier, 2);
    let first = start(&mut barrier);
    assert_eq!(first.len(), 2);
    assert!(first.iter().all(|(_, f)| f.epoch == (3 << 20) + 1 && f.tick == 42 && f.topology_epoch == 7));
    let regions: usize = first.iter().map(|(_, f)| f.regions.len()).sum();
    assert_eq!(regions, fortia_vec::regions_of(16).len());
    let sent = finish(&mut barrier, first);
    assert_eq!(sent.iter().map(|(_, f)| f.stage).collect::<Vec<_>>(), [1, 1, 2, 2, 3, 3, 4, 4]);
    assert_eq!((barrier.committed(), barrier.idle()), (42, true));
    let second = start(&mut barrier);
    assert!(second.iter().all(|(_, f)| f.epoch == (3 << 20) + 1 && f.tick == 43), "the epoch stays");
}

#[test]
fn without_tickers_nothing_is_due() {
    assert_eq!(barrier().next(Event::Due), []);
}

#[test]
fn a_due_tick_is_never_queued_behind_a_running_one() {
    let mut barrier = barrier();
    join(&mut barrier, 1);
    start(&mut barrier);
    assert_eq!(barrier.next(Event::Due), []);
}

#[test]
fn letters_go_to_the_owner_of_the_region_they_name() {
    let mut barrier = barrier();
    join(&mut barrier, 1);
    join(&mut barrier, 2);
    let first = start(&mut barrier);
    let letters: Vec<Letter> = fortia_vec::regions_of(16)
        .into_iter()
        .map(|r| Letter { to: Some(world::RegionPos { x: r.x, y: r.y }), kind: None })
        .collect();
    barrier.next(Event::Answered { conn: first[0].0, answer: done(&first[0].1, letters) });
    let second =
        frames(&barrier.next(Event::Answered { conn: first[1].0, answer: done(&first[1].1, vec![]) }));
    for ((conn, observe), (same, edit)) in first.iter().zip(&second) {
        assert_eq!(conn, same);
        let to: Vec<_> = edit.inbox.iter().filter_map(|letter| letter.to).collect();
        assert_eq!(to, observe.regions);
    }
}

#[test]
fn shards_are_asked_for_what_they_confirmed_and_for_the_actions_of_a_tick_that_was_written() {
    let mut barrier = barrier();
    join(&mut barrier, 1);
    let mut now = start(&mut barrier);
    assert_eq!((now[0].1.parts.as_slice(), now[0].1.again), (&[5, 6][..], false));
    // One shard has the commit when the ticker dies.
    for _ in 0..3 {
        let (conn, frame) = now[0].clone();
        now = frames(&barrier.next(Event::Answered { conn, answer: done(&frame, Vec::new()) }));
    }
    barrier.next(Event::Left { conn: 1 });
    join(&mut barrier, 2);
    let mut now = start(&mut barrier);
    assert!(now[0].1.again, "the run before may have written");
    loop {
        let (conn, frame) = now[0].clone();
        let mut answer = done(&frame, Vec::new());
        if let Some(answer::Kind::Done(done)) = &mut answer.kind {
            done.parts =
                if frame.stage() == Stage::Commit { vec![Part { shard: 1, number: 9 }] } else { vec![] };
        }
        let commands = barrier.next(Event::Answered { conn, answer });
        if let Some(Command::Commit { tick, version, parts, .. }) = commands.last() {
            assert_eq!((*version, parts.as_slice()), (2, &[5, 9][..]));
            barrier.next(Event::Committed { tick: *tick });
            break;
        }
        now = frames(&commands);
    }
    let next = start(&mut barrier);
    assert_eq!((next[0].1.parts.as_slice(), next[0].1.again), (&[5, 9][..], false));
}

#[test]
fn a_letter_to_a_region_nobody_owns_makes_the_tick_run_again() {
    for to in [None, Some(world::RegionPos { x: 3, y: 0 })] {
        let mut barrier = barrier();
        join(&mut barrier, 1);
        let first = start(&mut barrier);
        let letter = Letter { to, kind: None };
        let commands = barrier.next(Event::Answered { conn: 1, answer: done(&first[0].1, vec![letter]) });
        assert!(matches!(&commands[..], [Command::Abandon { why: Why::Failed, .. }]), "{commands:?}");
    }
}

#[test]
fn a_ticker_that_goes_in_mid_tick_makes_the_tick_run_again_without_it() {
    let mut barrier = barrier();
    join(&mut barrier, 1);
    join(&mut barrier, 2);
    let first = start(&mut barrier);
    barrier.next(Event::Answered { conn: 1, answer: done(&first[0].1, Vec::new()) });
    // Its answer was in already, but its regions' next stage can never be.
    let commands = barrier.next(Event::Left { conn: 1 });
    assert!(matches!(commands[..], [Command::Abandon { .. }]), "{commands:?}");
    let again = start(&mut barrier);
    assert_eq!(again.iter().map(|(conn, f)| (*conn, f.tick)).collect::<Vec<_>>(), [(2, 42)]);
    assert!(again[0].1.epoch > first[0].1.epoch);
    assert_eq!(again[0].1.regions.len(), fortia_vec::regions_of(16).len());
}

#[test]
fn a_failed_stage_runs_the_tick_again_under_a_new_epoch() {
    let mut barrier = barrier();
    join(&mut barrier, 1);
    let first = start(&mut barrier);
    let commands = barrier.next(Event::Answered { conn: 1, answer: failed(&first[0].1) });
    assert!(
        matches!(&commands[..], [Command::Abandon { why: Why::Failed, reason, .. }] if reason == "ticker ticker-1 failed: no")
    );
    let again = start(&mut barrier);
    assert_eq!((again[0].1.tick, again[0].1.epoch), (42, first[0].1.epoch + 1));
}

#[test]
fn a_ticker_that_misses_the_deadline_loses_its_stream() {
    let mut barrier = barrier();
    join(&mut barrier, 1);
    join(&mut barrier, 2);
    let first = start(&mut barrier);
    barrier.next(Event::Answered { conn: 1, answer: done(&first[0].1, Vec::new()) });
    let place = Place { epoch: first[0].1.epoch, tick: 42, stage: Stage::Observe };
    let commands = barrier.next(Event::Deadline(place));
    assert!(
        matches!(commands[..], [Command::Close { conn: 2, .. }, Command::Abandon { why: Why::Late, .. }]),
        "{commands:?}"
    );
    assert_eq!(start(&mut barrier).len(), 1);
    assert_eq!(barrier.next(Event::Deadline(place)), [], "an old deadline means nothing");
}

#[test]
fn a_ticker_that_connects_again_replaces_its_old_stream() {
    let mut barrier = barrier();
    join(&mut barrier, 1);
    let commands = joins(&mut barrier, 9, "ticker-1", "process-1");
    assert!(matches!(commands[..], [Command::Close { conn: 1, .. }]), "{commands:?}");
    assert_eq!(start(&mut barrier)[0].0, 9);
}

#[test]
fn two_processes_of_one_name_are_two_tickers_and_neither_throws_the_other_out() {
    let mut barrier = barrier();
    join(&mut barrier, 1);
    let first = start(&mut barrier);
    assert_eq!(joins(&mut barrier, 9, "ticker-1", "another"), [], "the running tick goes on");
    finish(&mut barrier, first);
    let second = start(&mut barrier);
    assert_eq!(second.iter().map(|(conn, _)| *conn).collect::<Vec<_>>(), [1, 9]);
    assert_eq!(barrier.tickers().map(|(name, _)| name).collect::<Vec<_>>(), ["ticker-1", "ticker-1~9"]);
    assert!(second.iter().all(|(_, frame)| !frame.regions.is_empty()));
}

#[test]
fn a_changed_topology_or_an_epoch_that_did_not_reach_all_shards_asks_for_a_new_epoch() {
    let mut barrier = barrier();
    join(&mut barrier, 1);
    let [Command::Raise { epoch, .. }] = barrier.next(Event::Due)[..] else { panic!("no new epoch") };
    assert_eq!(barrier.next(Event::Raised { epoch, ok: false }), []);
    let first = start(&mut barrier);
    assert_eq!(first[0].1.epoch, epoch + 1);
    finish(&mut barrier, first);
    barrier.next(Event::Changed { version: 2, topology_epoch: 8, memory_since: 7 });
    let second = start(&mut barrier);
    let told = |frame: &Frame| (frame.epoch, frame.topology_epoch, frame.memory_since);
    assert_eq!(told(&second[0].1), (epoch + 2, 8, 7), "memory outlives a topology that changes no shard");
}

#[test]
fn neighbours_are_told_what_the_tick_before_changed() {
    let mut barrier = barrier();
    join(&mut barrier, 1);
    let mut now = start(&mut barrier);
    let at = world::ChunkPos { x: 3, y: -4 };
    for _ in 0..4 {
        let (conn, frame) = now[0].clone();
        let mut answer = done(&frame, Vec::new());
        if let Some(answer::Kind::Done(done)) = &mut answer.kind {
            done.changed = if done.stage() == Stage::Commit { vec![at] } else { Vec::new() };
        }
        let commands = barrier.next(Event::Answered { conn, answer });
        if let Some(Command::Commit { tick, changed, .. }) = commands.last() {
            assert_eq!(changed, &[at]);
            barrier.next(Event::Committed { tick: *tick });
        }
        now = frames(&commands);
    }
    assert_eq!(start(&mut barrier)[0].1.changed, [at]);
}

/// Runs a tick at whose commit the first ticker tells these patches.
fn tick_with(barrier: &mut Barrier, patches: &[Patch]) {
    let mut now = start(barrier);
    for stage in 0..4 {
        let mut commands = Vec::new();
        for (conn, frame) in &now {
            let mut answer = done(frame, Vec::new());
            if let Some(answer::Kind::Done(done)) = &mut answer.kind
                && stage == 3
                && *conn == now[0].0
            {
                done.patches = patches.to_vec();
            }
            commands = barrier.next(Event::Answered { conn: *conn, answer });
        }
        if let Some(Command::Commit { tick, .. }) = commands.last() {
            barrier.next(Event::Committed { tick: *tick });
        }
        now = frames(&commands);
    }
}

#[test]
fn patches_reach_the_owners_of_regions_beside_their_chunks_and_nobody_else() {
    let mut barrier = barrier();
    (1..=3).for_each(|conn| join(&mut barrier, conn));
    let first = start(&mut barrier);
    let owners: Vec<(Conn, Vec<RegionPos>)> = first
        .iter()
        .map(|(conn, frame)| (*conn, frame.regions.iter().map(|at| RegionPos::new(at.x, at.y)).collect()))
        .collect();
    finish(&mut barrier, first);
    let patch = |x, y| Patch { at: Some(world::ChunkPos { x, y }), ..Patch::default() };
    // A corner, an edge and the middle of a region.
    let patches = [patch(0, 0), patch(0, 3), patch(3, 3)];
    tick_with(&mut barrier, &patches);
    for (conn, frame) in start(&mut barrier) {
        let (_, regions) = owners.iter().find(|(of, _)| *of == conn).unwrap();
        let near = |patch: &&Patch| {
            let at = patch.at.map(|at| ChunkPos::new(at.x, at.y)).unwrap();
            at.neighbours().iter().any(|near| regions.contains(&near.region()))
        };
        let expected: Vec<Patch> = patches.iter().filter(near).cloned().collect();
        assert_eq!(frame.patches, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: a stage begins only when all answers of the one before are in, ticks
    /// are committed one by one, and answers of an old epoch, tick or stage change nothing.
    #[test]
    fn no_stage_begins_before_all_answers_and_old_answers_are_ignored(choices in prop::collection::vec((0u8..12, any::<u16>()), 1..200)) {
        let mut barrier = barrier();
        let mut open: Vec<(Conn, Frame)> = Vec::new();
        let mut old: Vec<(Conn, Frame)> = Vec::new();
        let mut conns: Vec<Conn> = Vec::new();
        let mut queue: Vec<Event> = Vec::new();
        let mut committed = 41;
        for (n, (choice, pick)) in choices.into_iter().enumerate() {
            let pick = usize::from(pick);
            let event = match choice {
                0 => {
                    conns.push(n as Conn);
                    Event::Joined { conn: n as Conn, instance: format!("t{}", pick % 2), process: format!("p{}", pick % 4) }
                }
                1 if !conns.is_empty() => Event::Left { conn: conns.remove(pick % conns.len()) },
                2 if !open.is_empty() => { let (conn, frame) = &open[pick % open.len()]; Event::Answered { conn: *conn, answer: failed(frame) } }
                3 if !old.is_empty() => {
                    let (conn, frame) = &old[pick % old.len()];
                    let before = (barrier.committed(), barrier.idle());
                    prop_assert_eq!(barrier.next(Event::Answered { conn: *conn, answer: done(frame, Vec::new()) }), vec![]);
                    prop_assert_eq!((barrier.committed(), barrier.idle()), before);
                    continue;
                }
                4..=8 if !open.is_empty() => {
                    let (conn, frame) = open.swap_remove(pick % open.len());
                    old.push((conn, frame.clone()));
                    Event::Answered { conn, answer: done(&frame, Vec::new()) }
                }
                _ => queue.pop().unwrap_or(Event::Due),
            };
            for command in barrier.next(event) {
                match command {
                    Command::Raise { epoch, .. } => queue.push(Event::Raised { epoch, ok: pick % 5 > 0 }),
                    Command::Begin { place, .. } => {
                        prop_assert!(open.is_empty(), "{:?} began while answers are missing", place.stage);
                        prop_assert_eq!(place.tick, committed + 1);
                    }
                    Command::Send { conn, frame } => open.push((conn, frame)),
                    Command::Commit { tick, .. } => {
                        prop_assert!(open.is_empty());
                        prop_assert_eq!(tick, committed + 1);
                        committed = tick;
                        queue.push(Event::Committed { tick });
                    }
                    Command::Abandon { .. } => old.append(&mut open),
                    Command::Close { conn, .. } => conns.retain(|c| *c != conn),
                }
            }
        }
    }
}
