//! Schemas that do not follow from a type: foreign Kubernetes objects inside the spec, kept short, and texts of a pattern.
//! Knows shapes only.

use schemars::{Schema, SchemaGenerator, json_schema};

/// A host's name or IP address, as a pattern.
macro_rules! host {
    () => {
        r"([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
    };
}

/// An object the API server keeps as it is; the operator parses it.
pub(super) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true })
}

/// Amounts of resources by name.
pub(super) fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "additionalProperties": { "x-kubernetes-int-or-string": true } })
}

/// One amount.
pub(super) fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true })
}

/// A pod's tolerations.
pub(super) fn tolerations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": {
            "type": "object",
            "properties": {
                "key": { "type": "string" },
                "operator": { "type": "string", "enum": ["Equal", "Exists"] },
                "value": { "type": "string" },
                "effect": { "type": "string", "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"] },
                "tolerationSeconds": { "type": "integer", "format": "int64" }
            }
        }
    })
}

/// Where players reach something. The operator parses it again: this refuses at the edit what it would refuse later, but
/// for numbers that are too large.
pub(super) fn address(_: &mut SchemaGenerator) -> Schema {
    let pattern = concat!("^https?://", host!(), r"(:[0-9]{1,5})?(/[A-Za-z0-9._~-]+)*/?$");
    let message = "game.address must be http:// or https://, a host and, where needed, a port, like \
                   https://play.example.org or http://192.0.2.7:8080";
    matching(pattern, message)
}

/// Where logs are sent by gRPC.
pub(super) fn receiver(_: &mut SchemaGenerator) -> Schema {
    let pattern = concat!("^http://", host!(), ":[0-9]{1,5}/?$");
    let message = "logserver.endpoint must be http://, a host and a port, like http://collector:4317: logs are sent \
                   without TLS";
    matching(pattern, message)
}

/// Text of a pattern, and what is said of any other. The pattern is there twice: of the rule the API server tells the
/// message, of the schema Helm checks the values.
fn matching(pattern: &str, message: &str) -> Schema {
    json_schema!({
        "type": "string",
        "nullable": true,
        "maxLength": 512,
        "pattern": pattern,
        "x-kubernetes-validations": [{ "rule": format!("self.matches(r'{pattern}')"), "message": message }]
    })
}
