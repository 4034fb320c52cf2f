//! What one scope has used, may use, and why it may not use more: all dimensions in one place, so that they are taken
//! together or not at all. Pure: it is told the time.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{
    Amount,
    bound::Bound,
    pacing::Pacer,
    window::{Position, WINDOW, Window},
};
use crate::quota::{Dimension, Limits, until_pacific_midnight};

/// The dimensions, in the order in which they are kept.
pub(super) const DIMENSIONS: [Dimension; 3] =
    [Dimension::RequestsPerMinute, Dimension::InputTokensPerMinute, Dimension::RequestsPerDay];

/// Everything that is known of one scope.
#[derive(Debug)]
pub(super) struct Account {
    limits: [Bound; 3],
    window: Window,
    day: Day,
    blocked: Option<Instant>,
    pacer: Option<Pacer>,
    /// What was used before is not known here, so that for the first minute a refusal tells nothing of others' use.
    began: Instant,
}

/// Requests since midnight Pacific.
#[derive(Clone, Copy, Debug)]
struct Day {
    used: u64,
    /// Those of them that are not sent yet: at midnight they move on to the next day.
    held: u64,
    ends: Instant,
    /// Counts the days.
    number: u32,
}

/// Wall time and the clock's time at one moment, so that wall time is read once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calendar {
    pub(super) wall: SystemTime,
    pub(super) at: Instant,
}

/// What was taken, to be corrected or given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Charge {
    /// Where it is charged; `None` while it is only set aside.
    position: Option<Position>,
    amount: Amount,
    day: u32,
}

impl Charge {
    /// Whether it is charged, and not only set aside.
    pub(super) fn is_sent(&self) -> bool {
        self.position.is_some()
    }
}

impl Calendar {
    fn midnight_after(self, now: Instant) -> Instant {
        let wall = self.wall + now.saturating_duration_since(self.at);
        now + until_pacific_midnight(wall)
    }
}

impl Account {
    pub(super) fn new(limits: Limits, pacer: Option<Pacer>, calendar: Calendar, now: Instant) -> Self {
        let limits = DIMENSIONS.map(|dimension| Bound::new(limits.get(dimension)));
        let day = Day { used: 0, held: 0, ends: calendar.midnight_after(now), number: 0 };
        Self { limits, window: Window::default(), day, blocked: None, pacer, began: now }
    }

    /// The same account, but for what another has used and what blocks it: for a scope that was counted there so far.
    pub(super) fn after(self, other: &Self) -> Self {
        let day = Day { used: other.day.used.saturating_sub(other.day.held), held: 0, ..other.day };
        Self { window: other.window.in_brief(), day, blocked: other.blocked, ..self }
    }

    /// Takes all of it, or nothing and says when to ask again. It is sent at once.
    #[inline]
    pub(super) fn take(&mut self, now: Instant, amount: Amount, calendar: Calendar) -> Result<Charge, Instant> {
        let amount = self.reserve(now, amount, calendar)?;
        let position = Some(self.window.charge(now, amount));
        Ok(Charge { position, amount, day: self.day.number })
    }

    /// Takes all of it, or nothing and says when to ask again. It counts from now on, for a minute from [`Self::send`].
    pub(super) fn hold(&mut self, now: Instant, amount: Amount, calendar: Calendar) -> Result<Charge, Instant> {
        let amount = self.reserve(now, amount, calendar)?;
        self.window.hold(amount);
        self.day.held += amount.requests;
        Ok(Charge { position: None, amount, day: self.day.number })
    }

    /// What was set aside is sent now.
    pub(super) fn send(&mut self, now: Instant, charge: Charge, calendar: Calendar) -> Charge {
        if charge.position.is_some() {
            return charge;
        }
        self.catch_up(now, calendar);
        self.window.release(charge.amount);
        self.day.held = self.day.held.saturating_sub(charge.amount.requests);
        Charge { position: Some(self.window.charge(now, charge.amount)), day: self.day.number, ..charge }
    }

    /// Corrects what was sent: `tokens` is what it really cost. Says whether that makes room.
    pub(super) fn settle(&mut self, charge: Charge, tokens: u64) -> bool {
        let Some(position) = charge.position else { return false };
        let after = Amount { tokens, ..charge.amount };
        self.window.correct(position, charge.amount, after);
        tokens < charge.amount.tokens
    }

    /// Gives back what was taken: it never reached the upstream, or does not count there.
    pub(super) fn refund(&mut self, charge: Charge) {
        let requests = charge.amount.requests;
        match charge.position {
            Some(position) => self.window.correct(position, charge.amount, Amount::default()),
            None => {
                self.window.release(charge.amount);
                self.day.held = self.day.held.saturating_sub(requests);
            }
        }
        // What was only set aside has moved on with the days.
        if charge.position.is_none() || charge.day == self.day.number {
            self.day.used = self.day.used.saturating_sub(requests);
        }
    }

