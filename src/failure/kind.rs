//! The names of what can go wrong.
//!
//! [`Fault`] is coarse, because each layer acts on one fault only. [`Kind`] is fine, because a person who reads a log
//! wants to know which of the nine ways in which a key can be wrong this one is. One table here has what follows from a
//! kind when nothing else is known: its fault, whether another key or model may help, and the status to answer with. So
//! a new kind is one line, and no layer matches on kinds to find out what to do.

use std::fmt;

use http::StatusCode;

/// The party at fault. Every layer acts on one of these and leaves the others alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The request itself: malformed, too long, a model that does not exist, blocked content. Sending it again changes
    /// nothing.
    Caller,
    /// The credential or its project: invalid, leaked, suspended, restricted, or without billing.
    Key,
    /// The project's quota: a minute's or a day's is used up, or the limit is 0.
    Quota,
    /// The model, which has no capacity left for any project.
    Model,
    /// The service: 500, 502, 504, answers without content.
    Service,
    /// The network: no connection, a reset, or the time-out of an attempt.
    Transport,
    /// A layer of this crate, which refused the call. Never counted against the upstream.
    Local,
}

impl Fault {
    /// Returns the name in logs, metrics and answers: `caller`, `key`, `quota`, `model`, `service`, `transport`,
    /// `local`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Key => "key",
            Self::Quota => "quota",
            Self::Model => "model",
            Self::Service => "service",
            Self::Transport => "transport",
            Self::Local => "local",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The clock that ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimeoutKind {
    /// The whole call, queueing and retries included.
    Total,
    /// One attempt at a unary answer.
    Attempt,
    /// One attempt at a stream, up to its first content.
    FirstContent,
    /// The silence between two events of a stream that has begun.
    Idle,
}

impl TimeoutKind {
    /// Returns the name in logs, metrics and answers: `total`, `attempt`, `first_content`, `idle`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Attempt => "attempt",
            Self::FirstContent => "first_content",
            Self::Idle => "idle",
        }
    }
}

impl fmt::Display for TimeoutKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The kind of a failure.
///
/// [`advice`](Self::advice) says what each kind means and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    // --- caller ---
    /// A malformed request (400 and its like): a wrong field, a feature that the model lacks.
    InvalidRequest,
    /// More input tokens than the model takes.
    ContextTooLong,
    /// More bytes than the API, or a proxy in front of it, takes.
    PayloadTooLarge,
    /// A verdict on the content: safety, recitation, blocklist, prohibited content.
    ContentBlocked,
    /// No such model, or not for this method.
    ModelNotFound,
    /// A path that is not one of the API's: a wrong base URL or a misspelt method.
    PathNotFound,
    /// A file or cached content that belongs to another project, or is gone.
    ResourceNotAccessible,
    /// The caller's country, which the API does not serve.
    LocationUnsupported,
    /// The caller's network address, which is blocked whatever the key.
    IpBlocked,
    /// Two credentials in one request.
    AuthConflict,
    /// A method that is not implemented, or not enabled for this model.
    Unimplemented,
    /// A conflict with what exists already (409).
    Conflict,
    /// A 200 without content, because thinking used up `maxOutputTokens` before the first word.
    OutputLimit,
    /// More input tokens than the whole minute's quota, or more than a whole limit of the caller's, so that no waiting
    /// helps.
    LargerThanQuota,
    // --- key ---
    /// The key is wrong or has expired.
    AuthKeyInvalid,
    /// No credential, or one of the wrong type.
    AuthUnauthenticated,
    /// The credential is valid, but may not do this.
    PermissionDenied,
    /// The key is restricted to other APIs, sites, apps or addresses.
    KeyRestricted,
    /// The key was reported as leaked.
    KeyLeaked,
    /// The key or its project is suspended.
    KeySuspended,
    /// The account is banned, or must be verified first.
    AccountBanned,
    /// The account is limited, because its earlier calls broke the prohibited use policy.
    AccountLimited,
    /// The project that is billed does not exist, or is another one.
    ConsumerInvalid,
    /// The API is not enabled in the key's project.
    ServiceDisabled,
    /// Billing is off, or the prepaid credits are used up.
    BillingRequired,
    // --- quota ---
    /// The quota of requests a minute.
    QuotaMinute,
    /// The quota of input tokens a minute.
    QuotaTokensMinute,
    /// The quota of a day or a longer period, in requests or tokens.
    QuotaDay,
    /// A limit of zero: this project never gets this model.
    QuotaZero,
    /// The quota of grounded calls, which search the web or maps. The model itself still answers plain calls.
    QuotaGrounding,
    /// The project's limit of money over some minutes, or its cap of a month, for all of its models.
    QuotaSpend,
    /// The model is closed for this project; older projects still have it.
    ModelClosed,
    /// A quota that the answer does not name.
    QuotaUnknown,
    // --- model ---
    /// The model is overloaded.
    Overloaded,
    /// The shared capacity is used up: a 429 or 503 that is not about the project's own quota.
    Capacity,
    // --- service ---
    /// A 500. It is transient, unless it comes twice for the same request.
    ServerError,
    /// A front end or proxy got nothing usable from the server behind it.
    BadGateway,
    /// A 503 that does not mention the model.
    Unavailable,
    /// The service took too long, by its own account.
    DeadlineExceeded,
    /// The service cancelled the call (499).
    Cancelled,
    /// A 200 without content.
    EmptyResponse,
    /// A 200 whose function call the model malformed.
    EmptyMalformedFunctionCall,
    // --- transport ---
    /// No connection was made: DNS, TCP or TLS.
    Connect,
    /// The request provably never reached the upstream: refused stream, GOAWAY, a stale pooled connection.
    NotSent,
    /// The connection broke while the request or answer was on it.
    Reset,
    /// A time-out. The fault of the total one is [`Fault::Local`], because it is this crate's own limit.
    Timeout(TimeoutKind),
    /// A stream that ended without a finish reason.
    StreamCut,
    /// A transport error of a type that is not known here.
    Transport,
    // --- local ---
    /// The circuit breaker is open.
    CircuitOpen,
    /// The call would have to queue for longer than the rate limiter allows.
    RateLimited,
    /// The caller is past a limit of its own on this side.
    CallerLimited,
    /// All keys that could take the call are out of quota, or on trial with one call at a time.
    KeysExhausted,
    /// All keys that could take the call are disabled.
    KeysDisabled,
    /// The request body is larger than a local cap.
    BodyTooLarge,
    /// The request cannot be sent as it is, for example for a bad header or a missing URI.
    BadRequest,
    /// The caller's own request body failed while it was read.
    RequestBody,
}

