//! The account of one scope: usage, limits and blocks. All dimensions are in one place, so that a request takes all of
//! them or none. Pure: the caller passes the time.

mod charge;
mod memory;
mod shared;

use std::time::Duration;

use tokio::time::Instant;

use self::shared::StoreView;
pub(super) use self::{
    charge::Charge,
    memory::AccountMemory,
    shared::{HeldBack, SharedCharge},
};
use super::{
    Amount,
    blocks::{BlockReport, Blocks, Looks, Shut},
    bound::Bound,
    pacing::Pacer,
    window::{SlidingWindow, WINDOW},
};
use crate::{
    block::{Claim, Passage},
    quota::{Dimension, Limits, PacificCalendar},
};

/// The dimensions, in the order of the arrays that hold a value for each.
pub(super) const DIMENSIONS: [Dimension; 3] =
    [Dimension::RequestsPerMinute, Dimension::InputTokensPerMinute, Dimension::RequestsPerDay];

/// Usage, limits, block and pace of one scope.
#[derive(Debug)]
pub(super) struct Account {
    limits: [Bound; 3],
    window: SlidingWindow,
    day: Day,
    /// The blocks by the upstream, boxed: most scopes have none.
    blocks: Option<Box<Blocks>>,
    pacer: Option<Pacer>,
    /// The answers of the store, boxed, where one counts the quota for others, too.
    store: Option<Box<StoreView>>,
    /// The time at which counting began. Earlier usage is unknown, so a refusal in the first minute does not prove that
    /// others use the quota.
    began: Instant,
    /// The time at which a refusal last named a limit.
    named_at: Instant,
}

/// The requests since midnight Pacific.
#[derive(Clone, Copy, Debug)]
struct Day {
    used: u64,
    /// The part of `used` that is not sent yet: at midnight it moves on to the next day.
    held: u64,
    ends: Instant,
    /// The number of the day, so that a charge of an earlier day is recognised.
    number: u32,
}

impl Account {
    pub(super) fn new(limits: Limits, pacer: Option<Pacer>, calendar: PacificCalendar, now: Instant) -> Self {
        let limits = DIMENSIONS.map(|dimension| Bound::new(limits.get(dimension)));
        let day = Day { used: 0, held: 0, ends: calendar.day_end(now), number: 0 };
        Self {
            limits,
            window: SlidingWindow::default(),
            day,
            blocks: None,
            pacer,
            store: None,
            began: now,
            named_at: now,
        }
    }

    /// Continues this account with another's usage and block: for a scope whose calls were counted there so far.
    pub(super) fn continuing(self, other: &Self) -> Self {
        let day = Day { used: other.day.used.saturating_sub(other.day.held), held: 0, ..other.day };
        Self { window: other.window.compacted(), day, blocks: other.blocks.clone(), ..self }
    }

    /// Takes the whole amount for a call that is sent at once.
    ///
    /// # Errors
    ///
    /// The time at which to try again; nothing is taken.
    #[inline]
    pub(super) fn take(
        &mut self,
        now: Instant,
        amount: Amount,
        grounded: bool,
        calendar: PacificCalendar,
    ) -> Result<Charge, Instant> {
        let (amount, looks) = self.reserve(now, amount, grounded, calendar)?;
        let entry = Some(self.window.charge(now, amount));
        Ok(Charge { entry, amount, day: self.day.number, looks, is_through: false })
    }

    /// Holds the whole amount for a call that is sent later. It counts from now on, and for a minute from
    /// [`Self::send`].
    ///
    /// # Errors
    ///
    /// The time at which to try again; nothing is held.
    pub(super) fn hold(
        &mut self,
        now: Instant,
        amount: Amount,
        grounded: bool,
        calendar: PacificCalendar,
    ) -> Result<Charge, Instant> {
        let (amount, looks) = self.reserve(now, amount, grounded, calendar)?;
        self.window.hold(amount);
        self.day.held += amount.requests;
        Ok(Charge { entry: None, amount, day: self.day.number, looks, is_through: false })
    }

