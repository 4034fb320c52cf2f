//! One pass over a request's body, which finds the texts that count, the media, and what a check has to judge.
//!
//! Nothing of the body is copied and no tree is built: a visitor walks the JSON and knows at each moment at which
//! [`Position`] it stands. The texts that count are those of Google's own local tokenizer: contents (texts, function
//! calls and responses), the declarations of functions, the response schema and the system instruction. A dictionary
//! gives its keys and its values; of a schema, format, description, enum, required, items, properties and example
//! count.

mod escaped;
mod position;

use std::{fmt, ops::Range};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use self::{
    escaped::{decoded, decoded_len},
    position::Position,
};
use super::{malformed::unread, media::Media};

/// A receiver of the texts that count, in the order of the body.
pub(crate) trait TextSink {
    /// Takes one text. `false`: enough is known, and nothing more need be read.
    fn text(&mut self, text: &str) -> bool;

    /// Returns whether texts are needed. If not, the lengths of some of them are given in their place.
    fn needs_texts(&self) -> bool {
        true
    }

    /// Takes the number of bytes of a text.
    fn length(&mut self, _bytes: usize) {}
}

/// The contents of a body besides its texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestFacts {
    pub(crate) contents: Contents,
    pub(crate) media: Media,
    pub(crate) max_output: Option<MaxOutput>,
    /// Set where the body names cached content, which counts as input and stands elsewhere.
    pub(crate) has_cached_content: bool,
    /// Set where the body has functions, searches and the like: the upstream adds tokens for them by an unpublished
    /// rule.
    pub(crate) has_tools: bool,
    /// Set where a `model` stands beside the contents.
    pub(crate) names_model: bool,
    /// The number of contents or messages: the upstream adds a few tokens for each.
    pub(crate) turns: u64,
}

/// The presence of anything to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contents {
    /// There is no such field.
    #[default]
    Missing,
    /// The field is empty.
    Empty,
    Present,
}

/// The number of output tokens that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MaxOutput {
    pub(crate) tokens: i64,
    /// The place of the number in the body.
    pub(crate) at: Range<usize>,
}

/// The reason why a body could not be read.
#[derive(Debug)]
pub(crate) enum Unread {
    /// It is certainly not JSON. The message says what is wrong at that line and column.
    Malformed { message: String, line: usize, column: usize },
    /// It is not JSON by the standard; the upstream may take it.
    Odd,
    /// The sink has taken enough.
    Enough,
    /// It is nested too deeply to be read here; the upstream may take it.
    TooDeep,
}

/// Walks a body, and gives the sink the texts that count.
pub(crate) fn scan(body: &[u8], sink: &mut dyn TextSink) -> Result<RequestFacts, Unread> {
    let mut walk = BodyWalk::new(body, sink);
    let Err(mut error) = walk.walk() else { return Ok(walk.findings) };
    if walk.enough {
        return Err(Unread::Enough);
    }
    // A string that is not decoded shows its error late or not at all. So another walk, which decodes each, finds the first.
    if walk.has_undecoded {
        let mut walk = BodyWalk { sink: &mut Nobody, decodes: true, ..walk };
        error = walk.walk().err().unwrap_or(error);
    }
    Err(unread(body, &error))
}

struct BodyWalk<'l> {
    findings: RequestFacts,
    sink: &'l mut dyn TextSink,
    enough: bool,
    body: &'l [u8],
    /// Set if each string is decoded.
    decodes: bool,
    /// Set once a string was taken that is not decoded.
    has_undecoded: bool,
    /// The place of the quote behind the name of the member that is read; past the body's end for a name with escapes.
    key_end: usize,
}

/// A sink of texts that nobody reads.
struct Nobody;

impl TextSink for Nobody {
    fn text(&mut self, _: &str) -> bool {
        true
    }

    fn needs_texts(&self) -> bool {
        false
    }
}

/// The key behind which serde_json hides a number, in programs that turn on its feature `arbitrary_precision`.
const NUMBER: &str = "$serde_json::private::Number";

impl<'l> BodyWalk<'l> {
    fn new(body: &'l [u8], sink: &'l mut dyn TextSink) -> Self {
        let findings = RequestFacts::default();
        Self { findings, sink, enough: false, body, decodes: false, has_undecoded: false, key_end: 0 }
    }

    fn walk(&mut self) -> serde_json::Result<()> {
        let mut json = serde_json::Deserializer::from_slice(self.body);
        At { walk: self, place: Position::Request }.deserialize(&mut json)?;
        json.end()
    }

    /// Returns the place in the body at which a part of it begins.
    fn place_of(&self, part: &str) -> Option<usize> {
        (part.as_ptr() as usize).checked_sub(self.body.as_ptr() as usize)
    }

    /// Returns whether the value behind the name that was read last is a string.
    fn is_string_next(&self) -> bool {
        let rest = self.body.get(self.key_end..).unwrap_or_default();
        matches!(rest, [b'"', b':', b' ', b'"', ..] | [b'"', b':', b'"', ..])
    }

    /// Notes that something stands at this place that the upstream may take for content.
    fn note_content(&mut self, place: Position) {
        if matches!(place, Position::Contents | Position::Content | Position::Parts | Position::Part) {
            self.findings.contents = Contents::Present;
        }
    }

    fn text<E: serde::de::Error>(&mut self, text: &str) -> Result<(), E> {
        if self.sink.text(text) {
            return Ok(());
        }
        self.enough = true;
        Err(E::custom("enough"))
    }

