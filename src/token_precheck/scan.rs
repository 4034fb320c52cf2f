//! One pass over a request's body: which texts count, what media it holds, and what the room has to judge.
//!
//! Nothing of the body is copied and no tree is built: a visitor walks the JSON and knows at each moment at which
//! [`Place`] it stands. Which texts count is the rule of Google's own local tokenizer: contents (texts, function calls and
//! responses), the declarations of functions, the response schema and the system instruction. A dictionary gives its keys
//! and its values; of a schema, format, description, enum, required, items, properties and example count.

use std::{fmt, ops::Range};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{malformed::unread, media::Media};

/// Whoever hears the texts that count, in the order of the body.
pub(crate) trait Listener {
    /// One text. `false`: enough is known, nothing more need be read.
    fn hear(&mut self, text: &str) -> bool;
}

/// What the body holds besides its texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    pub(crate) contents: Contents,
    pub(crate) media: Media,
    pub(crate) max_output: Option<MaxOutput>,
    /// Cached content counts as input, and stands elsewhere.
    pub(crate) has_cached_content: bool,
    /// Functions, searches and the like: the upstream adds tokens for them that nobody has published.
    pub(crate) has_tools: bool,
    /// A `model` beside the contents.
    pub(crate) names_model: bool,
    /// Contents or messages: the upstream adds a few tokens for each.
    pub(crate) turns: u64,
}

/// Whether there is anything to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contents {
    /// No such field.
    #[default]
    Missing,
    /// A field with nothing in it.
    Empty,
    Present,
}

/// How many output tokens are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MaxOutput {
    pub(crate) tokens: i64,
    /// Where in the body the number stands.
    pub(crate) at: Range<usize>,
}

/// Why a body could not be read.
#[derive(Debug)]
pub(crate) enum Unread {
    /// It is certainly no JSON: what is wrong, and where.
    Malformed { message: String, line: usize, column: usize },
    /// It is no JSON by the book; the upstream may take it.
    Odd,
    /// The listener has heard enough.
    Enough,
    /// It is nested too deep to be read here; the upstream may take it.
    TooDeep,
}

/// Walks a body, and tells the listener what counts.
pub(crate) fn scan(body: &[u8], listener: &mut dyn Listener) -> Result<Findings, Unread> {
    let begins = body.as_ptr() as usize;
    let mut walk = Walk { findings: Findings::default(), listener, enough: false, begins };
    let mut json = serde_json::Deserializer::from_slice(body);
    let walked = At { walk: &mut walk, place: Place::Request }.deserialize(&mut json).and_then(|()| json.end());
    match walked {
        Ok(()) => Ok(walk.findings),
        Err(_) if walk.enough => Err(Unread::Enough),
        Err(error) => Err(unread(body, &error)),
    }
}

struct Walk<'l> {
    findings: Findings,
    listener: &'l mut dyn Listener,
    enough: bool,
    /// The address of the body, to know where in it something stands.
    begins: usize,
}

/// The key behind which serde_json hides a number, in programs that turn on its `arbitrary_precision`.
const NUMBER: &str = "$serde_json::private::Number";

impl Walk<'_> {
    /// Something stands here that the upstream may take for content.
    fn is_content(&mut self, place: Place) {
        if matches!(place, Place::Contents | Place::Content | Place::Parts | Place::Part) {
            self.findings.contents = Contents::Present;
        }
    }

    fn hear<E: serde::de::Error>(&mut self, text: &str) -> Result<(), E> {
        if self.listener.hear(text) {
            return Ok(());
        }
        self.enough = true;
        Err(E::custom("enough"))
    }

    fn max_output(&mut self, raw: &str) {
        // proto3's JSON takes numbers in quotes, and whole numbers with a point.
        let text = raw.trim_matches('"');
        let float = || text.parse().ok().filter(|tokens: &f64| tokens.is_finite()).map(|tokens| tokens as i64);
        let Some(tokens) = text.parse().ok().or_else(float) else { return };
        let Some(start) = (raw.as_ptr() as usize).checked_sub(self.begins) else { return };
        self.findings.max_output = Some(MaxOutput { tokens, at: start..start + raw.len() });
    }
}

