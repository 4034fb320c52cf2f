//! The troubles that can strike a request.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::trouble_kind::{CannedResponse, ErrorPlace, ScriptedError, StreamBreak, TroubleKind};
use crate::emulator::wire::answer::EmptyAnswer;

/// A trouble: the thing that goes wrong with a request. A [`When`](crate::emulator::When) chooses the requests.
///
/// Every kind can be slowed ([`delayed`](Self::delayed)), cut into small pieces ([`paced`](Self::paced)) or
/// interspersed with comments ([`pings`](Self::pings)). An API error can be moved into a 200 stream
/// ([`in_stream`](Self::in_stream), [`as_raw_tail`](Self::as_raw_tail)). A number of chunks is capped so that the last
/// chunk, the one with the finishReason, is never sent. A trouble of streams breaks an answer in one piece after half
/// of it, or with 0 chunks before any of it.
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
    pub(crate) kind: TroubleKind,
    pub(crate) delay: Duration,
    pub(crate) pings: Option<Duration>,
    pub(crate) pace: Option<(usize, Duration)>,
}

/// The page that Google's front end shows when the service behind it does not answer.
const BAD_GATEWAY_PAGE: &str = "<!DOCTYPE html>\n<html lang=en>\n  <meta charset=utf-8>\n  \
    <meta name=viewport content=\"initial-scale=1, minimum-scale=1, width=device-width\">\n  \
    <title>Error 502 (Server Error)!!1</title>\n  <a href=//www.google.com/><span id=logo aria-label=Google></span></a>\n  \
    <p><b>502.</b> <ins>That\u{2019}s an error.</ins>\n  \
    <p>The server encountered a temporary error and could not complete your request.\
    <p>Please try again in 30 seconds.  <ins>That\u{2019}s all we know.</ins>\n";

// === impl Trouble ===

impl Trouble {
    /// Returns the absence of a trouble: the request is answered. In a script it lets one request through; in front of
    /// other troubles it shields from them.
    pub fn none() -> Self {
        Self::new(TroubleKind::None)
    }

    // --- errors of the API ---

    /// Returns a 503 UNAVAILABLE, "The model is overloaded. Please try again later."
    pub fn overloaded() -> Self {
        Self::error(ScriptedError::Overloaded)
    }

    /// Returns a 503 UNAVAILABLE, "This model is currently experiencing high demand. …"
    pub fn high_demand() -> Self {
        Self::error(ScriptedError::HighDemand)
    }

    /// Returns a 500 INTERNAL, "An internal error has occurred. …"
    pub fn internal() -> Self {
        Self::error(ScriptedError::Internal)
    }

    /// Returns a 504 DEADLINE_EXCEEDED, "Deadline expired before operation could complete."
    pub fn deadline_exceeded() -> Self {
        Self::error(ScriptedError::DeadlineExceeded)
    }

    /// Returns a 429: the requests of this minute are spent. The message has the exact wait, RetryInfo its whole
    /// seconds. The limit named is the configured one, or 10.
    pub fn minute_quota(retry_in: Duration) -> Self {
        Self::error(ScriptedError::MinuteQuota(retry_in))
    }

    /// Returns a 429: the input tokens of this minute are spent. The limit named is the configured one, or 250,000.
    pub fn token_quota(retry_in: Duration) -> Self {
        Self::error(ScriptedError::TokenQuota(retry_in))
    }

    /// Returns a 429: the requests of this day are spent. Like Google's, its hint of a few seconds is of no use. The
    /// limit named is the configured one, or 500.
    pub fn day_quota() -> Self {
        Self::error(ScriptedError::DayQuota)
    }

    /// Returns a 429 with `limit: 0`: no retry succeeds, whatever the hint says.
    pub fn zero_quota() -> Self {
        Self::error(ScriptedError::ZeroQuota)
    }

    /// Returns a 429 without details, "Resource has been exhausted (e.g. check quota)."
    pub fn bare_quota() -> Self {
        Self::error(ScriptedError::BareQuota)
    }

