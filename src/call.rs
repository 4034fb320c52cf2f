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

use std::{borrow::Cow, ops::Range, sync::Arc};

use bytes::Bytes;
use http::{Method, Uri, uri::PathAndQuery};
use memchr::{memchr, memchr3};
use serde::Deserialize;
use serde_json::value::RawValue;

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

    /// Returns whether the same request may be sent again.
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
    /// In one piece.
    No,
    /// As server-sent events.
    Sse,
    /// As one JSON array, element by element: `streamGenerateContent` without `alt=sse`.
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

// === impl Parsed ===

/// A path that has been taken apart, borrowed.
#[derive(Debug, PartialEq)]
struct Parsed<'a> {
    shape: Shape,
    model: Option<Cow<'a, str>>,
    /// The place of `models/{model}` in the path.
    model_span: Option<Range<usize>>,
}

impl<'a> Parsed<'a> {
    fn new(method: &Method, uri: &'a Uri) -> Self {
        Self::plain(uri).unwrap_or_else(|| Self::any(method, uri))
    }

    /// Reads the paths that nearly all calls have, `/v1beta/models/{model}:{method}`, at a fifth of the price. `None`
    /// means only that the path needs a closer look.
    fn plain(uri: &'a Uri) -> Option<Self> {
        let path = uri.path();
        let start = ["/v1beta/models/", "/v1/models/"].into_iter().find(|start| path.starts_with(start))?.len();
        let tail = &path[start..];
        let colon = memchr3(b':', b'/', b'%', tail.as_bytes()).filter(|at| *at > 0 && tail.as_bytes()[*at] == b':')?;
        let (operation, streaming) = match &tail[colon + 1..] {
            "generateContent" => (Operation::GenerateContent, Streaming::No),
            "streamGenerateContent" if asks_for_sse(uri.query()) => (Operation::GenerateContent, Streaming::Sse),
            "streamGenerateContent" => (Operation::GenerateContent, Streaming::Array),
            "embedContent" => (Operation::EmbedContent, Streaming::No),
            "countTokens" => (Operation::CountTokens, Streaming::No),
            _ => return None,
        };
        let shape = Shape { surface: Surface::Developer, operation, streaming, idempotency: operation.idempotency() };
        let model_span = Some(start - "models/".len()..start + colon);
        Some(Self { shape, model: Some(Cow::Borrowed(&tail[..colon])), model_span })
    }

    /// Reads any path.
    fn any(method: &Method, uri: &'a Uri) -> Self {
        let reads = method == Method::GET || method == Method::HEAD || method == Method::OPTIONS;
        let path = uri.path();
        let Some((version_start, after_version)) = version(path) else {
            return Self::unnamed(Surface::Other, if reads { Operation::Read } else { Operation::Write });
        };
        let rest = &path[after_version..];
        let segments = || rest.split('/').filter(|segment| !segment.is_empty());

        if let Some(openai) = after(rest, "openai/").or_else(|| after(rest, "openapi/")) {
            return Self::open_ai(reads, openai);
        }
        if segments().next() == Some("interactions") {
            let operation = match reads {
                true => Operation::Read,
                false if segments().nth(1).is_none() => Operation::CreateInteraction,
                false => Operation::Write,
            };
            return Self::unnamed(Surface::Interactions, operation);
        }
        let surface = match segments().next() {
            Some("projects" | "publishers" | "locations") => Surface::Vertex,
            _ => Surface::Developer,
        };
        if path[..version_start].ends_with("/upload/") {
            return Self::unnamed(surface, if reads { Operation::Read } else { Operation::Upload });
        }
        Self::named(reads, surface, uri, after_version)
    }

    /// Reads `…/models/{model}:{method}`, `…/tunedModels/…`, `…/endpoints/…`, and everything that names no model.
    fn named(reads: bool, surface: Surface, uri: &'a Uri, from: usize) -> Self {
        let path = uri.path();
        let Some((collection, name_start)) = ["models/", "tunedModels/", "endpoints/"]
            .into_iter()
            .find_map(|collection| Some((collection, from + position_after(&path[from..], collection)?)))
        else {
            let lists = reads && path[from..].trim_end_matches('/').rsplit('/').next() == Some("models");
            let operation = match reads {
                _ if lists => Operation::ListModels,
                true => Operation::Read,
                false => Operation::Write,
            };
            return Self::unnamed(surface, operation);
        };
        let tail = &path[name_start..];
        // Some clients escape the colon.
        let colon = || cut(tail, b':').or_else(|| tail.split_once("%3A")).or_else(|| tail.split_once("%3a"));
        let (name, action) = colon().map_or((tail, None), |(name, action)| (name, Some(action)));
        let span = name_start - collection.len()..name_start + name.len();
        // `models/{model}/operations/…` and the like name something that belongs to the model, and are no call to it.
        let (bare, nested) = cut(name, b'/').map_or((name, false), |(bare, _)| (bare, true));
        let action = action.map(|action| action.trim_end_matches('/'));
        let operation = match action {
            Some("generateContent" | "streamGenerateContent") => Operation::GenerateContent,
            Some("embedContent") => Operation::EmbedContent,
            Some("batchEmbedContents") => Operation::BatchEmbedContents,
            Some("countTokens") => Operation::CountTokens,
            Some("computeTokens") => Operation::ComputeTokens,
            Some("predict") => Operation::Predict,
            // This POST only asks how far a long-running prediction is.
            Some("fetchPredictOperation") => Operation::Read,
            Some(_) => Operation::Write,
            None if !reads => Operation::Write,
            None if nested => Operation::Read,
            None => Operation::GetModel,
        };
        let streaming = match action {
            Some("streamGenerateContent") if asks_for_sse(uri.query()) => Streaming::Sse,
            Some("streamGenerateContent") => Streaming::Array,
            _ => Streaming::No,
        };
        let model = match collection {
            "models/" => percent_decoded(bare),
            _ => Cow::Owned(format!("{collection}{}", percent_decoded(bare))),
        };
        let shape = Shape { surface, operation, streaming, idempotency: operation.idempotency() };
        let model_span = (!nested && !bare.is_empty()).then_some(span);
        Self { shape, model: (!bare.is_empty()).then_some(model), model_span }
    }