    /// Charges a held amount, because its call is sent now.
    pub(super) fn send(&mut self, now: Instant, charge: Charge, calendar: PacificCalendar) -> Charge {
        if charge.entry.is_some() {
            return charge;
        }
        self.catch_up(now, calendar);
        self.window.release(charge.amount);
        self.day.held = self.day.held.saturating_sub(charge.amount.requests);
        Charge { entry: Some(self.window.charge(now, charge.amount)), day: self.day.number, ..charge }
    }

    /// Corrects a sent charge to the `tokens` that the call really cost. Returns whether that makes room.
    pub(super) fn settle(&mut self, charge: Charge, tokens: u64) -> bool {
        let Some(entry) = charge.entry else { return false };
        let after = Amount { tokens, ..charge.amount };
        self.window.correct(entry, charge.amount, after);
        tokens < charge.amount.tokens
    }

    /// Leaves one request of a batch that the upstream has refused as a whole. Returns whether that makes room.
    pub(super) fn leave_one(&mut self, charge: Charge) -> bool {
        let Some(entry) = charge.entry.filter(|_| charge.amount.requests > 1) else { return false };
        self.window.correct(entry, charge.amount, Amount { requests: 1, ..charge.amount });
        if charge.day == self.day.number {
            self.day.used = self.day.used.saturating_sub(charge.amount.requests - 1);
        }
        true
    }

    /// Refunds an amount that never reached the upstream or does not count there.
    pub(super) fn refund(&mut self, charge: Charge) {
        self.end_looks(charge);
        let requests = charge.amount.requests;
        match charge.entry {
            Some(entry) => self.window.correct(entry, charge.amount, Amount::default()),
            None => {
                self.window.release(charge.amount);
                self.day.held = self.day.held.saturating_sub(requests);
            }
        }
        // A held amount has moved on with the days.
        if charge.entry.is_none() || charge.day == self.day.number {
            self.day.used = self.day.used.saturating_sub(requests);
        }
    }

    /// Returns the earliest time at which the scope could have taken all of `ahead` and then `amount`.
    pub(super) fn turn_at(
        &mut self,
        now: Instant,
        ahead: Amount,
        amount: Amount,
        grounded: bool,
        calendar: PacificCalendar,
    ) -> Instant {
        self.catch_up(now, calendar);
        let limit = self.minute_limit(now);
        let all = ahead.plus(amount.min(limit));
        let day = if self.day_is_full(all) { self.day.ends } else { now };
        let closed = self.closed_until(now, amount, grounded);
        // A call behind the waiters is held back by all that holds them back.
        let most = if ahead == Amount::default() { amount.min(limit) } else { limit };
        let start = self.denied_until(now, most).map_or(closed, |until| until.max(closed));
        let at = self.window.fits_at(now, amount, limit).max(self.window.admitted_at(start, all, limit)).max(start);
        let even = self.pacer.as_ref().map_or(now, |pacer| {
            let limit = self.requests_limit(now);
            let turns = ahead.requests.saturating_add(pacer.turns(limit, amount.requests));
            pacer.gone_at(start, turns, limit)
        });
        at.max(day).max(even)
    }

    /// Blocks the scope, or its grounded calls only, as a refusal of the upstream claims.
    pub(super) fn block(&mut self, claim: Claim, grounded: bool, now: Instant) {
        let midnight = self.day.ends;
        self.blocks.get_or_insert_default().refused(claim, grounded, now, midnight);
    }

    /// Returns whether our own count agrees with a refusal in this dimension, which may have named its limit: what is
    /// left of it cannot be much.
    pub(super) fn agrees(
        &self,
        dimension: Option<Dimension>,
        named: Option<u64>,
        shared: Option<&SharedCharge>,
    ) -> bool {
        let of_all = |dimension| shared.map_or(0, |shared| shared.used(dimension));
        let used = dimension.map(|dimension| self.used(dimension).max(of_all(dimension)));
        matches!((used, named), (Some(used), Some(named)) if used.saturating_mul(2) >= named)
    }

