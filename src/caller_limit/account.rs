//! The account of one caller, or of its calls of one model: a sliding minute, a day and a month. Pure: the caller of these
//! functions passes the time.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    dimension::{CallerAmount, CallerDimension},
    quota::CallerQuota,
};
use crate::{
    clock::TimeAnchor,
    prices::Money,
    quota::{
        PacificCalendar,
        window::{Amount, EntryNumber, SLACK, SlidingWindow, WindowMemory},
    },
};

/// The cost of a call: as far as it is known before the call, and then as the answer says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CallerCost {
    pub(super) requests: u64,
    pub(super) input: u64,
    pub(super) output: u64,
    pub(super) money: Money,
}

impl CallerCost {
    /// Returns the amount in one dimension.
    pub(super) fn of(self, dimension: CallerDimension) -> CallerAmount {
        match dimension {
            CallerDimension::RequestsPerMinute | CallerDimension::RequestsPerDay => CallerAmount::Count(self.requests),
            CallerDimension::InputTokensPerMinute => CallerAmount::Count(self.input),
            CallerDimension::TokensPerDay => CallerAmount::Count(self.tokens()),
            CallerDimension::MoneyPerDay | CallerDimension::MoneyPerMonth => CallerAmount::Money(self.money),
        }
    }

    fn tokens(self) -> u64 {
        self.input.saturating_add(self.output)
    }

    fn minute(self) -> Amount {
        Amount { requests: self.requests, tokens: self.input }
    }
}

/// The usage of a caller.
///
/// Its minute has 60 seconds, because what counts it is here: the window's slack, for requests that are delayed on the way
/// to who counts them, is taken out again.
#[derive(Clone, Debug)]
pub(super) struct CallerAccount {
    window: SlidingWindow,
    day: UsagePeriod,
    month: UsagePeriod,
}

/// The usage since the last midnight, or since the first of the month.
#[derive(Clone, Copy, Debug)]
struct UsagePeriod {
    ends: Instant,
    /// The number of the period, so that a charge of an earlier one is recognised.
    number: u32,
    requests: u64,
    tokens: u64,
    money: Money,
}

/// The usage of a caller in a form that outlives the process. Money is in millionths of a dollar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct CallerAccountMemory {
    /// The day in California that the usage is of, as `2026-11-21`; the month is that of the same date.
    date: Box<str>,
    requests: u64,
    tokens: u64,
    money: u64,
    money_of_month: u64,
    #[serde(skip_serializing_if = "WindowMemory::is_empty")]
    minute: WindowMemory,
}

/// The charge of a call, to be settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AccountCharge {
    entry: EntryNumber,
    day: u32,
    month: u32,
}

/// The limit that a call is past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallerShortage {
    pub(super) dimension: CallerDimension,
    pub(super) used: CallerAmount,
    pub(super) limit: CallerAmount,
    /// The amount that the call needs.
    pub(super) needs: CallerAmount,
    /// The time at which it will fit, if nothing else is charged. `None`: never, because it is larger than the limit.
    pub(super) at: Option<Instant>,
}

impl CallerAccount {
    /// Opens an account on which nothing is charged.
    pub(super) fn new(now: Instant, calendar: PacificCalendar) -> Self {
        let day = UsagePeriod::until(calendar.day_end(now));
        Self { window: SlidingWindow::default(), day, month: UsagePeriod::until(calendar.month_end(now)) }
    }

    /// Returns an account that goes on from this one's usage.
    pub(super) fn continued(&self) -> Self {
        Self { window: self.window.compacted(), ..*self }
    }