    /// When the scope could have taken all of `ahead` and then `amount`, at the earliest.
    pub(super) fn turn_at(&mut self, now: Instant, ahead: Amount, amount: Amount, calendar: Calendar) -> Instant {
        self.catch_up(now, calendar);
        let limit = self.minute_limit(now);
        let all = ahead.plus(amount.min(limit));
        let day = if self.day_is_full(now, all) { self.day.ends } else { now };
        let start = self.closed_until(now, amount);
        let at = self.window.fits_at(now, amount, limit).max(self.window.admitted_at(start, all, limit));
        let even =
            self.pacer.as_ref().map_or(now, |pacer| pacer.gone_at(start, all.requests, self.requests_limit(now)));
        at.max(day).max(even)
    }

    /// Nobody gets anything before then.
    pub(super) fn block(&mut self, until: Instant) {
        self.blocked = Some(self.blocked.map_or(until, |blocked| blocked.max(until)));
    }

    /// The upstream has refused for this dimension, and may have named its limit. What it refused is given back before.
    pub(super) fn refused(&mut self, now: Instant, dimension: Dimension, named: Option<u64>) {
        self.window.expire(now);
        let used = self.used(dimension);
        let bound = &mut self.limits[index(dimension)];
        if let Some(named) = named.filter(|named| *named > 0) {
            bound.learn(named);
        }
        let knows_the_minute = now >= self.began + WINDOW;
        if dimension != Dimension::RequestsPerDay && knows_the_minute {
            bound.refused(now, used);
        }
    }

    /// The limit in force, or none.
    #[inline]
    pub(super) fn limit(&self, dimension: Dimension, now: Instant) -> Option<u64> {
        self.limits[index(dimension)].in_force(now)
    }

    /// The limit when nobody else uses the quota.
    pub(super) fn full_limit(&self, dimension: Dimension) -> Option<u64> {
        self.limits[index(dimension)].full()
    }

    /// What counts of a dimension at the moment.
    pub(super) fn used(&self, dimension: Dimension) -> u64 {
        match dimension {
            Dimension::RequestsPerMinute => self.window.used().requests,
            Dimension::InputTokensPerMinute => self.window.used().tokens,
            Dimension::RequestsPerDay => self.day.used,
        }
    }

    /// How long one request goes after the other, where there is a pace.
    pub(super) fn interval(&self, now: Instant) -> Option<Duration> {
        self.pacer.as_ref()?.interval(self.requests_limit(now))
    }

    pub(super) fn learned(&self, dimension: Dimension) -> Option<u64> {
        self.limits[index(dimension)].learned()
    }

    pub(super) fn blocked_until(&self, now: Instant) -> Option<Instant> {
        self.blocked.filter(|until| *until > now)
    }

    pub(super) fn midnight(&self) -> Instant {
        self.day.ends
    }

    /// What a request of this amount adds to the queue: no more than it will be charged.
    pub(super) fn clamped(&self, amount: Amount, now: Instant) -> Amount {
        amount.min(self.minute_limit(now))
    }

    /// Whether there is nothing to remember: forgetting it now changes no decision.
    pub(super) fn is_forgettable(&mut self, now: Instant, calendar: Calendar) -> bool {
        self.catch_up(now, calendar);
        let counts_days = self.limits[2].full().is_some() && self.day.used > 0;
        let knows = self.limits.iter().any(Bound::knows_anything);
        self.window.is_empty() && self.blocked.is_none() && !counts_days && !knows
    }

    /// Forgets what no longer counts.
    #[inline]
    pub(super) fn catch_up(&mut self, now: Instant, calendar: Calendar) {
        self.window.expire(now);
        if self.day.ends <= now {
            self.begin_day(now, calendar);
        }
        if self.blocked.is_some_and(|until| until <= now) {
            self.blocked = None;
        }
    }

    #[cold]
    fn begin_day(&mut self, now: Instant, calendar: Calendar) {
        let Day { held, number, .. } = self.day;
        self.day = Day { used: held, held, ends: calendar.midnight_after(now), number: number.wrapping_add(1) };
    }

