//! Lists with the things of one caller: the others are cut out, and all else stays byte for byte.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Value, value::RawValue};
use tower_gemini::resource::{Resource, described};

/// Cuts what does not belong to a caller out of a page of a list. `is_own` says what does. `None`: it cannot be read.
pub(crate) fn own_part(page: &[u8], collection: &'static str, is_own: impl Fn(&Resource) -> bool) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(page).ok()?;
    let keeps = |item: &RawValue| is_kept(item, collection, &is_own);
    let mut cuts = Vec::new();
    if text.trim_start().starts_with('[') {
        cut_items(text, text, &keeps, &mut cuts)?;
        return Some(without(text, &cuts));
    }
    let Members(members) = serde_json::from_str(text).ok()?;
    // OpenAI's pages say which are the first and the last.
    let (mut first, mut last) = (None, None);
    for (_, value) in &members {
        if value.get().starts_with('[')
            && let Some((from, to)) = cut_items(text, value.get(), &keeps, &mut cuts)?
        {
            first.get_or_insert(from);
            last = Some(to);
        }
    }
    for (name, value) in &members {
        let item = match &**name {
            "first_id" => &first,
            "last_id" => &last,
            _ => continue,
        };
        let id = item.as_deref().map_or_else(|| "null".to_owned(), |id| Value::from(id).to_string());
        let at = offset(text, value.get());
        cuts.push((at, at + value.get().len(), id));
    }
    cuts.sort_unstable();
    Some(without(text, &cuts))
}

/// A piece of a text to be cut out, and what comes in its place.
type Cut = (usize, usize, String);

/// Cuts the items of an array that are not kept. Returns the ids of the first and the last one that are, if they have ids.
/// The outer `None`: the array cannot be read.
fn cut_items(
    text: &str,
    array: &str,
    keeps: &impl Fn(&RawValue) -> bool,
    cuts: &mut Vec<Cut>,
) -> Option<Option<(String, String)>> {
    let items: Vec<&RawValue> = serde_json::from_str(array).ok()?;
    let place = |item: &RawValue| {
        let at = offset(text, item.get());
        (at, at + item.get().len())
    };
    let (mut ends, mut kept): (Option<(String, String)>, Option<usize>) = (None, None);
    for (nth, item) in items.iter().enumerate() {
        let (from, to) = place(item);
        if keeps(item) {
            kept = Some(nth);
            if let Some(id) = id(item) {
                ends = Some((ends.map_or_else(|| id.clone(), |(first, _)| first), id));
            }
        } else {
            // With the comma and the space between it and the next one; the last with those before it.
            match items.get(nth + 1) {
                Some(next) => cuts.push((from, place(next).0, String::new())),
                None => {
                    let begin = kept.map_or(from, |kept| place(items[kept]).1);
                    // The ones between have been cut already, up to this one.
                    while kept.is_some() && cuts.last().is_some_and(|(at, ..)| *at >= begin) {
                        cuts.pop();
                    }
                    cuts.push((begin, to, String::new()));
                }
            }
        }
    }
    Some(ends)
}

/// Returns whether an item stays: one that is nobody's thing in particular, as a warning in words, or the caller's own.
fn is_kept(item: &RawValue, collection: &'static str, is_own: &impl Fn(&Resource) -> bool) -> bool {
    match serde_json::from_str(item.get()) {
        Ok(item @ Value::Object(_)) => {
            let mut subjects = described(&item, Some(collection)).into_iter().filter(|found| found.is_subject);
            subjects.next().is_some_and(|found| is_own(&found.resource))
        }
        Ok(Value::String(text)) => Resource::in_name(&text).is_none_or(|resource| is_own(&resource)),
        Ok(Value::Array(_)) | Err(_) => false,
        Ok(_) => true,
    }
}

fn id(item: &RawValue) -> Option<String> {
    let item: Value = serde_json::from_str(item.get()).ok()?;
    item.get("id")?.as_str().map(str::to_owned)
}

/// Returns the place of a part of a text in it.
fn offset(text: &str, part: &str) -> usize {
    part.as_ptr().addr() - text.as_ptr().addr()
}

