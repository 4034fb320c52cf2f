//! The amount that a call has taken, until it is settled or refunded.

use tokio::time::Instant;

use super::{
    Amount,
    account::{Charge, SharedCharge},
    queue::{ScopeQueue, UpstreamRefusal},
    turns::WaiterId,
};
use crate::{
    context::Usage,
    quota::{Answer, Correction, Grant, Reply},
    recent::Held,
};

/// The amount that one attempt has taken of its scope. Dropped before the call is sent, it is refunded; dropped after
/// that, it stays charged, and a look has shown nothing.
#[derive(Debug)]
pub(super) struct Reservation {
    queue: Held<ScopeQueue>,
    charge: Charge,
    /// The charge in the store, boxed: without a store, nothing is larger or slower for it.
    shared: Option<Box<SharedCharge>>,
}

impl Reservation {
    /// Takes charge of an amount that is held, or charged in the same step.
    pub(super) fn new(queue: Held<ScopeQueue>, charge: Charge) -> Self {
        Self { queue, charge, shared: None }
    }

    /// Returns the amount, as far as it counts.
    pub(super) fn amount(&self) -> Amount {
        self.charge.amount()
    }

    /// Returns whether the store has not been asked for it yet.
    pub(super) fn is_unasked(&self) -> bool {
        self.shared.is_none() && self.queue.is_shared()
    }

    /// Asks the store for the held amount.
    pub(super) fn ask(&self, now: Instant) -> Reply {
        self.queue.ask(self.queue.question(now, self.charge))
    }

    /// Takes note of the store's grant.
    pub(super) fn granted(&mut self, now: Instant, waiter: Option<WaiterId>, grant: Grant) {
        self.shared = Some(Box::new(SharedCharge::new(grant, self.charge.amount())));
        self.charge = self.queue.granted(now, waiter, self.charge, grant);
    }

    /// Gives the held amount back, because the store has refused it.
    pub(super) fn denied(self, now: Instant, waiter: Option<WaiterId>, answer: Answer) {
        self.queue.denied(now, waiter, self.charge, answer);
    }

    /// Charges the amount, because the call is sent now: its minute begins.
    pub(super) fn send(&mut self, now: Instant) {
        self.charge = self.queue.send(now, self.charge);
    }

    /// Takes note of the answer: it ends the block that the call has looked at.
    #[inline]
    pub(super) fn succeeded(&mut self) {
        if self.charge.is_look() || self.shared.is_some() {
            self.looked();
        }
    }

    #[inline(never)]
    fn looked(&mut self) {
        let is_open = self.charge.is_look() && self.queue.succeeded(self.charge);
        self.charge = self.charge.without_looks();
        let Some(shared) = &mut self.shared else { return };
        if is_open || std::mem::take(&mut shared.is_look) {
            self.queue.open();
        }
    }

    /// Refunds the amount: the upstream did not receive the call.
    pub(super) fn refund(mut self) {
        // A held amount is refunded when this is dropped.
        if self.charge.is_sent() {
            self.refund_shared();
            self.queue.refund(self.charge);
            self.charge = self.charge.without_looks();
        }
    }

    /// Leaves one request of a batch whose caller is to blame for its refusal: nobody may use up the others' quota with a
    /// batch that is never carried out.
    pub(super) fn leave_one(self) {
        if let Some(shared) = self.shared.as_deref().filter(|shared| shared.amount.requests > 1) {
            let back = Correction { requests_back: shared.amount.requests - 1, ..Correction::default() };
            self.queue.correct(shared.charge, back);
        }
        self.queue.leave_one(self.charge);
    }

    /// Refunds the amount of a call that the upstream has refused, and tells the scope.
    pub(super) fn refused(mut self, now: Instant, refusal: UpstreamRefusal) {
        let closing = self.queue.refused_for_all(now, self.charge, refusal, self.shared.as_deref());
        // It is closed before it is refunded, so that nobody looks between the two.
        if let Some(closing) = closing {
            self.queue.close(closing);
        }
        self.refund_shared();
        self.charge = self.charge.without_looks();
    }

    /// Keeps the amount until the answer's usage says the real cost.
    pub(super) fn settle_by(self, usage: Usage) -> Settlement {
        Settlement { reservation: self, usage }
    }

    /// Corrects the charge to the tokens that the call really cost.
    fn settle(&self, tokens: u64) {
        if let Some(shared) = self.shared.as_deref().filter(|shared| shared.amount.tokens != tokens) {
            self.queue.correct(shared.charge, Correction::settle(shared.amount.tokens, tokens));
        }
        self.queue.settle(self.charge, tokens);
    }

    fn refund_shared(&mut self) {
        if let Some(shared) = self.shared.take() {
            let Amount { requests, tokens } = shared.amount;
            self.queue.correct(shared.charge, Correction::refund(requests, tokens));
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.charge.is_sent() {
            self.refund_shared();
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
            self.reservation.settle(tokens);
        }
    }
}
