//! The handle to an emulator.

use std::{fmt, sync::Arc, time::Duration};

use crate::emulator::{
    script::{trouble::Trouble, when::When},
    state::{journal::Visit, shared::Shared},
    wire::credentials::KeyHash,
};

/// An emulated Gemini: the service, and the handle to it. Clones are cheap, and are the same emulator.
///
/// See the [module's documentation](crate::emulator).
#[derive(Clone)]
pub struct Emulator {
    pub(super) shared: Arc<Shared>,
}

// === impl Emulator ===

impl Emulator {
    // --- the script, at run time ---

    /// Adds a trouble behind the present ones. Its trigger counts from now on; its times count from the emulator's
    /// start ([`elapsed`](Self::elapsed)).
    pub fn trouble(&self, when: When, trouble: Trouble) {
        self.shared.state.lock().script.push(when, trouble);
    }

    /// Adds a list of troubles, which is used up in order, one for each request that `when` strikes.
    pub fn script(&self, when: When, troubles: impl IntoIterator<Item = Trouble>) {
        let troubles: Vec<Trouble> = troubles.into_iter().collect();
        self.shared.state.lock().script.push_list(when, troubles);
    }

    /// Removes all troubles. A request that was struck before keeps its trouble.
    pub fn clear_troubles(&self) {
        self.shared.state.lock().script.clear();
    }

    // --- the journal ---

    /// Returns the journal's visits, oldest first, as far back as its
    /// [capacity](crate::emulator::EmulatorBuilder::journal_capacity) reaches.
    pub fn journal(&self) -> Vec<Visit> {
        self.shared.state.lock().journal.visits().cloned().collect()
    }

    /// Counts the journal's visits that a condition holds for.
    ///
    /// ```
    /// # let emulator = tower_gemini::emulator::Emulator::new();
    /// let refused = emulator.count(|visit| visit.status == Some(http::StatusCode::SERVICE_UNAVAILABLE));
    /// # assert_eq!(refused, 0);
    /// ```
    pub fn count(&self, mut condition: impl FnMut(&Visit) -> bool) -> usize {
        self.journal().iter().filter(|visit| condition(visit)).count()
    }

    /// Returns the number of requests that have arrived and not ended.
    pub fn in_flight(&self) -> usize {
        self.shared.state.lock().journal.in_flight()
    }

    /// Waits for the next entry in the journal, or the next change of one, after this call.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut changes = self.shared.subscribe();
        async move {
            // An error means that the emulator is gone, and that its journal does not change any more.
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until a condition holds for the journal. It is checked at once, and after each change.
    ///
    /// ```
    /// # use tower_gemini::emulator::Emulator;
    /// # async fn example(emulator: Emulator) {
    /// emulator.wait_for(|journal| journal.iter().all(|visit| !visit.is_in_flight())).await;
    /// # }
    /// ```
    pub async fn wait_for(&self, mut condition: impl FnMut(&[Visit]) -> bool) {
        loop {
            let changed = self.changed();
            if condition(&self.journal()) {
                return;
            }
            changed.await;
        }
    }

    /// Returns the time since the emulator's start, on tokio's clock.
    pub fn elapsed(&self) -> Duration {
        self.shared.elapsed()
    }

    /// Returns the fingerprint that the journal has for a key.
    pub fn fingerprint(key: &str) -> String {
        KeyHash::of(key).to_string()
    }
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator")
            .field("elapsed", &self.elapsed())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}
