//! What can go wrong.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// What goes wrong with a request; a [`When`](super::When) says with which.
///
/// Every kind can be slowed ([`delayed`](Self::delayed)), cut into small pieces ([`paced`](Self::paced)) or interspersed
/// with comments ([`pings`](Self::pings)); an API error can be moved into a 200 stream
/// ([`in_stream`](Self::in_stream), [`as_raw_tail`](Self::as_raw_tail)). Where a count of chunks is asked for, it is
/// capped so that the last chunk, the one with the finishReason, never gets out. What is about streams does the like to
/// an answer in one piece: half of it comes out, or with 0 chunks nothing.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::emulator::Trouble;
///
/// Trouble::overloaded();                              // a 503
/// Trouble::overloaded().hint(Duration::from_secs(7)); // with a RetryInfo
/// Trouble::overloaded().in_stream(2);                 // a 200, two chunks, then the 503 as an event
/// Trouble::cut(1).delayed(Duration::from_secs(3));    // three seconds, a chunk, and the stream just ends
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Trouble {
    pub(super) kind: Kind,
    pub(super) delay: Duration,
    pub(super) pings: Option<Duration>,
    pub(super) pace: Option<(usize, Duration)>,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    None,
    Refusal { refusal: Refusal, hint: Option<Duration>, place: Place },
    Response(Arc<Response>),
    Hang,
    Reset,
    SlowFirstToken(Duration),
    Break { after: usize, how: Break },
    Verdict(Verdict),
}

/// An error of the API's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Overloaded,
    HighDemand,
    Internal,
    DeadlineExceeded,
    MinuteQuota(Duration),
    TokenQuota(Duration),
    DayQuota,
    ZeroQuota,
    BareQuota,
    VertexCapacity,
    InvalidKey,
    ExpiredKey,
    SuspendedKey,
    LeakedKey,
    ServiceDisabled,
}

/// Where an error of the API comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Status,
    Event { after: usize },
    RawTail { after: usize },
}

/// How an answer breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Break {
    Stall,
    Reset,
    Cut,
}

/// An answer that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Empty,
    MalformedFunctionCall,
    Blocked(String),
    PromptBlocked(String),
}

pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) name: &'static str,
}

// === impl Trouble ===

impl Trouble {
    /// None: the request is answered. In a script it lets one request through; in front of other troubles it shields.
    pub fn none() -> Self {
        Self::new(Kind::None)
    }

    // --- errors of the API ---

    /// 503 UNAVAILABLE, "The model is overloaded. Please try again later."
    pub fn overloaded() -> Self {
        Self::refusal(Refusal::Overloaded)
    }

    /// 503 UNAVAILABLE, "This model is currently experiencing high demand. …"
    pub fn high_demand() -> Self {
        Self::refusal(Refusal::HighDemand)
    }

    /// 500 INTERNAL, "An internal error has occurred. …"
    pub fn internal() -> Self {
        Self::refusal(Refusal::Internal)
    }

    /// 504 DEADLINE_EXCEEDED, "Deadline expired before operation could complete."
    pub fn deadline_exceeded() -> Self {
        Self::refusal(Refusal::DeadlineExceeded)
    }

    /// 429: the requests of this minute are spent, with that exact wait in the message and its whole seconds in
    /// RetryInfo. The limit named is the configured one, or 10.
    pub fn minute_quota(retry_in: Duration) -> Self {
        Self::refusal(Refusal::MinuteQuota(retry_in))
    }

    /// 429: the input tokens of this minute are spent. The limit named is the configured one, or 250,000.
    pub fn token_quota(retry_in: Duration) -> Self {
        Self::refusal(Refusal::TokenQuota(retry_in))
    }

    /// 429: the requests of this day are spent, with a hint of a few seconds that is of no use, as Google gives it. The
    /// limit named is the configured one, or 500.
    pub fn day_quota() -> Self {
        Self::refusal(Refusal::DayQuota)
    }

    /// 429 with `limit: 0`: it never will succeed, whatever the hint says.
    pub fn zero_quota() -> Self {
        Self::refusal(Refusal::ZeroQuota)
    }

    /// 429 without details, "Resource has been exhausted (e.g. check quota)."
    pub fn bare_quota() -> Self {
        Self::refusal(Refusal::BareQuota)
    }

    /// 429 in Vertex's wording for shared capacity, which is nobody's quota.
    pub fn vertex_capacity() -> Self {
        Self::refusal(Refusal::VertexCapacity)
    }

