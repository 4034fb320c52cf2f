//! The heads of requests and answers: which of their headers stay on one side, and which heads are wrong.
//!
//! A header that is not named here passes: Google adds some, and SDKs read them. Three classes stay on the callers' side:
//! the way that a request has come, the browser that made it, and wishes for another method or address than the one that
//! was judged. Two stay on the upstream's side: its word on its own address, and everything with a key of the relay's.

use std::{
    borrow::Cow,
    io,
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll, ready},
};

use axum::{
    body::Body,
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, TRANSFER_ENCODING},
    uri::Authority,
};
use http_body::{Frame, SizeHint};
use memchr::memmem::Finder;
use parking_lot::RwLock;
use tower::BoxError;

use crate::serve::{path::decoded, refusal::refusal, uploads};

/// The headers of callers that do not go to the upstream.
const OF_CALLERS: [&str; 62] = [
    // The way of a request: the caller's address, and the proxies between.
    "ali-cdn-real-ip",
    "cdn-loop",
    "client-ip",
    "early-data",
    "fastly-client-ip",
    "forwarded",
    "forwarded-for",
    "from",
    "front-end-https",
    "max-forwards",
    "proxy-client-ip",
    "remote-addr",
    "true-client-ip",
    "via",
    "wl-proxy-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-coming-from",
    "x-forwarded",
    "x-host",
    "x-nf-client-connection-ip",
    "x-proxyuser-ip",
    "x-real-ip",
    "x-real-port",
    "x-remote-addr",
    "x-remote-ip",
    "x-scheme",
    "x-url-scheme",
    // The user, as a proxy has found out.
    "client-cert",
    "client-cert-chain",
    "remote-user",
    "x-client-cert",
    "x-remote-group",
    "x-remote-user",
    "x-ssl-cert",
    // The browser, its page and its user.
    "alt-used",
    "cookie",
    "cookie2",
    "device-memory",
    "dnt",
    "downlink",
    "dpr",
    "ect",
    "origin",
    "ping-from",
    "ping-to",
    "purpose",
    "referer",
    "rtt",
    "save-data",
    "service-worker",
    "upgrade-insecure-requests",
    "viewport-width",
    "width",
    "x-client-data",
    "x-requested-with",
    // Another method or address than the one that was judged.
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-rewrite-url",
    "x-override-url",
];

/// The beginnings of such headers: those of proxies, of their clouds, and of browsers.
const BEGINNINGS_OF_CALLERS: [&str; 22] = [
    "access-control-request-",
    "cf-",
    "cloudfront-",
    "fly-",
    "sec-",
    "ssl-client-",
    "x-amz-cf-",
    "x-amzn-",
    "x-appengine-",
    "x-arr-",
    "x-auth-request-",
    "x-azure-",
    "x-envoy-",
    "x-fastly-",
    "x-forwarded-",
    "x-goog-authenticated-user-",
    "x-goog-iap-",
    "x-ms-client-principal",
    "x-original-",
    "x-ssl-client-",
    "x-vercel-",
    "x-webauth-",
];

/// The headers of answers that do not go to callers: what the upstream says about its own address, to a browser above
/// all, and where else to go.
const OF_THE_UPSTREAM: [&str; 31] = [
    // Elsewhere. An upload's address is led back through the relay before.
    "content-location",
    "link",
    "location",
    "refresh",
    "sourcemap",
    // Its own address: how it is reached, what a browser keeps of it, and what it reports.
    "accept-ch",
    "alt-svc",
    "clear-site-data",
    "content-security-policy-report-only",
    "critical-ch",
    "cross-origin-embedder-policy",
    "cross-origin-embedder-policy-report-only",
    "cross-origin-opener-policy",
    "cross-origin-opener-policy-report-only",
    "cross-origin-resource-policy",
    "expect-ct",
    "nel",
    "origin-agent-cluster",
    "p3p",
    "public-key-pins",
    "public-key-pins-report-only",
    "report-to",
    "reporting-endpoints",
    "service-worker-allowed",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
    "timing-allow-origin",
    // The relay's own credentials, which were answered to.
    "authentication-info",
    "proxy-authentication-info",
    "www-authenticate",
];

