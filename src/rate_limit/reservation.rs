//! The amount that a call has taken, until it is settled or refunded.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    account::Charge,
    queue::{ScopeQueue, UpstreamRefusal},
};
use crate::context::Usage;

/// The amount that one attempt has taken of its scope. Dropped before the call is sent, it is refunded; dropped after
/// that, it stays charged, and a look has shown nothing.
#[derive(Debug)]
pub(super) struct Reservation {
    queue: Arc<ScopeQueue>,
    charge: Charge,
}

impl Reservation {
    /// Takes charge of an amount that is held, or charged in the same step.
    pub(super) fn new(queue: Arc<ScopeQueue>, charge: Charge) -> Self {
        Self { queue, charge }
    }

    /// Charges the amount, because the call is sent now: its minute begins.
    pub(super) fn send(&mut self, now: Instant) {
        self.charge = self.queue.send(now, self.charge);
    }

    /// Takes note of the answer: it ends the block that the call has looked at.
    #[inline]
    pub(super) fn succeeded(&mut self) {
        if self.charge.is_look() {
            self.queue.succeeded(self.charge);
            self.charge = self.charge.without_looks();
        }
    }

    /// Refunds the amount: the upstream did not receive the call.
    pub(super) fn refund(mut self) {
        // A held amount is refunded when this is dropped.
        if self.charge.is_sent() {
            self.queue.refund(self.charge);
            self.charge = self.charge.without_looks();
        }
    }

    /// Refunds the amount of a call that the upstream has refused, and tells the scope.
    pub(super) fn refused(mut self, now: Instant, refusal: UpstreamRefusal) {
        self.queue.refused(now, self.charge, refusal);
        self.charge = self.charge.without_looks();
    }

    /// Keeps the amount until the answer's usage says the real cost.
    pub(super) fn settle_by(self, usage: Usage) -> Settlement {
        Settlement { reservation: self, usage }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.charge.is_sent() {
            self.queue.refund(self.charge);
        } else if self.charge.is_look() {
            self.queue.end_looks(self.charge);
        }
    }
}

/// The guard of a response's body that corrects the call's reservation to the real cost when the body ends or is
/// dropped.
#[derive(Debug)]
pub struct Settlement {
    reservation: Reservation,
    usage: Usage,
}

impl Drop for Settlement {
    fn drop(&mut self) {
        if let Some(tokens) = self.usage.input_tokens() {
            self.reservation.queue.settle(self.reservation.charge, tokens);
        }
    }
}
