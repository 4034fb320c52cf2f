//! Reads what a request is: surface, model, operation, streaming, and whether it may be sent twice.
//!
//! Everything that a layer decides before the answer comes depends on this, and nearly all of it stands in the URI.
//! Only where the URI cannot say (the OpenAI-compatible surface and Interactions keep the model in the JSON body) does
//! [`Call::read_body`] look further. A URI that is not one of the API's is not an error: it makes a [`Surface::Other`]
//! call, which passes through.
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

mod parse;

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use http::{Method, Uri, uri::PathAndQuery};
use serde::Deserialize;
use serde_json::value::RawValue;

use self::parse::{Parsed, bare_model};
pub(crate) use self::parse::{is_version, percent_decoded};

/// A request, as far as a layer has to understand it.
///
/// Cheap to clone: the model's name is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    shape: Shape,
    model: Option<Arc<str>>,
}

impl Call {
    /// Reads what the method and the URI say. It never fails: a URI that is not understood makes a [`Surface::Other`]
    /// call.
    ///
    /// A path may carry a prefix before its version segment, as behind a relay: `/gemini/v1beta/models/…`.
    pub fn new(method: &Method, uri: &Uri) -> Self {
        let parsed = Parsed::new(method, uri);
        Self { shape: parsed.shape, model: parsed.model.map(Into::into) }
    }

    /// Reads from the JSON body what the URI cannot say: the model, and whether the answer streams.
    ///
    /// It reads only bodies of the OpenAI-compatible surface and of Interactions; for every other call the body is not
    /// touched. A body that is not JSON leaves the call as it was: judging it is the upstream's business.
    #[must_use]
    pub fn read_body(mut self, body: &[u8]) -> Self {
        if !self.speaks_in_body() {
            return self;
        }
        if let Some(head) = BodyHead::of(body) {
            if let Some(model) = head.model.and_then(|raw| serde_json::from_str::<Cow<'_, str>>(raw.get()).ok()) {
                self.model = Some(bare_model(&model).into());
            }
            if head.stream.is_some_and(|raw| raw.get() == "true") {
                self.shape.streaming = Streaming::Sse;
            }
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
        self.model.as_deref()
    }

    /// Returns the model's name, shared.
    pub(crate) fn shared_model(&self) -> Option<Arc<str>> {
        self.model.clone()
    }

    /// Turns the call to another model.
    #[must_use]
    pub fn with_model(mut self, model: impl Into<Arc<str>>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Returns whether the model, and the wish to stream, stand in the JSON body, so that [`Call::read_body`] is
    /// needed.
    pub fn speaks_in_body(&self) -> bool {
        self.shape.speaks_in_body()
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
        let mut text = String::with_capacity(path.len() + model.len() + query.map_or(0, str::len) + 9);
        text.push_str(&path[..span.start]);
        text.push_str("models/");
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
        let raw = BodyHead::of(body)?.model?.get();
        let old = serde_json::from_str::<Cow<'_, str>>(raw).ok()?;
        let collection = &old[..old.len() - bare_model(&old).len()];
        let new = serde_json::to_string(&format!("{collection}{model}")).ok()?;
        let start = (raw.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
        let (before, after) = (body.get(..start)?, body.get(start + raw.len()..)?);
        Some([before, new.as_bytes(), after].concat().into())
    }

    /// Reads what the method and the URI say. It borrows the model's name where it can, and then allocates nothing.
    pub(crate) fn borrowed<'a>(method: &Method, uri: &'a Uri) -> (Shape, Option<Cow<'a, str>>) {
        let parsed = Parsed::new(method, uri);
        (parsed.shape, parsed.model)
    }

    /// Puts a call together from what [`borrowed`](Self::borrowed) has read.
    pub(crate) fn from_parts(shape: Shape, model: Option<Arc<str>>) -> Self {
        Self { shape, model }
    }

    /// Returns the plain facts of the call.
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }
}

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
    /// `…/interactions`.
    Interactions,
    /// A URI that is not one of the API's. Such a call passes through.
    Other,
}

/// The operation that a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// `generateContent`, `streamGenerateContent`, `chat/completions`.
    GenerateContent,
    /// `embedContent`, `embeddings`.
    EmbedContent,
    /// `batchEmbedContents`.
    BatchEmbedContents,
    /// `predict`, `images/generations`.
    Predict,
    /// `countTokens`.
    CountTokens,
    /// `computeTokens`.
    ComputeTokens,
    /// `GET …/models`.
    ListModels,
    /// `GET …/models/{model}`.
    GetModel,
    /// `POST …/interactions`.
    CreateInteraction,
    /// `POST /upload/…`.
    Upload,
    /// Any other request that only reads.
    Read,
    /// Any other request that may change something: batches, tuning, cached contents, long-running predictions.
    Write,
}

impl Operation {
    fn pays_quota(self) -> bool {
        matches!(self, Self::GenerateContent | Self::EmbedContent | Self::BatchEmbedContents | Self::Predict)
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

/// The form in which an answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Streaming {
    /// An answer in one piece.
    No,
    /// An answer as server-sent events.
    Sse,
    /// An answer as one JSON array, element by element: `streamGenerateContent` without `alt=sse`.
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
    /// It creates or changes something. It may be repeated only when the upstream never got it, or answered 429 or 503
    /// in an error body.
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
}

impl Shape {
    /// Reads what a request is, without the model's name.
    pub(crate) fn new(method: &Method, uri: &Uri) -> Self {
        Parsed::new(method, uri).shape
    }

    pub(crate) fn pays_quota(self) -> bool {
        self.operation.pays_quota()
    }

    fn speaks_in_body(self) -> bool {
        let writes = !matches!(self.operation, Operation::Read | Operation::ListModels | Operation::GetModel);
        writes && matches!(self.surface, Surface::OpenAi | Surface::Interactions)
    }
}

/// The members of a JSON body that matter, each as it stands there; all others are skipped.
#[derive(Deserialize)]
struct BodyHead<'a> {
    #[serde(borrow, default)]
    model: Option<&'a RawValue>,
    #[serde(borrow, default)]
    stream: Option<&'a RawValue>,
}

impl<'a> BodyHead<'a> {
    fn of(body: &'a [u8]) -> Option<Self> {
        // serde would read a list as the members in their order.
        body.trim_ascii_start().first().filter(|byte| **byte == b'{')?;
        serde_json::from_slice(body).ok()
    }
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
    fn a_stream_is_an_array_unless_it_asks_for_events() {
        assert_eq!(post("/v1/models/m:streamGenerateContent").streaming(), Streaming::Array);
        assert_eq!(post("/v1/models/m:streamGenerateContent?key=k&alt=sse").streaming(), Streaming::Sse);
        assert_eq!(post("/v1/models/m:generateContent?alt=sse").streaming(), Streaming::No);
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
        let call = post("/v1beta/openai/chat/completions").read_body(b"{\"model\": ");
        assert_eq!((call.model(), call.streaming()), (None, Streaming::No));
        let call = post("/v1beta/models/m:generateContent").read_body(body);
        assert_eq!((call.model(), call.streaming()), (Some("m"), Streaming::No));
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
        assert_eq!(swap("/v1beta/files"), None);
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