/// Names of headers, and beginnings of such names, by a letter, so that a name is compared with few of them.
struct HeaderNames {
    /// The texts with a letter, and whether each is the beginning of names.
    by_letter: [Vec<(&'static str, bool)>; 256],
}

/// The names of the headers of a request that do not go to the upstream.
static NOT_SENT: LazyLock<HeaderNames> = LazyLock::new(|| HeaderNames::new(&OF_CALLERS, &BEGINNINGS_OF_CALLERS));

/// The names of the headers of an answer that do not go to its caller.
static NOT_HANDED_ON: LazyLock<HeaderNames> = LazyLock::new(|| HeaderNames::new(&OF_THE_UPSTREAM, &[]));

impl HeaderNames {
    fn new(whole: &[&'static str], beginnings: &[&'static str]) -> Self {
        let mut by_letter = [const { Vec::new() }; 256];
        let whole = whole.iter().map(|name| (*name, false));
        for (text, begins) in whole.chain(beginnings.iter().map(|beginning| (*beginning, true))) {
            by_letter[Self::letter(text)].push((text, begins));
        }
        Self { by_letter }
    }

    /// Returns the letter of a name: the first one behind `x-`, which half of them have.
    fn letter(name: &str) -> usize {
        name.strip_prefix("x-").unwrap_or(name).bytes().next().map_or(0, usize::from)
    }

    fn has(&self, name: &str) -> bool {
        let known = &self.by_letter[Self::letter(name)];
        known.iter().any(|(text, begins)| if *begins { name.starts_with(text) } else { name == *text })
    }
}

// === requests ===

/// The methods that are served, as `Allow` has them.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Refuses a request whose head is wrong: without one host, or with a method that the API has not.
pub(crate) fn check(request: &Request) -> Result<(), BoxError> {
    if let Some(mistake) = mistake_in_host(request) {
        return Err(refusal(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", mistake));
    }
    if !is_served(request.method()) {
        let message = format!("this method is not one of the API's, which are {METHODS}");
        return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "UNIMPLEMENTED", &message));
    }
    Ok(())
}

/// Says which methods are served, in the answer to a request with another one.
pub(crate) fn allow<R>(response: &mut http::Response<R>) {
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(METHODS));
}

/// Returns whether a method is one of the API's. TRACE would repeat what a proxy has added to a request, and CONNECT
/// would make the relay a tunnel.
pub(crate) fn is_served(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::OPTIONS
    )
}

/// Refuses a request to a page of the relay's own that has not one host.
pub(crate) async fn with_host(request: Request, next: Next) -> Response {
    match mistake_in_host(&request) {
        Some(mistake) => (StatusCode::BAD_REQUEST, format!("{mistake}\n")).into_response(),
        None => next.run(request).await,
    }
}

/// Returns what is wrong with the host of a request (RFC 9112, section 3.2; RFC 9113, section 8.3.1).
fn mistake_in_host(request: &Request) -> Option<&'static str> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (first, more) = (hosts.next(), hosts.next());
    if more.is_some() {
        return Some("the request has more than one Host; send one");
    }
    let Some(host) = first else {
        return (request.version() == Version::HTTP_11).then_some("the request has no Host, which HTTP/1.1 wants");
    };
    if request.version() < Version::HTTP_2 && is_plain_host(host.as_bytes()) {
        return None;
    }
    let is_host = |host: &Authority| !host.host().is_empty() && !host.as_str().contains('@');
    let Some(host) = Authority::try_from(host.as_bytes()).ok().filter(is_host) else {
        return Some("the request's Host is none; it is a name or an address, and a port");
    };
    let target = request.uri().authority().filter(|_| request.version() >= Version::HTTP_2)?;
    (host != *target).then_some("the request's Host is another one than its :authority; send one of them")
}

/// Returns whether a host is a name or an address of IPv4, with or without a port, which needs no parser.
fn is_plain_host(host: &[u8]) -> bool {
    let colon = host.iter().position(|byte| *byte == b':').unwrap_or(host.len());
    let (name, port) = host.split_at(colon);
    !name.is_empty()
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
        && port.iter().skip(1).all(u8::is_ascii_digit)
}

/// Removes the headers of a request that are between its caller and the relay.
pub(crate) fn to_upstream<B>(mut request: http::Request<B>) -> http::Request<B> {
    remove(request.headers_mut(), |name| NOT_SENT.has(name));
    request
}

