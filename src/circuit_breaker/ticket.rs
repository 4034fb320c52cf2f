//! A call that was let in, until it is known what became of it.

use std::{fmt, sync::Arc, time::Duration};

use super::{Breakers, machine::Admission, place::Place};

/// Dropped without a word, it says nothing: a caller went away, or a future panicked. A probe gives its place back then.
pub(super) struct Ticket {
    place: Arc<Place>,
    admission: Admission,
    repeated: bool,
    is_used: bool,
}

impl Ticket {
    /// `repeated`: an earlier attempt of the same request has failed already, in a way that counts.
    #[inline]
    pub(super) fn new(place: Arc<Place>, admission: Admission, repeated: bool) -> Self {
        Self { place, admission, repeated, is_used: false }
    }

    pub(super) fn breakers(&self) -> &Breakers {
        &self.place.breakers
    }

    #[inline]
    pub(super) fn succeed(mut self) {
        self.is_used = true;
        self.place.breaker.succeed(self.place.breakers.common(), self.admission);
    }

    pub(super) fn fail(mut self, hint: Option<Duration>) {
        self.is_used = true;
        self.place.breaker.fail(self.place.breakers.common(), self.admission, self.repeated, hint);
    }
}

impl Drop for Ticket {
    #[inline]
    fn drop(&mut self) {
        if !self.is_used {
            self.place.breaker.release(self.place.breakers.common(), self.admission);
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("admission", &self.admission).finish_non_exhaustive()
    }
}
