//! Where the calls of one scope are admitted: an account, and the queue in front of it.
//!
//! First come, first served, whatever their size. Only the first in the queue knows a time at which to ask again; whoever
//! is admitted, or leaves, wakes the next. So a waiter is looked at when it comes, when its turn comes, and not in between.

use std::{collections::BTreeMap, task::Waker, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    Amount,
    account::{Account, Answer, Calendar, Receipt},
};
use crate::quota::Dimension;

/// The account and the queue of one scope, behind one lock that is held for no longer than a decision.
#[derive(Debug)]
pub(super) struct Desk {
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

/// Someone in the queue: about 100 bytes.
#[derive(Debug)]
struct Waiter {
    amount: Amount,
    may_move: bool,
    /// The upstream has blocked the scope for so long, and another project can take the call.
    sent_away: Option<Instant>,
    waker: Option<Waker>,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// What a call is told when it comes.
#[derive(Debug)]
pub(super) enum Admission {
    Taken(Receipt),
    /// It would have to wait until about then.
    Later(Instant),
}

/// What a waiter is told when it asks.
#[derive(Debug)]
pub(super) enum Turn {
    Taken(Receipt),
    /// Its turn, but not before then.
    At(Instant),
    /// Somebody else's turn.
    NotYet,
    /// Nothing to wait for here before then; elsewhere there is.
    SentAway(Instant),
}

impl Desk {
    pub(super) fn new(account: Account, calendar: Calendar) -> Self {
        let state = State { account, waiting: BTreeMap::new(), next: 0, ahead: Amount::default() };
        Self { calendar, state: Mutex::new(state) }
    }

    /// Takes all dimensions at once, if nobody waits and there is room.
    pub(super) fn admit(&self, now: Instant, amount: Amount) -> Admission {
        let mut state = self.state.lock();
        if state.waiting.is_empty()
            && let Answer::Taken(receipt) = state.account.take(now, amount, self.calendar)
        {
            return Admission::Taken(receipt);
        }
        let ahead = state.ahead;
        Admission::Later(state.account.turn_at(now, ahead, amount, self.calendar))
    }

    /// Joins the queue at its end.
    pub(super) fn join(&self, amount: Amount, may_move: bool) -> Ticket {
        let mut state = self.state.lock();
        let ticket = state.next;
        state.next += 1;
        state.ahead = state.ahead.plus(amount);
        state.waiting.insert(ticket, Waiter { amount, may_move, sent_away: None, waker: None });
        Ticket(ticket)
    }

    /// Asks whether it is this one's turn, and has it woken when it may be.
    pub(super) fn turn(&self, ticket: Ticket, now: Instant, waker: &Waker) -> Turn {
        let mut state = self.state.lock();
        let is_first = state.waiting.first_key_value().is_some_and(|(first, _)| *first == ticket.0);
        let Some(waiter) = state.waiting.get_mut(&ticket.0) else { return Turn::NotYet };
        if let Some(until) = waiter.sent_away {
            let next = state.remove(ticket);
            drop(state);
            wake(next);
            return Turn::SentAway(until);
        }
        if !waiter.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            waiter.waker = Some(waker.clone());
        }
        if !is_first {
            return Turn::NotYet;
        }
        let amount = waiter.amount;
        match state.account.take(now, amount, self.calendar) {
            Answer::Later(at) => Turn::At(at),
            Answer::Taken(receipt) => {
                let next = state.remove(ticket);
                drop(state);
                wake(next);
                Turn::Taken(receipt)
            }
        }
    }

    /// Leaves the queue, wherever in it.
    pub(super) fn leave(&self, ticket: Ticket) {
        let next = self.state.lock().remove(ticket);
        wake(next);
    }

    /// What was taken has really cost so many tokens.
    pub(super) fn settle(&self, receipt: Receipt, tokens: u64) {
        let mut state = self.state.lock();
        state.account.settle(receipt, tokens);
        let first = state.first();
        drop(state);
        wake(first);
    }

    /// What was taken was never used.
    pub(super) fn refund(&self, receipt: Receipt) {
        let mut state = self.state.lock();
        state.account.refund(receipt);
        let first = state.first();
        drop(state);
        wake(first);
    }

    /// What was taken is sent only now.
    pub(super) fn restamp(&self, now: Instant, receipt: Receipt) -> Receipt {
        self.state.lock().account.restamp(now, receipt)
    }

    /// The upstream has refused: nobody gets anything before `until`, and who can go elsewhere goes.
    pub(super) fn refused(&self, now: Instant, until: Until, dimension: Option<Dimension>, named: Option<u64>) {
        let mut state = self.state.lock();
        state.account.catch_up(now, self.calendar);
        if let Some(dimension) = dimension {
            state.account.refused(now, dimension, named);
        }
        let until = match until {
            Until::Unsaid => now,
            Until::At(at) => at,
            Until::Midnight => state.account.midnight(),
        };
        if until <= now {
            return;
        }
        state.account.block(until);
        let mut wakers = Vec::new();
        for waiter in state.waiting.values_mut().filter(|waiter| waiter.may_move) {
            waiter.sent_away = Some(until);
            wakers.extend(waiter.waker.take());
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

    /// Whether forgetting this scope would change nothing.
    pub(super) fn is_forgettable(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        state.waiting.is_empty() && state.account.is_forgettable(now, self.calendar)
    }
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
    fn remove(&mut self, ticket: Ticket) -> Option<Waker> {
        let was_first = self.waiting.first_key_value().is_some_and(|(first, _)| *first == ticket.0);
        let left = self.waiting.remove(&ticket.0)?;
        self.ahead = self.ahead.minus(left.amount);
        if was_first { self.first() } else { None }
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
