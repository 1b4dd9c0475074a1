//! What a tick changed, as the text that subscribers are sent. Knows no HTTP and no storage.

use std::collections::{BTreeSet, HashMap};

use fortia_vec::ChunkPos;

use crate::read::Area;
use crate::shapes::{ChunkShape, EntityShape};

/// Changed chunks with the entities in them after a tick, made into JSON once for all who watch them.
#[derive(Debug)]
pub(crate) struct News {
    /// The tick.
    pub(crate) tick: u64,
    chunks: HashMap<ChunkPos, Texts>,
}

#[derive(Debug, Default)]
struct Texts {
    chunk: String,
    entities: Vec<String>,
}

impl News {
    /// The news that these chunks look like this after `tick`.
    pub(crate) fn of(tick: u64, area: &Area) -> News {
        let mut chunks: HashMap<ChunkPos, Texts> = HashMap::new();
        for column in &area.columns {
            chunks.entry(column.at()).or_default().chunk = text(&ChunkShape::from(column));
        }
        for entity in &area.entities {
            if let Some(texts) = chunks.get_mut(&entity.at.chunk()) {
                texts.entities.push(text(&EntityShape::from(entity)));
            }
        }
        News { tick, chunks }
    }

    /// The data of a `tick` event for who watches `area`: `{"tick": n, "chunks": [..], "entities": [..]}`.
    pub(crate) fn data(&self, area: &BTreeSet<ChunkPos>) -> String {
        let seen: Vec<&Texts> = area.iter().filter_map(|at| self.chunks.get(at)).collect();
        let chunks: Vec<&str> = seen.iter().map(|texts| texts.chunk.as_str()).collect();
        let entities: Vec<&str> =
            seen.iter().flat_map(|texts| texts.entities.iter()).map(String::as_str).collect();
        format!(
            "{{\"tick\":{},\"chunks\":[{}],\"entities\":[{}]}}",
            self.tick,
            chunks.join(","),
            entities.join(",")
        )
    }
}

/// The shapes are structs of strings and numbers, which always serialise.
fn text(shape: &impl serde::Serialize) -> String {
    serde_json::to_string(shape).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use fortia_vec::BlockPos;
    use fortia_world::chunk::Column;
    use fortia_world::entity::{Entity, Kind};
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_subscriber_is_told_of_the_chunks_it_watches_and_no_others() {
        let area = Area {
            columns: vec![Column::empty(ChunkPos::new(0, 0)), Column::empty(ChunkPos::new(1, 0))],
            entities: vec![
                Entity::new(Kind::Handyman, 7, "bob", BlockPos::new(3, 3, 30), BlockPos::default()),
                Entity::new(Kind::Handyman, 8, "eve", BlockPos::new(17, 3, 30), BlockPos::default()),
            ],
        };
        let news = News::of(5, &area);
        let told = |x: i32| -> Value {
            serde_json::from_str(&news.data(&BTreeSet::from([ChunkPos::new(x, 0)]))).expect("json")
        };
        assert_eq!(told(0)["tick"], json!(5));
        assert_eq!(told(0)["chunks"].as_array().map(Vec::len), Some(1));
        assert_eq!(told(0)["entities"][0]["id"], json!("7"));
        assert_eq!(told(1)["entities"][0]["id"], json!("8"));
        assert_eq!(told(2), json!({"tick": 5, "chunks": [], "entities": []}));
    }
}
