//! The removal of the caller's own credentials.
//!
//! Google refuses a request with two credentials ("Multiple authentication credentials received"), and a caller's key
//! has no business in another project's logs. So everything that could be a credential is removed before one of the
//! pool's keys is added.

use http::{HeaderMap, HeaderName, Request, Uri, uri::PathAndQuery};

use crate::call::percent_decoded;

/// The query parameters that Google's front ends take credentials from (`$httpHeaders` can hold any header), and those
/// that clients of other services put theirs into.
const PARAMETERS: [&str; 9] =
    ["key", "$key", "api_key", "apikey", "api-key", "access_token", "bearer_token", "oauth_token", "$httpHeaders"];

/// The headers that carry a credential, or the address of a page whose query may carry one.
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

/// Removes from a request everything that could be a credential.
pub(super) fn strip<B>(request: &mut Request<B>) {
    strip_headers(request.headers_mut());
    if let Some(uri) = without_credentials(request.uri()) {
        *request.uri_mut() = uri;
    }
}

fn strip_headers(headers: &mut HeaderMap) {
    // Most requests have few headers, and one of these at most: to look for each of these would take longer.
    let known = |name: &HeaderName| {
        let name = name.as_str();
        HEADERS.iter().copied().find(|known| *known == name)
    };
    while let Some(name) = headers.keys().find_map(known) {
        headers.remove(name);
    }
}

/// Returns the URI without the credentials in its query. `None`: there are none.
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
    // A part of a valid path and query is valid; if it ever were not, an empty path is better than a leaked key.
    let path = PathAndQuery::try_from(text).unwrap_or_else(|_| PathAndQuery::from_static("/"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path);
    Some(Uri::from_parts(parts).unwrap_or_default())
}

fn is_credential(pair: &str) -> bool {
    let name = percent_decoded(pair.split('=').next().unwrap_or_default());
    PARAMETERS.iter().any(|known| name.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stripped(uri: &str) -> String {
        let mut request = Request::get(uri).body(()).unwrap();
        strip(&mut request);
        request.uri().to_string()
    }

    #[test]
    fn credentials_go_from_the_address_and_nothing_else_does() {
        for (uri, expected) in [
            ("/v1/models?key=x", "/v1/models"),
            ("/v1/models?alt=sse&key=x&y=%20z&&", "/v1/models?alt=sse&y=%20z&&"),
            ("https://host:1/v1/models?%6b%65%79=x&KEY=x&keys=1", "https://host:1/v1/models?keys=1"),
            ("/v1/models?%24key=x&$httpHeaders=Authorization:x&access_token", "/v1/models"),
            ("/v1/models?x=key=y&%zz=1", "/v1/models?x=key=y&%zz=1"),
            ("/v1/models", "/v1/models"),
            ("/v1/models?", "/v1/models?"),
        ] {
            assert_eq!(stripped(uri), expected);
        }
    }

    /// A name in the spelling of a caller who wants it to be overlooked.
    fn spelt(name: &'static str) -> impl Strategy<Value = String> {
        proptest::collection::vec(0..4u8, name.len()).prop_map(move |how| {
            let spell = |(byte, how): (u8, u8)| match how {
                0 => char::from(byte).to_string(),
                1 => format!("%{byte:02x}"),
                2 => format!("%{byte:02X}"),
                _ => char::from(byte.to_ascii_uppercase()).to_string(),
            };
            name.bytes().zip(how).map(spell).collect()
        })
    }

    fn pair() -> impl Strategy<Value = String> {
        let name = prop_oneof![proptest::sample::select(&PARAMETERS[..]).prop_flat_map(spelt), "[a-z%$0-9]{0,6}"];
        (name, "(=[a-zA-Z0-9%=]{0,8})?").prop_map(|(name, value)| name + &value)
    }

    proptest! {
        #[test]
        fn no_request_keeps_a_credential(
            pairs in proptest::collection::vec(pair(), 0..6),
            headers in proptest::collection::vec((proptest::sample::select(&HEADERS[..]), "[a-z]{1,8}"), 0..6),
        ) {
            let mut request = Request::get(format!("/v1/models?{}", pairs.join("&"))).body(()).unwrap();
            for (name, value) in headers {
                request.headers_mut().append(name, value.parse().unwrap());
            }
            request.headers_mut().insert("x-own", "kept".parse().unwrap());
            strip(&mut request);
            prop_assert_eq!(request.headers().len(), 1);
            // Decoded in another way than above.
            let decoded = |pair: &str| {
                let name = pair.split('=').next().unwrap_or_default();
                let mut text = name.to_ascii_lowercase();
                for byte in 0u8..128 {
                    text = text.replace(&format!("%{byte:02x}"), &char::from(byte).to_string().to_ascii_lowercase());
                }
                text
            };
            let is_one = |pair: &&str| PARAMETERS.iter().any(|known| decoded(pair) == known.to_ascii_lowercase());
            let left: Vec<&str> = request.uri().query().unwrap_or_default().split('&').collect();
            prop_assert!(!left.iter().any(&is_one), "{:?}", left);
            let expected: Vec<&str> = pairs.iter().map(String::as_str).filter(|pair| !is_one(pair)).collect();
            prop_assert_eq!(left.join("&"), expected.join("&"));
        }
    }
}
