//! The Live API is a WebSocket, which no relay of requests and answers can pass on.

use http::{Request, header::UPGRADE};

/// A mark on a request that wants a WebSocket, made before the header that says so is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LiveApi;

/// Marks it.
pub(crate) fn mark<B>(request: &mut Request<B>) {
    let names = request.headers().get_all(UPGRADE).iter().filter_map(|value| value.to_str().ok());
    let mut names = names.flat_map(|value| value.split(','));
    // With HTTP/2, a socket is opened in another way, which nobody here offers.
    if names.any(|name| name.trim().eq_ignore_ascii_case("websocket"))
        || request.uri().path().contains("BidiGenerateContent")
    {
        request.extensions_mut().insert(LiveApi);
    }
}
