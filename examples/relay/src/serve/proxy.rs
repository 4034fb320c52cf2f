//! The duties of any proxy: to keep the headers of one connection to that connection, to send the path that was judged,
//! and to stay between both sides.

use axum::extract::Request;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, Uri,
    header::{CONNECTION, HOST},
    uri::Authority,
};

use crate::serve::{
    headers::{self, KnownKeys},
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

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The way of a request through the relay, on which its answer comes back.
pub(crate) struct WayBack {
    relay: OwnAddress,
    /// The request goes on with an upload.
    goes_on: bool,
    is_served: bool,
}

impl WayBack {
    /// Strips the headers of one connection from a request, and writes its path in one form.
    pub(crate) fn of(request: &mut Request) -> Self {
        linger(request);
        path::unescape(request);
        path::drop_other_requests(request);
        live::mark(request);
        strip(request.headers_mut());
        Self {
            relay: OwnAddress::of(request),
            goes_on: uploads::goes_on(request),
            is_served: headers::is_served(request.method()),
        }
    }

    /// Strips the headers of one connection from an answer, and those that callers do not get, `keys` among them; leads
    /// uploads back through the relay.
    pub(crate) fn pass<R>(self, response: &mut Response<R>, keys: &KnownKeys) {
        strip(response.headers_mut());
        uploads::replace_addresses(response.headers_mut(), |url| self.relay.in_place_of(url));
        headers::to_caller(response.headers_mut(), keys);
        if !self.is_served {
            headers::allow(response);
        }
        if self.goes_on {
            uploads::end_if_refused(response);
        }
    }
}

fn strip(headers: &mut HeaderMap) {
    let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named = named.flat_map(|value| value.split(',')).map(str::trim);
    let is_known = |name: &&str| OF_ONE_CONNECTION.iter().any(|known| known.eq_ignore_ascii_case(name));
    let named = named.filter(|name| !is_known(name)).filter_map(|name| name.parse::<HeaderName>().ok());
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
            schemes: request.headers().get(FORWARDED_PROTO).cloned(),
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
