//! The attempt's clock by the times that answers have taken.
//!
//! [`Seen`] is pure. [`TimedAttempt`] takes its numbers from the handle, and records the time of the answer there.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{TimeoutLayer, clocks::CallClocks};
use crate::{
    call::ServiceTier,
    context::Deadline,
    failure::TimeoutKind,
    service_times::{ModelTimes, ServiceTimes},
};

/// The state of affairs when an attempt begins.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// The times of the model: no answer was faster than `quick`, and few were slower than `p95`.
    quick: Duration,
    p95: Duration,
    /// The attempts of this call, at this model, that a clock has ended.
    timed_out: u32,
    /// The time until the call's deadline.
    remaining: Option<Duration>,
}

impl Seen {
    /// Returns the clock of the attempt, which is never longer than `set`.
    fn limit(self, set: Duration) -> Duration {
        let Self { quick, p95, timed_out, remaining } = self;
        let wanted = match timed_out {
            0 => first_clock(p95),
            1 => p95.saturating_mul(6).max(TimeoutLayer::ADAPTIVE_FLOOR),
            _ => set,
        };
        let limit = wanted.min(set);
        let Some(remaining) = remaining else { return limit };
        let usual = p95.saturating_mul(5) / 4;
        let limit = limit.min(usual.max(remaining / 2));
        // This attempt has the rest as well if no further one could be answered in it.
        if remaining.saturating_sub(limit) < quick { set } else { limit }
    }
}

/// Returns the clock of a call's first attempt, where there is time enough.
fn first_clock(p95: Duration) -> Duration {
    (p95.saturating_mul(3) / 2).max(TimeoutLayer::ADAPTIVE_FLOOR)
}

/// The rule by which an attempt's clock may be shorter than it is set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adapting {
    pub(super) timed_out: u32,
    pub(super) deadline: Option<Deadline>,
}

impl Adapting {
    /// Returns the state of affairs, once enough of the model's times are known, and as long as clocks by them do good.
    fn seen(self, model: &ModelTimes, streams: bool, began: Instant) -> Option<Seen> {
        let (quick, p95) = (model.quick(streams)?, model.p95(streams).filter(|_| !model.are_regretted(streams))?);
        let remaining = self.deadline.map(|deadline| deadline.remaining(began));
        Some(Seen { quick, p95, timed_out: self.timed_out, remaining })
    }
}

/// An attempt whose time is recorded, and whose clock may be set by the times of others.
#[derive(Debug)]
pub(super) struct TimedAttempt {
    times: ServiceTimes,
    name: Arc<str>,
    tier: ServiceTier,
    streams: bool,
    /// `None`: the clock is as it is set.
    adapting: Option<Adapting>,
    /// The times of the model, and the clock by them, once anything is pending.
    begun: Option<BegunAttempt>,
}

#[derive(Debug)]
struct BegunAttempt {
    model: Option<Arc<ModelTimes>>,
    /// The clock, which holds where it is shorter than it is set.
    limit: Duration,
}

impl TimedAttempt {
    pub(super) fn new(
        times: ServiceTimes,
        name: Arc<str>,
        tier: ServiceTier,
        streams: bool,
        adapting: Option<Adapting>,
    ) -> Self {
        Self { times, name, tier, streams, adapting, begun: None }
    }

    /// Returns the clock by the times that are known, if it is shorter than the one that is set.
    pub(super) fn shorter(&mut self, set: Duration, began: Instant) -> Option<Duration> {
        if self.begun.is_none() {
            self.begun = Some(self.begin(set, began));
        }
        self.begun.as_ref().map(|begun| begun.limit).filter(|limit| *limit < set)
    }

    fn begin(&self, set: Duration, began: Instant) -> BegunAttempt {
        let model = self.times.of(&self.tier.of_model(&self.name));
        let seen = self.adapting.zip(model.as_deref());
        let seen = seen.and_then(|(adapting, model)| adapting.seen(model, self.streams, began));
        BegunAttempt { model, limit: seen.map_or(Duration::MAX, |seen| seen.limit(set)) }
    }

    /// Returns whether the attempt goes on although its clock, shorter than it is set, has run out: the times by which
    /// it was set have become longer, are in doubt, or were found to do no good. The clock is longer then.
    pub(super) fn goes_on(&mut self, set: Duration, began: Instant) -> bool {
        let Some(BegunAttempt { model: Some(model), limit }) = &mut self.begun else { return false };
        let seen = self.adapting.and_then(|adapting| adapting.seen(model, self.streams, began));
        *limit = match seen {
            // Meanwhile cuts were found to do no good.
            None => Duration::MAX,
            Some(seen) if *limit < seen.limit(set) => seen.limit(set),
            Some(seen) if model.are_in_doubt(self.streams) => limit.saturating_add(first_clock(seen.p95)),
            Some(_) => {
                model.note_cut(self.streams);
                return false;
            }
        };
        true
    }

    /// Records that the attempt was answered.
    pub(super) fn answered(&self, took: Duration) {
        let known = self.begun.as_ref().and_then(|begun| begun.model.as_deref());
        let Some(model) = known else {
            self.times.record(&self.tier.of_model(&self.name), self.streams, took);
            return;
        };
        let in_time = model.p95(self.streams).is_none_or(|p95| took <= first_clock(p95));
        if in_time {
            model.note_in_time(self.streams);
        }
        if self.adapting.is_some_and(|adapting| adapting.timed_out > 0) {
            model.judge_cut(self.streams, in_time);
        }
        model.record(self.streams, took);
    }
}