    /// Forgets the blocks, and the day's limit that refusals have taught.
    pub(super) fn lift(&mut self) {
        self.blocks = None;
        self.limits[2].forget();
        self.forget_closing();
    }

    /// Returns the block that no call waits for.
    pub(super) fn shut(&self, now: Instant, grounded: bool) -> Option<Shut> {
        let own = self.blocks.as_ref().and_then(|blocks| blocks.shut(now, grounded));
        own.or_else(|| self.shut_by_others(now))
    }

    /// Ends the looks of a call that have shown nothing.
    pub(super) fn end_looks(&mut self, charge: Charge) {
        if let Some(blocks) = &mut self.blocks {
            blocks.end_looks(charge.looks);
        }
    }

    /// Ends the blocks that a successful call has looked at, and forgets the day's limit that they have taught. Returns
    /// whether that makes room.
    pub(super) fn succeeded(&mut self, charge: Charge, now: Instant) -> bool {
        let Some(blocks) = &mut self.blocks else { return false };
        let is_open = blocks.succeeded(charge.looks, now);
        if is_open {
            self.forget_learned_day();
        }
        is_open
    }

    /// Forgets the day's limit that refusals have taught, if it is used up: the upstream serves on.
    fn forget_learned_day(&mut self) {
        if self.limits[2].full().is_some_and(|full| self.known_today() >= full) {
            self.limits[2].forget();
        }
    }

    /// Learns from a refusal of the upstream in this dimension, which may have named its limit. The refused charge must
    /// have been refunded before. Where others share the quota through a store, the usage of all decides, as it was when
    /// the call was granted.
    pub(super) fn refused(
        &mut self,
        now: Instant,
        dimension: Dimension,
        named: Option<u64>,
        shared: Option<&SharedCharge>,
    ) {
        self.window.expire(now);
        let used = shared.map_or_else(|| self.used(dimension), |shared| shared.used(dimension));
        let bound = &mut self.limits[index(dimension)];
        if let Some(named) = named.filter(|named| *named > 0) {
            bound.learn(named);
            self.named_at = now;
        }
        let knows_the_minute = now >= self.began + WINDOW;
        if dimension != Dimension::RequestsPerDay && knows_the_minute {
            bound.refused(now, used);
        }
    }

    /// Returns the limit in force, if there is one.
    #[inline]
    pub(super) fn limit(&self, dimension: Dimension, now: Instant) -> Option<u64> {
        self.limits[index(dimension)].in_force(now)
    }

    /// Returns the limit that holds while no other program uses the quota.
    pub(super) fn full_limit(&self, dimension: Dimension) -> Option<u64> {
        self.limits[index(dimension)].full()
    }

    /// Returns whether there is a limit of input tokens.
    pub(super) fn limits_tokens(&self) -> bool {
        self.full_limit(Dimension::InputTokensPerMinute).is_some()
    }

    /// Returns the amount that currently counts in a dimension.
    pub(super) fn used(&self, dimension: Dimension) -> u64 {
        match dimension {
            Dimension::RequestsPerMinute => self.window.used().requests,
            Dimension::InputTokensPerMinute => self.window.used().tokens,
            Dimension::RequestsPerDay => self.day.used,
        }
    }

    /// Returns the time between two requests, where a pace is set.
    pub(super) fn interval(&self, now: Instant) -> Option<Duration> {
        self.pacer.as_ref()?.interval(self.requests_limit(now))
    }

    pub(super) fn learned(&self, dimension: Dimension) -> Option<u64> {
        self.limits[index(dimension)].learned()
    }

    pub(super) fn blocked_until(&self, now: Instant) -> Option<Instant> {
        let own = self.blocks.as_ref().and_then(|blocks| blocks.closed_until(now, false));
        own.max(self.closed_by_others(now))
    }

