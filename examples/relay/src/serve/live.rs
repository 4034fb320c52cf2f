//! Calls to the Live API: a WebSocket, which a relay of requests and answers cannot pass on.

use http::{Method, Request, header::UPGRADE};

/// A mark on a request that wants a WebSocket, made before the header that says so is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LiveApi;

/// The refusal, with what goes through instead.
pub(crate) const REFUSAL: &str = "the Live API does not go through this relay: its WebSockets (BidiGenerateContent, also \
                                  Constrained with an ephemeral token, BidiGenerateMusic, interactions/live) have to be \
                                  opened to Google directly; here, use generateContent, streamGenerateContent or \
                                  interactions";

/// Marks a request that wants a WebSocket.
pub(crate) fn mark<B>(request: &mut Request<B>) {
    let names = request.headers().get_all(UPGRADE).iter().filter_map(|value| value.to_str().ok());
    let mut names = names.flat_map(|value| value.split(','));
    // HTTP/2 opens a socket in another way, which this server does not offer.
    if names.any(|name| name.trim().eq_ignore_ascii_case("websocket"))
        || is_live(request.method(), request.uri().path())
    {
        request.extensions_mut().insert(LiveApi);
    }
}

/// Returns whether a path is one of the Live API's: `…GenerativeService.BidiGenerateContent`,
/// `…BidiGenerateContentConstrained`, `…BidiGenerateMusic`, Vertex's `…LlmBidiService/BidiGenerateContent`, or
/// `…/interactions/live`. A proxy on the way may have taken the wish for an upgrade out.
fn is_live(method: &Method, path: &str) -> bool {
    const METHOD: &[u8] = b"bidigenerate";
    let bytes = path.as_bytes();
    let begins = |at: usize| bytes.get(at..at + METHOD.len()).is_some_and(|part| part.eq_ignore_ascii_case(METHOD));
    let names_method = memchr::memchr2_iter(b'b', b'B', bytes).any(begins);
    names_method || (*method == Method::GET && path.trim_end_matches('/').ends_with("/interactions/live"))
}
