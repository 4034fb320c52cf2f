//! What a call has taken, and what becomes of it.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    account::Charge,
    queue::{Refusal, ScopeQueue},
};
use crate::context::Usage;

/// What one attempt has taken of its scope. Dropped before it is sent, it is given back; dropped after, it stays.
#[derive(Debug)]
pub(super) struct Reservation {
    queue: Arc<ScopeQueue>,
    charge: Charge,
}

impl Reservation {
    /// Taken: set aside, or sent in the same step.
    pub(super) fn new(queue: Arc<ScopeQueue>, charge: Charge) -> Self {
        Self { queue, charge }
    }

    /// It goes out now: the upstream's minute counts from here.
    pub(super) fn send(&mut self, now: Instant) {
        self.charge = self.queue.send(now, self.charge);
    }

    /// The upstream did not get it.
    pub(super) fn refund(self) {
        // What was only set aside goes back when this is dropped.
        if self.charge.is_sent() {
            self.queue.refund(self.charge);
        }
    }

    /// The upstream has refused it.
    pub(super) fn refused(self, now: Instant, refusal: Refusal) {
        self.queue.refused(now, self.charge, refusal);
    }

    /// Waits for what it has really cost.
    pub(super) fn settle_by(self, usage: Usage) -> Settlement {
        Settlement { reservation: self, usage }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.charge.is_sent() {
            self.queue.refund(self.charge);
        }
    }
}

/// Corrects a reservation when the answer's body ends or is dropped: the guard of the response's body.
#[derive(Debug)]
pub struct Settlement {
    reservation: Reservation,
    usage: Usage,
}

impl Drop for Settlement {
    fn drop(&mut self) {
        if let Some(tokens) = self.usage.prompt_tokens() {
            self.reservation.queue.settle(self.reservation.charge, tokens);
        }
    }
}
