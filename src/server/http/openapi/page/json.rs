//! Reading the OpenAPI document. What is missing in it counts as empty.

use serde_json::Value;

/// The target of a reference; other values are returned unchanged.
pub fn resolved<'a>(description: &'a Value, schema: &'a Value) -> &'a Value {
    let path = schema["$ref"].as_str().map(|path| path.trim_start_matches('#'));
    path.and_then(|path| description.pointer(path)).unwrap_or(schema)
}

/// Formats text unchanged, and other JSON on several lines.
pub fn pretty(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub fn fields(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}
