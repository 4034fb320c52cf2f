//! The crate's clock: `tokio::time`, so that a paused one drives every layer. Wall time is read in this one place.
//!
//! Waits are measured with [`tokio::time::Instant`], which a test can pause and advance. Wall time is needed for two
//! things only: an HTTP date in `Retry-After`, and midnight Pacific. Code that needs it calls [`wall`] once, and turns
//! the answer into a duration at once.

use std::{
    ops::Add,
    time::{Duration, SystemTime},
};

use governor::nanos::Nanos;
use tokio::time::Instant;

/// Returns the wall time, for what the upstream expresses in calendar time.
///
/// ```
/// let now = tower_gemini::clock::wall();
/// assert!(now > std::time::SystemTime::UNIX_EPOCH);
/// ```
#[expect(clippy::disallowed_methods, reason = "the one place that reads wall time")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// A practically infinite duration that the clock can still count to: 30 years, which tokio's own timers take for
/// "never".
pub(crate) const FAR: Duration = Duration::from_secs(86_400 * 365 * 30);

/// tokio's clock, with the interface that governor asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PacingClock;

/// An instant of tokio's clock, with which governor can count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) Instant);

impl governor::clock::Clock for PacingClock {
    type Instant = Moment;

    fn now(&self) -> Moment {
        Moment(Instant::now())
    }
}

impl governor::clock::Reference for Moment {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_duration_since(earlier.0).into()
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        Self(self.0.checked_sub(duration.into()).unwrap_or(self.0))
    }
}

impl Add<Nanos> for Moment {
    type Output = Self;

    fn add(self, duration: Nanos) -> Self {
        Self(self.0.checked_add(duration.into()).unwrap_or(self.0))
    }
}
