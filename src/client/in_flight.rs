//! Counts calls in flight, from the call to the end of the response's body.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A guard: one call counts as in flight on its connection until this is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    /// Counts a call, whatever the number in flight.
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }

    /// Counts a call if fewer than `limit` are in flight.
    pub(super) fn below(limit: usize, count: &Arc<AtomicUsize>) -> Option<Self> {
        let take = |now| (now < limit).then_some(now + 1);
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(Self(Arc::clone(count)))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
