//! As much of JSON Schema as the schema of results uses; for tests.

use serde_json::Value;

/// Says where a value differs from a schema.
pub(crate) fn differs(value: &Value, schema: &Value, root: &Value, at: &str) -> Option<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let target = root.pointer(name.trim_start_matches('#'));
        return match target {
            Some(target) => differs(value, target, root, at),
            None => Some(format!("{name} is nowhere in the schema")),
        };
    }
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some(other) => return Some(format!("the schema has a type {other}")),
        None => true,
    };
    if !fits {
        return Some(format!("{at} is not of type {}", schema["type"]));
    }
    if let (Some(least), Some(number)) = (schema["minimum"].as_f64(), value.as_f64())
        && number < least
    {
        return Some(format!("{at} is below {least}"));
    }
    if let Some(object) = value.as_object() {
        let known = |key: &str| schema["properties"].get(key);
        for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(key) {
                return Some(format!("{at} lacks {key}"));
            }
        }
        for (key, inner) in object {
            let at = format!("{at}.{key}");
            match (known(key), &schema["additionalProperties"]) {
                (Some(schema), _) | (None, schema @ Value::Object(_)) => {
                    if let Some(found) = differs(inner, schema, root, &at) {
                        return Some(found);
                    }
                }
                (None, Value::Bool(false)) => return Some(format!("{at} is unknown")),
                (None, _) => {}
            }
        }
    }
    let mut items = value.as_array().into_iter().flatten().enumerate();
    items.find_map(|(index, item)| differs(item, &schema["items"], root, &format!("{at}[{index}]")))
}
