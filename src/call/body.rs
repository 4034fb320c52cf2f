//! Reads the few members of a JSON body that say what the call is, and rewrites two of them.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use memchr::memchr_iter;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{AGENTS, Idempotency, Operation, ServiceTier, Shape, parse::bare_model};

/// Names of members that make a body worth reading where the URI has said the rest.
const MARKS: [&[u8]; 6] =
    [b"serviceTier\"", b"service_tier\"", b"googleSearch", b"google_search", b"googleMaps\"", b"google_maps\""];

/// Returns whether a body may say something that the URI has not. One pass from quote to quote costs a tenth of reading
/// the body.
pub(super) fn is_worth_reading(shape: Shape, body: &[u8]) -> bool {
    shape.model_in_body
        || shape.operation == Operation::BatchEmbedContents
        || (shape.pays_quota() && memchr_iter(b'"', body).any(|at| is_mark(&body[at + 1..])))
}

fn is_mark(rest: &[u8]) -> bool {
    matches!(rest.first(), Some(b's' | b'g')) && MARKS.iter().any(|mark| rest.starts_with(mark))
}

/// The members of a JSON body that matter, each as it stands there; all others are skipped.
#[derive(Deserialize)]
pub(super) struct BodyHead<'a> {
    #[serde(borrow, default)]
    model: Option<&'a RawValue>,
    #[serde(borrow, default)]
    agent: Option<&'a RawValue>,
    #[serde(borrow, default)]
    stream: Option<&'a RawValue>,
    #[serde(borrow, default)]
    background: Option<&'a RawValue>,
    #[serde(borrow, default)]
    store: Option<&'a RawValue>,
    #[serde(borrow, default, alias = "previousInteractionId", alias = "previous_response_id")]
    previous_interaction_id: Option<&'a RawValue>,
    #[serde(borrow, default, alias = "serviceTier")]
    service_tier: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default)]
    requests: Option<&'a RawValue>,
}

impl<'a> BodyHead<'a> {
    pub(super) fn of(body: &'a [u8]) -> Option<Self> {
        // serde would read a list as the members in their order.
        body.trim_ascii_start().first().filter(|byte| **byte == b'{')?;
        serde_json::from_slice(body).ok()
    }

    /// Returns the name under which quota is counted: the bare model, or `agents/{agent}`.
    pub(super) fn name(&self) -> Option<Arc<str>> {
        match text(self.model) {
            Some(model) => Some(bare_model(&model).into()),
            None => Some([AGENTS, bare_model(&text(self.agent)?)].concat().into()),
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
        let tools = self.tools.and_then(|raw| serde_json::from_str::<Vec<Tool<'_>>>(raw.get()).ok());
        tools.is_some_and(|tools| tools.iter().any(Tool::grounds))
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

/// A tool, as far as it may ground the answer: `{"googleSearch": {}}`, or `{"type": "google_search"}` in Interactions.
#[derive(Deserialize)]
struct Tool<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(default, alias = "googleSearch")]
    google_search: Option<IgnoredAny>,
    #[serde(default, alias = "googleSearchRetrieval")]
    google_search_retrieval: Option<IgnoredAny>,
    #[serde(default, alias = "googleMaps")]
    google_maps: Option<IgnoredAny>,
}

impl Tool<'_> {
    fn grounds(&self) -> bool {
        let named = [&self.google_search, &self.google_search_retrieval, &self.google_maps];
        let kind = self.kind.map(RawValue::get);
        named.into_iter().any(Option::is_some) || matches!(kind, Some(r#""google_search""# | r#""google_maps""#))
    }
}

/// The length of a list whose items are skipped.
struct Length(u32);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;

        impl<'de> Visitor<'de> for Items {
            type Value = u32;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
    let start = memchr::memchr(b'{', body)? + 1;
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
