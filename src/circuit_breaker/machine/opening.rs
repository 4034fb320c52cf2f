//! The openings that a breaker is told of, and tells.

use tokio::time::Instant;

use super::{BreakerPhase, MAX_HINT, MOST_DOUBLINGS, Machine};
use crate::circuit_breaker::Reason;

/// A time for which a breaker admits nobody, by its own decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::circuit_breaker) struct BreakerOpening {
    pub(in crate::circuit_breaker) until: Instant,
    /// The openings since the last complete recovery, with this one.
    pub(in crate::circuit_breaker) openings: u32,
    /// The requests that failed before it.
    pub(in crate::circuit_breaker) failed: u32,
    /// True if another process has opened first.
    pub(in crate::circuit_breaker) is_told: bool,
}

impl Machine {
    /// Opens because another process has opened, or this program had before it was started anew. Only a breaker that is
    /// closed believes it: one that is open or has just been goes by its own probes. Returns whether it has opened.
    pub(in crate::circuit_breaker) fn learn(&mut self, told: BreakerOpening, now: Instant) -> bool {
        self.end_ramp(now);
        let until = told.until.min(now + MAX_HINT.max(self.rules.max_open));
        if now >= until || !matches!(self.phase, BreakerPhase::Closed) {
            return false;
        }
        // The next opening is as long as the other's next one.
        (self.openings, self.failed) = (told.openings.min(MOST_DOUBLINGS), told.failed);
        self.is_told = true;
        self.enter(BreakerPhase::Open { until }, Reason::OpenedElsewhere { failed: told.failed });
        if let Some(change) = &mut self.change {
            change.open_for = Some(until - now);
        }
        true
    }

    /// Returns its opening, while it is open by itself or was told to be.
    pub(in crate::circuit_breaker) fn opening(&self, now: Instant) -> Option<BreakerOpening> {
        match self.phase {
            BreakerPhase::Open { until } if now < until => {
                let (openings, failed, is_told) = (self.openings, self.failed, self.is_told);
                Some(BreakerOpening { until, openings, failed, is_told })
            }
            _ => None,
        }
    }

    /// Returns the number of probes that go out at once. Where another process has opened first, that one and all others
    /// that it has told send some, too.
    pub(super) fn probes(&self) -> u32 {
        if self.is_told { 1 } else { self.rules.probes }
    }
}
