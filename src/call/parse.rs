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
        let home = Home::of(rest);
        let resource = &rest[home.len..];
        if let Some(open_ai) = open_ai_path(&home, resource) {
            return Self::open_ai(reads, open_ai);
        }
        if let Some(interaction) = interaction(resource) {
            return Self::interactions(reads, interaction, uri.query());
        }
        let surface = match home.len {
            0 => surface(path[version_start..after_version].trim_end_matches('/'), rest),
            _ => Surface::Vertex,
        };
        if path[..version_start].ends_with("/upload/") {
            return Self::unnamed(surface, if reads { Operation::Read } else { Operation::Upload });
        }
        if !reads && resource.trim_end_matches('/') == "decisions" {
            let mut decision = Self::unnamed(surface, Operation::GenerateContent);
            decision.shape.model_in_body = true;
            return decision;
        }
        let is_googles = surface != Surface::Vertex || home.publisher.is_some();
        match MODELS.iter().find_map(|collection| Some((*collection, position_after(resource, collection)?))) {
            Some((collection, at)) => {
                let place = after_version + home.len + at - collection.len();
                Self::named(reads, surface, uri, place, collection, is_googles)
            }
            None => {
                let lists = reads && resource.trim_end_matches('/').rsplit('/').next() == Some("models");
                // A Vertex project's own models are no models of Google's.
                if lists && is_googles {
                    return Self::unnamed(surface, Operation::ListModels);
                }
                let shape = asked_for(unnamed_shape(reads, surface, path, verb_of(rest)), uri.query());
                Self { shape, model: None, model_span: None }
            }
        }
    }

    /// Reads `…/models/{model}:{method}`, `…/tunedModels/…`, `…/dynamic/…`, `…/endpoints/…`. `place` is that of the
    /// collection in the path.
    fn named(
        reads: bool,
        surface: Surface,
        uri: &'a Uri,
        place: usize,
        collection: &'static str,
        is_googles: bool,
    ) -> Self {
        let path = uri.path();
        let name_start = place + collection.len();
        let tail = &path[name_start..];
        // Some clients escape the colon.
        let colon = || cut(tail, b':').or_else(|| tail.split_once("%3A")).or_else(|| tail.split_once("%3a"));
        let (name, action) = colon().map_or((tail, None), |(name, action)| (name, Some(action)));
        // `models/{model}/operations/…` and the like name something that belongs to the model, and do not call it.
        let (bare, nested) = cut(name, b'/').map_or((name, None), |(bare, nested)| (bare, Some(nested)));
        let action = action.map(|action| action.trim_end_matches('/'));
        let computes = action.filter(|_| nested.is_none()).and_then(verbs::computes);
        let invoked = || !reads && nested.is_some_and(is_invoked);
        let is_model = || nested.is_none() && action.is_none() && collection != "endpoints/";
        let mut shape = match computes {
            Some(operation) => Shape::of(surface, operation),
            None if invoked() => Shape::of(surface, Operation::Predict),
            None if reads && is_googles && is_model() => Shape::of(surface, Operation::GetModel),
            None => unnamed_shape(reads, surface, path, action),
        };
        shape.streaming = action.map_or(Streaming::No, verbs::streaming);
        let shape = asked_for(shape, uri.query());
        let model = match collection {
            "models/" => percent_decoded(bare),
            _ => Cow::Owned([collection, &percent_decoded(bare)].concat()),
        };
        // An endpoint that is not called is none that another model could stand for.
        let calls = match nested {
            Some(nested) => nested.split('/').next() == Some("invoke"),
            None => computes.is_some() || collection != "endpoints/",
        };
        let model_span = (calls && !bare.is_empty()).then_some(place..name_start + bare.len());
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
        if matches!(verb, Some("createStream" | "stream")) || (reads && query.is_some_and(asks)) {
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
        (true, Some(verb)) => Shape { streaming: verbs::streaming(verb), ..Shape::of(surface, Operation::Read) },
        (true, None) => Shape::of(surface, Operation::Read),
    }
}

