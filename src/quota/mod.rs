//! Quota in the API's own terms: what is counted, for which project and model, and when a day ends.
//!
//! Limits are per project and per model: keys of one project share them. A day ends at midnight Pacific, with daylight
//! saving.

mod pacific;
mod store;
pub(crate) mod window;

use std::{fmt, sync::Arc, time::Duration};

use http_body::Body;

pub(crate) use self::{pacific::PacificCalendar, store::AwaitedAnswer};
pub use self::{
    pacific::{until_pacific_midnight, until_pacific_month_end},
    store::{Answer, Closing, Correction, Grant, MemoryStore, Question, QuotaStore, Reply, StoreCharge},
};

/// The limits of a project for a model. What is not set is not limited.
///
/// ```
/// use tower_gemini::quota::{Dimension, Limits};
///
/// let limits = Limits::new().requests_per_minute(10).input_tokens_per_minute(250_000).requests_per_day(500);
/// assert_eq!(limits.get(Dimension::RequestsPerMinute), Some(10));
/// assert_eq!(Limits::new().get(Dimension::RequestsPerDay), None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[must_use]
pub struct Limits {
    requests_per_minute: Option<u64>,
    input_tokens_per_minute: Option<u64>,
    requests_per_day: Option<u64>,
}

impl Limits {
    /// Creates limits that limit nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the requests in any 60 seconds. 0 allows none.
    pub fn requests_per_minute(mut self, limit: u64) -> Self {
        self.requests_per_minute = Some(limit);
        self
    }

    /// Limits the input tokens in any 60 seconds. 0 allows none.
    pub fn input_tokens_per_minute(mut self, limit: u64) -> Self {
        self.input_tokens_per_minute = Some(limit);
        self
    }

    /// Limits the requests until midnight Pacific. 0 allows none.
    pub fn requests_per_day(mut self, limit: u64) -> Self {
        self.requests_per_day = Some(limit);
        self
    }

    /// Returns the limit of one dimension.
    pub fn get(&self, dimension: Dimension) -> Option<u64> {
        match dimension {
            Dimension::RequestsPerMinute => self.requests_per_minute,
            Dimension::InputTokensPerMinute => self.input_tokens_per_minute,
            Dimension::RequestsPerDay => self.requests_per_day,
        }
    }
}

/// A dimension in which quota is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dimension {
    /// Requests in any 60 seconds.
    RequestsPerMinute,
    /// Input tokens in any 60 seconds.
    InputTokensPerMinute,
    /// Requests until midnight Pacific.
    RequestsPerDay,
}

impl Dimension {
    /// Returns the name in logs, metrics and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "requests a minute",
            Self::InputTokensPerMinute => "input tokens a minute",
            Self::RequestsPerDay => "requests a day",
        }
    }

    /// Returns the short name in reports: `minute`, `tokens_minute`, `day`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "minute",
            Self::InputTokensPerMinute => "tokens_minute",
            Self::RequestsPerDay => "day",
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The number of input tokens of a request, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TokenCost {
    /// The input tokens.
    pub tokens: u64,
    /// The certainty of the number.
    pub certainty: Certainty,
}

impl TokenCost {
    /// Creates an estimate, which may be too high or too low.
    pub const fn estimate(tokens: u64) -> Self {
        Self { tokens, certainty: Certainty::Estimate }
    }

    /// Creates a proven lower bound: a number that was counted, or is no more than the real one.
    pub const fn at_least(tokens: u64) -> Self {
        Self { tokens, certainty: Certainty::AtLeast }
    }
}

/// The bytes of a request's body for each token, where nothing has counted them: natural text has 0.33 tokens a byte in
/// the median.
const BYTES_PER_TOKEN: u64 = 3;

impl TokenCost {
    /// Estimates the cost of a request from its body's size, for calls without a count.
    pub(crate) fn of(body: &impl Body) -> Self {
        let hint = body.size_hint();
        Self::estimate(hint.upper().unwrap_or(hint.lower()) / BYTES_PER_TOKEN)
    }
}

/// The certainty of a [`TokenCost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Certainty {
    /// A guess.
    Estimate,
    /// A number that was counted, or is proven to be no more than the real one.
    AtLeast,
}

/// A source of closed scopes, whatever their quota: the circuit breaker.
///
/// The limiter asks it before it queues a call, so that no call waits for quota that it cannot use.
pub trait Gate: fmt::Debug + Send + Sync {
    /// Returns the least time for which the scope stays closed. `None`: calls may pass.
    fn closed_for(&self, scope: &Scope) -> Option<Duration>;
}

/// The scope in which quota is counted: a project and a model. Two keys of one project are one scope.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    project: Arc<str>,
    model: Arc<str>,
}

impl Scope {
    /// Creates the scope of a project and a model.
    pub fn new(project: impl Into<Arc<str>>, model: impl Into<Arc<str>>) -> Self {
        Self { project: project.into(), model: model.into() }
    }

    /// Returns the project that pays.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// Returns the model that is called.
    pub fn model(&self) -> &str {
        &self.model
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "project {}, model {}", self.project, self.model)
    }
}
