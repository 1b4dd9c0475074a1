//! From the bytes of a JSON body to a value, or to words for whoever sent it: which field does not fit, and what would.
//! Knows JSON, not HTTP.

mod fault;

use std::collections::{BTreeMap, btree_map};
use std::fmt;

use serde::Deserialize;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde_json::error::Category;

use fault::{Fault, start_of};

/// Why a body is not taken, in words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is no JSON.
    NotJson(String),
    /// It is, but not of the shape asked for.
    Misfit(String),
}

/// Reads a body. First as whatever JSON it is, then as `T`: so errors are of this module's kind, and can be told.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Refused::NotJson("the body is empty: send JSON".into()));
    }
    let tree: Tree = serde_json::from_slice(body).map_err(|error| unread(&error))?;
    T::deserialize(At(&tree)).map_err(|fault| Refused::Misfit(fault.to_string()))
}

fn unread(error: &serde_json::Error) -> Refused {
    let (line, column) = (error.line(), error.column());
    match error.classify() {
        // Said by `Tree` itself.
        Category::Data => Refused::Misfit(error.to_string()),
        Category::Eof => Refused::NotJson(format!(
            "the body is not all of a JSON text: it ends in the middle, at line {line}, column {column}"
        )),
        Category::Syntax | Category::Io => Refused::NotJson(format!(
            "the body is no JSON: it cannot be read beyond line {line}, column {column}"
        )),
    }
}

