//! The four clocks, and which of them run for one call. Pure.

use std::time::Duration;

use super::TimeoutLayer;
use crate::{context::CallFlag, failure::TimeoutKind};

/// The clocks that are set. A clock that is `None` never runs out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clocks {
    pub(crate) total: Option<Duration>,
    pub(crate) attempt: Option<Duration>,
    pub(crate) first_content: Option<Duration>,
    pub(crate) idle: Option<Duration>,
    /// The clocks of tiers that may keep a call waiting.
    pub(crate) flex: FlexClocks,
}

/// The times that hold for a tier that may keep a call waiting, each in place of a clock that is set. `None`: the
/// default, or the clock itself where that is longer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FlexClocks {
    pub(crate) total: Option<Duration>,
    /// The time of one attempt: to a unary answer, or to a stream's first content.
    pub(crate) first_byte: Option<Duration>,
}

impl Clocks {
    /// Returns whether no clock is set.
    pub(super) fn are_all_stopped(&self) -> bool {
        let Self { total, attempt, first_content, idle, .. } = self;
        [total, attempt, first_content, idle].iter().all(|clock| clock.is_none())
    }

    /// Returns the total clock of a call whose tier may or may not keep it waiting, no longer than the caller's own
    /// time.
    pub(crate) fn total(&self, may_wait: bool, callers: Option<Duration>) -> Option<Duration> {
        let total = by_tier(self.total?, may_wait, self.flex.total, TimeoutLayer::FLEX_TOTAL);
        Some(callers.map_or(total, |callers| callers.min(total)))
    }

    /// Returns the clock of one attempt at an answer that streams, or is unary.
    pub(super) fn attempt(&self, streams: bool, may_wait: bool) -> Option<Duration> {
        let limit = if streams { self.first_content } else { self.attempt };
        Some(by_tier(limit?, may_wait, self.flex.first_byte, TimeoutLayer::FLEX_FIRST_BYTE))
    }

    /// Chooses the clocks that run for a call whose answer streams, or is unary.
    pub(super) fn for_call(&self, streams: bool, may_wait: bool, callers: Option<Duration>) -> CallClocks {
        let limit = self.attempt(streams, may_wait);
        let of_call = |kind, limit| CallClocks { kind, limit, streams, idle: self.idle };
        match self.total(may_wait, callers) {
            Some(total) if limit.is_none_or(|limit| total <= limit) => of_call(TimeoutKind::Total, Some(total)),
            _ => of_call(kind_of_attempt(streams), limit),
        }
    }
}

/// Names the clock of one attempt.
fn kind_of_attempt(streams: bool) -> TimeoutKind {
    if streams { TimeoutKind::FirstContent } else { TimeoutKind::Attempt }
}

/// Chooses a clock by tier.
fn by_tier(standard: Duration, may_wait: bool, flex: Option<Duration>, default: Duration) -> Duration {
    if may_wait { flex.unwrap_or(default.max(standard)) } else { standard }
}

/// The clocks of one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallClocks {
    /// The clock that runs until the response is there; for a stream, until its first content is.
    pub(super) kind: TimeoutKind,
    /// The time that this clock is set to.
    pub(super) limit: Option<Duration>,
    pub(super) streams: bool,
    /// The longest silence in an answer that has begun.
    pub(super) idle: Option<Duration>,
}

impl CallClocks {
    /// No clock at all.
    pub(super) const NONE: Self = Self { kind: TimeoutKind::Total, limit: None, streams: false, idle: None };

    /// Returns the name of the clock that ends an attempt, whichever of the clocks is the shortest.
    pub(super) fn kind_of_attempt(&self) -> TimeoutKind {
        kind_of_attempt(self.streams)
    }
}

/// The clocks of one call, of which one may be another once its tier is known.
#[derive(Clone, Debug)]
pub(super) struct ClocksByTier {
    clocks: CallClocks,
    later: Option<LaterClock>,
}

/// The clock that runs until the response is there, in place of the other one, once the flag is set.
#[derive(Clone, Debug)]
struct LaterClock {
    flag: CallFlag,
    kind: TimeoutKind,
    limit: Option<Duration>,
}

impl ClocksByTier {
    pub(super) fn of(clocks: CallClocks) -> Self {
        Self { clocks, later: None }
    }

    /// Sets the clocks that run once this flag is set. They are for an answer of the same form.
    pub(super) fn if_it_may_wait(&mut self, flag: CallFlag, clocks: CallClocks) {
        let CallClocks { kind, limit, .. } = clocks;
        self.later = Some(LaterClock { flag, kind, limit });
    }

    /// Returns the clocks that run, by what is known now.
    pub(super) fn now(&self) -> CallClocks {
        match &self.later {
            Some(LaterClock { flag, kind, limit }) if flag.is_set() => {
                CallClocks { kind: *kind, limit: *limit, ..self.clocks }
            }
            _ => self.clocks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_clock_runs_and_the_total_one_is_named_where_two_are_as_short() {
        let secs = |seconds| Some(Duration::from_secs(seconds));
        let clocks =
            Clocks { total: secs(9), attempt: secs(5), first_content: secs(3), idle: secs(2), ..Clocks::default() };
        for (streams, callers, expected) in [
            (false, None, (TimeoutKind::Attempt, secs(5))),
            (true, secs(20), (TimeoutKind::FirstContent, secs(3))),
            (false, secs(5), (TimeoutKind::Total, secs(5))),
            (true, secs(1), (TimeoutKind::Total, secs(1))),
        ] {
            let running = clocks.for_call(streams, false, callers);
            assert_eq!((running.kind, running.limit), expected);
            assert_eq!((running.streams, running.idle), (streams, secs(2)));
        }
        let none = Clocks::default();
        assert!(none.are_all_stopped() && none.for_call(true, false, secs(4)).limit.is_none());
    }

    #[test]
    fn a_tier_that_waits_has_clocks_of_its_own() {
        let secs = |seconds| Some(Duration::from_secs(seconds));
        let clocks = |total, attempt, flex| Clocks {
            total: secs(total),
            attempt: secs(attempt),
            first_content: secs(attempt),
            flex,
            ..Clocks::default()
        };
        let of = |clocks: Clocks, callers| [true, false].map(|streams| clocks.for_call(streams, true, callers).limit);
        let default = FlexClocks::default();
        assert_eq!(of(clocks(285, 180, default), None), [secs(900), secs(900)]);
        assert_eq!(clocks(285, 180, default).total(true, None), secs(960));
        assert_eq!(clocks(285, 180, default).total(true, secs(600)), secs(600));
        // Nobody who has longer clocks for other calls means shorter ones here.
        assert_eq!(of(clocks(7_200, 3_600, default), None), [secs(3_600), secs(3_600)]);
        assert_eq!(clocks(7_200, 180, default).total(true, None), secs(7_200));
        let short = FlexClocks { total: secs(50), first_byte: secs(40) };
        assert_eq!((of(clocks(285, 180, short), None)), [secs(40), secs(40)]);
        assert_eq!(of(clocks(285, 180, short), secs(30)), [secs(30), secs(30)]);
        assert_eq!(clocks(285, 180, short).total(true, secs(70)), secs(50));
        // A clock that is not set does not run.
        assert_eq!(of(Clocks { flex: short, ..Clocks::default() }, None), [None, None]);
    }
}
