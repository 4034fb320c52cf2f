//! Reads what a request is: surface, model, operation, streaming, and whether it may be sent twice.
//!
//! Everything that a layer decides before the answer comes depends on this, and nearly all of it stands in the URI.
//! [`Call::read_body`] reads the rest: the model where the JSON body names it (the OpenAI-compatible surface,
//! Interactions, Decisions), the service tier, grounding, and the number of requests that a batch of embeddings is
//! charged. A URI that is not one of the API's is not an error: it makes a [`Surface::Other`] call, which passes through.
//!
//! ```
//! use http::{Method, Uri};
//! use tower_gemini::call::{Call, Idempotency, Operation, Streaming, Surface};
//!
//! let uri = Uri::from_static("/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse");
//! let call = Call::new(&Method::POST, &uri);
//! assert_eq!(call.surface(), Surface::Developer);
//! assert_eq!(call.operation(), Operation::GenerateContent);
//! assert_eq!(call.streaming(), Streaming::Sse);
//! assert_eq!(call.idempotency(), Idempotency::Billed);
//! assert_eq!(call.model(), Some("gemini-2.5-pro"));
//!
//! let flash = Call::uri_with_model(&uri, "gemini-2.5-flash").unwrap();
//! assert_eq!(flash, "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse");
//! ```

mod body;
mod parse;
mod verbs;

use std::{borrow::Cow, fmt, sync::Arc};

use bytes::Bytes;
use http::{Method, Uri, uri::PathAndQuery};

use self::{body::BodyHead, parse::Parsed};
pub(crate) use self::{
    body::quotes,
    parse::{is_version, percent_decoded},
};

/// A request, as far as a layer has to understand it.
///
/// Cheap to clone: the model's name is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    shape: Shape,
    /// The model, or `agents/{agent}` where [`Shape::agent`] says so.
    name: Option<Arc<str>>,
}

impl Call {
    /// Reads what the method and the URI say. It never fails: a URI that is not understood makes a [`Surface::Other`]
    /// call.
    ///
    /// A path may carry a prefix before its version segment, as behind a relay: `/gemini/v1beta/models/…`.
    pub fn new(method: &Method, uri: &Uri) -> Self {
        Self::after(None, method, uri)
    }

    /// Reads what the method and the URI say. `last`, the name that the call before had, is used again where it is the
    /// same.
    pub(crate) fn after(last: Option<Arc<str>>, method: &Method, uri: &Uri) -> Self {
        let Parsed { shape, model, .. } = Parsed::new(method, uri);
        Self { shape, name: model.map(|name| shared_again(last, &name)) }
    }

    /// Reads from the JSON body what the URI cannot say.
    ///
    /// Of a call that spends a model's quota these are its service tier, whether it is grounded, and the number of
    /// requests that it is charged; of one whose URI names no model (see [`speaks_in_body`](Self::speaks_in_body)) also
    /// the model or agent, whether the answer streams, and whether the request may be sent again. Every other body is
    /// not touched. A body that is not JSON leaves the call as it was: judging it is the upstream's business.
    #[must_use]
    pub fn read_body(self, body: &[u8]) -> Self {
        self.read_body_with(body, None)
    }

    /// Reads from the JSON body what the URI cannot say, and in the same pass the details that are asked for.
    #[must_use]
    pub(crate) fn read_body_with(mut self, body: &[u8], details: Option<&mut RequestDetails>) -> Self {
        let is_worth_reading =
            body::is_worth_reading(self.shape, body) || (details.is_some() && body::may_have_details(self.shape, body));
        if !is_worth_reading {
            return self;
        }
        let Some(head) = BodyHead::of(body) else { return self };
        if let Some(details) = details {
            *details = head.details();
        }
        if self.shape.model_in_body {
            if let Some(name) = head.name() {
                self.shape.agent = head.is_to_agent();
                self.name = Some(name);
            }
            if head.streams() {
                self.shape.streaming = Streaming::Sse;
            }
            head.resend(&mut self.shape);
        }
        if self.shape.pays_quota() {
            self.shape.tier = head.service_tier();
            self.shape.grounded = head.is_grounded();
        }
        if self.shape.operation == Operation::BatchEmbedContents {
            self.shape.requests = head.requests();
        }
        self
    }

    /// Returns the dialect that the caller speaks.
    pub fn surface(&self) -> Surface {
        self.shape.surface
    }

    /// Returns the operation that the call asks for.
    pub fn operation(&self) -> Operation {
        self.shape.operation
    }

