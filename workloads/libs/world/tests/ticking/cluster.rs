//! A reference cluster in memory: committed bytes in maps, several territories, letters carried by region.

// What a test stands on may end it: nothing here reads outside input.
#![allow(clippy::unwrap_used)]

mod locks;
mod look;
mod play;
mod stages;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fortia_proto::tick::v1::Patch;
use fortia_proto::world::v1 as pb;
use fortia_vec::{BlockPos, ChunkPos, RegionPos, regions_of};
use fortia_world::chunk::Column;
use fortia_world::order::Order;
use fortia_world::step::lock::Bids;
use fortia_world::step::{Changes, Territory};
use fortia_world::{generate, start, wire};

/// A generated world and its bytes, for many clusters.
pub(crate) type Ground = Arc<BTreeMap<ChunkPos, (Column, Vec<u8>)>>;

/// A new world of this seed and radius.
pub(crate) fn ground(seed: u64, radius: u32) -> Ground {
    let generator = generate::Generator::new(seed);
    let columns = ChunkPos::within(radius).map(|at| (at, generator.column(at)));
    Arc::new(columns.map(|(at, column)| (at, (column.clone(), column.encode()))).collect())
}

/// The table of claims, as the shards keep it: tick and epoch of a chunk's claims, and the claims by block.
type Table = BTreeMap<ChunkPos, ((u64, u64), BTreeMap<u32, Vec<u8>>)>;

/// The committed world and those who tick it.
pub(crate) struct Cluster {
    pub(crate) chunks: BTreeMap<ChunkPos, Vec<u8>>,
    pub(crate) entities: BTreeMap<u64, Vec<u8>>,
    pub(crate) tick: u64,
    /// Bytes written by the last tick.
    pub(crate) written: Changes,
    /// What the last tick told of the chunks between territories.
    patches: Vec<Patch>,
    /// Chunks that territories have asked for.
    pub(crate) loaded: usize,
    /// Claims that met another.
    pub(crate) conflicts: u64,
    ground: Ground,
    /// Chunks that are no longer as generated.
    stored: BTreeSet<ChunkPos>,
    /// The edge of the world.
    radius: u32,
    /// Makes chunks beyond the first radius.
    generator: Option<Arc<generate::Generator>>,
    /// The first radius.
    first: u32,
    epoch: u64,
    /// The strategy `Lock`, if that is used.
    table: Option<Table>,
    bids: Vec<Bids>,
    territories: Vec<Territory>,
    /// The number of each territory's owner.
    owners: Vec<usize>,
    /// What letters are shuffled by, if they are.
    shuffled: Option<u64>,
}

impl Cluster {
    /// A new world of this seed, ticked by one territory for each number in `owners`: region i goes to owner i.
    pub(crate) fn new(seed: u64, radius: u32, owners: impl Fn(usize) -> usize) -> Cluster {
        Cluster::on(&ground(seed, radius), radius, owners)
    }

    /// As [`Cluster::new`], on a world that was generated before.
    pub(crate) fn on(ground: &Ground, radius: u32, owners: impl Fn(usize) -> usize) -> Cluster {
        let mut cluster = Cluster {
            chunks: ground.iter().map(|(at, (_, bytes))| (*at, bytes.clone())).collect(),
            entities: BTreeMap::new(),
            tick: 0,
            written: Changes::default(),
            patches: Vec::new(),
            loaded: 0,
            conflicts: 0,
            ground: ground.clone(),
            stored: BTreeSet::new(),
            radius,
            generator: None,
            first: radius,
            epoch: 0,
            table: None,
            bids: Vec::new(),
            shuffled: None,
            territories: Vec::new(),
            owners: Vec::new(),
        };
        cluster.assign(owners);
        cluster
    }

    /// Throws all memory away and gives the regions to new owners.
    pub(crate) fn assign(&mut self, owners: impl Fn(usize) -> usize) {
        self.territories.clear();
        self.owners.clear();
        self.reassign(owners);
    }