/// Turns a stream of JSON into one of events, where the query asks for that.
fn asked_for(shape: Shape, query: Option<&str>) -> Shape {
    match shape.streaming {
        Streaming::Array if asks_for_sse(query) => Shape { streaming: Streaming::Sse, ..shape },
        _ => shape,
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

/// Finds the part of a path that OpenAI's API has: `openai/…`, `endpoints/openapi/…`,
/// `endpoints/{id}/chat/completions`, `publishers/{publisher}/v1/responses`.
fn open_ai_path<'a>(home: &Home<'_>, resource: &'a str) -> Option<OpenAiPath<'a>> {
    let (first, rest) = cut(resource, b'/')?;
    match first {
        "openai" => Some(OpenAiPath { path: rest, endpoint: None, keeps: true }),
        "endpoints" => match cut(rest, b'/')? {
            ("openapi", path) => Some(OpenAiPath { path, endpoint: None, keeps: false }),
            (id, path) => {
                let path = path.trim_end_matches('/');
                let known = matches!(path, "chat/completions" | "completions" | "embeddings" | "responses");
                known.then_some(OpenAiPath { path, endpoint: Some(id), keeps: false })
            }
        },
        "v1" if home.publisher.is_some() && rest.split('/').next() == Some("responses") => {
            Some(OpenAiPath { path: rest, endpoint: None, keeps: false })
        }
        "models" | "files" | "tunedModels" => None,
        // Behind other segments, as some gateways write it.
        _ => after(rest, "openai/").map(|path| OpenAiPath { path, endpoint: None, keeps: true }),
    }
}

/// Returns what follows `interactions`, with which a path begins.
fn interaction(path: &str) -> Option<&str> {
    let behind = path.strip_prefix("interactionsHttp").or_else(|| path.strip_prefix("interactions"))?;
    matches!(behind.as_bytes().first(), None | Some(b'/' | b':')).then_some(behind)
}

/// The collections whose members are called as models are.
const MODELS: [&str; 4] = ["models/", "tunedModels/", "dynamic/", "endpoints/"];

/// The beginning of a path of Vertex AI: `projects/{project}/locations/{location}/publishers/{publisher}/`, of which
/// each part may be missing.
struct Home<'a> {
    len: usize,
    publisher: Option<&'a str>,
}

impl<'a> Home<'a> {
    fn of(rest: &'a str) -> Self {
        let mut home = Self { len: 0, publisher: None };
        if !rest.starts_with(['p', 'l']) {
            return home;
        }
        for part in ["projects/", "locations/", "publishers/"] {
            let Some(name) = rest[home.len..].strip_prefix(part) else { continue };
            let end = memchr(b'/', name.as_bytes()).unwrap_or(name.len());
            if part == "publishers/" {
                home.publisher = Some(&name[..end]);
            }
            // A verb on a location is no part of it: `locations/{location}:evaluateInstances`.
            home.len += part.len() + end + usize::from(end < name.len());
        }
        home
    }
}

/// Decides whose API a path is that has no [`Home`]: the Developer API's, or Vertex AI's, whose express mode leaves out
/// project and location.
///
/// Both have `models`, `agents` and `operations`. Of a version that both have, Vertex AI has everything that the
/// Developer API has not.
fn surface(version: &str, rest: &str) -> Surface {
    let first_end = rest.bytes().position(|byte| matches!(byte, b'/' | b':')).unwrap_or(rest.len());
    // A model may stand in the place of an endpoint, and both are Vertex AI's.
    if &rest[..first_end] == "endpoints" {
        return Surface::Vertex;
    }
    if !matches!(version, "v1" | "v1beta1") {
        return Surface::Developer;
    }
    let nested = || rest.split('/').nth(2);
    let waits = || rest.ends_with(":wait");
    let is_vertex = match &rest[..first_end] {
        "models" | "agents" => {
            waits() || nested() == Some("evaluations") || (version == "v1beta1" && nested() == Some("operations"))
        }
        "operations" => waits() || version == "v1beta1",
        "auth_tokens" | "batches" | "cachedContents" | "corpora" | "credentials" | "decisions" | "dynamic"
        | "environments" | "fileSearchStores" | "files" | "generatedFiles" | "media" | "permissions" | "ragStores"
        | "triggers" | "tunedModels" | "voices" | "webhooks" => false,
        // Of other makers' APIs, which relays are asked for as well.
        "audio" | "chat" | "completions" | "embeddings" | "images" | "messages" | "moderations" | "responses"
        | "videos" => false,
        // In `v1beta1` it is always below a project.
        "batchPredictionJobs" => version == "v1",
        "" => rest.starts_with(':'),
        _ => true,
    };
    if is_vertex { Surface::Vertex } else { Surface::Developer }
}

/// Finds the version segment (`v1`, `v1beta`, `v1beta1`, `v1alpha`), and returns its place and that of what follows it.
fn version(path: &str) -> Option<(usize, usize)> {
    let mut start = 0;
    loop {
        let rest = path.get(start..)?;
        let end = memchr(b'/', rest.as_bytes());
        let segment = end.map_or(rest, |end| &rest[..end]);
        if segment.starts_with('v') {
            // `/v1:evaluateInstances`
            let (name, verb) = cut(segment, b':').map_or((segment, false), |(name, _)| (name, true));
            if is_version(name) {
                let behind = if verb { start + name.len() } else { end.map_or(path.len(), |end| start + end + 1) };
                return Some((start, behind));
            }
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
