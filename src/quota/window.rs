//! A sliding window over the charges of the last minute.
//!
//! Every charge counts for a whole minute from its own time, so that no minute, wherever it begins, holds more than the
//! limit. Charges close together share an entry, which counts from the *latest* of them: that errs to the safe side, by
//! at most [`GRAIN`], and bounds the memory. Pure: the caller passes the time.

mod memory;

use std::{collections::VecDeque, num::NonZeroU64, time::Duration};

use tokio::time::Instant;

/// An amount of what counts in a minute: requests and input tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) requests: u64,
    pub(crate) tokens: u64,
}

impl Amount {
    pub(crate) fn plus(self, other: Self) -> Self {
        let (requests, tokens) =
            (self.requests.saturating_add(other.requests), self.tokens.saturating_add(other.tokens));
        Self { requests, tokens }
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        let (requests, tokens) =
            (self.requests.saturating_sub(other.requests), self.tokens.saturating_sub(other.tokens));
        Self { requests, tokens }
    }

    pub(crate) fn min(self, other: Self) -> Self {
        Self { requests: self.requests.min(other.requests), tokens: self.tokens.min(other.tokens) }
    }

    /// Returns the amount of `count` of `all` equal parts, rounded down; nothing where there is none.
    pub(crate) fn share(self, count: usize, all: usize) -> Self {
        let (count, all) = (count as u128, all as u128);
        let of = |amount: u64| {
            let share = (u128::from(amount) * count).checked_div(all).unwrap_or_default();
            u64::try_from(share).unwrap_or(u64::MAX)
        };
        Self { requests: of(self.requests), tokens: of(self.tokens) }
    }

    pub(crate) fn is_within(self, limit: Self) -> bool {
        self.requests <= limit.requests && self.tokens <= limit.tokens
    }
}

/// The time for which a charge counts: the API's minute, and [`SLACK`].
pub(crate) const WINDOW: Duration = Duration::from_secs(60).saturating_add(SLACK);

/// The tolerance for requests that are delayed on the way. One that waits for a connection or a resent packet arrives
/// later than it was charged, and the next one may not: this much of a difference cannot put one too many into a minute
/// of the upstream's.
pub(crate) const SLACK: Duration = Duration::from_millis(250);

/// The time within which charges share an entry: at most 242 entries of 48 bytes, 12 KiB, however many requests there
/// are. Costs at most 0.4 % of the limit.
pub(crate) const GRAIN: Duration = Duration::from_millis(250);

/// The time that [`SLACK`] and [`GRAIN`] together add to a wait for a whole window.
pub(crate) const MARGIN: Duration = SLACK.saturating_add(GRAIN);

/// The number of entries whose memory an empty window keeps, and that a compacted one has at most.
const KEPT: usize = 8;

/// The charges that currently count.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlidingWindow {
    entries: VecDeque<ChargeEntry>,
    /// The time before which no current charge expires; `None` without charges.
    quiet_until: Option<Instant>,
    /// The number of entries dropped at the front, so that an entry's number never changes.
    dropped: u64,
    used: Amount,
    /// The amount held for calls that are not sent yet: it counts, and does not expire.
    held: Amount,
}

/// Charges that were made close together.
#[derive(Clone, Copy, Debug)]
struct ChargeEntry {
    /// The time from which a new charge makes a new entry.
    closes: Instant,
    /// The time of the latest charge.
    at: Instant,
    amount: Amount,
}

pub(crate) use self::memory::WindowMemory;

/// The number of an entry, counted from 1 since the window was made, by which a charge is found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryNumber(NonZeroU64);

impl EntryNumber {
    /// Returns the number, by which a charge can be named outside.
    pub(crate) fn get(self) -> u64 {
        self.0.get()
    }

    /// Reads a number that was named outside; `None`: no entry has it.
    pub(crate) fn of(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }
}

impl SlidingWindow {
    /// Drops the charges that no longer count.
    #[inline]
    pub(crate) fn expire(&mut self, now: Instant) {
        if self.quiet_until.is_some_and(|until| until <= now) {
            self.drop_expired(now);
        }
    }

    fn drop_expired(&mut self, now: Instant) {
        while let Some(entry) = self.entries.front() {
            let ends = entry.at + WINDOW;
            if ends > now {
                self.quiet_until = Some(ends);
                return;
            }
            self.used = self.used.minus(entry.amount);
            self.entries.pop_front();
            self.dropped += 1;
        }
        self.quiet_until = None;
        if self.entries.capacity() > KEPT {
            self.entries = VecDeque::new();
        }
    }

    /// Returns the amount that currently counts.
    #[inline]
    pub(crate) fn used(&self) -> Amount {
        self.used.plus(self.held)
    }

    /// Returns the time before which no charge expires; `None` without charges.
    pub(crate) fn falls_at(&self) -> Option<Instant> {
        self.quiet_until
    }

