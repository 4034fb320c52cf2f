//! The rendering of an error in Google's shape: status, headers and body, in the envelope of the caller's surface.
//! Pure.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use serde_json::{Map, Value, json};

use super::{
    hints::Hints,
    settings::{OpenAiErrors, Settings},
};
use crate::{
    call::{Shape, Streaming, Surface},
    context::{BoxError, Error, MODEL_HEADER, Outcome},
    failure::{Failure, Kind, OWN_KEYS_REFUSED},
    status::add_openai,
};

/// The domain of this crate's own `ErrorInfo`, which tells it from Google's.
const DOMAIN: &str = "tower-gemini";

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// Renders the whole answer to a call that failed before anything was sent back.
pub(super) fn response(error: &BoxError, shape: Shape, settings: &Settings, now: SystemTime) -> Response<Bytes> {
    let facts = ErrorFacts::read(error);
    let code = facts.code();
    let hints = Hints::of(code, &facts.outcome, shape.surface, now);
    let body = enveloped(facts.object(shape.surface, None, Some(hints)), shape, settings);
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    set_type(headers);
    hints.write(headers);
    if let Some(model) = facts.outcome.model().and_then(|model| HeaderValue::from_str(model).ok()) {
        headers.insert(MODEL_HEADER, model);
    }
    response.extensions_mut().insert(facts.outcome);
    response
}

/// Renders the error as one server-sent event, for a stream that has begun.
pub(super) fn event(error: &BoxError, surface: Surface) -> String {
    let object = last_words(error, surface);
    match surface {
        Surface::Interactions => format!("event: error\ndata: {object}\n\n"),
        _ => format!("data: {object}\n\n"),
    }
}

/// Renders the error as one more element of an array that has begun.
pub(super) fn element(error: &BoxError, surface: Surface) -> String {
    last_words(error, surface).to_string()
}

fn last_words(error: &BoxError, surface: Surface) -> Value {
    let facts = ErrorFacts::read(error);
    facts.object(surface, None, None)
}

/// Puts an error's object into the envelope of a call that has no answer yet. Google's is a list of one if a list was
/// asked for, and always on the OpenAI-compatible surface.
pub(super) fn enveloped(object: Value, shape: Shape, settings: &Settings) -> Value {
    match is_listed(shape, settings) {
        true => json!([object]),
        false => object,
    }
}

/// Returns whether an error that is no event stands in a list.
pub(super) fn is_listed(shape: Shape, settings: &Settings) -> bool {
    match shape.surface {
        Surface::OpenAi => settings.openai == OpenAiErrors::GoogleLists,
        _ => shape.streaming == Streaming::Array,
    }
}

/// Sets the type of a body that this room wrote.
pub(super) fn set_type(headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
}

/// The facts of an error.
pub(super) struct ErrorFacts {
    failure: Failure,
    outcome: Outcome,
    layer: Option<&'static str>,
    clock: Option<&'static str>,
}

impl ErrorFacts {
    /// Reads the failure and the other facts from an error of any kind.
    fn read(error: &BoxError) -> Self {
        match Error::find(&**error) {
            Some(known) => Self {
                failure: known.failure().clone(),
                outcome: known.outcome().clone(),
                layer: Some(known.layer()),
                clock: known.timeout_kind().map(|clock| clock.as_str()),
            },
            None => {
                let failure = Failure::from_error(&**error);
                let outcome = Outcome::default().with_failure(failure.clone());
                Self { failure, outcome, layer: None, clock: None }
            }
        }
    }

    /// Takes the facts of an answer that failed.
    pub(super) fn of_answer(failure: Failure, outcome: Outcome) -> Self {
        Self { failure, outcome, layer: None, clock: None }
    }

    /// Returns the status to answer with. Nothing that a caller could send would help where the server's own keys are
    /// refused.
    pub(super) fn code(&self) -> StatusCode {
        if self.outcome.is_own_key_refused() { StatusCode::SERVICE_UNAVAILABLE } else { self.failure.code() }
    }

    /// Builds the error's object, as the surface has it. `message`: the words in place of the failure's own. `hints`:
    /// those of an answer; an event has none.
    pub(super) fn object(&self, surface: Surface, message: Option<&str>, hints: Option<Hints>) -> Value {
        let (kind, name, own) = match self.outcome.is_own_key_refused() {
            true => (Kind::KeysDisabled, "UNAVAILABLE", OWN_KEYS_REFUSED),
            false => (self.failure.kind(), self.failure.google_status(), self.failure.caller_message()),
        };
        let message = message.unwrap_or(own);
        let message = hints.and_then(|hints| hints.add_to(message)).unwrap_or_else(|| message.into());
        if surface == Surface::Interactions {
            let error = json!({ "code": name.to_ascii_lowercase(), "message": message });
            return json!({ "error": error, "event_type": "error" });
        }
        let mut details = vec![json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": kind.as_str().to_ascii_uppercase(),
            "domain": DOMAIN,
            "metadata": self.metadata(),
        })];
        let wait = match hints {
            Some(hints) => hints.retry_info(),
            None => Hints::retry_info_of_event(&self.failure, &self.outcome),
        };
        details.extend(wait.map(retry_info));
        let code = self.code();
        let mut error = Map::new();
        error.insert("code".into(), code.as_u16().into());
        error.insert("message".into(), message.into());
        error.insert("status".into(), name.into());
        error.insert("details".into(), details.into());
        if surface == Surface::OpenAi {
            add_openai(&mut error, code);
        }
        json!({ "error": error })
    }

    fn metadata(&self) -> Map<String, Value> {
        let attempts = Some(self.outcome.attempts()).filter(|attempts| *attempts > 0);
        let members = [
            ("layer", self.layer.map(Value::from)),
            ("clock", self.clock.map(Value::from)),
            ("fault", Some(self.failure.fault().as_str().into())),
            ("attempts", attempts.map(|attempts| attempts.to_string().into())),
        ];
        members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

/// Builds the detail that says when to come again.
pub(super) fn retry_info(wait: Duration) -> Value {
    let seconds = format!("{}.{:09}", wait.as_secs(), wait.subsec_nanos());
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    json!({ "@type": RETRY_INFO, "retryDelay": format!("{seconds}s") })
}
