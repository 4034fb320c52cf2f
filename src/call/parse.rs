//! Takes a request's path apart.

use std::{borrow::Cow, ops::Range};

use http::{Method, Uri};
use memchr::{memchr, memchr3};

use super::{Idempotency, Operation, Shape, Streaming, Surface, verbs};

/// A path that has been taken apart, borrowed.
#[derive(Debug, PartialEq)]
pub(super) struct Parsed<'a> {
    pub(super) shape: Shape,
    pub(super) model: Option<Cow<'a, str>>,
    /// The place of `models/{model}` in the path.
    pub(super) model_span: Option<Range<usize>>,
}

impl<'a> Parsed<'a> {
    #[inline]
    pub(super) fn new(method: &Method, uri: &'a Uri) -> Self {
        Self::plain(uri).unwrap_or_else(|| Self::any(method, uri))
    }

    /// Reads the paths that nearly all calls have, `/v1beta/models/{model}:{method}`, at a fifth of the price. `None`
    /// means only that the path needs a closer look.
    pub(super) fn plain(uri: &'a Uri) -> Option<Self> {
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
        let shape = Shape { streaming, ..Shape::of(Surface::Developer, operation) };
        let model_span = Some(start - "models/".len()..start + colon);
        Some(Self { shape, model: Some(Cow::Borrowed(&tail[..colon])), model_span })
    }

    /// Reads any path.
    pub(super) fn any(method: &Method, uri: &'a Uri) -> Self {
        let reads = method == Method::GET || method == Method::HEAD || method == Method::OPTIONS;
        let path = uri.path();
        let Some((version_start, after_version)) = version(path) else {
            return Self::unnamed(Surface::Other, if reads { Operation::Read } else { Operation::Write });
        };
        let rest = &path[after_version..];
        if let Some(open_ai) = open_ai_path(rest) {
            return Self::open_ai(reads, open_ai);
        }
        // Vertex has the location before it.
        let resource = location(rest).map_or(rest, |(_, behind)| behind);
        if let Some(interaction) = interaction(resource) {
            return Self::interactions(reads, interaction, uri.query());
        }
        let surface = surface(&path[version_start..after_version], rest);
        if path[..version_start].ends_with("/upload/") {
            return Self::unnamed(surface, if reads { Operation::Read } else { Operation::Upload });
        }
        if !reads && rest.trim_end_matches('/') == "decisions" {
            let mut decision = Self::unnamed(surface, Operation::GenerateContent);
            decision.shape.model_in_body = true;
            return decision;
        }
        Self::named(reads, surface, uri, after_version)
    }

    /// Reads `…/models/{model}:{method}`, `…/tunedModels/…`, `…/dynamic/…`, `…/endpoints/…`, and everything that names
    /// no model.
    fn named(reads: bool, surface: Surface, uri: &'a Uri, from: usize) -> Self {
        let path = uri.path();
        let Some((collection, name_start)) = ["models/", "tunedModels/", "dynamic/", "endpoints/"]
            .into_iter()
            .find_map(|collection| Some((collection, from + position_after(&path[from..], collection)?)))
        else {
            let lists = reads && path[from..].trim_end_matches('/').rsplit('/').next() == Some("models");
            // A Vertex project's own models are no models of Google's.
            if lists && (surface != Surface::Vertex || path[from..].starts_with("publishers/")) {
                return Self::unnamed(surface, Operation::ListModels);
            }
            let shape = unnamed_shape(reads, surface, path, verb_of(&path[from..]));
            return Self { shape, model: None, model_span: None };
        };
        let tail = &path[name_start..];
        // Some clients escape the colon.
        let colon = || cut(tail, b':').or_else(|| tail.split_once("%3A")).or_else(|| tail.split_once("%3a"));
        let (name, action) = colon().map_or((tail, None), |(name, action)| (name, Some(action)));
        // `models/{model}/operations/…` and the like name something that belongs to the model, and do not call it.
        let (bare, nested) = cut(name, b'/').map_or((name, None), |(bare, nested)| (bare, Some(nested)));
        let action = action.map(|action| action.trim_end_matches('/'));
        let invoked = !reads && nested.is_some_and(is_invoked);
        let computes = action.filter(|_| nested.is_none()).and_then(verbs::computes);
        let owns = surface != Surface::Vertex || path[from..].contains("publishers/");
        let mut shape = match computes {
            Some(operation) => Shape::of(surface, operation),
            None if invoked => Shape::of(surface, Operation::Predict),
            None if reads && owns && nested.is_none() && action.is_none() && collection != "endpoints/" => {
                Shape::of(surface, Operation::GetModel)
            }
            None => unnamed_shape(reads, surface, path, action),
        };
        let streaming = action.map_or(Streaming::No, verbs::streaming);
        shape.streaming = match streaming {
            Streaming::Array if asks_for_sse(uri.query()) => Streaming::Sse,
            streaming => streaming,
        };
        let model = match collection {
            "models/" => percent_decoded(bare),
            _ => Cow::Owned(format!("{collection}{}", percent_decoded(bare))),
        };
        let span = name_start - collection.len()..name_start + bare.len();
        let calls = nested.is_none() || nested.is_some_and(|nested| nested.starts_with("invoke"));
        let model_span = (calls && !bare.is_empty()).then_some(span);
        Self { shape, model: (!bare.is_empty()).then_some(model), model_span }
    }

