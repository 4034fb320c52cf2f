//! An error in Google's words: status, headers and body, in the envelope of the caller's surface.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderValue, Response,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use serde_json::{Value, json};

use crate::{
    call::{Shape, Streaming, Surface},
    context::{BoxError, Error, MODEL_HEADER, Outcome},
    failure::Failure,
};

/// The domain of this crate's own ErrorInfo, so that nobody takes it for one of Google's.
const DOMAIN: &str = "tower-gemini";

/// The whole answer to a call that has failed before anything was sent back.
pub(super) fn response(error: &BoxError, shape: Shape) -> Response<Bytes> {
    let (failure, said) = read(error);
    let object = object(&failure, &said, shape.surface);
    let enveloped = match shape {
        // As Google does: a list of one where a list was asked for, and on the OpenAI-compatible surface always.
        Shape { surface: Surface::OpenAi, .. } | Shape { streaming: Streaming::Array, .. } => json!([object]),
        _ => object,
    };
    let mut response = Response::new(Bytes::from(enveloped.to_string()));
    *response.status_mut() = failure.code();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
    if let Some(wait) = said.outcome.retry_after() {
        headers.insert(RETRY_AFTER, whole_seconds(wait));
    }
    if let Some(model) = said.outcome.model().and_then(|model| HeaderValue::from_str(model).ok()) {
        headers.insert(MODEL_HEADER, model);
    }
    response.extensions_mut().insert(said.outcome);
    response
}

/// The same as one server-sent event, for a stream that has begun.
pub(super) fn event(error: &BoxError, surface: Surface) -> String {
    let (failure, said) = read(error);
    let object = object(&failure, &said, surface);
    match surface {
        Surface::Interactions => format!("event: error\ndata: {object}\n\n"),
        _ => format!("data: {object}\n\n"),
    }
}

/// The same as one more element of an array that has begun.
pub(super) fn element(error: &BoxError, surface: Surface) -> String {
    let (failure, said) = read(error);
    object(&failure, &said, surface).to_string()
}

/// `Retry-After` counts whole seconds; too late is better than too early.
pub(super) fn whole_seconds(wait: Duration) -> HeaderValue {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).into()
}

/// What the layers said of the error.
struct Said {
    outcome: Outcome,
    layer: Option<&'static str>,
    clock: Option<&'static str>,
}

fn read(error: &BoxError) -> (Failure, Said) {
    match Error::find(&**error) {
        Some(known) => {
            let clock = known.timeout_kind().map(|clock| clock.as_str());
            let said = Said { outcome: known.outcome().clone(), layer: Some(known.layer()), clock };
            (known.failure().clone(), said)
        }
        None => {
            let failure = Failure::from_error(&**error);
            let outcome = Outcome::default().with_failure(failure.clone());
            (failure, Said { outcome, layer: None, clock: None })
        }
    }
}

fn object(failure: &Failure, said: &Said, surface: Surface) -> Value {
    if surface == Surface::Interactions {
        let error = json!({ "code": failure.google_status().to_ascii_lowercase(), "message": failure.message() });
        return json!({ "error": error, "event_type": "error" });
    }
    let mut metadata = serde_json::Map::new();
    let mut say = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            metadata.insert(name.into(), value.into());
        }
    };
    say("layer", said.layer.map(Into::into));
    say("clock", said.clock.map(Into::into));
    say("fault", Some(failure.fault().as_str().into()));
    say(
        "attempts",
        Some(said.outcome.attempts()).filter(|attempts| *attempts > 0).map(|attempts| attempts.to_string()),
    );
    let mut details = vec![json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": failure.kind().as_str().to_ascii_uppercase(),
        "domain": DOMAIN,
        "metadata": metadata,
    })];
    if let Some(wait) = said.outcome.retry_after() {
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