    /// Gives the regions to new owners, between two ticks; each keeps what it knows of its own.
    pub(crate) fn reassign(&mut self, owners: impl Fn(usize) -> usize) {
        let mut parts = BTreeMap::<usize, Vec<RegionPos>>::new();
        for (i, region) in regions_of(self.radius).into_iter().enumerate() {
            parts.entry(owners(i)).or_default().push(region);
        }
        self.territories
            .iter_mut()
            .for_each(|territory| territory.refresh(&self.written.changed, &self.patches));
        let mut known: BTreeMap<usize, Territory> =
            self.owners.drain(..).zip(self.territories.drain(..)).collect();
        let nothing = || match &self.generator {
            Some(generator) => Territory::new([], self.first).growing(generator.clone(), self.radius),
            None => Territory::new([], self.radius),
        };
        for (owner, part) in parts {
            let mut territory = known.remove(&owner).unwrap_or_else(nothing);
            territory.reassign(part);
            self.territories.push(territory);
            self.owners.push(owner);
        }
        self.epoch += 1;
    }

    /// Lets the world grow up to `limit`; its regions get new owners.
    pub(crate) fn grow(&mut self, seed: u64, limit: u32, owners: impl Fn(usize) -> usize) {
        self.generator = Some(Arc::new(generate::Generator::new(seed)));
        self.radius = limit;
        self.assign(owners);
    }

    /// Uses the strategy `Lock` from the next tick on, or `Queue`.
    pub(crate) fn lock(&mut self, lock: bool) {
        self.table = lock.then(Table::new);
    }

    /// Lets letters come in an order by chance.
    pub(crate) fn shuffle(&mut self, seed: u64) {
        self.shuffled = Some(seed);
    }

    /// Runs a tick up to the commit, and gives it up: new owners run it again.
    pub(crate) fn abandon(
        &mut self,
        actions: &[(RegionPos, Vec<pb::Action>)],
        stages: usize,
        owners: impl Fn(usize) -> usize,
    ) {
        self.load();
        let _ = self.stages(self.tick + 1, actions, stages);
        self.assign(owners);
    }

    /// Runs one tick and commits it.
    pub(crate) fn tick(&mut self, actions: &[(RegionPos, Vec<pb::Action>)]) {
        self.tick += 1;
        let tick = self.tick;
        self.load();
        let mut inboxes = self.stages(tick, actions, 3);
        let (mut written, mut patches) = (Changes::default(), Vec::new());
        for territory in &mut self.territories {
            let changes = territory.commit(tick, inboxes.remove(0)).unwrap();
            written.columns.extend(changes.columns);
            written.entities.extend(changes.entities);
            written.born.extend(changes.born);
            written.gone.extend(changes.gone);
            written.changed.extend(changes.changed);
            patches.extend(changes.patches);
        }
        self.store(written);
        self.patches = patches;
    }

    fn store(&mut self, mut written: Changes) {
        written.columns.sort_by_key(Column::at);
        written.entities.sort();
        written.born.sort();
        written.gone.sort();
        written.changed.sort();
        let once = |length: usize, unique: usize| assert_eq!(length, unique, "written twice: {written:?}");
        once(written.columns.len(), written.columns.iter().map(Column::at).collect::<BTreeSet<_>>().len());
        once(
            written.entities.len(),
            written.entities.iter().map(|(id, _)| id).collect::<BTreeSet<_>>().len(),
        );
        self.stored.extend(written.columns.iter().map(Column::at));
        self.chunks.extend(written.columns.iter().map(|column| (column.at(), column.encode())));
        self.entities.extend(written.entities.iter().cloned());
        for (_, id) in &written.gone {
            self.entities.remove(id).expect("a record that goes was there");
        }
        self.written = written;
    }
}

/// The action that brings a player's first units into the world.
pub(crate) fn spawn(player: &str, at: BlockPos) -> (RegionPos, Vec<pb::Action>) {
    let units = start::unit_ids(player, start::UNITS);
    let spawn = pb::Spawn { owner: player.into(), at: Some(wire::block_pos(at)), units };
    let kind = Some(pb::action::Kind::Spawn(spawn));
    (at.region(), vec![pb::Action { id: 1, player: player.into(), kind }])
}

/// A command of a player to a unit, sent to a region; the cluster adds where the unit is seen.
pub(crate) fn command(id: u64, player: &str, unit: u64, order: Order) -> pb::Action {
    let command = pb::Command { unit, order: Some(order.to_proto()), ..pb::Command::default() };
    pb::Action { id, player: player.into(), kind: Some(pb::action::Kind::Command(command)) }
}