    /// Returns the form in which the answer comes.
    pub fn streaming(&self) -> Streaming {
        self.shape.streaming
    }

    /// Returns the rule for sending the same request again.
    pub fn idempotency(&self) -> Idempotency {
        self.shape.idempotency
    }

    /// Returns the model's bare name (`gemini-2.5-pro`); tuned models and endpoints keep their collection
    /// (`tunedModels/…`).
    pub fn model(&self) -> Option<&str> {
        self.name.as_deref().filter(|_| !self.shape.agent)
    }

    /// Returns the agent's name, where an interaction asks for an agent in place of a model.
    pub fn agent(&self) -> Option<&str> {
        self.name.as_deref().filter(|_| self.shape.agent).map(|name| name.strip_prefix(AGENTS).unwrap_or(name))
    }

    /// Returns the name under which quota is counted: the model, or `agents/{agent}`.
    pub fn quota_name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the name under which quota is counted, shared.
    pub(crate) fn shared_quota_name(&self) -> Option<Arc<str>> {
        self.name.clone()
    }

    /// Returns the service tier that the call asks for.
    pub fn service_tier(&self) -> ServiceTier {
        self.shape.tier
    }

    /// Returns the number of requests that the call is charged: the items of a `batchEmbedContents`, else 1.
    pub fn requests(&self) -> u32 {
        self.shape.requests
    }

    /// Returns whether the call asks for grounding with Google's search or maps, which has a quota of its own.
    pub fn is_grounded(&self) -> bool {
        self.shape.grounded
    }

    /// Returns whether an error answer shows that nothing was made, so that the request may be sent again after it
    /// although the call is [`Unsafe`](Idempotency::Unsafe).
    ///
    /// It is so for an interaction that runs while its caller waits: it is kept only with its answer. One that runs in
    /// the background, continues another one, or is told to be stored, changes something before.
    pub fn may_repeat_after_error(&self) -> bool {
        self.shape.repeatable_on_error
    }

    /// Turns the call to another model.
    #[must_use]
    pub fn with_model(mut self, model: impl Into<Arc<str>>) -> Self {
        (self.name, self.shape.agent) = (Some(model.into()), false);
        self
    }

    /// Turns the call to another service tier.
    #[must_use]
    pub fn with_service_tier(mut self, tier: ServiceTier) -> Self {
        self.shape.tier = tier;
        self
    }

    /// Returns whether the model, and the wish to stream, stand in the JSON body, so that [`Call::read_body`] is
    /// needed.
    pub fn speaks_in_body(&self) -> bool {
        self.shape.model_in_body
    }

    /// Returns whether the call spends the quota that is counted for each model: only generating and embedding does.
    pub(crate) fn pays_quota(&self) -> bool {
        self.shape.operation.pays_quota()
    }

    /// Rewrites a URI for another model. `None`: the URI does not name a model, or the name could not stand in a path.
    pub fn uri_with_model(uri: &Uri, model: &str) -> Option<Uri> {
        if model.is_empty() || !model.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._@".contains(&b)) {
            return None;
        }
        let span = Parsed::new(&Method::POST, uri).model_span?;
        let (path, query) = (uri.path(), uri.query());
        // An endpoint stands where Vertex's models have their publisher.
        let collection =
            if path[span.clone()].starts_with("endpoints/") { "publishers/google/models/" } else { "models/" };
        let mut text =
            String::with_capacity(path.len() + collection.len() + model.len() + query.map_or(0, str::len) + 1);
        text.push_str(&path[..span.start]);
        text.push_str(collection);
        text.push_str(model);
        text.push_str(&path[span.end..]);
        if let Some(query) = query {
            text.push('?');
            text.push_str(query);
        }
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(text).ok()?);
        Uri::from_parts(parts).ok()
    }

    /// Rewrites a JSON body for another model, every other byte untouched. `None`: the body does not name a model.
    ///
    /// A collection in front of the name (`models/…`, `google/…`) is kept.
    pub fn body_with_model(body: &[u8], model: &str) -> Option<Bytes> {
        body::with_model(body, model)
    }

    /// Rewrites a JSON body for another service tier, every other byte untouched. `None`: the body is no JSON object.
    pub fn body_with_service_tier(body: &[u8], tier: ServiceTier) -> Option<Bytes> {
        body::with_service_tier(body, tier)
    }

    /// Reads what the method and the URI say. It borrows the model's name where it can, and then allocates nothing.
    pub(crate) fn borrowed<'a>(method: &Method, uri: &'a Uri) -> (Shape, Option<Cow<'a, str>>) {
        let parsed = Parsed::new(method, uri);
        (parsed.shape, parsed.model)
    }

    /// Puts a call together from what [`borrowed`](Self::borrowed) has read.
    pub(crate) fn from_parts(shape: Shape, name: Option<Arc<str>>) -> Self {
        Self { shape, name }
    }

    /// Returns the plain facts of the call.
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }
}

