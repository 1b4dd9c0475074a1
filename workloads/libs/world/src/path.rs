//! Ways over land and water. Knows where units can be and step, and how to get from one place to another; knows no order,
//! no player and no tick beyond its number.
//!
//! Invariant: a way depends on the unit's place, its goal, and the land of its region and one chunk around that. All that
//! is remembered between ticks (`Ways`) only saves time.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use fortia_vec::{ChunkPos, RegionPos};

pub mod area;
pub mod budget;
pub mod field;
mod gates;
pub mod goal;
mod grid;
pub mod pillar;
pub mod plan;
pub mod surface;

use area::Area;
use surface::Surface;

/// Ticks an area is remembered in which nobody walks.
const KEPT: u64 = 64;

/// What a territory remembers of the land its units walk on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ways {
    /// Surfaces are shared by the areas they lie in, and live as long as one of them.
    surfaces: BTreeMap<ChunkPos, Weak<Surface>>,
    /// By region: when it was used last, and the land.
    areas: BTreeMap<RegionPos, (u64, Area)>,
    /// Fields made in all areas, also in those that are forgotten.
    fields: u64,
}

impl Ways {
    /// The chunk came, went or changed: it is read again when it is needed.
    pub(crate) fn stale(&mut self, at: ChunkPos) {
        self.surfaces.remove(&at);
        for region in std::iter::once(at.region()).chain(at.region().neighbours()) {
            if let Some((_, area)) = self.areas.get_mut(&region) {
                area.stale(at);
            }
        }
    }

    /// The area of a region, and the surfaces known; what is not known comes from `surface`.
    pub(crate) fn with_area<T>(
        &mut self,
        region: RegionPos,
        limit: u32,
        tick: u64,
        mut surface: impl FnMut(ChunkPos) -> Option<Surface>,
        run: impl FnOnce(&mut Area, &mut area::Land<'_>) -> T,
    ) -> T {
        let (used, area) = self.areas.entry(region).or_insert_with(|| (tick, Area::new(region, limit)));
        *used = tick;
        let surfaces = &mut self.surfaces;
        let mut land = |at: ChunkPos| {
            if let Some(known) = surfaces.get(&at).and_then(Weak::upgrade) {
                return Some(known);
            }
            let found = Arc::new(surface(at)?);
            surfaces.insert(at, Arc::downgrade(&found));
            Some(found)
        };
        let before = area.made;
        let found = run(area, &mut land);
        self.fields += area.made - before;
        found
    }

    /// How many flow fields were made.
    pub(crate) fn fields_made(&self) -> u64 {
        self.fields
    }

    /// Drops the areas in which nobody walked for long.
    pub(crate) fn tidy(&mut self, tick: u64) {
        let before = self.areas.len();
        self.areas.retain(|_, (used, _)| tick.saturating_sub(*used) < KEPT);
        if self.areas.len() < before {
            self.surfaces.retain(|_, surface| surface.strong_count() > 0);
        }
    }
}
