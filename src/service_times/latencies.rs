//! A sample of the times that successes take, and its percentiles.

use std::time::Duration;

/// The times that recent successes took: a sample.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    pub(super) millis: [u32; Self::KEPT],
    pub(super) known: usize,
    pub(super) next: usize,
}

impl Latencies {
    pub(super) const KEPT: usize = 64;
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
        let mut sorted = self.millis;
        let sorted = &mut sorted[..self.known];
        sorted.sort_unstable();
        let p95 = sorted.get(place_of(95, self.known))?;
        Some(Duration::from_millis((*p95).into()))
    }
}

/// Returns the place of a percentile in the order of so many times. The 0th is the least time.
pub(super) fn place_of(percent: usize, known: usize) -> usize {
    (known * percent).div_ceil(100).saturating_sub(1)
}

impl Default for Latencies {
    fn default() -> Self {
        Self { millis: [0; Self::KEPT], known: 0, next: 0 }
    }
}