fn without(text: &str, cuts: &[Cut]) -> Vec<u8> {
    let (mut left, mut at) = (Vec::with_capacity(text.len()), 0);
    for (from, to, instead) in cuts {
        left.extend_from_slice(&text.as_bytes()[at..*from]);
        left.extend_from_slice(instead.as_bytes());
        at = *to;
    }
    left.extend_from_slice(&text.as_bytes()[at..]);
    left
}

/// The members of an object in their order, those with the same name too: none may hide another.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;

        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(page: &str, collection: &'static str) -> Option<String> {
        let is_own = |thing: &Resource| thing.as_str().rsplit('/').next().is_some_and(|id| id.starts_with("own"));
        own_part(page.as_bytes(), collection, is_own).map(|left| String::from_utf8(left).unwrap())
    }

    #[test]
    fn a_list_keeps_the_callers_own_things_and_every_other_byte() {
        let item = |id: &str| format!("{{ \"name\": \"files/{id}\" , \"sizeBytes\":\"1\"}}");
        let list = |ids: &[&str]| {
            let items: Vec<_> = ids.iter().map(|id| item(id)).collect();
            format!("{{\n  \"files\": [ {} ],\n \"nextPageToken\" : \"CgZ\\u0041\"\n}}\n", items.join(" ,\n"))
        };
        for (all, kept) in [
            (&["own1"][..], &["own1"][..]),
            (&["own1", "x", "own2"], &["own1", "own2"]),
            (&["x", "own1"], &["own1"]),
            (&["x", "y", "own1"], &["own1"]),
            (&["own1", "x"], &["own1"]),
            (&["own1", "x", "y", "z"], &["own1"]),
            (&["own1", "x", "own2", "y", "z"], &["own1", "own2"]),
        ] {
            assert_eq!(own(&list(all), "files").as_deref(), Some(&*list(kept)), "{all:?}");
        }
        for none in [&["x"][..], &["x", "y"], &["x", "y", "z"]] {
            let left = own(&list(none), "files").unwrap();
            let left: Value = serde_json::from_str(&left).unwrap();
            assert_eq!(left, serde_json::json!({ "files": [], "nextPageToken": "CgZA" }));
        }
    }

    #[test]
    fn every_shape_of_a_list_is_read() {
        for (collection, page, left) in [
            (
                "batches",
                r#"{"operations":[{"name":"batches/x"},{"name":"batches/own"}]}"#,
                r#"{"operations":[{"name":"batches/own"}]}"#,
            ),
            (
                "operations",
                r#"{"operations":[{"name":"models/m/operations/own"},{"name":"models/m/operations/x"}]}"#,
                r#"{"operations":[{"name":"models/m/operations/own"}]}"#,
            ),
            (
                "agents",
                r#"{"agents":[{"id":"x","name":"own"},{"id":"own","name":"x"}]}"#,
                r#"{"agents":[{"id":"own","name":"x"}]}"#,
            ),
            (
                "files",
                r#"{"object":"list","data":[{"id":"x"},{"id":"own1"},{"id":"own2"},{"id":"y"}],"first_id":"x","last_id":"y","has_more":true}"#,
                r#"{"object":"list","data":[{"id":"own1"},{"id":"own2"}],"first_id":"own1","last_id":"own2","has_more":true}"#,
            ),
            (
                "files",
                r#"{"data":[{"id":"x"}],"first_id":"x","last_id":"x"}"#,
                r#"{"data":[],"first_id":null,"last_id":null}"#,
            ),
            (
                "files",
                r#"{"files":[{"name":"files/x"}],"files":[{"name":"files/own"},{"name":"files/y"}]}"#,
                r#"{"files":[],"files":[{"name":"files/own"}]}"#,
            ),
            ("files", r#"[{"name":"files/x"},{"name":"files/own"}]"#, r#"[{"name":"files/own"}]"#),
            (
                "files",
                r#"{"files":[{"uri":"https://h/v1/files/own"},{}],"unreachable":["files/x","zone"]}"#,
                r#"{"files":[],"unreachable":["zone"]}"#,
            ),
            ("files", "{}", "{}"),
        ] {
            assert_eq!(own(page, collection).as_deref(), Some(left));
        }
        for unread in ["", "not json", "{", r#"{"files":["#, "cb({})", "\"files/x\""] {
            assert_eq!(own(unread, "files"), None, "{unread}");
        }
    }
}
