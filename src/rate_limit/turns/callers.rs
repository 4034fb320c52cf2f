//! Fair turns between callers: start-time fair queueing, which is the Virtual Token Counter of a server that serves one
//! call at a time.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    CallerName,
    level::{COUNTED, cost, due_before},
};
use crate::rate_limit::Amount;

/// The most callers that are remembered without a waiter, because they are ahead of those that wait.
const MAX_IDLE: usize = 1_024;

/// The most callers that are looked at for an estimate.
const LOOKED_AT: usize = 64;

/// The most callers after those that are counted for it.
const LOOKED_PAST: usize = 1_024;

/// The callers with waiters, by the service that they have been given.
///
/// Each has a start tag, the service at which its next call begins; a turn adds the call's cost to it, and goes to the
/// caller with the least. A caller that comes, or comes back, begins at the tag of the last turn given: it has nothing
/// saved up, and pays for what it was ahead. So the service of two callers that both have waiters never differs by more
/// than twice the largest call, whatever others do. Ties go to the caller that has waited for a turn the longest.
#[derive(Debug, Default)]
pub(super) struct CallerTurns {
    /// The start tag of the last turn given.
    reached: u64,
    /// The number of turns given.
    given: u64,
    callers: HashMap<CallerName, CallerQueue>,
    order: BTreeSet<Tag>,
    /// The callers without waiters, by their start tags, which are ahead.
    idle: BTreeSet<(u64, CallerName)>,
}

/// The waiters of a caller.
#[derive(Debug, Default)]
struct CallerQueue {
    start: u64,
    /// The number of its last turn; zero where it has had none.
    last: u64,
    /// The waiter with which its current queue began.
    came: u64,
    /// The waiters, by the time at which they should have gone, and by arrival.
    waiting: BTreeSet<(u32, u64)>,
    amount: Amount,
}

/// A caller's place in the order.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tag {
    start: u64,
    last: u64,
    came: u64,
    caller: CallerName,
}

impl CallerQueue {
    fn tag(&self, caller: &CallerName) -> Tag {
        Tag { start: self.start, last: self.last, came: self.came, caller: caller.clone() }
    }
}

impl CallerTurns {
    /// Adds a waiter of a caller.
    pub(super) fn join(&mut self, caller: &CallerName, waiter: (u32, u64), counted: Amount, limits: Amount) {
        if !self.callers.contains_key(caller) {
            self.charge_the_only_one(limits);
            self.callers.insert(caller.clone(), CallerQueue::default());
        }
        let Some(queue) = self.callers.get_mut(caller) else { return };
        if queue.waiting.is_empty() {
            if !self.idle.is_empty() {
                self.idle.remove(&(queue.start, caller.clone()));
            }
            (queue.start, queue.came) = (queue.start.max(self.reached), waiter.1);
            self.order.insert(queue.tag(caller));
        }
        queue.waiting.insert(waiter);
        queue.amount = queue.amount.plus(counted);
    }

    /// Charges the caller that has been alone so far for one of its calls, if it has several. It has used the quota up
    /// that all wait for, so that the turn is not its again, even if none of its calls has had to queue.
    fn charge_the_only_one(&mut self, limits: Amount) {
        if self.given == 0
            && let Some(caller) = self.order.first().filter(|_| self.order.len() == 1).map(|tag| tag.caller.clone())
            && let Some(queue) = self.callers.get(&caller).filter(|queue| queue.waiting.len() > 1)
        {
            let lead = cost(queue.amount, limits) / queue.waiting.len() as u64;
            self.lead(&caller, lead.max(1));
        }
    }

    /// Sets what the only caller is ahead of those that come.
    pub(super) fn lead(&mut self, caller: &CallerName, lead: u64) {
        let Some(queue) = self.callers.get_mut(caller).filter(|_| lead > 0) else { return };
        self.order.remove(&queue.tag(caller));
        self.given = 1;
        (queue.start, queue.last) = (lead, self.given);
        self.order.insert(queue.tag(caller));
    }

    /// Returns the waiter that has the next turn.
    pub(super) fn first(&self) -> Option<u64> {
        let queue = self.callers.get(&self.order.first()?.caller)?;
        queue.waiting.first().map(|(_, id)| *id)
    }

