//! What any proxy has to do: keep to itself what belongs to one connection, and stay in between.

use axum::{extract::Request, middleware::Next, response::Response};
use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{
        CONNECTION, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
};

use crate::{credentials::without_credentials, linger::linger};

/// RFC 9110, section 7.6.1, with the two that are in no RFC; and `Expect`, which hyper has answered by now.
const OF_ONE_CONNECTION: [HeaderName; 11] = [
    CONNECTION,
    EXPECT,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

const X_GOOG_UPLOAD_URL: HeaderName = HeaderName::from_static("x-goog-upload-url");

/// Strips both ways, and leads uploads back through the relay.
pub(crate) async fn pass(request: Request, next: Next) -> Response {
    let mut request = linger(request);
    strip(request.headers_mut());
    let relay = Relay::of(&request);
    let mut response = next.run(request).await;
    strip(response.headers_mut());
    if let Some(url) = response.headers().get(X_GOOG_UPLOAD_URL).and_then(|url| relay.in_place_of(url)) {
        response.headers_mut().insert(X_GOOG_UPLOAD_URL, url);
    }
    response
}

fn strip(headers: &mut HeaderMap) {
    let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named = named.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse::<HeaderName>().ok());
    for name in named.collect::<Vec<_>>().iter().chain(&OF_ONE_CONNECTION) {
        headers.remove(name);
    }
}

/// The relay's own address, as its caller knows it.
struct Relay {
    scheme: &'static str,
    authority: Option<String>,
}

impl Relay {
    fn of(request: &Request) -> Self {
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        let authority = request.uri().authority().map(|authority| authority.as_str()).or(host);
        let encrypted = request.headers().get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
        Self { scheme: if encrypted { "https" } else { "http" }, authority: authority.map(str::to_owned) }
    }

    /// An upload goes on at an absolute address, which would lead the caller, and the caller's key, past the relay.
    fn in_place_of(&self, url: &HeaderValue) -> Option<HeaderValue> {
        let uri: Uri = url.to_str().ok()?.parse().ok()?;
        let uri = without_credentials(&uri).unwrap_or(uri);
        let path = uri.path_and_query()?;
        match &self.authority {
            Some(authority) => format!("{}://{authority}{path}", self.scheme).parse().ok(),
            None => path.as_str().parse().ok(),
        }
    }
}
