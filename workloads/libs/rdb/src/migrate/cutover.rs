//! The scheduler's hands in a re-sharding: who notes, who is frozen, the last drain, and the turn of the guards.
//! Knows guards and notes; when to do what is the scheduler's.

use std::collections::BTreeMap;
use std::sync::Arc;

use fortia_common::boot::Boot;
use fortia_common::records;
use fortia_common::topology::{Layout, Topology};
use futures::future::try_join_all;
use tokio::sync::{Mutex, watch};

use crate::RdbError;
use crate::connection::RESPONSE;
use crate::guard::{self, Setting, State};
use crate::keyspace;
use crate::place::{Shards, group, target};
use crate::write::Writer;

use super::carry::{self, Head};
use super::drain::{self, Note};
use super::engine::{Shared, life};
use super::lane::Lane;
use super::read::Reader;
use super::wire::{Token, Wire};

/// Keys of a source that are carried while it stands still, at most. More are not even read: the server would tell them all in
/// one go, and the world would stand still for that, too.
pub const MOST_NOTED: u64 = 16_384;

/// The shards' guards and the last drain. Keeps its connections warm.
pub struct Cutover {
    boot: Boot,
    shards: Shards,
    crew: Mutex<Option<Crew>>,
}

/// Connections to all sources and targets of one migration. Used up by whatever fails or is given up on the way.
struct Crew {
    topology: Topology,
    lanes: Vec<Lane>,
    /// The newest attempt of each source that any target knows.
    floors: BTreeMap<u32, u64>,
}

/// All sources stand still: what is noted on them, and who they are.
#[derive(Clone, Debug, Default)]
pub struct Frozen {
    attempts: BTreeMap<u32, u64>,
    notes: BTreeMap<u32, Vec<Note>>,
    runs: BTreeMap<u32, String>,
}

impl Frozen {
    /// How many keys are still to be carried.
    pub fn lag(&self) -> u64 {
        self.notes.values().map(|notes| notes.len() as u64).sum()
    }

    /// Run ids of the sources, by shard.
    pub fn runs(&self) -> &BTreeMap<u32, String> {
        &self.runs
    }
}

impl Cutover {
    /// Connects to nothing before it is asked.
    pub fn new(boot: &Boot) -> Cutover {
        Cutover { boot: boot.clone(), shards: Shards::new(boot, RESPONSE), crew: Mutex::default() }
    }

    /// Lets the serving version be written and noted: for the target, or for the version before that is kept.
    ///
    /// # Errors
    /// `Topology` when there is neither, `Stale` when a guard has a newer epoch; otherwise when a shard does not answer.
    pub async fn note(&self, topology: &Topology) -> Result<(), RdbError> {
        let serving = topology.serving;
        let to = topology.target.or(topology.previous).map_or_else(|| target(topology), Ok)?;
        // What is kept was admitted as it is; what is made is written by nobody but the migration.
        let all = if topology.target.is_some() { serving.shards.max(to.shards) } else { serving.shards };
        let state = |shard| if shard < serving.shards { State::Copying } else { State::Frozen };
        let setting = |shard| Setting {
            state: state(shard),
            target: to.version,
            ..setting(topology.epoch, serving, State::Frozen)
        };
        self.set(topology, all, setting).await
    }

    /// Lets the serving version be written, with no target.
    ///
    /// # Errors
    /// `Stale` when a guard has a newer epoch; otherwise when a shard does not answer.
    pub async fn open(&self, topology: &Topology) -> Result<(), RdbError> {
        let open = setting(topology.epoch, topology.serving, State::Open);
        self.set(topology, topology.serving.shards, |_| open).await
    }

