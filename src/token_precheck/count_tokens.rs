//! The request and the answer of `countTokens`.

use bytes::Bytes;
use http::{Method, Request, Uri, header, uri::PathAndQuery};
use serde::Deserialize;

use super::check::Question;
use crate::{
    call::{Call, Surface},
    context,
};

/// The longest answer that is read: it is a few numbers.
pub(super) const MAX_ANSWER: usize = 64 * 1024;

/// The most pieces that it may come in, empty ones included.
pub(super) const MAX_FRAMES: u32 = 1_024;

/// The same request to be counted, or `None` where it cannot be written as one.
pub(super) fn request<B: From<Bytes>>(request: &Request<B>, question: &Question) -> Option<Request<B>> {
    let uri = uri(request.uri())?;
    let body = body(question);
    let mut counts = Request::new(B::from(body));
    *counts.method_mut() = Method::POST;
    *counts.uri_mut() = uri;
    *counts.version_mut() = request.version();
    *counts.headers_mut() = request.headers().clone();
    // It is another body, and the caller's patience with an answer is not meant for it.
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::HeaderName::from_static("x-server-timeout")]
    {
        counts.headers_mut().remove(name);
    }
    *counts.extensions_mut() = request.extensions().clone();
    let call = Call::new(counts.method(), counts.uri());
    context::CallContext::update(counts.extensions_mut(), |context| context.set_call(call));
    Some(counts)
}

/// How many tokens there are, if the answer says so.
pub(super) fn answer(body: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        total_tokens: u64,
    }
    serde_json::from_slice::<Answer>(body).ok().map(|answer| answer.total_tokens)
}

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

/// Vertex takes the request as it is; the Developer API wants it wrapped, or system instruction and tools do not count.
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
