//! Google's errors, with the members and the words that were seen on the wire.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    error_details::{Detail, FieldViolation, Link, QuotaDimensions, QuotaViolation},
    interactions,
    json::{line, pretty},
    path::DEVELOPER_SERVICE as SERVICE,
    prompt::CONTINUATIONS,
    quota_names::{ExceededLimit, QuotaNames},
    resource_path::Collection,
};

/// An error of the API: a `google.rpc.Status` as the REST surfaces write it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ApiError {
    code: u16,
    message: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Detail>,
    /// The code that interactions have in place of the number, if it is not that of the status.
    #[serde(skip)]
    code_in_words: Option<&'static str>,
    /// The error comes from the front end, before any service: it has the same shape on all surfaces.
    #[serde(skip)]
    of_front_end: bool,
}

/// The JSON around an error: an object, or an array of one, which array streams and the OpenAI-compatible surface send;
/// or the object of the Interactions API, whose code is a word, by itself or in an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorEnvelope {
    Object,
    Array,
    Coded,
    CodedEvent,
}

const RATE_LIMITS: &str = "https://ai.google.dev/gemini-api/docs/rate-limits";

// === impl ApiError ===

impl ApiError {
    pub(crate) fn new(code: u16, status: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message, status, details: Vec::new(), code_in_words: None, of_front_end: false }
    }

    pub(crate) fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(400, "INVALID_ARGUMENT", message)
    }

    /// Adds a RetryInfo detail, cut to whole seconds as by the Developer API.
    pub(crate) fn with_retry_info(mut self, retry_in: Duration) -> Self {
        self.details.push(Detail::RetryInfo { retry_delay: format!("{}s", retry_in.as_secs()) });
        self
    }

    pub(crate) fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Writes the body of an error response, indented by two spaces as by Google's front end.
    pub(crate) fn body(&self, envelope: ErrorEnvelope) -> Bytes {
        let object = || pretty(&self.enveloped());
        match envelope {
            ErrorEnvelope::Array => format!("[{}\n]", object()).into(),
            ErrorEnvelope::Coded if !self.of_front_end => interactions::error(self),
            ErrorEnvelope::CodedEvent if !self.of_front_end => interactions::error_event(self),
            _ => format!("{}\n", object()).into(),
        }
    }

    /// Returns whether the front end makes the error, before any service.
    pub(crate) fn is_of_front_end(&self) -> bool {
        self.of_front_end
    }

    /// Returns the error as the Interactions API has it: a code in words, and no details.
    pub(crate) fn coded(&self) -> Value {
        let code = self.code_in_words.unwrap_or(match self.status {
            "INVALID_ARGUMENT" | "FAILED_PRECONDITION" => "invalid_request",
            "UNAUTHENTICATED" => "unauthenticated",
            "PERMISSION_DENIED" => "permission_denied",
            "NOT_FOUND" => "not_found",
            "ALREADY_EXISTS" => "already_exists",
            "RESOURCE_EXHAUSTED" => "too_many_requests",
            "UNAVAILABLE" => "service_unavailable",
            "DEADLINE_EXCEEDED" => "deadline_exceeded",
            _ => "internal_error",
        });
        json!({ "code": code, "message": self.message })
    }

    /// Marks the error as one of the front end.
    fn by_front_end(mut self) -> Self {
        self.of_front_end = true;
        self
    }

    /// Writes the error on one line, for an event.
    pub(crate) fn line(&self) -> String {
        line(&self.enveloped())
    }

    /// Returns `{"error": …}`, to be written.
    pub(crate) fn enveloped(&self) -> impl Serialize {
        Enveloped { error: self }
    }

    // --- wrong requests ---

    /// Returns the error for a body that is not JSON; `at` is the byte at which the parser stopped.
    pub(crate) fn malformed_json(body: &[u8], at: usize, ended_early: bool) -> Self {
        let what = match ended_early {
            true => "Unexpected end of string. Expected a value.",
            false => "Unexpected token.",
        };
        let start = at.saturating_sub(20);
        let end = (at + 20).min(body.len());
        let around = String::from_utf8_lossy(&body[start.min(end)..end]).replace(['\n', '\r'], " ");
        let caret = String::from_utf8_lossy(&body[start.min(end)..at.min(end)]).chars().count();
        let message = format!("Invalid JSON payload received. {what}\n{around}\n{:caret$}^", "");
        let violation = FieldViolation { field: None, description: message.clone() };
        let mut error = Self::invalid_argument(message);
        error.details.push(Detail::BadRequest { field_violations: vec![violation] });
        error
    }

    pub(crate) fn payload_too_large(limit: usize) -> Self {
        Self::invalid_argument(format!("Request payload size exceeds the limit: {limit} bytes."))
    }

    pub(crate) fn too_many_tokens(count: u64, limit: u64) -> Self {
        Self::invalid_argument(format!(
            "The input token count ({count}) exceeds the maximum number of tokens allowed ({limit})."
        ))
    }

    pub(crate) fn deadline_too_short(seconds: u64) -> Self {
        Self::invalid_argument(format!(
            "Manually set deadline {seconds}s is too short. Minimum allowed deadline is 10s."
        ))
    }

    pub(crate) fn model_not_found(resource: &str, version: &str, method: &str) -> Self {
        Self::new(
            404,
            "NOT_FOUND",
            format!(
                "{resource} is not found for API version {version}, or is not supported for {method}. \
                 Call ListModels to see the list of available models and their supported methods."
            ),
        )
    }

    pub(crate) fn model_unknown(resource: &str, version: &str) -> Self {
        Self::new(404, "NOT_FOUND", format!("Model is not found: {resource} for api version {version}"))
    }

    pub(crate) fn publisher_model_not_found(resource: &str) -> Self {
        Self::new(
            404,
            "NOT_FOUND",
            format!(
                "Publisher Model `{resource}` was not found or your project does not have access to it. Please ensure \
                 you are using a valid model version. For more information, see: \
                 https://cloud.google.com/vertex-ai/generative-ai/docs/learn/model-versions"
            ),
        )
    }

    /// Returns the error for a thing that belongs to another project, is gone, or never existed: Google does not tell
    /// these apart.
    pub(crate) fn not_yours(name: &str) -> Self {
        let id = name.split('/').nth(1).unwrap_or_default();
        let message = match Collection::of(name) {
            Some(Collection::Files) => {
                format!("You do not have permission to access the File {id} or it may not exist.")
            }
            Some(Collection::CachedContents) => "CachedContent not found (or permission denied)".to_owned(),
            Some(Collection::FileSearchStores) => {
                format!("You do not have permission to access the FileSearchStore {id} or it may not exist.")
            }
            None if name.starts_with(CONTINUATIONS) => {
                "You do not have permission to access the continuation token or it may not exist.".to_owned()
            }
            _ => return Self::not_found(),
        };
        Self::new(403, "PERMISSION_DENIED", message)
    }

    pub(crate) fn not_found() -> Self {
        Self::new(404, "NOT_FOUND", "Requested entity was not found.")
    }

    /// Returns the error for a model that is closed for projects that have not used it before.
    pub(crate) fn model_closed(model: &str) -> Self {
        let message = format!(
            "This model models/{model} is no longer available to new users. Please update your code to use a newer model \
             for the latest features and improvements."
        );
        Self::new(404, "NOT_FOUND", message)
    }

    /// Returns the error of the content filter, which only interactions have as an error.
    pub(crate) fn prohibited() -> Self {
        let mut error = Self::invalid_argument(interactions::PROHIBITED);
        error.code_in_words = Some("prohibited_content");
        error
    }

    // --- credentials ---

    pub(crate) fn many_credentials() -> Self {
        Self::invalid_argument("Multiple authentication credentials received. Please pass only one.").by_front_end()
    }

    pub(crate) fn unregistered_caller() -> Self {
        Self::new(
            403,
            "PERMISSION_DENIED",
            "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or \
             other form of API consumer identity to call this API.",
        )
        .by_front_end()
    }

    pub(crate) fn missing_authorization() -> Self {
        Self::invalid_argument("Missing or invalid Authorization header.")
    }

    pub(crate) fn missing_credential(service: &'static str, method: String) -> Self {
        let mut error = Self::new(
            401,
            "UNAUTHENTICATED",
            "Request is missing required authentication credential. Expected OAuth 2 access token, login cookie or \
             other valid authentication credential. See \
             https://developers.google.com/identity/sign-in/web/devconsole-project.",
        );
        let metadata = vec![("method", method), ("service", service.into())];
        error.details.push(Detail::error_info("CREDENTIALS_MISSING", Some("googleapis.com"), metadata));
        error.by_front_end()
    }

    pub(crate) fn unsupported_token(service: &'static str, method: String) -> Self {
        let mut error = Self::new(
            401,
            "UNAUTHENTICATED",
            "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other \
             valid authentication credential. See \
             https://developers.google.com/identity/sign-in/web/devconsole-project.",
        );
        let metadata = vec![("method", method), ("service", service.into())];
        error.details.push(Detail::error_info("ACCESS_TOKEN_TYPE_UNSUPPORTED", None, metadata));
        error.by_front_end()
    }

    pub(crate) fn invalid_key() -> Self {
        Self::bad_key("API key not valid. Please pass a valid API key.")
    }

    pub(crate) fn expired_key() -> Self {
        Self::bad_key("API key expired. Please renew the API key.")
    }

    fn bad_key(message: &str) -> Self {
        let mut error = Self::invalid_argument(message);
        let metadata = vec![("service", SERVICE.into())];
        error.details.push(Detail::error_info("API_KEY_INVALID", Some("googleapis.com"), metadata));
        error.details.push(Detail::localized(message));
        error.by_front_end()
    }

    /// Returns the error for a suspended key. It repeats the key three times, as Google's does.
    pub(crate) fn suspended_key(key: &str, project: &str) -> Self {
        let message = format!("Permission denied: Consumer 'api_key:{key}' has been suspended.");
        let metadata = vec![
            ("consumer", format!("projects/{project}")),
            ("service", SERVICE.into()),
            ("containerInfo", format!("api_key:{key}")),
        ];
        let mut error = Self::new(403, "PERMISSION_DENIED", message.as_str());
        error.details.push(Detail::error_info("CONSUMER_SUSPENDED", Some("googleapis.com"), metadata));
        error.details.push(Detail::localized(&message));
        error.by_front_end()
    }

    pub(crate) fn leaked_key() -> Self {
        let message = "Your API key was reported as leaked. Please use another API key.";
        Self::new(403, "PERMISSION_DENIED", message).by_front_end()
    }

    pub(crate) fn service_disabled(project: &str) -> Self {
        let url = format!("https://console.developers.google.com/apis/api/{SERVICE}/overview?project={project}");
        let mut error = Self::new(
            403,
            "PERMISSION_DENIED",
            format!(
                "Generative Language API has not been used in project {project} before or it is disabled. Enable it \
                 by visiting {url} then retry. If you enabled this API recently, wait a few minutes for the action to \
                 propagate to our systems and retry."
            ),
        );
        let links = vec![Link { description: "Google developers console API activation", url }];
        error.details.push(Detail::Help { links });
        let metadata = vec![("consumer", format!("projects/{project}")), ("service", SERVICE.into())];
        error.details.push(Detail::error_info("SERVICE_DISABLED", Some("googleapis.com"), metadata));
        error.by_front_end()
    }

    // --- quota ---

    /// Returns a 429 with all its details: QuotaFailure, Help, RetryInfo, and the exact wait in the message.
    pub(crate) fn quota_exceeded(exceeded: &[ExceededLimit], quota: &QuotaNames<'_>, retry_in: Duration) -> Self {
        let mut message = format!(
            "You exceeded your current quota, please check your plan and billing details. For more information on \
             this error, head to: {RATE_LIMITS}. To monitor your current usage, head to: https://ai.dev/rate-limit. "
        );
        for ExceededLimit { dimension, limit } in exceeded {
            let (metric, model) = (quota.metric(*dimension), quota.model);
            message.push_str(&format!("\n* Quota exceeded for metric: {metric}, limit: {limit}, model: {model}"));
        }
        message.push_str(&format!("\nPlease retry in {}.", exact(retry_in)));
        let violations = exceeded
            .iter()
            .map(|exceeded| QuotaViolation {
                quota_metric: quota.metric(exceeded.dimension),
                quota_id: quota.id(exceeded.dimension),
                quota_dimensions: QuotaDimensions { location: "global", model: quota.model.into() },
                quota_value: (exceeded.limit > 0).then(|| exceeded.limit.to_string()),
            })
            .collect();
        let mut error = Self::new(429, "RESOURCE_EXHAUSTED", message);
        let links = vec![Link { description: "Learn more about Gemini API quotas", url: RATE_LIMITS.into() }];
        error.details.push(Detail::QuotaFailure { violations });
        error.details.push(Detail::Help { links });
        error.with_retry_info(retry_in).by_front_end()
    }

    /// Returns a 429 whose only detail is Help, as calls with search get it on the free tier.
    pub(crate) fn grounding_quota() -> Self {
        let message = format!(
            "You exceeded your current quota, please check your plan and billing details. For more information on \
             this error, head to: {RATE_LIMITS}. To monitor your current usage, head to: https://ai.dev/rate-limit. "
        );
        let mut error = Self::new(429, "RESOURCE_EXHAUSTED", message);
        let links = vec![Link { description: "Learn more about Gemini API quotas", url: RATE_LIMITS.into() }];
        error.details.push(Detail::Help { links });
        error.by_front_end()
    }

    /// Returns a 429 for the money that a project may spend in ten minutes. No body of it was seen yet.
    pub(crate) fn spend_limit(project: &str) -> Self {
        let message = format!(
            "Project {project} exceeded its spend-based rate limit over the last 10 minutes. For more information on \
             this error, head to: {RATE_LIMITS}."
        );
        Self::new(429, "RESOURCE_EXHAUSTED", message).by_front_end()
    }

    /// Returns a 429 for the money that a project may spend in a month.
    pub(crate) fn spending_cap() -> Self {
        let message = "Your project has exceeded its monthly spending cap. Please go to AI Studio at \
                       https://ai.studio/spend to manage your project spend cap.";
        Self::new(429, "RESOURCE_EXHAUSTED", message).by_front_end()
    }

    pub(crate) fn bare_quota() -> Self {
        Self::new(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).")
    }

    pub(crate) fn vertex_capacity() -> Self {
        Self::new(
            429,
            "RESOURCE_EXHAUSTED",
            "Resource exhausted. Please try again later. Please refer to \
             https://cloud.google.com/vertex-ai/generative-ai/docs/error-code-429 for more details.",
        )
    }

    // --- failures of the service ---

    pub(crate) fn overloaded() -> Self {
        Self::new(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")
    }

    pub(crate) fn high_demand() -> Self {
        Self::new(
            503,
            "UNAVAILABLE",
            "This model is currently experiencing high demand. Spikes in demand are usually temporary. Please try \
             again later.",
        )
    }

    pub(crate) fn internal() -> Self {
        Self::new(
            500,
            "INTERNAL",
            "An internal error has occurred. Please retry or report in \
             https://developers.generativeai.google/guide/troubleshooting",
        )
    }

    pub(crate) fn deadline_exceeded() -> Self {
        Self::new(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete.")
    }
}

/// Writes a wait with all its digits, in milliseconds below a second: "42.921954507s", "26s", "900.2ms".
fn exact(wait: Duration) -> String {
    let (whole, digits, unit) = match wait.as_secs() {
        0 => (wait.as_millis() as u64, format!("{:06}", wait.subsec_nanos() % 1_000_000), "ms"),
        secs => (secs, format!("{:09}", wait.subsec_nanos()), "s"),
    };
    match digits.trim_end_matches('0') {
        "" => format!("{whole}{unit}"),
        digits => format!("{whole}.{digits}{unit}"),
    }
}

// === shapes ===

#[derive(Serialize)]
struct Enveloped<'a> {
    error: &'a ApiError,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_written_as_google_writes_them() {
        for (nanos, text) in [
            (42_921_954_507, "42.921954507s"),
            (26_000_000_000, "26s"),
            (900_200_000, "900.2ms"),
            (60_000_000_000, "60s"),
            (1_500_000_000, "1.5s"),
            (0, "0ms"),
            (42, "0.000042ms"),
        ] {
            assert_eq!(exact(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn a_suspended_key_is_echoed_three_times() {
        let body = ApiError::suspended_key("test-key", "p").body(ErrorEnvelope::Object);
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert_eq!(text.matches("api_key:test-key").count(), 3);
        assert!(text.starts_with("{\n  \"error\": {\n    \"code\": 403,\n    \"message\": "));
        assert!(text.ends_with("}\n"));
    }

    #[test]
    fn malformed_json_shows_where() {
        let error = ApiError::malformed_json(b"{bad json}", 1, false);
        assert_eq!(error.message, "Invalid JSON payload received. Unexpected token.\n{bad json}\n ^");
        let error = ApiError::malformed_json("{\"a\": \"\u{e9}".as_bytes(), 9, true);
        assert!(error.message.contains("Unexpected end of string. Expected a value.\n{\"a\": \"\u{e9}\n"));
        let _ = ApiError::malformed_json(b"", 7, true);
    }
}
