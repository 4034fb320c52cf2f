//! The four clocks, and which of them run for one call. Pure.

use std::time::Duration;

use crate::failure::TimeoutKind;

/// The clocks that are set. A clock that is `None` never runs out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clocks {
    pub(crate) total: Option<Duration>,
    pub(crate) attempt: Option<Duration>,
    pub(crate) first_content: Option<Duration>,
    pub(crate) idle: Option<Duration>,
}

impl Clocks {
    /// Returns whether no clock is set.
    pub(super) fn are_all_stopped(&self) -> bool {
        let Self { total, attempt, first_content, idle } = self;
        [total, attempt, first_content, idle].iter().all(|clock| clock.is_none())
    }

    /// Chooses the clocks that run for a call whose answer streams, or is unary. `total` is the total clock, no longer
    /// than the caller's own deadline.
    pub(super) fn for_call(self, streams: bool, total: Option<Duration>) -> CallClocks {
        let (kind, limit) = match streams {
            true => (TimeoutKind::FirstContent, self.first_content),
            false => (TimeoutKind::Attempt, self.attempt),
        };
        let (kind, limit) = match total {
            Some(total) if limit.is_none_or(|limit| total <= limit) => (TimeoutKind::Total, Some(total)),
            _ => (kind, limit),
        };
        CallClocks { kind, limit, streams, idle: self.idle }
    }
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_clock_runs_and_the_total_one_is_named_where_two_are_as_short() {
        let secs = |seconds| Some(Duration::from_secs(seconds));
        let clocks = Clocks { total: secs(9), attempt: secs(5), first_content: secs(3), idle: secs(2) };
        for (streams, total, expected) in [
            (false, secs(9), (TimeoutKind::Attempt, secs(5))),
            (true, secs(9), (TimeoutKind::FirstContent, secs(3))),
            (false, secs(5), (TimeoutKind::Total, secs(5))),
            (true, secs(1), (TimeoutKind::Total, secs(1))),
            (false, None, (TimeoutKind::Attempt, secs(5))),
        ] {
            let running = clocks.for_call(streams, total);
            assert_eq!((running.kind, running.limit), expected);
            assert_eq!((running.streams, running.idle), (streams, secs(2)));
        }
        let none = Clocks::default();
        assert!(none.are_all_stopped() && none.for_call(true, None).limit.is_none());
        assert_eq!(none.for_call(true, secs(4)).limit, secs(4));
    }
}