/// Returns the clock that runs for an attempt which began at `began`, and its name.
pub(super) fn running(
    clocks: CallClocks,
    timed: Option<&mut TimedAttempt>,
    began: Instant,
) -> Option<(TimeoutKind, Duration)> {
    let set = clocks.limit?;
    Some(match timed.and_then(|timed| timed.shorter(set, began)) {
        Some(limit) => (clocks.kind_of_attempt(), limit),
        None => (clocks.kind, set),
    })
}

/// Returns whether an attempt goes on although its clock has run out after `limit`: it is made longer.
pub(super) fn goes_on(clocks: CallClocks, timed: Option<&mut TimedAttempt>, began: Instant, limit: Duration) -> bool {
    match (timed, clocks.limit) {
        (Some(timed), Some(set)) => limit < set && timed.goes_on(set, began),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Returns the clocks of the attempts of one call that all hang, until its deadline, where others are answered:
    /// else the times are in doubt from the fourth attempt on.
    fn hangs(quick: u64, p95: u64, set: u64, total: u64) -> Vec<u64> {
        let (mut remaining, mut clocks) = (secs(total), Vec::new());
        while !remaining.is_zero() {
            let seen =
                Seen { quick: secs(quick), p95: secs(p95), timed_out: clocks.len() as u32, remaining: Some(remaining) };
            let limit = seen.limit(secs(set)).min(remaining);
            clocks.push(limit.as_secs());
            remaining -= limit;
        }
        clocks
    }

    #[test]
    fn each_attempt_of_a_call_that_hangs_leaves_time_for_another_where_others_are_answered() {
        // The floor, six times the p95, and then halves of the rest.
        assert_eq!(hangs(1, 5, 180, 285), [10, 30, 122, 61, 30, 15, 7, 6, 1]);
        // A person waits: the total clock bounds the second attempt.
        assert_eq!(hangs(3, 5, 45, 60), [10, 25, 12, 6, 6]);
        // A model that thinks, under the relay's clocks, and under those that are made for it.
        assert_eq!(hangs(63, 117, 180, 285), [146, 138]);
        assert_eq!(hangs(63, 117, 300, 720), [175, 272, 146, 126]);
        assert_eq!(hangs(30, 40, 180, 285), [60, 112, 56, 56]);
    }

    #[test]
    fn the_clock_is_as_set_where_it_is_short_and_where_only_one_attempt_fits() {
        let seen = |p95, timed_out, remaining: Option<u64>| Seen {
            quick: secs(p95),
            p95: secs(p95),
            timed_out,
            remaining: remaining.map(secs),
        };
        assert_eq!(seen(1, 0, None).limit(secs(8)), secs(8));
        assert_eq!(seen(1, 0, None).limit(secs(45)), TimeoutLayer::ADAPTIVE_FLOOR);
        assert_eq!(seen(20, 0, None).limit(secs(180)), secs(30));
        assert_eq!(seen(20, 1, None).limit(secs(180)), secs(120));
        assert_eq!(seen(20, 2, None).limit(secs(180)), secs(180));
        assert_eq!(seen(40, 0, Some(60)).limit(secs(180)), secs(180));
    }

    proptest! {
        /// Never over what is set; never so long that nothing is left although something could have been; and never so
        /// short that a usual answer is cut.
        #[test]
        fn a_clock_keeps_its_bounds(
            quick in 0u64..200_000,
            slower in 0u64..200_000,
            timed_out in 0u32..6,
            remaining in prop::option::of(0u64..900_000),
            set in 1u64..900_000,
        ) {
            let millis = Duration::from_millis;
            let (quick, p95, set) = (millis(quick), millis(quick + slower), millis(set));
            let remaining = remaining.map(millis);
            let limit = Seen { quick, p95, timed_out, remaining }.limit(set);
            prop_assert!(limit <= set);
            prop_assert!(limit == set || limit >= p95.saturating_mul(5) / 4, "{limit:?} of p95 {p95:?}");
            if let Some(remaining) = remaining
                && limit < set
            {
                prop_assert!(remaining.saturating_sub(limit) >= quick);
                prop_assert!(limit <= (remaining / 2).max(p95.saturating_mul(5) / 4));
            }
            // More time, or more time-outs without a deadline, are never a reason for a shorter clock.
            let later = Seen { quick, p95, timed_out: timed_out + 1, remaining: None }.limit(set);
            let now = Seen { quick, p95, timed_out, remaining: None }.limit(set);
            prop_assert!(now <= later);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_wrong_three_times_is_made_longer_until_answers_come_in_time() {
        let (times, began) = (ServiceTimes::new(), Instant::now());
        (0..16).for_each(|_| times.record("m", false, secs(20)));
        let attempt = || {
            let adapting = Some(Adapting { timed_out: 0, deadline: None });
            TimedAttempt::new(times.clone(), "m".into(), ServiceTier::Standard, false, adapting)
        };
        for _ in 0..3 {
            let mut cut = attempt();
            assert_eq!(cut.shorter(secs(180), began), Some(secs(30)));
            assert!(!cut.goes_on(secs(180), began));
        }
        let mut slow = attempt();
        for limit in [30, 60, 90, 120, 150] {
            assert_eq!(slow.shorter(secs(180), began), Some(secs(limit)));
            assert!(slow.goes_on(secs(180), began));
        }
        assert_eq!(slow.shorter(secs(180), began), None, "as it is set");
        // A late answer leaves the doubt, and one in time ends it.
        slow.answered(secs(170));
        let mut next = attempt();
        next.shorter(secs(180), began);
        assert!(next.goes_on(secs(180), began));
        next.answered(secs(30));
        let mut next = attempt();
        next.shorter(secs(180), began);
        assert!(!next.goes_on(secs(180), began));
    }
}
