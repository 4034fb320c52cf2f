//! The rendering of an error in Google's shape: status, headers and body, in the envelope of the caller's surface.
//! Pure.

use std::{
    fmt::{self, Write as _},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use serde::{Serialize, Serializer};

use super::{
    hints::{Hints, Told},
    settings::{OpenAiErrors, Settings},
};
use crate::{
    call::{Shape, Streaming, Surface},
    context::{BoxError, Error, MODEL_HEADER, Outcome},
    failure::{Failure, Kind, OWN_KEYS_REFUSED},
    status::openai_type,
};

/// The domain of this crate's own `ErrorInfo`, which tells it from Google's.
const DOMAIN: &str = "tower-gemini";

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";

/// The length that nearly all errors have at most.
const USUAL_LEN: usize = 768;

/// Renders the whole answer to a call that failed before anything was sent back.
pub(super) fn response(error: &BoxError, shape: Shape, settings: &Settings, now: SystemTime) -> Response<Bytes> {
    let facts = ErrorFacts::read(error);
    let code = facts.code();
    let hints = Hints::of(code, &facts.outcome, shape.surface, now);
    let body = facts.failure.read_caller_message(|own| {
        let message = Some(own).filter(|_| !facts.outcome.is_own_key_refused());
        text_of(&facts.object(shape.surface, message, Some(hints)), is_listed(shape, settings))
    });
    let mut response = Response::new(body);
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
pub(super) fn event(error: &BoxError, surface: Surface) -> Vec<u8> {
    let begin = if surface == Surface::Interactions { "event: error\ndata: " } else { "data: " };
    [begin.as_bytes(), &last_words(error, surface), b"\n\n"].concat()
}

/// Renders the error as the last element of an array that has begun, behind a comma or not, and closes the array.
pub(super) fn last_element(error: &BoxError, surface: Surface, needs_comma: bool) -> Vec<u8> {
    let begin = if needs_comma { ",\n" } else { "" };
    [begin.as_bytes(), &last_words(error, surface), b"\n]\n"].concat()
}

fn last_words(error: &BoxError, surface: Surface) -> Bytes {
    text_of(&ErrorFacts::read(error).object(surface, None, None), false)
}

/// Writes an error, or a list of it alone.
pub(super) fn text_of(error: &impl Serialize, is_listed: bool) -> Bytes {
    if is_listed { json(&[error]) } else { json(error) }
}

/// Writes a value in place first, so that the memory it is kept in is as long as it is.
fn json(value: &impl Serialize) -> Bytes {
    let mut usual = [0; USUAL_LEN];
    let mut room = &mut usual[..];
    match serde_json::to_writer(&mut room, value) {
        Ok(()) => {
            let len = USUAL_LEN - room.len();
            Bytes::copy_from_slice(&usual[..len])
        }
        // It is longer. Memory takes all bytes, and no error refuses to be written.
        Err(_) => serde_json::to_vec(value).unwrap_or_default().into(),
    }
}

/// Returns whether an error of a call that has no answer yet stands in a list. Google's does if a list was asked for, and
/// always on the OpenAI-compatible surface.
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

    /// Returns the error's object, as the surface has it. `message`: the words in place of the failure's own. `hints`:
    /// those of an answer; an event has none.
    pub(super) fn object<'a>(
        &'a self,
        surface: Surface,
        message: Option<&'a str>,
        hints: Option<Hints>,
    ) -> ErrorObject<'a> {
        let is_own_key_refused = self.outcome.is_own_key_refused();
        let (kind, name) = match is_own_key_refused {
            true => (Kind::KeysDisabled, "UNAVAILABLE"),
            false => (self.failure.kind(), self.failure.google_status()),
        };
        let own = || if is_own_key_refused { OWN_KEYS_REFUSED } else { self.failure.caller_message() };
        let message = message.unwrap_or_else(own);
        let message =
            hints.and_then(|hints| hints.told(message)).map_or(ErrorWords::Plain(message), ErrorWords::WithTime);
        if surface == Surface::Interactions {
            let error = InteractionError { code: name.to_ascii_lowercase(), message };
            return ErrorObject::Interaction { error, event_type: "error" };
        }
        let info = ErrorDetail::ErrorInfo {
            type_url: ERROR_INFO,
            domain: DOMAIN,
            metadata: self.metadata(),
            reason: Displayed(Uppercase(kind.as_str())),
        };
        let wait = match hints {
            Some(hints) => hints.retry_info(),
            None => Hints::retry_info_of_event(&self.failure, &self.outcome),
        };
        let code = self.code();
        let is_openai = surface == Surface::OpenAi;
        let error = GoogleError {
            code: code.as_u16(),
            details: [Some(info), wait.map(retry_info)],
            message,
            param: is_openai.then_some(()),
            status: name,
            openai_type: is_openai.then(|| openai_type(code)),
        };
        ErrorObject::Google { error }
    }

    fn metadata(&self) -> Metadata {
        Metadata {
            attempts: Some(self.outcome.attempts()).filter(|attempts| *attempts > 0).map(Displayed),
            clock: self.clock,
            fault: self.failure.fault().as_str(),
            layer: self.layer,
        }
    }
}