    /// Checks all dimensions, then the pace, so that no turn of the pace is lost on what does not fit. Counts the day;
    /// the window is the caller's to charge.
    #[inline]
    fn reserve(&mut self, now: Instant, amount: Amount, calendar: Calendar) -> Result<Amount, Instant> {
        self.catch_up(now, calendar);
        let limit = self.minute_limit(now);
        // An estimate over the limit counts as the limit, so that it passes once the window is empty.
        let charged = amount.min(limit);
        if !self.is_open(now, amount, limit) || !self.window.fits(charged, limit) {
            return Err(self.reserve_at(now, amount, limit));
        }
        if let Some(pacer) = &mut self.pacer {
            let limit = self.limits[0].in_force(now);
            let at = pacer.take(now, limit);
            if at > now {
                return Err(at);
            }
        }
        self.day.used += charged.requests;
        Ok(charged)
    }

    /// When to ask again for what is refused now.
    #[cold]
    fn reserve_at(&self, now: Instant, amount: Amount, limit: Amount) -> Instant {
        self.closed_until(now, amount).max(self.window.fits_at(now, amount, limit))
    }

    /// Whether anything is admitted at all, whatever the window holds.
    #[inline]
    fn is_open(&self, now: Instant, amount: Amount, limit: Amount) -> bool {
        self.blocked.is_none() && limit.requests > 0 && limit.tokens > 0 && !self.day_is_full(now, amount)
    }

    /// Until when nothing is admitted, whatever the window holds.
    fn closed_until(&self, now: Instant, amount: Amount) -> Instant {
        let blocked = self.blocked.unwrap_or(now).max(now);
        let limit = self.minute_limit(now);
        // A limit of zero never opens: the day's end is when somebody may have changed it.
        let until_midnight = limit.requests == 0 || limit.tokens == 0 || self.day_is_full(now, amount);
        if until_midnight { blocked.max(self.day.ends) } else { blocked }
    }

    #[inline]
    fn day_is_full(&self, now: Instant, amount: Amount) -> bool {
        let limit = self.limit(Dimension::RequestsPerDay, now);
        limit.is_some_and(|limit| self.day.used.saturating_add(amount.requests) > limit)
    }

    fn requests_limit(&self, now: Instant) -> Option<u64> {
        self.limit(Dimension::RequestsPerMinute, now)
    }

    #[inline]
    fn minute_limit(&self, now: Instant) -> Amount {
        let [requests, tokens, _] = &self.limits;
        Amount {
            requests: requests.in_force(now).unwrap_or(u64::MAX),
            tokens: tokens.in_force(now).unwrap_or(u64::MAX),
        }
    }
}

