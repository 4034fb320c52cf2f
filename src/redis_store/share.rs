//! The share that an instance may take while the server does not answer.
//!
//! It may take as much as leaves each other instance the same: of what was free when the server was last seen, a part by the
//! number of instances, and a fifth less than that for what others have taken since. What was seen ages, so that the share
//! grows to its full size within a minute.
//!
//! Nor is it there at once. An instance that is cut off alone, or that was stalled while a burst of the others used the limit up,
//! mostly hears of it within a fraction of a second: from an answer that comes late, or from its next look at the server.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::{
    script::{Contents, DayEnd, KeyId, SLOT, Slot},
    server_clock::ServerClock,
};
use crate::quota::{Dimension, window::Amount};

/// The time for which a charge counts after the end of its slot.
const COUNTS: Duration = Duration::from_millis(60_250);

/// The wait that is named where no wait makes an amount fit into the share: the server may be back by then.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The time after the loss of the server for which nothing is taken, and the time after that within which the share grows to
/// its size: a look at the server, and some.
const HELD: Duration = Duration::from_millis(400);
const GROWS: Duration = Duration::from_millis(1_200);

/// The stretch of time in which the largest step of the totals is kept.
const STEPS: Duration = Duration::from_millis(500);

/// The time within which all that can have told new contents what those before them had.
const TOLD_BY_ALL: Duration = Duration::from_secs(3);

/// The limits of a question, in the script's order: requests a minute, input tokens a minute, requests a day.
pub(super) type LimitsInOrder = [Option<u64>; 3];

/// The totals of all instances as last seen, and the charges of this one's share that no total has.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnShare {
    seen: AgingSum,
    seen_day: (DayEnd, u64),
    own: AgingSum,
    own_day: (DayEnd, u64),
    /// The requests of a day that were told, and count into the share until that time.
    held_day: Option<(Instant, DayEnd, u64)>,
    /// The largest steps by which the totals grew from one answer to the next, in two stretches of time, the later first.
    steps: [Option<(Instant, Amount)>; 2],
    /// The time of the last loss of the server that was reckoned with.
    lost: Option<Instant>,
    /// The totals of the last answer, and the time at which it came.
    replied: Option<(Instant, [u64; 3])>,
    /// The contents that `seen` was read from, and others that were seen since, with the time at which they first were.
    source: KeyId,
    newer: Option<(KeyId, Instant)>,
}

/// Amounts that each count until a time of their own.
#[derive(Clone, Debug, Default)]
struct AgingSum(VecDeque<(Instant, Amount)>);

impl AgingSum {
    /// Adds an amount. Amounts that end within a quarter of a slot of each other count until the later of both, which bounds
    /// the memory.
    fn add(&mut self, until: Instant, amount: Amount) {
        if amount == Amount::default() {
            return;
        }
        let after = self.0.partition_point(|(end, _)| *end <= until);
        match after.checked_sub(1).and_then(|before| self.0.get_mut(before)) {
            Some(last) if until - last.0 < SLOT / 4 => *last = (until, last.1.plus(amount)),
            _ => self.0.insert(after, (until, amount)),
        }
    }

    fn expire(&mut self, now: Instant) {
        while self.0.front().is_some_and(|(until, _)| *until <= now) {
            self.0.pop_front();
        }
    }

    /// Returns the sum of what counts at a time.
    fn at(&self, now: Instant) -> Amount {
        self.0.iter().filter(|(until, _)| *until > now).fold(Amount::default(), |sum, (_, amount)| sum.plus(*amount))
    }

    /// Takes an amount off, from the latest first: what is left counts no longer than it would have.
    fn remove(&mut self, mut amount: Amount) {
        for (_, counted) in self.0.iter_mut().rev() {
            let off = amount.min(*counted);
            (*counted, amount) = (counted.minus(off), amount.minus(off));
        }
        self.0.retain(|(_, counted)| *counted != Amount::default());
    }

    fn ends(&self) -> impl Iterator<Item = Instant> {
        self.0.iter().map(|(until, _)| *until)
    }
}

