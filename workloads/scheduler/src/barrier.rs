//! The barrier between the stages of a tick: what the scheduler does on every event. Pure; knows frames and answers,
//! no streams, no clock, no database. The executor in `lead` carries out its commands.

use std::collections::{BTreeMap, BTreeSet};

use fortia_common::topology::Topology;
use fortia_proto::tick::v1::{Answer, Done, EditStrategy, Failed, Frame, Letter, Patch, Stage, answer};
use fortia_proto::world::v1 as world;
use fortia_vec::RegionPos;

use crate::assign::{Assignment, Costs, assign};
use crate::exchange::{Command, Conn, Event, Place, Why};
use crate::ledger::Ledger;
use crate::letters::sorted;
use crate::patches::addressed;

/// Ticks between two looks at whether the measured costs ask for another assignment.
const REBALANCE: u64 = 64;

#[derive(Debug)]
enum State {
    Idle,
    Raising,
    Running(Round),
    Committing,
}

/// Who is behind a stream.
#[derive(Debug)]
struct Ticker {
    /// What its regions are assigned to: its instance's name, or with its stream where two processes have the same.
    name: String,
    /// The process: when it connects again its old stream is dead, whatever TCP thinks of it.
    process: String,
}

/// A stage that runs.
#[derive(Debug)]
struct Round {
    stage: Stage,
    waiting: BTreeSet<Conn>,
    outbox: Vec<Letter>,
}

/// State of the ticks of one leader.
#[derive(Debug)]
pub struct Barrier {
    epoch: u64,
    topology_epoch: u64,
    /// The version of the database that is served.
    version: u64,
    memory_since: u64,
    committed: u64,
    ledger: Ledger,
    regions: Vec<RegionPos>,
    costs: Costs,
    /// Cost of the tick that runs, in µs; counted once it is committed.
    spent: BTreeMap<RegionPos, u64>,
    assignment: Assignment,
    tickers: BTreeMap<Conn, Ticker>,
    /// Why the assignment must be made anew before the next tick.
    stale: Option<String>,
    /// Whether the tickers have been sent a frame of this epoch.
    begun: bool,
    /// Chunks that the running tick has changed so far.
    changed: BTreeSet<(i32, i32)>,
    /// Of some of these, how.
    patches: Vec<Patch>,
    /// Chunks that the last committed tick changed.
    settled: Vec<world::ChunkPos>,
    /// Of some of these, how.
    settled_patches: Vec<Patch>,
    edit_strategy: EditStrategy,
    state: State,
}

impl Barrier {
    /// A leader under `lease_epoch` begins after tick `committed`, knowing these costs and what the shards have confirmed.
    pub fn new(
        lease_epoch: u64,
        topology: &Topology,
        committed: u64,
        ledger: Ledger,
        regions: Vec<RegionPos>,
        costs: Costs,
    ) -> Barrier {
        Barrier {
            epoch: lease_epoch << 20,
            topology_epoch: topology.epoch,
            version: topology.serving.version,
            memory_since: topology.epoch,
            committed,
            ledger,
            regions,
            costs,
            spent: BTreeMap::new(),
            assignment: Assignment::default(),
            tickers: BTreeMap::new(),
            stale: Some("a new leader".into()),
            begun: false,
            changed: BTreeSet::new(),
            patches: Vec::new(),
            settled: Vec::new(),
            settled_patches: Vec::new(),
            edit_strategy: EditStrategy::Queue,
            state: State::Idle,
        }
    }

    /// The last committed tick.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// The epoch of the assignment of regions.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether no tick runs.
    pub fn idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// How one editor per chunk is kept from the next tick on. To be said while no tick runs.
    pub fn edit_by(&mut self, strategy: EditStrategy) {
        if self.idle() {
            self.edit_strategy = strategy;
        }
    }

