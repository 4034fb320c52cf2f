//! What was charged in the last minute, exactly.
//!
//! A sliding window: every charge counts for a whole minute from its own moment, so that no minute, wherever it begins,
//! holds more than the limit. Charges close together share an entry, which counts from the *latest* of them: that errs to
//! the safe side, by at most [`GRAIN`], and bounds the memory. Pure: it is told the time.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::Amount;

/// How long a charge counts: the API's minute, and [`SLACK`].
pub(super) const WINDOW: Duration = Duration::from_secs(60).saturating_add(SLACK);

/// A request that waits on the way (a connection is made, a packet is sent again) arrives later than it was booked, the
/// next one may not. This much of a difference cannot put one too many into a minute of the upstream's.
pub(super) const SLACK: Duration = Duration::from_millis(250);

/// Charges that began within this time share an entry: at most 242 entries of 48 bytes, 12 KiB, however many requests there
/// are. Costs at most 0.4 % of the limit.
pub(super) const GRAIN: Duration = Duration::from_millis(250);

/// What the two together add to a wait for a whole turn of the window.
pub(super) const MARGIN: Duration = SLACK.saturating_add(GRAIN);

/// An empty window gives back the memory of more entries than these.
const KEPT: usize = 8;

/// The charges that count.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    entries: VecDeque<Entry>,
    /// How many entries have been dropped at the front, so that an entry's number never changes.
    dropped: u64,
    used: Amount,
    /// What was promised and is not sent yet: it counts, and no time ends it.
    held: Amount,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    began: Instant,
    /// The latest charge.
    at: Instant,
    amount: Amount,
}

/// Finds a charge again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position(u64);

impl Window {
    /// Forgets what no longer counts.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(entry) = self.entries.front() {
            if entry.at + WINDOW > now {
                return;
            }
            self.used = self.used.minus(entry.amount);
            self.entries.pop_front();
            self.dropped += 1;
        }
        if self.entries.capacity() > KEPT {
            self.entries = VecDeque::new();
        }
    }

    /// What counts at the moment.
    pub(super) fn used(&self) -> Amount {
        self.used.plus(self.held)
    }

    /// Whether nothing counts any more.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.held == Amount::default()
    }

    /// Sets something aside until it is released, and charged when it is sent.
    pub(super) fn hold(&mut self, amount: Amount) {
        self.held = self.held.plus(amount);
    }

    /// What was set aside is set aside no longer.
    pub(super) fn release(&mut self, amount: Amount) {
        self.held = self.held.minus(amount);
    }

    /// The same charges in a few entries, without what is only set aside: a small copy, that counts no charge for less
    /// long, and of which nobody will release anything.
    pub(super) fn in_brief(&self) -> Self {
        let merged = self.entries.len().div_ceil(KEPT).max(1);
        let mut brief = Self::default();
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

    /// Adds a charge. Whether it fits is the caller's question.
    pub(super) fn charge(&mut self, now: Instant, amount: Amount) -> Position {
        self.used = self.used.plus(amount);
        match self.entries.back_mut() {
            Some(last) if now.saturating_duration_since(last.began) < GRAIN => {
                last.at = last.at.max(now);
                last.amount = last.amount.plus(amount);
            }
            _ => self.entries.push_back(Entry { began: now, at: now, amount }),
        }
        Position(self.dropped + self.entries.len() as u64 - 1)
    }

    /// Corrects a charge that still counts: `before` was reserved, `after` is right.
    pub(super) fn correct(&mut self, position: Position, before: Amount, after: Amount) {
        let Some(at) = position.0.checked_sub(self.dropped) else { return };
        let Some(entry) = usize::try_from(at).ok().and_then(|at| self.entries.get_mut(at)) else { return };
        entry.amount = entry.amount.minus(before).plus(after);
        self.used = self.used.minus(before).plus(after);
    }

    /// When `amount` will fit under `limit`, if nothing else is charged. An amount over the limit counts as the limit.
    pub(super) fn fits_at(&self, now: Instant, amount: Amount, limit: Amount) -> Instant {
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

    /// When `amount` will have been admitted at the earliest, if nothing is before `start`: whatever is charged comes back
    /// after a window, and so does whatever is charged then. For amounts larger than the limit, such as a whole queue's.
    pub(super) fn admitted_at(&self, start: Instant, amount: Amount, limit: Amount) -> Instant {
        let requests = self.turn(start, amount.requests, limit.requests, |amount| amount.requests);
        let tokens = self.turn(start, amount.tokens, limit.tokens, |amount| amount.tokens);
        requests.max(tokens)
    }

    fn turn(&self, now: Instant, amount: u64, limit: u64, of: impl Fn(Amount) -> u64) -> Instant {
        // By then these have come back.
        let gone = self.entries.iter().take_while(|entry| entry.at + WINDOW <= now).count();
        let counting = self.entries.iter().skip(gone);
        let used = counting.clone().fold(of(self.held), |used, entry| used.saturating_add(of(entry.amount)));
        let free = limit.saturating_sub(used);
        let Some(short) = amount.checked_sub(free).filter(|short| *short > 0) else { return now };
        // All that is used now, and all that is free now, comes free once a window.
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
    enum Step {
        Wait(u64),
        Ask(u64, u64),
        Correct(usize, u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0u64..9_000).prop_map(Step::Wait),
            1 => (0u64..90_000).prop_map(Step::Wait),
            8 => (1u64..3, 0u64..60).prop_map(|(requests, tokens)| Step::Ask(requests, tokens)),
            2 => (0usize..50, 0u64..80).prop_map(|(which, tokens)| Step::Correct(which, tokens)),
        ];
        proptest::collection::vec(step, 1..150)
    }

    fn paused<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test)
    }

    proptest! {
        /// The plain model is the list of all charges ever.
        #[test]
        fn no_minute_holds_more_than_the_limit_and_none_is_wasted(steps in steps(), requests in 1u64..12, tokens in 60u64..200) {
            paused(async {
                let limit = Amount { requests, tokens };
                let mut now = Instant::now();
                let mut window = Window::default();
                let mut all: Vec<(Instant, Amount, Position)> = Vec::new();
                for step in steps {
                    match step {
                        Step::Wait(ms) => now += Duration::from_millis(ms),
                        Step::Ask(requests, tokens) => {
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
                                // Refused only if it would not have fitted, but for what the grain costs.
                                assert!(!counting(WINDOW + GRAIN).plus(amount).is_within(limit));
                                // And at that moment, it does.
                                window.expire(at);
                                assert_eq!(window.fits_at(at, amount, limit), at);
                                now = at;
                            }
                        }
                        Step::Correct(which, tokens) => {
                            let Some(which) = which.checked_rem(all.len().max(1)).filter(|_| !all.is_empty()) else { continue };
                            let (at, before, position) = all[which];
                            // Only down, so that the limit still holds afterwards.
                            let after = Amount { requests: before.requests, tokens: before.tokens.min(tokens) };
                            window.expire(now);
                            window.correct(position, before, after);
                            all[which] = (at, after, position);
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
                let mut window = Window::default();
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
    async fn in_brief_it_counts_the_same_and_no_charge_for_less_long() {
        let one = Amount { requests: 1, tokens: 3 };
        for charges in [0, 1, 7, 8, 9, 100, 242] {
            let begun = Instant::now();
            let mut window = Window::default();
            window.hold(one);
            (0..charges).for_each(|nth| _ = window.charge(begun + GRAIN * nth, one));
            let mut brief = window.in_brief();
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
        let mut window = Window::default();
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
