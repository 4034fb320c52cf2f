//! A sample of times that keeps its order, because its percentiles are asked for as often as a time is added.

use std::time::Duration;

use super::latencies::{Latencies, place_of};

/// A sample, and the order of its times.
#[derive(Debug)]
pub(super) struct OrderedLatencies {
    sample: Latencies,
    /// The places in the sample, the shortest time's first; those that are not known yet follow in their turn.
    order: [u8; Latencies::KEPT],
}

impl OrderedLatencies {
    /// Adds a success to the sample, in place of the oldest.
    pub(super) fn add(&mut self, latency: Duration) {
        let place = self.sample.next;
        self.sample.add(latency);
        let Latencies { millis, known, .. } = &self.sample;
        let time = |place: &u8| millis[usize::from(*place)];
        let new = millis[place];
        let order = &mut self.order[..*known];
        // One place moves; all others keep their order.
        let from = order.iter().position(|known| usize::from(*known) == place).unwrap_or_default();
        let shorter = order[..from].partition_point(|place| time(place) <= new);
        if shorter < from {
            order[shorter..=from].rotate_right(1);
        } else {
            let more = order[from + 1..].partition_point(|place| time(place) < new);
            order[from..=from + more].rotate_left(1);
        }
    }

    /// Returns whether the sample is large enough to judge by.
    pub(super) fn are_enough(&self) -> bool {
        self.sample.are_enough()
    }

    /// Returns this percentile, once any success is in the sample. The 0th is the least time.
    pub(super) fn percentile(&self, percent: usize) -> Option<Duration> {
        let known = self.sample.known;
        let place = self.order[..known].get(place_of(percent, known))?;
        Some(Duration::from_millis(self.sample.millis[usize::from(*place)].into()))
    }
}

impl Default for OrderedLatencies {
    fn default() -> Self {
        Self { sample: Latencies::default(), order: std::array::from_fn(|place| place as u8) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_percentile_is_that_of_the_sorted_sample(times in prop::collection::vec(0u64..40, 0..200), percent in 0usize..=100) {
            let mut ordered = OrderedLatencies::default();
            for end in 0..=times.len() {
                let mut last = times[end.saturating_sub(Latencies::KEPT)..end].to_vec();
                last.sort_unstable();
                let expected = last.get(place_of(percent, last.len())).copied().map(Duration::from_millis);
                prop_assert_eq!(ordered.percentile(percent), expected);
                prop_assert_eq!(ordered.percentile(95), ordered.sample.p95());
                times.get(end).into_iter().for_each(|time| ordered.add(Duration::from_millis(*time)));
            }
        }
    }
}
