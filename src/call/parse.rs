//! Takes a request's path apart.

use std::{borrow::Cow, ops::Range};

use http::{Method, Uri};
use memchr::{memchr, memchr3};

use super::{Operation, Shape, Streaming, Surface};

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
        let shape = Shape { surface: Surface::Developer, operation, streaming, idempotency: operation.idempotency() };
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
        // `models/{model}/operations/…` and the like name something that belongs to the model, and do not call it.
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
