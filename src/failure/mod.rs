//! Whose fault a failure is, and what may help.

mod kind;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

use self::kind::Help;
pub use self::kind::{Clock, Fault, Kind};
use crate::status::Status;

/// One failure, judged once: whose fault it is, and what may help.
///
/// Cheap to clone: its texts are shared.
#[derive(Clone, Debug)]
pub struct Failure {
    kind: Kind,
    help: Help,
    status: Option<StatusCode>,
    google_status: Option<&'static str>,
    hint: Option<Hint>,
    quota: Option<Arc<Quota>>,
    message: Arc<str>,
    reason: Option<Arc<str>>,
    token_limit: Option<u64>,
    token_count: Option<u64>,
    flags: Flags,
}

#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    error_body: bool,
    content_suspected: bool,
    after_commit: bool,
}

/// How long to wait, as the upstream asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint {
    delay: Duration,
    exact: bool,
}

impl Hint {
    /// A wait of exactly `delay`.
    #[must_use]
    pub const fn exact(delay: Duration) -> Self {
        Self { delay, exact: true }
    }

    /// A wait that was cut to whole seconds, so that up to one more second may be needed.
    #[must_use]
    pub const fn truncated(delay: Duration) -> Self {
        Self { delay, exact: false }
    }

    /// The wait.
    #[must_use]
    pub const fn delay(&self) -> Duration {
        self.delay
    }

    /// False where the value was cut to whole seconds, so that up to one more second may be needed.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        self.exact
    }
}

/// The period that a quota counts over, and what it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QuotaScope {
    /// Requests a minute.
    Minute,
    /// Input tokens a minute.
    TokensMinute,
    /// Requests or tokens a day, until midnight Pacific.
    Day,
}

impl QuotaScope {
    /// The name in logs, metrics and answers: `minute`, `tokens_minute`, `day`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::TokensMinute => "tokens_minute",
            Self::Day => "day",
        }
    }
}

/// Which quota it was, as far as the answer says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    scope: Option<QuotaScope>,
    limit: Option<u64>,
    id: Option<Box<str>>,
    model: Option<Box<str>>,
    per_model: bool,
}

impl Quota {
    /// The period, where the answer names one.
    #[must_use]
    pub fn scope(&self) -> Option<QuotaScope> {
        self.scope
    }

    /// The limit itself: `quotaValue`, or the number in the message.
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// `quotaId`, such as `GenerateRequestsPerDayPerProjectPerModel-FreeTier`.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The model that the quota is for, by its resolved name (not the alias that was sent).
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// True where every model has a quota of its own, so that another model is not blocked.
    #[must_use]
    pub fn per_model(&self) -> bool {
        self.per_model
    }
}

impl Failure {
    /// Judges a response that is no success, by its body first and its status second.
    #[must_use]
    pub fn from_response(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let said = Status::parse(body);
        let mut failure = Self::from_status(status, headers);
        failure.flags.error_body = said.is_google();
        failure.message = said.message().into();
        failure.reason = said.reason().map(Into::into);
        failure
    }

    /// Judges a response by its status and headers, where nothing of the body is known.
    #[must_use]
    pub fn from_status(status: StatusCode, headers: &HeaderMap) -> Self {
        let kind = match status.as_u16() {
            401 => Kind::AuthUnauthenticated,
            402 => Kind::BillingRequired,
            403 => Kind::PermissionDenied,
            404 => Kind::ModelNotFound,
            408 | 504 => Kind::DeadlineExceeded,
            413 => Kind::PayloadTooLarge,
            429 => Kind::QuotaUnknown,
            499 => Kind::Cancelled,
            502 => Kind::BadGateway,
            503 => Kind::Overloaded,
            500..=599 => Kind::ServerError,
            _ => Kind::InvalidRequest,
        };
        let mut failure = Self::local(kind, "");
        failure.status = Some(status);
        failure.hint = headers
            .get(http::header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(|seconds| Hint::exact(Duration::from_secs(seconds)));
        failure
    }

    /// Judges an error that came inside a 200 stream, before anything of the stream was forwarded, by its own code.
    #[must_use]
    pub fn from_event(error: &[u8]) -> Self {
        let code = Status::parse(error).code().and_then(|code| StatusCode::from_u16(code).ok());
        Self::from_response(code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &HeaderMap::new(), error)
    }

    /// Judges an error of the transport: hyper's, hyper-util's, h2's, `std::io`'s, or tokio's `Elapsed`, anywhere in its
    /// chain of sources.
    #[must_use]
    pub fn from_error(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::local(Kind::Transport, error.to_string())
    }

    /// Judges a 200 by what it holds. `None` for an answer that is fine.
    #[must_use]
    pub fn from_answer(finish_reason: Option<&str>, block_reason: Option<&str>, has_content: bool) -> Option<Self> {
        if block_reason.is_some() {
            return Some(Self::local(Kind::ContentBlocked, ""));
        }
        match finish_reason {
            Some("SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII") => {
                Some(Self::local(Kind::ContentBlocked, ""))
            }
            Some("MALFORMED_FUNCTION_CALL") if !has_content => Some(Self::local(Kind::EmptyMalformedFunctionCall, "")),
            _ if !has_content => Some(Self::local(Kind::EmptyResponse, "")),
            _ => None,
        }
    }

    /// A refusal by a layer of this crate; the fault follows from the kind.
    #[must_use]
    pub fn local(kind: Kind, message: impl Into<String>) -> Self {
        let message: String = message.into();
        Self {
            kind,
            help: kind.facts().help,
            status: None,
            google_status: None,
            hint: None,
            quota: None,
            message: message.into(),
            reason: None,
            token_limit: None,
            token_count: None,
            flags: Flags::default(),
        }
    }

    /// The same, with the wait that would have helped.
    #[must_use]
    pub fn with_hint(mut self, delay: Duration) -> Self {
        self.hint = Some(Hint::exact(delay));
        self
    }

    /// A clock that ran out after `limit`.
    #[must_use]
    pub fn timeout(clock: Clock, limit: Duration) -> Self {
        let kind = match clock {
            Clock::Total => Kind::TotalDeadline,
            clock => Kind::Timeout(clock),
        };
        Self::local(kind, format!("the {clock} clock ran out after {limit:?}"))
    }

    /// The same failure after bytes of the answer were forwarded: nothing may be sent again.
    #[must_use]
    pub fn into_after_commit(mut self) -> Self {
        self.flags.after_commit = true;
        self.help = Help::NOBODY;
        self
    }

    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.kind.fault()
    }

