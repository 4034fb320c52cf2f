//! The request to `countTokens`, and the count in its answer.

use bytes::Bytes;
use http::{Method, Request, Uri, header, uri::PathAndQuery};
use serde::Deserialize;

use super::question::Question;
use crate::{
    call::{Call, Surface},
    context,
};

/// The longest answer that is read, in bytes. An answer is a few numbers.
pub(super) const MAX_ANSWER: usize = 64 * 1024;

/// Builds the `countTokens` request for `request`. `None`: its path names no method that could be replaced.
pub(super) fn request<B: From<Bytes>>(request: &Request<B>, question: &Question) -> Option<Request<B>> {
    let uri = uri(request.uri())?;
    let body = body(question);
    let mut counts = Request::new(B::from(body));
    *counts.method_mut() = Method::POST;
    *counts.uri_mut() = uri;
    *counts.version_mut() = request.version();
    *counts.headers_mut() = request.headers().clone();
    // The body is another one, and the caller's time-out is meant for the answer, not for the count.
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::HeaderName::from_static("x-server-timeout")]
    {
        counts.headers_mut().remove(name);
    }
    *counts.extensions_mut() = request.extensions().clone();
    let call = Call::new(counts.method(), counts.uri());
    context::CallContext::update(counts.extensions_mut(), |context| context.set_call(call));
    Some(counts)
}

/// Reads the number of tokens from an answer.
pub(super) fn answer(body: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct TotalTokens {
        total_tokens: u64,
    }
    serde_json::from_slice::<TotalTokens>(body).ok().map(|answer| answer.total_tokens)
}

/// Replaces the method in the path, and drops the query's `alt`: the answer is never a stream.
fn uri(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    let end = path.rfind(':').or_else(|| path.rfind("%3A")).or_else(|| path.rfind("%3a"))?;
    let mut text = format!("{}:countTokens", &path[..end]);
    let pairs = uri.query().unwrap_or_default().split('&');
    let kept =
        pairs.filter(|pair| !pair.is_empty() && !["alt=", "$alt=", "%24alt="].iter().any(|alt| pair.starts_with(alt)));
    for (number, pair) in kept.enumerate() {
        text.push(if number == 0 { '?' } else { '&' });
        text.push_str(pair);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(text).ok()?);
    Uri::from_parts(parts).ok()
}

/// Builds the body. Vertex takes the request unchanged; the Developer API counts the system instruction and the tools
/// only if the request is wrapped.
fn body(question: &Question) -> Bytes {
    if question.call.surface() == Surface::Vertex {
        return question.body.clone();
    }
    let model =
        if question.model.contains('/') { question.model.to_string() } else { format!("models/{}", question.model) };
    let inside = match question.body.iter().position(|byte| *byte == b'{') {
        Some(brace) => &question.body[brace + 1..],
        None => return question.body.clone(),
    };
    let named = if question.findings.names_model {
        String::new()
    } else {
        format!("\"model\":{},", serde_json::Value::from(model))
    };
    Bytes::from([b"{\"generateContentRequest\":{", named.as_bytes(), inside, b"}"].concat())
}
