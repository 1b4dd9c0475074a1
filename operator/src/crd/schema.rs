//! Schemas of foreign Kubernetes objects inside the spec, kept short. Knows shapes only.

use schemars::{Schema, SchemaGenerator, json_schema};

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