    /// How many keys of all sources are noted.
    ///
    /// # Errors
    /// When a shard does not answer.
    pub async fn lag(&self, topology: &Topology) -> Result<u64, RdbError> {
        let dirty = keyspace::dirty(topology.serving.version);
        let all = topology.serving.shards.max(topology.target.map_or(0, |to| to.shards));
        // Targets have no notes; they are asked so that their connections stand when it counts.
        let lengths = (0..all).map(|shard| {
            let mut length = redis::cmd("HLEN");
            length.arg(&dirty);
            async move { self.shards.primary(topology, shard)?.get::<u64>(length).await }
        });
        let lag = try_join_all(lengths).await?.into_iter().map(|notes| notes.saturating_sub(1)).sum();
        if topology.target.is_some() {
            let mut crew = self.crew.lock().await;
            if !crew.as_ref().is_some_and(|crew| crew.is_for(topology)) {
                *crew = None;
                *crew = Some(self.gather(topology).await?);
            }
        }
        Ok(lag)
    }

    async fn gather(&self, topology: &Topology) -> Result<Crew, RdbError> {
        let to = target(topology)?;
        let guards = (0..to.shards)
            .map(|shard| async move { guard::read(&*self.shards.primary(topology, shard)?).await });
        let mut floors = BTreeMap::new();
        for (source, attempt) in try_join_all(guards).await?.into_iter().flat_map(|guard| guard.attempts) {
            let floor: &mut u64 = floors.entry(source).or_default();
            *floor = attempt.max(*floor);
        }
        // This migration and no other: the leader's topology, not the newest.
        let (_, fixed) = watch::channel(topology.clone());
        let shared = Shared::new(&self.boot, fixed, topology.serving, to);
        let lanes = (0..topology.serving.shards).map(|source| Lane::open(Arc::clone(&shared), source));
        Ok(Crew { topology: topology.clone(), lanes: try_join_all(lanes).await?, floors })
    }

    /// The connections, taken away: whoever gives up half way does not leave them to the next.
    async fn take(&self, topology: &Topology) -> Result<Crew, RdbError> {
        match self.crew.lock().await.take().filter(|crew| crew.is_for(topology)) {
            Some(crew) => Ok(crew),
            None => self.gather(topology).await,
        }
    }

    /// Stops all writes of the serving version, takes over all sources and looks at what is noted.
    ///
    /// # Errors
    /// As [`Cutover::note`], and `Behind` when more than [`MOST_NOTED`] keys of a source are noted; some shards may be
    /// frozen then.
    pub async fn freeze(&self, topology: &Topology) -> Result<Frozen, RdbError> {
        let mut crew = self.take(topology).await?;
        let floors = &crew.floors;
        let seen = crew.lanes.iter_mut().map(|lane| {
            let floor = floors.get(&lane.source).copied().unwrap_or_default();
            freeze(lane, topology, floor)
        });
        let mut frozen = Frozen::default();
        for (source, (attempt, notes, run)) in (0..).zip(try_join_all(seen).await?) {
            frozen.attempts.insert(source, attempt);
            frozen.notes.insert(source, notes);
            frozen.runs.insert(source, run);
        }
        *self.crew.lock().await = Some(crew);
        Ok(frozen)
    }

    /// Carries what is noted; how many keys. Then all that was ever carried is as safe as a commit: a replica has it where a
    /// target has one, and `on_disk` the disks too.
    ///
    /// # Errors
    /// `NotReplicated` and `NotOnDisk` when that is not confirmed; otherwise when a guard refuses or a shard does not
    /// answer.
    pub async fn drain(&self, topology: &Topology, frozen: &Frozen, on_disk: bool) -> Result<u64, RdbError> {
        let to = target(topology)?;
        let mut crew = self.take(topology).await?;
        let carried = crew.lanes.iter_mut().map(|lane| async move {
            let attempt = frozen.attempts.get(&lane.source).copied().unwrap_or_default();
            let head = Head {
                cluster: topology.cluster.clone(),
                epoch: topology.epoch,
                version: to.version,
                source: lane.source,
                attempt,
            };
            lane.settle().await?;
            // From here on no pod's older value comes after ours.
            for shard in 0..to.shards {
                head.begin(lane.wire(shard).await?, b"fortia_fence", 0);
            }
            carry::heard(&mut lane.wires).await?;
            let notes = frozen.notes.get(&lane.source).map(Vec::as_slice).unwrap_or_default();
            let copied = lane.carry_notes(&head, notes).await?;
            confirmed(lane, topology, to.shards, on_disk).await?;
            Ok::<_, RdbError>(copied.keys)
        });
        let keys = try_join_all(carried).await?.into_iter().sum();
        *self.crew.lock().await = Some(crew);
        Ok(keys)
    }

