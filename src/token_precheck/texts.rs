//! Which texts of a request count.
//!
//! What Google's own local counter counts: of the contents and the system instruction the texts, the names and arguments of
//! function calls, the names and contents of function responses; of function declarations the name, the description and the
//! schemas; the response schema. Of a schema: format, description, each `enum`, each `required`, items, each property's name
//! and schema, the example. Of arguments: all names and all strings. Each text is counted by itself, and the counts are added.
//!
//! What it does not: roles, ids, thought signatures, types, titles, defaults, JSON schemas, numbers, code that was executed,
//! tools that are no functions, and media. The upstream adds a few tokens a turn, and an overhead for tools that is not
//! documented.
//!
//! ```
//! use std::ops::ControlFlow;
//! use tower_gemini::token_precheck::texts;
//!
//! let body = br#"{"contents": [{"role": "user", "parts": [{"text": "Hello!"}, {"inlineData": {"data": "AAAA"}}]}]}"#;
//! let mut found = Vec::new();
//! let seen = texts::read(body, &mut |text: &str| {
//!     found.push(text.to_owned());
//!     ControlFlow::Continue(())
//! })?;
//! assert_eq!(found, ["Hello!"]);
//! assert_eq!((seen.turns(), seen.media()), (1, 1));
//! # Ok::<_, serde_json::Error>(())
//! ```
//!
//! The body is read once, in its own order; no string is copied but those with escapes in them. A member that stands twice
//! counts twice. An object where a list is expected stands for a list of one, as the upstream reads it too.

use std::{fmt, ops::ControlFlow};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Somebody to whom texts are read out.
pub trait TextSink {
    /// Takes a text. A `Break` ends the reading.
    fn text(&mut self, text: &str) -> ControlFlow<()>;
}

impl<F: FnMut(&str) -> ControlFlow<()>> TextSink for F {
    fn text(&mut self, text: &str) -> ControlFlow<()> {
        self(text)
    }
}

/// What was seen of a request besides its texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    turns: u64,
    media: u64,
    functions: u64,
    cached: bool,
    stopped: bool,
}

impl Seen {
    /// How many contents there are, the system instruction included. The upstream adds a few tokens for each.
    pub const fn turns(self) -> u64 {
        self.turns
    }

    /// How many parts hold data or name a file, whose tokens are not in any text.
    pub const fn media(self) -> u64 {
        self.media
    }

    /// How many functions are declared. The upstream adds an overhead for them that is not documented.
    pub const fn functions(self) -> u64 {
        self.functions
    }

    /// Whether the request continues cached content, whose tokens cannot be seen here.
    pub const fn has_cached_content(self) -> bool {
        self.cached
    }

    /// Whether the sink ended the reading, so that the rest was not seen.
    pub const fn is_stopped(self) -> bool {
        self.stopped
    }
}

/// Reads out the texts that count of a request's body: of `generateContent` and its kin, and of `countTokens` with
/// `contents` or with a `generateContentRequest`.
///
/// # Errors
///
/// If the body is not JSON. Texts that stood before the error have been read out.
pub fn read(body: &[u8], sink: &mut impl TextSink) -> Result<Seen, serde_json::Error> {
    let mut walk = Walk { sink, seen: Seen::default() };
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = Value { place: Place::Request, walk: &mut walk }.deserialize(&mut json).and_then(|()| json.end());
    match read {
        Err(_) if walk.seen.stopped => Ok(walk.seen),
        read => read.map(|()| walk.seen),
    }
}

struct Walk<'a, S> {
    sink: &'a mut S,
    seen: Seen,
}

impl<S: TextSink> Walk<'_, S> {
    fn text<E: serde::de::Error>(&mut self, text: &str) -> Result<(), E> {
        match self.sink.text(text) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                self.seen.stopped = true;
                Err(E::custom("the sink has had enough"))
            }
        }
    }
}

/// Where in a request a value stands. A list stands where its elements do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Request,
    Content,
    Part,
    FunctionCall,
    FunctionResponse,
    Tool,
    Declaration,
    GenerationConfig,
    Schema,
    /// Names of the caller's, each with a schema.
    Properties,
    /// Names and values of the caller's.
    Free,
    Text,
    Media,
    Cached,
    Ignored,
}

impl Place {
    /// Where the value of this member stands.
    fn member(self, name: &str) -> Self {
        match (self, name) {
            (Self::Request, "contents" | "systemInstruction" | "system_instruction") => Self::Content,
            (Self::Request, "tools") => Self::Tool,
            (Self::Request, "generationConfig" | "generation_config") => Self::GenerationConfig,
            (Self::Request, "generateContentRequest" | "generate_content_request") => Self::Request,
            (Self::Request, "cachedContent" | "cached_content") => Self::Cached,
            (Self::Content, "parts") => Self::Part,
            (Self::Part, "text") => Self::Text,
            (Self::Part, "functionCall" | "function_call") => Self::FunctionCall,
            (Self::Part, "functionResponse" | "function_response") => Self::FunctionResponse,
            (Self::Part, "inlineData" | "inline_data" | "fileData" | "file_data") => Self::Media,
            (Self::FunctionCall | Self::FunctionResponse, "name") => Self::Text,
            (Self::FunctionCall, "args") | (Self::FunctionResponse, "response") => Self::Free,
            (Self::Tool, "functionDeclarations" | "function_declarations") => Self::Declaration,
            (Self::Declaration, "name" | "description") => Self::Text,
            (Self::Declaration, "parameters" | "response") => Self::Schema,
            (Self::GenerationConfig, "responseSchema" | "response_schema") => Self::Schema,
            (Self::Schema, "format" | "description" | "enum" | "required") => Self::Text,
            (Self::Schema, "items") => Self::Schema,
            (Self::Schema, "properties") => Self::Properties,
            (Self::Schema, "example") => Self::Free,
            (Self::Properties, _) => Self::Schema,
            (Self::Free, _) => Self::Free,
            _ => Self::Ignored,
        }
    }
}

struct Value<'w, 'a, S> {
    place: Place,
    walk: &'w mut Walk<'a, S>,
}

impl<'de, S: TextSink> DeserializeSeed<'de> for Value<'_, '_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        match self.place {
            Place::Ignored => json.deserialize_ignored_any(IgnoredAny).map(drop),
            _ => json.deserialize_any(self),
        }
    }
}

impl<'de, S: TextSink> Visitor<'de> for Value<'_, '_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a part of a request")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let (place, walk) = (self.place, self.walk);
        match place {
            Place::Content => walk.seen.turns += 1,
            Place::Declaration => walk.seen.functions += 1,
            Place::Media => walk.seen.media += 1,
            _ => {}
        }
        while let Some(place) = members.next_key_seed(Name { place, walk })? {
            members.next_value_seed(Value { place, walk })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let (place, walk) = (self.place, self.walk);
        while elements.next_element_seed(Value { place, walk })?.is_some() {}
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        match self.place {
            Place::Text | Place::Free => self.walk.text(text),
            Place::Cached => {
                self.walk.seen.cached = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A member's name: a text where names are the caller's, and the way to its value.
struct Name<'w, 'a, S> {
    place: Place,
    walk: &'w mut Walk<'a, S>,
}

impl<'de, S: TextSink> DeserializeSeed<'de> for Name<'_, '_, S> {
    type Value = Place;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Place, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de, S: TextSink> Visitor<'de> for Name<'_, '_, S> {
    type Value = Place;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Place, E> {
        if matches!(self.place, Place::Properties | Place::Free) {
            self.walk.text(name)?;
        }
        Ok(self.place.member(name))
    }
}
