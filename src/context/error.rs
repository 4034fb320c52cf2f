//! The error that a layer fails with: opaque outside, an [`Outcome`] inside.
//!
//! A room fails with an [`Error`] and never with a made-up response; `ErrorResponseLayer` turns it into one at the
//! edge. A tower service's error is boxed on its way out; [`Error::find`] finds it again, however often it was wrapped.

use std::{error::Error as StdError, fmt, time::Duration};

use crate::{
    context::Outcome,
    failure::{Failure, Fault, Kind, TimeoutKind},
    redact::redact,
};

/// Any error, as tower's own middleware boxes it.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// The reason why a call has no response: a refusal by a layer, a time-out, or a transport that failed.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::{BoxError, Error, failure::{TimeoutKind, Failure}};
///
/// let failure = Failure::timeout(TimeoutKind::Attempt, Duration::from_secs(180));
/// let error: BoxError = Error::refusal("timeout", failure).into();
///
/// let error = Error::find(&*error).unwrap();
/// assert!(error.is_timeout() && !error.never_sent());
/// assert_eq!(error.layer(), "timeout");
/// ```
pub struct Error {
    outcome: Outcome,
    failure: Failure,
    layer: &'static str,
    source: Option<BoxError>,
}

impl Error {
    /// Creates the error of a layer that refused a call, or whose time ran out. `layer` is the room's name.
    pub fn refusal(layer: &'static str, failure: Failure) -> Self {
        let outcome = Outcome::default().with_failure(failure.clone());
        Self { outcome, failure, layer, source: None }
    }

    /// Creates the error of a failure that another error caused, which stays readable as the source.
    pub fn caused(layer: &'static str, failure: Failure, source: impl Into<BoxError>) -> Self {
        Self { source: Some(source.into()), ..Self::refusal(layer, failure) }
    }

    /// Finds the first of this crate's errors in a chain of sources.
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }

    /// Changes the outcome of a call that failed with any error. One that is not this crate's is wrapped in the name of
    /// `layer`.
    pub(crate) fn map(error: BoxError, layer: &'static str, change: impl FnOnce(Outcome) -> Outcome) -> BoxError {
        match error.downcast::<Self>() {
            Ok(error) => error.map_outcome(change).into(),
            Err(error) => {
                // An error of this crate's inside a foreign one keeps its layer.
                let layer = Self::find(&*error).map_or(layer, Self::layer);
                let outcome = change(Outcome::of_error(&error));
                let failure = outcome.failure().cloned().unwrap_or_else(|| Failure::from_error(&*error));
                Self { outcome, failure, layer, source: Some(error) }.into()
            }
        }
    }

    /// Returns the failure.
    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    /// Returns the outcome of the call.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Changes the outcome.
    #[must_use]
    pub fn map_outcome(mut self, change: impl FnOnce(Outcome) -> Outcome) -> Self {
        self.outcome = change(self.outcome);
        if let Some(failure) = self.outcome.failure() {
            self.failure = failure.clone();
        }
        self
    }

    /// Returns the name of the room that failed: `timeout`, `classify`, …
    pub fn layer(&self) -> &'static str {
        self.layer
    }

    /// Returns the party at fault.
    pub fn fault(&self) -> Fault {
        self.failure.fault()
    }

    /// Returns whether a clock ran out: one attempt's, a stream's, or the total one.
    pub fn is_timeout(&self) -> bool {
        self.timeout_kind().is_some()
    }

    /// Returns the clock that ran out, if one did.
    pub fn timeout_kind(&self) -> Option<TimeoutKind> {
        match self.failure.kind() {
            Kind::Timeout(kind) => Some(kind),
            _ => None,
        }
    }

    /// Returns whether a circuit breaker refused the call.
    pub fn is_circuit_open(&self) -> bool {
        self.failure.kind() == Kind::CircuitOpen
    }

    /// Returns whether the local rate limiter refused the call.
    pub fn is_rate_limited(&self) -> bool {
        self.failure.kind() == Kind::RateLimited
    }

    /// Returns whether the upstream certainly never got the request.
    pub fn never_sent(&self) -> bool {
        self.fault() == Fault::Local && !self.outcome.was_sent() || self.failure.never_sent()
    }

    /// Returns the time after which it makes sense to try again.
    pub fn retry_after(&self) -> Option<Duration> {
        self.outcome.retry_after()
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { outcome, failure: _, layer, source } = self;
        let mut shown = f.debug_struct("Error");
        shown.field("layer", layer).field("outcome", outcome);
        if let Some(source) = source {
            // Other crates put whole URLs into their errors, keys included.
            shown.field("source", &format_args!("{}", redact(&format!("{source:?}"))));
        }
        shown.finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.failure, f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Returns the error of a room's future that was polled again after it had been ready, which only a mistake in the
/// program can do.
pub(crate) fn polled_again(layer: &'static str) -> BoxError {
    format!("the future of the layer `{layer}` was polled after it had been ready").into()
}

/// The error of settings that contradict each other, or that could never work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    message: Box<str>,
}

impl ConfigError {
    pub(crate) fn new(message: impl Into<Box<str>>) -> Self {
        Self { message: message.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for ConfigError {}
