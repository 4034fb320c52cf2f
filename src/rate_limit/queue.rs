//! Where the calls of one scope are admitted: an account, and the queue in front of it.
//!
//! First come, first served, whatever their size. Only the first in the queue knows a time at which to ask again; whoever
//! leaves wakes the next. So a waiter is looked at when it comes, when its turn comes, and not in between. One that is
//! admitted leaves when it has been handed on, so that those behind it are not handed on before it.

use std::{collections::BTreeMap, task::Waker, time::Duration};

use tokio::time::Instant;

use super::{
    Amount,
    account::{Account, Calendar, Charge},
};
use crate::{
    quota::{Certainty, Dimension, Scope, TokenCost},
    sync::Mutex,
};

/// The account and the queue of one scope, behind one lock that is held for no longer than a decision.
#[derive(Debug)]
pub(super) struct ScopeQueue {
    scope: Scope,
    calendar: Calendar,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    account: Account,
    /// By number, in the order of arrival.
    waiting: BTreeMap<u64, Waiter>,
    next: u64,
    /// What all who wait will cost.
    ahead: Amount,
}

/// Someone in the queue.
#[derive(Debug)]
struct Waiter {
    amount: Amount,
    /// Its part of what is ahead of those behind it.
    counted: Amount,
    may_move: bool,
    /// The upstream has blocked the scope for so long, and another project can take the call.
    sent_away: Option<Instant>,
    waker: Option<Waker>,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WaiterId(u64);

/// What a call is told when it comes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Taken(Charge),
    /// It would have to wait until then, or longer.
    Later(Instant),
    /// It is proven to be larger than the limit, which is this.
    TooLarge(u64),
}

/// What a waiter is told when it asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// Set aside until it is sent. It stays first until it leaves: whoever is next must not be sent before it.
    Taken(Charge),
    /// Its turn, but not before then.
    At(Instant),
    /// Somebody else's turn.
    NotYet,
    /// Nothing to wait for here before then; elsewhere there is.
    SentAway(Instant),
}

impl ScopeQueue {
    pub(super) fn new(scope: Scope, account: Account, calendar: Calendar) -> Self {
        let state = State { account, waiting: BTreeMap::new(), next: 0, ahead: Amount::default() };
        Self { scope, calendar, state: Mutex::new(state) }
    }

    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Takes all dimensions at once, if nobody waits and there is room.
    pub(super) fn admit(&self, now: Instant, cost: TokenCost) -> Admission {
        let amount = Amount { requests: 1, tokens: cost.tokens };
        let mut state = self.state.lock();
        if cost.certainty == Certainty::AtLeast
            && let Some(limit) = state.account.full_limit(Dimension::InputTokensPerMinute)
            && cost.tokens > limit
        {
            return Admission::TooLarge(limit);
        }
        if state.waiting.is_empty()
            && let Ok(charge) = state.account.take(now, amount, self.calendar)
        {
            return Admission::Taken(charge);
        }
        let ahead = state.ahead;
        Admission::Later(state.account.turn_at(now, ahead, amount, self.calendar))
    }

    /// Joins the queue at its end.
    pub(super) fn join(&self, now: Instant, amount: Amount, may_move: bool) -> WaiterId {
        let mut state = self.state.lock();
        let id = state.next;
        state.next += 1;
        let counted = state.account.clamped(amount, now);
        state.ahead = state.ahead.plus(counted);
        state.waiting.insert(id, Waiter { amount, counted, may_move, sent_away: None, waker: None });
        WaiterId(id)
    }