/// The facts of a request that nothing is decided by, and that a record of the call names. They are read only where
/// somebody records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestDetails {
    /// The id of the response or interaction from which this call goes on.
    pub(crate) previous_response: Option<Box<str>>,
    /// The conversation that the request names.
    pub(crate) conversation: Option<Box<str>>,
    /// The level of reasoning that is asked for: `low`, `high`, …, as the caller spells it.
    pub(crate) reasoning_level: Option<Box<str>>,
}

/// The collection before an agent's name in [`Call::quota_name`].
const AGENTS: &str = "agents/";

/// The dialect that a caller speaks. Errors go back in the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Surface {
    /// `generativelanguage.googleapis.com/{version}/models/{model}:{method}` and its neighbours.
    Developer,
    /// `aiplatform.googleapis.com/{version}/projects/…`, and express mode without projects.
    Vertex,
    /// The OpenAI-compatible paths, `…/openai/chat/completions` and its neighbours.
    OpenAi,
    /// `…/interactions`, on the Developer API and on Vertex AI.
    Interactions,
    /// A URI that is not one of the API's. Such a call passes through.
    Other,
}

/// The operation that a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// `generateContent`, `streamGenerateContent`, `decisions`, `chat/completions`, `responses`.
    GenerateContent,
    /// `embedContent`, `embeddings`.
    EmbedContent,
    /// `batchEmbedContents`.
    BatchEmbedContents,
    /// `predict` and its raw and streaming forms, `invoke`, `images/generations`.
    Predict,
    /// `countTokens`.
    CountTokens,
    /// `computeTokens`.
    ComputeTokens,
    /// `GET …/models`, except a Vertex project's own.
    ListModels,
    /// `GET …/models/{model}`, except a Vertex project's own.
    GetModel,
    /// `POST …/interactions`.
    CreateInteraction,
    /// `POST /upload/…`.
    Upload,
    /// Any other request that only reads, POSTs that search or look up included.
    Read,
    /// Any other request that may change something: batches, tuning, cached contents, long-running predictions.
    Write,
}

impl Operation {
    fn pays_quota(self) -> bool {
        use Operation::{BatchEmbedContents, CreateInteraction, EmbedContent, GenerateContent, Predict};
        matches!(self, GenerateContent | EmbedContent | BatchEmbedContents | Predict | CreateInteraction)
    }

    fn idempotency(self) -> Idempotency {
        match self {
            Self::EmbedContent | Self::BatchEmbedContents | Self::CountTokens | Self::ComputeTokens => {
                Idempotency::Safe
            }
            Self::ListModels | Self::GetModel | Self::Read => Idempotency::Safe,
            Self::GenerateContent | Self::Predict => Idempotency::Billed,
            Self::CreateInteraction | Self::Upload | Self::Write => Idempotency::Unsafe,
        }
    }
}

/// The service tier that a call asks for: a price, and a place in the upstream's queue.
///
/// Each tier has a capacity of its own: flex being full says nothing of standard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServiceTier {
    /// The tier of a call that names none.
    #[default]
    Standard,
    /// Half the price, for calls that may wait: the first byte may take 15 minutes.
    Flex,
    /// A higher price for a place before the others.
    Priority,
    /// An interaction that is answered when there is room.
    Deferred,
}

impl ServiceTier {
    /// All tiers, in the order of their numbers.
    pub(crate) const ALL: [Self; 4] = [Self::Standard, Self::Flex, Self::Priority, Self::Deferred];

    /// Reads a tier by its name, as requests and answers write it: `flex`, `SERVICE_TIER_FLEX`. `None`: no known tier.
    pub fn from_name(name: &str) -> Option<Self> {
        let bare = name.len().checked_sub(13).and_then(|_| name.split_at_checked(13));
        let bare =
            bare.filter(|(prefix, _)| prefix.eq_ignore_ascii_case("service_tier_")).map_or(name, |(_, bare)| bare);
        Self::ALL.into_iter().find(|tier| bare.eq_ignore_ascii_case(tier.as_str()))
    }

