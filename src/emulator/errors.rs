//! Google's error shapes, member by member and word by word, as they were seen on the wire.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{quota::Violation, quota_names::QuotaNames};

/// A `google.rpc.Status` as the REST surfaces write it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ApiError {
    code: u16,
    message: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Detail>,
}

/// Whether an error stands alone or in an array, as the array streams and the OpenAI-compatible surface put it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Envelope {
    Object,
    Array,
}

pub(super) const SERVICE: &str = "generativelanguage.googleapis.com";
const RATE_LIMITS: &str = "https://ai.google.dev/gemini-api/docs/rate-limits";

// === impl ApiError ===

impl ApiError {
    pub(super) fn new(code: u16, status: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), status, details: Vec::new() }
    }

    pub(super) fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(400, "INVALID_ARGUMENT", message)
    }

    pub(super) fn with_retry_info(mut self, retry_in: Duration) -> Self {
        // Cut to whole seconds, as the Developer API does.
        self.details.push(Detail::RetryInfo { retry_delay: format!("{}s", retry_in.as_secs()) });
        self
    }

    pub(super) fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The body of an error response: indented by two, as Google's front end writes it.
    pub(super) fn body(&self, envelope: Envelope) -> Bytes {
        let object = pretty(&self.enveloped());
        match envelope {
            Envelope::Object => format!("{object}\n").into(),
            Envelope::Array => format!("[{object}\n]").into(),
        }
    }

    /// On one line, as it stands in an event.
    pub(super) fn line(&self) -> String {
        serde_json::to_string(&self.enveloped()).unwrap_or_default()
    }

    pub(super) fn enveloped(&self) -> impl Serialize {
        Enveloped { error: self }
    }

    // --- requests that are wrong ---

    /// `at` is the byte at which reading stopped.
    pub(super) fn malformed_json(body: &[u8], at: usize, ended_early: bool) -> Self {
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

    pub(super) fn payload_too_large(limit: usize) -> Self {
        Self::invalid_argument(format!("Request payload size exceeds the limit: {limit} bytes."))
    }

    pub(super) fn too_many_tokens(count: u64, limit: u64) -> Self {
        Self::invalid_argument(format!(
            "The input token count ({count}) exceeds the maximum number of tokens allowed ({limit})."
        ))
    }

    pub(super) fn deadline_too_short(seconds: u64) -> Self {
        Self::invalid_argument(format!(
            "Manually set deadline {seconds}s is too short. Minimum allowed deadline is 10s."
        ))
    }

    pub(super) fn model_not_found(resource: &str, version: &str, method: &str) -> Self {
        Self::new(
            404,
            "NOT_FOUND",
            format!(
                "{resource} is not found for API version {version}, or is not supported for {method}. \
                 Call ListModels to see the list of available models and their supported methods."
            ),
        )
    }

    pub(super) fn model_unknown(resource: &str, version: &str) -> Self {
        Self::new(404, "NOT_FOUND", format!("Model is not found: {resource} for api version {version}"))
    }

    pub(super) fn publisher_model_not_found(resource: &str) -> Self {
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

    /// Of a file or cached content that is another project's, or gone, or never was: Google tells none from the other.
    pub(super) fn not_yours(name: &str) -> Self {
        let message = match name.strip_prefix("files/") {
            Some(id) => format!("You do not have permission to access the File {id} or it may not exist."),
            None => "CachedContent not found (or permission denied)".to_owned(),
        };
        Self::new(403, "PERMISSION_DENIED", message)
    }

    // --- credentials ---

    pub(super) fn many_credentials() -> Self {
        Self::invalid_argument("Multiple authentication credentials received. Please pass only one.")
    }

    pub(super) fn unregistered_caller() -> Self {
        Self::new(
            403,
            "PERMISSION_DENIED",
            "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or \
             other form of API consumer identity to call this API.",
        )
    }

    pub(super) fn missing_authorization() -> Self {
        Self::invalid_argument("Missing or invalid Authorization header.")
    }

    pub(super) fn missing_credential(service: &'static str, method: String) -> Self {
        let mut error = Self::new(
            401,
            "UNAUTHENTICATED",
            "Request is missing required authentication credential. Expected OAuth 2 access token, login cookie or \
             other valid authentication credential. See \
             https://developers.google.com/identity/sign-in/web/devconsole-project.",
        );
        let metadata = vec![("method", method), ("service", service.into())];
        error.details.push(Detail::error_info("CREDENTIALS_MISSING", Some("googleapis.com"), metadata));
        error
    }

    pub(super) fn unsupported_token(service: &'static str, method: String) -> Self {
        let mut error = Self::new(
            401,
            "UNAUTHENTICATED",
            "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other \
             valid authentication credential. See \
             https://developers.google.com/identity/sign-in/web/devconsole-project.",
        );
        let metadata = vec![("method", method), ("service", service.into())];
        error.details.push(Detail::error_info("ACCESS_TOKEN_TYPE_UNSUPPORTED", None, metadata));
        error
    }

    pub(super) fn invalid_key() -> Self {
        Self::bad_key("API key not valid. Please pass a valid API key.")
    }

    pub(super) fn expired_key() -> Self {
        Self::bad_key("API key expired. Please renew the API key.")
    }

    fn bad_key(message: &str) -> Self {
        let mut error = Self::invalid_argument(message);
        let metadata = vec![("service", SERVICE.into())];
        error.details.push(Detail::error_info("API_KEY_INVALID", Some("googleapis.com"), metadata));
        error.details.push(Detail::localized(message));
        error
    }

    /// Echoes the key three times, as Google does.
    pub(super) fn suspended_key(key: &str, project: &str) -> Self {
        let message = format!("Permission denied: Consumer 'api_key:{key}' has been suspended.");
        let metadata = vec![
            ("consumer", format!("projects/{project}")),
            ("service", SERVICE.into()),
            ("containerInfo", format!("api_key:{key}")),
        ];
        let mut error = Self::new(403, "PERMISSION_DENIED", message.as_str());
        error.details.push(Detail::error_info("CONSUMER_SUSPENDED", Some("googleapis.com"), metadata));
        error.details.push(Detail::localized(&message));
        error
    }

    pub(super) fn leaked_key() -> Self {
        Self::new(403, "PERMISSION_DENIED", "Your API key was reported as leaked. Please use another API key.")
    }

    pub(super) fn service_disabled(project: &str) -> Self {
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
        error
    }

    // --- quota ---

    /// A 429 with everything: QuotaFailure, Help, RetryInfo, and the exact wait in the message.
    pub(super) fn quota_exceeded(violations: &[Violation], quota: &QuotaNames<'_>, retry_in: Duration) -> Self {
        let mut message = format!(
            "You exceeded your current quota, please check your plan and billing details. For more information on \
             this error, head to: {RATE_LIMITS}. To monitor your current usage, head to: https://ai.dev/rate-limit. "
        );
        for violation in violations {
            let (metric, limit, model) = (quota.metric(violation.dimension), violation.limit, quota.model);
            message.push_str(&format!("\n* Quota exceeded for metric: {metric}, limit: {limit}, model: {model}"));
        }
        message.push_str(&format!("\nPlease retry in {}.", exact(retry_in)));
        let violations = violations
            .iter()
            .map(|violation| QuotaViolation {
                quota_metric: quota.metric(violation.dimension),
                quota_id: quota.id(violation.dimension),
                quota_dimensions: Dimensions { location: "global", model: quota.model.into() },
                quota_value: (violation.limit > 0).then(|| violation.limit.to_string()),
            })
            .collect();
        let mut error = Self::new(429, "RESOURCE_EXHAUSTED", message);
        let links = vec![Link { description: "Learn more about Gemini API quotas", url: RATE_LIMITS.into() }];
        error.details.push(Detail::QuotaFailure { violations });
        error.details.push(Detail::Help { links });
        error.with_retry_info(retry_in)
    }

    pub(super) fn bare_quota() -> Self {
        Self::new(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).")
    }

    pub(super) fn vertex_capacity() -> Self {
        Self::new(
            429,
            "RESOURCE_EXHAUSTED",
            "Resource exhausted. Please try again later. Please refer to \
             https://cloud.google.com/vertex-ai/generative-ai/docs/error-code-429 for more details.",
        )
    }

    // --- the service itself ---

    pub(super) fn overloaded() -> Self {
        Self::new(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")
    }

    pub(super) fn high_demand() -> Self {
        Self::new(
            503,
            "UNAVAILABLE",
            "This model is currently experiencing high demand. Spikes in demand are usually temporary. Please try \
             again later.",
        )
    }

    pub(super) fn internal() -> Self {
        Self::new(
            500,
            "INTERNAL",
            "An internal error has occurred. Please retry or report in \
             https://developers.generativeai.google/guide/troubleshooting",
        )
    }

    pub(super) fn deadline_exceeded() -> Self {
        Self::new(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete.")
    }
}

/// "42.921954507s", "26s", "900.2ms": as much as there is, and milliseconds under a second.
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

pub(super) fn pretty(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// The page that Google's front end shows when it has nothing behind it.
pub(super) const BAD_GATEWAY_PAGE: &str = "<!DOCTYPE html>\n<html lang=en>\n  <meta charset=utf-8>\n  \
    <meta name=viewport content=\"initial-scale=1, minimum-scale=1, width=device-width\">\n  \
    <title>Error 502 (Server Error)!!1</title>\n  <a href=//www.google.com/><span id=logo aria-label=Google></span></a>\n  \
    <p><b>502.</b> <ins>That\u{2019}s an error.</ins>\n  \
    <p>The server encountered a temporary error and could not complete your request.\
    <p>Please try again in 30 seconds.  <ins>That\u{2019}s all we know.</ins>\n";

// === shapes ===

#[derive(Serialize)]
struct Enveloped<'a> {
    error: &'a ApiError,
}

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "@type", rename_all_fields = "camelCase")]
enum Detail {
    #[serde(rename = "type.googleapis.com/google.rpc.ErrorInfo")]
    ErrorInfo {
        reason: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        domain: Option<&'static str>,
        #[serde(serialize_with = "as_map")]
        metadata: Vec<(&'static str, String)>,
    },
    #[serde(rename = "type.googleapis.com/google.rpc.LocalizedMessage")]
    LocalizedMessage { locale: &'static str, message: String },
    #[serde(rename = "type.googleapis.com/google.rpc.QuotaFailure")]
    QuotaFailure { violations: Vec<QuotaViolation> },
    #[serde(rename = "type.googleapis.com/google.rpc.Help")]
    Help { links: Vec<Link> },
    #[serde(rename = "type.googleapis.com/google.rpc.RetryInfo")]
    RetryInfo { retry_delay: String },
    #[serde(rename = "type.googleapis.com/google.rpc.BadRequest")]
    BadRequest { field_violations: Vec<FieldViolation> },
}

impl Detail {
    fn error_info(reason: &'static str, domain: Option<&'static str>, metadata: Vec<(&'static str, String)>) -> Self {
        Self::ErrorInfo { reason, domain, metadata }
    }

    fn localized(message: &str) -> Self {
        Self::LocalizedMessage { locale: "en-US", message: message.into() }
    }
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct QuotaViolation {
    quota_metric: String,
    quota_id: String,
    quota_dimensions: Dimensions,
    #[serde(skip_serializing_if = "Option::is_none")]
    quota_value: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Dimensions {
    location: &'static str,
    model: String,
}

#[derive(Clone, Debug, Serialize)]
struct Link {
    description: &'static str,
    url: String,
}

#[derive(Clone, Debug, Serialize)]
struct FieldViolation {
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    description: String,
}

fn as_map<S: Serializer>(pairs: &[(&'static str, String)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(pairs.len()))?;
    for (name, value) in pairs {
        map.serialize_entry(name, value)?;
    }
    map.end()
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
        let body = ApiError::suspended_key("test-key", "p").body(Envelope::Object);
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
