//! Calls to the Live API: a WebSocket, which a relay of requests and answers cannot pass on.

use http::{Request, header::UPGRADE};

/// A mark on a request that wants a WebSocket, made before the header that says so is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LiveApi;

/// Marks a request that wants a WebSocket.
pub(crate) fn mark<B>(request: &mut Request<B>) {
    let names = request.headers().get_all(UPGRADE).iter().filter_map(|value| value.to_str().ok());
    let mut names = names.flat_map(|value| value.split(','));
    // HTTP/2 opens a socket in another way, which this server does not offer.
    if names.any(|name| name.trim().eq_ignore_ascii_case("websocket"))
        || request.uri().path().contains("BidiGenerateContent")
    {
        request.extensions_mut().insert(LiveApi);
    }
}