    /// Returns whether nothing counts any more.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.held == Amount::default()
    }

    /// Holds an amount until it is [released](Self::release).
    pub(crate) fn hold(&mut self, amount: Amount) {
        self.held = self.held.plus(amount);
    }

    /// Releases a held amount: its call is charged now, or has been dropped.
    pub(crate) fn release(&mut self, amount: Amount) {
        self.held = self.held.minus(amount);
    }

    /// Returns a copy of the charges in at most [`KEPT`] entries, without the held amount, which no call would release
    /// there. No charge counts for a shorter time in the copy.
    pub(crate) fn compacted(&self) -> Self {
        let merged = self.entries.len().div_ceil(KEPT).max(1);
        let mut brief = Self { quiet_until: self.quiet_until, ..Self::default() };
        for (nth, entry) in self.entries.iter().enumerate() {
            brief.used = brief.used.plus(entry.amount);
            match brief.entries.back_mut() {
                Some(last) if nth % merged > 0 => {
                    (last.at, last.amount) = (entry.at, last.amount.plus(entry.amount));
                }
                _ => brief.entries.push_back(*entry),
            }
        }
        brief
    }

    /// Adds a charge. The caller has checked that it fits.
    #[inline]
    pub(crate) fn charge(&mut self, now: Instant, amount: Amount) -> EntryNumber {
        self.used = self.used.plus(amount);
        match self.entries.back_mut() {
            Some(last) if now < last.closes => {
                last.at = last.at.max(now);
                last.amount = last.amount.plus(amount);
            }
            _ => {
                self.quiet_until.get_or_insert(now + WINDOW);
                self.entries.push_back(ChargeEntry { closes: now + GRAIN, at: now, amount });
            }
        }
        EntryNumber(NonZeroU64::MIN.saturating_add(self.dropped + self.entries.len() as u64 - 1))
    }

    /// Corrects a charge from `before`, which was reserved, to `after`, unless it has expired. No more is given back than
    /// its entry holds.
    pub(crate) fn correct(&mut self, number: EntryNumber, before: Amount, after: Amount) {
        let Some(at) = number.0.get().checked_sub(self.dropped + 1) else { return };
        let Some(entry) = usize::try_from(at).ok().and_then(|at| self.entries.get_mut(at)) else { return };
        let before = before.min(entry.amount);
        entry.amount = entry.amount.minus(before).plus(after);
        self.used = self.used.minus(before).plus(after);
    }

    /// Returns whether `amount`, which is within `limit`, fits under it now.
    #[inline]
    pub(crate) fn fits(&self, amount: Amount, limit: Amount) -> bool {
        self.used().plus(amount).is_within(limit)
    }

    /// Returns when `amount` will fit under `limit`, if nothing else is charged. An amount over the limit counts as the
    /// limit.
    pub(crate) fn fits_at(&self, now: Instant, amount: Amount, limit: Amount) -> Instant {
        let fits = |used: Amount| used.plus(amount.min(limit)).is_within(limit);
        let mut used = self.used();
        if fits(used) {
            return now;
        }
        for entry in &self.entries {
            used = used.minus(entry.amount);
            if fits(used) {
                return entry.at + WINDOW;
            }
        }
        now + WINDOW
    }

    /// Returns the earliest time at which all of `amount` will have been admitted, if nothing is admitted before
    /// `start`. Every charge comes back after a window, and so do those that follow it: for amounts above the limit,
    /// such as a whole queue's.
    pub(crate) fn admitted_at(&self, start: Instant, amount: Amount, limit: Amount) -> Instant {
        let requests = self.admitted_in_one(start, amount.requests, limit.requests, |amount| amount.requests);
        let tokens = self.admitted_in_one(start, amount.tokens, limit.tokens, |amount| amount.tokens);
        requests.max(tokens)
    }

    /// Returns the time for one dimension.
    fn admitted_in_one(&self, now: Instant, amount: u64, limit: u64, of: impl Fn(Amount) -> u64) -> Instant {
        // These entries have expired by then.
        let gone = self.entries.iter().take_while(|entry| entry.at + WINDOW <= now).count();
        let counting = self.entries.iter().skip(gone);
        let used = counting.clone().fold(of(self.held), |used, entry| used.saturating_add(of(entry.amount)));
        let free = limit.saturating_sub(used);
        let Some(short) = amount.checked_sub(free).filter(|short| *short > 0) else { return now };
        // The used part and the free part of the limit both become free once a window.
        let cycle = limit.max(1);
        let (cycles, mut rest) = ((short - 1) / cycle, (short - 1) % cycle + 1);
        let later = WINDOW.saturating_mul(u32::try_from(cycles).unwrap_or(u32::MAX));
        let far = |at: Instant| at.checked_add(later).unwrap_or(at + WINDOW * 60 * 24);
        for entry in counting {
            match rest.checked_sub(of(entry.amount)) {
                None | Some(0) => return far(entry.at + WINDOW),
                Some(left) => rest = left,
            }
        }
        far(now + WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum WindowStep {
        Wait(u64),
        Ask(u64, u64),
        Correct(usize, u64),
    }

    fn steps() -> impl Strategy<Value = Vec<WindowStep>> {
        let step = prop_oneof![
            3 => (0u64..9_000).prop_map(WindowStep::Wait),
            1 => (0u64..90_000).prop_map(WindowStep::Wait),
            8 => (1u64..3, 0u64..60).prop_map(|(requests, tokens)| WindowStep::Ask(requests, tokens)),
            2 => (0usize..50, 0u64..80).prop_map(|(which, tokens)| WindowStep::Correct(which, tokens)),
        ];
        proptest::collection::vec(step, 1..150)
    }

    fn paused<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test)
    }

    proptest! {
        /// The plain model is the list of all charges that were ever made.
        #[test]
        fn no_minute_holds_more_than_the_limit_and_none_is_wasted(steps in steps(), requests in 1u64..12, tokens in 60u64..200) {
            paused(async {
                let limit = Amount { requests, tokens };
                let mut now = Instant::now();
                let mut window = SlidingWindow::default();
                let mut all: Vec<(Instant, Amount, EntryNumber)> = Vec::new();
                for step in steps {
                    match step {
                        WindowStep::Wait(ms) => now += Duration::from_millis(ms),
                        WindowStep::Ask(requests, tokens) => {
                            let amount = Amount { requests, tokens }.min(limit);
                            window.expire(now);
                            let at = window.fits_at(now, amount, limit);
                            let counting = |since: Duration| all.iter()
                                .filter(|(at, ..)| *at + since > now)
                                .fold(Amount::default(), |sum, (_, amount, _)| sum.plus(*amount));
                            if at <= now {
                                assert!(counting(Duration::from_secs(60)).plus(amount).is_within(limit));
                                all.push((now, amount, window.charge(now, amount)));
                            } else {
                                // It is refused only if it does not fit, apart from the grain's cost.
                                assert!(!counting(WINDOW + GRAIN).plus(amount).is_within(limit));
                                // At the time that was named, it fits.
                                window.expire(at);
                                assert_eq!(window.fits_at(at, amount, limit), at);
                                now = at;
                            }
                        }
                        WindowStep::Correct(which, tokens) => {
                            let Some(which) = which.checked_rem(all.len().max(1)).filter(|_| !all.is_empty()) else { continue };
                            let (at, before, number) = all[which];
                            // Only down, so that the limit still holds afterwards.
                            let after = Amount { requests: before.requests, tokens: before.tokens.min(tokens) };
                            window.expire(now);
                            window.correct(number, before, after);
                            all[which] = (at, after, number);
                        }
                    }
                }
                now += WINDOW;
                window.expire(now);
                assert!(window.is_empty() && window.used() == Amount::default());
            });
        }

        #[test]
        fn memory_is_bounded_whatever_comes(gaps in proptest::collection::vec(0u64..400, 0..3_000)) {
            paused(async {
                let mut now = Instant::now();
                let mut window = SlidingWindow::default();
                for gap in gaps {
                    now += Duration::from_millis(gap);
                    window.expire(now);
                    window.charge(now, Amount { requests: 1, tokens: 1 });
                    assert!(window.entries.len() <= 243);
                }
            });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn compacted_it_counts_the_same_and_no_charge_for_less_long() {
        let one = Amount { requests: 1, tokens: 3 };
        for charges in [0, 1, 7, 8, 9, 100, 242] {
            let begun = Instant::now();
            let mut window = SlidingWindow::default();
            window.hold(one);
            (0..charges).for_each(|nth| _ = window.charge(begun + GRAIN * nth, one));
            let mut brief = window.compacted();
            assert!(brief.entries.len() <= KEPT && brief.held == Amount::default());
            window.release(one);
            for nth in 0..=charges {
                let now = begun + WINDOW + GRAIN * nth;
                window.expire(now);
                brief.expire(now);
                assert!(window.used().is_within(brief.used()), "{charges} {nth}");
                assert!(brief.used().requests - window.used().requests <= u64::from(charges).div_ceil(KEPT as u64));
            }
            assert!(brief.is_empty() && brief.used() == Amount::default());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_is_admitted_a_limit_at_a_time() {
        let now = Instant::now();
        let limit = Amount { requests: 10, tokens: u64::MAX };
        let of = |requests| Amount { requests, tokens: 0 };
        let mut window = SlidingWindow::default();
        assert_eq!(window.admitted_at(now, of(10), limit), now);
        assert_eq!(window.admitted_at(now, of(11), limit), now + WINDOW);
        assert_eq!(window.admitted_at(now, of(30), limit), now + WINDOW * 2);
        window.charge(now, of(4));
        let later = now + Duration::from_secs(5);
        window.charge(later, of(6));
        assert_eq!(window.admitted_at(later, of(4), limit), now + WINDOW);
        assert_eq!(window.admitted_at(later, of(5), limit), later + WINDOW);
        assert_eq!(window.admitted_at(later, of(14), limit), now + WINDOW * 2);
    }
}
