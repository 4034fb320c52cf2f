//! The memory for all bodies that are kept at the same time, and the lease of a body's bytes in it.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    report::ReplayReport,
    shares::{Caller, Caps, Shares},
};
use crate::context::Unkept;

/// The memory in which bodies are kept, with its cap and the share of each caller. A cheap handle: all clones are the
/// same memory, and all layers that [keep bodies in it](super::ReplayLayer::keep_in) share its cap.
///
/// The caller is that of the [`CallContext`](crate::CallContext::caller). Each keeps no more than it leaves free: one
/// alone half of the memory, each of two a third, and so on, so that some is free for whoever comes next. Calls without
/// a caller are those of one caller; where no call has one, there is nobody to share with, and they have all.
///
/// ```
/// use tower_gemini::{ReplayLayer, replay::ReplayMemory};
///
/// let memory = ReplayMemory::new(64 * 1024 * 1024);
/// let layer = ReplayLayer::new().keep_in(memory.clone());
/// let report = memory.snapshot();
/// assert_eq!((report.used, report.bodies, report.unkept.without_room()), (0, 0, 0));
/// ```
#[derive(Clone)]
pub struct ReplayMemory(Arc<Mutex<Shares>>);

impl ReplayMemory {
    /// Creates a memory of `max_total` bytes.
    #[must_use]
    pub fn new(max_total: usize) -> Self {
        Self::with_caps(Caps { total: max_total, per_caller: None })
    }

    pub(super) fn with_caps(caps: Caps) -> Self {
        Self(Arc::new(Mutex::new(Shares::new(caps))))
    }

    /// Changes the caps, in bytes: of all bodies, and of one caller's where there is one besides its share. Bodies that
    /// are kept stay so.
    pub fn resize(&self, max_total: usize, max_per_caller: Option<usize>) {
        self.0.lock().caps = Caps { total: max_total, per_caller: max_per_caller };
    }

    /// Returns the current state.
    #[must_use]
    pub fn snapshot(&self) -> ReplayReport {
        self.0.lock().report(Instant::now())
    }

    pub(super) fn caps(&self) -> Caps {
        self.0.lock().caps
    }

    /// Returns a lease of no bytes yet.
    pub(super) fn lease(&self, caller: Caller) -> MemoryLease {
        MemoryLease { memory: self.clone(), caller, bytes: 0 }
    }

    /// Counts a body that is not kept, and warns of it from time to time.
    fn note_unkept(&self, why: Unkept) {
        let now = Instant::now();
        let report = {
            let mut shares = self.0.lock();
            shares.note_unkept(why, now).then(|| shares.report(now))
        };
        if let Some(ReplayReport { used, max, callers, unkept, .. }) = report {
            tracing::warn!(
                used,
                max,
                callers,
                so_far = unkept.without_room(),
                "a request's body found no room to be kept: its call has one attempt, without retry or fallback; raise the \
                 memory for bodies (max_total)"
            );
        }
    }
}

impl fmt::Debug for ReplayMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Caps { total, per_caller } = self.caps();
        f.debug_struct("ReplayMemory").field("max_total", &total).field("max_per_caller", &per_caller).finish()
    }
}

/// A lease of a body's bytes, returned when it is dropped.
#[derive(Debug)]
pub(super) struct MemoryLease {
    memory: ReplayMemory,
    caller: Caller,
    bytes: usize,
}

impl MemoryLease {
    /// Counts the body as one that is not kept.
    pub(super) fn note_unkept(&self, why: Unkept) {
        self.memory.note_unkept(why);
    }

    /// Grows by `bytes` bytes. Where there is no room, the lease is unchanged.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Unkept> {
        self.memory.0.lock().grow(&mut self.caller, self.bytes, bytes)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for MemoryLease {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.memory.0.lock().give_back(&self.caller, self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_gives_back_all_that_it_has_taken() {
        let memory = ReplayMemory::new(10);
        let mut first = memory.lease(None);
        assert!(first.grow(6).is_ok() && first.grow(5).is_err() && first.grow(4).is_ok());
        let mut second = memory.clone().lease(None);
        assert_eq!(second.grow(1), Err(Unkept::NoRoom));
        drop(first);
        assert!(second.grow(10).is_ok() && second.grow(usize::MAX).is_err());
        let report = memory.snapshot();
        assert_eq!((report.used, report.bodies, report.callers), (10, 1, 1));
        drop(second);
        assert_eq!((memory.snapshot().used, memory.snapshot().callers), (0, 0));
    }
}