    /// Reads Interactions: `interactions`, and what follows it.
    fn interactions(reads: bool, path: &str, query: Option<&str>) -> Self {
        let (path, verb) = cut(path, b':').map_or((path, None), |(path, verb)| (path, Some(verb)));
        let creates = path.trim_matches('/').is_empty() && matches!(verb, None | Some("create" | "createStream"));
        let operation = match reads {
            true => Operation::Read,
            false if creates => Operation::CreateInteraction,
            false => Operation::Write,
        };
        let mut parsed = Self::unnamed(Surface::Interactions, operation);
        parsed.shape.model_in_body = operation == Operation::CreateInteraction;
        let asks = |query: &str| query.split('&').any(|pair| pair == "stream=true");
        if verb == Some("createStream") || (reads && query.is_some_and(asks)) {
            parsed.shape.streaming = Streaming::Sse;
        }
        parsed
    }

    /// Reads the OpenAI-compatible paths, where the model stands in the body unless a GET, or an endpoint, names it.
    fn open_ai(reads: bool, OpenAiPath { path, endpoint, keeps }: OpenAiPath<'a>) -> Self {
        let path = path.trim_end_matches('/');
        let operation = match (reads, path) {
            (false, "chat/completions" | "completions" | "responses" | "responses/compact") => {
                Operation::GenerateContent
            }
            (false, "responses/input_tokens") => Operation::CountTokens,
            (false, "embeddings") => Operation::EmbedContent,
            (false, "images/generations" | "images/edits" | "images/variations") => Operation::Predict,
            (true, "models") => Operation::ListModels,
            (true, path) if path.starts_with("models/") => Operation::GetModel,
            (true, _) => Operation::Read,
            (false, _) => Operation::Write,
        };
        let model = match operation {
            Operation::GetModel => path.strip_prefix("models/").map(|name| match percent_decoded(name) {
                Cow::Borrowed(name) => Cow::Borrowed(bare_model(name)),
                Cow::Owned(name) => Cow::Owned(bare_model(&name).to_owned()),
            }),
            _ => endpoint.map(|id| Cow::Owned(format!("endpoints/{}", percent_decoded(id)))),
        };
        let mut parsed = Self { model, ..Self::unnamed(Surface::OpenAi, operation) };
        parsed.shape.model_in_body = !reads;
        if keeps && path == "responses" && !reads {
            parsed.shape.idempotency = Idempotency::Unsafe;
        }
        parsed
    }

    fn unnamed(surface: Surface, operation: Operation) -> Self {
        Self { shape: Shape::of(surface, operation), model: None, model_span: None }
    }
}

/// Reads a request that does not compute with a model, by its verb.
fn unnamed_shape(reads: bool, surface: Surface, path: &str, verb: Option<&str>) -> Shape {
    match (reads, verb) {
        (false, Some(verb)) => verbs::posted(surface, path, verb),
        (false, None) => Shape::of(surface, Operation::Write),
        (true, Some(verb)) if verbs::changes(verb) => Shape::of(surface, Operation::Write),
        (true, _) => Shape::of(surface, Operation::Read),
    }
}

/// Returns the verb at the end of a path.
fn verb_of(path: &str) -> Option<&str> {
    let last = path.trim_end_matches('/').rsplit('/').next()?;
    cut(last, b':').map(|(_, verb)| verb)
}

/// Returns whether a path below a model or an endpoint calls it: `invoke/{path}`, `deployedModels/{id}/invoke/{path}`.
fn is_invoked(nested: &str) -> bool {
    let mut segments = nested.split('/');
    match segments.next() {
        Some("invoke") => true,
        Some("deployedModels") => segments.nth(1) == Some("invoke"),
        _ => false,
    }
}

/// The part of a path that OpenAI's API has.
struct OpenAiPath<'a> {
    path: &'a str,
    /// The endpoint whose model answers, where the body names none.
    endpoint: Option<&'a str>,
    /// Set if responses are kept unless the body says otherwise.
    keeps: bool,
}

