//! Tells the default of each field in its description: `kubectl explain` shows descriptions, and no defaults. Knows schemas,
//! not what they are of.

use serde_json::Value;

/// Completes the descriptions of all fields in a schema of an object. Those that speak of their default stay as they are,
/// and so do objects with fields of their own, of which these tell.
pub(super) fn tell(schema: &mut Value) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for field in properties.values_mut() {
        tell(field);
        let default = match &field["default"] {
            Value::String(text) => text.clone(),
            other @ (Value::Number(_) | Value::Bool(_)) => other.to_string(),
            _ => continue,
        };
        let Value::String(description) = &mut field["description"] else { continue };
        if !description.contains("Default") {
            *description = format!("{description} Default: {default}.");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_default_is_told_once_and_at_any_depth() {
        let field = |default: Value| json!({ "type": "any", "default": default, "description": "A field." });
        let mut schema = json!({ "properties": {
            "number": field(json!(8)),
            "text": field(json!("1s")),
            "flag": field(json!(false)),
            "told": { "default": 7, "description": "Default: 7." },
            "part": { "default": { "number": 3 }, "description": "A part.", "properties": { "number": field(json!(3)) } },
        } });
        tell(&mut schema);
        tell(&mut schema);
        let told =
            |path: &str| schema.pointer(&format!("/properties/{path}/description")).expect("told").clone();
        assert_eq!(told("number"), "A field. Default: 8.");
        assert_eq!(told("text"), "A field. Default: 1s.");
        assert_eq!(told("flag"), "A field. Default: false.");
        assert_eq!(told("told"), "Default: 7.");
        assert_eq!(told("part"), "A part.");
        assert_eq!(told("part/properties/number"), "A field. Default: 3.");
    }
}