    /// Opens the guards for the topology to be flipped to, under its epoch; every action up to tick `closed` was read, and no
    /// ticker of an epoch before `tick_epoch` may write. Returns the shards that serve then, each with the number of the part
    /// that all that was carried to it counts as: who comes back with fewer has forgotten some of it.
    ///
    /// # Errors
    /// As [`Cutover::note`].
    pub async fn turn(
        &self,
        topology: &Topology,
        after: &Topology,
        closed: u64,
        tick_epoch: u64,
    ) -> Result<Vec<(u32, u64)>, RdbError> {
        let (old, new) = (topology.serving, target(topology)?);
        let back = new.version < old.version;
        let served = Setting {
            target: if back { 0 } else { old.version },
            closed: Some(closed),
            ..setting(after.epoch, new, if back { State::Open } else { State::Copying })
        };
        let left = setting(after.epoch, old, State::Frozen);
        let setting = |shard| if shard < new.shards { served } else { left };
        self.set(topology, old.shards.max(new.shards), setting).await?;
        let cluster = self.shards.cluster();
        let writer = Writer { cluster, epoch: after.epoch, tick_epoch, version: new.version };
        try_join_all((0..new.shards).map(|shard| {
            let part = writer.part(closed);
            async move { Ok((shard, self.shards.primary(topology, shard)?.one(part).await?)) }
        }))
        .await
    }

    async fn set(
        &self,
        topology: &Topology,
        shards: u32,
        setting: impl Fn(u32) -> Setting,
    ) -> Result<(), RdbError> {
        try_join_all((0..shards).map(|shard| {
            let to = setting(shard);
            async move {
                let server = self.shards.primary(topology, shard)?;
                guard::set(&server, self.shards.cluster(), &group(topology, shard)?.name, shard, to).await
            }
        }))
        .await?;
        Ok(())
    }
}

impl Crew {
    fn is_for(&self, topology: &Topology) -> bool {
        let ours = &self.topology;
        ours.serving == topology.serving && ours.target == topology.target && ours.groups == topology.groups
    }
}

/// One round trip: the guard, the attempt, the notes, and whose life this is. Seldom a second one, for the notes.
async fn freeze(
    lane: &mut Lane,
    topology: &Topology,
    floor: u64,
) -> Result<(u64, Vec<Note>, String), RdbError> {
    lane.settle().await?;
    let (serving, to) = (topology.serving, target(topology)?);
    let (epoch, name) = (topology.epoch.to_string(), &group(topology, lane.source)?.name);
    let (version, target) = (serving.version.to_string(), to.version.to_string());
    let index = lane.source.to_string();
    let wire = &mut lane.reads;
    wire.begin(12);
    for argument in ["FCALL", "fortia_guard", "1", records::GUARD, &topology.cluster, name, &index] {
        wire.arg(argument.as_bytes());
    }
    for argument in [&epoch, &version, State::Frozen.as_str(), &target, ""] {
        wire.arg(argument.as_bytes());
    }
    wire.begin(10);
    for argument in
        ["FCALL", "fortia_attempt", "1", records::GUARD, &topology.cluster, &epoch, &target, &index]
    {
        wire.arg(argument.as_bytes());
    }
    wire.number(floor);
    wire.arg(b"cutover");
    let dirty = keyspace::dirty(serving.version);
    ask_notes(wire, dirty.as_bytes());
    wire.command(&[b"INFO", b"server"]);
    let answers = wire.all_answers().await?;
    answers.refused()?;
    let mut reader = Reader { answers, at: 0 };
    reader.whole()?;
    let attempt = match reader.whole()? {
        [Token::Int(attempt)] => u64::try_from(*attempt).unwrap_or_default(),
        _ => return Err(super::lane::unexpected(answers)),
    };
    let found = notes(&mut reader, lane.source)?;
    let info = reader.whole()?.first().and_then(|token| answers.bytes(*token)).unwrap_or_default();
    let run = life(&String::from_utf8_lossy(info)).run;
    let notes = match found {
        Some(notes) => notes,
        None => rest(&mut lane.reads, dirty.as_bytes()).await?,
    };
    Ok((attempt, notes, run))
}

