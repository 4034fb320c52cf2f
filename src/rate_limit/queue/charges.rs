//! The charges of calls that were admitted: sent, corrected, given back, and what their answers show.

use tokio::time::Instant;

#[cfg(any(test, gemini_loom))]
use super::UpstreamRefusal;
use super::{ScopeQueue, wake};
use crate::rate_limit::account::Charge;

impl ScopeQueue {
    /// Charges a held amount, because its call is sent now.
    pub(in crate::rate_limit) fn send(&self, now: Instant, charge: Charge) -> Charge {
        self.state.lock().account.send(now, charge, self.calendar)
    }

    /// Corrects a sent charge to the `tokens` that the call really cost.
    pub(in crate::rate_limit) fn settle(&self, charge: Charge, tokens: u64) {
        let mut state = self.state.lock();
        let makes_room = state.account.settle(charge, tokens);
        let first = if makes_room { state.take_first_waker_of_room(self.store.is_some()) } else { None };
        drop(state);
        wake(first);
    }

    /// Leaves one request of a batch that the upstream has refused as a whole.
    pub(in crate::rate_limit) fn leave_one(&self, charge: Charge) {
        let mut state = self.state.lock();
        let makes_room = state.account.leave_one(charge);
        let first = if makes_room { state.take_first_waker_of_room(self.store.is_some()) } else { None };
        drop(state);
        wake(first);
    }

    /// Refunds an amount that was never used.
    pub(in crate::rate_limit) fn refund(&self, charge: Charge) {
        let mut state = self.state.lock();
        state.account.refund(charge);
        let first = state.take_first_waker_of_room(self.store.is_some() && charge.is_sent());
        drop(state);
        wake(first);
    }

    /// Does what [`refused_for_all`](Self::refused_for_all) does where no other shares the quota.
    #[cfg(any(test, gemini_loom))]
    pub(in crate::rate_limit) fn refused(&self, now: Instant, charge: Charge, refusal: UpstreamRefusal) {
        self.refused_for_all(now, charge, refusal, None);
    }

    /// Ends the looks of a call that have shown nothing: the next call may look.
    pub(in crate::rate_limit) fn end_looks(&self, charge: Charge) {
        let mut state = self.state.lock();
        state.account.end_looks(charge);
        let first = state.take_first_waker();
        drop(state);
        wake(first);
    }

    /// Takes note of the answer to a call that has looked at a block, and ends the block. Returns whether all calls may
    /// pass for it.
    pub(in crate::rate_limit) fn succeeded(&self, charge: Charge) -> bool {
        let mut state = self.state.lock();
        let is_open = state.account.succeeded(charge, Instant::now());
        let first = if is_open { state.take_first_waker() } else { None };
        drop(state);
        wake(first);
        is_open && charge.looks_for_all()
    }

    /// Forgets the upstream's blocks.
    pub(in crate::rate_limit) fn lift(&self) {
        let mut state = self.state.lock();
        state.account.lift();
        let first = state.take_first_waker();
        drop(state);
        wake(first);
    }
}
