//! A flag of a call that one layer sets and another reads.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// A flag that is set once something has turned out about a call: by its body, that it is of a tier that may keep it waiting,
/// or that it asks for a stream; by the room next to the transport, that it is sent. All clones are the same.
///
/// Layers that have to start before learn of it through this flag, for one small allocation.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallFlag(Arc<AtomicBool>);

impl CallFlag {
    pub(super) fn set(&self) {
        // Relaxed, because the flag guards no other memory.
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns whether it is set.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
