//! The rendering of an error in Google's shape: status, headers and body, in the envelope of the caller's surface.
//! Pure.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use serde_json::{Value, json};

use crate::{
    call::{Shape, Streaming, Surface},
    context::{BoxError, Error, MODEL_HEADER, Outcome},
    failure::Failure,
};

/// The domain of this crate's own `ErrorInfo`, which tells it from Google's.
const DOMAIN: &str = "tower-gemini";

/// Renders the whole answer to a call that failed before anything was sent back.
pub(super) fn response(error: &BoxError, shape: Shape) -> Response<Bytes> {
    let (failure, facts) = read(error);
    let object = object(&failure, &facts, shape.surface);
    let enveloped = match shape {
        // As Google does: a list of one if a list was asked for, and always on the OpenAI-compatible surface.
        Shape { surface: Surface::OpenAi, .. } | Shape { streaming: Streaming::Array, .. } => json!([object]),
        _ => object,
    };
    let mut response = Response::new(Bytes::from(enveloped.to_string()));
    *response.status_mut() = failure.code();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
    if let Some(wait) = facts.outcome.retry_after().filter(|_| passes_with_time(failure.code())) {
        headers.insert(RETRY_AFTER, whole_seconds(wait));
    }
    if let Some(model) = facts.outcome.model().and_then(|model| HeaderValue::from_str(model).ok()) {
        headers.insert(MODEL_HEADER, model);
    }
    response.extensions_mut().insert(facts.outcome);
    response
}

/// Renders the error as one server-sent event, for a stream that has begun.
pub(super) fn event(error: &BoxError, surface: Surface) -> String {
    let (failure, facts) = read(error);
    let object = object(&failure, &facts, surface);
    match surface {
        Surface::Interactions => format!("event: error\ndata: {object}\n\n"),
        _ => format!("data: {object}\n\n"),
    }
}

/// Renders the error as one more element of an array that has begun.
pub(super) fn element(error: &BoxError, surface: Surface) -> String {
    let (failure, facts) = read(error);
    object(&failure, &facts, surface).to_string()
}

/// Returns whether a failure of that status may be over after some time, so that a time to come again may be said. What
/// the pool remembers of a model that is closed for a project is no reason for its caller to come again.
pub(super) fn passes_with_time(status: StatusCode) -> bool {
    matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) || status.is_server_error()
}

/// Rounds a wait up to the whole seconds of `Retry-After`: too late is better than too early.
pub(super) fn whole_seconds(wait: Duration) -> HeaderValue {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).into()
}

/// The facts of an error besides its failure.
struct ErrorFacts {
    outcome: Outcome,
    layer: Option<&'static str>,
    clock: Option<&'static str>,
}

/// Reads the failure and the other facts from an error of any kind.
fn read(error: &BoxError) -> (Failure, ErrorFacts) {
    match Error::find(&**error) {
        Some(known) => {
            let clock = known.timeout_kind().map(|clock| clock.as_str());
            let facts = ErrorFacts { outcome: known.outcome().clone(), layer: Some(known.layer()), clock };
            (known.failure().clone(), facts)
        }
        None => {
            let failure = Failure::from_error(&**error);
            let outcome = Outcome::default().with_failure(failure.clone());
            (failure, ErrorFacts { outcome, layer: None, clock: None })
        }
    }
}

/// Builds the error object of the surface.
fn object(failure: &Failure, facts: &ErrorFacts, surface: Surface) -> Value {
    if surface == Surface::Interactions {
        let error = json!({ "code": failure.google_status().to_ascii_lowercase(), "message": failure.message() });
        return json!({ "error": error, "event_type": "error" });
    }
    let mut metadata = serde_json::Map::new();
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            metadata.insert(name.into(), value.into());
        }
    };
    add("layer", facts.layer.map(Into::into));
    add("clock", facts.clock.map(Into::into));
    add("fault", Some(failure.fault().as_str().into()));
    add(
        "attempts",
        Some(facts.outcome.attempts()).filter(|attempts| *attempts > 0).map(|attempts| attempts.to_string()),
    );
    let mut details = vec![json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": failure.kind().as_str().to_ascii_uppercase(),
        "domain": DOMAIN,
        "metadata": metadata,
    })];
    if let Some(wait) = facts.outcome.retry_after().filter(|_| passes_with_time(failure.code())) {
        let seconds = format!("{}.{:09}", wait.as_secs(), wait.subsec_nanos());
        let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
        details.push(json!({
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": format!("{seconds}s"),
        }));
    }
    json!({ "error": {
        "code": failure.code().as_u16(),
        "message": failure.message(),
        "status": failure.google_status(),
        "details": details,
    } })
}