    /// Returns the blocks that have not ended.
    pub(super) fn blocks(&self, now: Instant) -> Vec<BlockReport> {
        self.blocks.as_ref().map(|blocks| blocks.report(now)).unwrap_or_default()
    }

    /// Returns the time until which reports show the scope as blocked.
    pub(super) fn rests_until(&self, now: Instant) -> Option<Instant> {
        let own = self.blocks.as_ref().and_then(|blocks| blocks.rests_until(now));
        own.max(self.closed_by_others(now))
    }

    /// Returns what a request of this amount adds to the queue: at most what it will be charged.
    pub(super) fn clamped(&self, amount: Amount, now: Instant) -> Amount {
        amount.min(self.minute_limit(now))
    }

    /// Returns whether forgetting the account now changes no decision.
    pub(super) fn is_forgettable(&mut self, now: Instant, calendar: PacificCalendar) -> bool {
        self.catch_up(now, calendar);
        let counts_days = self.limits[2].full().is_some() && self.day.used > 0;
        let knows = self.limits.iter().any(Bound::knows_anything);
        self.window.is_empty()
            && self.blocks.is_none()
            && self.closed_by_others(now).is_none()
            && !counts_days
            && !knows
    }

    /// Drops expired charges, a past day and a past block.
    #[inline]
    pub(super) fn catch_up(&mut self, now: Instant, calendar: PacificCalendar) {
        self.window.expire(now);
        if self.day.ends <= now {
            self.begin_day(now, calendar);
        }
        if self.blocks.as_mut().is_some_and(|blocks| blocks.expire(now)) {
            self.blocks = None;
        }
    }

    #[cold]
    fn begin_day(&mut self, now: Instant, calendar: PacificCalendar) {
        let Day { held, number, .. } = self.day;
        self.day = Day { used: held, held, ends: calendar.day_end(now), number: number.wrapping_add(1) };
    }

    /// Checks all dimensions and then the pace, so that a request that does not fit uses up no turn of the pace. Counts
    /// the request in the day; the caller charges the window.
    #[inline]
    fn reserve(
        &mut self,
        now: Instant,
        amount: Amount,
        grounded: bool,
        calendar: PacificCalendar,
    ) -> Result<(Amount, Looks), Instant> {
        self.catch_up(now, calendar);
        self.block_learned_day(now, amount);
        let limit = self.minute_limit(now);
        // An estimate above the limit is charged as the limit, so that the request passes once the window is empty.
        let charged = amount.min(limit);
        if !self.is_open(now, amount, grounded, limit) || !self.window.fits(charged, limit) {
            return Err(self.reserve_at(now, amount, grounded, limit));
        }
        if let Some(pacer) = &mut self.pacer {
            let limit = self.limits[0].in_force(now);
            let at = pacer.take(now, limit, charged.requests);
            if at > now {
                return Err(at);
            }
        }
        self.day.used += charged.requests;
        Ok((charged, self.begin_looks(now, grounded)))
    }

    /// Begins the looks of a call that passes a block.
    #[inline]
    fn begin_looks(&mut self, now: Instant, grounded: bool) -> Looks {
        self.blocks.as_mut().map_or(Looks::default(), |blocks| blocks.begin_looks(now, grounded))
    }

    /// Blocks the scope once the day's limit is used up that a refusal has taught, as the refusal would that comes next.
    /// It is no more certain than one: the limit may have been raised since.
    #[inline]
    fn block_learned_day(&mut self, now: Instant, amount: Amount) {
        let day = &self.limits[2];
        if day.learned().is_some()
            && day.full().is_some_and(|full| self.known_today().saturating_add(amount.requests) > full)
        {
            let is_blocked = self.blocks.as_ref().is_some_and(|blocks| blocks.blocks_all(now));
            if !is_blocked && !self.day_is_full(amount) {
                self.block(Claim::day().confirmed(), false, now);
                self.keep_to_itself();
            }
        }
    }

