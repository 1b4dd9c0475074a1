//! A chunk column as GET /chunks shows it, unpacked. Knows the JSON shape only.

use serde::Deserialize;

use crate::api::Place;

const SIDE: usize = 16;

/// One chunk column of named blocks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Blocks {
    /// In chunks, west to east.
    pub x: i32,
    /// In chunks, south to north.
    pub y: i32,
    palette: Vec<String>,
    /// Pairs of palette index and length: x runs fastest, then y, then z.
    runs: Vec<u32>,
    /// Ids of the entities that stand here.
    pub entities: Vec<String>,
}

impl Blocks {
    /// Every block with its place, from the bottom up.
    pub fn iter(&self) -> impl Iterator<Item = (Place, &str)> {
        let kinds = self.runs.chunks_exact(2).flat_map(|run| std::iter::repeat_n(run[0], run[1] as usize));
        kinds.enumerate().filter_map(|(i, kind)| {
            let name = self.palette.get(kind as usize)?;
            let along = |n: usize| i32::try_from(n).unwrap_or(0);
            let x = self.x * 16 + along(i % SIDE);
            let y = self.y * 16 + along(i / SIDE % SIDE);
            Some((Place { x, y, z: along(i / SIDE / SIDE) }, name.as_str()))
        })
    }

    /// The block at a place, if it is in this column.
    pub fn at(&self, place: Place) -> Option<&str> {
        self.iter().find(|(at, _)| *at == place).map(|(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_unpack_with_x_fastest() {
        let blocks: Blocks = serde_json::from_value(serde_json::json!({
            "x": -1, "y": 0, "palette": ["air", "stone"], "runs": [1, 17, 0, 495], "entities": []
        }))
        .expect("parses");
        assert_eq!(blocks.at(Place { x: -16, y: 1, z: 0 }), Some("stone"));
        assert_eq!(blocks.at(Place { x: -15, y: 1, z: 0 }), Some("air"));
        assert_eq!(blocks.iter().count(), 512);
    }
}
