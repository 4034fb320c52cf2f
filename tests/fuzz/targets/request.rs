//! Reads a request's body: what is refused is not JSON, and what is found stands in it.
//!
//! The input is the body.

#![no_main]

use std::fmt;

use libfuzzer_sys::fuzz_target;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use tower_gemini::fuzzing;

const CONTENTS: [&str; 6] = ["contents", "messages", "content", "input", "prompt", "instances"];

fuzz_target!(|body: &[u8]| {
    let mut strings = Vec::new();
    let mut json = serde_json::Deserializer::from_slice(body);
    let is_json = Strings(&mut strings).deserialize(&mut json).and_then(|()| json.end()).is_ok();
    match fuzzing::request(body) {
        Err(Some((message, line, column))) => {
            assert!(!is_json, "refused: {message}");
            assert!(message.len() < 100 && line > 0 && column <= body.len(), "{message} {line} {column}");
        }
        Err(None) => {}
        Ok((texts, has_contents, limit)) => {
            // Skipped values and base64 are read less closely.
            if !is_json {
                return;
            }
            texts.iter().for_each(|text| assert!(strings.contains(text), "{text:?} is nowhere in it"));
            let has_any = strings.iter().any(|key| CONTENTS.contains(&key.as_str()));
            assert!(has_any || !has_contents, "contents out of nothing");
            if let Some((tokens, at)) = limit {
                let number = std::str::from_utf8(&body[at]).expect("a number").trim_matches('"');
                assert_eq!(number.parse::<f64>().expect("a number") as i64 as f64, tokens as f64, "{number}");
            }
        }
    }
});

/// A collector of all keys and strings, those of a key that comes twice included.
struct Strings<'s>(&'s mut Vec<String>);

impl<'de> DeserializeSeed<'de> for Strings<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strings<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key()? {
            self.0.push(key);
            map.next_value_seed(Strings(self.0))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Strings(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.0.push(text.to_owned());
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}
