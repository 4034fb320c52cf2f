//! Calls in flight: counted from the call to the end of the response's body.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// One call's place on its connection, free again when dropped.
#[derive(Debug)]
pub struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }

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