    /// What the shards have confirmed.
    pub fn ledger(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// Connected tickers and how many regions each owns.
    pub fn tickers(&self) -> impl Iterator<Item = (&str, usize)> {
        self.tickers
            .values()
            .map(|ticker| (ticker.name.as_str(), self.assignment.regions(&ticker.name).len()))
    }

    /// What follows from an event.
    pub fn next(&mut self, event: Event) -> Vec<Command> {
        match event {
            Event::Joined { conn, instance, process } => self.join(conn, instance, process),
            Event::Left { conn } => self.leave(conn),
            Event::Answered { conn, answer } => self.answered(conn, answer),
            Event::Due => self.due(),
            Event::Raised { epoch, ok } => self.raised(epoch, ok),
            Event::Committed { tick } => self.commit(tick),
            Event::Deadline(place) => self.late(place),
            Event::Changed { topology_epoch, version, memory_since } => {
                (self.topology_epoch, self.memory_since) = (topology_epoch, memory_since);
                self.version = version;
                self.stale = Some(format!("topology epoch {topology_epoch}"));
                Vec::new()
            }
        }
    }

    /// Two processes of one name (a pod that was replaced while its node was cut off) are two tickers: if each threw
    /// out the other, no tick would ever end.
    fn join(&mut self, conn: Conn, instance: String, process: String) -> Vec<Command> {
        let twin = self.tickers.iter().find(|(_, other)| other.process == process).map(|(conn, _)| *conn);
        let mut commands = Vec::new();
        if let Some(twin) = twin {
            commands.push(Command::Close { conn: twin, reason: "the ticker has connected again" });
            commands.extend(self.leave(twin));
        }
        self.stale = Some(format!("ticker {instance} has come"));
        let taken = self.tickers.values().any(|other| other.name == instance);
        let name = if taken { format!("{instance}~{conn}") } else { instance };
        self.tickers.insert(conn, Ticker { name, process });
        commands
    }

    fn leave(&mut self, conn: Conn) -> Vec<Command> {
        let Some(Ticker { name, .. }) = self.tickers.remove(&conn) else { return Vec::new() };
        let reason = format!("ticker {name} is gone");
        let abandon = matches!(&self.state, State::Running(round) if round.waiting.contains(&conn))
            || matches!(self.state, State::Running(_)) && !self.assignment.regions(&name).is_empty();
        if abandon {
            return self.abandon(Why::Gone, reason);
        }
        self.stale = Some(reason);
        Vec::new()
    }

    fn due(&mut self) -> Vec<Command> {
        if !self.idle() || self.tickers.is_empty() {
            return Vec::new();
        }
        if self.stale.is_none()
            && self.committed.is_multiple_of(REBALANCE)
            && self.assignment.is_uneven(&self.costs)
            && self.assigned() != self.assignment
        {
            self.stale = Some("costs have shifted".into());
        }
        match self.stale.take() {
            Some(reason) => self.raise(reason),
            None => self.begin(Stage::Observe, Vec::new()),
        }
    }

    fn assigned(&self) -> Assignment {
        let names = self.tickers.values().map(|ticker| ticker.name.clone()).collect();
        assign(&self.regions, &names, &self.costs, &self.assignment)
    }

    fn raise(&mut self, reason: String) -> Vec<Command> {
        self.epoch += 1;
        self.assignment = self.assigned();
        self.begun = false;
        self.state = State::Raising;
        vec![Command::Raise { epoch: self.epoch, reason }]
    }

    fn raised(&mut self, epoch: u64, ok: bool) -> Vec<Command> {
        if !matches!(self.state, State::Raising) || epoch != self.epoch {
            return Vec::new();
        }
        self.state = State::Idle;
        if !ok {
            self.stale.get_or_insert_with(|| "the epoch did not reach all shards".into());
            return Vec::new();
        }
        // Who came or went meanwhile is taken in by one more epoch, before the first frame.
        self.due()
    }

    fn place(&self, stage: Stage) -> Place {
        Place { epoch: self.epoch, tick: self.committed + 1, stage }
    }

    fn addressee(&self, letter: &Letter) -> Option<&str> {
        letter.to.as_ref().and_then(|to| self.assignment.owner(RegionPos::new(to.x, to.y)))
    }

    fn begin(&mut self, stage: Stage, letters: Vec<Letter>) -> Vec<Command> {
        let place = self.place(stage);
        let observes = stage == Stage::Observe;
        if observes {
            self.spent.clear();
        }
        if stage == Stage::Commit {
            self.ledger.begins();
        }
        let mut inboxes: BTreeMap<&str, Vec<Letter>> = BTreeMap::new();
        for letter in letters {
            if let Some(owner) = self.addressee(&letter) {
                inboxes.entry(owner).or_default().push(letter);
            }
        }
        let (changed, mut patches, parts) = match stage {
            Stage::Observe => (
                &self.settled[..],
                addressed(&self.settled_patches, &self.assignment),
                self.ledger.parts(self.version),
            ),
            _ => (&[][..], BTreeMap::new(), &[][..]),
        };
        let mut commands = vec![Command::Begin { place, loads: !self.begun }];
        let mut waiting = BTreeSet::new();
        for (conn, Ticker { name, .. }) in &self.tickers {
            let regions = self.assignment.regions(name);
            if regions.is_empty() {
                continue;
            }
            let regions = if self.begun { &[] } else { regions };
            let frame = Frame {
                epoch: place.epoch,
                topology_epoch: self.topology_epoch,
                tick: place.tick,
                stage: stage.into(),
                regions: regions.iter().map(|r| world::RegionPos { x: r.x, y: r.y }).collect(),
                inbox: sorted(inboxes.remove(name.as_str()).unwrap_or_default()),
                changed: changed.to_vec(),
                edit_strategy: self.edit_strategy.into(),
                memory_since: self.memory_since,
                patches: patches.remove(name.as_str()).unwrap_or_default(),
                parts: parts.to_vec(),
                again: observes && self.ledger.has_begun(),
            };
            waiting.insert(*conn);
            commands.push(Command::Send { conn: *conn, frame });
        }
        self.begun = true;
        self.state = State::Running(Round { stage, waiting, outbox: Vec::new() });
        commands
    }

    fn answered(&mut self, conn: Conn, answer: Answer) -> Vec<Command> {
        match answer.kind {
            Some(answer::Kind::Done(done)) => self.done(conn, done),
            Some(answer::Kind::Failed(failed)) => self.failed(conn, failed),
            // A second Hello says nothing new.
            Some(answer::Kind::Hello(_)) | None => Vec::new(),
        }
    }

    /// The running stage, if it is the one answered and waits for this stream.
    fn round(&mut self, conn: Conn, epoch: u64, tick: u64, stage: Stage) -> Option<&mut Round> {
        let expected = self.place(stage);
        let State::Running(round) = &mut self.state else { return None };
        let current = expected == Place { epoch, tick, stage } && round.stage == stage;
        (current && round.waiting.contains(&conn)).then_some(round)
    }

    fn done(&mut self, conn: Conn, done: Done) -> Vec<Command> {
        let stage = done.stage();
        let Some(round) = self.round(conn, done.epoch, done.tick, stage) else { return Vec::new() };
        round.waiting.remove(&conn);
        round.outbox.extend(done.outbox);
        let letters = round.waiting.is_empty().then(|| std::mem::take(&mut round.outbox));
        for cost in done.costs {
            if let Some(region) = cost.region {
                *self.spent.entry(RegionPos::new(region.x, region.y)).or_default() += cost.micros;
            }
        }
        self.changed.extend(done.changed.iter().map(|chunk| (chunk.x, chunk.y)));
        self.patches.extend(done.patches);
        if stage == Stage::Commit {
            self.ledger.confirmed(self.version, &done.parts);
        }
        let Some(letters) = letters else { return Vec::new() };
        if let Some(lost) = letters.iter().find(|letter| self.addressee(letter).is_none()) {
            // It may be a unit on its way.
            return self.abandon(Why::Failed, format!("nobody owns the region of a letter: {:?}", lost.to));
        }
        match stage {
            Stage::Unspecified | Stage::Observe => self.begin(Stage::Edit, letters),
            Stage::Edit => self.begin(Stage::Move, letters),
            Stage::Move => self.begin(Stage::Commit, letters),
            Stage::Commit => {
                self.state = State::Committing;
                let (version, parts) = (self.version, self.ledger.parts(self.version).to_vec());
                vec![Command::Commit { tick: self.committed + 1, changed: self.changes(), version, parts }]
            }
        }
    }

    fn changes(&self) -> Vec<world::ChunkPos> {
        self.changed.iter().map(|(x, y)| world::ChunkPos { x: *x, y: *y }).collect()
    }

    fn failed(&mut self, conn: Conn, failed: Failed) -> Vec<Command> {
        if self.round(conn, failed.epoch, failed.tick, failed.stage()).is_none() {
            return Vec::new();
        }
        let name = self.tickers.get(&conn).map(|ticker| ticker.name.as_str()).unwrap_or_default();
        self.abandon(Why::Failed, format!("ticker {name} failed: {}", failed.reason))
    }

    fn late(&mut self, place: Place) -> Vec<Command> {
        let here = self.place(place.stage);
        let State::Running(round) = &self.state else { return Vec::new() };
        if here != place || round.stage != place.stage {
            return Vec::new();
        }
        let late = round.waiting.clone();
        let names = late.iter().filter_map(|conn| self.tickers.remove(conn)).map(|ticker| ticker.name);
        let names: Vec<String> = names.collect();
        let close = |conn| Command::Close { conn, reason: "a deadline was missed" };
        let mut commands: Vec<Command> = late.into_iter().map(close).collect();
        commands.extend(self.abandon(Why::Late, format!("ticker {} missed the deadline", names.join(", "))));
        commands
    }

    /// Gives the running tick up; it is run again under a new epoch.
    fn abandon(&mut self, why: Why, reason: String) -> Vec<Command> {
        let State::Running(round) = &self.state else { return Vec::new() };
        let place = self.place(round.stage);
        self.state = State::Idle;
        self.changed.clear();
        self.patches.clear();
        self.stale = Some(reason.clone());
        vec![Command::Abandon { place, why, reason }]
    }

    fn commit(&mut self, tick: u64) -> Vec<Command> {
        if matches!(self.state, State::Committing) && tick == self.committed + 1 {
            self.committed = tick;
            self.ledger.committed();
            self.state = State::Idle;
            self.settled = self.changes();
            self.changed.clear();
            self.settled_patches = std::mem::take(&mut self.patches);
            self.costs.measured(tick, std::mem::take(&mut self.spent));
        }
        Vec::new()
    }
}

#[cfg(test)]
#[path = "barrier_tests.rs"]
mod tests;