impl OwnShare {
    /// Learns from an answer that these amounts count: what no slot is known of counts from now on.
    pub(super) fn replied(&mut self, now: Instant, used: [u64; 3], day: DayEnd) {
        self.seen.expire(now);
        self.replied = Some((now, used));
        self.seen_day = (day, used[2]);
        let used = Amount { requests: used[0], tokens: used[1] };
        let more = used.minus(self.seen.at(now));
        self.step(now, more);
        self.seen.add(now + SLOT + COUNTS, more);
    }

    fn step(&mut self, now: Instant, more: Amount) {
        match &mut self.steps[0] {
            Some((begun, most)) if now.saturating_duration_since(*begun) < STEPS => {
                *most = Amount { requests: most.requests.max(more.requests), tokens: most.tokens.max(more.tokens) };
            }
            first => self.steps = [Some((now, more)), first.take()],
        }
    }

    /// Reckons with the loss of the server: since the last answer, the totals may have grown by as much as they did lately from
    /// one answer to the next.
    fn lose(&mut self, since: Instant) {
        if self.lost.replace(since) == Some(since) {
            return;
        }
        let recent = self.steps.iter().flatten().filter(|(begun, _)| *begun + STEPS * 2 > since);
        let most = recent.fold(Amount::default(), |most, (_, step)| Amount {
            requests: most.requests.max(step.requests),
            tokens: most.tokens.max(step.tokens),
        });
        self.seen.add(since + SLOT + COUNTS, most);
    }

    /// Notes that a question of that amount was not answered: each of the others may have been granted as much since the last
    /// answer.
    pub(super) fn unanswered(&mut self, now: Instant, amount: Amount, instances: u32) {
        let others = u64::from(instances.saturating_sub(1));
        let of = |amount: u64| amount.saturating_mul(others);
        self.seen.add(now + SLOT + COUNTS, Amount { requests: of(amount.requests), tokens: of(amount.tokens) });
    }

    /// Learns the charges of all by slot, from contents that were asked for at `sent`.
    /// `is_another`: they are another server's, even if they have the same id.
    pub(super) fn mirrored(&mut self, sent: Instant, contents: &Contents, clock: &ServerClock, is_another: bool) {
        if !self.is_source(sent, contents.key, is_another) {
            // Not all have told yet what the contents before these had.
            let sum = contents.charges.iter().fold(Amount::default(), |sum, charge| {
                sum.plus(Amount { requests: charge.requests, tokens: charge.tokens })
            });
            self.seen.expire(sent);
            self.seen.add(sent + SLOT + COUNTS, sum.minus(self.seen.at(sent)));
            let today = counted(self.seen_day, contents.day_end).max(contents.today);
            self.seen_day = (contents.day_end, today);
            return;
        }
        self.seen.0.clear();
        for charge in &contents.charges {
            let amount = Amount { requests: charge.requests, tokens: charge.tokens };
            if let Some(end) = clock.end_of(Slot(charge.slot.0)) {
                self.seen.add(end + COUNTS, amount);
            }
        }
        self.seen_day = (contents.day_end, contents.today);
        // An answer that came since may have seen more.
        if let Some((at, used)) = self.replied.filter(|(at, _)| *at >= sent) {
            self.replied(at, used, contents.day_end);
        }
    }

    /// Returns whether what these contents have is all that is known: those that are new have it only when all have told them.
    fn is_source(&mut self, now: Instant, key: KeyId, is_another: bool) -> bool {
        if is_another {
            return false;
        }
        if self.source == key || self.source == KeyId(0) {
            (self.source, self.newer) = (key, None);
            return true;
        }
        match self.newer {
            Some((newer, since)) if newer == key => {
                if now.saturating_duration_since(since) < TOLD_BY_ALL {
                    return false;
                }
                (self.source, self.newer) = (key, None);
                true
            }
            _ => {
                self.newer = Some((key, now));
                false
            }
        }
    }