    /// Returns when to try again after a refusal now.
    #[cold]
    fn reserve_at(&self, now: Instant, amount: Amount, grounded: bool, limit: Amount) -> Instant {
        self.closed_until(now, amount, grounded).max(self.window.fits_at(now, amount, limit))
    }

    /// Returns whether anything is admitted at all, whatever the window holds.
    #[inline]
    fn is_open(&self, now: Instant, amount: Amount, grounded: bool, limit: Amount) -> bool {
        let is_blocked = |blocks: &Blocks| matches!(blocks.passage(now, grounded), Passage::Closed(_));
        !self.blocks.as_deref().is_some_and(is_blocked)
            && limit.requests > 0
            && limit.tokens > 0
            && !self.day_is_full(amount)
    }

    /// Returns the time until which nothing is admitted, whatever the window holds.
    fn closed_until(&self, now: Instant, amount: Amount, grounded: bool) -> Instant {
        let blocked =
            self.blocks.as_ref().and_then(|blocks| blocks.closed_until(now, grounded)).unwrap_or(now).max(now);
        let limit = self.minute_limit(now);
        // A limit of zero never opens; the day's end is the next time at which it may have been changed.
        let until_midnight = limit.requests == 0 || limit.tokens == 0 || self.day_is_full(amount);
        if until_midnight { blocked.max(self.day.ends) } else { blocked }
    }