/// Removes the headers with such names.
pub(crate) fn remove(headers: &mut HeaderMap, is_unwanted: impl Fn(&str) -> bool) {
    let unwanted: Vec<HeaderName> = headers.keys().filter(|name| is_unwanted(name.as_str())).cloned().collect();
    for name in unwanted {
        headers.remove(name);
    }
}

// === answers ===

/// Reads the head of an answer as RFC 9112 and RFC 9110 say, so that its length is the one by which it was read.
///
/// The client takes the other informational answers as such and passes them over. It closes the connection of a 101.
pub(crate) fn from_upstream<B>(response: http::Response<B>) -> Result<Response, BoxError>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let (mut head, body) = response.into_parts();
    let mut body = Some(body);
    let headers = &mut head.headers;
    match head.status {
        StatusCode::SWITCHING_PROTOCOLS => {
            let message = "the upstream has switched to another protocol, for which nobody has asked";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message).into());
        }
        StatusCode::NO_CONTENT => {
            headers.remove(CONTENT_LENGTH);
        }
        // It has no content, whatever its length says. RFC 9110, section 15.3.6.
        StatusCode::RESET_CONTENT => {
            body = None;
            headers.remove(CONTENT_TYPE);
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        // The coding is the one that counts. RFC 9112, section 6.3.
        _ if headers.contains_key(TRANSFER_ENCODING) => {
            headers.remove(CONTENT_LENGTH);
        }
        _ => {
            if let Some(length) = repeated_length(headers) {
                headers.insert(CONTENT_LENGTH, length);
            }
        }
    }
    let body = body.map_or_else(Body::empty, without_trailers);
    Ok(Response::from_parts(head, body))
}

/// Returns the one length of an answer that says it several times. The client has made sure that they agree.
fn repeated_length(headers: &HeaderMap) -> Option<HeaderValue> {
    let first = headers.get(CONTENT_LENGTH)?.to_str().ok()?;
    let is_repeated = first.contains(',') || headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some();
    is_repeated.then(|| first.split(',').next().unwrap_or_default().trim().parse().ok()).flatten()
}

/// Removes the headers of an answer that are between the upstream and the relay, and all those with one of its keys.
pub(crate) fn to_caller(headers: &mut HeaderMap, keys: &KnownKeys) {
    // Where an upload goes on, the relay's own address stands by now.
    let goes_on = headers.get(LOCATION).is_some_and(uploads::names_an_upload);
    remove(headers, |name| NOT_HANDED_ON.has(name) && !(goes_on && name == LOCATION.as_str()));
    let with_key: Vec<HeaderName> =
        headers.iter().filter(|(name, value)| keys.are_in(name, value)).map(|(name, _)| name.clone()).collect();
    for name in with_key {
        headers.remove(&name);
        tracing::warn!("a header of the upstream's answer had a key of this relay in it, and was not handed on");
    }
}

/// The relay's keys, those of former settings included: a call under way has one of them.
#[derive(Clone, Default)]
pub(crate) struct KnownKeys(Arc<RwLock<Vec<KnownKey>>>);

/// A key, and how it stands in the name of a header.
struct KnownKey {
    text: Finder<'static>,
    in_names: Finder<'static>,
}

impl KnownKeys {
    /// The most keys that are known. The oldest are forgotten first.
    const MOST: usize = 1_024;

    /// The least characters of a key that is looked for: a shorter one would be found in every text.
    const LEAST: usize = 8;

    /// Adds keys.
    pub(crate) fn learn<'a>(&self, keys: impl IntoIterator<Item = &'a str>) {
        let mut known = self.0.write();
        for key in keys.into_iter().filter(|key| key.len() >= Self::LEAST) {
            if let Some(at) = known.iter().position(|known| known.text.needle() == key.as_bytes()) {
                known.remove(at);
            }
            let (text, in_names) = (Finder::new(key), key.to_ascii_lowercase());
            known.push(KnownKey { text: text.into_owned(), in_names: Finder::new(&in_names).into_owned() });
        }
        let beyond = known.len().saturating_sub(Self::MOST);
        known.drain(..beyond);
    }

    /// Returns whether one of the keys is in a header, as it is or with escapes, and those with escapes in turn.
    fn are_in(&self, name: &HeaderName, value: &HeaderValue) -> bool {
        let known = self.0.read();
        let mut text = Cow::Borrowed(value.as_bytes());
        for _ in 0..3 {
            if known.iter().any(|key| key.text.find(&text).is_some()) {
                return true;
            }
            if !text.contains(&b'%') {
                break;
            }
            text = Cow::Owned(decoded(&String::from_utf8_lossy(&text)));
        }
        known.iter().any(|key| key.in_names.find(name.as_str().as_bytes()).is_some())
    }
}