    /// Returns a 429 in Vertex's wording for its shared capacity, which is not the quota of a project.
    pub fn vertex_capacity() -> Self {
        Self::error(ScriptedError::VertexCapacity)
    }

    /// Returns a 429 whose only detail is Help, as grounded calls get it on the free tier:
    /// [`When::grounded`](crate::emulator::When::grounded) chooses these.
    pub fn grounding_quota() -> Self {
        Self::error(ScriptedError::GroundingQuota)
    }

    /// Returns a 429 for the money that a project may spend in ten minutes. It is the project's, for all models.
    pub fn spend_limit() -> Self {
        Self::error(ScriptedError::SpendLimit)
    }

    /// Returns a 429, "Your project has exceeded its monthly spending cap. …"
    pub fn spending_cap() -> Self {
        Self::error(ScriptedError::SpendingCap)
    }

    /// Returns a 404, "This model … is no longer available to new users. …", before any quota is spent. Restrict it to
    /// a [project](crate::emulator::When::project) and a [model](crate::emulator::When::model).
    pub fn model_closed() -> Self {
        Self::error(ScriptedError::ModelClosed)
    }

    /// Returns a 400 of the content filter, as interactions have it: with the code `prohibited_content`. Google's has
    /// been seen in a stream as a bare line of JSON: [`as_raw_tail`](Self::as_raw_tail).
    pub fn prohibited() -> Self {
        Self::error(ScriptedError::Prohibited)
    }

    /// Returns a 400 API_KEY_INVALID, "API key not valid. …"
    pub fn invalid_key() -> Self {
        Self::error(ScriptedError::InvalidKey)
    }

    /// Returns a 400 API_KEY_INVALID, "API key expired. …"
    pub fn expired_key() -> Self {
        Self::error(ScriptedError::ExpiredKey)
    }

    /// Returns a 403 CONSUMER_SUSPENDED, which repeats the key three times.
    pub fn suspended_key() -> Self {
        Self::error(ScriptedError::SuspendedKey)
    }

    /// Returns a 403, "Your API key was reported as leaked. …"
    pub fn leaked_key() -> Self {
        Self::error(ScriptedError::LeakedKey)
    }

    /// Returns a 403 SERVICE_DISABLED: the API is not enabled in the project.
    pub fn service_disabled() -> Self {
        Self::error(ScriptedError::ServiceDisabled)
    }

    // --- answers without text ---

    /// Returns a 200 with STOP and no part.
    pub fn empty() -> Self {
        Self::new(TroubleKind::Empty(EmptyAnswer::NoParts))
    }

    /// Returns a 200 with MALFORMED_FUNCTION_CALL and no content.
    pub fn malformed_function_call() -> Self {
        Self::new(TroubleKind::Empty(EmptyAnswer::MalformedFunctionCall))
    }

    /// Returns a 200 with thoughts alone, and MALFORMED_FUNCTION_CALL; in a stream, the thought comes first.
    pub fn thoughts_only() -> Self {
        Self::new(TroubleKind::Empty(EmptyAnswer::ThoughtsOnly))
    }

    /// Returns a 200 without parts, with CONTINUATION and a `continuationToken`; an interaction that requires a
    /// continuation. A request with that token, of the same project, gets the answer.
    pub fn continuation() -> Self {
        Self::new(TroubleKind::Empty(EmptyAnswer::Continuation(String::new())))
    }

    /// Returns an interaction with status `failed`; elsewhere, a STOP without a part.
    pub fn failed() -> Self {
        Self::unfinished("failed")
    }

    /// Returns an interaction without an answer and with that status, such as `incomplete` or `budget_exceeded`;
    /// elsewhere, a STOP without a part.
    pub fn unfinished(status: impl Into<String>) -> Self {
        Self::new(TroubleKind::Empty(EmptyAnswer::Unfinished(status.into())))
    }

