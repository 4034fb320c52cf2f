//! Errors of the relay's own, in Google's words.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::json;
use tower::BoxError;
use tower_gemini::{Error, failure::Failure};

/// The name of the layer in such errors.
pub(crate) const NAME: &str = "relay";

/// The time after which a caller may try a full relay again: answers take seconds.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Makes an error of the relay's own, in Google's words; the layer outside puts it into the caller's envelope.
pub(crate) fn refusal(code: StatusCode, status: &str, message: &str) -> BoxError {
    Error::refusal(NAME, failure(code, status, message)).into()
}

/// Makes the same error with the time after which trying again will help.
pub(crate) fn full(code: StatusCode, status: &str, message: &str) -> BoxError {
    Error::refusal(NAME, failure(code, status, message).with_hint(RETRY_AFTER)).into()
}

fn failure(code: StatusCode, status: &str, message: &str) -> Failure {
    let error = json!({ "error": { "code": code.as_u16(), "status": status, "message": message } });
    Failure::from_response(code, &HeaderMap::new(), error.to_string().as_bytes())
}
