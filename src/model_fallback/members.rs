//! A JSON object as it stands in a body: reads its members, and cuts some of them out without touching another byte.

use std::{borrow::Cow, fmt, ops::Range};

use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// The members of an object, in their order. Any other value has none.
#[derive(Default)]
pub(super) struct ObjectMembers<'a> {
    /// The object, from the opening brace to the closing one.
    text: &'a str,
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> ObjectMembers<'a> {
    /// Reads the members of a whole body. `None`: the body is not a JSON object in UTF-8.
    pub(super) fn of_body(body: &'a [u8]) -> Option<Self> {
        let raw: &RawValue = serde_json::from_slice(body).ok()?;
        let members = Self::of(raw.get());
        (!members.text.is_empty()).then_some(members)
    }

    /// Reads the members of a value.
    pub(super) fn of(value: &'a str) -> Self {
        if !value.starts_with('{') {
            return Self::default();
        }
        serde_json::from_str(value).map_or_else(|_| Self::default(), |Read(members)| Self { text: value, members })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.members.iter().map(|(name, value)| (&**name, value.get()))
    }

    /// Returns the value of the first member that has one of these names.
    pub(super) fn value(&self, names: &[&str]) -> Option<&'a str> {
        self.iter().find(|(name, _)| names.contains(name)).map(|(_, value)| value)
    }

    /// Reads the members of the member of that name.
    pub(super) fn inner(&self, names: &[&str]) -> Self {
        self.value(names).map_or_else(Self::default, Self::of)
    }

    /// Returns the elements of the member of that name.
    pub(super) fn elements(&self, names: &[&str]) -> Vec<&'a str> {
        self.value(names).map_or_else(Vec::new, elements)
    }
}

/// Returns the elements of an array. Any other value has none.
fn elements(value: &str) -> Vec<&str> {
    let raw: Vec<&RawValue> = serde_json::from_str(value).unwrap_or_default();
    raw.into_iter().map(RawValue::get).collect()
}

/// The members to cut out of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cuts {
    /// The address of the body in memory: its members are slices of it.
    body: usize,
    ranges: Vec<Range<usize>>,
}

impl Cuts {
    pub(super) fn of(body: &[u8]) -> Self {
        Self { body: body.as_ptr() as usize, ranges: Vec::new() }
    }

    /// Cuts members out of one object, with the commas that it no longer needs. Returns whether there were any. Must be
    /// called once for each object.
    pub(super) fn cut(&mut self, members: &ObjectMembers<'_>, is_cut: impl Fn(&str, &str) -> bool) -> bool {
        let start = (members.text.as_ptr() as usize).saturating_sub(self.body);
        let (cuts_before, mut from, mut kept) = (self.ranges.len(), start + 1, false);
        for (name, value) in members.iter() {
            let end = (value.as_ptr() as usize).saturating_sub(self.body) + value.len();
            if !is_cut(name, value) {
                (from, kept) = (end, true);
                continue;
            }
            // The comma before it goes with it, or the one behind it where nothing is before it.
            let behind = members.text[end - start..].trim_ascii_start();
            let comma = behind.strip_prefix(',').filter(|_| !kept);
            let to = comma.map_or(end, |rest| start + members.text.len() - rest.len());
            self.ranges.push(from..to);
            from = to;
        }
        self.ranges.len() > cuts_before
    }

    /// Returns the body without the members, every other byte as it was.
    pub(super) fn apply(mut self, body: &[u8]) -> Vec<u8> {
        self.ranges.sort_by_key(|range| range.start);
        let (mut left, mut from) = (Vec::with_capacity(body.len()), 0);
        for range in self.ranges {
            left.extend_from_slice(body.get(from..range.start).unwrap_or_default());
            from = range.end;
        }
        left.extend_from_slice(body.get(from..).unwrap_or_default());
        left
    }
}

/// The members, as they are read.
struct Read<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// A name, borrowed where nothing in it is escaped.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Read<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(ObjectVisitor).map(Read)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn without(body: &str, cut: &[&str]) -> String {
        let mut cuts = Cuts::of(body.as_bytes());
        cuts.cut(&ObjectMembers::of_body(body.as_bytes()).unwrap(), |name, _| cut.contains(&name));
        String::from_utf8(cuts.apply(body.as_bytes())).unwrap()
    }

    #[test]
    fn a_member_goes_with_its_comma_and_nothing_else() {
        let body = r#" { "a": 1 , "b" : [2, "},"],
            "c":{"a":1e400}} "#;
        assert_eq!(without(body, &[]), body);
        assert_eq!(without(body, &["a"]), " { \"b\" : [2, \"},\"],\n            \"c\":{\"a\":1e400}} ");
        assert_eq!(without(body, &["b"]), " { \"a\": 1,\n            \"c\":{\"a\":1e400}} ");
        assert_eq!(without(body, &["c"]), r#" { "a": 1 , "b" : [2, "},"]} "#);
        assert_eq!(without(body, &["a", "b"]), " {\n            \"c\":{\"a\":1e400}} ");
        assert_eq!(without(body, &["a", "b", "c"]), " {} ");
    }

    #[test]
    fn what_is_no_object_has_no_members() {
        for body in ["", "[1]", "\"a\"", "{", "{}x", "null", "{\"a\":1}}"] {
            assert!(ObjectMembers::of_body(body.as_bytes()).is_none(), "{body}");
        }
        assert!(ObjectMembers::of_body(b"\xff{}").is_none());
        assert!(elements("{}").is_empty() && elements("1").is_empty());
        assert_eq!(elements("[1, {\"a\": [2]}]"), ["1", "{\"a\": [2]}"]);
    }

    proptest! {
        #[test]
        fn what_is_left_is_the_rest_of_the_json(
            names in prop::collection::hash_set("[a-f]{1,2}", 0..8),
            space in "[ \n]{0,2}",
            cut in prop::collection::vec("[a-f]{1,2}", 0..8),
        ) {
            let members: Vec<_> = names.iter().map(|name| format!("{space}\"{name}\"{space}:{space}[1,2]{space}")).collect();
            let body = format!("{space}{{{}}}{space}", members.join(","));
            let cut: Vec<_> = cut.iter().map(String::as_str).collect();
            let mut expected: Value = serde_json::from_str(&body).unwrap();
            expected.as_object_mut().unwrap().retain(|name, _| !cut.contains(&&**name));
            let left: Value = serde_json::from_str(&without(&body, &cut)).unwrap();
            prop_assert_eq!(left, expected);
        }
    }
}