    /// Returns whether an amount fits into the share, and else the dimension in which it fits last, and the wait until then.
    pub(super) fn allows(
        &mut self,
        now: Instant,
        amount: Amount,
        limits: LimitsInOrder,
        day: (DayEnd, Duration),
        sharers: Sharers,
    ) -> Result<(), (Dimension, Duration)> {
        if let Some(since) = sharers.since {
            self.lose(since);
        }
        self.seen.expire(now);
        self.own.expire(now);
        let minute = |limit: Option<u64>, of: fn(Amount) -> u64| {
            limit.map_or(Duration::ZERO, |limit| self.wait(now, of, limit, of(amount), sharers))
        };
        let held =
            self.held_day.filter(|(until, ..)| *until > now).map_or(0, |(_, end, held)| counted((end, held), day.0));
        let (seen_today, own_today) = (counted(self.seen_day, day.0), counted(self.own_day, day.0) + held);
        let is_day_free = limits[2].is_none_or(|limit| {
            let most = sharers.part(limit, seen_today, now);
            own_today.saturating_add(amount.requests) <= most
        });
        let waits = [
            (Dimension::RequestsPerMinute, minute(limits[0], |amount| amount.requests)),
            (Dimension::InputTokensPerMinute, minute(limits[1], |amount| amount.tokens)),
            // The server may be back long before the day is over, and have more.
            (Dimension::RequestsPerDay, if is_day_free { Duration::ZERO } else { day.1.min(ASK_AGAIN) }),
        ];
        match waits.into_iter().max_by_key(|(_, wait)| *wait) {
            Some((dimension, wait)) if wait > Duration::ZERO => Err((dimension, wait)),
            _ => Ok(()),
        }
    }

    /// Returns the wait until an amount of one dimension fits.
    fn wait(&self, now: Instant, of: fn(Amount) -> u64, limit: u64, amount: u64, sharers: Sharers) -> Duration {
        let fits = |at: Instant| {
            let most = sharers.part(limit, of(self.seen.at(at)), at);
            of(self.own.at(at)).saturating_add(amount) <= most
        };
        if fits(now) {
            return Duration::ZERO;
        }
        // Both sums only fall, and the part only grows: the first time at which it fits is found by halving.
        let full = sharers.full_at().filter(|full| *full > now);
        if let Some(full) = full.filter(|full| fits(*full)) {
            let (mut short, mut long) = (Duration::ZERO, full - now);
            while long - short > Duration::from_millis(1) {
                let half = short + (long - short) / 2;
                if fits(now + half) { long = half } else { short = half }
            }
            return long;
        }
        let mut ends: Vec<Instant> = self.seen.ends().chain(self.own.ends()).collect();
        ends.sort_unstable();
        let first = ends.partition_point(|end| !fits(*end));
        ends.get(first).map_or(ASK_AGAIN, |end| *end - now)
    }

    /// Adds a charge of the share.
    pub(super) fn charge(&mut self, now: Instant, amount: Amount, day: DayEnd) {
        self.own.add(now + SLOT + COUNTS, amount);
        self.own_day = (day, counted(self.own_day, day) + amount.requests);
    }

    /// Adds a charge that the server has made and that counts into the share until a time: the others may be away still.
    pub(super) fn hold(&mut self, until: Instant, amount: Amount) {
        self.own.add(until, amount);
    }

    /// Takes a part of a charge off that was given back.
    pub(super) fn give_back(&mut self, amount: Amount, day: DayEnd) {
        self.own.remove(amount);
        if self.own_day.0 == day {
            self.own_day.1 = self.own_day.1.saturating_sub(amount.requests);
        }
    }

    /// Notes that the server knows the charges of the share now: they are in its totals. Until that time they count here all the
    /// same, because others may still be away, and have taken as much that the server does not know.
    pub(super) fn told(&mut self, until: Instant) {
        for (end, amount) in std::mem::take(&mut self.own.0) {
            self.seen.add(end, amount);
            self.own.add(end.min(until), amount);
        }
        let (day, own) = std::mem::take(&mut self.own_day);
        self.seen_day = (day.max(self.seen_day.0), counted(self.seen_day, day.max(self.seen_day.0)) + own);
        self.held_day = Some((until, day, own));
    }

    /// Returns the totals of all instances as last seen.
    pub(super) fn seen(&self, now: Instant, day: DayEnd) -> [u64; 3] {
        let seen = self.seen.at(now);
        [seen.requests, seen.tokens, counted(self.seen_day, day)]
    }

