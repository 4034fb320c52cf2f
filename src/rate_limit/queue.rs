//! The queue of one scope, and the account that it guards.
//!
//! Calls are admitted in the order of their turns, whatever their size; [`Turns`] says which waiter is first. Only that
//! one knows a time at which to try again, and a waiter that leaves wakes the next. So a waiter is polled when it
//! arrives, when its turn comes, and not in between. A waiter that has its grant stays first until its call is with the
//! inner service, so that no later call overtakes it.
//!
//! Another waiter may become first while all sleep: one that joins is polled next, and one that has become old is found
//! and woken when the first is polled, whose timer has the time at which anything could go.

mod charges;
mod store;

use std::{collections::HashMap, sync::Arc, task::Waker, time::Duration};

use tokio::time::Instant;

pub(super) use self::store::Outlook;
use super::{
    Amount,
    account::{Account, Charge, HeldBack},
    blocks::Shut,
    turns::{PRIORITIES, Place, Turns, WaiterId},
};
use crate::{
    block::Claim,
    context::{Claimant, Priority},
    quota::{Certainty, Dimension, PacificCalendar, Question, QuotaStore, Scope, TokenCost},
    sync::Mutex,
};

/// The account and the queue of one scope, behind one lock that is held for no longer than a decision.
#[derive(Debug)]
pub(super) struct ScopeQueue {
    scope: Scope,
    calendar: PacificCalendar,
    state: Mutex<State>,
    /// The store that counts the quota for others, too.
    store: Option<Arc<dyn QuotaStore>>,
}

#[derive(Debug)]
struct State {
    account: Account,
    /// The waiters, boxed: in most scopes no call ever waits.
    line: Option<Box<Turns<Waiter>>>,
}

/// A waiter in the queue.
#[derive(Debug)]
struct Waiter {
    amount: Amount,
    may_move: bool,
    /// True if the call searches the web or maps.
    grounded: bool,
    /// True once the upstream has blocked the scope so that the waiter waits in vain.
    sent_away: bool,
    waker: Option<Waker>,
}

impl Waiter {
    /// Returns the block for which the waiter need not wait: another project can take it, or nobody waits for so long.
    fn shut_out(&self, account: &Account, now: Instant) -> Option<Shut> {
        let moves = || account.blocked_until(now).filter(|_| self.may_move);
        account.shut(now, self.grounded).or_else(|| moves().map(|at| Shut { look_at: at, ends: at, grounded: false }))
    }
}

/// The decision on a call that arrives.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum QueueAdmission {
    /// It goes at once; the amount is charged.
    Taken(Charge),
    /// The amount is held, and the store is to be asked. Where that refuses, the call has the place in the queue.
    Ask(Charge, Question, Place),
    /// It has to wait until that time at least.
    Later(Instant),
    /// It is blocked for longer than anybody waits.
    Shut(Shut),
    /// It is proven to be larger than this limit of a whole minute or day.
    TooLarge(Dimension, u64),
}

/// The decision on a waiter that is polled.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// Its amount is held until it is sent. The waiter stays first until it leaves: the next must not be sent before
    /// it.
    Taken(Charge),
    /// The amount is held, and the store is to be asked. The waiter stays first until it is answered.
    Ask(Charge, Question),
    /// It is first, and the store has refused it.
    HeldBack(HeldBack),
    /// It is first, and can be admitted at that time at the earliest.
    At(Instant),
    /// Another waiter is first.
    NotYet,
    /// The scope is blocked: another project can take the call, or nobody waits for so long.
    SentAway(Shut),
}

impl ScopeQueue {
    pub(super) fn new(scope: Scope, account: Account, calendar: PacificCalendar) -> Self {
        Self { scope, calendar, state: Mutex::new(State { account, line: None }), store: None }
    }

    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Returns whether there is a limit of input tokens.
    pub(super) fn limits_tokens(&self) -> bool {
        self.state.lock().account.limits_tokens()
    }

    /// Takes the cost in all dimensions at once, if no call waits and there is room.
    pub(super) fn admit(
        &self,
        now: Instant,
        requests: u32,
        cost: TokenCost,
        grounded: bool,
        claimant: Claimant<'_>,
    ) -> QueueAdmission {
        let amount = Amount { requests: requests.into(), tokens: cost.tokens };
        let mut state = self.state.lock();
        if let Some((dimension, limit)) = too_large(&state.account, amount, cost.certainty) {
            return QueueAdmission::TooLarge(dimension, limit);
        }
        if !state.has_waiters() {
            if self.store.is_some() {
                if let Ok((charge, question)) = state.account.hold_to_ask(now, amount, grounded, self.calendar) {
                    let place = state.line.get_or_insert_with(|| Box::new(Turns::new(now))).place(now);
                    return QueueAdmission::Ask(charge, question, place);
                }
            } else if let Ok(charge) = state.account.take(now, amount, grounded, self.calendar) {
                return QueueAdmission::Taken(charge);
            }
        }
        match state.outlook(now, amount, grounded, claimant, self.calendar) {
            Outlook::Shut(shut) => QueueAdmission::Shut(shut),
            Outlook::Later(at) => QueueAdmission::Later(at),
        }
    }

