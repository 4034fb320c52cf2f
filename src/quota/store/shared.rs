//! The account of one scope that several limiters ask: a sliding window, the day, and a closing. Pure: the caller passes
//! the time.

use std::time::Duration;

use tokio::time::Instant;

use super::{Answer, Closing, Correction, Grant, Question, StoreCharge};
use crate::quota::{
    Dimension, PacificCalendar,
    window::{Amount, EntryNumber, SlidingWindow},
};

/// The longest time for which the others stay out while one call looks: one that is not refused by then is probably being
/// served, or hangs.
const LONGEST_LOOK: Duration = Duration::from_secs(30);

/// The longest time for which a scope is closed, whatever is said.
const LONGEST_CLOSING: Duration = Duration::from_secs(48 * 3_600);

/// The usage of one scope by all who ask, and whether it is closed.
#[derive(Debug)]
pub(super) struct SharedAccount {
    window: SlidingWindow,
    /// The number of this account, so that no charge of an earlier one of the same scope is taken for one of its own.
    number: u32,
    today: u64,
    day: u32,
    day_ends: Instant,
    /// True once a question has limited the day: only then does the day's count outlive the minute's.
    limits_days: bool,
    closed: Option<Closed>,
}

/// A closing, and the call that looks whether it still holds.
#[derive(Clone, Copy, Debug)]
struct Closed {
    look_at: Instant,
    ends: Instant,
    look: Option<(StoreCharge, Instant)>,
}

impl Closed {
    /// Returns the closing for a call that comes now; `None`: it may look.
    fn now(&self, now: Instant) -> Option<Closing> {
        let look_at = match self.look {
            Some((_, since)) => since + LONGEST_LOOK,
            None => self.look_at,
        };
        let left = |at: Instant| at.saturating_duration_since(now);
        (now < look_at).then(|| Closing { look: left(look_at.min(self.ends)), ends: left(self.ends) })
    }
}

impl SharedAccount {
    pub(super) fn new(number: u32, calendar: PacificCalendar, now: Instant) -> Self {
        let (window, day_ends) = (SlidingWindow::default(), calendar.day_end(now));
        Self { window, number, today: 0, day: 0, day_ends, limits_days: false, closed: None }
    }

    /// Continues this account with another's usage and closing: for a scope that was counted there so far.
    pub(super) fn continuing(self, other: &Self) -> Self {
        Self { window: other.window.compacted(), today: other.today, closed: other.closed, ..self }
    }

    /// Takes the amount in all dimensions, or nothing.
    pub(super) fn take(&mut self, question: Question, calendar: PacificCalendar, now: Instant) -> Answer {
        self.catch_up(calendar, now);
        if let Some(closing) = self.closed.and_then(|closed| closed.now(now)) {
            return Answer::Closed(closing);
        }
        let limit = |dimension| question.limits.get(dimension).unwrap_or(u64::MAX);
        self.limits_days |= question.limits.get(Dimension::RequestsPerDay).is_some();
        let (requests, tokens) = (limit(Dimension::RequestsPerMinute), limit(Dimension::InputTokensPerMinute));
        let limits = Amount { requests, tokens };
        let amount = Amount { requests: question.requests, tokens: question.tokens }.min(limits);
        let fits_at = |is_zero: bool, limits| match is_zero {
            // It never opens; the day's end is the next time at which it may have been changed.
            true => self.day_ends,
            false => self.window.fits_at(now, amount, limits),
        };
        let day_fits = self.today.saturating_add(question.requests) <= limit(Dimension::RequestsPerDay);
        let all = [
            (Dimension::RequestsPerMinute, fits_at(requests == 0, Amount { requests, tokens: u64::MAX })),
            (Dimension::InputTokensPerMinute, fits_at(tokens == 0, Amount { requests: u64::MAX, tokens })),
            (Dimension::RequestsPerDay, if day_fits { now } else { self.day_ends }),
        ];
        let last = all.into_iter().max_by_key(|(_, at)| *at).filter(|(_, at)| *at > now);
        if let Some((dimension, at)) = last {
            return Answer::Full { dimension: Some(dimension), wait: at - now };
        }
        let entry = self.window.charge(now, amount);
        self.today = self.today.saturating_add(amount.requests);
        let charge = StoreCharge(entry.get(), u64::from(self.number) << 32 | u64::from(self.day));
        let is_look = self.closed.is_some();
        if let Some(closed) = &mut self.closed {
            closed.look = Some((charge, now));
        }
        let Amount { requests, tokens } = self.window.used();
        Answer::Granted(Grant { charge, requests, tokens, today: self.today, is_look })
    }

    /// Corrects a charge, as far as it still counts.
    pub(super) fn correct(&mut self, charge: StoreCharge, by: Correction, calendar: PacificCalendar, now: Instant) {
        self.catch_up(calendar, now);
        if charge.1 >> 32 != u64::from(self.number) {
            return;
        }
        let before = Amount { requests: by.requests_back, tokens: by.tokens_before };
        if let Some(entry) = EntryNumber::of(charge.0) {
            self.window.correct(entry, before, Amount { requests: 0, tokens: by.tokens_after });
        }
        if charge.1 as u32 == self.day {
            self.today = self.today.saturating_sub(by.requests_back);
        }
        if let Some(closed) = &mut self.closed
            && by.requests_back > 0
            && closed.look.is_some_and(|(look, _)| look == charge)
        {
            // The look was never sent: the next call looks.
            closed.look = None;
        }
    }

    /// Closes the scope. Calls that are refused together are one event, of which the longest closing counts.
    pub(super) fn close(&mut self, closing: Closing, now: Instant) {
        let (look, ends) = (closing.look.min(LONGEST_CLOSING), closing.ends.min(LONGEST_CLOSING));
        let mut new = Closed { look_at: now + look, ends: now + ends.max(look), look: None };
        if let Some(known) = self.closed.filter(|known| now < known.look_at) {
            new.look_at = new.look_at.max(known.look_at);
            new.ends = new.ends.max(known.ends);
        }
        self.closed = Some(new);
    }

    pub(super) fn open(&mut self) {
        self.closed = None;
    }

    /// Returns whether forgetting the account changes no answer.
    pub(super) fn is_forgettable(&mut self, calendar: PacificCalendar, now: Instant) -> bool {
        self.catch_up(calendar, now);
        self.window.is_empty() && self.closed.is_none() && !(self.limits_days && self.today > 0)
    }

    /// Drops expired charges, a past day and a past closing.
    pub(super) fn catch_up(&mut self, calendar: PacificCalendar, now: Instant) {
        self.window.expire(now);
        if self.day_ends <= now {
            (self.today, self.day, self.day_ends) = (0, self.day.wrapping_add(1), calendar.day_end(now));
        }
        self.closed = self.closed.filter(|closed| now < closed.ends);
    }
}
