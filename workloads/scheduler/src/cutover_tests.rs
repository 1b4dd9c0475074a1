//! Tests of what re-sharding asks of the scheduler.

use fortia_common::topology::Placement;

use super::*;

const OLD: Layout = Layout { version: 1, shards: 1, placement: Placement::Modulo };
const NEW: Layout = Layout { version: 2, shards: 2, placement: Placement::Modulo };
const CARRYING: [Phase; 4] = [Phase::Copying, Phase::CatchingUp, Phase::Verifying, Phase::Cutover];

fn topology(phase: Option<Phase>) -> Topology {
    Topology {
        epoch: 7,
        cluster: "uid".into(),
        serving: OLD,
        target: phase.filter(|phase| phase.carries()).map(|_| NEW),
        previous: None,
        phase,
        groups: Vec::new(),
        auth_db: String::new(),
    }
}

fn lag(lag: u64) -> Pending {
    Pending { version: 2, lag: Some(lag), ..Pending::default() }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn ticks_go_on_in_every_phase_once_what_is_written_is_noted() {
    let now = Instant::now();
    for phase in CARRYING.into_iter().filter(|phase| *phase != Phase::Cutover) {
        let topology = topology(Some(phase));
        assert_eq!(step(&topology, Guards::Open, &Pending::default(), now), Step::Note);
        assert_eq!(step(&topology, Guards::Noting(2), &Pending::default(), now), Step::Run);
    }
    for phase in [None, Some(Phase::Planned), Some(Phase::Aborting), Some(Phase::Collecting)] {
        assert_eq!(step(&topology(phase), Guards::Open, &Pending::default(), now), Step::Run);
    }
}

#[test]
fn a_new_leader_makes_sure_of_the_guards_whatever_the_last_one_may_have_left() {
    let now = Instant::now();
    for phase in CARRYING {
        assert_eq!(step(&topology(Some(phase)), Guards::Unknown, &Pending::default(), now), Step::Note);
    }
    for phase in [None, Some(Phase::Aborting), Some(Phase::Retaining)] {
        assert_eq!(step(&topology(phase), Guards::Unknown, &Pending::default(), now), Step::Open);
        assert_eq!(step(&topology(phase), Guards::Noting(2), &Pending::default(), now), Step::Open);
        assert_eq!(step(&topology(phase), Guards::Ahead, &Pending::default(), now), Step::Bump);
    }
}

#[test]
fn guards_are_looked_at_again_now_and_then_while_keys_are_carried_but_not_in_a_cut_over() {
    for phase in CARRYING {
        let topology = topology(Some(phase));
        let sure = |tick| Guards::Noting(2).after_tick(&topology, tick) == Guards::Noting(2);
        let looks = (1..=4 * SURE).filter(|tick| !sure(*tick)).count();
        assert_eq!(looks, if phase == Phase::Cutover { 0 } else { 4 }, "{phase:?}");
        assert_eq!(Guards::Ahead.after_tick(&topology, SURE), Guards::Ahead);
    }
    for phase in [None, Some(Phase::Retaining)] {
        assert_eq!(Guards::Noting(1).after_tick(&topology(phase), SURE), Guards::Noting(1));
        assert_eq!(Guards::Open.after_tick(&topology(phase), SURE), Guards::Open);
    }
}

#[test]
fn a_leader_that_meets_a_cut_over_not_knowing_the_guards_fences_whoever_may_be_at_it() {
    let (copying, cutover) = (topology(Some(Phase::Copying)), topology(Some(Phase::Cutover)));
    assert_eq!(Guards::Unknown.followed(&copying, &cutover), Guards::Ahead);
    assert_eq!(Guards::Noting(2).followed(&copying, &cutover), Guards::Noting(2));
    assert_eq!(Guards::Noting(2).followed(&topology(None), &cutover), Guards::Ahead, "of another migration");
    assert_eq!(Guards::Open.followed(&topology(None), &copying), Guards::Unknown);
    assert_eq!(Guards::Unknown.followed(&copying, &copying), Guards::Unknown);
    assert_eq!(Guards::Ahead.followed(&copying, &topology(None)), Guards::Ahead);
}

#[test]
fn a_cut_over_begins_when_little_is_noted() {
    let (cutover, now) = (topology(Some(Phase::Cutover)), Instant::now());
    let step = |pending: &Pending| step(&cutover, Guards::Noting(2), pending, now);
    assert_eq!(step(&Pending::default()), Step::Await);
    assert_eq!(step(&lag(SMALL_LAG)), Step::CutOver(NEW));
    assert_eq!(step(&lag(SMALL_LAG + 1)), Step::Run);
}

#[test]
fn a_lag_that_stays_large_holds_the_tick_for_no_longer_than_a_pause_and_then_it_is_tried() {
    let (cutover, now) = (topology(Some(Phase::Cutover)), Instant::now());
    let mut pending = Pending { version: 2, ..Pending::default() };
    for _ in 0..PATIENT_TICKS {
        pending.lag = Some(10_000);
        assert_eq!(step(&cutover, Guards::Noting(2), &pending, now), Step::Run);
        pending.ticked(now, ms(500));
        assert_eq!(pending.lag, None, "a tick writes");
    }
    pending.lag = Some(10_000);
    assert_eq!(step(&cutover, Guards::Noting(2), &pending, now + ms(499)), Step::Await);
    assert_eq!(step(&cutover, Guards::Noting(2), &pending, now + ms(500)), Step::CutOver(NEW));
}

#[test]
fn nobody_is_frozen_when_more_is_noted_than_all_sources_together_may_have() {
    assert!(!is_hopeless(2 * MOST_NOTED, 2));
    assert!(is_hopeless(2 * MOST_NOTED + 1, 2));
}

#[test]
fn failed_tries_are_made_again_after_ever_longer_waits_in_which_ticks_go_on() {
    let (cutover, now) = (topology(Some(Phase::Cutover)), Instant::now());
    let mut pending = lag(0);
    for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
        pending.failed(now);
        let step = |at| step(&cutover, Guards::Noting(2), &pending, at);
        assert_eq!(step(now + ms(wait * 1000 - 1)), Step::Run);
        assert_eq!(step(now + ms(wait * 1000)), Step::Await);
    }
    pending.follow(&topology(Some(Phase::Verifying)));
    assert_eq!(pending.tries, 8, "the operator's going back to Verifying makes no try undone");
    pending.follow(&Topology { target: None, ..cutover });
    assert_eq!(pending, Pending::default());
}

