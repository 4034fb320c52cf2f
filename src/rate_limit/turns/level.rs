//! The waiters of one priority, and the cost of a turn.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::Instant;

use super::{CallerName, PATIENCE, callers::CallerTurns};
use crate::rate_limit::Amount;

/// The cost of a whole minute's limit. A call costs its share of the limit that it needs most of.
const WHOLE: u64 = 1 << 32;

/// The tokens a minute by which calls are weighed while no limit is known.
const NOMINAL: u64 = 1_000_000;

/// The waiters of one priority.
#[derive(Debug)]
pub(super) struct Level<W> {
    /// The waiters by number, in the order of arrival.
    pub(super) waiting: BTreeMap<u64, Turn<W>>,
    /// The sum of what they count.
    pub(super) amount: Amount,
    /// The start tag of its next turn among the priorities.
    pub(super) start: u64,
    /// The cost of the last turn that was given without an index: what its caller is ahead of others.
    pub(super) lead: u64,
    /// The index by callers. `None`: all are of one caller, and their order is that of arrival.
    pub(super) callers: Option<Box<CallerTurns>>,
}

/// A waiter and its place in the order.
#[derive(Debug)]
pub(super) struct Turn<W> {
    pub(super) caller: CallerName,
    pub(super) since: Instant,
    pub(super) due: u32,
    pub(super) counted: Amount,
    pub(super) waiter: W,
}

impl<W> Level<W> {
    /// Returns whether it takes part in the turns of a priority that is `below` levels more urgent.
    pub(super) fn takes_part(&self, below: usize, now: Instant) -> bool {
        if below == 0 || self.waiting.is_empty() {
            return !self.waiting.is_empty();
        }
        let patience = PATIENCE * u32::try_from(below).unwrap_or(u32::MAX);
        let oldest = self.waiting.first_key_value().map(|(_, oldest)| oldest.since);
        oldest.is_some_and(|since| now.saturating_duration_since(since) >= patience)
    }

    pub(super) fn join(&mut self, id: u64, turn: Turn<W>, limits: Amount) {
        if self.callers.is_none() && !self.keeps_order(id, &turn) {
            self.callers = Some(Box::new(self.index(limits)));
        }
        if let Some(callers) = &mut self.callers {
            callers.join(&turn.caller, (turn.due, id), turn.counted, limits);
        }
        self.amount = self.amount.plus(turn.counted);
        self.waiting.insert(id, turn);
    }

    /// Returns whether the waiters are of one caller, and due in the order of their arrival, with this one as well.
    fn keeps_order(&self, id: u64, turn: &Turn<W>) -> bool {
        let (before, after) = (self.waiting.range(..id).next_back(), self.waiting.range(id..).next());
        before.is_none_or(|(_, before)| before.caller == turn.caller && before.due <= turn.due)
            && after.is_none_or(|(_, after)| after.caller == turn.caller && after.due >= turn.due)
    }

    /// Makes the index of the waiters, which are of one caller so far.
    fn index(&self, limits: Amount) -> CallerTurns {
        let mut callers = CallerTurns::default();
        for (id, turn) in &self.waiting {
            callers.join(&turn.caller, (turn.due, *id), turn.counted, limits);
        }
        if let Some((_, turn)) = self.waiting.first_key_value() {
            callers.lead(&turn.caller, self.lead);
        }
        callers
    }

    pub(super) fn take(&mut self, id: u64) -> Option<Turn<W>> {
        let turn = self.waiting.remove(&id)?;
        self.amount = self.amount.minus(turn.counted);
        Some(turn)
    }

    /// Returns the cost of a waiter on average; zero without any.
    pub(super) fn usual_cost(&self, limits: Amount) -> u64 {
        cost(self.amount, limits).checked_div(self.waiting.len() as u64).unwrap_or_default()
    }

    pub(super) fn end_if_empty(&mut self) {
        if self.waiting.is_empty() {
            (self.callers, self.lead) = (None, 0);
        }
    }

    pub(super) fn first(&self) -> Option<u64> {
        match &self.callers {
            Some(callers) => callers.first(),
            None => self.waiting.first_key_value().map(|(id, _)| *id),
        }
    }

    /// Estimates the amount that will go before a new call of that caller, which is due in that second.
    pub(super) fn ahead_of(&self, caller: Option<&Arc<str>>, due: u32, limits: Amount) -> Amount {
        let ends = self.waiting.first_key_value().zip(self.waiting.last_key_value());
        let Some(((_, first), (_, last))) = ends else { return Amount::default() };
        match &self.callers {
            Some(callers) => callers.ahead_of(caller, due, limits).min(self.amount),
            None if first.caller.as_ref() != caller => {
                // The other caller has had a turn, or counts as if it had, and this one has not.
                if self.lead > 0 || self.waiting.len() > 1 { Amount::default() } else { self.amount }
            }
            None => {
                let turns = || self.waiting.values();
                let later = || turns().rev().take_while(|turn| turn.due > due).take(COUNTED).count();
                let sooner = || turns().take_while(|turn| turn.due <= due).take(COUNTED).count();
                let before = due_before(due, self.waiting.len(), (first.due, last.due), later, sooner);
                self.amount.share(before, self.waiting.len())
            }
        }
    }
}

/// The most waiters of a caller that are counted for an estimate, from either end of its queue.
pub(super) const COUNTED: usize = 256;

/// Returns the number of a caller's waiters that are due no later than a new one, of `len` with these `ends`. Where there
/// are too many to count, both `later` than it and `sooner`, they are taken to be spread evenly.
pub(super) fn due_before(
    due: u32,
    len: usize,
    ends: (u32, u32),
    later: impl FnOnce() -> usize,
    sooner: impl FnOnce() -> usize,
) -> usize {
    let later = later();
    if later < COUNTED {
        return len - later;
    }
    let sooner = sooner();
    if sooner < COUNTED {
        return sooner;
    }
    let (part, whole) = (due.saturating_sub(ends.0), ends.1.saturating_sub(ends.0));
    (len as u64 * u64::from(part) / u64::from(whole.max(1))) as usize
}

/// Returns the share of a minute's limits that an amount is, of the limit that it needs most of.
pub(super) fn cost(amount: Amount, limits: Amount) -> u64 {
    let share = |of: u64, limit: u64| {
        if let Some(whole) = of.checked_mul(WHOLE) {
            return whole / limit.max(1);
        }
        let share = u128::from(of) * u128::from(WHOLE) / u128::from(limit.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    };
    let known = |of, limit| if limit == u64::MAX { 0 } else { share(of, limit) };
    let cost = known(amount.requests, limits.requests).max(known(amount.tokens, limits.tokens));
    let nominal = || share(amount.tokens, NOMINAL);
    if limits.requests == u64::MAX && limits.tokens == u64::MAX { nominal().max(1) } else { cost.max(1) }
}
