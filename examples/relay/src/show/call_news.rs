//! The news of a call that the layers inside have for those outside of them: the log, and the record of failures.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

/// A cell in which the layers inside tell those outside of them who makes a call, and that its answer has ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallNews(Arc<News>);

#[derive(Debug, Default)]
struct News {
    caller: OnceLock<Arc<str>>,
    has_ended: AtomicBool,
}

impl CallNews {
    /// Returns the name of the caller, if it has one.
    pub(crate) fn caller(&self) -> Option<&str> {
        self.0.caller.get().map(|name| &**name)
    }

    /// Says who makes the call, which has one caller.
    pub(crate) fn set_caller(&self, name: Arc<str>) {
        let _ = self.0.caller.set(name);
    }

    /// Returns whether the answer has ended for the layers inside: it has passed, or it has failed and its last words are
    /// on their way.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.has_ended.load(Ordering::Relaxed)
    }

    /// Says that the answer has ended.
    pub(crate) fn set_ended(&self) {
        self.0.has_ended.store(true, Ordering::Relaxed);
    }
}
