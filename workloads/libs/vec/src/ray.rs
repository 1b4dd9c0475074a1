//! Rays through blocks. Knows geometry only; whoever follows a ray decides where it stops.

use glam::DVec3;

use crate::{BlockPos, WorldPos};

/// A half line through the world.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ray {
    origin: DVec3,
    direction: DVec3,
}

impl Ray {
    /// The ray from `origin` along `direction` (of any length), or `None` when the direction is zero or a number is not finite.
    pub fn new(origin: WorldPos, direction: DVec3) -> Option<Ray> {
        let direction = direction.try_normalize()?;
        origin.0.is_finite().then_some(Ray { origin: origin.0, direction })
    }

    /// The ray from one point towards another, or `None` when they are the same.
    pub fn towards(from: WorldPos, to: WorldPos) -> Option<Ray> {
        Ray::new(from, to.0 - from.0)
    }

    /// The point at this distance, in blocks.
    pub fn at(&self, distance: f64) -> WorldPos {
        WorldPos(self.origin + self.direction * distance)
    }

    /// All blocks the ray passes up to this distance in blocks, nearest first, each one sharing a face with the one before.
    pub fn blocks(&self, distance: f64) -> Traversal {
        let at = WorldPos(self.origin).block();
        let cell = self.origin.floor();
        let axis = |origin: f64, cell: f64, direction: f64| -> Axis {
            if direction > 0.0 {
                Axis { step: 1, next: (cell + 1.0 - origin) / direction, each: 1.0 / direction }
            } else if direction < 0.0 {
                Axis { step: -1, next: (cell - origin) / direction, each: -1.0 / direction }
            } else {
                Axis { step: 0, next: f64::INFINITY, each: f64::INFINITY }
            }
        };
        Traversal {
            at: Some(at),
            axes: [
                axis(self.origin.x, cell.x, self.direction.x),
                axis(self.origin.y, cell.y, self.direction.y),
                axis(self.origin.z, cell.z, self.direction.z),
            ],
            distance,
        }
    }
}

#[derive(Debug, Clone)]
struct Axis {
    step: i32,
    /// Distance at which the ray leaves the present block along this axis.
    next: f64,
    /// Distance between two borders of blocks along this axis.
    each: f64,
}

/// The blocks along a ray; see [`Ray::blocks`].
#[derive(Debug, Clone)]
pub struct Traversal {
    at: Option<BlockPos>,
    axes: [Axis; 3],
    distance: f64,
}

impl Iterator for Traversal {
    type Item = BlockPos;

    fn next(&mut self) -> Option<BlockPos> {
        let at = self.at?;
        let nearest = (0..3).min_by(|a, b| self.axes[*a].next.total_cmp(&self.axes[*b].next))?;
        let axis = &mut self.axes[nearest];
        self.at = (axis.next <= self.distance).then(|| {
            axis.next += axis.each;
            let mut step = [0; 3];
            step[nearest] = axis.step;
            at.offset(step[0], step[1], step[2])
        });
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Distance;

    fn point() -> impl Strategy<Value = WorldPos> {
        (-20.0..20.0, -20.0..20.0, -20.0..20.0).prop_map(|(x, y, z)| WorldPos(DVec3::new(x, y, z)))
    }

    proptest! {
        #[test]
        fn a_ray_goes_face_by_face_from_its_first_block_to_its_last(from in point(), to in point()) {
            let Some(ray) = Ray::towards(from, to) else { return Ok(()) };
            let length = from.0.distance(to.0);
            let blocks: Vec<_> = ray.blocks(length).collect();
            prop_assert_eq!(blocks[0], from.block());
            for pair in blocks.windows(2) {
                prop_assert_eq!(pair[0].manhattan(pair[1]), 1);
            }
            let last = blocks[blocks.len() - 1];
            // Rounding may end the walk one block before or after a border the end lies on.
            prop_assert!(last.manhattan(to.block()) <= 1, "{} ended at {}", to.block(), last);
        }

        #[test]
        fn a_ray_passes_every_block_its_points_lie_in(from in point(), to in point(), part in 0.05..0.95) {
            let Some(ray) = Ray::towards(from, to) else { return Ok(()) };
            let length = from.0.distance(to.0);
            let inside = ray.at(length * part);
            let border = |v: f64| (v - v.round()).abs() < 1e-6;
            prop_assume!(!border(inside.0.x) && !border(inside.0.y) && !border(inside.0.z));
            prop_assert!(ray.blocks(length).any(|at| at == inside.block()));
        }
    }

    #[test]
    fn a_ray_along_an_axis_passes_one_block_a_step() {
        let ray = Ray::new(BlockPos::new(0, 0, 5).centre(), DVec3::NEG_Z).unwrap();
        let blocks: Vec<_> = ray.blocks(3.0).collect();
        assert_eq!(blocks, [5, 4, 3, 2].map(|z| BlockPos::new(0, 0, z)));
    }

    #[test]
    fn a_ray_needs_a_direction() {
        assert_eq!(Ray::new(WorldPos::default(), DVec3::ZERO), None);
        assert_eq!(Ray::new(WorldPos::default(), DVec3::NAN), None);
    }
}
