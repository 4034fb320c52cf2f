//! The modes by which a closed breaker opens.

use std::time::Duration;

use crate::context::ConfigError;

/// The rule by which a closed breaker opens.
///
/// It sees only failures that count, and each request once, however often it was sent again. In no mode does it open by
/// time-outs of this program's own alone, of an attempt or of a stream's first content, while others are answered: then
/// only those count of calls that were sent after the last answer.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::circuit_breaker::{CircuitBreakers, Trip, Window};
///
/// let by_rate = Trip::failure_rate(0.8, Window::Time(Duration::from_secs(30))).minimum_requests(20);
/// let breakers = CircuitBreakers::builder().trip(by_rate).build().unwrap();
/// assert_eq!(Trip::default(), Trip::silence());
/// # drop(breakers);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Trip {
    /// A rule that opens when nothing has succeeded for some time although enough was tried: an outage, whatever the
    /// rate of failures is on an ordinary day. The default.
    ///
    /// A failure opens it when `minimum_requests` requests have failed, or three and `minimum_attempts` attempts; the
    /// first of them at least `at_least` ago and at least twice the 95th percentile of the time that successes take;
    /// and nothing that was sent after that first failure has succeeded. Calls sent before it do not count. Calls that
    /// are in flight get the benefit of the doubt: for a minute it does not open while they are more than a quarter of
    /// the attempts that have failed, and, where fewer than `minimum_requests` requests have, not for a minute or four
    /// times that percentile while there is any. After a minute without a failure the count begins anew.
    #[non_exhaustive]
    Silence {
        /// The number of requests that must have failed (default 10).
        minimum_requests: u32,
        /// The number of attempts that must have failed where fewer requests have, from three on (default 20): with few
        /// callers an outage of minutes meets no ten of them, but each of those tries again and again.
        minimum_attempts: u32,
        /// The least time without a success (default 10 s).
        at_least: Duration,
    },
    /// A rule that opens when too large a part of a sliding window has failed.
    ///
    /// A model that sheds half of its load answers the other half, and losing those answers is worse than trying twice:
    /// choose a high threshold.
    #[non_exhaustive]
    FailureRate {
        /// The part of the requests in the window that must fail, from 0 to 1.
        threshold: f64,
        /// The length of the window.
        window: Window,
        /// The least number of requests in the window (default 10); with fewer it does not open.
        minimum_requests: u32,
    },
    /// A rule that opens when enough requests have failed in a row, with no success between.
    ///
    /// Each call takes the breaker's lock, also while all is well: a time-out counts only if nothing has been answered
    /// since its call was sent, so that each answer has to be remembered.
    #[non_exhaustive]
    Consecutive {
        /// The number of failures.
        failures: u32,
    },
}

/// The window of a [`Trip::FailureRate`]. It slides with each call: older requests no longer count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Window {
    /// The last `n` requests, from 1 to 10,000.
    Calls(u32),
    /// The requests of the last period, at least 10 ms. It slides in steps of a tenth.
    Time(Duration),
}

/// The longest window by calls, which bounds its memory.
pub(super) const MAX_CALLS: u32 = 10_000;

impl Trip {
    /// Returns [`Trip::Silence`] with its defaults: 10 requests, or 3 with 20 attempts, and 10 s.
    pub const fn silence() -> Self {
        Self::Silence { minimum_requests: 10, minimum_attempts: 20, at_least: Duration::from_secs(10) }
    }

    /// Returns [`Trip::FailureRate`] with a threshold from 0 to 1; a value outside is clamped.
    pub const fn failure_rate(threshold: f64, window: Window) -> Self {
        Self::FailureRate { threshold: threshold.clamp(0.0, 1.0), window, minimum_requests: 10 }
    }

    /// Returns [`Trip::Consecutive`]. 0 counts as 1.
    pub const fn consecutive(failures: u32) -> Self {
        Self::Consecutive { failures: if failures == 0 { 1 } else { failures } }
    }

    /// Sets the least number of requests for [`Trip::Silence`] and [`Trip::FailureRate`]. 0 counts as 1.
    /// [`Trip::Consecutive`] has its own number and is not changed.
    pub const fn minimum_requests(mut self, requests: u32) -> Self {
        let requests = if requests == 0 { 1 } else { requests };
        match &mut self {
            Self::Silence { minimum_requests, .. } | Self::FailureRate { minimum_requests, .. } => {
                *minimum_requests = requests;
            }
            Self::Consecutive { .. } => {}
        }
        self
    }

    /// Sets the number of attempts that is enough for [`Trip::Silence`] where three requests or more have failed, but
    /// fewer than its `minimum_requests`. [`u32::MAX`]: only requests count. The other modes have no such number and
    /// are not changed.
    pub const fn minimum_attempts(mut self, attempts: u32) -> Self {
        if let Self::Silence { minimum_attempts, .. } = &mut self {
            *minimum_attempts = attempts;
        }
        self
    }

    /// Sets the least time without a success for [`Trip::Silence`]; the other modes have no such time and are not
    /// changed.
    pub const fn at_least(mut self, silence: Duration) -> Self {
        if let Self::Silence { at_least, .. } = &mut self {
            *at_least = silence;
        }
        self
    }

    /// Checks that it can open at all.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let Self::FailureRate { threshold, window, minimum_requests } = *self else { return Ok(()) };
        if !(0.0..=1.0).contains(&threshold) {
            return Err(ConfigError::new(format!("threshold is {threshold}; set a number from 0 to 1")));
        }
        match window {
            Window::Calls(calls) if minimum_requests > calls.clamp(1, MAX_CALLS) => {
                let holds = calls.clamp(1, MAX_CALLS);
                Err(ConfigError::new(format!(
                    "minimum_requests is {minimum_requests}, and the window holds {holds} calls: the breaker would never \
                     open; set a lower number, or a longer window"
                )))
            }
            Window::Time(Duration::ZERO) => {
                Err(ConfigError::new("the window is 0 s: the breaker would never open; set 10 s or more"))
            }
            Window::Calls(_) | Window::Time(_) => Ok(()),
        }
    }

    /// Returns the number of failures below which it never opens.
    pub(super) fn requests_needed(&self) -> u32 {
        match *self {
            Self::Silence { minimum_requests, .. } | Self::FailureRate { minimum_requests, .. } => minimum_requests,
            Self::Consecutive { failures } => failures,
        }
    }
}

impl Default for Trip {
    fn default() -> Self {
        Self::silence()
    }
}
