//! The cap on all bodies that are kept at the same time, and the lease of a body's bytes under it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The number of bytes that are currently kept, and its cap. Clones share the number.
#[derive(Clone, Debug)]
pub(super) struct ReplayMemory {
    used: Arc<AtomicUsize>,
    cap: usize,
}

impl ReplayMemory {
    pub(super) fn new(cap: usize) -> Self {
        Self { used: Arc::default(), cap }
    }

    /// Returns a lease of no bytes yet.
    pub(super) fn lease(&self) -> MemoryLease {
        MemoryLease { memory: self.clone(), bytes: 0 }
    }
}

/// A lease of bytes under the cap, returned when it is dropped.
#[derive(Debug)]
pub(super) struct MemoryLease {
    memory: ReplayMemory,
    bytes: usize,
}

impl MemoryLease {
    /// Grows by `bytes` bytes. `false`: there is no room, and the lease is unchanged.
    #[must_use]
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let cap = self.memory.cap;
        let fits = |used: usize| used.checked_add(bytes).filter(|&used| used <= cap);
        // Relaxed, because the counter guards no other memory.
        let grown = self.memory.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if grown {
            self.bytes += bytes;
        }
        grown
    }
}

impl Drop for MemoryLease {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_given_back() {
        let memory = ReplayMemory::new(10);
        let mut first = memory.lease();
        assert!(first.grow(6) && !first.grow(5) && first.grow(4));
        let mut second = memory.clone().lease();
        assert!(!second.grow(1));
        drop(first);
        assert!(second.grow(10) && !second.grow(usize::MAX));
        drop(second);
        assert_eq!(memory.used.load(Ordering::Relaxed), 0);
    }
}