    /// Returns the totals with the charges of the share.
    pub(super) fn totals(&self, now: Instant, day: DayEnd) -> [u64; 3] {
        let ([requests, tokens, today], own) = (self.seen(now, day), self.own.at(now));
        [requests + own.requests, tokens + own.tokens, today + counted(self.own_day, day)]
    }

    /// Returns whether nothing is known that still counts.
    pub(super) fn is_empty(&self, now: Instant) -> bool {
        self.seen.at(now) == Amount::default() && self.own.at(now) == Amount::default()
    }
}

/// Returns the count of a day, which is 0 if the count is another day's.
fn counted((day, count): (DayEnd, u64), asked: DayEnd) -> u64 {
    if day == asked { count } else { 0 }
}

/// The instances that share, and the time from which they do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sharers {
    pub(super) instances: u32,
    /// The time at which the server was lost; `None` where the share counts besides the server's own decision.
    pub(super) since: Option<Instant>,
}

impl Sharers {
    /// Returns one instance's part of what is free: four fifths, by the number of instances, and less at first.
    fn part(self, limit: u64, seen: u64, now: Instant) -> u64 {
        let free = u128::from(limit.saturating_sub(seen));
        let grown =
            self.since.map_or(GROWS, |since| now.saturating_duration_since(since).saturating_sub(HELD).min(GROWS));
        let part = free * 4 * grown.as_millis() / (5 * u128::from(self.instances.max(1)) * GROWS.as_millis());
        u64::try_from(part).unwrap_or(u64::MAX)
    }

