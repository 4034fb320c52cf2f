//! The instants by which a call has to be over.

use std::time::Duration;

use tokio::time::Instant;

use super::CallFlag;
use crate::clock::FAR;

/// The instant at which a call has to be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// Returns the deadline at that instant.
    pub fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// Returns the deadline `duration` from now; where the clock cannot count so far, one in 30 years.
    pub fn after(duration: Duration) -> Self {
        Self::counted_from(Instant::now(), duration)
    }

    /// Returns the deadline `duration` after `began`.
    pub(crate) fn counted_from(began: Instant, duration: Duration) -> Self {
        Self(began.checked_add(duration).unwrap_or(began + FAR))
    }

    /// Returns the instant itself.
    pub fn instant(self) -> Instant {
        self.0
    }

    /// Returns the time that is left at `now`: zero once the deadline has passed.
    pub fn remaining(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }
}

/// The deadline that takes the place of the other one if the call's tier may keep it waiting.
#[derive(Clone, Debug)]
pub(super) struct LaterDeadline {
    pub(super) deadline: Deadline,
    pub(super) holds: CallFlag,
}