    /// 400 API_KEY_INVALID, "API key not valid. …"
    pub fn invalid_key() -> Self {
        Self::refusal(Refusal::InvalidKey)
    }

    /// 400 API_KEY_INVALID, "API key expired. …"
    pub fn expired_key() -> Self {
        Self::refusal(Refusal::ExpiredKey)
    }

    /// 403 CONSUMER_SUSPENDED, which echoes the key three times.
    pub fn suspended_key() -> Self {
        Self::refusal(Refusal::SuspendedKey)
    }

    /// 403, "Your API key was reported as leaked. …"
    pub fn leaked_key() -> Self {
        Self::refusal(Refusal::LeakedKey)
    }

    /// 403 SERVICE_DISABLED: the project has not switched the API on.
    pub fn service_disabled() -> Self {
        Self::refusal(Refusal::ServiceDisabled)
    }

    // --- answers that are none ---

    /// 200, STOP, and no part.
    pub fn empty() -> Self {
        Self::new(Kind::Verdict(Verdict::Empty))
    }

    /// 200, MALFORMED_FUNCTION_CALL, and no content.
    pub fn malformed_function_call() -> Self {
        Self::new(Kind::Verdict(Verdict::MalformedFunctionCall))
    }

    /// 200, no content, and that finishReason: SAFETY, RECITATION, BLOCKLIST, PROHIBITED_CONTENT, SPII.
    pub fn blocked(finish_reason: impl Into<String>) -> Self {
        Self::new(Kind::Verdict(Verdict::Blocked(finish_reason.into())))
    }

    /// 200, no candidate, and a promptFeedback with that blockReason.
    pub fn prompt_blocked(block_reason: impl Into<String>) -> Self {
        Self::new(Kind::Verdict(Verdict::PromptBlocked(block_reason.into())))
    }

    // --- the connection ---

    /// The request is taken, and nothing ever comes.
    pub fn hang() -> Self {
        Self::new(Kind::Hang)
    }

    /// The connection is reset before anything comes.
    pub fn reset() -> Self {
        Self::new(Kind::Reset)
    }

    /// So many chunks, then nothing more, and the connection stays open.
    pub fn stall(chunks: usize) -> Self {
        Self::new(Kind::Break { after: chunks, how: Break::Stall })
    }

    /// So many chunks, then the connection is reset.
    pub fn reset_after(chunks: usize) -> Self {
        Self::new(Kind::Break { after: chunks, how: Break::Reset })
    }

    /// So many chunks, then the stream ends cleanly, without a finishReason.
    pub fn cut(chunks: usize) -> Self {
        Self::new(Kind::Break { after: chunks, how: Break::Cut })
    }

    // --- the time ---

    /// Nothing for so long, then the answer: headers and all.
    pub fn slow(delay: Duration) -> Self {
        Self::none().delayed(delay)
    }

    /// The headers at once, the first chunk so much later.
    pub fn slow_first_token(delay: Duration) -> Self {
        Self::new(Kind::SlowFirstToken(delay))
    }

    // --- the front end, and anything else ---

    /// 502 with the HTML page of Google's front end.
    pub fn html_bad_gateway() -> Self {
        let headers = html_headers();
        let body = Bytes::from_static(super::errors::BAD_GATEWAY_PAGE.as_bytes());
        Self::named_response(StatusCode::BAD_GATEWAY, headers, body, "html_bad_gateway")
    }

    /// 502 and no body, as relays answer.
    pub fn empty_bad_gateway() -> Self {
        Self::named_response(StatusCode::BAD_GATEWAY, HeaderMap::new(), Bytes::new(), "empty_bad_gateway")
    }

    /// Any response at all.
    ///
    /// ```
    /// use tower_gemini::emulator::Trouble;
    ///
    /// let response = http::Response::builder().status(529).header("retry-after", "3").body("busy").unwrap();
    /// let trouble = Trouble::response(response);
    /// assert_eq!(trouble.name(), "response");
    /// ```
    pub fn response(response: http::Response<impl Into<Bytes>>) -> Self {
        let (parts, body) = response.into_parts();
        Self::named_response(parts.status, parts.headers, body.into(), "response")
    }

    // --- how ---

    /// So much later: before the headers, the reset, or the error.
    pub fn delayed(mut self, delay: Duration) -> Self {
        self.delay = self.delay.saturating_add(delay);
        self
    }