/// Any JSON.
enum Tree {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    List(Vec<Tree>),
    Object(BTreeMap<String, Tree>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Signed(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = list.next_element()? {
            all.push(item);
        }
        Ok(Tree::List(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Tree, A::Error> {
        let mut all = BTreeMap::new();
        while let Some((name, value)) = object.next_entry::<String, Tree>()? {
            let shown = start_of(&name).into_owned();
            if all.insert(name, value).is_some() {
                return Err(de::Error::custom(format!("`{shown}` is given twice")));
            }
        }
        Ok(Tree::Object(all))
    }
}

/// Reads a tree as a type.
struct At<'a>(&'a Tree);

impl At<'_> {
    fn unexpected(&self) -> Unexpected<'_> {
        match self.0 {
            Tree::Null => Unexpected::Unit,
            Tree::Bool(value) => Unexpected::Bool(*value),
            Tree::Unsigned(value) => Unexpected::Unsigned(*value),
            Tree::Signed(value) => Unexpected::Signed(*value),
            Tree::Float(value) => Unexpected::Float(*value),
            Tree::Text(value) => Unexpected::Str(value),
            Tree::List(_) => Unexpected::Seq,
            Tree::Object(_) => Unexpected::Map,
        }
    }
}

impl<'de> Deserializer<'de> for At<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Tree::Null => visitor.visit_unit(),
            Tree::Bool(value) => visitor.visit_bool(*value),
            Tree::Unsigned(value) => visitor.visit_u64(*value),
            Tree::Signed(value) => visitor.visit_i64(*value),
            Tree::Float(value) => visitor.visit_f64(*value),
            Tree::Text(value) => visitor.visit_str(value),
            Tree::List(all) => visitor.visit_seq(Items(all.iter().enumerate())),
            Tree::Object(all) => visitor.visit_map(Fields { left: all.iter(), at: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Tree::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    /// An object only: serde would take the fields in a list as well.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0 {
            Tree::Object(_) => self.deserialize_any(visitor),
            _ => Err(de::Error::invalid_type(self.unexpected(), &visitor)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    /// A name only: no body has an enum with more in it.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0 {
            Tree::Text(text) => text.as_str().into_deserializer().deserialize_enum(name, variants, visitor),
            _ => Err(de::Error::invalid_type(self.unexpected(), &"a string")),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

struct Items<'a>(std::iter::Enumerate<std::slice::Iter<'a, Tree>>);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some((index, item)) = self.0.next() else { return Ok(None) };
        seed.deserialize(At(item)).map(Some).map_err(|fault| fault.within(format!("[{index}]")))
    }
}

struct Fields<'a> {
    left: btree_map::Iter<'a, String, Tree>,
    at: Option<(&'a str, &'a Tree)>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some((name, value)) = self.left.next() else { return Ok(None) };
        self.at = Some((name, value));
        seed.deserialize(name.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        // A visitor that asks for a value without its name is a fault of the program.
        let Some((name, value)) = self.at.take() else { return Err(de::Error::custom("no field")) };
        seed.deserialize(At(value)).map_err(|fault| fault.within(format!(".{}", start_of(name))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fleet {
        ships: Vec<Ship>,
        #[serde(default)]
        port: Option<String>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Ship {
        oars: u8,
        at: i32,
        afloat: bool,
        kind: Kind,
        weight: f64,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Knarr,
        Longship,
    }

    fn ship(change: &str) -> String {
        let ship = r#""oars": 8, "at": -3, "afloat": true, "kind": "knarr", "weight": 1"#;
        let (name, _) = change.split_once(':').unwrap_or_default();
        let kept: Vec<&str> =
            ship.split(", ").filter(|field| !field.starts_with(name) || name.is_empty()).collect();
        let all =
            [kept, vec![change]].concat().into_iter().filter(|field| !field.is_empty()).collect::<Vec<_>>();
        format!(r#"{{"ships": [{{{}}}]}}"#, all.join(", "))
    }

    fn misfit(body: &str) -> String {
        match read::<Fleet>(body.as_bytes()) {
            Err(Refused::Misfit(words)) => words,
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn what_fits_is_read_as_it_is() {
        let wanted = Ship { oars: 8, at: -3, afloat: true, kind: Kind::Knarr, weight: 1.0 };
        assert_eq!(read(ship("").as_bytes()), Ok(Fleet { ships: vec![wanted], port: None }));
        let empty = Fleet { ships: Vec::new(), port: Some("Lofotr".into()) };
        assert_eq!(read(r#" {"ships": [], "port": "Lofotr"} "#.as_bytes()), Ok(empty));
        assert_eq!(
            read(r#"{"ships": [], "port": null}"#.as_bytes()),
            Ok(Fleet { ships: Vec::new(), port: None })
        );
        assert_eq!(read::<u64>(b"18446744073709551615"), Ok(u64::MAX));
    }

    #[test]
    fn a_field_that_does_not_fit_is_named_with_what_it_must_be() {
        for (change, words) in [
            (r#""oars": "many""#, r#"`ships[0].oars` must be a whole number from 0 to 255, not "many""#),
            (r#""oars": 256"#, "`ships[0].oars` must be a whole number from 0 to 255, not 256"),
            (r#""oars": -1"#, "`ships[0].oars` must be a whole number from 0 to 255, not -1"),
            (r#""at": 1.5"#, "`ships[0].at` must be a whole number from -2147483648 to 2147483647, not 1.5"),
            (
                r#""at": null"#,
                "`ships[0].at` must be a whole number from -2147483648 to 2147483647, not null",
            ),
            (r#""afloat": 1"#, "`ships[0].afloat` must be true or false, not 1"),
            (r#""weight": []"#, "`ships[0].weight` must be a number, not a list"),
            (r#""kind": "raft""#, r#"`ships[0].kind` must be one of `knarr`, `longship`, not "raft""#),
            (r#""kind": 7"#, "`ships[0].kind` must be a string, not 7"),
            (r#""sails": 1"#, "`ships[0].sails` is not known: use `oars`, `at`, `afloat`, `kind`, `weight`"),
        ] {
            assert_eq!(misfit(&ship(change)), words);
        }
        assert_eq!(misfit(r#"{"ships": [{"oars": 8}]}"#), "`ships[0].at` is missing");
        assert_eq!(misfit("{}"), "`ships` is missing");
        assert_eq!(misfit("[1]"), "the body must be an object, not a list");
        assert_eq!(misfit(r#"{"ships": {}}"#), "`ships` must be a list, not an object");
        assert_eq!(
            misfit(r#"{"ships": [[8, -3, true, "knarr", 1]]}"#),
            "`ships[0]` must be an object, not a list"
        );
    }

    #[test]
    fn a_field_that_is_given_twice_is_not_chosen_from() {
        let words = misfit(r#"{"ships": [], "ships": []}"#);
        assert!(words.starts_with("`ships` is given twice at line 1 column"), "{words}");
    }

    #[test]
    fn what_is_no_json_says_where() {
        let words = |body: &str| match read::<Fleet>(body.as_bytes()) {
            Err(Refused::NotJson(words)) => words,
            other => panic!("{body}: {other:?}"),
        };
        assert_eq!(words(" \n"), "the body is empty: send JSON");
        assert_eq!(
            words("{\n\"ships\": what}"),
            "the body is no JSON: it cannot be read beyond line 2, column 10"
        );
        assert_eq!(
            words("{\"ships\": ["),
            "the body is not all of a JSON text: it ends in the middle, at line 1, column 11"
        );
        words(&"[".repeat(100_000));
        words("{\"ships\": []} and more");
    }

    #[test]
    fn of_what_was_sent_no_more_is_shown_than_it_takes_to_recognise_it() {
        let words = misfit(&ship(&format!(r#""oars": "{}""#, "ö".repeat(5_000))));
        assert!(words.contains(&format!("{}…", "ö".repeat(32))) && words.len() < 200, "{words}");
        let words = misfit(&format!(r#"{{"ships": [], "{}": 1}}"#, "x".repeat(5_000)));
        assert!(words.len() < 200, "{words}");
    }
}