    /// Adds a waiter, whose future is polled next: behind all that have come, or at the place at which it came.
    pub(super) fn join(
        &self,
        now: Instant,
        amount: Amount,
        may_move: bool,
        grounded: bool,
        claimant: Claimant<'_>,
        place: Option<Place>,
    ) -> WaiterId {
        let mut state = self.state.lock();
        let limits = limits(&state.account, now);
        let line = state.line.get_or_insert_with(|| Box::new(Turns::new(now)));
        let waiter = Waiter { amount, may_move, grounded, sent_away: false, waker: None };
        let place = place.unwrap_or_else(|| line.place(now));
        let id = line.join_at(place, claimant, amount, limits, waiter);
        let first = line.elect(now).filter(|first| *first != id);
        let woken = state.take_waker(first);
        drop(state);
        wake(woken);
        id
    }

    /// Tries to admit a waiter. Where that fails, `waker` is woken when it may succeed, but for the time in
    /// [`Grant::At`].
    pub(super) fn poll_grant(&self, id: WaiterId, now: Instant, waker: &Waker) -> Grant {
        let mut state = self.state.lock();
        let State { account, line } = &mut *state;
        let Some(line) = line.as_deref_mut() else { return Grant::NotYet };
        let Some(waiter) = line.get_mut(id) else { return Grant::NotYet };
        if waiter.sent_away {
            if let Some(shut) = waiter.shut_out(account, now) {
                let next = state.remove(id);
                drop(state);
                wake(next);
                return Grant::SentAway(shut);
            }
            // A look has succeeded meanwhile.
            waiter.sent_away = false;
        }
        if !waiter.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            waiter.waker = Some(waker.clone());
        }
        let (amount, grounded) = (waiter.amount, waiter.grounded);
        let elected = line.elect_by_age(now);
        if line.first() != Some(id) {
            let first = state.take_waker(elected);
            drop(state);
            wake(first);
            return Grant::NotYet;
        }
        if self.store.is_some() {
            if line.is_pinned(id) {
                return Grant::NotYet;
            }
            return match account.hold_to_ask(now, amount, grounded, self.calendar) {
                Ok((charge, question)) => {
                    line.pin();
                    Grant::Ask(charge, question)
                }
                Err(held_back) => Grant::HeldBack(held_back),
            };
        }
        match account.hold(now, amount, grounded, self.calendar) {
            Err(at) => Grant::At(at),
            Ok(charge) => {
                // It counts in the account from now on, and need not be woken.
                line.grant(limits(account, now));
                Grant::Taken(charge)
            }
        }
    }

    /// Takes a waiter out of the queue, and wakes the next if it was first.
    pub(super) fn leave(&self, waiter: WaiterId) {
        let next = self.state.lock().remove(waiter);
        wake(next);
    }

    /// Returns how long a call of this amount would wait, the part of the queue included that goes before it.
    pub(super) fn headroom(&self, now: Instant, amount: Amount, claimant: Claimant<'_>) -> Duration {
        let mut state = self.state.lock();
        let ahead = state.ahead_of(now, claimant, amount);
        state.account.turn_at(now, ahead, amount, false, self.calendar).saturating_duration_since(now)
    }

    /// Reads the account, brought up to date, and the number of waiters.
    pub(super) fn read<T>(&self, now: Instant, read: impl FnOnce(&Account, usize) -> T) -> T {
        let mut state = self.state.lock();
        state.account.catch_up(now, self.calendar);
        read(&state.account, state.line.as_deref().map_or(0, Turns::len))
    }

    /// Changes the account of a queue in which nobody waits yet.
    pub(super) fn change(&self, change: impl FnOnce(&mut Account)) {
        let mut state = self.state.lock();
        change(&mut state.account);
        let first = state.take_first_waker();
        drop(state);
        wake(first);
    }

    /// Adds the calls that wait to the numbers of each caller and priority.
    pub(super) fn count_waiting(&self, calls: &mut HashMap<(Option<Arc<str>>, Priority), usize>) {
        let state = self.state.lock();
        for (priority, caller) in state.line.iter().flat_map(|line| line.waiters()) {
            *calls.entry((caller.cloned(), priority)).or_insert(0) += 1;
        }
    }

    /// Returns the number of waiters of each priority that have no grant yet.
    pub(super) fn waiting_by_priority(&self) -> [usize; PRIORITIES] {
        self.state.lock().line.as_deref().map_or_else(Default::default, Turns::by_priority)
    }

    /// Continues this queue's usage in a new account; returns that unchanged where there is no usage to continue.
    pub(super) fn continue_in(&self, now: Instant, account: Account) -> Account {
        let mut state = self.state.lock();
        if state.account.is_forgettable(now, self.calendar) { account } else { account.continuing(&state.account) }
    }

    /// Returns whether forgetting this scope changes no decision.
    pub(super) fn is_forgettable(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        !state.has_waiters() && state.account.is_forgettable(now, self.calendar)
    }
}

