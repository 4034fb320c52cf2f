//! The service that all calls with a chain share until one of them needs it.

use parking_lot::Mutex;

use crate::ready::Readied;

/// A clone of the inner service, of which calls that go to another model take clones of their own.
///
/// A call shares it, for one count of references, where a clone of the service would count one for each handle that the
/// layers inside hold: on all cores, the same counts.
#[derive(Debug)]
pub(super) struct Spare<S>(Mutex<S>);

impl<S: Clone> Spare<S> {
    /// Makes the spare of a service.
    pub(super) fn of(service: &S) -> Self {
        Self(Mutex::new(service.clone()))
    }

    /// Returns a clone, which is not ready.
    pub(super) fn take(&self) -> Readied<S> {
        Readied::unready(self.0.lock().clone())
    }
}
