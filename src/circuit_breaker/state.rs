//! The public types that describe a breaker: its scope, its state, and the reason of a change.

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::broadcast;

/// The scope of one breaker: a model at an endpoint.
///
/// The model's name is the bare one, `gemini-2.5-flash`, with the service tier behind it where that is not the standard
/// one, `gemini-2.5-flash@flex`. It is empty for calls that do not depend on a model's
/// capacity: those that count tokens, list, read or upload. The endpoint is the request's host, with its port where it
/// names one; it is empty where the request's URI has no host, as in a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    model: Arc<str>,
    endpoint: Arc<str>,
}

impl Target {
    /// Creates the scope of a model at an endpoint.
    pub fn new(model: impl Into<Arc<str>>, endpoint: impl Into<Arc<str>>) -> Self {
        Self { model: model.into(), endpoint: endpoint.into() }
    }

    /// Returns the model's name.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Returns the host, and the port where there is one.
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

/// The state of a breaker: which calls it admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// All calls are admitted.
    Closed,
    /// No call is admitted until the open time is over.
    Open,
    /// A few calls are admitted, as probes.
    HalfOpen,
    /// A probe has succeeded, and each answer admits one more call than before.
    Ramping,
    /// No call is admitted until the breaker is reset.
    ForcedOpen,
    /// All calls are admitted, whatever their outcome, until the breaker is reset.
    ForcedClosed,
}

impl State {
    /// Returns the name in logs and metrics: `closed`, `open`, `half_open`, `ramping`, `forced_open`, `forced_closed`.
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

/// The reason for a change of state, in numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// Enough of the requests failed.
    #[non_exhaustive]
    Tripped {
        /// The number of requests that failed.
        failed: u32,
        /// The number of requests that were answered or failed.
        requests: u32,
        /// The time in which they did.
        over: Duration,
    },
    /// The open time was over.
    TimeForProbes,
    /// A probe was answered.
    ProbeSucceeded,
    /// All probes failed.
    #[non_exhaustive]
    ProbesFailed {
        /// The number of probes.
        failed: u32,
    },
    /// A probe was answered, and nothing after it.
    #[non_exhaustive]
    Relapsed {
        /// The number of attempts that failed since.
        failed: u32,
        /// The time since the probe was answered.
        after: Duration,
    },
    /// The ramp was completed.
    Recovered,
    /// It has opened in another process, which said so, or in this program before it was started anew.
    #[non_exhaustive]
    OpenedElsewhere {
        /// The number of requests that failed there.
        failed: u32,
    },
    /// The program forced it open or closed.
    Forced,
    /// The program reset it.
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
            Self::OpenedElsewhere { failed } => write!(f, "{failed} requests failed in another instance"),
            Self::Forced => f.write_str("forced"),
            Self::Reset => f.write_str("reset"),
        }
    }
}

/// A change of a breaker's state.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Transition {
    /// The breaker's scope.
    pub scope: Target,
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// The reason.
    pub reason: Reason,
    /// The time for which it stays open, where it has opened by itself.
    pub open_for: Option<Duration>,
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} to {} ({})", self.scope, self.from, self.to, self.reason)
    }
}

/// A stream of the transitions of all breakers of one handle, from
/// [`CircuitBreakers::subscribe`](super::CircuitBreakers::subscribe).
#[derive(Debug)]
pub struct Transitions(pub(super) broadcast::Receiver<Transition>);

impl Transitions {
    /// The number of transitions that are kept for a slow subscriber. Beyond that the oldest are lost.
    pub const KEPT: usize = 64;

    /// Waits for the next transition; `None` once the handle and everything made from it are gone.
    ///
    /// Dropping the future loses no transition.
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