    /// Returns a 200 with no content and that finishReason: SAFETY, RECITATION, BLOCKLIST, PROHIBITED_CONTENT, SPII,
    /// ESCALATION, MODEL_ARMOR, PUP_LIMITED_DISABLED. An interaction has failed with `prohibited_content`.
    pub fn blocked(finish_reason: impl Into<String>) -> Self {
        Self::new(TroubleKind::Empty(EmptyAnswer::Blocked(finish_reason.into())))
    }

    /// Returns a 200 with no candidate and a promptFeedback with that blockReason.
    pub fn prompt_blocked(block_reason: impl Into<String>) -> Self {
        Self::new(TroubleKind::Empty(EmptyAnswer::PromptBlocked(block_reason.into())))
    }

    // --- the connection ---

    /// Returns a trouble that takes the request and never sends anything.
    pub fn hang() -> Self {
        Self::new(TroubleKind::Hang)
    }

    /// Returns a trouble that resets the connection before the headers.
    pub fn reset() -> Self {
        Self::new(TroubleKind::Reset)
    }

    /// Returns a trouble that sends `chunks` chunks, then nothing, and keeps the connection open.
    pub fn stall(chunks: usize) -> Self {
        Self::new(TroubleKind::Break { after: chunks, how: StreamBreak::Stall })
    }

    /// Returns a trouble that sends `chunks` chunks and resets the connection.
    pub fn reset_after(chunks: usize) -> Self {
        Self::new(TroubleKind::Break { after: chunks, how: StreamBreak::Reset })
    }

    /// Returns a trouble that sends `chunks` chunks and ends the stream without a finishReason.
    pub fn cut(chunks: usize) -> Self {
        Self::new(TroubleKind::Break { after: chunks, how: StreamBreak::Cut })
    }

    // --- the time ---

    /// Returns a trouble that delays the whole answer, headers included.
    pub fn slow(delay: Duration) -> Self {
        Self::none().delayed(delay)
    }

    /// Returns a trouble that sends the headers at once and delays the first chunk.
    pub fn slow_first_token(delay: Duration) -> Self {
        Self::new(TroubleKind::SlowFirstToken(delay))
    }

    /// Returns a trouble that serves the request from the standard tier, whichever it asked for, and says so.
    pub fn downgraded() -> Self {
        Self::new(TroubleKind::Downgraded)
    }

    // --- the front end, and anything else ---

    /// Returns a 502 with the HTML page of Google's front end.
    pub fn html_bad_gateway() -> Self {
        let headers = html_headers();
        let body = Bytes::from_static(BAD_GATEWAY_PAGE.as_bytes());
        Self::named_response(StatusCode::BAD_GATEWAY, headers, body, "html_bad_gateway")
    }

    /// Returns a 502 without a body, as relays do.
    pub fn empty_bad_gateway() -> Self {
        Self::named_response(StatusCode::BAD_GATEWAY, HeaderMap::new(), Bytes::new(), "empty_bad_gateway")
    }

    /// Returns a response of your own.
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

    // --- modifiers ---

    /// Adds a delay before the headers, the reset, or the error.
    pub fn delayed(mut self, delay: Duration) -> Self {
        self.delay = self.delay.saturating_add(delay);
        self
    }

    /// Adds a RetryInfo detail, cut to whole seconds. Only an API error has one.
    pub fn hint(mut self, retry_in: Duration) -> Self {
        if let TroubleKind::Error { hint, .. } = &mut self.kind {
            *hint = Some(retry_in);
        }
        self
    }

    /// Moves the API error into a 200 stream, as an event after `chunks` chunks. Only an API error moves. A request for
    /// an answer in one piece gets the error as its status.
    pub fn in_stream(self, chunks: usize) -> Self {
        self.placed(ErrorPlace::Event { after: chunks })
    }