fn index(dimension: Dimension) -> usize {
    match dimension {
        Dimension::RequestsPerMinute => 0,
        Dimension::InputTokensPerMinute => 1,
        Dimension::RequestsPerDay => 2,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::rate_limit::Pacing;

    const ONE: Amount = Amount { requests: 1, tokens: 10 };

    fn calendar(utc: &str, at: Instant) -> Calendar {
        Calendar { wall: utc.parse::<jiff::Timestamp>().unwrap().into(), at }
    }

    #[tokio::test(start_paused = true)]
    async fn a_day_has_23_24_or_25_hours_and_ends_at_midnight_pacific() {
        for (midnight, hours) in [
            ("2026-03-08T08:00:00Z", 23),
            ("2026-03-09T07:00:00Z", 24),
            ("2026-11-01T07:00:00Z", 25),
            ("2026-11-02T08:00:00Z", 24),
        ] {
            // The limiter was made a week before: wall time is read once, and the clock goes on from there.
            let week = Duration::from_secs(7 * 24 * 3600);
            let made = Instant::now();
            let now = made + week;
            let calendar = Calendar { wall: calendar(midnight, now).wall - week, at: made };
            let mut account = Account::new(Limits::new().requests_per_day(2), None, calendar, now);
            let day = Duration::from_secs(hours * 3600);
            for at in [now, now + day - Duration::from_secs(1)] {
                account.take(at, ONE, calendar).unwrap();
            }
            let last = now + day - Duration::from_nanos(1);
            assert_eq!(account.take(last, ONE, calendar), Err(now + day), "{midnight}");
            // A quota of zero, too.
            account.block(account.midnight());
            assert_eq!(account.take(last, ONE, calendar), Err(now + day));
            account.take(now + day, ONE, calendar).unwrap();
            assert_eq!(account.used(Dimension::RequestsPerDay), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_back_after_midnight_is_yesterdays() {
        let now = Instant::now();
        let calendar = calendar("2026-06-01T06:59:59Z", now);
        let mut account = Account::new(Limits::new().requests_per_day(9), None, calendar, now);
        let sent = account.take(now, ONE, calendar).unwrap();
        let held = account.hold(now, ONE, calendar).unwrap();
        let dropped = account.hold(now, ONE, calendar).unwrap();
        let tomorrow = now + Duration::from_secs(1);
        account.take(tomorrow, ONE, calendar).unwrap();
        // Those that are set aside will be sent today.
        assert_eq!(account.used(Dimension::RequestsPerDay), 3);
        account.refund(sent);
        assert_eq!(account.used(Dimension::RequestsPerDay), 3);
        account.refund(dropped);
        assert_eq!(account.used(Dimension::RequestsPerDay), 2);
        let held = account.send(tomorrow, held, calendar);
        account.refund(held);
        assert_eq!(account.used(Dimension::RequestsPerDay), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_of_zero_never_opens() {
        let now = Instant::now();
        let calendar = calendar("2026-06-01T07:00:00Z", now);
        let day = now + Duration::from_secs(24 * 3600);
        for limits in [
            Limits::new().requests_per_minute(0),
            Limits::new().input_tokens_per_minute(0),
            Limits::new().requests_per_day(0),
        ] {
            let mut account = Account::new(limits, None, calendar, now);
            assert_eq!(account.take(now, ONE, calendar), Err(day));
            assert_eq!(account.turn_at(now, Amount::default(), ONE, calendar), day);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_turn_of_the_pace_is_lost_on_what_does_not_fit() {
        let now = Instant::now();
        let calendar = calendar("2026-06-01T07:00:00Z", now);
        let pacer = Pacer::new(Pacing::Smooth { burst: NonZeroU32::new(2).unwrap() });
        let limits = Limits::new().requests_per_minute(60).input_tokens_per_minute(15);
        let mut account = Account::new(limits, pacer, calendar, now);
        let charge = account.take(now, ONE, calendar).unwrap();
        for _ in 0..10 {
            assert_eq!(account.take(now, ONE, calendar), Err(now + WINDOW));
        }
        assert!(account.settle(charge, 5));
        // The burst's second turn is still there, and the third is not.
        account.take(now, ONE, calendar).unwrap();
        let even = WINDOW / 60;
        let nothing = Amount { requests: 1, tokens: 0 };
        assert_eq!(account.turn_at(now, Amount::default(), nothing, calendar), now + even);
        assert_eq!(account.turn_at(now, nothing, nothing, calendar), now + even * 2);
        assert_eq!(account.take(now, nothing, calendar), Err(now + even));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_limit_gives_no_new_burst() {
        let now = Instant::now();
        let calendar = calendar("2026-06-01T07:00:00Z", now);
        let pacer = Pacer::new(Pacing::Smooth { burst: NonZeroU32::new(5).unwrap() });
        let mut account = Account::new(Limits::new().requests_per_minute(60), pacer, calendar, now);
        for _ in 0..5 {
            account.take(now, ONE, calendar).unwrap();
        }
        account.refused(now, Dimension::RequestsPerMinute, Some(30));
        assert_eq!(account.limit(Dimension::RequestsPerMinute, now), Some(30));
        assert!(account.take(now, ONE, calendar).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_young_account_does_not_blame_others_for_what_was_before_it() {
        let now = Instant::now();
        let calendar = calendar("2026-06-01T07:00:00Z", now);
        let limit = |account: &Account, at| account.limit(Dimension::RequestsPerMinute, at);
        let mut account = Account::new(Limits::new().requests_per_minute(60), None, calendar, now);
        account.take(now, ONE, calendar).unwrap();
        account.refused(now, Dimension::RequestsPerMinute, Some(60));
        assert_eq!(limit(&account, now), Some(60));
        let later = now + WINDOW;
        for _ in 0..40 {
            account.take(later, ONE, calendar).unwrap();
        }
        account.refused(later, Dimension::RequestsPerMinute, Some(60));
        assert_eq!(limit(&account, later), Some(38));
    }

    #[tokio::test(start_paused = true)]
    async fn a_scope_that_was_counted_with_others_goes_on_from_there() {
        let now = Instant::now();
        let calendar = calendar("2026-06-01T07:00:00Z", now);
        let limits = Limits::new().requests_per_minute(3);
        let mut others = Account::new(limits, None, calendar, now);
        others.take(now, ONE, calendar).unwrap();
        others.hold(now, ONE, calendar).unwrap();
        let mut own = Account::new(limits, None, calendar, now).after(&others);
        assert_eq!((own.used(Dimension::RequestsPerMinute), own.used(Dimension::RequestsPerDay)), (1, 1));
        others.block(now + Duration::from_secs(5));
        own = own.after(&others);
        assert_eq!(own.take(now, ONE, calendar), Err(now + Duration::from_secs(5)));
        assert!(!own.is_forgettable(now + Duration::from_secs(60), calendar));
        assert!(own.is_forgettable(now + WINDOW, calendar));
    }
}