    /// Returns the name under which this tier's capacity of a model is known: the model's own for the standard tier,
    /// else with the tier behind it, `gemini-2.5-pro@flex`.
    pub(crate) fn of_model(self, model: &str) -> Cow<'_, str> {
        match self {
            Self::Standard => Cow::Borrowed(model),
            tier => Cow::Owned(format!("{model}@{tier}")),
        }
    }

    /// Splits a name into the model and the tier behind an `@`. What stands there and is no tier belongs to the name.
    pub(crate) fn split(name: &str) -> (&str, Option<Self>) {
        let tiered = name.rsplit_once('@').and_then(|(model, tier)| Some((model, Self::from_name(tier)?)));
        tiered.map_or((name, None), |(model, tier)| (model, Some(tier)))
    }

    /// Returns whether calls of this tier may be kept waiting upstream, for a lower price.
    pub(crate) const fn may_wait(self) -> bool {
        matches!(self, Self::Flex | Self::Deferred)
    }

    /// Returns the name in requests, logs, metrics and settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Flex => "flex",
            Self::Priority => "priority",
            Self::Deferred => "deferred",
        }
    }
}

impl fmt::Display for ServiceTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The form in which an answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Streaming {
    /// An answer in one piece.
    No,
    /// An answer as server-sent events.
    Sse,
    /// An answer as one JSON array, element by element: `streamGenerateContent` without `alt=sse`, and Vertex's
    /// streams of JSON.
    Array,
}

/// The rule for sending the same request again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Idempotency {
    /// It may always be repeated: it only reads, or computes the same again free of charge.
    Safe,
    /// It may be repeated until its first content has been handed over, but is billed again.
    Billed,
    /// It creates or changes something. It may be repeated only when the upstream never got it, or answered in an error
    /// body with 429 or 503, or with a refusal of the key or for quota.
    Unsafe,
}

// === impl Shape ===

/// The part of a call that is plain data, which rooms keep while they wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) surface: Surface,
    pub(crate) operation: Operation,
    pub(crate) streaming: Streaming,
    pub(crate) idempotency: Idempotency,
    pub(crate) tier: ServiceTier,
    /// The number of requests that the call is charged.
    pub(crate) requests: u32,
    /// Set if the model, and the wish to stream, stand in the JSON body.
    pub(crate) model_in_body: bool,
    /// Set if the call asks for an agent in place of a model.
    pub(crate) agent: bool,
    /// Set if the call asks for grounding with search or maps.
    pub(crate) grounded: bool,
    /// Set if an error answer shows that nothing was made.
    pub(crate) repeatable_on_error: bool,
    /// Set if the answer only says that the work has begun: it goes on without its caller.
    pub(crate) background: bool,
}

impl Shape {
    /// Reads what a request is, without the model's name.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn new(method: &Method, uri: &Uri) -> Self {
        Parsed::new(method, uri).shape
    }

    /// Creates the shape of an operation, whose answer comes in one piece.
    fn of(surface: Surface, operation: Operation) -> Self {
        Self {
            surface,
            operation,
            streaming: Streaming::No,
            idempotency: operation.idempotency(),
            tier: ServiceTier::Standard,
            requests: 1,
            model_in_body: false,
            agent: false,
            grounded: false,
            repeatable_on_error: false,
            background: false,
        }
    }

    pub(crate) fn pays_quota(self) -> bool {
        self.operation.pays_quota()
    }
}