    #[inline]
    fn day_is_full(&self, amount: Amount) -> bool {
        // A limit that was learned is a block.
        let limit = self.limits[2].configured();
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
    use crate::{
        failure::{Failure, Kind},
        rate_limit::Pacing,
    };

    const ONE: Amount = Amount { requests: 1, tokens: 10 };

    fn calendar(utc: &str, at: Instant) -> PacificCalendar {
        PacificCalendar::new(utc.parse::<jiff::Timestamp>().unwrap().into(), at)
    }

    #[tokio::test(start_paused = true)]
    async fn a_day_has_23_24_or_25_hours_and_ends_at_midnight_pacific() {
        for (midnight, hours) in [
            ("2026-03-08T08:00:00Z", 23),
            ("2026-03-09T07:00:00Z", 24),
            ("2026-11-01T07:00:00Z", 25),
            ("2026-11-02T08:00:00Z", 24),
        ] {
            // The limiter was made a week earlier: wall time is read once and derived from the clock after that.
            let week = Duration::from_secs(7 * 24 * 3600);
            let made = Instant::now();
            let now = made + week;
            let wall = midnight.parse::<jiff::Timestamp>().unwrap();
            let calendar = PacificCalendar::new(std::time::SystemTime::from(wall) - week, made);
            let mut account = Account::new(Limits::new().requests_per_day(2), None, calendar, now);
            let day = Duration::from_secs(hours * 3600);
            for at in [now, now + day - Duration::from_secs(1)] {
                account.take(at, ONE, false, calendar).unwrap();
            }
            let last = now + day - Duration::from_nanos(1);
            assert_eq!(account.take(last, ONE, false, calendar), Err(now + day), "{midnight}");
            // A quota of zero lasts as long.
            account.block(Claim::of(&Failure::local(Kind::QuotaZero, "")).unwrap(), false, last);
            assert_eq!(account.take(last, ONE, false, calendar), Err(now + day));
            account.take(now + day, ONE, false, calendar).unwrap();
            assert_eq!(account.used(Dimension::RequestsPerDay), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_back_after_midnight_is_yesterdays() {
        let now = Instant::now();
        let calendar = calendar("2026-06-01T06:59:59Z", now);
        let mut account = Account::new(Limits::new().requests_per_day(9), None, calendar, now);
        let sent = account.take(now, ONE, false, calendar).unwrap();
        let held = account.hold(now, ONE, false, calendar).unwrap();
        let dropped = account.hold(now, ONE, false, calendar).unwrap();
        let tomorrow = now + Duration::from_secs(1);
        account.take(tomorrow, ONE, false, calendar).unwrap();
        // The held ones will be sent today.
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
            assert_eq!(account.take(now, ONE, false, calendar), Err(day));
            assert_eq!(account.turn_at(now, Amount::default(), ONE, false, calendar), day);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_turn_of_the_pace_is_lost_on_what_does_not_fit() {
        let now = Instant::now();
        let calendar = calendar("2026-06-01T07:00:00Z", now);
        let pacer = Pacer::new(Pacing::Smooth { burst: NonZeroU32::new(2).unwrap() });
        let limits = Limits::new().requests_per_minute(60).input_tokens_per_minute(15);
        let mut account = Account::new(limits, pacer, calendar, now);
        let charge = account.take(now, ONE, false, calendar).unwrap();
        for _ in 0..10 {
            assert_eq!(account.take(now, ONE, false, calendar), Err(now + WINDOW));
        }
        assert!(account.settle(charge, 5));
        // The burst's second turn is still there, and the third is not.
        account.take(now, ONE, false, calendar).unwrap();
        let even = WINDOW / 60;
        let nothing = Amount { requests: 1, tokens: 0 };
        assert_eq!(account.turn_at(now, Amount::default(), nothing, false, calendar), now + even);
        assert_eq!(account.turn_at(now, nothing, nothing, false, calendar), now + even * 2);
        assert_eq!(account.take(now, nothing, false, calendar), Err(now + even));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_limit_gives_no_new_burst() {
        let now = Instant::now();
        let calendar = calendar("2026-06-01T07:00:00Z", now);
        let pacer = Pacer::new(Pacing::Smooth { burst: NonZeroU32::new(5).unwrap() });
        let mut account = Account::new(Limits::new().requests_per_minute(60), pacer, calendar, now);
        for _ in 0..5 {
            account.take(now, ONE, false, calendar).unwrap();
        }
        account.refused(now, Dimension::RequestsPerMinute, Some(30), None);
        assert_eq!(account.limit(Dimension::RequestsPerMinute, now), Some(30));
        assert!(account.take(now, ONE, false, calendar).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_young_account_does_not_blame_others_for_what_was_before_it() {
        let now = Instant::now();
        let calendar = calendar("2026-06-01T07:00:00Z", now);
        let limit = |account: &Account, at| account.limit(Dimension::RequestsPerMinute, at);
        let mut account = Account::new(Limits::new().requests_per_minute(60), None, calendar, now);
        account.take(now, ONE, false, calendar).unwrap();
        account.refused(now, Dimension::RequestsPerMinute, Some(60), None);
        assert_eq!(limit(&account, now), Some(60));
        let later = now + WINDOW;
        for _ in 0..40 {
            account.take(later, ONE, false, calendar).unwrap();
        }
        account.refused(later, Dimension::RequestsPerMinute, Some(60), None);
        assert_eq!(limit(&account, later), Some(40));
    }

    #[tokio::test(start_paused = true)]
    async fn a_scope_that_was_counted_with_others_goes_on_from_there() {
        let now = Instant::now();
        let calendar = calendar("2026-06-01T07:00:00Z", now);
        let limits = Limits::new().requests_per_minute(3);
        let mut others = Account::new(limits, None, calendar, now);
        others.take(now, ONE, false, calendar).unwrap();
        others.hold(now, ONE, false, calendar).unwrap();
        let mut own = Account::new(limits, None, calendar, now).continuing(&others);
        assert_eq!((own.used(Dimension::RequestsPerMinute), own.used(Dimension::RequestsPerDay)), (1, 1));
        others.block(
            Claim::of(&Failure::local(Kind::QuotaMinute, "").with_hint(Duration::from_secs(5))).unwrap(),
            false,
            now,
        );
        own = own.continuing(&others);
        assert_eq!(own.take(now, ONE, false, calendar), Err(now + Duration::from_secs(5)));
        assert!(!own.is_forgettable(now + Duration::from_secs(60), calendar));
        assert!(own.is_forgettable(now + WINDOW, calendar));
    }
}
