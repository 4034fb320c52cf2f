//! The lock and the counter that hand-written shared state is built on, which loom can replace.
//!
//! loom runs a small program in every order in which its threads can be scheduled, and so proves what a test under load
//! only makes likely. It has to see each lock for that, so that state that is proven with it takes its `Mutex` and its
//! atomics from here. `tests/loom/run` runs the proofs. The cfg is not called `loom`, because tokio reacts to that
//! name.

#[cfg(gemini_loom)]
pub(crate) use loom::sync::atomic::AtomicU64;
#[cfg(not(gemini_loom))]
pub(crate) use {parking_lot::Mutex, std::sync::atomic::AtomicU64};

/// loom's lock, with the signature of parking_lot's.
#[cfg(gemini_loom)]
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(gemini_loom)]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
