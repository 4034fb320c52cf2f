//! The guard of one visit: it keeps the journal's entry up to date.

use std::sync::Arc;

use http::{StatusCode, request::Parts};

use super::{
    journal::{End, Visit},
    shared::Shared,
};
use crate::call::Call;

/// A guard that writes one visit's progress into the journal, and notes an end when it is dropped.
#[derive(Debug)]
pub(crate) struct VisitGuard {
    shared: Arc<Shared>,
    number: u64,
    phase: VisitPhase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum VisitPhase {
    BeforeHeaders,
    InBody,
    Ended,
}

// === impl VisitGuard ===

impl VisitGuard {
    /// Opens a visit in the journal.
    pub(crate) fn open(shared: Arc<Shared>, head: &Parts, call: &Call, connection: Option<u64>) -> Self {
        let at = shared.elapsed();
        let number = shared.state.lock().journal.open(head, call, connection, at);
        shared.notify();
        Self { shared, number, phase: VisitPhase::BeforeHeaders }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Notes that the headers were sent.
    pub(crate) fn headers(&mut self, status: StatusCode) {
        self.phase = VisitPhase::InBody;
        self.write(|visit| visit.status = Some(status));
    }

    /// Notes that a piece of the body was sent.
    pub(crate) fn sent(&self, bytes: usize) {
        let now = self.shared.elapsed();
        self.write(|visit| {
            visit.chunks += 1;
            visit.bytes_sent += bytes as u64;
            visit.first_chunk_at.get_or_insert(now);
        });
    }

    /// Notes the end, once: later calls change nothing.
    pub(crate) fn end(&mut self, end: End) {
        if self.phase == VisitPhase::Ended {
            return;
        }
        self.phase = VisitPhase::Ended;
        let now = self.shared.elapsed();
        self.shared.state.lock().journal.close(self.number, end, now);
        self.shared.notify();
    }

    /// Changes the visit, and wakes the tasks that wait for a change of the journal.
    pub(crate) fn write(&self, write: impl FnOnce(&mut Visit)) {
        if let Some(visit) = self.shared.state.lock().journal.get_mut(self.number) {
            write(visit);
        }
        self.shared.notify();
    }
}

impl Drop for VisitGuard {
    fn drop(&mut self) {
        self.end(match self.phase {
            VisitPhase::BeforeHeaders => End::DroppedBeforeHeaders,
            _ => End::DroppedInBody,
        });
    }
}