/// An error in its envelope. Here and below, members stand in the order of their names, as a [`serde_json::Map`] has them.
#[derive(Serialize)]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "it is written where it is made, and not kept")]
pub(super) enum ErrorObject<'a> {
    Google { error: GoogleError<'a> },
    Interaction { error: InteractionError<'a>, event_type: &'static str },
}

/// An error of Google's, and of OpenAI's with two members more.
#[derive(Serialize)]
pub(super) struct GoogleError<'a> {
    code: u16,
    #[serde(serialize_with = "those_known")]
    details: [Option<ErrorDetail>; 2],
    message: ErrorWords<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<()>,
    status: &'static str,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    openai_type: Option<&'static str>,
}

/// An error on the surface of interactions.
#[derive(Serialize)]
pub(super) struct InteractionError<'a> {
    code: String,
    message: ErrorWords<'a>,
}

/// The words of an error.
enum ErrorWords<'a> {
    Plain(&'a str),
    WithTime(Told<'a>),
}

impl Serialize for ErrorWords<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(message) => serializer.serialize_str(message),
            Self::WithTime(told) => serializer.collect_str(told),
        }
    }
}

/// A detail of an error.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum ErrorDetail {
    ErrorInfo {
        #[serde(rename = "@type")]
        type_url: &'static str,
        domain: &'static str,
        metadata: Metadata,
        reason: Displayed<Uppercase>,
    },
    RetryInfo {
        #[serde(rename = "@type")]
        type_url: &'static str,
        #[serde(rename = "retryDelay")]
        retry_delay: Displayed<Seconds>,
    },
}

/// The facts in an `ErrorInfo`.
#[derive(Serialize)]
pub(super) struct Metadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<Displayed<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clock: Option<&'static str>,
    fault: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<&'static str>,
}

/// Builds the detail that says when to come again.
pub(super) fn retry_info(wait: Duration) -> ErrorDetail {
    ErrorDetail::RetryInfo { type_url: RETRY_INFO, retry_delay: Displayed(Seconds(wait)) }
}

fn those_known<T: Serialize, S: Serializer>(values: &[Option<T>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().flatten())
}

/// A value that is written as the text that it shows.
pub(super) struct Displayed<T>(T);

impl<T: fmt::Display> Serialize for Displayed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A name in capitals.
pub(super) struct Uppercase(&'static str);

impl fmt::Display for Uppercase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|letter| f.write_char(letter.to_ascii_uppercase()))
    }
}

/// A time as Protobuf's JSON has it: `5s`, `0.25s`.
pub(super) struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut fraction, mut places) = (self.0.subsec_nanos(), 9);
        while places > 0 && fraction % 10 == 0 {
            (fraction, places) = (fraction / 10, places - 1);
        }
        match places {
            0 => write!(f, "{}s", self.0.as_secs()),
            _ => write!(f, "{}.{fraction:0places$}s", self.0.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::Value;

    use super::*;
    use crate::call::Call;

    #[test]
    fn errors_are_written_as_their_values_are() {
        let failure = Failure::local(Kind::RateLimited, "a \"quote\",\na line, and \u{e9}")
            .with_hint(Duration::from_millis(1_250));
        let known = Error::refusal("rate_limit", failure).map_outcome(|outcome| outcome.with_attempts(2));
        let errors: [BoxError; 2] = [known.into(), "a foreign one".into()];
        let now = SystemTime::UNIX_EPOCH;
        for uri in [
            "/v1/models/m:generateContent",
            "/v1/models/m:streamGenerateContent",
            "/v1beta/openai/chat/completions",
            "/v1beta/interactions",
        ] {
            let shape = Call::new(&Method::POST, &uri.parse().unwrap()).shape();
            for error in &errors {
                let text = response(error, shape, &Settings::default(), now).into_body();
                let value: Value = serde_json::from_slice(&text).unwrap();
                assert_eq!(value.to_string(), text);
                let event = String::from_utf8(event(error, shape.surface)).unwrap();
                let data = event.trim_start_matches("event: error\n").trim_start_matches("data: ").trim_end();
                assert_eq!(serde_json::from_str::<Value>(data).unwrap().to_string(), data);
            }
        }
    }

    #[test]
    fn times_have_no_zeros_at_their_end() {
        for (time, expected) in [(0, "0s"), (5_000, "5s"), (250, "0.25s"), (10_001, "10.001s"), (60_500, "60.5s")] {
            assert_eq!(Seconds(Duration::from_millis(time)).to_string(), expected);
        }
        assert_eq!(Seconds(Duration::from_nanos(7)).to_string(), "0.000000007s");
    }
}
