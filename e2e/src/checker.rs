//! Compares two versions of the stored world, key by key, past the services: what `v<n>:` held at the tick of the flip
//! must be what `v<n+1>:` holds as of that tick. Knows the shards through `fortia-rdb`; reads only.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fortia_common::boot::{Boot, Service, var};
use fortia_common::topology::{Group, Layout, Placement, Topology};
use fortia_rdb::RdbError;
use fortia_rdb::keyspace::{KeyText, WorldKey};
use fortia_rdb::migrate::Migration;
use fortia_rdb::world::{Info, Player, World};
use serde_json::Value;
use tokio::sync::watch;

use crate::cluster::{ClusterError, Forward};
use crate::fortia::{Fortia, FortiaError};

/// Time between two looks at a guard.
const LOOK: Duration = Duration::from_millis(20);

/// Why the stored world could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The cluster did not do what was asked.
    #[error(transparent)]
    Fortia(#[from] FortiaError),
    /// A shard could not be reached.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A shard did not answer.
    #[error(transparent)]
    Rdb(#[from] RdbError),
    /// The status lacks what is needed.
    #[error("status has no {0}: {1}")]
    Status(&'static str, String),
    /// The old version is still written.
    #[error("version {0} is still written after {1:?}")]
    NoFlip(u64, Duration),
    /// No boot values.
    #[error(transparent)]
    Boot(#[from] fortia_common::boot::BootError),
}

/// Loopback ways to the primaries of all shards, and the account to read them with.
pub struct Checker {
    boot: Boot,
    groups: Vec<Group>,
    _forwards: Vec<Forward>,
}

/// All keys of one version as of one tick: type and content, by key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents(BTreeMap<String, Content>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    /// A chunk or entity as of the tick.
    Slot(Vec<u8>),
    /// Ids of a player's entities, ascending: without a tick, and the ticks that go on after a flip add to them.
    Ids(Vec<u64>),
    /// The world itself.
    World(Info),
    /// A player.
    Player(Player),
    /// A key no world has: nobody knows what it means, so that it is there is all that is compared.
    Strange,
}

/// How two contents differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Keys of the first that the second lacks.
    pub lost: Vec<String>,
    /// Keys that are not equal.
    pub changed: Vec<String>,
    /// Keys only the second has.
    pub added: Vec<String>,
}

impl Checker {
    /// Connects to the first `shards` groups of a world.
    ///
    /// # Errors
    /// When a shard's pod or the password cannot be had.
    pub async fn connect(fortia: &Fortia, shards: u32) -> Result<Checker, CheckError> {
        let object = fortia.object().await?;
        let missing = |what| CheckError::Status(what, object["status"].to_string());
        let mut groups = Vec::new();
        let mut forwards = Vec::new();
        for index in 0..shards {
            let name = format!("shard-{index}");
            let pod = primary(&object, &name).ok_or(missing("primary of a shard"))?;
            let forward = fortia.cluster.forward(&fortia.pod_address(&pod, 6379).await?).await?;
            groups.push(Group {
                name,
                primary: format!("127.0.0.1:{}", forward.port()),
                replicas: Vec::new(),
            });
            forwards.push(forward);
        }
        let uid = object["metadata"]["uid"].as_str().ok_or(missing("uid"))?;
        let password = fortia.secret(&format!("{}-redis", fortia.name), "migrator").await?;
        let boot = Boot::from(Service::Migrator, |name| match name {
            var::INSTANCE | var::CONTROL_DB => Some("checker".into()),
            var::CLUSTER => Some(uid.into()),
            var::PASSWORD => Some(password.clone()),
            _ => None,
        })?;
        Ok(Checker { boot, groups, _forwards: forwards })
    }

    /// Waits until the first shard is writable in another version than `old`'s, and returns the last tick before that.
    /// By the guard, because the new version can be compared for two ticks only.
    ///
    /// # Errors
    /// When the shard does not answer, or `patience` is over.
    pub async fn flip(&self, old: Layout, patience: Duration) -> Result<u64, CheckError> {
        let (_sender, receiver) = watch::channel(self.topology(old));
        let world = World::connect(&self.boot, receiver);
        let begun = Instant::now();
        loop {
            let guard = world.guard(0).await?;
            if guard.version != old.version {
                return Ok(guard.closed.saturating_sub(1));
            }
            if begun.elapsed() > patience {
                return Err(CheckError::NoFlip(old.version, patience));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Everything that version `layout` holds, as of `tick`.
    ///
    /// # Errors
    /// `TooNew` when a chunk or entity has been overwritten twice since.
    pub async fn contents(&self, layout: Layout, tick: u64) -> Result<Contents, CheckError> {
        let topology = self.topology(layout);
        let migration = Migration::new(&self.boot, topology.clone());
        let (_sender, receiver) = watch::channel(topology);
        let world = World::connect(&self.boot, receiver);
        let mut all = BTreeMap::new();
        for shard in 0..layout.shards {
            let keys = self.keys(&migration, shard, layout.version).await?;
            read(&world, tick, keys, &mut all).await?;
        }
        Ok(Contents(all))
    }

    /// How many keys of a version there are, on all shards.
    ///
    /// # Errors
    /// When a shard does not answer.
    pub async fn count(&self, layout: Layout) -> Result<u64, CheckError> {
        let migration = Migration::new(&self.boot, self.topology(layout));
        let mut keys = 0;
        for shard in 0..layout.shards {
            keys += migration.count(shard, layout.version).await?;
        }
        Ok(keys)
    }

    fn topology(&self, serving: Layout) -> Topology {
        Topology {
            epoch: 1,
            cluster: self.boot.cluster.clone(),
            serving,
            target: None,
            previous: None,
            phase: None,
            groups: self.groups.clone(),
            auth_db: String::new(),
        }
    }

    async fn keys(
        &self,
        migration: &Migration,
        shard: u32,
        version: u64,
    ) -> Result<Vec<KeyText>, CheckError> {
        let (mut keys, mut cursor) = (Vec::new(), 0);
        loop {
            let step = migration.scan(shard, version, cursor).await?;
            keys.extend(step.keys);
            cursor = step.cursor;
            if cursor == 0 {
                return Ok(keys);
            }
        }
    }
}

/// Reads values of keys, of those with a tick as of that one.
async fn read(
    world: &World,
    tick: u64,
    keys: Vec<KeyText>,
    all: &mut BTreeMap<String, Content>,
) -> Result<(), CheckError> {
    let (mut chunks, mut entities) = (Vec::new(), Vec::new());
    for key in keys {
        let text = String::from_utf8_lossy(key.as_bytes()).into_owned();
        let content = match WorldKey::parse(&text) {
            Ok(WorldKey::Chunk(at)) => {
                chunks.push((text, at));
                continue;
            }
            Ok(WorldKey::Entity(id)) => {
                entities.push((text, id));
                continue;
            }
            // These come and go with the ticks; the world they act on is what is compared.
            Ok(WorldKey::Actions { .. } | WorldKey::Lock(_)) => continue,
            Ok(WorldKey::PlayerEntities(name)) => Some(Content::Ids(world.player_entities(&name).await?)),
            Ok(WorldKey::Info) => world.info().await?.map(Content::World),
            Ok(WorldKey::Player(name)) => world.player(&name).await?.map(Content::Player),
            Err(_) => Some(Content::Strange),
        };
        // None: it is gone since the scan.
        all.extend(content.map(|content| (text, content)));
    }
    let (names, at): (Vec<_>, Vec<_>) = chunks.into_iter().unzip();
    add_slots(all, names, world.chunks(tick, &at).await?);
    let (names, ids): (Vec<_>, Vec<_>) = entities.into_iter().unzip();
    add_slots(all, names, world.entities(tick, &ids).await?);
    Ok(())
}

/// A key that did not exist yet at the tick does not count.
fn add_slots<B: AsRef<[u8]>>(
    all: &mut BTreeMap<String, Content>,
    names: Vec<String>,
    values: Vec<Option<B>>,
) {
    let present = names.into_iter().zip(values);
    all.extend(present.filter_map(|(name, value)| Some((name, Content::Slot(value?.as_ref().to_vec())))));
}

impl Content {
    /// Whether the other is what this must be after a flip: equal, and of ids at least all there were.
    fn became(&self, now: &Content) -> bool {
        match (self, now) {
            (Content::Ids(before), Content::Ids(now)) => {
                before.iter().all(|id| now.binary_search(id).is_ok())
            }
            _ => self == now,
        }
    }
}

impl Contents {
    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How `after` differs.
    pub fn difference(&self, after: &Contents) -> Difference {
        let mut difference = Difference::default();
        for (key, before) in &self.0 {
            match after.0.get(key) {
                None => difference.lost.push(key.clone()),
                Some(now) if !before.became(now) => difference.changed.push(key.clone()),
                Some(_) => {}
            }
        }
        difference.added = after.0.keys().filter(|key| !self.0.contains_key(*key)).cloned().collect();
        difference
    }
}

/// The layout a FortiaCluster's status says is served.
///
/// # Errors
/// When the status has none.
pub fn serving(object: &Value) -> Result<Layout, CheckError> {
    let layout = &object["status"]["layout"];
    let missing = || CheckError::Status("layout", object["status"].to_string());
    Ok(Layout {
        version: layout["version"].as_u64().ok_or_else(missing)?,
        shards: layout["shards"].as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(missing)?,
        placement: match layout["placement"].as_str() {
            Some("Jump") => Placement::Jump,
            _ => Placement::Modulo,
        },
    })
}

fn primary(object: &Value, group: &str) -> Option<String> {
    let groups = object["status"]["groups"].as_array()?;
    let group = groups.iter().find(|g| g["name"] == group)?;
    group["primary"].as_str().map(str::to_owned)
}
