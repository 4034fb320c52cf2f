//! What is said of a breaker: its scope, its state, and why that has changed.

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::broadcast;

/// What one breaker is for: a model, at an endpoint.
///
/// The model's name is the bare one, `gemini-2.5-flash`. It is empty for calls that no model's capacity decides on: those
/// that count tokens, list, read or upload. The endpoint is the request's host, and its port where it names one; empty where
/// the request's URI has none, as in a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    model: Arc<str>,
    endpoint: Arc<str>,
}

impl Target {
    /// The scope of a model at an endpoint.
    pub fn new(model: impl Into<Arc<str>>, endpoint: impl Into<Arc<str>>) -> Self {
        Self { model: model.into(), endpoint: endpoint.into() }
    }

    /// The model that is asked.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Where it is asked.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.model(), self.endpoint()) {
            ("", "") => f.write_str("calls to no model"),
            ("", endpoint) => write!(f, "calls to no model at {endpoint}"),
            (model, "") => write!(f, "model {model}"),
            (model, endpoint) => write!(f, "model {model} at {endpoint}"),
        }
    }
}

/// Whether a breaker lets calls in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// All of them.
    Closed,
    /// None, until its time is over.
    Open,
    /// A few probes.
    HalfOpen,
    /// More each second: a probe has succeeded.
    Ramping,
    /// None, until it is reset.
    ForcedOpen,
    /// All of them, whatever becomes of them, until it is reset.
    ForcedClosed,
}

impl State {
    /// The name in logs and metrics: `closed`, `open`, `half_open`, `ramping`, `forced_open`, `forced_closed`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::Ramping => "ramping",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a breaker has changed its state, in numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// So many of so many requests failed in so much time.
    #[non_exhaustive]
    Tripped {
        /// Requests that failed.
        failed: u32,
        /// Requests that were answered or failed.
        requests: u32,
        /// In so much time.
        over: Duration,
    },
    /// It had been open for long enough.
    TimeForProbes,
    /// A probe was answered.
    ProbeSucceeded,
    /// All probes failed.
    #[non_exhaustive]
    ProbesFailed {
        /// How many there were.
        failed: u32,
    },
    /// After a probe was answered, nothing else was.
    #[non_exhaustive]
    Relapsed {
        /// Attempts that failed since.
        failed: u32,
        /// How long after.
        after: Duration,
    },
    /// The ramp has come to its end.
    Recovered,
    /// Somebody said so.
    Forced,
    /// Somebody reset it.
    Reset,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tripped { failed, requests, over } => {
                write!(f, "{failed} of {requests} requests failed in {over:.1?}")
            }
            Self::TimeForProbes => f.write_str("time for probes"),
            Self::ProbeSucceeded => f.write_str("a probe was answered"),
            Self::ProbesFailed { failed } => write!(f, "{failed} of {failed} probes failed"),
            Self::Relapsed { failed, after } => {
                write!(f, "{failed} of {failed} attempts failed within {after:.1?} of a probe that was answered")
            }
            Self::Recovered => f.write_str("recovered"),
            Self::Forced => f.write_str("forced"),
            Self::Reset => f.write_str("reset"),
        }
    }
}

/// A breaker has changed its state.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Transition {
    /// Which breaker.
    pub scope: Target,
    /// What it was.
    pub from: State,
    /// What it is.
    pub to: State,
    /// Why.
    pub reason: Reason,
    /// How long it stays open, where it has opened by itself.
    pub open_for: Option<Duration>,
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} to {} ({})", self.scope, self.from, self.to, self.reason)
    }
}

/// The transitions of all breakers of one handle, as they come. From [`CircuitBreakers::subscribe`](super::CircuitBreakers::subscribe).
#[derive(Debug)]
pub struct Transitions(pub(super) broadcast::Receiver<Transition>);

impl Transitions {
    /// How many wait for a slow listener. Of more than that, the oldest are lost.
    pub const KEPT: usize = 64;

    /// The next transition; `None` once the handle and all that was made from it are gone.
    ///
    /// Nothing is lost by dropping the future.
    pub async fn next(&mut self) -> Option<Transition> {
        loop {
            match self.0.recv().await {
                Ok(transition) => return Some(transition),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
