//! Error bodies: one reader for all the shapes in which they come.
//!
//! The API wraps its errors in five envelopes, and the proxies in front of it add their own: an object, an array of one
//! object, an object with a string for a code, an event of a stream, a page of HTML. Relays put one of these into the
//! `message` of another, and cut the result. A client that reads such a body with a strict type for one shape gets
//! nothing from the others, and takes a day's quota for a network fault.
//!
//! So there is one reader, and it is total: [`Status::parse`] takes any bytes and returns what it found. It reads at
//! most [`MOST_READ`] bytes, each a bounded number of times, and keeps a bounded amount.
//!
//! It judges nothing: the meaning of an error is the business of [`Failure`](crate::failure::Failure). And no text
//! leaves this module before it was redacted and capped, because error bodies echo API keys.

pub(crate) mod decode;
mod delay;
mod json;
mod object;
mod openai;
mod page;
mod read;

pub use self::delay::Hint;
pub(crate) use self::{
    object::{error_object, says_error, take_error},
    openai::{add_openai, openai_type},
    read::canonical_code,
};

/// The most bytes of a body that are read. Google's longest (a line for each of some hundred wrong fields) stay below
/// it.
pub const MOST_READ: usize = 64 * 1024;

/// The content of an error body. Everything in it is redacted and capped.
#[derive(Clone, Debug, Default)]
pub struct Status {
    envelope: Envelope,
    /// True where an error object was found, not only text.
    found: bool,
    code: Option<u16>,
    status: Option<String>,
    message: String,
    reason: Option<String>,
    legacy_reason: Option<String>,
    domain: Option<String>,
    model: Option<String>,
    violations: Vec<Violation>,
    reset_delay: Option<Hint>,
    retry_info: Option<Hint>,
    message_delay: Option<Hint>,
    message_limit: MessageLimit,
    has_help: bool,
}

/// The shape of an error body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Envelope {
    /// `{"error": {…}}`, and the variants that relays make of it.
    Object,
    /// `[{"error": {…}}]`: streams without `alt=sse`, the OpenAI-compatible surface.
    Array,
    /// `{"error": {"code": "snake_case", …}}`: the Interactions API.
    Interactions,
    /// Inside the framing of server-sent events.
    Event,
    /// Text that is neither JSON nor HTML.
    Text,
    /// A page of a front end or proxy.
    Html,
    /// An empty body.
    #[default]
    Empty,
}

/// One violated quota, from `QuotaFailure`, or from `ErrorInfo.metadata` of the older shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violation {
    metric: Option<String>,
    id: Option<String>,
    model: Option<String>,
    value: Option<u64>,
}

/// The limits in a message: "…, limit: 20, model: gemini-2.5-flash".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MessageLimit {
    /// True where one of them is 0.
    pub(crate) zero: bool,
    /// The first that is not 0.
    pub(crate) value: Option<u64>,
}

impl Status {
    /// Reads a body. It never fails: a member that was not found is absent.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_gemini::status::{Envelope, Status};
    ///
    /// let status = Status::parse(br#"[{"error": {
    ///     "code": 429,
    ///     "message": "You exceeded your current quota.\nPlease retry in 42.5s.",
    ///     "status": "RESOURCE_EXHAUSTED",
    ///     "details": [{
    ///         "@type": "type.googleapis.com/google.rpc.RetryInfo",
    ///         "retryDelay": "42s"
    ///     }]
    /// }}]"#);
    /// assert_eq!(status.envelope(), Envelope::Array);
    /// assert_eq!(status.code(), Some(429));
    /// assert_eq!(status.status(), Some("RESOURCE_EXHAUSTED"));
    /// // The message is more exact than RetryInfo, which is cut to whole seconds.
    /// assert_eq!(status.retry_delay().map(|hint| hint.delay()), Some(Duration::from_millis(42_500)));
    ///
    /// // Cut in the middle, it still says what it can.
    /// let cut = Status::parse(br#"{"error": {"code": 503, "status": "UNAVAILABLE", "message": "The model is ov"#);
    /// assert_eq!((cut.code(), cut.message()), (Some(503), "The model is ov"));
    /// ```
    #[must_use]
    pub fn parse(body: &[u8]) -> Self {
        Self::read(body)
    }

    /// Returns the shape of the body.
    #[must_use]
    pub fn envelope(&self) -> Envelope {
        self.envelope
    }

    /// Returns whether an error object was found: one with a code, a message or a status.
    #[must_use]
    pub fn is_google(&self) -> bool {
        self.found
    }

    /// Returns the numeric code of the body as an HTTP status. A `google.rpc` code (8 for RESOURCE_EXHAUSTED) is
    /// translated.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        self.code
    }

    /// Returns the canonical name, such as `RESOURCE_EXHAUSTED`, or the string code of the Interactions API, such as
    /// `invalid_request`.
    #[must_use]
    pub fn status(&self) -> Option<&str> {
        self.status.as_deref()
    }

    /// Returns the message, redacted, at most 2 KiB; of a page, its title and visible text. Empty where there was none.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns `ErrorInfo.reason`, such as `API_KEY_INVALID`.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Returns `ErrorInfo.domain`, such as `googleapis.com`. It may be missing even where there is a reason.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }

    /// Returns the model that the details name, by its resolved name.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.violations.iter().find_map(|violation| violation.model()).or(self.model.as_deref())
    }

    /// Returns the quotas that were violated, at most 16 of them.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Returns the wait that the body asks for in the message, in `quotaResetDelay` or in RetryInfo: the most exact of
    /// them.
    ///
    /// It is neither capped nor judged: a day's quota says "5s" too.
    #[must_use]
    pub fn retry_delay(&self) -> Option<Hint> {
        delay::best(self.message_delay, self.reset_delay, self.retry_info)
    }

    /// Returns `error.errors[].reason` of Google's older envelope, such as `accessNotConfigured`.
    pub(crate) fn legacy_reason(&self) -> Option<&str> {
        self.legacy_reason.as_deref()
    }

    /// Returns whether one of the details is Help, which has links only.
    pub(crate) fn has_help(&self) -> bool {
        self.has_help
    }

    /// Returns the limits in the message.
    pub(crate) fn message_limit(&self) -> MessageLimit {
        self.message_limit
    }
}

// === impl Violation ===

impl Violation {
    /// Returns `quotaMetric`, such as `generativelanguage.googleapis.com/generate_content_free_tier_requests`.
    #[must_use]
    pub fn quota_metric(&self) -> Option<&str> {
        self.metric.as_deref()
    }

    /// Returns `quotaId`, such as `GenerateRequestsPerDayPerProjectPerModel-FreeTier`.
    #[must_use]
    pub fn quota_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns `quotaDimensions.model`: the resolved name, not the alias that was sent.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Returns `quotaValue`. Google leaves out a zero, so that an absent value is `Some(0)`; `None` where the value is
    /// not a number, or where the body was cut before it.
    #[must_use]
    pub fn value(&self) -> Option<u64> {
        self.value
    }
}

#[cfg(test)]
mod tests;
