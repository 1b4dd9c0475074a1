//! A log record as it is stored, made from OTLP and shown as JSON. Knows no file and no network.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use serde_json::{Map, Value, json};

/// Longest message or field value kept, in bytes; the rest is cut off.
const LONGEST: usize = 64 << 10;

/// Severity in OTLP's numbers; a level stands for its number and the three above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Finest.
    Trace = 1,
    /// For developers.
    Debug = 5,
    /// What happens.
    Info = 9,
    /// What should not happen.
    Warn = 13,
    /// What failed.
    Error = 17,
    /// What ends a program.
    Fatal = 21,
}

impl Level {
    /// All levels, lowest first.
    pub const ALL: [Level; 6] =
        [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error, Level::Fatal];

    /// The level of an OTLP severity; what says none counts as info.
    pub fn of(severity: u32) -> Level {
        Level::ALL.into_iter().rev().find(|l| severity >= *l as u32).unwrap_or(Level::Info)
    }

    /// Its name in queries and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Fatal => "fatal",
        }
    }
}

/// A stored log record.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Record {
    /// When it happened, Unix nanoseconds.
    #[prost(fixed64, tag = "1")]
    pub time: u64,
    /// OTLP severity number.
    #[prost(uint32, tag = "2")]
    pub severity: u32,
    /// `service.name` of who logged.
    #[prost(string, tag = "3")]
    pub service: String,
    /// `service.instance.id` of who logged.
    #[prost(string, tag = "4")]
    pub instance: String,
    /// Scope or module.
    #[prost(string, tag = "5")]
    pub target: String,
    /// Text.
    #[prost(string, tag = "6")]
    pub message: String,
    /// Attributes.
    #[prost(message, repeated, tag = "7")]
    pub fields: Vec<KeyValue>,
    /// Trace id, or empty.
    #[prost(bytes = "vec", tag = "8")]
    pub trace: Vec<u8>,
}

impl Record {
    /// Its level.
    pub fn level(&self) -> Level {
        Level::of(self.severity)
    }

    /// As shown by GET /logs.
    pub fn json(&self) -> Value {
        let time = jiff::Timestamp::from_nanosecond(i128::from(self.time)).unwrap_or_default();
        let mut shown = json!({
            "time": format!("{time:.6}"),
            "level": self.level().as_str(),
            "service": self.service,
            "instance": self.instance,
            "target": self.target,
            "message": self.message,
            "fields": object(&self.fields),
        });
        if !self.trace.is_empty() {
            shown["trace"] = hex(&self.trace).into();
        }
        shown
    }

    /// Whether the text, the target or a field holds `lowercase`, whatever the case there.
    pub fn holds(&self, lowercase: &str) -> bool {
        let holds = |text: &str| text.to_lowercase().contains(lowercase);
        holds(&self.message)
            || holds(&self.target)
            || self.fields.iter().any(|field| field.value.as_ref().is_some_and(|v| holds(&text(v))))
            || (!self.trace.is_empty() && hex(&self.trace) == lowercase)
    }
}

/// The records of an OTLP request, received at `now` (Unix nanoseconds).
pub fn records(request: ExportLogsServiceRequest, now: u64) -> Vec<Record> {
    let mut records = Vec::new();
    for resource in request.resource_logs {
        let attributes = resource.resource.map(|r| r.attributes).unwrap_or_default();
        let service = attribute(&attributes, "service.name").unwrap_or_else(|| "unknown".into());
        let instance = attribute(&attributes, "service.instance.id").unwrap_or_default();
        for scope in resource.scope_logs {
            let target = scope.scope.map(|s| s.name).unwrap_or_default();
            records.extend(
                scope.log_records.into_iter().map(|log| record(log, &service, &instance, &target, now)),
            );
        }
    }
    records
}

fn record(log: LogRecord, service: &str, instance: &str, target: &str, now: u64) -> Record {
    let mut fields = log.attributes;
    for field in &mut fields {
        if let Some(AnyValue { value: Some(Any::StringValue(text)) }) = &mut field.value {
            cut(text);
        }
    }
    let mut message = log.body.as_ref().map(text).unwrap_or_default();
    cut(&mut message);
    let time = [log.time_unix_nano, log.observed_time_unix_nano].into_iter().find(|t| *t != 0).unwrap_or(now);
    Record {
        // A clock that is ahead must not keep a record on top for ever.
        time: time.min(now),
        severity: u32::try_from(log.severity_number).unwrap_or(0),
        service: service.to_owned(),
        instance: instance.to_owned(),
        target: target.to_owned(),
        message,
        fields,
        trace: log.trace_id,
    }
}

