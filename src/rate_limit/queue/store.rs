//! The questions of a queue to the store that counts its quota for others, too.
//!
//! A waiter that the account would admit asks the store, and stays first until it is answered. Its caller is charged for
//! the turn once it is granted, and only then.

use std::{sync::Arc, task::Waker};

use tokio::time::Instant;

use super::{ScopeQueue, State, UpstreamRefusal, Waiter, limits, wake};
use crate::{
    context::Claimant,
    quota::{Answer, Closing, Correction, Grant, Question, QuotaStore, Reply, StoreCharge},
    rate_limit::{
        Amount,
        account::{Charge, SharedCharge},
        blocks::Shut,
        turns::{Turns, WaiterId},
    },
};

/// The decision on a call that the store does not let go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rate_limit) enum Outlook {
    /// It has to wait until that time at least.
    Later(Instant),
    /// It is blocked for longer than anybody waits.
    Shut(Shut),
}

impl ScopeQueue {
    /// Has the store asked for each call that the account would admit.
    pub(in crate::rate_limit) fn with_store(self, store: Option<Arc<dyn QuotaStore>>) -> Self {
        if store.is_some() {
            self.state.lock().account.share();
        }
        Self { store, ..self }
    }

    /// Asks the store for an amount that is held.
    pub(in crate::rate_limit) fn ask(&self, question: Question) -> Reply {
        match &self.store {
            Some(store) => store.take(&self.scope, question),
            // Nobody asks without a store.
            None => Reply::Now(Answer::Closed(Closing::of(std::time::Duration::ZERO))),
        }
    }

    /// Returns whether a store counts the quota, too.
    pub(in crate::rate_limit) fn is_shared(&self) -> bool {
        self.store.is_some()
    }

    /// Returns the question for an amount that is held.
    pub(in crate::rate_limit) fn question(&self, now: Instant, charge: Charge) -> Question {
        self.state.lock().account.question(now, charge)
    }

    /// Takes a waiter out that has a turn, and asks once the inner service is ready for it. Wakes the next.
    pub(in crate::rate_limit) fn leave_for_readiness(&self, waiter: WaiterId) {
        let mut state = self.state.lock();
        let State { account, line } = &mut *state;
        if let Some(line) = line.as_deref_mut() {
            debug_assert_eq!(line.first(), Some(waiter), "it has its turn");
            line.grant(limits(account, Instant::now()));
        }
        let next = state.remove(waiter);
        drop(state);
        wake(next);
    }

    /// Corrects a charge in the store.
    pub(in crate::rate_limit) fn correct(&self, charge: StoreCharge, by: Correction) {
        if let Some(store) = &self.store {
            store.correct(&self.scope, charge, by);
        }
    }

    /// Closes the scope for all who ask the store.
    pub(in crate::rate_limit) fn close(&self, closing: Closing) {
        if let Some(store) = &self.store {
            store.close(&self.scope, closing);
        }
    }

    /// Opens the scope for all who ask the store.
    pub(in crate::rate_limit) fn open(&self) {
        if let Some(store) = &self.store {
            store.open(&self.scope);
        }
    }

    /// Takes note of the store's grant for a held amount: of a waiter, whose caller is charged for the turn, or of a call
    /// that has not queued. Returns the charge, which may look now.
    pub(in crate::rate_limit) fn granted(
        &self,
        now: Instant,
        waiter: Option<WaiterId>,
        charge: Charge,
        grant: Grant,
    ) -> Charge {
        let mut state = self.state.lock();
        let State { account, line } = &mut *state;
        let charge = account.granted(now, charge, grant);
        if let (Some(_), Some(line)) = (waiter, line.as_deref_mut()) {
            debug_assert_eq!(line.first(), waiter, "it is first while it asks");
            line.grant(limits(account, now));
        }
        charge
    }

    /// Takes note of the store's refusal of a held amount, and elects the first waiter again. Waiters that need not wait
    /// for a closed scope are sent away.
    pub(in crate::rate_limit) fn denied(&self, now: Instant, waiter: Option<WaiterId>, charge: Charge, answer: Answer) {
        let mut state = self.state.lock();
        let State { account, line } = &mut *state;
        let is_news = account.denied(now, charge, answer);
        let mut wakers = Vec::new();
        if let Some(line) = line.as_deref_mut() {
            let elected = waiter.and_then(|waiter| {
                line.unpin(waiter);
                line.elect(now)
            });
            if is_news {
                wakers = send_away(account, line, now);
            }
            // The time of the first waiter has changed.
            let first = if waiter.is_some() { elected } else { line.first() };
            wakers.extend(state.take_waker(first));
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Returns the time that a call which the store has just refused would wait.
    pub(in crate::rate_limit) fn outlook(
        &self,
        now: Instant,
        amount: Amount,
        grounded: bool,
        claimant: Claimant<'_>,
    ) -> Outlook {
        self.state.lock().outlook(now, amount, grounded, claimant, self.calendar)
    }

    /// Refunds a charge that the upstream has refused and so does not count, learns from the refusal, and blocks the
    /// scope as it claims. Waiters that another project can take are sent away, and so are all that would wait for longer
    /// than anybody does.
    ///
    /// If the call is charged in the store as well, the usage of all decides on the limit. Returns the closing that all
    /// others should believe in.
    pub(in crate::rate_limit) fn refused_for_all(
        &self,
        now: Instant,
        charge: Charge,
        refusal: UpstreamRefusal,
        shared: Option<&SharedCharge>,
    ) -> Option<Closing> {
        let mut state = self.state.lock();
        state.account.catch_up(now, self.calendar);
        state.account.refund(charge);
        if let Some(dimension) = refusal.dimension {
            state.account.refused(now, dimension, refusal.named, shared);
        }
        let mut wakers = Vec::new();
        let mut closing = None;
        if let Some(claim) = refusal.claim {
            let agrees = state.account.agrees(refusal.dimension, refusal.named, shared);
            state.account.block(if agrees { claim.confirmed() } else { claim }, refusal.grounded, now);
            if !refusal.grounded && self.store.is_some() {
                closing = state.account.tell_closing(now);
            }
            let State { account, line } = &mut *state;
            wakers = line.as_deref_mut().map(|line| send_away(account, line, now)).unwrap_or_default();
        }
        // The time of the first waiter has changed.
        wakers.extend(state.take_first_waker());
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        closing
    }
}

/// Marks the waiters that need not wait any more, and returns their wakers.
fn send_away(account: &crate::rate_limit::account::Account, line: &mut Turns<Waiter>, now: Instant) -> Vec<Waker> {
    let mut wakers = Vec::new();
    for waiter in line.iter_mut() {
        waiter.sent_away = waiter.shut_out(account, now).is_some();
        if waiter.sent_away {
            wakers.extend(waiter.waker.take());
        }
    }
    wakers
}