/// Where in a request a value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The whole body, or a request in a wrapper around it.
    Request,
    /// `requests` of a batch.
    Requests,
    /// A list of contents or messages, or what an embedding is made of.
    Contents,
    Content,
    System,
    Parts,
    Part,
    FunctionCall,
    FunctionResponse,
    /// A blob in base64, or a reference to one: `inlineData`, `fileData`, `input_audio`.
    Blob,
    BlobType,
    BlobData,
    /// An image by its URL, which may hold it.
    ImageUrl,
    Tools,
    Tool,
    Declarations,
    Declaration,
    Schema,
    Properties,
    Property,
    Generation,
    MaxOutput,
    ToolCalls,
    ToolCall,
    Cached,
    Model,
    /// Every key and every string in it counts.
    Dictionary,
    /// A text that counts, or a list of such texts.
    Text,
    /// Who speaks: of itself, that says nothing.
    Speaker,
    Ignored,
}

impl Place {
    /// Where the value of a key stands. Names come in camel case and in snake case.
    fn of(self, key: &str) -> Self {
        match (self, key) {
            (Self::Request, "contents" | "messages" | "content" | "input" | "prompt" | "instances") => Self::Contents,
            (Self::Request, "generateContentRequest" | "generate_content_request") => Self::Request,
            (Self::Request, "requests") => Self::Requests,
            (Self::Request, "model") => Self::Model,
            (Self::Request, "systemInstruction" | "system_instruction") => Self::System,
            (Self::Request, "tools") => Self::Tools,
            (Self::Request, "generationConfig" | "generation_config") => Self::Generation,
            (Self::Request, "max_tokens" | "max_completion_tokens") => Self::MaxOutput,
            (Self::Request, "cachedContent" | "cached_content") => Self::Cached,

            (Self::Contents | Self::Content | Self::System, "parts" | "content") => Self::Parts,
            (Self::Contents | Self::Content, "tool_calls") => Self::ToolCalls,
            (Self::Contents | Self::Content, "role" | "name") => Self::Speaker,
            (Self::Parts | Self::Part | Self::Contents | Self::Content | Self::System, "text") => Self::Text,
            (Self::Parts | Self::Part, "functionCall" | "function_call") => Self::FunctionCall,
            (Self::Parts | Self::Part, "functionResponse" | "function_response") => Self::FunctionResponse,
            (Self::Parts | Self::Part, "inlineData" | "inline_data" | "fileData" | "file_data" | "input_audio") => {
                Self::Blob
            }
            (Self::Parts | Self::Part, "image_url") => Self::ImageUrl,

            (Self::FunctionCall | Self::FunctionResponse | Self::Declarations | Self::Declaration, "name") => {
                Self::Text
            }
            (Self::FunctionCall, "args") | (Self::FunctionResponse, "response") => Self::Dictionary,
            (Self::FunctionCall, "arguments") => Self::Text,
            (Self::ToolCall, "function") => Self::FunctionCall,

            (Self::Blob, "mimeType" | "mime_type" | "format") => Self::BlobType,
            (Self::Blob, "data") => Self::BlobData,
            (Self::ImageUrl, "url") => Self::ImageUrl,

            (Self::Tools | Self::Tool, "functionDeclarations" | "function_declarations") => Self::Declarations,
            (Self::Tools | Self::Tool, "function") => Self::Declaration,
            (Self::Declarations | Self::Declaration, "description") => Self::Text,
            (Self::Declarations | Self::Declaration, "parameters" | "response") => Self::Schema,

            (Self::Schema | Self::Property, "format" | "description" | "enum" | "required") => Self::Text,
            (Self::Schema | Self::Property, "items") => Self::Schema,
            (Self::Schema | Self::Property, "properties") => Self::Properties,
            (Self::Schema | Self::Property, "example") => Self::Dictionary,
            (Self::Properties, _) => Self::Property,

            (Self::Generation, "maxOutputTokens" | "max_output_tokens") => Self::MaxOutput,
            (Self::Generation, "responseSchema" | "response_schema") => Self::Schema,

            (Self::Dictionary, _) => Self::Dictionary,
            _ => Self::Ignored,
        }
    }

    /// Where an element of a list stands.
    fn element(self) -> Self {
        match self {
            Self::Requests => Self::Request,
            Self::Contents => Self::Content,
            Self::Parts => Self::Part,
            Self::Tools => Self::Tool,
            Self::Declarations => Self::Declaration,
            Self::ToolCalls => Self::ToolCall,
            Self::Dictionary | Self::Text | Self::Schema => self,
            _ => Self::Ignored,
        }
    }