/// Returns a model's name, shared. `last`, the name that the call before had, is used again where it is the same.
pub(crate) fn shared_again(last: Option<Arc<str>>, name: &str) -> Arc<str> {
    last.filter(|last| **last == *name).unwrap_or_else(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(uri: &str) -> Call {
        Call::new(&Method::POST, &uri.parse().unwrap())
    }

    fn get(uri: &str) -> Call {
        Call::new(&Method::GET, &uri.parse().unwrap())
    }

    #[test]
    fn the_plain_road_leads_to_the_same_place() {
        let segments =
            ["", "v1", "v1beta", "v1alpha", "models", "m", "gemini-2.5-pro", "a%2Fb", "openai", "upload", "m%3Ap"];
        let actions =
            ["", ":", ":generateContent", ":streamGenerateContent", ":embedContent", ":countTokens", ":predict"];
        let mut plain = 0;
        for path in segments.iter().flat_map(|a| segments.iter().map(move |b| format!("/{a}/{b}"))) {
            for (last, action) in segments.iter().flat_map(|last| actions.iter().map(move |action| (last, action))) {
                for (query, method) in [("", Method::POST), ("?alt=sse", Method::POST), ("?key=x", Method::GET)] {
                    let uri: Uri = format!("{path}/{last}{action}{query}").parse().unwrap();
                    if let Some(parsed) = Parsed::plain(&uri) {
                        assert_eq!(parsed, Parsed::any(&method, &uri), "{method} {uri}");
                        plain += 1;
                    }
                }
            }
        }
        assert!(plain > 100, "{plain}");
    }

    #[test]
    fn every_surface_is_read_from_its_path() {
        use Operation::*;
        use Surface::*;
        let table = [
            ("/v1beta/models/gemini-2.5-pro:generateContent", Developer, GenerateContent, Some("gemini-2.5-pro")),
            ("/v1/models/gemini-2.5-pro%3AgenerateContent", Developer, GenerateContent, Some("gemini-2.5-pro")),
            ("/relay/a/v1alpha/models/m:countTokens", Developer, CountTokens, Some("m")),
            ("/v1beta/tunedModels/mine:generateContent", Developer, GenerateContent, Some("tunedModels/mine")),
            ("/v1beta/models/e:embedContent?key=x", Developer, EmbedContent, Some("e")),
            ("/v1beta/models/e:batchEmbedContents", Developer, BatchEmbedContents, Some("e")),
            ("/v1beta/models/m:batchGenerateContent", Developer, Write, Some("m")),
            ("/v1beta/models/m:asyncBatchEmbedContent", Developer, Write, Some("m")),
            ("/v1beta/models/veo:predictLongRunning", Developer, Write, Some("veo")),
            ("/v1beta/cachedContents", Developer, Write, None),
            ("/upload/v1beta/files", Developer, Upload, None),
            ("/v1beta/openai/chat/completions", OpenAi, GenerateContent, None),
            ("/v1beta/openai/embeddings", OpenAi, EmbedContent, None),
            ("/v1beta1/projects/p/locations/l/endpoints/openapi/chat/completions", OpenAi, GenerateContent, None),
            ("/v1beta/interactions", Interactions, CreateInteraction, None),
            (
                "/v1/projects/p/locations/us-central1/publishers/google/models/m:generateContent",
                Vertex,
                GenerateContent,
                Some("m"),
            ),
            ("/v1/publishers/google/models/m:predict", Vertex, Predict, Some("m")),
            (
                "/v1/projects/p/locations/l/endpoints/123:generateContent",
                Vertex,
                GenerateContent,
                Some("endpoints/123"),
            ),
            ("/somewhere/else", Other, Write, None),
            ("/", Other, Write, None),
        ];
        for (uri, surface, operation, model) in table {
            let call = post(uri);
            assert_eq!((call.surface(), call.operation(), call.model()), (surface, operation, model), "{uri}");
        }
        assert_eq!(get("/v1beta/models").operation(), ListModels);
        assert_eq!(get("/v1beta/models?pageSize=5").operation(), ListModels);
        assert_eq!(get("/v1beta1/publishers/google/models").operation(), ListModels);
        assert_eq!(get("/v1beta/models/m").operation(), GetModel);
        assert_eq!(get("/v1beta/models/m/operations/o").operation(), Read);
        assert_eq!(get("/v1beta/openai/models").operation(), ListModels);
        assert_eq!(get("/v1beta/openai/models/m").model(), Some("m"));
        assert_eq!(get("/anything").idempotency(), Idempotency::Safe);
    }

    #[test]
    fn only_two_hexadecimal_digits_are_an_escape() {
        for (text, expected) in [
            ("gemini-2.5-pro", "gemini-2.5-pro"),
            ("a%2Fb%2fc", "a/b/c"),
            ("%+f", "%+f"),
            ("%-1%4", "%-1%4"),
            ("%zz%%41", "%zz%A"),
            ("%C3%A9", "\u{e9}"),
            ("%\u{e9}1", "%\u{e9}1"),
            ("%ff%41", "%ff%41"),
        ] {
            assert_eq!(percent_decoded(text), expected);
        }
        assert_eq!(post("/v1beta/models/m%+f:generateContent").model(), Some("m%+f"));
    }

    #[test]
    fn details_are_read_from_each_dialect() {
        let details = |previous: Option<&str>, conversation: Option<&str>, level: Option<&str>| RequestDetails {
            previous_response: previous.map(Into::into),
            conversation: conversation.map(Into::into),
            reasoning_level: level.map(Into::into),
        };
        let generate = "/v1beta/models/m:generateContent";
        let chat = "/v1beta/openai/chat/completions";
        let responses = "/v1/projects/p/locations/l/endpoints/openapi/responses";
        for (uri, body, expected) in [
            (
                generate,
                r#"{"generationConfig":{"thinkingConfig":{"thinkingLevel":"LOW"}}}"#,
                details(None, None, Some("LOW")),
            ),
            (
                generate,
                r#"{"generation_config":{"thinking_config":{"thinking_level":"high"}}}"#,
                details(None, None, Some("high")),
            ),
            (generate, r#"{"generationConfig":{"thinkingConfig":{"thinkingBudget":0}}}"#, details(None, None, None)),
            (generate, r#"{"contents":[{"parts":[{"text":"thinkingLevel"}]}]}"#, details(None, None, None)),
            (
                "/v1beta/interactions",
                r#"{"model":"m","previous_interaction_id":"v1_a","generation_config":{"thinking_level":"low"}}"#,
                details(Some("v1_a"), None, Some("low")),
            ),
            (
                "/v1beta/interactions",
                r#"{"agent":"a","previousInteractionId":"","generation_config":7}"#,
                details(None, None, None),
            ),
            (chat, r#"{"model":"m","reasoning_effort":"minimal"}"#, details(None, None, Some("minimal"))),
            (
                chat,
                r#"{"model":"m","extra_body":{"google":{"thinking_config":{"thinking_level":"low"}}}}"#,
                details(None, None, Some("low")),
            ),
            (
                responses,
                r#"{"model":"m","reasoning":{"effort":"high"},"previous_response_id":"r","conversation":{"id":"c"}}"#,
                details(Some("r"), Some("c"), Some("high")),
            ),
            (responses, r#"{"model":"m","conversation":"c"}"#, details(None, Some("c"), None)),
            (chat, "[]", details(None, None, None)),
        ] {
            let mut found = RequestDetails::default();
            let call = post(uri).read_body_with(body.as_bytes(), Some(&mut found));
            assert_eq!(found, expected, "{body}");
            assert_eq!(call, post(uri).read_body(body.as_bytes()), "{body}");
        }
        // A body that spends nobody's quota is not read.
        let mut found = RequestDetails::default();
        let body = br#"{"generationConfig":{"thinkingConfig":{"thinkingLevel":"LOW"}}}"#;
        let _ = post("/v1beta/models/m:countTokens").read_body_with(body, Some(&mut found));
        assert_eq!(found, RequestDetails::default());
    }

    #[test]
    fn a_stream_is_an_array_unless_it_asks_for_events() {
        assert_eq!(post("/v1/models/m:streamGenerateContent").streaming(), Streaming::Array);
        assert_eq!(post("/v1/models/m:streamGenerateContent?key=k&alt=sse").streaming(), Streaming::Sse);
        assert_eq!(post("/v1/models/m:generateContent?alt=sse").streaming(), Streaming::No);
        assert_eq!(get("/v1/interactions/i:stream").streaming(), Streaming::Sse);
        assert_eq!(get("/v1/interactions/i?stream=true").streaming(), Streaming::Sse);
        assert_eq!(post("/v1/projects/p/locations/l/interactions:createStream").streaming(), Streaming::Sse);
        assert_eq!(post("/v1/reasoningEngines/e:streamQuery?alt=sse").streaming(), Streaming::Sse);
    }

    #[test]
    fn only_what_may_be_repeated_may_be_repeated() {
        assert_eq!(post("/v1/models/m:countTokens").idempotency(), Idempotency::Safe);
        assert_eq!(post("/v1/models/m:generateContent").idempotency(), Idempotency::Billed);
        assert_eq!(post("/v1/models/m:batchGenerateContent").idempotency(), Idempotency::Unsafe);
        assert_eq!(post("/v1beta/interactions").idempotency(), Idempotency::Unsafe);
        assert_eq!(post("/unknown").idempotency(), Idempotency::Unsafe);
    }

    #[test]
    fn the_body_says_what_the_uri_cannot() {
        let body =
            br#"{"messages":[{"role":"user","content":"stream"}],"model":"models/gemini-2.5-pro","stream":true}"#;
        let call = post("/v1beta/openai/chat/completions").read_body(body);
        assert_eq!((call.model(), call.streaming()), (Some("gemini-2.5-pro"), Streaming::Sse));
        // Nor does a name that is no text hide the model.
        let call = post("/v1beta/openai/chat/completions").read_body(br#"{"\ud800":1,"model":"b"}"#);
        assert_eq!(call.model(), Some("b"));
        // Nobody reads the limits of the first model away by naming a second one.
        let call = post("/v1beta/openai/chat/completions").read_body(br#"{"model":"a","model":"b"}"#);
        assert_eq!(call.model(), Some("b"));
        let call = post("/v1beta/openai/chat/completions").read_body(b"{\"model\": ");
        assert_eq!((call.model(), call.streaming()), (None, Streaming::No));
        let call = post("/v1beta/models/m:generateContent").read_body(body);
        assert_eq!((call.model(), call.streaming()), (Some("m"), Streaming::No));
    }

    #[test]
    fn an_interaction_is_read_from_its_body() {
        let read = |body: &str| post("/v1/interactions").read_body(body.as_bytes());
        let plain = read(r#"{"model": "gemini-2.5-flash", "input": "hi", "service_tier": "flex"}"#);
        assert_eq!((plain.model(), plain.agent(), plain.quota_name()), (Some("gemini-2.5-flash"), None, plain.model()));
        assert_eq!((plain.service_tier(), plain.requests()), (ServiceTier::Flex, 1));
        let agent = read(r#"{"agent": "deep-research", "input": "hi"}"#);
        assert_eq!((agent.model(), agent.agent()), (None, Some("deep-research")));
        assert_eq!(agent.quota_name(), Some("agents/deep-research"));
        assert_eq!(agent.with_model("m").quota_name(), Some("m"));
        // A name is kept in maps and shown.
        let long = read(&format!(r#"{{"model":"{}"}}"#, "é".repeat(100_000)));
        assert_eq!(long.model().map(str::len), Some(512));
    }

    #[test]
    fn an_interaction_that_is_kept_nowhere_is_only_billed() {
        use Idempotency::{Billed, Unsafe};
        for (body, expected) in [
            (r#"{"model":"m"}"#, (Unsafe, true)),
            (r#"{"model":"m","store":null}"#, (Unsafe, true)),
            (r#"{"model":"m","store":false}"#, (Billed, false)),
            (r#"{"model":"m","store":true}"#, (Unsafe, false)),
            (r#"{"model":"m","store":false,"background":true}"#, (Unsafe, false)),
            (r#"{"model":"m","store":false,"previous_interaction_id":"i"}"#, (Unsafe, false)),
            (r#"{"model":"m","previousInteractionId":"i"}"#, (Unsafe, false)),
            (r#"{"agent":"a"}"#, (Unsafe, false)),
            ("no JSON", (Unsafe, false)),
        ] {
            for path in ["/v1/interactions", "/v1beta/openai/responses"] {
                let call = post(path).read_body(body.as_bytes());
                assert_eq!((call.idempotency(), call.may_repeat_after_error()), expected, "{path} {body}");
            }
        }
        // They are kept on the Developer API alone.
        let response = post("/v1/projects/p/locations/l/endpoints/openapi/responses").read_body(br#"{"model":"m"}"#);
        assert_eq!((response.idempotency(), response.may_repeat_after_error()), (Billed, false));
    }

    #[test]
    fn tier_grounding_and_items_are_read_in_both_spellings() {
        let generate = |body: &str| post("/v1beta/models/m:generateContent").read_body(body.as_bytes());
        for (body, tier) in [
            (r#"{"contents":[],"serviceTier":"flex"}"#, ServiceTier::Flex),
            (r#"{"service_tier":"SERVICE_TIER_PRIORITY"}"#, ServiceTier::Priority),
            (r#"{"serviceTier":"Deferred"}"#, ServiceTier::Deferred),
            (r#"{"serviceTier":"galactic"}"#, ServiceTier::Standard),
            (r#"{"serviceTier":"priority","service_tier":"flex","tools":[]}"#, ServiceTier::Flex),
            (r#"{"serviceTier":7}"#, ServiceTier::Standard),
            (r#"{"service\u0054ier":"flex"}"#, ServiceTier::Flex),
            (r#"{"\u0073ervice_tier" : "flex"}"#, ServiceTier::Flex),
            (r#"{"contents":[{"serviceTier":"flex"}]}"#, ServiceTier::Standard),
            (r#"{"contents":[]}"#, ServiceTier::Standard),
        ] {
            assert_eq!(generate(body).service_tier(), tier, "{body}");
        }
        for (body, grounded) in [
            (r#"{"tools":[{"functionDeclarations":[]},{"googleSearch":{}}]}"#, true),
            (r#"{"tools":[{"google_search":{"a":1},"google_maps":{}}]}"#, true),
            (r#"{"tools":[{"googleMaps":{}}]}"#, true),
            (r#"{"tools":[{"g\u006fogleSearch":{}}]}"#, true),
            (r#"{"tools":[],"tools":[{"googleMaps":{},"google_maps":{}}]}"#, true),
            (r#"{"tools":[{"googleSearchRetrieval":{}}]}"#, true),
            (r#"{"tools":[{"functionDeclarations":[{"name":"google_search"}]}]}"#, false),
            (r#"{"contents":[{"text":"googleSearch"}]}"#, false),
            (r#"{"tools":[{"urlContext":{}}]}"#, false),
        ] {
            assert_eq!(generate(body).is_grounded(), grounded, "{body}");
        }
        let interaction = br#"{"model":"m","tools":[{"type":"google_search"}]}"#;
        assert!(post("/v1/interactions").read_body(interaction).is_grounded());

        let batch = |body: &str| post("/v1/models/e:batchEmbedContents").read_body(body.as_bytes()).requests();
        assert_eq!([batch(r#"{"requests":[{},{"a":[1,2]},{}]}"#), batch(r#"{"requests":[]}"#), batch("[")], [3, 1, 1]);
    }

    #[test]
    fn a_tier_is_written_and_nothing_else() {
        let write = |body: &str, tier| Call::body_with_service_tier(body.as_bytes(), tier);
        let priority = ServiceTier::Priority;
        assert_eq!(write(r#" {"a": 1e400}"#, priority).unwrap(), r#" {"service_tier":"priority","a": 1e400}"#);
        assert_eq!(write(r#"{ "serviceTier" : "flex" }"#, priority).unwrap(), r#"{ "serviceTier" : "priority" }"#);
        assert_eq!(write("{ }", priority).unwrap(), r#"{"service_tier":"priority" }"#);
        assert_eq!((write("[1]", priority), write("", priority)), (None, None));
    }

    #[test]
    fn another_model_changes_nothing_else() {
        let swap = |uri: &str| Call::uri_with_model(&uri.parse().unwrap(), "other-1.0").map(|uri| uri.to_string());
        assert_eq!(
            swap("/v1/models/m:generateContent?key=a%20b").as_deref(),
            Some("/v1/models/other-1.0:generateContent?key=a%20b")
        );
        assert_eq!(
            swap("https://h:1/x/v1/projects/p/locations/l/publishers/google/models/m:generateContent").as_deref(),
            Some("https://h:1/x/v1/projects/p/locations/l/publishers/google/models/other-1.0:generateContent"),
        );
        assert_eq!(
            swap("/v1beta/tunedModels/t:generateContent").as_deref(),
            Some("/v1beta/models/other-1.0:generateContent")
        );
        assert_eq!(
            swap("/v1/projects/p/locations/l/endpoints/7:generateContent").as_deref(),
            Some("/v1/projects/p/locations/l/publishers/google/models/other-1.0:generateContent"),
        );
        assert_eq!(swap("/v1beta/files"), None);
        // It is looked at, not called.
        assert_eq!(swap("/v1/projects/p/locations/l/endpoints/7"), None);
        assert_eq!(Call::uri_with_model(&"/v1/models/m:generateContent".parse().unwrap(), "a/b?c"), None);

        let body = br#"{ "x": {"model": "inner"}, "model" : "models/m", "y": 1e400 }"#;
        let new = Call::body_with_model(body, "other").unwrap();
        assert_eq!(&new[..], br#"{ "x": {"model": "inner"}, "model" : "models/other", "y": 1e400 }"#);
        assert_eq!(Call::body_with_model(b"{}", "other"), None);
        assert_eq!(Call::body_with_model(br#"["models/m", true]"#, "other"), None);
        assert_eq!(Call::body_with_model(b"\xff", "other"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_path_panics(path in "/[ -~]{0,80}", model in ".{0,12}") {
            if let Ok(uri) = path.parse::<Uri>() {
                let _ = Call::new(&Method::POST, &uri).read_body(path.as_bytes());
                let _ = Call::new(&Method::GET, &uri);
                let _ = Call::uri_with_model(&uri, &model);
            }
        }
    }
}
