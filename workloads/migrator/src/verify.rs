//! Verifying: proof that the source and its targets hold the same, both ways, while the source is written. Knows when a
//! difference is one, and how often it may be mended; nothing of where differences come from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fortia_common::records::Proof;
use fortia_rdb::keyspace::KeyText;
use fortia_rdb::migrate::engine::{Attempt, Judged, Lane, Surplus};
use fortia_rdb::migrate::names::{Buckets, Names};
use futures::future::try_join_all;

use crate::MigrateError;
use crate::pages::{self, Pages, Scan};
use crate::pod::{Lives, Pod};

/// Keys compared at a time.
const BATCH: usize = 256;
/// Suspects kept before they are looked at again.
const SUSPECTS: usize = 65_536;
/// Looks at a suspect that is written all the time.
const LOOKS: u32 = 50;
/// Time between two looks: about a round of draining.
const BETWEEN: Duration = Duration::from_millis(20);
/// Rest between finding differences and looking again: some rounds of draining.
const MENDING: Duration = Duration::from_millis(100);
/// Differing keys named in an error.
const NAMED: usize = 5;

/// Proves the source, mending what differs once. What is written meanwhile must be drained meanwhile. Also tells when the pass
/// began that found no difference: all but what is noted was carried before.
pub(crate) async fn prove(pod: &Pod<'_>, attempt: &Attempt) -> Result<(Lives, Proof, Instant), MigrateError> {
    let mut mended = false;
    loop {
        pod.failpoints.pass("verifying.forward").await?;
        let begun = Instant::now();
        let lives = pod.lives().await?;
        let found = Pass::new(pod, attempt, &lives).run().await?;
        if pod.lives().await? != lives {
            return Err(MigrateError::Restarted { index: pod.job.index });
        }
        if found.different > 0 {
            let first = found.names.into_iter().collect::<Vec<_>>().join(", ");
            tracing::warn!(
                index = pod.job.index,
                count = found.different,
                first,
                "keys differ; carried again"
            );
            if mended {
                return Err(MigrateError::Different { index: pod.job.index, count: found.different, first });
            }
            mended = true;
            // What was noted is drained first: noted keys do not differ.
            tokio::time::sleep(MENDING).await;
        } else if found.in_flux > 0 {
            tracing::info!(
                index = pod.job.index,
                keys = found.in_flux,
                "keys are written all the time; once more"
            );
        } else {
            let proof = Proof { keys: found.equal, digest: format!("{:032x}", found.digest) };
            return Ok((lives, proof, begun));
        }
    }
}

/// What one pass over all keys found.
#[derive(Default)]
struct Found {
    equal: u64,
    digest: u128,
    different: u64,
    in_flux: u64,
    /// The first few that differ.
    names: BTreeSet<String>,
}

impl Found {
    fn differs(&mut self, key: &KeyText, what: &str) {
        self.different += 1;
        if self.names.len() < NAMED {
            self.names.insert(format!("{key}{what}"));
        }
    }
}

/// From which side a key came under suspicion.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Forward,
    Backward { source: u32 },
}

/// Targets that this pod looks at.
fn own_targets(pod: &Pod<'_>) -> impl Iterator<Item = u32> {
    let (sources, index) = (pod.from.shards, pod.job.index);
    (0..sources.max(pod.to.shards)).filter(move |target| target % sources == index)
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Pass<'a> {
    pod: &'a Pod<'a>,
    attempt: &'a Attempt,
    expires: bool,
    found: Mutex<Found>,
    suspects: Mutex<Vec<KeyText>>,
    /// Names the source has, by target.
    names: Mutex<BTreeMap<u32, Names>>,
}