    /// Whether a string that stands here counts.
    fn is_text(self) -> bool {
        matches!(
            self,
            Self::Text | Self::Dictionary | Self::Contents | Self::Content | Self::System | Self::Parts | Self::Part
        )
    }

    /// Whether the keys count too.
    fn counts_keys(self) -> bool {
        matches!(self, Self::Dictionary | Self::Properties)
    }
}

/// A value at its place.
struct At<'w, 'l> {
    walk: &'w mut Walk<'l>,
    place: Place,
}

impl<'de> DeserializeSeed<'de> for At<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.place {
            // Nobody looks at it: it is skipped at the reader's own pace.
            Place::Ignored | Place::Speaker => deserializer.deserialize_ignored_any(IgnoredAny).map(drop),
            // Base64 is ASCII: nobody need check that it is UTF-8.
            Place::BlobData => deserializer.deserialize_bytes(self),
            Place::MaxOutput => {
                self.walk.max_output(<&RawValue>::deserialize(deserializer)?.get());
                Ok(())
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for At<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { walk, place } = self;
        match place {
            // Content that is not in a list is one all the same.
            Place::Content | Place::Contents | Place::System => walk.findings.turns += 1,
            Place::Tool | Place::Tools => walk.findings.has_tools = true,
            Place::Blob => walk.findings.media.begin(),
            _ => {}
        }
        while let Some(next) = map.next_key_seed(Key { walk, place })? {
            walk.findings.names_model |= next == Place::Model;
            if place == Place::Request && next == Place::Contents {
                walk.findings.contents = walk.findings.contents.max(Contents::Empty);
            }
            // Of a kind that is not known here, perhaps.
            if !matches!(next, Place::Parts | Place::Speaker) {
                walk.is_content(place);
            }
            let contents = walk.findings.contents;
            map.next_value_seed(At { walk, place: next })?;
            if next == Place::System {
                // What the system says is nothing to answer.
                walk.findings.contents = contents;
            }
        }
        if place == Place::Blob {
            walk.findings.media.end();
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let place = self.place.element();
        while seq.next_element_seed(At { walk: self.walk, place })?.is_some() {
            // Any part is one, and a list in place of a content holds the numbers of tokens.
            if matches!(self.place, Place::Parts | Place::Content) {
                self.walk.findings.contents = Contents::Present;
            }
        }
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        let Self { walk, place } = self;
        match place {
            Place::BlobType => walk.findings.media.mime_type(text),
            Place::ImageUrl => walk.findings.media.image_url(text),
            Place::Cached => walk.findings.has_cached_content |= !text.is_empty(),
            _ if place.is_text() => {
                if !text.is_empty() || place != Place::Contents {
                    walk.is_content(place);
                }
                walk.hear(text)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn visit_bytes<E: serde::de::Error>(self, data: &[u8]) -> Result<(), E> {
        if self.place == Place::BlobData {
            self.walk.findings.media.data(data);
        }
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.walk.is_content(self.place);
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.walk.is_content(self.place);
        Ok(())
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.walk.is_content(self.place);
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A key, which says where its value stands and may count itself.
struct Key<'w, 'l> {
    walk: &'w mut Walk<'l>,
    place: Place,
}

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = Place;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Place, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_, '_> {
    type Value = Place;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Place, E> {
        if key == NUMBER {
            self.walk.is_content(self.place);
            return Ok(Place::Ignored);
        }
        if self.place.counts_keys() {
            self.walk.hear(key)?;
        }
        Ok(self.place.of(key))
    }
}

#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    use super::*;

    /// What a body holds: its texts, whether there are contents, and where the output limit stands.
    pub fn request(
        body: &[u8],
    ) -> Result<(Vec<String>, bool, Option<(i64, Range<usize>)>), Option<(String, usize, usize)>> {
        struct Heard(Vec<String>);
        impl Listener for Heard {
            fn hear(&mut self, text: &str) -> bool {
                self.0.push(text.to_owned());
                true
            }
        }
        let mut heard = Heard(Vec::new());
        match scan(body, &mut heard) {
            Ok(Findings { contents, max_output, .. }) => {
                let limit = max_output.map(|MaxOutput { tokens, at }| (tokens, at));
                Ok((heard.0, contents == Contents::Present, limit))
            }
            Err(Unread::Malformed { message, line, column }) => Err(Some((message, line, column))),
            Err(_) => Err(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Default)]
    struct Heard(Vec<String>);

    impl Listener for Heard {
        fn hear(&mut self, text: &str) -> bool {
            self.0.push(text.to_owned());
            self.0.len() < 100
        }
    }

    fn scanned(body: &str) -> (Findings, Vec<String>) {
        let mut heard = Heard::default();
        let findings = scan(body.as_bytes(), &mut heard).unwrap();
        (findings, heard.0)
    }

    fn output(findings: &Findings) -> Option<i64> {
        findings.max_output.as_ref().map(|output| output.tokens)
    }

    #[test]
    fn where_the_output_limit_stands() {
        for (body, number) in [
            (r#"{"generationConfig":{"maxOutputTokens": 70000 }}"#, "70000"),
            (r#"{"max_tokens":-1}"#, "-1"),
            (r#"{"max_completion_tokens":5.0}"#, "5.0"),
            (r#"{"generation_config":{"max_output_tokens":"12"}}"#, "\"12\""),
        ] {
            let found = scanned(body).0.max_output.unwrap();
            assert_eq!(
                (&body[found.at], found.tokens.to_string()),
                (number, number.trim_matches('"').replace(".0", ""))
            );
        }
        for body in [
            r#"{"max_tokens":"many"}"#,
            r#"{"max_tokens":null}"#,
            r#"{"max_tokens":{}}"#,
            r#"{"max_tokens":"NaN"}"#,
            "{}",
        ] {
            assert_eq!(scanned(body).0.max_output, None, "{body}");
        }
        let both = r#"{"max_tokens":5,"max_completion_tokens":null}"#;
        assert_eq!(output(&scanned(both).0), Some(5));
    }

    #[test]
    fn the_texts_of_a_request_are_heard_and_nothing_else() {
        let schema = json!({"type": "OBJECT", "title": "no", "description": "d", "required": ["r"], "nullable": true,
            "properties": {"p": {"type": "STRING", "format": "f", "enum": ["e1", "e2"]}, "q": {"items": {"description": "i"}}},
            "example": {"k": "v"}});
        let camel = json!({
            "contents": [
                {"role": "user", "parts": [{"text": "one", "thought": true, "thoughtSignature": "no"}, {"text": "two é\n"}]},
                {"role": "model", "parts": [{"functionCall": {"id": "no", "name": "call", "args": {"a": ["b", {"c": "d"}], "n": 1}}}]},
                {"parts": [{"functionResponse": {"name": "resp", "response": {"x": true, "y": "z"}}}, {"executableCode": {"code": "no"}}]},
            ],
            "tools": [{"functionDeclarations": [{"name": "fn", "description": "desc", "parameters": schema}]}, {"googleSearch": {}}],
            "generationConfig": {"responseSchema": {"description": "rs"}, "maxOutputTokens": 10, "stopSequences": ["no"]},
            "systemInstruction": {"parts": [{"text": "sys"}]},
            "safetySettings": [{"category": "no"}],
        });
        let (findings, heard) = scanned(&camel.to_string());
        let mut sorted = heard.clone();
        sorted.sort_unstable();
        let mut expected = [
            "one", "two é\n", "call", "a", "b", "c", "d", "n", "resp", "x", "y", "z", "fn", "desc", "d", "r", "p", "f",
            "e1", "e2", "q", "i", "k", "v", "rs", "sys",
        ];
        expected.sort_unstable();
        assert_eq!(sorted, expected);
        assert_eq!((findings.contents, findings.turns, findings.has_tools), (Contents::Present, 4, true));
        assert_eq!(output(&findings), Some(10));

        // In snake case, in the wrapper of countTokens, and in a batch of embeddings.
        let snake = json!({"generate_content_request": {"model": "no", "system_instruction": {"parts": [{"text": "s"}]},
            "generation_config": {"max_output_tokens": "7"}, "contents": [{"parts": [{"function_call": {"name": "n"}}]}]}});
        let (findings, mut heard) = scanned(&snake.to_string());
        heard.sort_unstable();
        assert_eq!((heard, output(&findings)), (vec!["n".into(), "s".into()], Some(7)));
        let batch = json!({"requests": [{"model": "no", "content": {"parts": [{"text": "a"}]}}, {"content": {"parts": [{"text": "b"}]}}]});
        assert_eq!(scanned(&batch.to_string()).1, ["a", "b"]);
    }

    #[test]
    fn what_googles_own_counter_counts_is_heard_and_what_it_does_not_is_not() {
        let request = r#"{
            "model": "no", "labels": {"no": "no"}, "safetySettings": [{"category": "no"}], "toolConfig": {"mode": "no"},
            "contents": [
                {"role": "no", "parts": [
                    {"text": "a", "thoughtSignature": "no"},
                    {"functionCall": {"name": "b", "args": {"c": "d", "e": [1, "f", {"g": true}], "h": null}, "id": "no"}},
                    {"function_response": {"name": "i", "response": {"j": "k"}, "parts": [{"text": "no"}]}},
                    {"executableCode": {"code": "no"}}, {"inlineData": {"mimeType": "no", "data": "no"}}
                ]}
            ],
            "tools": [
                {"functionDeclarations": [{"name": "l", "description": "m", "behavior": "no",
                    "parametersJsonSchema": {"title": "no"},
                    "parameters": {"type": "no", "format": "n", "description": "o", "enum": ["p", "q"], "required": ["r"],
                        "title": "no", "default": "no", "propertyOrdering": ["no"], "anyOf": [{"description": "no"}],
                        "items": {"format": "s"}, "properties": {"t": {"description": "u"}}, "example": {"v": "w"}},
                    "response": {"description": "x"}}]},
                {"googleSearch": {"no": "no"}}
            ],
            "generationConfig": {"stopSequences": ["no"], "responseSchema": {"enum": ["y"]},
                "responseJsonSchema": {"no": "no"}},
            "systemInstruction": {"parts": [{"te\u0078t": "\u007a"}]}
        }"#;
        assert_eq!(scanned(request).1.concat(), "abcdefghijklmnopqrstuvwxyz");
        // One object stands for a list of one.
        let bare = r#"{"contents": {"parts": {"text": "a"}}, "tools": {"functionDeclarations": {"name": "b"}}}"#;
        assert_eq!(scanned(bare).1, ["a", "b"]);
        for end in 0..request.trim_end().len() {
            assert!(scan(request.as_bytes().get(..end).unwrap(), &mut Heard::default()).is_err(), "{end}");
        }
    }

    #[test]
    fn the_compatible_surface_is_read_too() {
        let body = json!({"model": "no", "max_tokens": 5, "messages": [
            {"role": "system", "content": "sys"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "https://x/y"}}]},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "no", "function": {"name": "f", "arguments": "{}"}}]},
        ], "tools": [{"type": "function", "function": {"name": "g", "description": "d", "parameters": {"properties": {"p": {}}}}}]});
        let (findings, mut heard) = scanned(&body.to_string());
        heard.sort_unstable();
        assert_eq!(heard, ["d", "f", "g", "hi", "p", "sys", "{}"]);
        assert_eq!((findings.turns, findings.media.uncounted, output(&findings)), (3, 1, Some(5)));
        assert_eq!(scanned(&json!({"input": ["a", "b"]}).to_string()).1, ["a", "b"]);
        assert_eq!(scanned(&json!({"input": "a"}).to_string()).1, ["a"]);
    }

    #[test]
    fn whether_there_is_anything_to_answer() {
        for (body, contents) in [
            ("{}", Contents::Missing),
            (r#"{"contents":[]}"#, Contents::Empty),
            (r#"{"contents":null}"#, Contents::Empty),
            (r#"{"contents":[{"role":"user"}]}"#, Contents::Empty),
            (r#"{"contents":[{"parts":[]}]}"#, Contents::Empty),
            (r#"{"contents":[{"parts":[{"text":"x"}]}]}"#, Contents::Present),
            (r#"{"contents":[{"parts":[{"text":""}]}]}"#, Contents::Present),
            (r#"{"contents":[{"parts":[{"newKind":{}}]}]}"#, Contents::Present),
            (r#"{"contents":{"parts":{"text":"x"}}}"#, Contents::Present),
            (r#"{"contents":"x"}"#, Contents::Present),
            (r#"{"messages":[]}"#, Contents::Empty),
            (r#"{"messages":[{"role":"user","content":"x"}]}"#, Contents::Present),
            (r#"{"input":"x"}"#, Contents::Present),
            (r#"{"content":{"parts":[{"inlineData":{"data":"AA=="}}]}}"#, Contents::Present),
            // What nobody here knows may be content.
            (r#"{"contents":{"parts":{"newKind":{}}}}"#, Contents::Present),
            (r#"{"contents":[{"newParts":[]}]}"#, Contents::Present),
            (r#"{"instances":[{"prompt":"x"}]}"#, Contents::Present),
            (r#"{"messages":[{"role":"assistant","content":null}]}"#, Contents::Empty),
            (r#"{"messages":[{"role":"assistant","name":"n","content":null,"function_call":{}}]}"#, Contents::Present),
            (r#"{"messages":[{"role":"assistant","content":null,"refusal":"no"}]}"#, Contents::Present),
            (r#"{"messages":[{"role":"user","content":""}]}"#, Contents::Present),
            // Tokens in place of texts.
            (r#"{"input":[1,2,3]}"#, Contents::Present),
            (r#"{"input":[[1,2],[3]]}"#, Contents::Present),
            (r#"{"input":""}"#, Contents::Empty),
            (r#"{"contents":[],"systemInstruction":{"parts":[{"text":"x"}]}}"#, Contents::Empty),
        ] {
            assert_eq!(scanned(body).0.contents, contents, "{body}");
        }
    }

    #[test]
    fn numbers_are_not_heard_however_they_are_kept() {
        let kept =
            r#"{"contents":[{"parts":[{"functionCall":{"args":{"n":{"$serde_json::private::Number":"12"}}}}]}]}"#;
        assert_eq!(scanned(kept).1, ["n"]);
    }

    #[test]
    fn what_only_googles_reader_takes_is_odd_and_what_nobody_takes_is_malformed() {
        for odd in [
            "{\"contents\":[1,]}",
            "{\"contents\":[1],}",
            "{'contents':[1]}",
            "{contents:[1]}",
            "{\"contents\":'x'}",
            "{\"contents\":\"a\nb\"}",
            "{\"contents\":\"it\\'s\"}",
            "{\"contents\":\"\\ud83d\"}",
            "{\"contents\":}",
            "{\"contents\":0x1F}",
            "{\"contents\":[1,,2]}",
            "{\"contents\":NaN}",
            "{\"contents\":1e999}",
            "{\"contents\"\u{c}:1}",
            "\u{feff}{}",
            "// comment\n{}",
            "{\"contents\":[{\"parts\":[{\"inlineData\":{\"data\":null}}]}]}",
        ] {
            let read = scan(odd.as_bytes(), &mut Heard::default());
            assert!(matches!(read, Err(Unread::Odd)), "{odd:?}: {read:?}");
        }
        for malformed in [
            "",
            "{",
            "{\"a\":[}",
            "{\"a\":[1,}",
            "{\"a\" 1}",
            "{\"a\":\"b\" \"c\"}",
            "[\"a\"}",
            "{\"a\":[\"b\"}",
            "{}}",
            "{\"a\":\"b",
            "not json",
            "hello",
            "{not json}",
            "{\"a\": hello}",
            "[1 2]",
            "{'a': 'b' 'c'}",
            "{\"a\": 1}}",
            "<html></html>",
            "model=x&prompt=y",
        ] {
            let read = scan(malformed.as_bytes(), &mut Heard::default());
            assert!(matches!(read, Err(Unread::Malformed { .. })), "{malformed:?}: {read:?}");
        }
        assert!(scan(b"{\"a\":\"\xff\"}", &mut Heard::default()).is_ok(), "skipped");
        assert!(matches!(scan(b"{\"contents\":\"\xff\"}", &mut Heard::default()), Err(Unread::Odd)));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let broken = "{\n  \"contents\": [\n    {\"parts\": [}\n  ]\n}";
        let Err(Unread::Malformed { line: 3, column, message }) = scan(broken.as_bytes(), &mut Heard::default()) else {
            panic!()
        };
        assert!(column >= 15 && message.contains("expected") && !message.contains("line"), "{column} {message}");
        assert!(matches!(scan(b"{} x", &mut Heard::default()), Err(Unread::Malformed { line: 1, column: 4, .. })));
        let deep = format!("{{\"contents\":{}{}}}", "[".repeat(300), "]".repeat(300));
        let read = scan(deep.as_bytes(), &mut Heard::default());
        assert!(matches!(read, Ok(_) | Err(Unread::TooDeep)), "{read:?}");
        let many = format!("{{\"contents\":[{{\"parts\":[{}]}}]}}", vec![r#"{"text":"x"}"#; 200].join(","));
        assert!(matches!(scan(many.as_bytes(), &mut Heard::default()), Err(Unread::Enough)));
    }

    /// What a tree of the body says, place by place: slow, and easy to read.
    mod plain {
        use serde_json::Value;

        /// The members of an object that have one of these names.
        fn members<'v>(value: &'v Value, names: &'static [&'static str]) -> impl Iterator<Item = &'v Value> {
            let object = value.as_object().into_iter().flatten();
            object.filter(move |(key, _)| names.contains(&key.as_str())).map(|(_, value)| value)
        }

        /// A list's elements, or the one that is in no list.
        fn each(value: &Value) -> impl Iterator<Item = &Value> {
            let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            list.iter()
        }

        pub(super) fn texts(request: &Value) -> Vec<String> {
            let mut heard = Vec::new();
            for contents in members(request, &["contents"]) {
                each(contents).for_each(|content| said(content, &mut heard));
            }
            members(request, &["systemInstruction"]).for_each(|content| said(content, &mut heard));
            heard.sort_unstable();
            heard
        }

        fn said(content: &Value, heard: &mut Vec<String>) {
            heard.extend(content.as_str().map(str::to_owned));
            members(content, &["text"]).for_each(|text| strings(text, heard));
            for part in members(content, &["parts"]).flat_map(each) {
                heard.extend(part.as_str().map(str::to_owned));
                members(part, &["text"]).for_each(|text| strings(text, heard));
                for call in members(part, &["functionCall", "function_call"]) {
                    members(call, &["name"]).for_each(|name| strings(name, heard));
                    members(call, &["args"]).for_each(|args| dictionary(args, heard));
                }
            }
        }

        /// A text, or texts in lists.
        fn strings(value: &Value, heard: &mut Vec<String>) {
            heard.extend(value.as_str().map(str::to_owned));
            value.as_array().into_iter().flatten().for_each(|value| strings(value, heard));
        }

        fn dictionary(value: &Value, heard: &mut Vec<String>) {
            heard.extend(value.as_str().map(str::to_owned));
            value.as_array().into_iter().flatten().for_each(|value| dictionary(value, heard));
            for (key, value) in value.as_object().into_iter().flatten() {
                heard.push(key.clone());
                dictionary(value, heard);
            }
        }

        /// Whether it is certain that nobody says anything.
        pub(super) fn is_empty(contents: &Value) -> bool {
            let nothing = |parts: &Value| match parts {
                Value::Null | Value::Bool(_) => true,
                Value::Array(parts) => parts.is_empty(),
                Value::Object(part) => part.is_empty(),
                _ => false,
            };
            let silent = |content: &Value| match content {
                Value::Object(content) => content.iter().all(|(key, value)| match key.as_str() {
                    "role" | "name" => true,
                    "parts" => nothing(value),
                    _ => false,
                }),
                content => nothing(content),
            };
            match contents {
                Value::Array(contents) => contents.iter().all(silent),
                Value::String(text) => text.is_empty(),
                contents => silent(contents),
            }
        }
    }

    /// Any JSON of few names.
    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-cé\"\\\\\n]{0,3}".prop_map(Value::from),
        ];
        let names = prop::sample::select(vec![
            "parts",
            "text",
            "role",
            "functionCall",
            "function_call",
            "name",
            "args",
            "other",
        ]);
        leaf.prop_recursive(6, 64, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::hash_map(names.clone().prop_map(str::to_owned), inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn a_walk_finds_what_a_tree_shows(contents in values(), system in values()) {
            let request = json!({"contents": contents, "systemInstruction": system});
            let (findings, mut heard) = scanned(&request.to_string());
            heard.sort_unstable();
            prop_assert_eq!(heard, plain::texts(&request));
            let expected = if plain::is_empty(&contents) { Contents::Empty } else { Contents::Present };
            prop_assert_eq!(findings.contents, expected, "{}", contents);
        }
    }
}