    /// Finds the limit of which a call of that cost is past for the longest time. An estimate that is larger than a limit
    /// counts as the limit, unless its tokens are proven. Money is always an estimate, because input that turns out to be
    /// cached is cheaper.
    pub(super) fn shortage(
        &mut self,
        now: Instant,
        calendar: PacificCalendar,
        quota: &CallerQuota,
        cost: CallerCost,
        is_proven: bool,
    ) -> Option<CallerShortage> {
        self.catch_up(now, calendar);
        let of = |dimension| {
            let limit = quota.get(dimension)?;
            let (used, needs) = (self.used(dimension), cost.of(dimension));
            let is_real = is_exact(dimension) || (is_proven && !dimension.is_money()) || limit.is_zero();
            let never = needs > limit && is_real;
            if used.plus(needs.min(limit)) <= limit && !never {
                return None;
            }
            let at = (!never).then(|| self.fits_at(now, dimension, cost.minute(), limit));
            Some(CallerShortage { dimension, used, limit, needs, at })
        };
        let all = CallerDimension::ALL.into_iter().filter_map(of);
        // `None` is later than any time; of two that last equally long it is the wider one.
        all.reduce(|longest, other| match (longest.at, other.at) {
            (None, _) => longest,
            (Some(one), Some(another)) if another < one => longest,
            _ => other,
        })
    }

    /// Charges a cost, whether it fits or not.
    pub(super) fn charge(&mut self, now: Instant, calendar: PacificCalendar, cost: CallerCost) -> AccountCharge {
        self.catch_up(now, calendar);
        let entry = self.window.charge(now, cost.minute());
        for period in [&mut self.day, &mut self.month] {
            period.change(CallerCost::default(), cost);
        }
        AccountCharge { entry, day: self.day.number, month: self.month.number }
    }

    /// Corrects a charge from `before` to `after`. What has ended since then stays as it was.
    pub(super) fn settle(
        &mut self,
        now: Instant,
        calendar: PacificCalendar,
        charge: AccountCharge,
        before: CallerCost,
        after: CallerCost,
    ) {
        self.catch_up(now, calendar);
        self.window.correct(charge.entry, before.minute(), after.minute());
        for (period, number) in [(&mut self.day, charge.day), (&mut self.month, charge.month)] {
            if period.number == number {
                period.change(before, after);
            }
        }
    }

    /// Returns the usage in the form that is kept. `None`: there is none. The account has been caught up.
    pub(super) fn memory(
        &self,
        now: Instant,
        calendar: PacificCalendar,
        anchor: TimeAnchor,
    ) -> Option<CallerAccountMemory> {
        let is_unused = self.window.is_empty() && self.day.is_unused() && self.month.money == Money::ZERO;
        (!is_unused).then(|| CallerAccountMemory {
            date: calendar.date(now),
            requests: self.day.requests,
            tokens: self.day.tokens,
            money: self.day.money.as_micros(),
            money_of_month: self.month.money.as_micros(),
            minute: self.window.memory(anchor),
        })
    }

    /// Takes up the usage of another process, as far as its day or its month is still the same: it is raised, never added.
    pub(super) fn restore(
        &mut self,
        memory: &CallerAccountMemory,
        now: Instant,
        calendar: PacificCalendar,
        anchor: TimeAnchor,
    ) {
        let today = calendar.date(now);
        let month = |date: &str| date.rsplit_once('-').map(|(month, _)| month.to_owned());
        let mut raise = |dimension, used| self.raise(now, calendar, dimension, used);
        if *memory.date == *today {
            raise(CallerDimension::RequestsPerDay, CallerAmount::Count(memory.requests));
            raise(CallerDimension::TokensPerDay, CallerAmount::Count(memory.tokens));
            raise(CallerDimension::MoneyPerDay, CallerAmount::Money(Money::micros(memory.money)));
        }
        if month(&memory.date).is_some_and(|of| Some(of) == month(&today)) {
            raise(CallerDimension::MoneyPerMonth, CallerAmount::Money(Money::micros(memory.money_of_month)));
        }
        self.window.restore(&memory.minute, anchor, now);
        self.catch_up(now, calendar);
    }

    /// Raises the usage of a day or a month to at least this: it was counted elsewhere. A minute's is left as it is.
    pub(super) fn raise(
        &mut self,
        now: Instant,
        calendar: PacificCalendar,
        dimension: CallerDimension,
        used: CallerAmount,
    ) {
        self.catch_up(now, calendar);
        match (dimension, used) {
            (CallerDimension::RequestsPerDay, CallerAmount::Count(used)) => {
                self.day.requests = self.day.requests.max(used);
            }
            (CallerDimension::TokensPerDay, CallerAmount::Count(used)) => self.day.tokens = self.day.tokens.max(used),
            (CallerDimension::MoneyPerDay, CallerAmount::Money(used)) => self.day.money = self.day.money.max(used),
            (CallerDimension::MoneyPerMonth, CallerAmount::Money(used)) => {
                self.month.money = self.month.money.max(used)
            }
            _ => {}
        }
    }

