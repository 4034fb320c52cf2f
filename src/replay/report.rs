//! The state of the memory for kept bodies, for people and for metrics.

use std::{sync::Arc, time::Duration};

use super::ReplayMemory;
use crate::{
    context::Unkept,
    observe::{Observe, Reading, Value},
};

/// The state of the memory for kept bodies, as [`ReplayMemory::snapshot`] returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayReport {
    /// The bytes that are kept.
    pub used: usize,
    /// The most bytes that are kept at the same time.
    pub max: usize,
    /// The most bytes of one caller, where that is set.
    pub max_per_caller: Option<usize>,
    /// The number of bodies that are kept, or are being collected.
    pub bodies: usize,
    /// The number of callers that have sent them. All calls without a caller are those of one.
    pub callers: usize,
    /// The caller that keeps most, and its bytes. `None` in place of a name: the calls without a caller.
    pub largest: Option<(Option<Arc<str>>, usize)>,
    /// The bodies that were not kept, since the memory was made.
    pub unkept: UnkeptCounts,
    /// The time since a body was last not kept for want of room.
    pub last_without_room: Option<Duration>,
}

/// The number of bodies that were not kept, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnkeptCounts {
    /// Those that are larger than a body that is kept may be; uploads of files are among them.
    pub too_large: u64,
    /// Those for which the memory of all had no room.
    pub no_room: u64,
    /// Those for which their caller's share had no room.
    pub caller_share: u64,
}

impl UnkeptCounts {
    pub(super) fn count(&mut self, why: Unkept) {
        match why {
            Unkept::TooLarge => self.too_large += 1,
            Unkept::NoRoom => self.no_room += 1,
            Unkept::CallerShare => self.caller_share += 1,
        }
    }

    /// Returns the number of those that found no room, in the memory of all or in their caller's share.
    #[must_use]
    pub const fn without_room(&self) -> u64 {
        self.no_room + self.caller_share
    }
}

impl Observe for ReplayMemory {
    fn observe(&self, say: &mut dyn FnMut(Reading<'_>)) {
        let report = self.snapshot();
        let mut gauge = |name, value: usize| {
            say(Reading { name, value: Value::Gauge(value as f64), model: "", labels: &[] });
        };
        gauge("tower_gemini.kept.used", report.used);
        gauge("tower_gemini.kept.max", report.max);
        gauge("tower_gemini.kept.bodies", report.bodies);
        gauge("tower_gemini.kept.callers", report.callers);
        let UnkeptCounts { too_large, no_room, caller_share } = report.unkept;
        for (why, count) in
            [(Unkept::TooLarge, too_large), (Unkept::NoRoom, no_room), (Unkept::CallerShare, caller_share)]
        {
            let labels = [("reason", why.as_str())];
            say(Reading {
                name: "tower_gemini.kept.refused",
                value: Value::Counter(count),
                model: "",
                labels: &labels,
            });
        }
    }
}