/// Finds the part of a path that OpenAI's API has: `openai/…`, `endpoints/{id}/chat/completions`,
/// `publishers/{publisher}/v1/responses`.
fn open_ai_path(rest: &str) -> Option<OpenAiPath<'_>> {
    if let Some(path) = after(rest, "openai/") {
        return Some(OpenAiPath { path, endpoint: None, keeps: true });
    }
    if let Some(path) = after(rest, "openapi/") {
        return Some(OpenAiPath { path, endpoint: None, keeps: false });
    }
    if let Some((id, path)) = after(rest, "endpoints/").and_then(|path| cut(path, b'/'))
        && matches!(path.trim_end_matches('/'), "chat/completions" | "completions" | "embeddings" | "responses")
    {
        return Some(OpenAiPath { path, endpoint: Some(id), keeps: false });
    }
    let (_, path) = after(rest, "publishers/").and_then(|path| cut(path, b'/'))?;
    let path = path.strip_prefix("v1/").filter(|path| path.split('/').next() == Some("responses"))?;
    Some(OpenAiPath { path, endpoint: None, keeps: false })
}

/// Returns what follows `interactions`, with which a path begins.
fn interaction(path: &str) -> Option<&str> {
    let behind = path.strip_prefix("interactionsHttp").or_else(|| path.strip_prefix("interactions"))?;
    matches!(behind.as_bytes().first(), None | Some(b'/' | b':')).then_some(behind)
}

/// Cuts a path of Vertex AI behind its location: `projects/{project}/locations/{location}/`.
fn location(path: &str) -> Option<(&str, &str)> {
    let at = position_after(path, "locations/")?;
    let end = at + memchr(b'/', &path.as_bytes()[at..])? + 1;
    Some((&path[..end], &path[end..]))
}

/// Decides whose API a path is: the Developer API's, or Vertex AI's, whose express mode leaves out project and location.
///
/// Both have `models`, `agents` and `operations`. Of a version that both have, Vertex AI has everything that the
/// Developer API has not.
fn surface(version: &str, rest: &str) -> Surface {
    const DEVELOPER: [&str; 21] = [
        "agents",
        "auth_tokens",
        "batches",
        "cachedContents",
        "corpora",
        "credentials",
        "decisions",
        "dynamic",
        "environments",
        "fileSearchStores",
        "files",
        "generatedFiles",
        "media",
        "models",
        "operations",
        "permissions",
        "ragStores",
        "triggers",
        "tunedModels",
        "voices",
        "webhooks",
    ];
    /// Of other makers' APIs, which relays are asked for as well.
    const OTHERS: [&str; 9] =
        ["audio", "chat", "completions", "embeddings", "images", "messages", "moderations", "responses", "videos"];
    let version = version.trim_end_matches(['/', ':']);
    let mut segments = rest.split('/').filter(|segment| !segment.is_empty());
    let Some(first) = segments.next() else { return Surface::Developer };
    let (first, verb) = cut(first, b':').map_or((first, None), |(first, verb)| (first, Some(verb)));
    let shared = matches!(version, "v1" | "v1beta1");
    if matches!(first, "projects" | "publishers" | "locations") {
        return Surface::Vertex;
    }
    if !shared || OTHERS.contains(&first) {
        return Surface::Developer;
    }
    if !DEVELOPER.contains(&first) {
        // In `v1beta1` it is always below a project.
        let developer = first == "batchPredictionJobs" && version == "v1beta1";
        return if developer { Surface::Developer } else { Surface::Vertex };
    }
    let waits = rest.ends_with(":wait");
    let vertex = match first {
        "models" | "agents" => {
            let nested = segments.nth(1);
            waits || nested == Some("evaluations") || (version == "v1beta1" && nested == Some("operations"))
        }
        "operations" => waits || version == "v1beta1",
        _ => false,
    };
    if vertex && verb.is_none() { Surface::Vertex } else { Surface::Developer }
}

/// Finds the version segment (`v1`, `v1beta`, `v1beta1`, `v1alpha`), and returns its place and that of what follows it.
fn version(path: &str) -> Option<(usize, usize)> {
    let mut start = 0;
    loop {
        let rest = path.get(start..)?;
        let end = memchr(b'/', rest.as_bytes());
        let segment = end.map_or(rest, |end| &rest[..end]);
        // `/v1:evaluateInstances`
        if let Some((before, _)) = cut(segment, b':').filter(|(before, _)| is_version(before)) {
            return Some((start, start + before.len()));
        }
        if is_version(segment) {
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
pub(super) fn bare_model(name: &str) -> &str {
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
