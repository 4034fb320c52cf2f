//! The order of a queue: the waiter that has the next turn. Pure: it knows no lock and no waker, and is told the time.
//!
//! # Priorities
//!
//! The most urgent priority that waits has the turn. A less urgent one takes part once its oldest waiter has waited for
//! [`PATIENCE`] for each level between the two: from then on they share, by weights of 4, 2 and 1. So nothing starves,
//! and nothing that is urgent has to wait for a whole backlog. A waiter does not rise itself: if it did, the old ones of a
//! caller with a long backlog would go before the fresh ones of all other callers of its own priority.
//!
//! # Callers
//!
//! Within a priority, the turn goes to the caller that has been given least. See [`CallerTurns`].
//!
//! # Calls
//!
//! A caller's calls go by their deadline, or [`HORIZON`] after their arrival where that is earlier or no deadline is
//! known; those of the same second, by arrival. Callers whose clocks are all equal see the order of arrival.
//!
//! # Costs
//!
//! While all waiters of a priority are of one caller and arrive in the order of their turns, they are in one map and
//! nothing else is kept. The indices by caller are made when the first other one comes, and dropped when the priority has
//! no waiters. An election costs O(log n), as do a waiter's coming and going.

mod callers;
mod level;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use self::level::{Level, Turn, cost};
use super::Amount;
use crate::{
    bounded::MAX_NAME,
    context::{Claimant, Priority},
};

/// The time after which a waiting priority takes part in the turns of the one above it.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The time from its arrival within which a call is expected to go, where it has no earlier deadline.
pub(super) const HORIZON: Duration = Duration::from_secs(285);

/// The number of priorities.
pub(super) const PRIORITIES: usize = 3;

/// The waiters of a queue, in the order of their turns.
#[derive(Debug)]
pub(super) struct Turns<W> {
    levels: [Level<W>; PRIORITIES],
    /// The start tag of the priority that had the last turn.
    reached: u64,
    next: u64,
    /// The waiter that has its grant and has not left.
    holder: Option<WaiterId>,
    /// The waiter that has the next turn, as last elected.
    first: Option<WaiterId>,
    /// The waiter that is first until it knows whether it has its grant.
    pinned: Option<WaiterId>,
    /// The latest time that was told.
    now: Instant,
    began: Instant,
}

/// The name of a caller. Calls without one are those of one caller.
type CallerName = Option<Arc<str>>;

/// A place in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    id: u64,
    since: Instant,
}

/// The identity of a waiter in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WaiterId(pub(super) u64, Priority);

impl WaiterId {
    /// Returns the place of a waiter that has waited since then, for a call that has left and may join again.
    pub(super) fn place(self, since: Instant) -> Place {
        Place { id: self.0, since }
    }
}

impl<W> Turns<W> {
    pub(super) fn new(now: Instant) -> Self {
        let level = || Level { waiting: BTreeMap::new(), amount: Amount::default(), start: 0, lead: 0, callers: None };
        let levels = [level(), level(), level()];
        Self { levels, reached: 0, next: 0, holder: None, first: None, pinned: None, now, began: now }
    }

    /// Returns the number of waiters, that with a grant included.
    pub(super) fn len(&self) -> usize {
        self.levels.iter().map(|level| level.waiting.len()).sum::<usize>() + usize::from(self.holder.is_some())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.holder.is_none() && self.levels.iter().all(|level| level.waiting.is_empty())
    }

    /// Returns the priority and the caller of each waiter, that with a grant left out.
    pub(super) fn waiters(&self) -> impl Iterator<Item = (Priority, Option<&Arc<str>>)> {
        let priorities = [Priority::Interactive, Priority::Normal, Priority::Batch];
        let of = |(priority, level)| {
            let level: &Level<W> = level;
            level.waiting.values().map(move |turn| (priority, turn.caller.as_ref()))
        };
        priorities.into_iter().zip(&self.levels).flat_map(of)
    }

    /// Returns the number of waiters of each priority, that with a grant left out.
    pub(super) fn by_priority(&self) -> [usize; PRIORITIES] {
        [0, 1, 2].map(|at: usize| self.levels[at].waiting.len())
    }

    /// Returns the amount that all waiters count together.
    #[cfg(any(test, gemini_loom))]
    pub(super) fn amount(&self) -> Amount {
        self.levels.iter().fold(Amount::default(), |sum, level| sum.plus(level.amount))
    }