/// The consequences of a kind when nothing else is known.
pub(super) struct Facts {
    pub(super) name: &'static str,
    pub(super) fault: Fault,
    /// The alternatives that may help: the same key, a key of another project, another model.
    pub(super) help: Help,
    /// The status to answer with where none came over the wire.
    pub(super) code: u16,
}

/// The alternatives that may still succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Help {
    pub(super) same_key: bool,
    pub(super) other_key: bool,
    pub(super) other_model: bool,
}

impl Help {
    pub(super) const NONE: Self = Self::new(false, false, false);

    pub(super) const fn new(same_key: bool, other_key: bool, other_model: bool) -> Self {
        Self { same_key, other_key, other_model }
    }
}

impl Kind {
    /// Returns the name in logs, metrics and answers, in snake case, such as `quota_day`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.facts().name
    }

    /// Returns the party at fault.
    #[must_use]
    pub const fn fault(self) -> Fault {
        self.facts().fault
    }

    /// Returns whether a layer refused the call only for now: nothing was sent, and waiting helps.
    pub(crate) const fn is_refused_for_now(self) -> bool {
        matches!(self, Self::CircuitOpen | Self::RateLimited | Self::KeysExhausted)
    }

    /// Returns whether the kind is a minute's quota.
    pub(crate) const fn is_minutes(self) -> bool {
        matches!(self, Self::QuotaMinute | Self::QuotaTokensMinute)
    }

    /// Returns the status to answer with where none came over the wire.
    #[must_use]
    pub fn status_code(self) -> StatusCode {
        StatusCode::from_u16(self.facts().code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Looks the kind up in the table.
    pub(super) const fn facts(self) -> Facts {
        use Fault::*;
        const fn row(name: &'static str, fault: Fault, help: [bool; 3], code: u16) -> Facts {
            Facts { name, fault, help: Help::new(help[0], help[1], help[2]), code }
        }
        // Same key, key of another project, another model.
        const NONE: [bool; 3] = [false, false, false];
        const OTHER_KEY: [bool; 3] = [false, true, false];
        const OTHER_MODEL: [bool; 3] = [false, false, true];
        const ELSEWHERE: [bool; 3] = [false, true, true];
        const ANY: [bool; 3] = [true, true, true];
        const TIME_OR_MODEL: [bool; 3] = [true, false, true];
        const TIME_OR_KEY: [bool; 3] = [true, true, false];
        const TIME: [bool; 3] = [true, false, false];
        match self {
            Self::InvalidRequest => row("invalid_request", Caller, NONE, 400),
            Self::ContextTooLong => row("context_too_long", Caller, NONE, 400),
            Self::LargerThanQuota => row("larger_than_quota", Caller, ELSEWHERE, 400),
            Self::PayloadTooLarge => row("payload_too_large", Caller, NONE, 413),
            Self::ContentBlocked => row("content_blocked", Caller, OTHER_MODEL, 400),
            Self::ModelNotFound => row("model_not_found", Caller, OTHER_MODEL, 404),
            Self::PathNotFound => row("path_not_found", Caller, NONE, 404),
            Self::ResourceNotAccessible => row("resource_not_accessible", Caller, OTHER_KEY, 403),
            Self::LocationUnsupported => row("location_unsupported", Caller, NONE, 400),
            Self::IpBlocked => row("ip_blocked", Caller, NONE, 403),
            Self::AuthConflict => row("auth_conflict", Caller, NONE, 400),
            Self::Unimplemented => row("unimplemented", Caller, OTHER_MODEL, 501),
            Self::Conflict => row("conflict", Caller, NONE, 409),
            Self::OutputLimit => row("output_limit", Caller, OTHER_MODEL, 400),
            Self::AuthKeyInvalid => row("auth_key_invalid", Key, OTHER_KEY, 400),
            Self::AuthUnauthenticated => row("auth_unauthenticated", Key, OTHER_KEY, 401),
            Self::PermissionDenied => row("permission_denied", Key, OTHER_KEY, 403),
            Self::KeyRestricted => row("key_restricted", Key, OTHER_KEY, 403),
            Self::KeyLeaked => row("key_leaked", Key, OTHER_KEY, 403),
            Self::KeySuspended => row("key_suspended", Key, OTHER_KEY, 403),
            Self::AccountBanned => row("account_banned", Key, OTHER_KEY, 403),
            Self::AccountLimited => row("account_limited", Key, OTHER_KEY, 403),
            Self::ConsumerInvalid => row("consumer_invalid", Key, OTHER_KEY, 403),
            Self::ServiceDisabled => row("service_disabled", Key, OTHER_KEY, 403),
            Self::BillingRequired => row("billing_required", Key, OTHER_KEY, 402),
            Self::QuotaMinute => row("quota_minute", Quota, ANY, 429),
            Self::QuotaTokensMinute => row("quota_tokens_minute", Quota, ANY, 429),
            Self::QuotaDay => row("quota_day", Quota, ELSEWHERE, 429),
            Self::QuotaZero => row("quota_zero", Quota, ELSEWHERE, 429),
            Self::QuotaGrounding => row("quota_grounding", Quota, ELSEWHERE, 429),
            Self::QuotaSpend => row("quota_spend", Quota, TIME_OR_KEY, 429),
            Self::ModelClosed => row("model_closed", Quota, ELSEWHERE, 404),
            Self::QuotaUnknown => row("quota_unknown", Quota, ANY, 429),
            Self::Overloaded => row("overloaded", Model, TIME_OR_MODEL, 503),
            Self::Capacity => row("capacity", Model, TIME_OR_MODEL, 503),
            Self::ServerError => row("server_error", Service, TIME_OR_MODEL, 500),
            Self::BadGateway => row("bad_gateway", Service, TIME_OR_MODEL, 502),
            Self::Unavailable => row("unavailable", Service, TIME_OR_MODEL, 503),
            Self::DeadlineExceeded => row("deadline_exceeded", Service, TIME_OR_MODEL, 504),
            Self::Cancelled => row("cancelled", Service, TIME_OR_MODEL, 499),
            Self::EmptyResponse => row("empty_response", Service, TIME_OR_MODEL, 502),
            Self::EmptyMalformedFunctionCall => row("empty_malformed_function_call", Service, TIME_OR_MODEL, 502),
            Self::Connect => row("connect", Transport, TIME, 503),
            Self::NotSent => row("not_sent", Transport, TIME, 503),
            Self::Reset => row("reset", Transport, TIME, 503),
            Self::Timeout(TimeoutKind::Total) => row("total_deadline", Local, NONE, 504),
            Self::Timeout(TimeoutKind::Attempt) => row("attempt_timeout", Transport, TIME_OR_MODEL, 504),
            Self::Timeout(TimeoutKind::FirstContent) => row("first_content_timeout", Transport, TIME_OR_MODEL, 504),
            Self::Timeout(TimeoutKind::Idle) => row("idle_timeout", Transport, TIME_OR_MODEL, 504),
            Self::StreamCut => row("stream_cut", Transport, TIME_OR_MODEL, 503),
            Self::Transport => row("transport", Transport, TIME, 503),
            Self::CircuitOpen => row("circuit_open", Local, OTHER_MODEL, 503),
            Self::RateLimited => row("rate_limited", Local, ELSEWHERE, 429),
            Self::CallerLimited => row("caller_limited", Local, NONE, 429),
            Self::KeysExhausted => row("keys_exhausted", Local, TIME_OR_MODEL, 429),
            Self::KeysDisabled => row("keys_disabled", Local, NONE, 503),
            Self::BodyTooLarge => row("body_too_large", Local, NONE, 413),
            Self::BadRequest => row("bad_request", Local, NONE, 400),
            Self::RequestBody => row("request_body", Local, NONE, 400),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
