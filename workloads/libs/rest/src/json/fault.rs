//! What does not fit in a JSON body, as serde finds it and as people are told. Knows serde's words, and no body.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Expected, Unexpected};

/// So much of what a client sent is shown to it: enough to recognise it.
const SHOWN: usize = 32;

/// What does not fit, and where.
#[derive(Debug)]
pub(super) struct Fault {
    /// From the innermost outwards.
    path: Vec<String>,
    what: What,
}

#[derive(Debug)]
enum What {
    Missing(&'static str),
    Unknown(String, &'static [&'static str]),
    Misfit { wanted: String, found: String },
    Other(String),
}

impl From<What> for Fault {
    fn from(what: What) -> Fault {
        Fault { path: Vec::new(), what }
    }
}

impl Fault {
    pub(super) fn within(mut self, step: String) -> Fault {
        self.path.push(step);
        self
    }

    /// The field of this name at the path, or what is at the path.
    fn field(&self, name: Option<&str>) -> String {
        let mut path: String = self.path.iter().rev().map(String::as_str).collect();
        if let Some(name) = name {
            path = format!("{path}.{name}");
        }
        match path.strip_prefix('.').unwrap_or(&path) {
            "" => "the body".to_owned(),
            path => format!("`{path}`"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Missing(name) => write!(f, "{} is missing", self.field(Some(name))),
            What::Unknown(name, []) => write!(f, "{} is not known: leave it out", self.field(Some(name))),
            What::Unknown(name, known) => {
                write!(f, "{} is not known: use {}", self.field(Some(name)), listed(known))
            }
            What::Misfit { wanted, found } => write!(f, "{} must be {wanted}, not {found}", self.field(None)),
            What::Other(words) => write!(f, "{}: {words}", self.field(None)),
        }
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(words: T) -> Fault {
        What::Other(words.to_string()).into()
    }

    fn invalid_type(found: Unexpected<'_>, wanted: &dyn Expected) -> Fault {
        What::Misfit { wanted: of_wanted(&wanted.to_string()), found: of_found(found) }.into()
    }

    fn invalid_value(found: Unexpected<'_>, wanted: &dyn Expected) -> Fault {
        de::Error::invalid_type(found, wanted)
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Fault {
        let wanted = format!("one of {}", listed(known));
        What::Misfit { wanted, found: of_found(Unexpected::Str(variant)) }.into()
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Fault {
        What::Unknown(start_of(name).into_owned(), known).into()
    }

    fn missing_field(name: &'static str) -> Fault {
        What::Missing(name).into()
    }
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// What serde expects, in words of JSON.
fn of_wanted(serde: &str) -> String {
    let whole = |low: i128, high: u128| format!("a whole number from {low} to {high}");
    match serde {
        "i8" => whole(i8::MIN.into(), i8::MAX as u128),
        "i16" => whole(i16::MIN.into(), i16::MAX as u128),
        "i32" => whole(i32::MIN.into(), i32::MAX as u128),
        "i64" => whole(i64::MIN.into(), i64::MAX as u128),
        "u8" => whole(0, u8::MAX.into()),
        "u16" => whole(0, u16::MAX.into()),
        "u32" => whole(0, u32::MAX.into()),
        "u64" => whole(0, u64::MAX.into()),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "an object".to_owned(),
        "unit" => "null".to_owned(),
        other if other.starts_with("struct ") => "an object".to_owned(),
        other => other.to_owned(),
    }
}

fn of_found(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => value.to_string(),
        Unexpected::Signed(value) => value.to_string(),
        Unexpected::Float(value) => value.to_string(),
        Unexpected::Str(text) => format!("{:?}", start_of(text)),
        Unexpected::Unit | Unexpected::Option => "null".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "an object".to_owned(),
        other => other.to_string(),
    }
}

/// The beginning of what a client sent.
pub(super) fn start_of(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}
