//! A reference cluster in memory: committed bytes in maps, several territories, letters carried by region.

// What a test stands on may end it: nothing here reads outside input. Not every test uses all of it.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fortia_proto::tick::v1::{Letter, Patch};
use fortia_proto::world::v1 as pb;
use fortia_vec::{BlockPos, ChunkPos, RegionPos, regions_of};
use fortia_world::block::Block;
use fortia_world::chunk::Column;
use fortia_world::entity::Entity;
use fortia_world::goods::Goods;
use fortia_world::order::Order;
use fortia_world::step::lock::{Bids, RANK, Won, read_claim};
use fortia_world::step::{Changes, Territory};
use fortia_world::{generate, start, wire};
use xxhash_rust::xxh3::xxh3_64_with_seed;

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
    #[allow(dead_code)]
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
    #[allow(dead_code)]
    pub(crate) fn grow(&mut self, seed: u64, limit: u32, owners: impl Fn(usize) -> usize) {
        self.generator = Some(Arc::new(generate::Generator::new(seed)));
        self.radius = limit;
        self.assign(owners);
    }

    /// Uses the strategy `Lock` from the next tick on, or `Queue`.
    #[allow(dead_code)]
    pub(crate) fn lock(&mut self, lock: bool) {
        self.table = lock.then(Table::new);
    }

    /// Lets letters come in an order by chance.
    pub(crate) fn shuffle(&mut self, seed: u64) {
        self.shuffled = Some(seed);
    }

    /// Checks that every territory knows all chunks there are in its regions, and beside those in which somebody is; and
    /// of what else it knows, no others than were committed.
    pub(crate) fn check_known(&mut self) {
        self.load();
        let entities = self.entities.keys().filter(|id| !self.is_gone(**id));
        let inhabited: BTreeSet<_> = entities.map(|id| self.unit(*id).at.region()).collect();
        for territory in &self.territories {
            let owned: BTreeSet<_> = territory.regions().collect();
            let watched = |at: ChunkPos| owned.contains(&at.region()) && inhabited.contains(&at.region());
            for (at, bytes) in &self.chunks {
                let needed = owned.contains(&at.region()) || at.neighbours().into_iter().any(watched);
                let known = territory.column(*at);
                assert!(known.is_some() || !needed, "chunk {at} is not known");
                assert!(known.is_none_or(|known| known.encode() == *bytes), "chunk {at} is old");
            }
        }
    }

    /// How many flow fields the territories have made since they were assigned.
    pub(crate) fn fields_made(&self) -> u64 {
        self.territories.iter().map(Territory::fields_made).sum()
    }

    /// Runs a tick up to the commit, and gives it up: new owners run it again.
    #[allow(dead_code)]
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

    /// Puts an entity into the committed world; the regions must be assigned anew before the next tick.
    #[allow(dead_code)]
    pub(crate) fn place(&mut self, entity: Entity) {
        let at = entity.at.chunk();
        let mut column = Column::decode(&self.chunks[&at]).unwrap();
        column.set_entity(entity.id, true);
        self.chunks.insert(at, column.encode());
        self.stored.insert(at);
        self.entities.insert(entity.id, entity.encode());
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

    /// Runs the first stages of a tick; returns the letters for the next.
    fn stages(
        &mut self,
        tick: u64,
        actions: &[(RegionPos, Vec<pb::Action>)],
        stages: usize,
    ) -> Vec<Vec<Letter>> {
        let actions = &self.located(tick - 1, actions);
        let mut outbox = self.each(|territory| territory.observe(tick, actions).unwrap());
        if self.table.is_some() {
            outbox = self.claim(tick, outbox);
        }
        let mut inboxes = self.route(outbox.concat());
        if stages < 2 {
            return inboxes;
        }
        let refusals = if self.table.is_some() { self.decide(tick, &mut inboxes) } else { Vec::new() };
        let mut outbox = self.each(|territory| territory.edit(tick, inboxes.remove(0)).unwrap());
        outbox.push(refusals);
        let mut inboxes = self.route(outbox.concat());
        if stages < 3 {
            return inboxes;
        }
        self.fill();
        let outbox = self.each(|territory| territory.shift(tick, inboxes.remove(0)).unwrap());
        self.route(outbox.concat())
    }

    /// Edits become claims; who comes first differs from tick to tick.
    fn claim(&mut self, tick: u64, mut outboxes: Vec<Vec<Letter>>) -> Vec<Vec<Letter>> {
        let Cluster { territories, entities, table, epoch, conflicts, .. } = self;
        self.bids = outboxes.iter_mut().map(Bids::of).collect();
        let count = territories.len();
        for i in (0..count).map(|i| (i + tick as usize) % count) {
            let (territory, bids) = (&territories[i], &mut self.bids[i]);
            let strangers = bids.strangers(territory).unwrap().into_iter();
            let strangers: Vec<Entity> =
                strangers.map(|id| Entity::decode(&entities[&id]).unwrap()).collect();
            let claims = bids.claims(territory, &strangers);
            outboxes[i].extend(Bids::notices(&claims));
            for (at, claims) in claims {
                let of_chunk = table.as_mut().unwrap().entry(at).or_default();
                if of_chunk.0 != (tick, *epoch) {
                    *of_chunk = ((tick, *epoch), BTreeMap::new());
                }
                for (block, claim) in claims {
                    let held = of_chunk.1.get(&block);
                    *conflicts += u64::from(held.is_some());
                    if held.is_none_or(|held| claim[..RANK] < held[..RANK]) {
                        of_chunk.1.insert(block, claim);
                    }
                }
            }
        }
        outboxes
    }

    /// Claims become edits, and refusals, which are returned.
    fn decide(&mut self, tick: u64, inboxes: &mut [Vec<Letter>]) -> Vec<Letter> {
        let mut refusals = Vec::new();
        let table = self.table.as_ref().unwrap();
        for ((territory, bids), inbox) in self.territories.iter().zip(&self.bids).zip(inboxes) {
            let mut chunks = Bids::noticed(inbox);
            chunks.extend(bids.chunks());
            let won = |at: ChunkPos| {
                let claims =
                    table.get(&at).filter(|(of, _)| *of == (tick, self.epoch)).map(|(_, claims)| claims);
                let read = |(block, claim): (&u32, &Vec<u8>)| (*block, read_claim(&claim[RANK..]).unwrap());
                (at, claims.map(|claims| claims.iter().map(read).collect::<Won>()).unwrap_or_default())
            };
            let decided = bids.decide(territory, &chunks.into_iter().map(won).collect());
            inbox.extend(decided.edits);
            refusals.extend(decided.refusals);
        }
        refusals
    }

    fn load(&mut self) {
        for territory in &mut self.territories {
            territory.refresh(&self.written.changed, &self.patches);
            for at in &self.written.changed {
                let known = territory.column(*at).map(Column::encode);
                assert!(known.is_none_or(|known| known == self.chunks[at]), "an old copy of {at} is kept");
            }
        }
        self.fill();
    }

    /// Loads what the territories lack, as it was committed.
    fn fill(&mut self) {
        for territory in &mut self.territories {
            let mut missing = territory.missing_chunks();
            while !missing.is_empty() {
                for at in missing {
                    self.loaded += 1;
                    if !self.chunks.contains_key(&at) {
                        assert!(territory.absent(at), "chunk {at} is lost");
                        continue;
                    }
                    let stored =
                        self.stored.contains(&at).then(|| Column::decode(&self.chunks[&at]).unwrap());
                    territory.load(stored.unwrap_or_else(|| self.ground[&at].0.clone()));
                }
                missing = territory.missing_chunks();
            }
            for id in territory.missing_entities() {
                territory.load_entity(Entity::decode(&self.entities[&id]).unwrap());
            }
            assert!(territory.missing_entities().is_empty());
        }
    }

    fn each(&mut self, stage: impl FnMut(&mut Territory) -> Vec<Letter>) -> Vec<Vec<Letter>> {
        self.territories.iter_mut().map(stage).collect()
    }

    /// Sorts letters into the inboxes of their territories, last first: the order they come in must not matter.
    fn route(&self, mut letters: Vec<Letter>) -> Vec<Vec<Letter>> {
        letters.reverse();
        if let Some(seed) = self.shuffled {
            let by = seed ^ self.tick.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ letters.len() as u64;
            let mut mixed: Vec<(u64, Letter)> = letters
                .into_iter()
                .enumerate()
                .map(|(i, letter)| (xxh3_64_with_seed(&i.to_le_bytes(), by), letter))
                .collect();
            mixed.sort_by_key(|(by, _)| *by);
            letters = mixed.into_iter().map(|(_, letter)| letter).collect();
        }
        let of = |territory: &Territory| {
            let owned: BTreeSet<_> = territory.regions().collect();
            let mine = |letter: &&Letter| owned.contains(&wire::to_region_pos(&letter.to.unwrap()));
            letters.iter().filter(mine).cloned().collect()
        };
        self.territories.iter().map(of).collect()
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

    /// A committed unit.
    pub(crate) fn unit(&self, id: u64) -> Entity {
        Entity::decode(&self.entities[&id]).unwrap()
    }

    /// A committed block.
    pub(crate) fn block(&self, at: BlockPos) -> Block {
        Column::decode(&self.chunks[&at.chunk()]).unwrap().get(at.local().unwrap())
    }

    /// The cell on top of all solid blocks there.
    #[allow(dead_code)]
    pub(crate) fn surface(&self, x: i32, y: i32) -> BlockPos {
        let mut cell = BlockPos::new(x, y, i32::from(fortia_world::HEIGHT));
        while cell.z > 0 && !self.block(cell.down()).is_solid() {
            cell = cell.down();
        }
        cell
    }

    /// Sends an order of its owner's to where the unit is, and ticks.
    pub(crate) fn order(&mut self, unit: u64, order: Order) {
        let it = self.unit(unit);
        self.tick(&[(it.at.region(), vec![command(7, &it.owner, unit, order)])]);
        self.check();
    }

    /// Ticks until something has come true.
    pub(crate) fn until(&mut self, wanted: impl Fn(&Cluster) -> bool) {
        for _ in 0..400 {
            if wanted(self) {
                return;
            }
            self.tick(&[]);
            self.check();
        }
        panic!("it never comes to that");
    }

    /// Ticks until the unit's order is over.
    pub(crate) fn finish(&mut self, unit: u64) -> Entity {
        self.until(|cluster| cluster.unit(unit).order == Order::Hold);
        self.unit(unit)
    }

    /// Puts goods into a unit's hands.
    pub(crate) fn hand(&mut self, unit: u64, goods: Goods) {
        let mut unit = self.unit(unit);
        unit.goods = goods;
        self.put(&unit);
    }

    /// Checks that every unit is listed in the chunk it stands in and nowhere else, and stands where units can.
    pub(crate) fn check(&self) {
        let mut listed = BTreeMap::new();
        for bytes in self.chunks.values() {
            let column = Column::decode(bytes).unwrap();
            for id in column.entities() {
                assert_eq!(listed.insert(*id, column.at()), None, "unit {id} is listed twice");
            }
        }
        let there = |id: &&u64| !self.is_gone(**id);
        assert_eq!(listed.len(), self.entities.keys().filter(there).count());
        for id in self.entities.keys().filter(there) {
            let unit = self.unit(*id);
            assert_eq!(listed.get(id), Some(&unit.at.chunk()), "unit {id} at {}", unit.at);
            let block = |at: BlockPos| if at.z < 0 { Block::Bedrock } else { self.block(at) };
            if let Some(of) = unit.kind.block() {
                assert_eq!(block(unit.at), of, "{unit:?} is no building");
                continue;
            }
            assert!(!block(unit.at).is_solid() && !block(unit.at.up()).is_solid(), "{unit:?} is walled in");
            let floor = block(unit.at.down());
            assert!(
                floor.is_solid() || block(unit.at) == Block::Water,
                "{unit:?} hangs in the air over {floor:?}"
            );
        }
    }

    /// Whether a committed entity is dead for good.
    pub(crate) fn is_gone(&self, id: u64) -> bool {
        let it = self.unit(id);
        it.is_dead() && it.due.is_none()
    }

    /// Puts an entity into the committed world.
    #[allow(dead_code)]
    pub(crate) fn put(&mut self, entity: &Entity) {
        let at = entity.at.chunk();
        let mut column = Column::decode(&self.chunks[&at]).unwrap();
        column.set_entity(entity.id, true);
        if let (Some(block), Some(local)) = (entity.kind.block(), entity.at.local()) {
            column.set(local, block);
        }
        self.chunks.insert(at, column.encode());
        self.stored.insert(at);
        self.entities.insert(entity.id, entity.encode());
        for territory in &mut self.territories {
            *territory = Territory::new(territory.regions(), self.radius);
        }
    }

    /// Takes an entity out of the list of the chunk it was in, for one that is put somewhere else.
    pub(crate) fn take_away(&mut self, id: u64, was: BlockPos) {
        let mut column = Column::decode(&self.chunks[&was.chunk()]).unwrap();
        column.set_entity(id, false);
        self.chunks.insert(was.chunk(), column.encode());
        self.stored.insert(was.chunk());
    }

    /// Actions with the place where each unit is seen, as the game adds it.
    fn located(
        &self,
        seen: u64,
        actions: &[(RegionPos, Vec<pb::Action>)],
    ) -> Vec<(RegionPos, Vec<pb::Action>)> {
        let mut actions = actions.to_vec();
        for action in actions.iter_mut().flat_map(|(_, actions)| actions) {
            if let Some(pb::action::Kind::Command(command)) = &mut action.kind
                && let (None, Some(unit)) = (&command.at, self.entities.get(&command.unit))
            {
                command.at = Some(wire::block_pos(Entity::decode(unit).unwrap().at));
                command.seen = seen;
            }
        }
        actions
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