    /// What happened, by its finer name.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The status as it came over the wire, or the one that a local refusal maps to.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.status.or_else(|| (self.fault() == Fault::Local).then(|| self.kind.status_code()))
    }

    /// The status to answer with.
    #[must_use]
    pub fn code(&self) -> StatusCode {
        self.status.filter(|status| status.as_u16() >= 400).unwrap_or_else(|| self.kind.status_code())
    }

    /// The canonical `google.rpc` name to answer with, such as `UNAVAILABLE`.
    #[must_use]
    pub fn google_status(&self) -> &'static str {
        self.google_status.unwrap_or("UNAVAILABLE")
    }

    /// How long to wait. `None` where nothing was said, and where what was said has to be ignored.
    #[must_use]
    pub fn hint(&self) -> Option<Hint> {
        self.hint
    }

    /// Which quota it was.
    #[must_use]
    pub fn quota(&self) -> Option<&Quota> {
        self.quota.as_deref()
    }

    /// True where the same bytes with the same key have a real chance soon.
    #[must_use]
    pub fn same_key_may_help(&self) -> bool {
        self.help.same_key
    }

    /// True where a key of another project has a chance.
    #[must_use]
    pub fn other_key_may_help(&self) -> bool {
        self.help.other_key
    }

    /// True where another model has a chance.
    #[must_use]
    pub fn other_model_may_help(&self) -> bool {
        self.help.other_model
    }

    /// True for signs of the upstream's health only.
    #[must_use]
    pub fn counts_against_upstream(&self) -> bool {
        match self.fault() {
            Fault::Model | Fault::Transport => true,
            Fault::Service => !matches!(self.kind, Kind::EmptyResponse | Kind::EmptyMalformedFunctionCall),
            _ => false,
        }
    }

    /// What the upstream said, redacted, or what a layer of this crate has to say.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// `ErrorInfo.reason`, such as `API_KEY_INVALID`.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// The most input tokens that the model takes, where the refusal names it.
    #[must_use]
    pub fn token_limit(&self) -> Option<u64> {
        self.token_limit
    }

    /// How many input tokens the request had, where the refusal names it.
    #[must_use]
    pub fn token_count(&self) -> Option<u64> {
        self.token_count
    }

    /// True where it is proven that the upstream did not get the request.
    #[must_use]
    pub fn never_sent(&self) -> bool {
        matches!(self.kind, Kind::Connect | Kind::NotSent)
    }

    /// True where the upstream said so in an error body of its own.
    #[must_use]
    pub fn has_error_body(&self) -> bool {
        self.flags.error_body
    }

    /// True where the same 500 came twice for the same request: probably its content.
    #[must_use]
    pub fn is_content_suspected(&self) -> bool {
        self.flags.content_suspected
    }

    /// Says that the same 500 came twice for the same request.
    pub fn mark_content_suspected(&mut self) {
        self.flags.content_suspected = true;
    }

    /// True where both say the same in the same words.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.kind == other.kind && self.status == other.status && self.message == other.message
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}'s fault): {}", self.kind, self.fault(), self.message)
    }
}