    /// Takes a waiter out that has got its turn, and charges its caller.
    pub(super) fn granted(&mut self, caller: &CallerName, waiter: (u32, u64), counted: Amount, cost: u64) {
        let Some(queue) = self.callers.get_mut(caller) else { return };
        self.order.remove(&queue.tag(caller));
        self.reached = self.reached.max(queue.start);
        self.given += 1;
        (queue.start, queue.last) = (queue.start.saturating_add(cost), self.given);
        self.order.insert(queue.tag(caller));
        self.leave(caller, waiter, counted);
        self.forget();
    }

    /// Takes a waiter out that has left without a turn.
    pub(super) fn leave(&mut self, caller: &CallerName, waiter: (u32, u64), counted: Amount) {
        let Some(queue) = self.callers.get_mut(caller) else { return };
        queue.waiting.remove(&waiter);
        queue.amount = queue.amount.minus(counted);
        if queue.waiting.is_empty() {
            self.order.remove(&queue.tag(caller));
            self.idle.insert((queue.start, caller.clone()));
            self.forget();
        }
    }

    /// Forgets the callers without waiters that are not ahead any more, and beyond the bound those that are the least
    /// ahead.
    fn forget(&mut self) {
        while let Some((start, _)) = self.idle.first()
            && (*start <= self.reached || self.idle.len() > MAX_IDLE)
        {
            if let Some((_, caller)) = self.idle.pop_first() {
                self.callers.remove(&caller);
            }
        }
    }

    /// Estimates the amount that goes before a new call of that caller: its own waiters that are due no later, and what the
    /// others are given until they are ahead of it. Where there are too many of them to look at, the rest is taken to be
    /// given as much as those that were.
    pub(super) fn ahead_of(&self, caller: Option<&Arc<str>>, due: u32, limits: Amount) -> Amount {
        let caller = caller.cloned();
        let own = self.callers.get(&caller);
        let ahead = own.map_or(Amount::default(), |own| own.amount.share(own.due_before(due), own.waiting.len()));
        let begins = own.map_or(self.reached, |own| own.start.max(self.reached));
        let turn = if ahead == Amount::default() { begins } else { begins.saturating_add(cost(ahead, limits)) };
        let mut before = self.order.iter().take_while(|tag| tag.start <= turn);
        let looked_at = before.by_ref().take(LOOKED_AT).filter(|tag| tag.caller != caller);
        let given = looked_at.filter_map(|tag| Some(self.callers.get(&tag.caller)?.given_until(turn, limits)));
        let (others, given) = given.fold((0, Amount::default()), |(count, sum), one| (count + 1, sum.plus(one)));
        let rest = match before.take(LOOKED_PAST).count() {
            LOOKED_PAST => self.order.len() - LOOKED_AT,
            rest => rest,
        };
        ahead.plus(given).plus(given.share(rest, others))
    }
}

impl CallerQueue {
    /// Estimates the number of its waiters that are due no later than in that second.
    fn due_before(&self, due: u32) -> usize {
        let (Some(first), Some(last)) = (self.waiting.first(), self.waiting.last()) else { return 0 };
        let split = (due, u64::MAX);
        let later = || self.waiting.range(split..).take(COUNTED).count();
        let sooner = || self.waiting.range(..split).take(COUNTED).count();
        due_before(due, self.waiting.len(), (first.0, last.0), later, sooner)
    }

    /// Estimates the amount that it is given until its start tag has passed `turn`: at least one call.
    fn given_until(&self, turn: u64, limits: Amount) -> Amount {
        let calls = self.waiting.len().max(1) as u64;
        let part = turn.saturating_sub(self.start);
        let whole = cost(self.amount, limits);
        let of = |amount: u64| {
            let part = u128::from(amount) * u128::from(part) / u128::from(whole);
            u64::try_from(part).unwrap_or(u64::MAX).saturating_add(amount.div_ceil(calls)).min(amount)
        };
        Amount { requests: of(self.amount.requests), tokens: of(self.amount.tokens) }
    }
}

#[cfg(test)]
impl CallerTurns {
    /// Returns the number of callers that are remembered.
    pub(super) fn remembered(&self) -> usize {
        assert_eq!(self.callers.len(), self.order.len() + self.idle.len());
        self.callers.len()
    }
}