    /// With a RetryInfo detail (cut to whole seconds). Only an API error can carry it.
    pub fn hint(mut self, retry_in: Duration) -> Self {
        if let Kind::Refusal { hint, .. } = &mut self.kind {
            *hint = Some(retry_in);
        }
        self
    }

    /// The API error as an event in a 200 stream, after so many chunks. Only an API error moves; an answer that was not
    /// to be streamed gets it as its status.
    pub fn in_stream(self, chunks: usize) -> Self {
        self.placed(Place::Event { after: chunks })
    }

    /// The API error as raw JSON of several lines in a 200 stream, without `data:`, after so many chunks.
    /// Only events have `data:`: in an array stream it is as with [`in_stream`](Self::in_stream).
    pub fn as_raw_tail(self, chunks: usize) -> Self {
        self.placed(Place::RawTail { after: chunks })
    }

    /// A comment (`: ping`) before every event, and one an interval for as long as the stream waits.
    pub fn pings(mut self, interval: Duration) -> Self {
        self.pings = Some(interval.max(Duration::from_millis(1)));
        self
    }

    /// The body in pieces of so many bytes, an interval apart.
    pub fn paced(mut self, bytes: usize, interval: Duration) -> Self {
        self.pace = Some((bytes.max(1), interval));
        self
    }

    /// Its name, as the journal notes it: the constructor's.
    pub fn name(&self) -> &'static str {
        match &self.kind {
            Kind::None if self.pace.is_some() => "paced",
            Kind::None if self.pings.is_some() => "pings",
            Kind::None if !self.delay.is_zero() => "slow",
            Kind::None => "none",
            Kind::Refusal { refusal, .. } => refusal.name(),
            Kind::Response(response) => response.name,
            Kind::Hang => "hang",
            Kind::Reset => "reset",
            Kind::SlowFirstToken(_) => "slow_first_token",
            Kind::Break { how: Break::Stall, .. } => "stall",
            Kind::Break { how: Break::Reset, .. } => "reset_after",
            Kind::Break { how: Break::Cut, .. } => "cut",
            Kind::Verdict(Verdict::Empty) => "empty",
            Kind::Verdict(Verdict::MalformedFunctionCall) => "malformed_function_call",
            Kind::Verdict(Verdict::Blocked(_)) => "blocked",
            Kind::Verdict(Verdict::PromptBlocked(_)) => "prompt_blocked",
        }
    }

    /// Whether it is about the key, so that it comes before any quota is looked at.
    pub(super) fn is_about_the_key(&self) -> bool {
        use Refusal::{ExpiredKey, InvalidKey, LeakedKey, ServiceDisabled, SuspendedKey};
        let Kind::Refusal { refusal, place: Place::Status, .. } = &self.kind else { return false };
        matches!(refusal, InvalidKey | ExpiredKey | SuspendedKey | LeakedKey | ServiceDisabled)
    }

    fn new(kind: Kind) -> Self {
        Self { kind, delay: Duration::ZERO, pings: None, pace: None }
    }

    fn refusal(refusal: Refusal) -> Self {
        Self::new(Kind::Refusal { refusal, hint: None, place: Place::Status })
    }

    fn placed(mut self, wanted: Place) -> Self {
        if let Kind::Refusal { place, .. } = &mut self.kind {
            *place = wanted;
        }
        self
    }

    fn named_response(status: StatusCode, headers: HeaderMap, body: Bytes, name: &'static str) -> Self {
        Self::new(Kind::Response(Arc::new(Response { status, headers, body, name })))
    }
}

impl Refusal {
    fn name(&self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::HighDemand => "high_demand",
            Self::Internal => "internal",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::MinuteQuota(_) => "minute_quota",
            Self::TokenQuota(_) => "token_quota",
            Self::DayQuota => "day_quota",
            Self::ZeroQuota => "zero_quota",
            Self::BareQuota => "bare_quota",
            Self::VertexCapacity => "vertex_capacity",
            Self::InvalidKey => "invalid_key",
            Self::ExpiredKey => "expired_key",
            Self::SuspendedKey => "suspended_key",
            Self::LeakedKey => "leaked_key",
            Self::ServiceDisabled => "service_disabled",
        }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("status", &self.status).field("bytes", &self.body.len()).finish()
    }
}

fn html_headers() -> HeaderMap {
    let html = HeaderValue::from_static("text/html; charset=UTF-8");
    HeaderMap::from_iter([(HeaderName::from_static("content-type"), html)])
}
