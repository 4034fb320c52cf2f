use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::call::Call;

/// A cell in which the layers inside add up what the attempts of one call have cost.
///
/// It travels with the [`CallContext`](crate::CallContext) from attempt to attempt and from model to model; all clones are the same
/// cell. `TelemetryLayer` makes one when somebody listens; where there is none, nobody counts.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Mutex<TallyReport>>);

impl Tally {
    /// What is known now.
    pub fn report(&self) -> TallyReport {
        self.0.lock().clone()
    }

    /// Adds to what is known.
    pub(crate) fn add(&self, change: impl FnOnce(&mut TallyReport)) {
        change(&mut self.0.lock());
    }

    /// A wait in a queue begins: it is added up when the guard goes, however the wait ends.
    pub(crate) fn queueing(&self, since: Instant) -> Queueing {
        Queueing { tally: self.clone(), since }
    }
}

/// What a [`Tally`] holds.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TallyReport {
    /// Attempts, those that a layer further inside has refused included.
    pub attempts: u32,
    /// The time from the beginning of each attempt to its answer's head, waits in queues left out.
    pub upstream: Duration,
    /// The time in queues.
    pub queued: Duration,
    /// The time between a failed attempt and the next.
    pub backed_off: Duration,
    /// What the first attempt has asked for.
    pub call: Option<Call>,
    /// The model that the last attempt has asked.
    pub model: Option<Arc<str>>,
}

/// A wait in a queue.
#[derive(Debug)]
pub(crate) struct Queueing {
    tally: Tally,
    since: Instant,
}

impl Drop for Queueing {
    fn drop(&mut self) {
        let waited = self.since.elapsed();
        self.tally.add(|report| report.queued += waited);
    }
}