    /// Reads the OpenAI-compatible paths, where the model stands in the body unless a GET names it.
    fn open_ai(reads: bool, path: &'a str) -> Self {
        let path = path.trim_end_matches('/');
        let operation = match (reads, path) {
            (false, "chat/completions" | "completions") => Operation::GenerateContent,
            (false, "embeddings") => Operation::EmbedContent,
            (false, "images/generations") => Operation::Predict,
            (true, "models") => Operation::ListModels,
            (true, path) if path.starts_with("models/") => Operation::GetModel,
            (true, _) => Operation::Read,
            (false, _) => Operation::Write,
        };
        let model = match operation {
            Operation::GetModel => path.strip_prefix("models/").map(percent_decoded),
            _ => None,
        };
        Self { model, ..Self::unnamed(Surface::OpenAi, operation) }
    }

    fn unnamed(surface: Surface, operation: Operation) -> Self {
        let shape = Shape { surface, operation, streaming: Streaming::No, idempotency: operation.idempotency() };
        Self { shape, model: None, model_span: None }
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

/// Finds the version segment (`v1`, `v1beta`, `v1beta1`, `v1alpha`), and returns its place and that of what follows it.
fn version(path: &str) -> Option<(usize, usize)> {
    let mut start = 0;
    loop {
        let rest = path.get(start..)?;
        let end = memchr(b'/', rest.as_bytes());
        if is_version(end.map_or(rest, |end| &rest[..end])) {
            return Some((start, end.map_or(path.len(), |end| start + end + 1)));
        }
        start += end? + 1;
    }
}

/// Returns whether a path segment is a version.
pub(crate) fn is_version(segment: &str) -> bool {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let Some(rest) = segment.strip_prefix('v') else { return false };
    let major = digits(rest);
    let rest = &rest[major..];
    let suffix = rest.strip_prefix("alpha").or_else(|| rest.strip_prefix("beta")).unwrap_or(rest);
    (1..=2).contains(&major) && digits(suffix) == suffix.len()
}

/// Returns what follows the first segment of that name.
fn after<'a>(path: &'a str, segment: &str) -> Option<&'a str> {
    position_after(path, segment).map(|at| &path[at..])
}

/// Finds a segment, written with its slash, and returns the place behind it.
fn position_after(path: &str, segment: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let rest = &path[from..];
        if rest.starts_with(segment) {
            return Some(from + segment.len());
        }
        from += memchr(b'/', rest.as_bytes())? + 1;
    }
}

/// Cuts a text at the first such byte, which has to be ASCII.
fn cut(text: &str, byte: u8) -> Option<(&str, &str)> {
    memchr(byte, text.as_bytes()).map(|at| (&text[..at], &text[at + 1..]))
}

/// Returns whether the query asks for server-sent events.
fn asks_for_sse(query: Option<&str>) -> bool {
    query.is_some_and(|query| {
        query.split('&').any(|pair| pair == "alt=sse" || pair == "%24alt=sse" || pair == "$alt=sse")
    })
}

/// Returns the bare name, which `models/gemini-2.5-pro`, `google/gemini-2.5-pro` and the full resource name all mean.
fn bare_model(name: &str) -> &str {
    match name.rsplit_once('/') {
        Some((collection, _)) if collection.ends_with("tunedModels") || collection.ends_with("endpoints") => name,
        Some((_, bare)) => bare,
        None => name,
    }
}

/// Decodes `%xx`, where `xx` are two hexadecimal digits (RFC 3986, section 2.1). Anything else stays as it is, and so
/// does a text that would not be UTF-8.
pub(crate) fn percent_decoded(text: &str) -> Cow<'_, str> {
    if memchr(b'%', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = match (first, after) {
            (b'%', [high, low, after @ ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| (high << 4 | low, after)),
            _ => None,
        };
        let (byte, after) = escaped.unwrap_or((*first, after));
        decoded.push(byte);
        rest = after;
    }
    String::from_utf8(decoded).map_or(Cow::Borrowed(text), Cow::Owned)
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