    /// Drops what no longer counts.
    pub(super) fn catch_up(&mut self, now: Instant, calendar: PacificCalendar) {
        self.window.expire(now + SLACK);
        if self.day.ends <= now {
            self.day = self.day.next(calendar.day_end(now));
        }
        if self.month.ends <= now {
            self.month = self.month.next(calendar.month_end(now));
        }
    }

    /// Returns the usage that counted when the account was last [caught up](Self::catch_up).
    pub(super) fn used(&self, dimension: CallerDimension) -> CallerAmount {
        match dimension {
            CallerDimension::RequestsPerMinute => CallerAmount::Count(self.window.used().requests),
            CallerDimension::InputTokensPerMinute => CallerAmount::Count(self.window.used().tokens),
            CallerDimension::RequestsPerDay => CallerAmount::Count(self.day.requests),
            CallerDimension::TokensPerDay => CallerAmount::Count(self.day.tokens),
            CallerDimension::MoneyPerDay => CallerAmount::Money(self.day.money),
            CallerDimension::MoneyPerMonth => CallerAmount::Money(self.month.money),
        }
    }

    /// Returns the time at which the usage of a dimension begins to fall; of a minute in which nothing is used, `now`.
    pub(super) fn resets_at(&self, now: Instant, dimension: CallerDimension) -> Instant {
        match dimension {
            CallerDimension::RequestsPerMinute | CallerDimension::InputTokensPerMinute => {
                self.window.falls_at().map_or(now, |at| at - SLACK)
            }
            CallerDimension::RequestsPerDay | CallerDimension::TokensPerDay | CallerDimension::MoneyPerDay => {
                self.day.ends
            }
            CallerDimension::MoneyPerMonth => self.month.ends,
        }
    }

    /// Returns whether the account says no more than a new one.
    pub(super) fn is_forgettable(&mut self, now: Instant) -> bool {
        self.window.expire(now + SLACK);
        let day = self.day.ends <= now || self.day.is_unused();
        // A month counts money only.
        let month = self.month.ends <= now || self.month.money == Money::ZERO;
        self.window.is_empty() && day && month
    }

    fn fits_at(&self, now: Instant, dimension: CallerDimension, minute: Amount, limit: CallerAmount) -> Instant {
        let unlimited = Amount { requests: u64::MAX, tokens: u64::MAX };
        let limit = match (dimension, limit) {
            (CallerDimension::RequestsPerMinute, CallerAmount::Count(requests)) => Amount { requests, ..unlimited },
            (CallerDimension::InputTokensPerMinute, CallerAmount::Count(tokens)) => Amount { tokens, ..unlimited },
            (CallerDimension::MoneyPerMonth, _) => return self.month.ends,
            _ => return self.day.ends,
        };
        self.window.fits_at(now + SLACK, minute, limit) - SLACK
    }
}

/// Returns whether a cost in that dimension is a number, and no estimate.
fn is_exact(dimension: CallerDimension) -> bool {
    matches!(dimension, CallerDimension::RequestsPerMinute | CallerDimension::RequestsPerDay)
}

impl UsagePeriod {
    fn until(ends: Instant) -> Self {
        Self { ends, number: 0, requests: 0, tokens: 0, money: Money::ZERO }
    }

    fn next(self, ends: Instant) -> Self {
        Self { number: self.number.wrapping_add(1), ..Self::until(ends) }
    }

    fn change(&mut self, before: CallerCost, after: CallerCost) {
        self.requests = self.requests.saturating_sub(before.requests).saturating_add(after.requests);
        self.tokens = self.tokens.saturating_sub(before.tokens()).saturating_add(after.tokens());
        self.money = self.money.minus(before.money) + after.money;
    }

    fn is_unused(&self) -> bool {
        self.requests == 0 && self.tokens == 0 && self.money == Money::ZERO
    }
}

#[cfg(test)]
mod tests;