    /// Takes a text as it stands in the body, in its quotes.
    fn text_in_quotes<E: serde::de::Error>(&mut self, text: &str) -> Result<(), E> {
        let inside = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or_default();
        let half = || E::custom("half of a surrogate");
        if self.sink.needs_texts() {
            return self.text(&decoded(inside).ok_or_else(half)?);
        }
        self.sink.length(decoded_len(inside).ok_or_else(half)?);
        Ok(())
    }

    fn max_output(&mut self, raw: &str) {
        // proto3's JSON takes numbers in quotes, and whole numbers with a point.
        let text = raw.trim_matches('"');
        let float = || text.parse().ok().filter(|tokens: &f64| tokens.is_finite()).map(|tokens| tokens as i64);
        let Some(tokens) = text.parse().ok().or_else(float) else { return };
        let Some(start) = self.place_of(raw) else { return };
        self.findings.max_output = Some(MaxOutput { tokens, at: start..start + raw.len() });
    }
}

/// A value at its place.
struct At<'w, 'l> {
    walk: &'w mut BodyWalk<'l>,
    place: Position,
}

impl<'de> DeserializeSeed<'de> for At<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.place {
            // It is not looked at, and is skipped at the reader's own pace.
            Position::Ignored | Position::Speaker | Position::BlobUri => {
                deserializer.deserialize_ignored_any(IgnoredAny).map(drop)
            }
            // Base64 is ASCII, and need not be checked for UTF-8.
            Position::BlobData => deserializer.deserialize_bytes(self),
            Position::MaxOutput => {
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
            // Content that is not in a list counts as one.
            Position::Content | Position::Contents | Position::System => walk.findings.turns += 1,
            Position::Tool | Position::Tools => walk.findings.has_tools = true,
            _ => {}
        }
        let mut is_blob = place == Position::Blob;
        if is_blob {
            walk.findings.media.begin();
        }
        while let Some(next) = map.next_key_seed(MemberName { walk, place })? {
            walk.findings.names_model |= next == Position::Model;
            if place == Position::Request && next == Position::Contents {
                walk.findings.contents = walk.findings.contents.max(Contents::Empty);
            }
            // It may be content of a kind that is not known here.
            if !matches!(next, Position::Parts | Position::Speaker) {
                walk.note_content(place);
            }
            // A content of an interaction is the blob itself.
            if !is_blob && matches!(next, Position::BlobType | Position::BlobData | Position::BlobUri) {
                is_blob = true;
                walk.findings.media.begin();
            }
            let contents = walk.findings.contents;
            if next == Position::Text && !walk.decodes && walk.is_string_next() {
                walk.has_undecoded = true;
                walk.text_in_quotes(map.next_value::<&RawValue>()?.get())?;
                continue;
            }
            map.next_value_seed(At { walk, place: next })?;
            if next == Position::System {
                // A system instruction is nothing to answer.
                walk.findings.contents = contents;
            }
        }
        if is_blob {
            walk.findings.media.end();
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let place = self.place.element();
        while seq.next_element_seed(At { walk: self.walk, place })?.is_some() {
            // Any part is content, and a list in place of a content holds the numbers of tokens.
            if matches!(self.place, Position::Parts | Position::Content) {
                self.walk.findings.contents = Contents::Present;
            }
        }
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        let Self { walk, place } = self;
        match place {
            Position::BlobType => walk.findings.media.mime_type(text),
            Position::ImageUrl => walk.findings.media.image_url(text),
            Position::Cached => walk.findings.has_cached_content |= !text.is_empty(),
            _ if place.is_text() => {
                if !text.is_empty() || place != Position::Contents {
                    walk.note_content(place);
                }
                walk.text(text)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn visit_bytes<E: serde::de::Error>(self, data: &[u8]) -> Result<(), E> {
        if self.place == Position::BlobData {
            self.walk.findings.media.data(data);
        }
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.walk.note_content(self.place);
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.walk.note_content(self.place);
        Ok(())
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.walk.note_content(self.place);
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A key, which tells the place of its value, and may count itself.
struct MemberName<'w, 'l> {
    walk: &'w mut BodyWalk<'l>,
    place: Position,
}

impl<'de> DeserializeSeed<'de> for MemberName<'_, '_> {
    type Value = Position;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Position, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for MemberName<'_, '_> {
    type Value = Position;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, key: &'de str) -> Result<Position, E> {
        self.walk.key_end = self.walk.place_of(key).map_or(usize::MAX, |begins| begins + key.len());
        self.named(key)
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Position, E> {
        self.walk.key_end = usize::MAX;
        self.named(key)
    }
}

impl MemberName<'_, '_> {
    fn named<E: serde::de::Error>(self, key: &str) -> Result<Position, E> {
        if key == NUMBER {
            self.walk.note_content(self.place);
            return Ok(Position::Ignored);
        }
        if self.place.counts_keys() {
            self.walk.text(key)?;
        }
        Ok(self.place.of(key))
    }
}

#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    use super::*;

    /// Returns what a body holds: its texts, whether there are contents, and the place of the output limit.
    pub fn request(
        body: &[u8],
    ) -> Result<(Vec<String>, bool, Option<(i64, Range<usize>)>), Option<(String, usize, usize)>> {
        struct TextList(Vec<String>);
        impl TextSink for TextList {
            fn text(&mut self, text: &str) -> bool {
                self.0.push(text.to_owned());
                true
            }
        }
        let mut texts = TextList(Vec::new());
        match scan(body, &mut texts) {
            Ok(RequestFacts { contents, max_output, .. }) => {
                let limit = max_output.map(|MaxOutput { tokens, at }| (tokens, at));
                Ok((texts.0, contents == Contents::Present, limit))
            }
            Err(Unread::Malformed { message, line, column }) => Err(Some((message, line, column))),
            Err(_) => Err(None),
        }
    }
}

#[cfg(test)]
mod tests;
