//! Reads the few members of a JSON body that say what the call is, and rewrites two of them.

use std::{borrow::Cow, fmt, sync::Arc};

use bytes::Bytes;
use memchr::memchr;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{AGENTS, Idempotency, Operation, RequestDetails, ServiceTier, Shape, parse::bare_model};
use crate::bounded::{MAX_NAME, start_of};

/// Names of members that make a body worth reading where the URI has said the rest.
const MARKS: [&[u8]; 6] =
    [b"serviceTier\"", b"service_tier\"", b"googleSearch", b"google_search", b"googleMaps\"", b"google_maps\""];

/// Returns whether a body may say something that the URI has not. One pass from quote to quote costs a tenth of reading
/// the body.
pub(super) fn is_worth_reading(shape: Shape, body: &[u8]) -> bool {
    shape.model_in_body
        || shape.operation == Operation::BatchEmbedContents
        || (shape.pays_quota() && quotes(body).any(|at| is_mark(&body[at + 1..])))
}

/// The distance within which the next quote of a JSON text mostly is: two or three bytes in its structure, and as many as a
/// name has.
const NEAR: usize = 16;

/// Finds the quotes of a JSON text. Looking at the next few bytes is faster than beginning a search, and a search faster
/// behind them.
pub(crate) fn quotes(text: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let mut from = 0;
    std::iter::from_fn(move || {
        let (near, far) = text[from..].split_at(NEAR.min(text.len() - from));
        let near = near.iter().position(|byte| *byte == b'"');
        let at = from + near.or_else(|| memchr(b'"', far).map(|at| NEAR + at))?;
        from = at + 1;
        Some(at)
    })
}

/// Returns whether one of the names follows a quote. A member's name with an escape in it may be any of them.
fn is_mark(rest: &[u8]) -> bool {
    match rest.first() {
        Some(b's' | b'g') if MARKS.iter().any(|mark| rest.starts_with(mark)) => true,
        Some(b's' | b'g' | b'\\') => is_escaped_name(&rest[..rest.len().min(LONGEST_ESCAPED)]),
        _ => false,
    }
}

/// The longest name in [`MARKS`], each of its letters as an escape, and its colon.
const LONGEST_ESCAPED: usize = 24 * 6 + 8;

fn is_escaped_name(start: &[u8]) -> bool {
    let Some(end) = memchr(b'"', start) else { return false };
    memchr(b'\\', &start[..end]).is_some() && start[end + 1..].trim_ascii_start().starts_with(b":")
}

/// Returns whether a body that the URI has said the rest of may have [`RequestDetails`]: a level of reasoning.
pub(super) fn may_have_details(shape: Shape, body: &[u8]) -> bool {
    let names: [&[u8]; 2] = [b"thinkingLevel\"", b"thinking_level\""];
    let is_level = |at: usize| names.iter().any(|name| body[at + 1..].starts_with(name));
    shape.pays_quota() && quotes(body).any(is_level)
}

/// The members of a JSON body that matter, each as it stands there; all others are skipped. Of a member that is there
/// twice, in one spelling or in both, the last one counts.
#[derive(Default)]
pub(super) struct BodyHead<'a> {
    model: Option<&'a RawValue>,
    agent: Option<&'a RawValue>,
    stream: Option<&'a RawValue>,
    background: Option<&'a RawValue>,
    store: Option<&'a RawValue>,
    previous_interaction_id: Option<&'a RawValue>,
    service_tier: Option<&'a RawValue>,
    tools: Option<&'a RawValue>,
    requests: Option<&'a RawValue>,
    conversation: Option<&'a RawValue>,
    generation_config: Option<&'a RawValue>,
    reasoning_effort: Option<&'a RawValue>,
    reasoning: Option<&'a RawValue>,
    extra_body: Option<&'a RawValue>,
}

impl<'a> BodyHead<'a> {
    pub(super) fn of(body: &'a [u8]) -> Option<Self> {
        let mut reader = serde_json::Deserializer::from_slice(body);
        let head = reader.deserialize_map(Members).ok()?;
        reader.end().ok().map(|()| head)
    }

