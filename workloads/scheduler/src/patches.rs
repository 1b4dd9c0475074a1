//! Who is told how a chunk changed. Pure; knows owners of regions, not what is in a patch.

use std::collections::BTreeMap;

use fortia_proto::tick::v1::Patch;
use fortia_vec::ChunkPos;

use crate::assign::Assignment;

/// Patches for the owners of regions beside their chunks.
pub(crate) fn addressed<'a>(patches: &[Patch], assignment: &'a Assignment) -> BTreeMap<&'a str, Vec<Patch>> {
    let mut of_owner: BTreeMap<&str, Vec<Patch>> = BTreeMap::new();
    for patch in patches {
        let Some(at) = patch.at.as_ref().map(|at| ChunkPos::new(at.x, at.y)) else { continue };
        // A chunk's corners lie in all the regions it is beside.
        let corners = [(-1, -1), (-1, 1), (1, -1), (1, 1)].map(|(x, y)| at.offset(x, y).region());
        let owners = corners.map(|region| assignment.owner(region));
        for (i, owner) in owners.into_iter().enumerate() {
            if let Some(owner) = owner.filter(|owner| !owners[..i].contains(&Some(*owner))) {
                of_owner.entry(owner).or_default().push(patch.clone());
            }
        }
    }
    of_owner
}
