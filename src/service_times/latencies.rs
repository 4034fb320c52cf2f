//! A sample of the times that successes take, and its percentiles.

use std::time::Duration;

/// The times that recent successes took: a sample.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    millis: [u32; Self::KEPT],
    known: usize,
    next: usize,
}

impl Latencies {
    const KEPT: usize = 64;
    /// The size of the sample up to which each success is timed.
    const ENOUGH: usize = 16;

    /// Adds a success to the sample, in place of the oldest.
    pub(crate) fn add(&mut self, latency: Duration) {
        self.millis[self.next] = latency.as_millis().try_into().unwrap_or(u32::MAX);
        self.known = self.known.max(self.next + 1);
        self.next = (self.next + 1) % Self::KEPT;
    }

    /// Returns whether the sample is large enough to judge by, and to time only some of the successes.
    pub(crate) fn are_enough(&self) -> bool {
        self.known >= Self::ENOUGH
    }

    /// Returns the 95th percentile, once any success is in the sample.
    pub(crate) fn p95(&self) -> Option<Duration> {
        self.percentiles([95]).map(|[p95]| p95)
    }

    /// Returns these percentiles, once any success is in the sample. The 0th is the least time.
    pub(crate) fn percentiles<const N: usize>(&self, percents: [usize; N]) -> Option<[Duration; N]> {
        if self.known == 0 {
            return None;
        }
        let mut sorted = self.millis;
        let sorted = &mut sorted[..self.known];
        sorted.sort_unstable();
        let at = |percent: usize| (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        Some(percents.map(|percent| Duration::from_millis(sorted[at(percent)].into())))
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self { millis: [0; Self::KEPT], known: 0, next: 0 }
    }
}