    /// Returns the place of a member.
    fn place(&mut self, name: &str) -> Option<&mut Option<&'a RawValue>> {
        Some(match name {
            "model" => &mut self.model,
            "agent" => &mut self.agent,
            "stream" => &mut self.stream,
            "background" => &mut self.background,
            "store" => &mut self.store,
            "previous_interaction_id" | "previousInteractionId" | "previous_response_id" => {
                &mut self.previous_interaction_id
            }
            "service_tier" | "serviceTier" => &mut self.service_tier,
            "tools" => &mut self.tools,
            "requests" => &mut self.requests,
            "conversation" => &mut self.conversation,
            "generation_config" | "generationConfig" => &mut self.generation_config,
            "reasoning_effort" => &mut self.reasoning_effort,
            "reasoning" => &mut self.reasoning,
            "extra_body" => &mut self.extra_body,
            _ => return None,
        })
    }

    /// Returns the name under which quota is counted: the bare model, or `agents/{agent}`. A longer name than any real
    /// one is cut: it is kept in maps, and shown.
    pub(super) fn name(&self) -> Option<Arc<str>> {
        match text(self.model) {
            Some(model) => Some(start_of(bare_model(&model), MAX_NAME).into()),
            None => Some([AGENTS, start_of(bare_model(&text(self.agent)?), MAX_NAME)].concat().into()),
        }
    }

    /// Returns whether the call is made to an agent: it names one, and no model.
    pub(super) fn is_to_agent(&self) -> bool {
        text(self.model).is_none() && text(self.agent).is_some()
    }

    pub(super) fn streams(&self) -> bool {
        is(self.stream, "true")
    }

    /// Decides how often a request may be sent whose answer is kept upstream unless it says otherwise: an interaction,
    /// or a response of the OpenAI-compatible surface.
    pub(super) fn resend(&self, shape: &mut Shape) {
        let kept = shape.idempotency == Idempotency::Unsafe && shape.pays_quota();
        shape.background = kept && is(self.background, "true");
        // Each of these changes something before an answer is there.
        let continues = self.previous_interaction_id.is_some_and(|id| id.get() != "null");
        if !kept || shape.background || continues || self.is_to_agent() {
            return;
        }
        match self.store.map(RawValue::get) {
            Some("false") => shape.idempotency = Idempotency::Billed,
            Some("null") | None => shape.repeatable_on_error = true,
            Some(_) => {}
        }
    }

    /// Returns the service tier. One that nobody knows is the upstream's business, and counts as standard.
    pub(super) fn service_tier(&self) -> ServiceTier {
        text(self.service_tier).and_then(|name| ServiceTier::from_name(&name)).unwrap_or_default()
    }

    /// Returns whether one of the tools is Google's search or maps.
    pub(super) fn is_grounded(&self) -> bool {
        let tools = self.tools.and_then(|raw| serde_json::from_str::<Vec<Tool>>(raw.get()).ok());
        tools.is_some_and(|tools| tools.iter().any(|tool| tool.grounds))
    }

    /// Returns the facts that only a record of the call names.
    pub(super) fn details(&self) -> RequestDetails {
        RequestDetails {
            previous_response: owned(self.previous_interaction_id),
            conversation: owned(self.conversation).or_else(|| owned(NestedMembers::of(self.conversation)?.id)),
            reasoning_level: self.reasoning_level(),
        }
    }

    /// Returns the level of reasoning, as each dialect spells it. A budget of tokens is not a level.
    fn reasoning_level(&self) -> Option<Box<str>> {
        let google = || {
            let google = NestedMembers::of(NestedMembers::of(self.extra_body)?.google)?;
            NestedMembers::of(google.thinking_config)?.thinking_level
        };
        let config = NestedMembers::of(self.generation_config);
        let nested = || NestedMembers::of(config.as_ref()?.thinking_config)?.thinking_level;
        let level = config.as_ref().and_then(|config| config.thinking_level).or_else(nested);
        let effort = || self.reasoning_effort.or_else(|| NestedMembers::of(self.reasoning)?.effort);
        owned(level.or_else(effort).or_else(google))
    }

    /// Returns the number of items of a batch, at least 1.
    pub(super) fn requests(&self) -> u32 {
        let items = self.requests.and_then(|raw| serde_json::from_str::<Length>(raw.get()).ok());
        items.map_or(1, |Length(items)| items.max(1))
    }
}

fn text(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    serde_json::from_str(raw?.get()).ok()
}

fn is(raw: Option<&RawValue>, value: &str) -> bool {
    raw.is_some_and(|raw| raw.get() == value)
}

/// The text of a member that is not empty.
fn owned(raw: Option<&RawValue>) -> Option<Box<str>> {
    text(raw).filter(|text| !text.is_empty()).map(Into::into)
}

