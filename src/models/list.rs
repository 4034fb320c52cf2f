//! Reads one page of `GET …/models`.
//!
//! A member that is missing or of another type than expected is unknown, and an entry without a readable name is left
//! out. But where it is open whether the list is whole, the page cannot be read.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Methods, Model, Source, nearest::MAX_NAME, seed};

/// The most models on one list. Google lists fewer than a hundred.
pub(super) const MAX_MODELS: usize = 2_048;

/// The longest `nextPageToken` that is sent back, in bytes.
const MAX_TOKEN: usize = 2_048;

/// The content of a page.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) models: Vec<Model>,
    pub(super) next: Option<String>,
}

/// Reads a page, or returns why it is not one.
pub(super) fn page(body: &[u8]) -> Result<Page, String> {
    // Serde would read an array as the members in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err("it is not a JSON object".into());
    }
    let members: ModelPage<'_> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if members.error.is_some() {
        return Err("it is an error".into());
    }
    let next = members.next_page_token.unwrap_or_default();
    if next.len() > MAX_TOKEN {
        return Err(format!("its nextPageToken is longer than {MAX_TOKEN} bytes"));
    }
    let models = members.models.0.into_iter().filter_map(model).collect();
    Ok(Page { models, next: Some(next.into_owned()).filter(|token| !token.is_empty()) })
}

fn model(entry: &RawValue) -> Option<Model> {
    let entry: ListEntry<'_> = Some(entry.get()).filter(|json| json.starts_with('{')).and_then(read)?;
    let name = entry.name.and_then(|name| read::<Cow<'_, str>>(name.get()))?;
    let model = Model::new(name).with_source(Source::Listed);
    if model.name().is_empty() || model.name().len() > MAX_NAME {
        return None;
    }
    let input = entry.input_token_limit.and_then(tokens);
    let output = entry.output_token_limit.and_then(tokens);
    let methods = entry.supported_generation_methods.and_then(|methods| read::<Vec<Cow<'_, str>>>(methods.get()));
    let model = input.into_iter().fold(model, Model::with_input_limit);
    let model = output.into_iter().fold(model, Model::with_output_limit);
    let model = methods
        .iter()
        .fold(model, |model, methods| model.with_methods(Methods::of(methods.iter().map(|method| &**method))));
    Some(if seed::shares_limit(model.name()) { model.with_shared_limit() } else { model })
}

/// Reads a limit: a number, or a number in a string, as protobuf writes long ones. Zero means that there is none.
fn tokens(value: &RawValue) -> Option<u64> {
    value.get().trim_matches('"').parse().ok().filter(|tokens| *tokens > 0)
}

fn read<'a, T: Deserialize<'a>>(json: &'a str) -> Option<T> {
    serde_json::from_str(json).ok()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModelPage<'a> {
    #[serde(borrow, default)]
    models: Entries<'a>,
    #[serde(borrow, default)]
    next_page_token: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListEntry<'a> {
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input_token_limit: Option<&'a RawValue>,
    #[serde(borrow, default)]
    output_token_limit: Option<&'a RawValue>,
    #[serde(borrow, default)]
    supported_generation_methods: Option<&'a RawValue>,
}

/// A list of JSON values, which is refused once it has more than [`MAX_MODELS`] elements.
#[derive(Default)]
struct Entries<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(CappedList)
    }
}

/// The visitor that reads [`Entries`].
struct CappedList;

impl<'de> Visitor<'de> for CappedList {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of models")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = elements.next_element()? {
            if entries.len() >= MAX_MODELS {
                return Err(de::Error::custom(format_args!("more than {MAX_MODELS} models")));
            }
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Operation;

    #[test]
    fn a_page_is_read() {
        let body = br#" {"models": [
            {"name": "models/gemini-2.5-pro", "version": "2.5", "inputTokenLimit": 1048576, "outputTokenLimit": 65536,
             "supportedGenerationMethods": ["generateContent", "countTokens", "somethingNew"], "thinking": true},
            {"name": "models/gemini-4-argon", "inputTokenLimit": "1048576"}
        ], "nextPageToken": "a/b+c", "unknown": {"x": []}}"#;
        let page = page(body).unwrap();
        assert_eq!(page.next.as_deref(), Some("a/b+c"));
        let [pro, argon] = &page.models[..] else { panic!("{page:?}") };
        assert_eq!(
            (pro.name(), pro.input_limit(), pro.output_limit()),
            ("gemini-2.5-pro", Some(1_048_576), Some(65_536))
        );
        let methods = pro.methods().unwrap();
        assert!(methods.contains(Operation::GenerateContent) && methods.has_others());
        assert!(!pro.shares_limit() && argon.shares_limit(), "which the list does not say");
        assert_eq!((argon.input_limit(), argon.output_limit(), argon.methods()), (Some(1_048_576), None, None));
    }

    #[test]
    fn what_is_of_another_type_is_unknown() {
        let body = br#"{"models": [
            {"name": "models/a", "inputTokenLimit": -1, "outputTokenLimit": {}, "supportedGenerationMethods": "all"},
            {"name": "models/b", "inputTokenLimit": 0, "outputTokenLimit": null, "supportedGenerationMethods": [1]},
            {"name": 7}, {"name": ""}, {"name": "models/"}, {}, [], ["models/c"], null, 3, "models/d"
        ], "nextPageToken": null}"#;
        let page = page(body).unwrap();
        assert_eq!(page.models, ["a", "b"].map(|name| Model::new(name).with_source(Source::Listed)));
        assert_eq!(page.next, None);
        let long = format!(r#"{{"models": [{{"name": "models/{}"}}]}}"#, "x".repeat(129));
        assert!(super::page(long.as_bytes()).unwrap().models.is_empty());
    }

    #[test]
    fn a_page_that_may_not_be_all_of_it_is_none() {
        for (body, why) in [
            ("", "not a JSON object"),
            ("[]", "not a JSON object"),
            ("[[], null]", "not a JSON object"),
            ("<html>", "not a JSON object"),
            (r#"{"models": [{"name": "a"}"#, "EOF"),
            (r#"{"models": {"name": "a"}}"#, "expected a list of models"),
            (r#"{"models": [], "nextPageToken": 7}"#, "invalid type"),
            (r#"{"models": [], "error": {"code": 503}}"#, "an error"),
        ] {
            let error = page(body.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{body}: {error}");
        }
        let token = format!(r#"{{"nextPageToken": "{}"}}"#, "t".repeat(2_049));
        assert!(page(token.as_bytes()).unwrap_err().contains("2048 bytes"));
        let many = |count| format!(r#"{{"models": [{}]}}"#, vec!["{}"; count].join(","));
        assert!(page(many(MAX_MODELS).as_bytes()).is_ok());
        assert!(page(many(MAX_MODELS + 1).as_bytes()).unwrap_err().contains("more than 2048"));
    }

    proptest::proptest! {
        #[test]
        fn no_body_panics(body in r#"[\[\]{}":, a-e0-9]{0,60}"#) {
            let _ = page(body.as_bytes());
            let _ = page(format!(r#"{{"models": [{body}]}}"#).as_bytes());
            let _ = page(format!(r#"{{"models": [{{"name": "m", "inputTokenLimit": {body}}}]}}"#).as_bytes());
        }
    }
}
