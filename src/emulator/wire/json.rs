//! JSON as Google reads it (names in camelCase or snake_case, one element in place of an array) and as Google writes
//! it.

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

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
