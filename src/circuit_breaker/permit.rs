//! The permit of a call that was let in, until its outcome is known.

use std::fmt;

use super::{breaker::Breaker, machine::Admission, tracker::CountedFailure};
use crate::{
    failure::{Failure, Kind, TimeoutKind},
    recent::Held,
};

/// A call that was let in. Dropped without an outcome, because the caller went away or a future panicked, it is
/// released: it counts neither as a success nor as a failure, and a probe's slot becomes free.
pub(super) struct Permit {
    breaker: Held<Breaker>,
    admission: Admission,
    repeated: bool,
    has_outcome: bool,
}

impl Permit {
    /// Creates the permit. `repeated`: an earlier attempt of the same request has failed already, in a way that counts.
    #[inline]
    pub(super) fn new(breaker: Held<Breaker>, admission: Admission, repeated: bool) -> Self {
        Self { breaker, admission, repeated, has_outcome: false }
    }

    /// Returns whether a failure is a sign of the upstream's health.
    pub(super) fn counts(&self, failure: &Failure) -> bool {
        self.breaker.counts(failure)
    }

    #[inline]
    pub(super) fn succeed(mut self) {
        self.has_outcome = true;
        self.breaker.succeed(self.admission);
    }

    pub(super) fn fail(mut self, failure: &Failure) {
        self.has_outcome = true;
        let timed_out = matches!(failure.kind(), Kind::Timeout(TimeoutKind::Attempt | TimeoutKind::FirstContent));
        let hint = failure.hint().map(|hint| hint.sufficient());
        self.breaker.fail(self.admission, CountedFailure { repeated: self.repeated, timed_out, hint });
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        if !self.has_outcome {
            self.breaker.release(self.admission);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("admission", &self.admission).finish_non_exhaustive()
    }
}
