//! The verdict on a response: from its status, headers and body to a failure.
//!
//! The body's own code goes first, then its status name, then the status that came over the wire: a relay answers 500
//! with a 429 inside, and the inner one is right. Within a status the reason goes first, then the words, then the usual
//! meaning of the status.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};

use super::{
    Details, Failure, Fault, Flags, Hint, Kind, Quota, exhausted, message::Message, quota::SOON, ruling::Ruling,
    tokens, wording,
};
use crate::{
    clock,
    status::{Envelope, Status, canonical_code, decode},
};

/// The longest hint; longer ones are cut to it. A week is the longest period of any quota that was seen (Code Assist's:
/// 161 hours were left of one), so that a longer hint is a mistake or an attack.
pub(super) const LONGEST_HINT: Duration = Duration::from_secs(7 * 86_400);

/// The longest hint of a minute's quota, and of a model that is at capacity: a minute's quota is back after one minute,
/// so that a longer hint is not about it. One call looks after that.
pub(super) const LONGEST_MINUTE: Duration = Duration::from_secs(120);

/// The size of Gemini's largest contexts, give or take how a refusal counts. A refusal that names a smaller limit is
/// about this model's own.
const LARGEST_CONTEXT: u64 = 1_000_000;

/// Judges a response whose body is known. `wire` is `None` for an error inside a stream, whose 200 means nothing.
pub(super) fn response(wire: Option<StatusCode>, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Failure {
    let body = match (decode::decoded(headers, body), wire) {
        (Some(body), _) => body,
        // A body that cannot be read says nothing.
        (None, Some(wire)) => return status(wire, headers, now),
        (None, None) => body.into(),
    };
    let error = Status::parse(&body);
    let code = code_of(wire, &error);
    let lower = error.message().to_ascii_lowercase();
    // "Please try again in 30 seconds" stands on every page of Google's front ends, whatever went wrong: it is not a
    // hint.
    let believable = error.retry_delay().filter(|_| error.envelope() != Envelope::Html);
    let asked = believable.or_else(|| retry_after(headers, now));
    let ruling = rule(code, &error, &lower, asked.map(|hint| hint.delay()));

    let mut failure = Failure::of_kind(ruling.kind, ruling.help);
    failure.status = wire.or_else(|| StatusCode::from_u16(code).ok());
    failure.google_status = error.status().and_then(canonical_name);
    failure.hint = asked.filter(|_| !ruling.ignore_hint).map(clamped);
    failure.message = match error.message() {
        "" => without_explanation(failure.status),
        message => Message::Text(message.into()),
    };
    let mut details = Details { quota: ruling.quota, reason: error.reason().map(Into::into), ..Details::default() };
    if ruling.kind == Kind::ContextTooLong {
        details.tokens = tokens::read(&lower);
        failure.help.other_model = details.tokens.limit.is_some_and(|limit| limit < LARGEST_CONTEXT);
    }
    failure.details = Some(Arc::new(details));
    if failure.fault() == Fault::Model || failure.kind.is_minutes() {
        failure.hint =
            failure.hint.map(|hint| if hint.delay() > LONGEST_MINUTE { Hint::exact(LONGEST_MINUTE) } else { hint });
    }
    // The one sign of the grounding quota: Google's ordinary sentence, and none of the details that name a quota.
    let unnamed = ruling.kind == Kind::QuotaUnknown && failure.hint.is_none();
    let ordinary = error.has_help() || lower.contains("exceeded your current quota");
    failure.flags = Flags { error_body: error.is_google(), unnamed: unnamed && ordinary, ..Flags::default() };
    failure
}

/// Judges a response whose body is not known.
pub(super) fn status(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Failure {
    let kind = without_words(status.as_u16());
    let mut failure = Failure::of_kind(kind, kind.facts().help);
    failure.status = Some(status);
    failure.hint = retry_after(headers, now).map(clamped);
    failure.message = without_explanation(Some(status));
    if kind.fault() == Fault::Quota {
        failure.help.same_key = failure.hint.is_none_or(|hint| hint.delay() <= SOON);
        failure.details = Some(Arc::new(Details { quota: Some(Quota::default()), ..Details::default() }));
    }
    failure
}

/// Reads `Retry-After`: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Hint> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Hint::exact(Duration::from_secs(seconds)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    // A date in the past means now.
    Some(Hint::truncated(date.duration_since(now).unwrap_or_default()))
}

/// Removes a `Retry-After` that is neither a number of seconds nor a date: callers could make nothing of it, or the wrong
/// thing.
pub(crate) fn drop_bad_retry_after(headers: &mut HeaderMap) {
    if headers.contains_key(RETRY_AFTER) && retry_after(headers, clock::wall()).is_none() {
        headers.remove(RETRY_AFTER);
    }
}

fn clamped(hint: Hint) -> Hint {
    if hint.delay() > LONGEST_HINT { Hint::exact(LONGEST_HINT) } else { hint }
}

/// Makes the message of a failure that says nothing. Most are sent again, and nobody reads it.
fn without_explanation(status: Option<StatusCode>) -> Message {
    let of = |status: StatusCode| {
        Message::of_words(move |f: &mut fmt::Formatter<'_>, _| write!(f, "{status}, without an explanation"))
    };
    status.map(of).unwrap_or_default()
}

/// Returns the code to judge by.
fn code_of(wire: Option<StatusCode>, error: &Status) -> u16 {
    let wire = wire.map(|status| status.as_u16());
    let named = error.status().and_then(canonical_code);
    // A code in a body that is not an error object ("code": 404 of a framework) is not better than the wire's.
    let own = error.code().or(named).filter(|_| error.is_google() || wire.is_none_or(|code| code < 400));
    let string = || error.status().and_then(string_code);
    // Relays answer everything with one of these; a name of the error's own says more.
    let generic = matches!(wire, Some(400 | 500 | 502));
    own.or_else(|| string().filter(|code| generic && *code != 500 && error.is_google()))
        .or(wire.filter(|code| *code >= 300))
        .or_else(string)
        .or(wire)
        .unwrap_or(500)
}

/// Translates the string codes of the Interactions API and of OpenAI's shape, and Google's names in lower case.
fn string_code(name: &str) -> Option<u16> {
    canonical_code(&name.to_ascii_uppercase()).or(match &*name.to_ascii_lowercase() {
        "invalid_request"
        | "invalid_request_error"
        | "bad_request"
        | "parameter_unknown"
        | "context_length_exceeded"
        | "prohibited_content"
        | "content_blocked"
        | "content_filter"
        | "content_policy_violation"
        | "safety"
        | "recitation"
        | "blocklist"
        | "spii"
        | "image_safety"
        | "model_armor"
        | "jailbreak" => Some(400),
        "authentication" | "authentication_error" | "authentication_failed" | "unauthorized" | "invalid_api_key" => {
            Some(401)
        }
        "payment_required" | "billing_required" | "billing_not_active" | "insufficient_funds" => Some(402),
        "permission_error" | "permission" | "forbidden" | "access_denied" => Some(403),
        "model_not_found" | "not_found_error" | "resource_not_found" => Some(404),
        "request_timeout" => Some(408),
        "conflict" => Some(409),
        "request_too_large" | "payload_too_large" => Some(413),
        "range_not_satisfiable" => Some(416),
        "rate_limit"
        | "rate_limited"
        | "rate_limit_exceeded"
        | "rate_limit_error"
        | "too_many_requests"
        | "quota_exceeded"
        | "spend_limit_exceeded"
        | "insufficient_quota"
        | "insufficient_user_quota" => Some(429),
        "client_closed_request" | "canceled" => Some(499),
        "internal_error" | "internal_server_error" | "api_error" | "server_error" => Some(500),
        "not_implemented" | "unsupported" => Some(501),
        "bad_gateway" => Some(502),
        "overloaded"
        | "overloaded_error"
        | "model_overloaded"
        | "engine_overloaded"
        | "service_unavailable"
        | "capacity_exceeded" => Some(503),
        "timeout" | "timeout_error" | "gateway_timeout" => Some(504),
        _ => None,
    })
}

fn rule(code: u16, error: &Status, lower: &str, wait: Option<Duration>) -> Ruling {
    if wording::blocked(lower) {
        return Ruling::of(Kind::IpBlocked);
    }
    match code {
        429 => exhausted::judge(error, lower, wait),
        400..=498 if is_quota_in_disguise(error, lower) => exhausted::judge(error, lower, wait),
        400..=498 => client(code, error, lower),
        499..=599 => service(code, error, lower, wait),
        _ => Ruling::of(by_code(code)),
    }
}

/// Returns whether a 4xx is about quota: Google's older services refuse it with a 403.
fn is_quota_in_disguise(error: &Status, lower: &str) -> bool {
    !error.violations().is_empty()
        || lower.starts_with("quota exceeded")
        || error.legacy_reason().is_some_and(|reason| reason.ends_with("LimitExceeded") || reason == "quotaExceeded")
}

// === 4xx ===

fn client(code: u16, error: &Status, lower: &str) -> Ruling {
    // A page of HTML may name a model, because the address does, but its server does not know models.
    if code == 404 && error.envelope() == Envelope::Html {
        return Ruling::of(Kind::PathNotFound);
    }
    // Before the names: OpenAI's shape has `model_not_found` for it.
    if (matches!(code, 404 | 410) && wording::closed(lower)) || wording::closed_at_any_code(lower) {
        return Ruling::of(Kind::ModelClosed);
    }
    let by_name = || error.reason().or(error.legacy_reason()).or(error.status()).and_then(by_any_reason);
    if let Some(kind) = by_name().or_else(|| wording::client(code, lower)) {
        return Ruling::of(kind);
    }
    let kind = match (code, error.envelope()) {
        // The API answers in JSON. A page comes from a server in front of it, which does not know keys or models.
        (403, Envelope::Html) => Kind::IpBlocked,
        (404, _) if names_no_route(error, lower) => Kind::PathNotFound,
        (404, _) if has_string_code(error) => Kind::ResourceNotAccessible,
        // Two calls met, or the interaction before this one has not ended.
        (409, _) if matches!(error.status(), Some("ABORTED" | "aborted")) || wording::passing(lower) => {
            Kind::ServerError
        }
        _ => by_code(code),
    };
    let mut ruling = Ruling::of(kind);
    ruling.help.other_model |= kind == Kind::InvalidRequest && wording::model_bound(lower);
    ruling
}

/// Returns whether the error is of the Interactions API, which has a name in lower case for a code.
fn has_string_code(error: &Status) -> bool {
    error.code().is_none() && error.status().is_some_and(|name| name.bytes().any(|byte| byte.is_ascii_lowercase()))
}

/// Returns whether a 404 is about the path: a wrong base URL, or a misspelt method. Google says "Method not found.";
/// routers have words of their own.
fn names_no_route(error: &Status, lower: &str) -> bool {
    let phrases =
        ["method not found", "page not found", "cannot post", "cannot get", "no route", "not found on this server"];
    // A router that says no more than "Not Found" does not know models.
    let bare = !error.is_google() && !lower.is_empty() && !lower.contains("model");
    bare || phrases.iter().any(|phrase| lower.contains(phrase))
}

/// Translates a reason in whatever case: verdicts on content are written in both.
fn by_any_reason(reason: &str) -> Option<Kind> {
    by_reason(reason).or_else(|| by_reason(&reason.to_ascii_lowercase()))
}

/// Translates `ErrorInfo.reason`, `errors[].reason` or a string code, where it says more than the status.
fn by_reason(reason: &str) -> Option<Kind> {
    Some(match reason {
        "API_KEY_INVALID" | "API_KEY_NOT_FOUND" | "API_KEY_EXPIRED" | "keyInvalid" | "keyExpired"
        | "invalid_api_key" => Kind::AuthKeyInvalid,
        "CREDENTIALS_MISSING" | "ACCESS_TOKEN_TYPE_UNSUPPORTED" | "ACCESS_TOKEN_EXPIRED" => Kind::AuthUnauthenticated,
        "SERVICE_DISABLED" | "accessNotConfigured" => Kind::ServiceDisabled,
        "CONSUMER_SUSPENDED" => Kind::KeySuspended,
        "CONSUMER_INVALID" | "USER_PROJECT_DENIED" => Kind::ConsumerInvalid,
        "ACCOUNT_STATE_INVALID" | "VALIDATION_REQUIRED" | "TOS_VIOLATION" | "accountDisabled" => Kind::AccountBanned,
        "BILLING_DISABLED"
        | "insufficient_quota"
        | "insufficient_user_quota"
        | "payment_required"
        | "billing_required"
        | "billing_not_active"
        | "insufficient_funds" => Kind::BillingRequired,
        "UNSUPPORTED_LOCATION" | "LOCATION_POLICY_VIOLATED" | "unsupported_country_region_territory" => {
            Kind::LocationUnsupported
        }
        "ipRefererBlocked" => Kind::KeyRestricted,
        "context_length_exceeded" => Kind::ContextTooLong,
        "content_policy_violation"
        | "content_filter"
        | "content_blocked"
        | "prohibited_content"
        | "blocklist"
        | "safety"
        | "recitation"
        | "spii"
        | "image_safety"
        | "model_armor"
        | "jailbreak" => Kind::ContentBlocked,
        "model_not_found" => Kind::ModelNotFound,
        // API_KEY_SERVICE_BLOCKED, API_KEY_HTTP_REFERRER_BLOCKED, …
        _ if reason.starts_with("API_KEY_") && reason.ends_with("_BLOCKED") => Kind::KeyRestricted,
        _ => return None,
    })
}

// === 5xx ===

fn service(code: u16, error: &Status, lower: &str, wait: Option<Duration>) -> Ruling {
    if matches!(code, 500..=503) && (!error.violations().is_empty() || wording::exhausted(lower)) {
        return exhausted::judge(error, lower, wait);
    }
    // The example of a 500 in Google's documentation is "Your input context is too long."
    let overloaded = ["overloaded", "overloaded_error", "model_overloaded", "engine_overloaded", "capacity_exceeded"];
    let kind = if error.status().is_some_and(|name| overloaded.contains(&name)) {
        Kind::Overloaded
    } else if matches!(code, 500 | 502) && wording::names_bad_key(lower) {
        Kind::AuthKeyInvalid
    } else if let Some(kind) = wording::too_long(lower) {
        kind
    } else if error.reason() == Some("MODEL_CAPACITY_EXHAUSTED") {
        Kind::Capacity
    } else if let Some(kind) = wording::capacity(lower) {
        kind
    } else if code == 503 && error.message().is_empty() {
        without_words(code)
    } else if code != 499 && (error.status() == Some("DEADLINE_EXCEEDED") || wording::deadline(lower)) {
        Kind::DeadlineExceeded
    } else {
        by_code(code)
    };
    Ruling::of(kind)
}

/// Returns the most frequent meaning of a status that came without a body.
fn without_words(code: u16) -> Kind {
    if code == 503 { Kind::Overloaded } else { by_code(code) }
}

/// Returns the meaning of a status by itself.
fn by_code(code: u16) -> Kind {
    match code {
        // Neither an error nor an answer.
        0..=299 => Kind::EmptyResponse,
        // The API does not redirect: the base URL is wrong.
        300..=399 | 405 => Kind::PathNotFound,
        401 => Kind::AuthUnauthenticated,
        402 => Kind::BillingRequired,
        403 => Kind::PermissionDenied,
        404 | 410 => Kind::ModelNotFound,
        408 | 504 | 524 => Kind::DeadlineExceeded,
        409 => Kind::Conflict,
        413 => Kind::PayloadTooLarge,
        429 => Kind::QuotaUnknown,
        400..=498 => Kind::InvalidRequest,
        499 => Kind::Cancelled,
        501 => Kind::Unimplemented,
        502 | 520..=523 | 525..=527 | 530 => Kind::BadGateway,
        503 => Kind::Unavailable,
        529 => Kind::Overloaded,
        _ => Kind::ServerError,
    }
}

// === names ===

/// Returns the canonical name with a static lifetime.
fn canonical_name(status: &str) -> Option<&'static &'static str> {
    static NAMES: [&str; 16] = [
        "INVALID_ARGUMENT",
        "FAILED_PRECONDITION",
        "OUT_OF_RANGE",
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
        "NOT_FOUND",
        "ABORTED",
        "ALREADY_EXISTS",
        "RESOURCE_EXHAUSTED",
        "CANCELLED",
        "INTERNAL",
        "UNKNOWN",
        "DATA_LOSS",
        "UNIMPLEMENTED",
        "UNAVAILABLE",
        "DEADLINE_EXCEEDED",
    ];
    NAMES.iter().find(|name| **name == status)
}

/// Returns the canonical name to answer a status with.
pub(super) fn name_of_code(code: u16) -> &'static str {
    match code {
        401 => "UNAUTHENTICATED",
        402 => "FAILED_PRECONDITION",
        403 => "PERMISSION_DENIED",
        404 | 410 => "NOT_FOUND",
        408 | 504 | 524 => "DEADLINE_EXCEEDED",
        409 => "ABORTED",
        416 => "OUT_OF_RANGE",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        500 => "INTERNAL",
        501 => "UNIMPLEMENTED",
        502 | 503 => "UNAVAILABLE",
        505.. => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    }
}
