//! The object that says an error, with all that it has, for those who hand it on. Pure.

use serde_json::{Map, Value};

/// Finds the object that says an error: alone, or in a list. Its member `error` is an object, or a text, which is the
/// message.
pub(crate) fn error_object(json: &[u8]) -> Option<Map<String, Value>> {
    let values = match serde_json::from_slice(json).ok()? {
        Value::Array(list) => list,
        value => vec![value],
    };
    values.into_iter().find(says_error).and_then(|value| match value {
        Value::Object(object) => Some(object),
        _ => None,
    })
}

/// Returns whether a value is such an object.
pub(crate) fn says_error(value: &Value) -> bool {
    matches!(value.get("error"), Some(Value::Object(_) | Value::String(_)))
}

/// Takes the members of the error out of the object that says it.
pub(crate) fn take_error(object: &mut Map<String, Value>) -> Map<String, Value> {
    match object.remove("error") {
        Some(Value::Object(error)) => error,
        Some(Value::String(message)) => Map::from_iter([("message".to_owned(), message.into())]),
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_is_found_alone_or_in_a_list() {
        for (json, expected) in [
            (r#"{"error":{"code":1},"x":2}"#, Some(json!({ "code": 1 }))),
            (r#"[{"a":1},3,{"error":{"code":1}}]"#, Some(json!({ "code": 1 }))),
            (r#"{"error":"no"}"#, Some(json!({ "message": "no" }))),
            (r#"{"error":null}"#, None),
            (r#"{"error":[1]}"#, None),
            (r#"{"errors":{}}"#, None),
            ("\"error\"", None),
            ("{\"error\":{", None),
        ] {
            let found = error_object(json.as_bytes()).map(|mut object| Value::Object(take_error(&mut object)));
            assert_eq!(found, expected, "{json}");
        }
    }
}