    /// Asks whether it is this one's turn, and has it woken when it may be.
    pub(super) fn turn(&self, id: WaiterId, now: Instant, waker: &Waker) -> Grant {
        let mut state = self.state.lock();
        let is_first = state.waiting.first_key_value().is_some_and(|(first, _)| *first == id.0);
        let Some(waiter) = state.waiting.get_mut(&id.0) else { return Grant::NotYet };
        if let Some(until) = waiter.sent_away {
            let next = state.remove(id);
            drop(state);
            wake(next);
            return Grant::SentAway(until);
        }
        if !waiter.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            waiter.waker = Some(waker.clone());
        }
        if !is_first {
            return Grant::NotYet;
        }
        let amount = waiter.amount;
        match state.account.hold(now, amount, self.calendar) {
            Err(at) => Grant::At(at),
            Ok(charge) => {
                state.taken(id);
                Grant::Taken(charge)
            }
        }
    }

    /// What was set aside is sent now.
    pub(super) fn send(&self, now: Instant, charge: Charge) -> Charge {
        self.state.lock().account.send(now, charge, self.calendar)
    }

    /// Leaves the queue, wherever in it.
    pub(super) fn leave(&self, waiter: WaiterId) {
        let next = self.state.lock().remove(waiter);
        wake(next);
    }

    /// What was sent has really cost so many tokens.
    pub(super) fn settle(&self, charge: Charge, tokens: u64) {
        let mut state = self.state.lock();
        let first = if state.account.settle(charge, tokens) { state.first() } else { None };
        drop(state);
        wake(first);
    }

    /// What was taken was never used.
    pub(super) fn refund(&self, charge: Charge) {
        let mut state = self.state.lock();
        state.account.refund(charge);
        let first = state.first();
        drop(state);
        wake(first);
    }

    /// The upstream has refused what was taken, and does not count it. Nobody gets anything before `until`, and who can go
    /// elsewhere goes.
    pub(super) fn refused(&self, now: Instant, charge: Charge, refusal: Refusal) {
        let mut state = self.state.lock();
        state.account.catch_up(now, self.calendar);
        state.account.refund(charge);
        if let Some(dimension) = refusal.dimension {
            state.account.refused(now, dimension, refusal.named);
        }
        let until = match refusal.until {
            Until::Unsaid => now,
            Until::At(at) => at,
            Until::Midnight => state.account.midnight(),
        };
        let mut wakers = Vec::new();
        if until > now {
            state.account.block(until);
            for waiter in state.waiting.values_mut().filter(|waiter| waiter.may_move) {
                waiter.sent_away = Some(until);
                wakers.extend(waiter.waker.take());
            }
        }
        // The first one's time has changed.
        wakers.extend(state.first());
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// How long a call of this amount would wait, the queue included.
    pub(super) fn headroom(&self, now: Instant, amount: Amount) -> Duration {
        let mut state = self.state.lock();
        let ahead = state.ahead;
        state.account.turn_at(now, ahead, amount, self.calendar).saturating_duration_since(now)
    }

    /// Reads the account, up to date, and how many wait.
    pub(super) fn read<T>(&self, now: Instant, read: impl FnOnce(&Account, usize) -> T) -> T {
        let mut state = self.state.lock();
        state.account.catch_up(now, self.calendar);
        read(&state.account, state.waiting.len())
    }

    /// An account that goes on where this one stands, or as it is where there is nothing to go on from.
    pub(super) fn heir(&self, now: Instant, account: Account) -> Account {
        let mut state = self.state.lock();
        if state.account.is_forgettable(now, self.calendar) { account } else { account.after(&state.account) }
    }

    /// Whether forgetting this scope would change nothing.
    pub(super) fn is_forgettable(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        state.waiting.is_empty() && state.account.is_forgettable(now, self.calendar)
    }
}

/// What a refusal by the upstream says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    pub(super) until: Until,
    pub(super) dimension: Option<Dimension>,
    /// The limit, where it is named.
    pub(super) named: Option<u64>,
}

/// How long a scope is blocked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    Unsaid,
    At(Instant),
    Midnight,
}

impl State {
    /// Takes one out of the queue. Gives back whom to wake: the new first, if the first has left.
    fn remove(&mut self, id: WaiterId) -> Option<Waker> {
        let was_first = self.waiting.first_key_value().is_some_and(|(first, _)| *first == id.0);
        let left = self.waiting.remove(&id.0)?;
        self.ahead = self.ahead.minus(left.counted);
        if was_first { self.first() } else { None }
    }

    /// It has what it waited for: it is ahead of nobody's account any more, and need not be woken.
    fn taken(&mut self, id: WaiterId) {
        if let Some(waiter) = self.waiting.get_mut(&id.0) {
            self.ahead = self.ahead.minus(std::mem::take(&mut waiter.counted));
            waiter.waker = None;
        }
    }

    fn first(&mut self) -> Option<Waker> {
        self.waiting.first_entry().and_then(|mut first| first.get_mut().waker.take())
    }
}

/// Outside of the lock: a waker may run anything.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(gemini_loom)]
pub(crate) mod proofs;
#[cfg(test)]
mod tests;
