//! The caller's own credentials go.
//!
//! Google refuses a request with two credentials ("Multiple authentication credentials received"), and a caller's key has
//! no business in another project's logs. So everything that could be one goes, before one of the pool's comes.

use std::borrow::Cow;

use http::{HeaderMap, Request, Uri, uri::PathAndQuery};

/// Query parameters that Google's front ends take credentials from (`$httpHeaders` can hold any header), and those that
/// clients of other services put theirs into.
const PARAMETERS: [&str; 9] =
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

/// Takes out of a request whatever could be a credential.
pub(super) fn strip<B>(request: &mut Request<B>) {
    strip_headers(request.headers_mut());
    if let Some(uri) = without_credentials(request.uri()) {
        *request.uri_mut() = uri;
    }
}

fn strip_headers(headers: &mut HeaderMap) {
    for name in HEADERS {
        headers.remove(name);
    }
}

/// The address without credentials in its query; `None` if there are none.
fn without_credentials(uri: &Uri) -> Option<Uri> {
    let query = uri.query()?;
    if !query.split('&').any(is_credential) {
        return None;
    }
    let mut text = String::with_capacity(uri.path().len() + query.len());
    text.push_str(uri.path());
    for (nth, pair) in query.split('&').filter(|pair| !is_credential(pair)).enumerate() {
        text.push(if nth == 0 { '?' } else { '&' });
        text.push_str(pair);
    }
    // Part of what was valid is valid; if it ever were not, nothing is better than a key.
    let path = PathAndQuery::try_from(text).unwrap_or_else(|_| PathAndQuery::from_static("/"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path);
    Some(Uri::from_parts(parts).unwrap_or_default())
}

fn is_credential(pair: &str) -> bool {
    let name = percent_decoded(pair.split('=').next().unwrap_or_default());
    PARAMETERS.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

fn percent_decoded(text: &str) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', text.as_bytes()).is_none() {
        return Cow::Borrowed(text.as_bytes());
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
    Cow::Owned(decoded)
}