/// How names found on a target are accounted for.
#[derive(Clone, Copy)]
enum Account<'a> {
    /// Those of the pod's own source are only counted; what others have is asked for.
    Counting(&'a Mutex<Names>),
    /// Those of its own source in these buckets are asked for, and nothing else.
    Closely(&'a Buckets),
}

impl<'a> Pass<'a> {
    fn new(pod: &'a Pod<'a>, attempt: &'a Attempt, lives: &Lives) -> Pass<'a> {
        let names = Mutex::new(own_targets(pod).map(|target| (target, Names::default())).collect());
        let (found, suspects) = (Mutex::default(), Mutex::default());
        Pass { pod, attempt, expires: lives.expires, found, suspects, names }
    }

    fn found<T>(&self, change: impl FnOnce(&mut Found) -> T) -> T {
        change(&mut lock(&self.found))
    }

    /// Both ways at once: the servers answer one while they read the other.
    async fn run(self) -> Result<Found, MigrateError> {
        self.pod.report.change(|progress| progress.verified = 0);
        let mut counted = Vec::new();
        let backward = async {
            self.pod.failpoints.pass("verifying.backward").await?;
            // Every target is looked at by one pod: keys of all sources are on it.
            for target in own_targets(self.pod) {
                let names = Mutex::default();
                self.backward(target, Account::Counting(&names)).await?;
                counted.push((target, names));
            }
            Ok(())
        };
        tokio::try_join!(self.forward(), backward)?;
        for (target, there) in counted {
            let here = lock(&self.names).remove(&target).unwrap_or_default();
            let differing = lock(&there).differing(&here);
            if let Some(buckets) = differing {
                self.backward(target, Account::Closely(&buckets)).await?;
            }
        }
        Ok(self.found.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every key of the source against its target.
    async fn forward(&self) -> Result<(), MigrateError> {
        let (sender, pages) = Pages::new();
        let (shard, version) = (self.pod.job.index, self.pod.from.version);
        let scan = pages::scan(self.pod, Scan { shard, version, cursor: 0, point: None }, sender);
        let lanes = try_join_all((0..self.pod.pace.lanes()).map(|_| self.compare(&pages)));
        tokio::try_join!(scan, lanes)?;
        let suspects = self.take_suspects(0);
        let mut lane = self.pod.engine.lane(self.pod.job.index).await?;
        self.judge(Side::Forward, &mut lane, suspects).await
    }

    async fn compare(&self, pages: &Pages) -> Result<(), MigrateError> {
        let mut lane = self.pod.engine.lane(self.pod.job.index).await?;
        while let Some(mut page) = pages.next().await {
            self.count(&page.keys);
            let most = self.pod.pace.batch(BATCH);
            let batches = self.pod.sizes().batches(&mut page.keys, most);
            for batch in batches {
                let begun = Instant::now();
                let batch = &page.keys[batch];
                let compared = lane.compare(batch, self.expires).await?;
                let verified = self.found(|found| {
                    found.equal += compared.equal;
                    found.digest = found.digest.wrapping_add(compared.digest);
                    found.equal
                });
                self.pod.report.change(|progress| progress.verified = verified);
                if let Some(key) = batch.first() {
                    self.pod.sizes().seen(key.class(), 0, 0);
                }
                self.suspect(compared.suspects);
                self.pod.pace.rest(begun.elapsed()).await;
            }
            let suspects = self.take_suspects(SUSPECTS);
            if !suspects.is_empty() {
                self.judge(Side::Forward, &mut lane, suspects).await?;
            }
        }
        Ok(())
    }

    /// Counts the source's names for the targets that are looked at here. A key that does not belong on the source is none
    /// of its names.
    fn count(&self, keys: &[KeyText]) {
        let Pod { job, from, to, .. } = self.pod;
        let mut names = lock(&self.names);
        for key in keys.iter().filter(|key| key.shard(from) == job.index) {
            if let Some(names) = names.get_mut(&key.shard(to)) {
                names.add(key);
            }
        }
    }

    fn suspect(&self, keys: Vec<KeyText>) {
        lock(&self.suspects).extend(keys);
    }

    /// All suspects, if there are so many.
    fn take_suspects(&self, least: usize) -> Vec<KeyText> {
        let mut suspects = lock(&self.suspects);
        if suspects.len() < least { Vec::new() } else { std::mem::take(&mut suspects) }
    }

    /// Every key of the new version on a target against the source it must have come from.
    async fn backward(&self, target: u32, account: Account<'_>) -> Result<(), MigrateError> {
        let (sender, pages) = Pages::new();
        let version = self.pod.to.version;
        let scan = pages::scan(self.pod, Scan { shard: target, version, cursor: 0, point: None }, sender);
        let unknown = Mutex::new(BTreeMap::new());
        tokio::try_join!(scan, self.account(target, account, &pages, &unknown))?;
        for (source, keys) in unknown.into_inner().unwrap_or_else(PoisonError::into_inner) {
            let mut lane = self.pod.engine.lane(source).await?;
            self.judge(Side::Backward { source }, &mut lane, keys).await?;
        }
        Ok(())
    }

    async fn account(
        &self,
        target: u32,
        account: Account<'_>,
        pages: &Pages,
        unknown: &Mutex<BTreeMap<u32, Vec<KeyText>>>,
    ) -> Result<(), MigrateError> {
        let (mut lane, own) = (self.pod.engine.lane(self.pod.job.index).await?, self.pod.job.index);
        while let Some(mut page) = pages.next().await {
            let begun = Instant::now();
            let mut misplaced = Vec::new();
            if let Account::Closely(buckets) = account {
                page.keys.retain(|key| key.shard(&self.pod.from) == own && buckets.have(key));
            }
            let asked = |key: &KeyText| match account {
                Account::Counting(names) => {
                    lock(names).add(key);
                    false
                }
                Account::Closely(_) => true,
            };
            for one in lane.surplus(target, page.keys, asked).await? {
                match one {
                    Surplus::Misplaced(key) => misplaced.push(key),
                    Surplus::Unknown(key) => {
                        lock(unknown).entry(key.shard(&self.pod.from)).or_default().push(key);
                    }
                }
            }
            if !misplaced.is_empty() {
                lane.remove_misplaced(self.attempt, target, &misplaced).await?;
                self.mended(&misplaced, &format!(" (on shard {target})")).await?;
            }
            self.pod.pace.rest(begun.elapsed()).await;
        }
        Ok(())
    }

    /// Looks at keys again until they are equal, different, or have been written all the time.
    async fn judge(&self, side: Side, lane: &mut Lane, mut keys: Vec<KeyText>) -> Result<(), MigrateError> {
        let source = match side {
            Side::Forward => self.pod.job.index,
            Side::Backward { source } => source,
        };
        for _ in 0..LOOKS {
            let (mut different, mut again) = (Vec::new(), Vec::new());
            for (judged, key) in lane.judge(&keys).await?.into_iter().zip(keys) {
                match judged {
                    // A key that is gone from both has no digest.
                    Judged::Equal(digest) if side == Side::Forward => self.found(|found| {
                        found.equal += u64::from(digest != 0);
                        found.digest = found.digest.wrapping_add(digest);
                    }),
                    // Neither has it any more, or it was counted forward.
                    Judged::Equal(_) => {}
                    Judged::Dirty => again.push(key),
                    Judged::Different => different.push(key),
                }
            }
            if !different.is_empty() {
                // The drain carries them: one way into the target for all that changes.
                self.pod.engine.note(source, &different).await?;
                self.mended(&different, "").await?;
            }
            keys = again;
            if keys.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(BETWEEN).await;
        }
        self.pod.engine.note(source, &keys).await?;
        self.found(|found| found.in_flux += keys.len() as u64);
        Ok(())
    }

    async fn mended(&self, keys: &[KeyText], what: &str) -> Result<(), MigrateError> {
        self.found(|found| keys.iter().for_each(|key| found.differs(key, what)));
        self.pod.report.change(|progress| progress.mended += keys.len() as u64);
        Ok(self.pod.failpoints.pass("verifying.mended").await?)
    }
}
