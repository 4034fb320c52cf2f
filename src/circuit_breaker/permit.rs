//! A call that was let in, until it is known what became of it.

use std::{fmt, sync::Arc, time::Duration};

use super::{CircuitBreakers, lookup::CachedBreaker, machine::Admission};

/// Dropped without a word, it says nothing: a caller went away, or a future panicked. A probe gives its cached back then.
pub(super) struct Permit {
    cached: Arc<CachedBreaker>,
    admission: Admission,
    repeated: bool,
    is_used: bool,
}

impl Permit {
    /// `repeated`: an earlier attempt of the same request has failed already, in a way that counts.
    #[inline]
    pub(super) fn new(cached: Arc<CachedBreaker>, admission: Admission, repeated: bool) -> Self {
        Self { cached, admission, repeated, is_used: false }
    }

    pub(super) fn breakers(&self) -> &CircuitBreakers {
        &self.cached.breakers
    }

    #[inline]
    pub(super) fn succeed(mut self) {
        self.is_used = true;
        self.cached.breaker.succeed(self.cached.breakers.common(), self.admission);
    }

    pub(super) fn fail(mut self, hint: Option<Duration>) {
        self.is_used = true;
        self.cached.breaker.fail(self.cached.breakers.common(), self.admission, self.repeated, hint);
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        if !self.is_used {
            self.cached.breaker.release(self.cached.breakers.common(), self.admission);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("admission", &self.admission).finish_non_exhaustive()
    }
}