    /// Moves the API error into a 200 stream, as raw JSON of several lines without `data:` after `chunks` chunks; of an
    /// interaction, as JSON on one line. Only events have `data:`, so that an array stream gets the same as with
    /// [`in_stream`](Self::in_stream).
    pub fn as_raw_tail(self, chunks: usize) -> Self {
        self.placed(ErrorPlace::RawTail { after: chunks })
    }

    /// Adds a comment (`: ping`) before every event, and one at each interval while the stream waits.
    pub fn pings(mut self, interval: Duration) -> Self {
        self.pings = Some(interval.max(Duration::from_millis(1)));
        self
    }

    /// Sends the body in pieces of `bytes` bytes, an interval apart.
    pub fn paced(mut self, bytes: usize, interval: Duration) -> Self {
        self.pace = Some((bytes.max(1), interval));
        self
    }

    /// Returns the trouble's name, as the journal has it: that of the constructor.
    pub fn name(&self) -> &'static str {
        match &self.kind {
            TroubleKind::None if self.pace.is_some() => "paced",
            TroubleKind::None if self.pings.is_some() => "pings",
            TroubleKind::None if !self.delay.is_zero() => "slow",
            TroubleKind::None => "none",
            TroubleKind::Error { error, .. } => error.name(),
            TroubleKind::Response(response) => response.name,
            TroubleKind::Hang => "hang",
            TroubleKind::Reset => "reset",
            TroubleKind::SlowFirstToken(_) => "slow_first_token",
            TroubleKind::Break { how: StreamBreak::Stall, .. } => "stall",
            TroubleKind::Break { how: StreamBreak::Reset, .. } => "reset_after",
            TroubleKind::Break { how: StreamBreak::Cut, .. } => "cut",
            TroubleKind::Empty(EmptyAnswer::NoParts) => "empty",
            TroubleKind::Empty(EmptyAnswer::MalformedFunctionCall) => "malformed_function_call",
            TroubleKind::Empty(EmptyAnswer::ThoughtsOnly) => "thoughts_only",
            TroubleKind::Empty(EmptyAnswer::Continuation(_)) => "continuation",
            TroubleKind::Empty(EmptyAnswer::Unfinished(status)) if status == "failed" => "failed",
            TroubleKind::Empty(EmptyAnswer::Unfinished(_)) => "unfinished",
            TroubleKind::Downgraded => "downgraded",
            TroubleKind::Empty(EmptyAnswer::Blocked(_)) => "blocked",
            TroubleKind::Empty(EmptyAnswer::PromptBlocked(_)) => "prompt_blocked",
        }
    }

    /// Returns whether the trouble is an error of the key or of its project, which comes before any quota is spent.
    pub(crate) fn is_about_the_key(&self) -> bool {
        use ScriptedError::{ExpiredKey, InvalidKey, LeakedKey, ModelClosed, ServiceDisabled, SuspendedKey};
        let TroubleKind::Error { error, place: ErrorPlace::Status, .. } = &self.kind else { return false };
        matches!(error, InvalidKey | ExpiredKey | SuspendedKey | LeakedKey | ServiceDisabled | ModelClosed)
    }

    fn new(kind: TroubleKind) -> Self {
        Self { kind, delay: Duration::ZERO, pings: None, pace: None }
    }

    fn error(error: ScriptedError) -> Self {
        Self::new(TroubleKind::Error { error, hint: None, place: ErrorPlace::Status })
    }

    fn placed(mut self, wanted: ErrorPlace) -> Self {
        if let TroubleKind::Error { place, .. } = &mut self.kind {
            *place = wanted;
        }
        self
    }

    fn named_response(status: StatusCode, headers: HeaderMap, body: Bytes, name: &'static str) -> Self {
        Self::new(TroubleKind::Response(Arc::new(CannedResponse { status, headers, body, name })))
    }
}

fn html_headers() -> HeaderMap {
    let html = HeaderValue::from_static("text/html; charset=UTF-8");
    HeaderMap::from_iter([(HeaderName::from_static("content-type"), html)])
}
