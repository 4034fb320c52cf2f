//! Whose key goes upstream: never the caller's.
//!
//! Google refuses a request with two credentials ("Multiple authentication credentials received"), and a caller's key has
//! no business in another project's logs. So everything that could be one goes, and ours comes. A later layer, the key
//! pool, will do this with many keys.

use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header::AUTHORIZATION, uri::PathAndQuery};
use tower_gemini::call::{Call, Surface};

const X_GOOG_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");

/// Query parameters that Google's front ends take credentials from (`$httpHeaders` can hold any header), and those that
/// clients of other services put theirs into.
const CREDENTIALS: [&str; 9] =
    ["key", "$key", "api_key", "apikey", "api-key", "access_token", "bearer_token", "oauth_token", "$httpHeaders"];

/// Headers that carry a credential, or the address of a page, whose query may.
const HEADERS: [&str; 11] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "cookie2",
    "referer",
    "x-goog-api-key",
    "x-goog-iam-authorization-token",
    "x-goog-authenticated-user-id",
    "x-goog-user-project",
    "x-api-key",
    "api-key",
];

#[derive(Clone)]
pub(crate) struct Credentials {
    key: HeaderValue,
    bearer: HeaderValue,
}

impl Credentials {
    pub(crate) fn new(key: &HeaderValue) -> Result<Self, http::header::InvalidHeaderValue> {
        let mut bearer = HeaderValue::from_bytes(&[b"Bearer ", key.as_bytes()].concat())?;
        bearer.set_sensitive(true);
        Ok(Self { key: key.clone(), bearer })
    }

    /// The request with our key in place of whatever the caller brought.
    pub(crate) fn replace<B>(&self, mut request: Request<B>) -> Request<B> {
        let surface = Call::new(request.method(), request.uri()).surface();
        strip_headers(request.headers_mut());
        if let Some(uri) = without_credentials(request.uri()) {
            *request.uri_mut() = uri;
        }
        let (name, value) = match surface {
            Surface::OpenAi => (AUTHORIZATION, &self.bearer),
            _ => (X_GOOG_API_KEY, &self.key),
        };
        request.headers_mut().insert(name, value.clone());
        request
    }
}

fn strip_headers(headers: &mut HeaderMap) {
    for name in HEADERS {
        headers.remove(name);
    }
}

/// The address without credentials in its query; `None` if there are none.
pub(crate) fn without_credentials(uri: &Uri) -> Option<Uri> {
    let query = uri.query()?;
    if !query.split('&').any(is_credential) {
        return None;
    }
    let kept = query.split('&').filter(|pair| !is_credential(pair)).collect::<Vec<_>>().join("&");
    let path = if kept.is_empty() { uri.path().to_owned() } else { format!("{}?{kept}", uri.path()) };
    // Part of what was valid is valid; if it ever were not, nothing is better than a key.
    let path = path.parse().unwrap_or_else(|_| PathAndQuery::from_static("/"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path);
    Some(Uri::from_parts(parts).unwrap_or_default())
}

fn is_credential(pair: &str) -> bool {
    let name = pair.split('=').next().unwrap_or_default();
    CREDENTIALS.iter().any(|credential| percent_decoded(name).eq_ignore_ascii_case(credential.as_bytes()))
}

fn percent_decoded(text: &str) -> Vec<u8> {
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
    decoded
}