/// An object with settings of a request, as far as a record names them.
#[derive(Deserialize)]
struct NestedMembers<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    effort: Option<&'a RawValue>,
    #[serde(borrow, default)]
    google: Option<&'a RawValue>,
    #[serde(borrow, default, alias = "thinkingConfig")]
    thinking_config: Option<&'a RawValue>,
    #[serde(borrow, default, alias = "thinkingLevel")]
    thinking_level: Option<&'a RawValue>,
}

impl<'a> NestedMembers<'a> {
    fn of(raw: Option<&'a RawValue>) -> Option<Self> {
        serde_json::from_str(raw.filter(|raw| raw.get().starts_with('{'))?.get()).ok()
    }
}

/// The visitor of an object's members.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = BodyHead<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut head = BodyHead::default();
        while let Some(name) = map.next_key::<&RawValue>()?.map(decoded) {
            match head.place(&name) {
                Some(place) => *place = Some(map.next_value()?),
                None => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(head)
    }
}

/// Decodes the name of a member. One that cannot be decoded is none that matters, and hides none that does.
fn decoded(name: &RawValue) -> Cow<'_, str> {
    let quoted = name.get();
    match quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(plain) if memchr(b'\\', plain.as_bytes()).is_none() => Cow::Borrowed(plain),
        _ => serde_json::from_str::<String>(quoted).map_or(Cow::Borrowed(""), Cow::Owned),
    }
}

/// A tool, by whether it grounds the answer: `{"googleSearch": {}}`, or `{"type": "google_search"}` in Interactions.
struct Tool {
    grounds: bool,
}

impl<'de> Deserialize<'de> for Tool {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ToolVisitor;

        impl<'de> Visitor<'de> for ToolVisitor {
            type Value = Tool;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a tool")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tool, A::Error> {
                let mut grounds = false;
                while let Some(name) = map.next_key::<&RawValue>()?.map(decoded) {
                    let value: &RawValue = map.next_value()?;
                    grounds |= match &*name {
                        "googleSearch"
                        | "google_search"
                        | "googleSearchRetrieval"
                        | "google_search_retrieval"
                        | "googleMaps"
                        | "google_maps" => true,
                        "type" => matches!(value.get(), r#""google_search""# | r#""google_maps""#),
                        _ => false,
                    };
                }
                Ok(Tool { grounds })
            }
        }

        deserializer.deserialize_map(ToolVisitor)
    }
}

/// The length of a list whose items are skipped.
struct Length(u32);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;

        impl<'de> Visitor<'de> for Items {
            type Value = u32;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<u32, A::Error> {
                let mut items = 0_u32;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    items = items.saturating_add(1);
                }
                Ok(items)
            }
        }

        deserializer.deserialize_seq(Items).map(Length)
    }
}

/// Rewrites the model in a body.
pub(super) fn with_model(body: &[u8], model: &str) -> Option<Bytes> {
    let raw = BodyHead::of(body)?.model?;
    let old = text(Some(raw))?;
    let collection = &old[..old.len() - bare_model(&old).len()];
    let new = serde_json::to_string(&format!("{collection}{model}")).ok()?;
    replaced(body, raw.get(), &new)
}

/// Rewrites the service tier in a body, or adds it as the first member.
pub(super) fn with_service_tier(body: &[u8], tier: ServiceTier) -> Option<Bytes> {
    let head = BodyHead::of(body)?;
    if let Some(raw) = head.service_tier {
        return replaced(body, raw.get(), &format!("\"{tier}\""));
    }
    let start = memchr(b'{', body)? + 1;
    let (before, after) = body.split_at(start);
    let comma = if after.trim_ascii_start().starts_with(b"}") { "" } else { "," };
    let member = format!("\"service_tier\":\"{tier}\"{comma}");
    Some([before, member.as_bytes(), after].concat().into())
}

/// Replaces a part of a body, which borrows from it.
fn replaced(body: &[u8], part: &str, new: &str) -> Option<Bytes> {
    let start = (part.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    let (before, after) = (body.get(..start)?, body.get(start + part.len()..)?);
    Some([before, new.as_bytes(), after].concat().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_quote_is_found_near_or_far(text in "(\"|[a-z]{1,40}){0,20}") {
            let expected: Vec<usize> = text.bytes().enumerate().filter(|(_, byte)| *byte == b'"').map(|(at, _)| at).collect();
            prop_assert_eq!(quotes(text.as_bytes()).collect::<Vec<_>>(), expected);
        }
    }
}
