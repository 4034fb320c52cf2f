//! The duties of any proxy: to keep the headers of one connection to that connection, to send the path that was judged,
//! and to stay between both sides.

use axum::{extract::Request, response::Response};
use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{CONNECTION, HOST},
    uri::Authority,
};

use crate::serve::{
    headers::{self, KnownKeys, without_trailers},
    linger::linger,
    live, path, uploads,
};

/// The headers of one connection: those of RFC 9110, section 7.6.1, two that are in no RFC, and `Expect`, which hyper
/// has answered by now.
const OF_ONE_CONNECTION: [&str; 11] = [
    "connection",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Strips the headers of one connection both ways, and those of an answer that callers do not get, `keys` among them;
/// writes the path in one form, and leads uploads back through the relay.
pub(crate) async fn pass<F: Future<Output = Response>>(
    request: Request,
    keys: &KnownKeys,
    next: impl FnOnce(Request) -> F,
) -> Response {
    let mut request = linger(request).map(without_trailers);
    path::unescape(&mut request);
    path::drop_other_requests(&mut request);
    live::mark(&mut request);
    strip(request.headers_mut());
    let relay = OwnAddress::of(&request);
    let goes_on = uploads::goes_on(&request);
    let is_served = headers::is_served(request.method());
    let mut response = next(request).await;
    strip(response.headers_mut());
    uploads::replace_addresses(response.headers_mut(), |url| relay.in_place_of(url));
    headers::to_caller(response.headers_mut(), keys);
    if !is_served {
        headers::allow(&mut response);
    }
    if goes_on {
        uploads::end_if_refused(&mut response);
    }
    response
}

fn strip(headers: &mut HeaderMap) {
    let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named = named.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse::<HeaderName>().ok());
    let named: Vec<_> = named.collect();
    headers::remove(headers, |name| OF_ONE_CONNECTION.contains(&name) || named.iter().any(|at| at == name));
}

/// The relay's own address, as its caller knows it. It is written when an answer has one to be replaced.
struct OwnAddress {
    authority: Option<Authority>,
    host: Option<HeaderValue>,
    schemes: Option<HeaderValue>,
}

impl OwnAddress {
    fn of(request: &Request) -> Self {
        Self {
            authority: request.uri().authority().cloned(),
            host: request.headers().get(HOST).cloned(),
            schemes: request.headers().get("x-forwarded-proto").cloned(),
        }
    }

    fn authority(&self) -> Option<&str> {
        let host = || self.host.as_ref().and_then(|host| host.to_str().ok());
        self.authority.as_ref().map(Authority::as_str).or_else(host)
    }

    fn scheme(&self) -> &'static str {
        // Each proxy adds its scheme; the first is the one that the caller knows.
        let schemes = self.schemes.as_ref().and_then(|schemes| schemes.to_str().ok());
        let scheme = schemes.and_then(|schemes| schemes.split(',').next()).map(str::trim);
        let encrypted = scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
        if encrypted { "https" } else { "http" }
    }

    /// Replaces the upstream's address in a URL, which would lead the caller, and the caller's key, past the relay; and
    /// removes the relay's key, which the upstream may repeat there.
    fn in_place_of(&self, url: &HeaderValue) -> Option<HeaderValue> {
        let uri: Uri = url.to_str().ok()?.parse().ok()?;
        let query = uploads::without_keys(uri.query().unwrap_or_default());
        let path = if query.is_empty() { uri.path().to_owned() } else { format!("{}?{query}", uri.path()) };
        match self.authority() {
            Some(authority) => format!("{}://{authority}{path}", self.scheme()).parse().ok(),
            None => path.parse().ok(),
        }
    }
}
