//! The paths of calls: the one form in which they are judged and sent, and those in which nobody can read a model.

use std::borrow::Cow;

use http::{Method, Request, Uri, uri::PathAndQuery};
use serde::Deserialize;
use tower_gemini::call::{Call, Operation, Surface};

/// The collections of the API in which a write makes no model compute, or only one that a caller may use by then.
const COLLECTIONS: [&str; 17] = [
    "agents",
    "batches",
    "cachedContents",
    "corpora",
    "credentials",
    "environments",
    "fileSearchStores",
    "files",
    "generatedFiles",
    "interactions",
    "media",
    "operations",
    "permissions",
    "ragStores",
    "tunedModels",
    "voices",
    "webhooks",
];

/// Words of which each verb that makes a model compute has one, in small letters.
const COMPUTES: [&str; 5] = ["generate", "predict", "embed", "counttokens", "computetokens"];

// === one form ===

/// Writes the escapes of letters, digits and `-._~` in a request's path as those characters. Both forms mean the same
/// (RFC 3986, section 2.3), and the upstream would read past an escape at which the relay stops.
pub(crate) fn unescape<B>(request: &mut Request<B>) {
    let uri = request.uri();
    let Some(path) = unescaped(uri.path()) else { return };
    let path = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = path.parse::<PathAndQuery>().ok();
    // A path with letters in the place of their escapes is one.
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

/// Names of a query's parameters that make another request of one than the one that was judged: another method, or
/// headers of it. Google's own web clients have the first two, where a browser would not let them set either.
const OTHER_REQUESTS: [&[u8]; 4] = [b"$httpmethod", b"$httpheaders", b"x-http-method-override", b"x-http-method"];

/// Takes the parameters out of a query that would make another request of this one.
pub(crate) fn drop_other_requests<B>(request: &mut Request<B>) {
    let uri = request.uri();
    let Some(query) = uri.query() else { return };
    let is_one = |pair: &&str| {
        let name = decoded(pair.split('=').next().unwrap_or_default()).to_ascii_lowercase();
        OTHER_REQUESTS.contains(&name.as_slice())
    };
    if !query.split('&').any(|pair| is_one(&pair)) {
        return;
    }
    let query = query.split('&').filter(|pair| !is_one(pair)).collect::<Vec<_>>().join("&");
    let separator = if query.is_empty() { "" } else { "?" };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = format!("{}{separator}{query}", uri.path()).parse::<PathAndQuery>().ok();
    // A part of a query is one.
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

/// Returns a path without such escapes, if it has any.
fn unescaped(path: &str) -> Option<String> {
    if !path.contains('%') {
        return None;
    }
    let mut parts = path.split('%');
    let mut plain = parts.next()?.to_owned();
    let mut has_changed = false;
    for part in parts {
        match escaped(part).filter(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)) {
            Some(byte) => {
                plain.push(char::from(byte));
                plain.push_str(&part[2..]);
                has_changed = true;
            }
            None => {
                plain.push('%');
                plain.push_str(part);
            }
        }
    }
    has_changed.then_some(plain)
}

/// Returns the byte of an escape, of which this is the rest behind the `%`.
fn escaped(rest: &str) -> Option<u8> {
    let digits = rest.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

/// Returns whether a path without needless escapes has a segment `.` or `..`, which would lead elsewhere than it seems.
/// Servers differ in what ends a segment; each of their ways counts.
pub(crate) fn has_dots(path: &str) -> bool {
    let begins_segment = |at: usize| at == 0 || matches!(path.as_bytes()[at - 1], b'/' | b'\\');
    if !path.contains('%') && !memchr::memchr_iter(b'.', path.as_bytes()).any(begins_segment) {
        return false;
    }
    let path = match path.contains('%') {
        true => path.to_ascii_lowercase().replace("%2f", "/").replace("%5c", "/").replace("%3b", ";").into(),
        false => Cow::Borrowed(path),
    };
    let mut segments = path.as_bytes().split(|byte| matches!(byte, b'/' | b'\\'));
    segments.any(|segment| matches!(segment.split(|byte| *byte == b';').next(), Some(b"." | b"..")))
}

// === models that nobody can read ===

/// Returns why a call cannot be judged for a caller that has limits, or may use only some models, if so.
pub(crate) fn unreadable(call: &Call, method: &Method, path: &str) -> Option<&'static str> {
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(method) {
        return None;
    }
    let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    if let Some((name, verb)) = verb(path)
        && COMPUTES.iter().any(|word| verb.to_ascii_lowercase().contains(word))
        && call.model().map(last) != Some(last(&String::from_utf8_lossy(&decoded(name))))
    {
        return Some("its path names no model that this relay can read");
    }
    let is_open = call.operation() == Operation::Write && call.quota_name().is_none();
    if !is_open || call.surface() == Surface::OpenAi {
        return None;
    }
    match collection(path) {
        Some(("auth_tokens", _)) => Some("a token of the API's own would go around this relay's limits"),
        Some(("triggers", _)) => Some("what a trigger calls would go around this relay's limits"),
        Some((name, _)) if COLLECTIONS.contains(&name) => None,
        _ => Some("its path is none that this relay knows"),
    }
}

/// Returns whether a call makes a cached content or a tuned model: its body names the model of which it is made.
pub(crate) fn makes_of_model(method: &Method, path: &str) -> bool {
    *method == Method::POST && matches!(collection(path), Some(("cachedContents" | "tunedModels", "")))
}

/// Reads the models of which a body makes something, or nothing if it cannot be read.
pub(crate) fn models_of(body: &[u8]) -> Vec<String> {
    #[derive(Default, Deserialize)]
    struct Made {
        model: Option<String>,
        #[serde(rename = "baseModel", alias = "base_model")]
        base: Option<String>,
        #[serde(rename = "tunedModelSource", alias = "tuned_model_source")]
        source: Option<Source>,
    }
    #[derive(Deserialize)]
    struct Source {
        #[serde(rename = "tunedModel", alias = "tuned_model")]
        tuned: Option<String>,
        #[serde(rename = "baseModel", alias = "base_model")]
        base: Option<String>,
    }
    let Made { model, base, source } = serde_json::from_slice(body).unwrap_or_default();
    let of_source = source.into_iter().flat_map(|Source { tuned, base }| [tuned, base]);
    let named = [model, base].into_iter().chain(of_source).flatten();
    named
        .map(|name| match name.rsplit_once('/') {
            Some((before, bare)) if before.ends_with("tunedModels") => format!("tunedModels/{bare}"),
            Some((_, bare)) => bare.to_owned(),
            None => name,
        })
        .collect()
}

/// Returns the verb at the end of a path, and the name before it.
fn verb(path: &str) -> Option<(&str, &str)> {
    let last = path.trim_end_matches('/').rsplit('/').next()?;
    // Some clients escape the colon.
    let at = [":", "%3A", "%3a"].into_iter().filter_map(|colon| Some((last.find(colon)?, colon.len()))).min()?;
    Some((&last[..at.0], &last[at.0 + at.1..]))
}

/// Returns the collection that a path names first behind its version, and what follows it.
fn collection(path: &str) -> Option<(&str, &str)> {
    let mut rest = path;
    loop {
        let (segment, behind) = rest.split_once('/')?;
        rest = behind;
        if is_version(segment) {
            break;
        }
    }
    for home in ["projects/", "locations/", "publishers/"] {
        if let Some(named) = rest.strip_prefix(home) {
            rest = named.split_once('/')?.1;
        }
    }
    let end = rest.find(['/', ':']).unwrap_or(rest.len());
    Some((&rest[..end], rest[end..].trim_matches('/')))
}

/// Returns whether a segment is a version: `v1`, `v1beta`, `v1alpha2`.
fn is_version(segment: &str) -> bool {
    let Some(rest) = segment.strip_prefix('v') else { return false };
    let rest = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let has_number = rest.len() + 1 < segment.len();
    let rest = rest.strip_prefix("alpha").or_else(|| rest.strip_prefix("beta")).unwrap_or(rest);
    has_number && rest.bytes().all(|byte| byte.is_ascii_digit())
}

/// Decodes percent escapes, as bytes: neither a token nor a path need be text.
pub(crate) fn decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    let hex = |byte: &u8| char::from(*byte).to_digit(16);
    while let [first, after @ ..] = rest {
        let escaped = match after {
            [high, low, after @ ..] if *first == b'%' => hex(high).zip(hex(low)).map(|digits| (digits, after)),
            _ => None,
        };
        match escaped {
            Some(((high, low), after)) => {
                decoded.extend(u8::try_from(high << 4 | low));
                rest = after;
            }
            None => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_form_whatever_is_escaped_in_it() {
        for (path, plain) in [
            ("/v1beta/mod%65ls/%67emini%2D2.5:x", Some("/v1beta/models/gemini-2.5:x")),
            ("/v1beta/a%2e%2E/b", Some("/v1beta/a../b")),
            ("/v1beta/models/a%3Ab%2Fc%20d%", None),
            ("/v1beta/a%2565", None),
            ("/v1beta/a%é", None),
            ("/v1beta/a", None),
        ] {
            assert_eq!(unescaped(path).as_deref(), plain, "{path}");
        }
        let mut request = Request::get("http://a.example/%61?b=%61").body(()).expect("a request");
        unescape(&mut request);
        assert_eq!(request.uri(), "http://a.example/a?b=%61");
    }

    #[test]
    fn no_query_makes_another_request_of_one() {
        for (uri, becomes) in [
            ("/a?$httpMethod=DELETE", "/a"),
            ("http://a.example/a?b=1&%24HTTPmethod=PUT&c=%20", "http://a.example/a?b=1&c=%20"),
            ("/a?x-http-method-override=GET&$httpMethod", "/a"),
            ("/a?%24httpHeaders=X-HTTP-Method-Override%3ADELETE%0D%0A&b=1", "/a?b=1"),
            ("/a?b=$httpMethod&&c", "/a?b=$httpMethod&&c"),
        ] {
            let mut request = Request::post(uri).body(()).expect("a request");
            drop_other_requests(&mut request);
            assert_eq!(request.uri(), becomes);
        }
    }

    #[test]
    fn a_segment_of_dots_is_found_however_it_is_written() {
        for path in ["/a/../b", "/a/./b", "/..", "/a/..%2Fb", "/a%2f..", "/a/..;x/b", "/a/.%3Bx", "/a%5C..%5cb"] {
            assert!(has_dots(path), "{path}");
        }
        for path in ["/a/...", "/a/.b/c..", "/v1beta/models/gemini-2.5-flash:x", "/"] {
            assert!(!has_dots(path), "{path}");
        }
    }

    #[test]
    fn a_call_is_readable_if_it_names_its_model_or_makes_none_compute() {
        let reason = |method: Method, path: &str| {
            let uri = path.parse().expect("a path");
            unreadable(&Call::new(&method, &uri), &method, path)
        };
        for path in [
            "/v1beta/models/gemini-2.5-pro:generateContent",
            "/v1beta/models/gemini-2.5-pro%3AgenerateContent",
            "/v1beta/models/gemini-2.5-pro:generateContent/",
            "/v1beta/models/a%20b:countTokens",
            "/v1beta/models/a:batchGenerateContent",
            "/v1beta/tunedModels/a:generateContent",
            "/v1/projects/p/locations/l/publishers/google/models/a:streamGenerateContent",
            "/v1beta/openai/chat/completions",
            "/v1beta/openai/files",
            "/v1beta/interactions",
            "/v1beta/interactions/a:cancel",
            "/v1beta/files:register",
            "/upload/v1beta/files",
            "/v1beta/cachedContents",
            "/v1beta/batches/a:cancel",
            "/v1beta/fileSearchStores/a/documents",
        ] {
            assert_eq!(reason(Method::POST, path), None, "{path}");
        }
        for path in [
            "/V1BETA/models/gemini-2.5-pro:generateContent",
            "/v1beta/whatever/gemini-2.5-pro:generateContent",
            "/v1beta/whatever/gemini-2.5-pro:other",
            "/v1beta/models%2Fgemini-2.5-pro:generateContent",
            "/v1beta/models/flash/models/pro:generateContent",
            "/v1beta/models/flash:foo/pro:generateContent",
            "/v1beta/files/pro:GenerateContent",
            "/upload/v1beta/models/pro:generateContent",
            "/models/pro:generateContent",
            "/v1alpha/auth_tokens",
            "/v1beta/triggers",
        ] {
            assert!(reason(Method::POST, path).is_some(), "{path}");
            assert_eq!(reason(Method::GET, path), None, "{path}");
        }
    }

    #[test]
    fn the_models_of_a_body_are_read_or_none_is() {
        let read = |body: &str| models_of(body.as_bytes());
        assert_eq!(read(r#"{"model": "models/a", "ttl": "1s"}"#), ["a"]);
        assert_eq!(
            read(r#"{"base_model": "models/a", "tunedModelSource": {"tunedModel": "tunedModels/b"}}"#),
            ["a", "tunedModels/b"]
        );
        for body in ["", "{", "{}", r#"{"model": "a", "model": "b"}"#, r#"{"model": 1}"#] {
            assert_eq!(read(body), [""; 0], "{body}");
        }
        assert!(makes_of_model(&Method::POST, "/v1beta/cachedContents/"));
        assert!(!makes_of_model(&Method::POST, "/v1beta/tunedModels/a:generateContent"));
    }
}