    pub(super) fn get_mut(&mut self, id: WaiterId) -> Option<&mut W> {
        self.levels[id.1 as usize].waiting.get_mut(&id.0).map(|turn| &mut turn.waiter)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut W> {
        self.levels.iter_mut().flat_map(|level| level.waiting.values_mut().map(|turn| &mut turn.waiter))
    }

    /// Adds a waiter. While it waits, it counts as this amount, and as no more than these limits.
    #[cfg(test)]
    pub(super) fn join(
        &mut self,
        now: Instant,
        claimant: Claimant<'_>,
        amount: Amount,
        limits: Amount,
        waiter: W,
    ) -> WaiterId {
        let place = self.place(now);
        self.join_at(place, claimant, amount, limits, waiter)
    }

    /// Takes the next place in the order of arrival, for a call that may join later.
    pub(super) fn place(&mut self, now: Instant) -> Place {
        self.now = self.now.max(now);
        self.next += 1;
        Place { id: self.next - 1, since: self.now }
    }

    /// Adds a waiter at a place that was taken when it came.
    pub(super) fn join_at(
        &mut self,
        Place { id, since }: Place,
        claimant: Claimant<'_>,
        amount: Amount,
        limits: Amount,
        waiter: W,
    ) -> WaiterId {
        // A longer name is not worth its memory.
        let caller = claimant.caller.filter(|name| name.len() <= MAX_NAME);
        let due = self.due(claimant, since);
        let turn = Turn { caller: caller.cloned(), since, due, counted: amount.min(limits), waiter };
        let level = &mut self.levels[claimant.priority as usize];
        if level.waiting.is_empty() {
            level.start = level.start.max(self.reached);
        }
        level.join(id, turn, limits);
        WaiterId(id, claimant.priority)
    }

    /// Returns the second by which a call that comes now should go.
    fn due(&self, claimant: Claimant<'_>, now: Instant) -> u32 {
        let horizon = now + HORIZON;
        let due = claimant.deadline.map_or(horizon, |deadline| deadline.min(horizon));
        u32::try_from(due.saturating_duration_since(self.began).as_secs()).unwrap_or(u32::MAX)
    }

    /// Returns the size of a waiter in bytes.
    #[cfg(test)]
    pub(super) const fn size_of_waiter() -> usize {
        size_of::<Turn<W>>()
    }

    /// Returns the numbers of the waiters without a grant.
    #[cfg(test)]
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.levels.iter().flat_map(|level| level.waiting.keys().copied())
    }

    /// Returns the waiter that has the next turn, as last elected: the one with a grant, until it leaves.
    pub(super) fn first(&self) -> Option<WaiterId> {
        self.first
    }

    /// Elects the waiter that has the next turn. Returns it if it is another than before.
    pub(super) fn elect(&mut self, now: Instant) -> Option<WaiterId> {
        self.now = self.now.max(now);
        self.elect_again()
    }

    /// Elects as [`elect`](Self::elect) does, at the latest time that was told.
    pub(super) fn elect_again(&mut self) -> Option<WaiterId> {
        let first = self.holder.or(self.pinned).or_else(|| self.elected());
        let is_new = first != self.first;
        self.first = first;
        first.filter(|_| is_new)
    }

    /// Elects again where time alone may have changed the order, since a waiter came or left the last time.
    pub(super) fn elect_by_age(&mut self, now: Instant) -> Option<WaiterId> {
        if self.only_level().is_some() { None } else { self.elect(now) }
    }

    /// Keeps the first waiter first until it has its grant, is unpinned or leaves. Its caller is not charged for a turn.
    pub(super) fn pin(&mut self) {
        self.pinned = self.first;
    }

    /// Returns whether a waiter is pinned.
    pub(super) fn is_pinned(&self, id: WaiterId) -> bool {
        self.pinned == Some(id)
    }

    /// Lets the order decide again.
    pub(super) fn unpin(&mut self, id: WaiterId) {
        self.pinned = self.pinned.filter(|pinned| *pinned != id);
    }

    /// Returns the one priority with waiters, if there is just one.
    fn only_level(&self) -> Option<usize> {
        match [0, 1, 2].map(|at: usize| self.levels[at].waiting.is_empty()) {
            [false, true, true] => Some(0),
            [true, false, true] => Some(1),
            [true, true, false] => Some(2),
            _ => None,
        }
    }

