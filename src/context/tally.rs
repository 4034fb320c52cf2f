//! The cell in which the attempts of a call are added up.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::call::{Call, RequestDetails};

/// A cell in which the layers inside add up what the attempts of one call have cost.
///
/// It travels with the [`CallContext`](crate::CallContext) from attempt to attempt and from model to model; all clones
/// are the same cell. `TelemetryLayer` makes one when there is a subscriber or a recorder; without a cell no layer
/// counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(Arc<Mutex<TallyReport>>);

impl Tally {
    /// Returns what is known now.
    pub(crate) fn report(&self) -> TallyReport {
        self.0.lock().clone()
    }

    /// Adds to what is known.
    pub(crate) fn add(&self, change: impl FnOnce(&mut TallyReport)) {
        change(&mut self.0.lock());
    }

    /// Begins a wait in a queue. It is added up when the guard is dropped, however the wait ends.
    pub(crate) fn queueing(&self, since: Instant) -> Queueing {
        Queueing { tally: self.clone(), since }
    }
}

/// The contents of a [`Tally`].
#[derive(Clone, Debug, Default)]
pub(crate) struct TallyReport {
    /// The number of attempts, those included that a layer further inside has refused.
    pub(crate) attempts: u32,
    /// The time from the beginning of each attempt to its answer's head, waits in queues left out.
    pub(crate) upstream: Duration,
    /// The time spent in queues.
    pub(crate) queued: Duration,
    /// The time between a failed attempt and the next.
    pub(crate) backed_off: Duration,
    /// The call, as the first attempt made it.
    pub(crate) call: Option<Call>,
    /// The details of the request.
    pub(crate) details: RequestDetails,
    /// The model of the last attempt.
    pub(crate) model: Option<Arc<str>>,
}

/// A guard that adds up a wait in a queue when it is dropped.
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