fn cut(text: &mut String) {
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push('…');
    }
}

fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    attributes.iter().find(|kv| kv.key == name)?.value.as_ref().map(text).filter(|t| !t.is_empty())
}

fn text(value: &AnyValue) -> String {
    match shown(value) {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn object(fields: &[KeyValue]) -> Value {
    let shown = |kv: &KeyValue| (kv.key.clone(), kv.value.as_ref().map_or(Value::Null, shown));
    Value::Object(fields.iter().map(shown).collect::<Map<_, _>>())
}

fn shown(value: &AnyValue) -> Value {
    match &value.value {
        Some(Any::StringValue(text)) => text.as_str().into(),
        Some(Any::BoolValue(yes)) => (*yes).into(),
        Some(Any::IntValue(number)) => (*number).into(),
        Some(Any::DoubleValue(number)) => (*number).into(),
        Some(Any::ArrayValue(array)) => array.values.iter().map(shown).collect(),
        Some(Any::KvlistValue(list)) => object(&list.values),
        Some(Any::BytesValue(bytes)) => hex(bytes).into(),
        _ => Value::Null,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
    use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};
    use opentelemetry_proto::tonic::resource::v1::Resource;

    /// A record of `service` at `time`.
    pub(crate) fn sample(time: u64, service: &str, level: Level, message: &str) -> Record {
        Record {
            time,
            severity: level as u32,
            service: service.into(),
            message: message.into(),
            fields: vec![field("tick", Any::IntValue(7))],
            ..Record::default()
        }
    }

    fn field(key: &str, value: Any) -> KeyValue {
        KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
    }

    fn request(log: LogRecord) -> ExportLogsServiceRequest {
        let resource = Resource {
            attributes: vec![field("service.name", Any::StringValue("game".into()))],
            ..Resource::default()
        };
        let scope = InstrumentationScope { name: "fortia_game".into(), ..InstrumentationScope::default() };
        let scope_logs =
            vec![ScopeLogs { scope: Some(scope), log_records: vec![log], ..ScopeLogs::default() }];
        ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(resource),
                scope_logs,
                ..ResourceLogs::default()
            }],
        }
    }

    #[test]
    fn an_otlp_record_is_shown_with_who_what_and_when() {
        let log = LogRecord {
            observed_time_unix_nano: 1_500_000_000,
            severity_number: 13,
            body: Some(AnyValue { value: Some(Any::StringValue("tick late".into())) }),
            attributes: vec![
                field("ms", Any::IntValue(80)),
                field("player", Any::StringValue("Odin".into())),
            ],
            ..LogRecord::default()
        };
        let records = records(request(log), u64::MAX);
        assert_eq!(
            records[0].json(),
            json!({"time": "1970-01-01T00:00:01.500000Z", "level": "warn", "service": "game", "instance": "",
                   "target": "fortia_game", "message": "tick late", "fields": {"ms": 80, "player": "Odin"}})
        );
        assert!(records[0].holds("odin") && records[0].holds("late") && !records[0].holds("thor"));
    }

    #[test]
    fn a_record_without_time_or_from_the_future_gets_the_time_it_came_in() {
        assert_eq!(records(request(LogRecord::default()), 77)[0].time, 77);
        let ahead = LogRecord { time_unix_nano: 100, ..LogRecord::default() };
        assert_eq!(records(request(ahead), 77)[0].time, 77);
    }

    #[test]
    fn a_message_without_end_is_cut() {
        let body = AnyValue { value: Some(Any::StringValue("ä".repeat(LONGEST))) };
        let cut = &records(request(LogRecord { body: Some(body), ..LogRecord::default() }), 1)[0].message;
        assert!(cut.len() <= LONGEST + 3 && cut.ends_with('…'));
    }

    #[test]
    fn every_severity_has_a_level() {
        assert_eq!(Level::of(0), Level::Info);
        assert_eq!(Level::of(1), Level::Trace);
        assert_eq!(Level::of(12), Level::Info);
        assert_eq!(Level::of(24), Level::Fatal);
    }
}
