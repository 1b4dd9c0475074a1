//! Nothing vanishes without a word: what cannot be delivered makes the stage fail.

use std::sync::Arc;

use fortia_proto::tick::v1::{Edit, Letter, letter};
use fortia_proto::world::v1 as pb;
use fortia_vec::{BlockPos, ChunkPos, RegionPos};
use fortia_world::entity::{Entity, EntityError, Kind};
use fortia_world::generate::Generator;
use fortia_world::step::{StepError, Territory};
use fortia_world::wire;

const HOME: RegionPos = RegionPos::new(0, 0);
const ABROAD: RegionPos = RegionPos::new(1, 0);

/// A territory of one region, of whose chunks only the one at the origin is there, before the commit of its first tick.
fn territory() -> Territory {
    let generator = Arc::new(Generator::new(42));
    let mut territory = Territory::new([HOME], 0).growing(generator.clone(), 20);
    while let Some(at) = territory.missing_chunks().first() {
        match at.is_within(0) {
            true => territory.load(generator.column(*at)),
            false => assert!(territory.absent(*at)),
        }
    }
    assert_eq!(territory.observe(1, &[]), Ok(vec![]));
    territory
}

fn unit(at: BlockPos) -> pb::Entity {
    Entity::new(Kind::Handyman, 7, "ann", at, BlockPos::new(1, 1, 40)).to_proto()
}

fn letter(to: RegionPos, kind: letter::Kind) -> Letter {
    Letter { to: Some(wire::region_pos(to)), kind: Some(kind) }
}

fn arrival(to: RegionPos, unit: pb::Entity) -> Letter {
    letter(to, letter::Kind::Arrival(Box::new(unit)))
}

/// What the commit says to a letter.
fn committed(letter: Letter) -> Result<usize, StepError> {
    let mut territory = territory();
    territory.edit(1, vec![]).expect("edits");
    territory.shift(1, vec![]).expect("moves");
    territory.commit(1, vec![letter]).map(|changes| changes.entities.len())
}

#[test]
fn a_unit_that_arrives_where_it_can_be_is_stored() {
    assert_eq!(committed(arrival(HOME, unit(BlockPos::new(3, 3, 40)))), Ok(1));
}

#[test]
fn a_unit_that_arrives_and_cannot_be_read_makes_the_commit_fail() {
    let strange = pb::Entity { kind: 99, ..unit(BlockPos::new(3, 3, 40)) };
    let unknown = EntityError::UnknownKind { id: 7, kind: 99 };
    assert_eq!(committed(arrival(HOME, strange)), Err(StepError::Arrival(HOME, unknown)));
}

#[test]
fn a_unit_for_a_region_that_is_not_owned_here_makes_the_commit_fail() {
    let at = BlockPos::new(3, 3, 40);
    assert_eq!(committed(arrival(ABROAD, unit(at))), Err(StepError::NotOwned(ABROAD)));
    let there = BlockPos::new(130, 3, 40);
    let astray = StepError::Astray { id: 7, at: there, to: HOME };
    assert_eq!(committed(arrival(HOME, unit(there))), Err(astray));
    let nowhere = Letter { to: None, ..arrival(HOME, unit(at)) };
    assert_eq!(committed(nowhere), Err(StepError::NoRegion));
}

#[test]
fn a_unit_in_a_chunk_that_is_not_loaded_makes_the_commit_fail() {
    let at = BlockPos::new(100, 100, 40);
    let failed = committed(arrival(HOME, unit(at)));
    assert!(
        matches!(failed, Err(StepError::NoChunk { id: 7, at: lost }) if lost.chunk() == at.chunk()),
        "{failed:?}"
    );
}

#[test]
fn letters_that_a_stage_does_not_take_or_that_lack_a_part_make_it_fail() {
    let credit = letter::Kind::Credit(Default::default());
    assert_eq!(territory().edit(1, vec![letter(HOME, credit.clone())]), Err(StepError::Letter(HOME, "edit")));
    let nowhere = letter::Kind::Edit(Edit { id: 1, unit: 7, ..Edit::default() });
    assert_eq!(territory().edit(1, vec![letter(HOME, nowhere)]), Err(StepError::Letter(HOME, "edit")));
    let mut moving = territory();
    moving.edit(1, vec![]).expect("edits");
    assert_eq!(moving.shift(1, vec![letter(HOME, credit)]), Err(StepError::Letter(HOME, "move")));
    let empty = Letter { kind: None, ..arrival(HOME, unit(BlockPos::default())) };
    assert_eq!(committed(empty), Err(StepError::Letter(HOME, "commit")));
}

#[test]
fn after_a_failed_stage_nothing_is_left_of_the_failure_in_a_territory_made_anew() {
    assert!(committed(arrival(HOME, unit(BlockPos::new(100, 100, 40)))).is_err());
    assert_eq!(committed(arrival(HOME, unit(BlockPos::new(5, 5, 40)))), Ok(1));
}

/// A territory whose one chunk lists these entities, and what of them there is.
fn listing(listed: &[u64], records: &[Entity]) -> Territory {
    let generator = Arc::new(Generator::new(42));
    let mut territory = Territory::new([HOME], 1);
    while let Some(at) = territory.missing_chunks().first() {
        let mut column = generator.column(*at);
        if at.is_within(0) {
            column.set_entities(listed);
        }
        territory.load(column);
    }
    for id in territory.missing_entities() {
        match records.iter().find(|record| record.id == id) {
            Some(record) => drop(territory.load_entity(record.clone())),
            None => territory.absent_entity(id),
        }
    }
    territory
}

fn stands(id: u64, at: BlockPos) -> Entity {
    Entity::new(Kind::Handyman, id, "ann", at, at)
}

/// Who the chunks of a territory list after a tick in which nobody did anything.
fn listed(territory: &mut Territory) -> Vec<(ChunkPos, Vec<u64>)> {
    territory.observe(1, &[]).expect("observes");
    territory.edit(1, vec![]).expect("edits");
    territory.shift(1, vec![]).expect("moves");
    let columns = territory.commit(1, vec![]).expect("commits").columns;
    columns.iter().map(|column| (column.at(), column.entities().iter().copied().collect())).collect()
}

#[test]
fn after_an_accepted_loss_who_has_no_record_is_taken_off_the_list_and_the_others_live_on() {
    let at = BlockPos::new(3, 3, 40);
    let mut territory = listing(&[7, 8], &[stands(8, at)]);
    assert_eq!(listed(&mut territory), [(at.chunk(), vec![8])]);
    assert!(territory.entity(8).is_some() && territory.entity(7).is_none());
}

#[test]
fn after_an_accepted_loss_who_is_listed_elsewhere_is_where_the_record_says() {
    let there = BlockPos::new(20, 3, 40);
    let mut territory = listing(&[7], &[stands(7, there)]);
    let here = ChunkPos { x: 0, y: 0 };
    assert_eq!(listed(&mut territory), [(here, vec![]), (there.chunk(), vec![7])]);
    assert_eq!(territory.entity(7).map(|unit| unit.at), Some(there));
    // Its own chunk is another ticker's, which knows it by its own list, or not at all.
    let mut abroad = listing(&[7], &[stands(7, BlockPos::new(130, 3, 40))]);
    assert_eq!(listed(&mut abroad), [(here, vec![])]);
    assert!(abroad.entity(7).is_none());
}