#[test]
fn a_target_that_does_not_answer_keeps_nobody_from_ticking_for_long() {
    let (copying, now) = (topology(Some(Phase::Copying)), Instant::now());
    let pending = Pending { unnoted_until: Some(now + ms(500)), ..Pending::default() };
    assert_eq!(step(&copying, Guards::Unknown, &pending, now), Step::Run);
    assert_eq!(step(&copying, Guards::Unknown, &pending, now + ms(500)), Step::Note);
}

#[test]
fn after_the_flip_the_version_before_is_noted_for_until_it_is_collected() {
    let after = flipped(&topology(Some(Phase::Cutover)), NEW);
    assert_eq!((after.epoch, after.serving, after.target), (8, NEW, None));
    assert_eq!((after.phase, after.previous), (Some(Phase::Retaining), Some(OLD)));
    let now = Instant::now();
    assert_eq!(step(&after, Guards::Unknown, &Pending::default(), now), Step::Note);
    assert_eq!(step(&after, Guards::Noting(1), &Pending::default(), now), Step::Run);
    let collecting = Topology { phase: Some(Phase::Collecting), previous: None, ..after };
    assert_eq!(step(&collecting, Guards::Noting(1), &Pending::default(), now), Step::Open);
}

#[test]
fn a_flip_back_keeps_nothing() {
    let serving = Topology { serving: NEW, target: Some(OLD), ..topology(Some(Phase::Cutover)) };
    let after = flipped(&serving, OLD);
    assert_eq!((after.serving, after.phase, after.previous), (OLD, Some(Phase::Collecting), None));
}

#[test]
fn a_bumped_topology_is_newer_than_a_flip_somebody_may_be_at() {
    let cutover = topology(Some(Phase::Cutover));
    assert!(bumped(&cutover).epoch > flipped(&cutover, NEW).epoch);
    assert!(cutover.same_world(&bumped(&cutover)));
}

#[test]
fn nothing_is_flipped_that_is_not_proven_on_the_servers_that_run() {
    let lives =
        |lives: &[(u32, &str)]| lives.iter().map(|(shard, run)| (*shard, (*run).to_owned())).collect();
    let since = 7;
    let pod = |done, of: &[(u32, &str)]| {
        let told = Progress { done, since, lives: lives(of), ..Progress::new(Phase::Cutover) };
        (Some(told), since)
    };
    assert_eq!(proven(&[pod(true, &[]), (None, since)]), Err(Unproven::Source(1)));
    assert_eq!(proven(&[pod(true, &[]), pod(false, &[])]), Err(Unproven::Source(1)));
    // A pod of a migration that was given up, and told so late.
    assert_eq!(proven(&[pod(true, &[]), (pod(true, &[]).0, since + 1)]), Err(Unproven::Earlier(1)));
    let both = [pod(true, &[(0, "a"), (2, "c")]), pod(true, &[(1, "b"), (2, "c")])];
    let all = proven(&both).expect("proven");
    assert_eq!(all, lives(&[(0, "a"), (1, "b"), (2, "c")]));
    let torn = [pod(true, &[(0, "a"), (2, "c")]), pod(true, &[(1, "b"), (2, "d")])];
    assert_eq!(proven(&torn), Err(Unproven::Restarted(2)));
    assert_eq!(same_lives(&all, &lives(&[(0, "a"), (1, "b")])), Ok(()));
    assert_eq!(same_lives(&all, &lives(&[(0, "a"), (1, "x")])), Err(Unproven::Restarted(1)));
}
