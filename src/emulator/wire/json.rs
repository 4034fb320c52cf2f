//! JSON as Google reads it (names in camelCase or snake_case, one element in place of an array) and as Google writes
//! it.

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::errors::ApiError;

/// Parses a body that has to be a JSON object.
pub(crate) fn json_object(body: &[u8]) -> Result<Value, ApiError> {
    match serde_json::from_slice(body) {
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(_) => Err(ApiError::invalid_argument(
            "Invalid JSON payload received. Unknown name \"\": Root element must be a message.",
        )),
        Err(error) => Err(malformed(body, &error)),
    }
}

fn malformed(body: &[u8], error: &serde_json::Error) -> ApiError {
    let before: usize = body.split_inclusive(|byte| *byte == b'\n').take(error.line() - 1).map(<[u8]>::len).sum();
    ApiError::malformed_json(body, before + error.column().saturating_sub(1), error.is_eof())
}

/// Returns the member of an object under either spelling of its name; a null counts as absent.
pub(crate) fn member<'a>(value: &'a Value, camel: &str, snake: &str) -> Option<&'a Value> {
    value.get(camel).or_else(|| value.get(snake)).filter(|value| !value.is_null())
}

/// Returns the elements of a repeated member; none if it is absent.
pub(crate) fn elements_of<'a>(value: &'a Value, camel: &str, snake: &str) -> &'a [Value] {
    member(value, camel, snake).map_or(&[], elements)
}

/// Returns the elements of an array, or the value itself as the only element.
pub(crate) fn elements(value: &Value) -> &[Value] {
    match value {
        Value::Array(values) => values,
        Value::Null => &[],
        one => std::slice::from_ref(one),
    }
}

/// Writes JSON indented by two spaces, as Google's front end does.
pub(crate) fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// Writes JSON on one line.
pub(crate) fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Ends the text with a line feed, as bodies in one piece end.
pub(crate) fn with_line_end(json: String) -> Bytes {
    (json + "\n").into()
}
