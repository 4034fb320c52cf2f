//! What a call has taken, and what becomes of it.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    account::Receipt,
    desk::{Desk, Refusal},
};
use crate::context::Usage;

/// What one attempt has taken of its scope. Dropped before it is sent, it is given back; dropped after, it stays.
#[derive(Debug)]
pub(super) struct Booking {
    desk: Arc<Desk>,
    receipt: Receipt,
}

impl Booking {
    /// Taken: set aside, or sent in the same step.
    pub(super) fn new(desk: Arc<Desk>, receipt: Receipt) -> Self {
        Self { desk, receipt }
    }

    /// It goes out now: the upstream's minute counts from here.
    pub(super) fn send(&mut self, now: Instant) {
        self.receipt = self.desk.send(now, self.receipt);
    }

    /// The upstream did not get it.
    pub(super) fn refund(self) {
        // What was only set aside goes back when this is dropped.
        if self.receipt.is_sent() {
            self.desk.refund(self.receipt);
        }
    }

    /// The upstream has refused it.
    pub(super) fn refused(self, now: Instant, refusal: Refusal) {
        self.desk.refused(now, self.receipt, refusal);
    }

    /// Waits for what it has really cost.
    pub(super) fn settle_by(self, usage: Usage) -> Settlement {
        Settlement { booking: self, usage }
    }
}

impl Drop for Booking {
    fn drop(&mut self) {
        if !self.receipt.is_sent() {
            self.desk.refund(self.receipt);
        }
    }
}

/// Corrects a booking when the answer's body ends or is dropped: the guard of the response's body.
#[derive(Debug)]
pub struct Settlement {
    booking: Booking,
    usage: Usage,
}

impl Drop for Settlement {
    fn drop(&mut self) {
        if let Some(tokens) = self.usage.prompt_tokens() {
            self.booking.desk.settle(self.booking.receipt, tokens);
        }
    }
}