    fn elected(&self) -> Option<WaiterId> {
        let at = self.only_level().or_else(|| self.next_level())?;
        let priority = [Priority::Interactive, Priority::Normal, Priority::Batch][at];
        self.levels[at].first().map(|id| WaiterId(id, priority))
    }

    /// Returns the priority whose turn is next.
    fn next_level(&self) -> Option<usize> {
        let mut least: Option<(usize, u64)> = None;
        for (at, level) in self.levels.iter().enumerate().filter(|(at, _)| self.takes_part(*at)) {
            least = least.filter(|least| least.1 <= level.start).or(Some((at, level.start)));
        }
        least.map(|(at, _)| at)
    }

    /// Returns whether a priority takes part in the turns.
    fn takes_part(&self, at: usize) -> bool {
        let top = self.levels.iter().position(|level| !level.waiting.is_empty()).unwrap_or_default();
        self.levels[at].takes_part(at.saturating_sub(top), self.now)
    }

    /// Gives the turn to the first waiter, and charges its caller for it under these limits. It stays first until it is
    /// removed. Returns what it was.
    pub(super) fn grant(&mut self, limits: Amount) -> Option<W> {
        let id = self.first.filter(|_| self.holder.is_none())?;
        let at = id.1 as usize;
        let start = self.levels[at].start;
        self.reached = self.reached.max(start);
        for other in (0..PRIORITIES).filter(|other| *other != at) {
            // Those that take no part save nothing up, and will begin as if they had just had a turn.
            if !self.levels[other].waiting.is_empty() && !self.takes_part(other) {
                let level = &mut self.levels[other];
                let turn = level.usual_cost(limits).saturating_mul(1 << other);
                level.start = level.start.max(self.reached.saturating_add(turn));
            }
        }
        let level = &mut self.levels[at];
        let turn = level.take(id.0)?;
        let cost = cost(turn.counted, limits);
        match &mut level.callers {
            Some(callers) => callers.granted(&turn.caller, (turn.due, id.0), turn.counted, cost),
            None => level.lead = cost,
        }
        level.start = start.saturating_add(cost.saturating_mul(1 << at));
        level.end_if_empty();
        (self.holder, self.pinned) = (Some(id), None);
        self.end_if_empty();
        Some(turn.waiter)
    }

    /// Takes a waiter out.
    pub(super) fn remove(&mut self, id: WaiterId) {
        self.unpin(id);
        if self.holder == Some(id) {
            self.holder = None;
            return;
        }
        let level = &mut self.levels[id.1 as usize];
        let Some(turn) = level.take(id.0) else { return };
        if let Some(callers) = &mut level.callers {
            callers.leave(&turn.caller, (turn.due, id.0), turn.counted);
        }
        level.end_if_empty();
        self.end_if_empty();
    }

    /// Forgets the turns of the priorities once nobody waits: all are equal then.
    fn end_if_empty(&mut self) {
        if self.levels.iter().all(|level| level.waiting.is_empty()) {
            self.reached = 0;
            self.levels.iter_mut().for_each(|level| level.start = 0);
        }
    }

    /// Estimates the amount that will go before a new call: more urgent waiters, those of its caller that are due sooner,
    /// and of the others of its priority no more than their fair part until its turn.
    pub(super) fn ahead_of(&self, now: Instant, claimant: Claimant<'_>, own: Amount, limits: Amount) -> Amount {
        let now = now.max(self.now);
        let due = self.due(claimant, now);
        let at = claimant.priority as usize;
        let level = &self.levels[at];
        let caller = claimant.caller.filter(|name| name.len() <= MAX_NAME);
        let same = level.ahead_of(caller, due, limits);
        let above = self.levels[..at].iter().fold(Amount::default(), |sum, level| sum.plus(level.amount));
        let mut ahead = same.plus(above);
        for (below, level) in self.levels.iter().enumerate().skip(at + 1) {
            if level.takes_part(below - at, now) {
                let part = same.plus(own);
                let shift = below - at;
                let part = Amount { requests: part.requests >> shift, tokens: part.tokens >> shift };
                ahead = ahead.plus(level.amount.min(part));
            }
        }
        ahead
    }
}

#[cfg(test)]
mod tests;