// === trailers ===

/// Wraps a body so that nothing comes after it: a trailer would go past everything that is said of headers here.
pub(crate) fn without_trailers<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    if body.is_end_stream() { Body::empty() } else { Body::new(WithoutTrailers { body }) }
}

struct WithoutTrailers<B> {
    body: B,
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for WithoutTrailers<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        loop {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            if !matches!(&frame, Some(Ok(frame)) if frame.is_trailers()) {
                return Poll::Ready(frame);
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;

    #[tokio::test]
    async fn nothing_comes_after_a_body() {
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("set-cookie"), HeaderValue::from_static("a"))]);
        let body = Full::from("whole").with_trailers(async move { Some(Ok(trailers)) });
        let body = without_trailers(Box::pin(body)).collect().await.expect("a body");
        assert_eq!(body.trailers(), None);
        assert_eq!(body.to_bytes(), "whole");
    }

    #[test]
    fn a_name_is_found_by_itself_or_by_its_beginning() {
        for name in OF_CALLERS.iter().chain(&BEGINNINGS_OF_CALLERS) {
            assert!(NOT_SENT.has(name), "{name}");
        }
        assert!(OF_THE_UPSTREAM.iter().all(|name| NOT_HANDED_ON.has(name)));
        for beginning in BEGINNINGS_OF_CALLERS {
            assert!(NOT_SENT.has(&format!("{beginning}zz")), "{beginning}");
        }
        for name in
            ["content-type", "host", "x-goog-api-key", "a", "zz", "x-", "cookie3", "cooki", "accept", "user-agent"]
        {
            assert!(!NOT_SENT.has(name) && !NOT_HANDED_ON.has(name), "{name}");
        }
    }

    #[test]
    fn a_plain_host_is_one_for_the_parser_too() {
        for (host, is_plain) in [
            ("relay", true),
            ("relay.example.:8080", true),
            ("127.0.0.1:80", true),
            ("[::1]:80", false),
            ("::1", false),
            ("user@relay", false),
            (":80", false),
            ("", false),
            ("relay:80a", false),
            ("relay/", false),
        ] {
            assert_eq!(is_plain_host(host.as_bytes()), is_plain, "{host}");
            assert!(!is_plain || Authority::try_from(host).is_ok_and(|host| !host.host().is_empty()), "{host}");
        }
        assert!(is_plain_host(b"relay:") && Authority::try_from("relay:").is_ok());
    }

    #[test]
    fn a_key_is_found_in_a_header_however_it_is_escaped() {
        let keys = KnownKeys::default();
        keys.learn(["key-of_the.relay/1", "short"]);
        let is_in = |name: &str, value: &str| {
            keys.are_in(&name.parse().expect("a name"), &HeaderValue::from_bytes(value.as_bytes()).expect("a value"))
        };
        for value in [
            "key-of_the.relay/1",
            "<key-of_the.relay/1>",
            "a?key=key-of_the.relay%2F1&b",
            "%6Bey%2dof_the.relay%2f1",
            "key-of_the.relay%252F1",
            "\u{e9} key-of_the.relay/1",
        ] {
            assert!(is_in("x-debug", value), "{value}");
        }
        for value in ["short", "", "%", "%%%", "key-of_the.relay/", "KEY"] {
            assert!(!is_in("x-debug", value), "{value}");
        }
        keys.learn(["Key-In-Name"]);
        assert!(is_in("x-key-in-name", ""));
        keys.learn((0..2 * KnownKeys::MOST).map(|_| "key-of_the.relay/1"));
        assert_eq!(keys.0.read().len(), 2);
    }
}