/// A refusal by the upstream, as far as the account needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct UpstreamRefusal {
    /// The claim that it makes; `None`: the scope is not blocked.
    pub(super) claim: Option<Claim>,
    /// True if it is about calls that search the web or maps only.
    pub(super) grounded: bool,
    /// The exhausted dimension, where the refusal names one.
    pub(super) dimension: Option<Dimension>,
    /// The limit, where the refusal names one.
    pub(super) named: Option<u64>,
}

impl State {
    #[inline]
    fn has_waiters(&self) -> bool {
        self.line.as_deref().is_some_and(|line| !line.is_empty())
    }

    /// Returns the amount that all waiters together will be charged.
    #[cfg(any(test, gemini_loom))]
    fn ahead(&self) -> Amount {
        self.line.as_deref().map_or(Amount::default(), Turns::amount)
    }

    /// Estimates the amount that will go before a new call.
    fn ahead_of(&self, now: Instant, claimant: Claimant<'_>, amount: Amount) -> Amount {
        let limits = limits(&self.account, now);
        self.line.as_deref().map_or(Amount::default(), |line| line.ahead_of(now, claimant, amount.min(limits), limits))
    }

    /// Returns the time that a new call which does not go now would wait.
    fn outlook(
        &mut self,
        now: Instant,
        amount: Amount,
        grounded: bool,
        claimant: Claimant<'_>,
        calendar: PacificCalendar,
    ) -> Outlook {
        if let Some(shut) = self.account.shut(now, grounded) {
            return Outlook::Shut(shut);
        }
        let ahead = self.ahead_of(now, claimant, amount);
        Outlook::Later(self.account.turn_at(now, ahead, amount, grounded, calendar))
    }

    /// Takes a waiter out of the queue. Returns the waker of the new first waiter, if the first has left.
    fn remove(&mut self, id: WaiterId) -> Option<Waker> {
        let line = self.line.as_deref_mut()?;
        line.remove(id);
        let first = line.elect_again();
        self.take_waker(first)
    }

    /// Does the same after this limiter has given something back, which the store may know to be room for the first.
    fn take_first_waker_of_room(&mut self, is_shared: bool) -> Option<Waker> {
        if is_shared {
            self.account.gave_back(Instant::now());
        }
        self.take_first_waker()
    }

    fn take_first_waker(&mut self) -> Option<Waker> {
        let first = self.line.as_deref()?.first();
        self.take_waker(first)
    }

    fn take_waker(&mut self, waiter: Option<WaiterId>) -> Option<Waker> {
        self.line.as_deref_mut()?.get_mut(waiter?)?.waker.take()
    }
}

/// Returns the limits of a minute that are in force.
fn limits(account: &Account, now: Instant) -> Amount {
    account.clamped(Amount { requests: u64::MAX, tokens: u64::MAX }, now)
}

/// Returns the limit that a call alone exceeds, so that it could never be admitted. A limit that is only lowered for a
/// while is none.
#[inline]
fn too_large(account: &Account, amount: Amount, certainty: Certainty) -> Option<(Dimension, u64)> {
    let exceeds =
        |dimension, of| account.full_limit(dimension).filter(|limit| of > *limit).map(|limit| (dimension, limit));
    let tokens = (certainty == Certainty::AtLeast).then_some(amount.tokens);
    let batch = Some(amount.requests).filter(|requests| *requests > 1);
    tokens
        .and_then(|tokens| exceeds(Dimension::InputTokensPerMinute, tokens))
        .or_else(|| exceeds(Dimension::RequestsPerMinute, batch?))
        .or_else(|| exceeds(Dimension::RequestsPerDay, batch?))
}

/// Wakes outside of the lock, because a waker may run any code.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(gemini_loom)]
pub(crate) mod proofs;
#[cfg(test)]
mod tests;