/// Asks how many notes there are, and for so many of them as may be carried.
fn ask_notes(wire: &mut Wire, dirty: &[u8]) {
    wire.command(&[b"HLEN", dirty]);
    wire.begin(5);
    wire.arg(b"HSCAN");
    wire.arg(dirty);
    wire.arg(b"0");
    wire.arg(b"COUNT");
    // Servers count fields and values, or fields; one field has the last stamp.
    wire.number(2 * (MOST_NOTED + 1));
}

/// All notes; none when the scan has not come to its end: a table that was large has long ways without a note.
fn notes(reader: &mut Reader<'_>, source: u32) -> Result<Option<Vec<Note>>, RdbError> {
    let answers = reader.answers;
    let noted = match reader.whole()? {
        [Token::Int(length)] => u64::try_from(*length).unwrap_or_default().saturating_sub(1),
        _ => return Err(super::lane::unexpected(answers)),
    };
    if noted > MOST_NOTED {
        return Err(RdbError::Behind { source_shard: source, noted, most: MOST_NOTED });
    }
    let [Token::Array(2), next, Token::Array(_), pairs @ ..] = reader.whole()? else {
        return Err(super::lane::unexpected(answers));
    };
    Ok((answers.bytes(*next) == Some(&b"0"[..])).then(|| drain::read(answers, pairs)))
}

/// The notes, of which there are few enough, at once.
async fn rest(wire: &mut Wire, dirty: &[u8]) -> Result<Vec<Note>, RdbError> {
    wire.command(&[b"HGETALL", dirty]);
    let answers = wire.all_answers().await?;
    answers.refused()?;
    Ok(match answers.tokens {
        [Token::Array(_), pairs @ ..] => drain::read(answers, pairs),
        _ => Vec::new(),
    })
}

/// Asks every target who else has what was written. The fence has just been written on the same connection, so the answer
/// speaks of all that was written before it, by pods too.
async fn confirmed(
    lane: &mut Lane,
    topology: &Topology,
    targets: u32,
    on_disk: bool,
) -> Result<(), RdbError> {
    let mut asked = Vec::new();
    for shard in 0..targets {
        let group = group(topology, shard)?;
        let wanted = u32::from(!group.replicas.is_empty());
        if on_disk || wanted > 0 {
            let wire = lane.wire(shard).await?;
            wire.begin(if on_disk { 4 } else { 3 });
            wire.arg(if on_disk { b"WAITAOF" } else { b"WAIT" });
            if on_disk {
                wire.number(1);
            }
            wire.number(u64::from(wanted));
            wire.number((RESPONSE / 2).as_millis() as u64);
            wire.flush().await?;
            asked.push((shard, group.primary.clone(), wanted));
        }
    }
    for (shard, address, wanted) in asked {
        let answers = lane.wire(shard).await?.all_answers().await?;
        answers.refused()?;
        let (disk, replicas) = match answers.tokens {
            [Token::Int(replicas)] => (1, *replicas),
            [Token::Array(2), Token::Int(disk), Token::Int(replicas)] => (*disk, *replicas),
            _ => return Err(super::lane::unexpected(answers)),
        };
        if disk < 1 {
            return Err(RdbError::NotOnDisk { address });
        }
        let confirmed = u32::try_from(replicas).unwrap_or_default();
        if confirmed < wanted {
            return Err(RdbError::NotReplicated { address, wanted, confirmed });
        }
    }
    Ok(())
}

fn setting(epoch: u64, layout: Layout, state: State) -> Setting {
    Setting { epoch, version: layout.version, state, target: 0, closed: None }
}