    /// Returns the time at which the share has its size.
    fn full_at(self) -> Option<Instant> {
        self.since.map(|since| since + HELD + GROWS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: DayEnd = DayEnd(1_795_248_000);
    const NIGHT: Duration = Duration::from_secs(3_600);
    const FOUR: Sharers = Sharers { instances: 4, since: None };

    fn amount(requests: u64, tokens: u64) -> Amount {
        Amount { requests, tokens }
    }

    proptest! {
        /// The plain model is a list of all charges of all instances. They see the same before the failure, and each decides
        /// alone after it.
        #[test]
        fn instances_that_see_nothing_of_each_other_stay_within_the_limit_together(
            before in prop::collection::vec((0u64..60_000, 1u64..8), 0..30),
            after in prop::collection::vec((0u64..3_000, 0usize..4, 1u64..4), 0..200),
            limit in 1u64..200,
        ) {
            let begun = Instant::now();
            let failed = begun + Duration::from_secs(60);
            let mut all: Vec<(Instant, u64)> = Vec::new();
            let mut shares = vec![OwnShare::default(); 4];
            let mut before = before;
            before.sort();
            for (ms, requests) in before {
                let at = begun + Duration::from_millis(ms);
                let used: u64 = all.iter().filter(|(end, _)| *end > at).map(|(_, requests)| requests).sum();
                if used + requests > limit {
                    continue;
                }
                all.push((at + Duration::from_secs(60), requests));
                for share in &mut shares {
                    // An answer says at least what counts.
                    share.replied(at, [used + requests, 0, 0], DAY);
                }
            }
            let mut now = failed;
            for (ms, who, requests) in after {
                now += Duration::from_millis(ms);
                let share = &mut shares[who];
                match share.allows(now, amount(requests, 0), [Some(limit), None, None], (DAY, NIGHT), FOUR) {
                    Ok(()) => {
                        share.charge(now, amount(requests, 0), DAY);
                        all.push((now + Duration::from_secs(60), requests));
                    }
                    Err((dimension, wait)) => {
                        prop_assert_eq!(dimension, Dimension::RequestsPerMinute);
                        prop_assert!(wait > Duration::ZERO);
                        // At the time that was named it fits, if the share is ever large enough.
                        let mut later = share.clone();
                        let fits = later.allows(now + wait, amount(requests, 0), [Some(limit), None, None], (DAY, NIGHT), FOUR);
                        prop_assert_eq!(fits.is_ok(), requests <= limit * 4 / 20);
                    }
                }
                let used: u64 = all.iter().filter(|(end, _)| *end > now).map(|(_, requests)| requests).sum();
                prop_assert!(used <= limit, "{} of {}", used, limit);
            }
        }
    }

    #[test]
    fn the_share_grows_as_what_was_seen_ages() {
        let now = Instant::now();
        let mut share = OwnShare::default();
        let limits = [Some(100), None, None];
        share.replied(now, [100, 0, 0], DAY);
        let (dimension, wait) = share.allows(now, amount(20, 0), limits, (DAY, NIGHT), FOUR).unwrap_err();
        assert_eq!((dimension, wait), (Dimension::RequestsPerMinute, Duration::from_millis(60_750)));
        assert_eq!(share.allows(now + wait, amount(20, 0), limits, (DAY, NIGHT), FOUR), Ok(()));
        assert_eq!(share.allows(now + wait, amount(21, 0), limits, (DAY, NIGHT), FOUR).unwrap_err().1, ASK_AGAIN);
    }

    #[test]
    fn the_share_is_held_for_a_look_at_the_server_and_then_grows() {
        let (lost, ms) = (Instant::now(), Duration::from_millis);
        let sharers = Sharers { instances: 4, since: Some(lost) };
        let limits = [Some(60), None, None];
        let mut share = OwnShare::default();
        for (after, part) in [(0, 0), (400, 0), (499, 0), (500, 1), (999, 5), (1_000, 6), (1_600, 12), (9_000, 12)] {
            let now = lost + ms(after);
            let mut allows = |requests| share.allows(now, amount(requests, 0), limits, (DAY, NIGHT), sharers).is_ok();
            assert!((part == 0 || allows(part)) && !allows(part + 1), "{after}");
        }
        let (_, wait) = share.allows(lost + ms(100), amount(6, 0), limits, (DAY, NIGHT), sharers).unwrap_err();
        assert!((ms(900)..ms(902)).contains(&wait), "{wait:?}");
        assert_eq!(
            share.allows(lost + ms(100), amount(13, 0), limits, (DAY, NIGHT), sharers).unwrap_err().1,
            ASK_AGAIN
        );
        // An answer that comes late says that a burst has used it all.
        share.replied(lost + ms(50), [60, 0, 0], DAY);
        assert!(share.allows(lost + ms(1_600), amount(1, 0), limits, (DAY, NIGHT), sharers).is_err());
    }

    #[test]
    fn a_question_without_an_answer_stands_for_one_of_each_of_the_others() {
        let now = Instant::now();
        let mut share = OwnShare::default();
        let limits = [Some(100), None, None];
        share.replied(now, [90, 0, 0], DAY);
        assert_eq!(share.allows(now, amount(2, 0), limits, (DAY, NIGHT), FOUR), Ok(()));
        share.unanswered(now, amount(1, 10), 4);
        share.unanswered(now, amount(1, 10), 4);
        assert_eq!(share.seen(now, DAY), [96, 60, 0]);
        assert!(share.allows(now, amount(1, 0), limits, (DAY, NIGHT), FOUR).is_err());
    }

    #[test]
    fn what_others_took_between_the_last_answers_they_may_have_taken_after_them() {
        let (now, ms) = (Instant::now(), Duration::from_millis);
        let mut share = OwnShare::default();
        for (after, used) in [(0, 10), (600, 14), (601, 22), (1_000, 23)] {
            share.replied(now + ms(after), [used, 0, 0], DAY);
        }
        let lost = now + ms(1_200);
        let sharers = Sharers { instances: 4, since: Some(lost) };
        let limits = [Some(60), None, None];
        assert_eq!(share.allows(lost + ms(1_600), amount(5, 0), limits, (DAY, NIGHT), sharers), Ok(()));
        // Once for each loss.
        assert_eq!(share.seen(lost + ms(1_600), DAY)[0], 23 + 8);
        assert!(share.allows(lost + ms(1_600), amount(6, 0), limits, (DAY, NIGHT), sharers).is_err());
        assert_eq!(share.seen(lost + ms(1_600), DAY)[0], 23 + 8);
    }

    #[test]
    fn told_charges_leave_the_share_and_stay_in_what_was_seen() {
        let now = Instant::now();
        let mut share = OwnShare::default();
        let limits = [Some(100), Some(1_000), Some(50)];
        assert_eq!(share.allows(now, amount(10, 100), limits, (DAY, NIGHT), FOUR), Ok(()));
        share.charge(now, amount(10, 100), DAY);
        assert_eq!(
            share.allows(now, amount(1, 0), limits, (DAY, NIGHT), FOUR).unwrap_err().0,
            Dimension::RequestsPerDay
        );
        assert_eq!(
            share.allows(now, amount(1, 101), [Some(100), Some(1_000), None], (DAY, NIGHT), FOUR).unwrap_err().0,
            Dimension::InputTokensPerMinute
        );
        let later = now + Duration::from_secs(2);
        share.told(later);
        assert_eq!(share.seen(now, DAY), [10, 100, 10]);
        // Of the share of before, nothing is taken a second time while others may be away.
        assert_eq!(
            share.allows(now, amount(1, 0), limits, (DAY, NIGHT), FOUR).unwrap_err().0,
            Dimension::RequestsPerDay
        );
        assert_eq!(
            share.allows(now, amount(9, 0), [Some(100), None, None], (DAY, NIGHT), FOUR).unwrap_err().1,
            later - now
        );
        assert_eq!(share.allows(later, amount(8, 0), limits, (DAY, NIGHT), FOUR), Ok(()));
        assert!(share.is_empty(now + Duration::from_secs(61)));
    }

    #[test]
    fn a_mirror_replaces_what_was_seen_but_not_what_came_after_it() {
        let now = Instant::now();
        let ms = Duration::from_millis;
        let mut clock = ServerClock::default();
        clock.learn(1_795_000_000_000, now, now);
        let mut contents = Contents { day_end: DAY, today: 7, ..Contents::default() };
        contents.charges.push(super::super::script::SlotCharge {
            slot: Slot(3_590_000_000 - 60),
            requests: 5,
            tokens: 50,
        });
        let mut share = OwnShare::default();
        share.replied(now, [40, 400, 40], DAY);
        share.mirrored(now + ms(1), &contents, &clock, false);
        assert_eq!(share.seen(now + ms(2), DAY), [5, 50, 7]);
        // The slot ended 29.5 s ago.
        assert_eq!(share.seen(now + ms(30_749), DAY)[0], 5);
        assert_eq!(share.seen(now + ms(30_752), DAY)[0], 0);
        share.replied(now + ms(3), [6, 60, 8], DAY);
        share.mirrored(now + ms(2), &contents, &clock, false);
        assert_eq!(share.seen(now + ms(4), DAY), [6, 60, 8]);
    }

    #[test]
    fn contents_that_are_new_or_another_servers_take_nothing_off_what_was_seen_until_all_have_told() {
        let now = Instant::now() + Duration::from_secs(100);
        let mut clock = ServerClock::default();
        clock.learn(1_790_000_000_000, now, now);
        let contents = |key, requests| Contents {
            key: KeyId(key),
            charges: vec![super::super::script::SlotCharge { slot: Slot(3_580_000_000), requests, tokens: 0 }],
            day_end: DAY,
            today: requests,
        };
        let mut share = OwnShare::default();
        share.mirrored(now, &contents(7, 60), &clock, false);
        let later = |ms| now + Duration::from_millis(ms);
        // One has told, and the others have not.
        share.mirrored(later(1), &contents(8, 5), &clock, false);
        assert_eq!(share.seen(later(1), DAY), [60, 0, 60]);
        // A server that is back with old data has the same id.
        share.mirrored(later(2), &contents(7, 5), &clock, true);
        assert_eq!(share.seen(later(2), DAY), [60, 0, 60]);
        share.mirrored(later(3), &contents(8, 70), &clock, false);
        assert_eq!(share.seen(later(3), DAY), [70, 0, 70]);
        share.mirrored(later(3_100), &contents(8, 20), &clock, false);
        assert_eq!(share.seen(later(3_100), DAY), [20, 0, 20]);
    }
}
