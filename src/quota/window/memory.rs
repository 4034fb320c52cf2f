//! The charges of a window in a form that outlives the process, or can be told to another one.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Amount, SlidingWindow, WINDOW};
use crate::clock::TimeAnchor;

/// The seconds within which charges are kept as one, which counts from the end of them: at most 14 for a window.
const PIECE: u64 = 5;

/// The charges of a window, the oldest first: the seconds from 1970 to their time, requests, and tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct WindowMemory(Vec<(u64, u64, u64)>);

impl WindowMemory {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl SlidingWindow {
    /// Returns the charges that count, without those that are only held.
    pub(crate) fn memory(&self, anchor: TimeAnchor) -> WindowMemory {
        let mut pieces: Vec<(u64, u64, u64)> = Vec::new();
        for entry in self.entries.iter().filter(|entry| entry.amount != Amount::default()) {
            let (at, Amount { requests, tokens }) = (anchor.seconds_at(entry.at).div_ceil(PIECE) * PIECE, entry.amount);
            match pieces.last_mut().filter(|last| last.0 == at) {
                Some(last) => (last.1, last.2) = (last.1.saturating_add(requests), last.2.saturating_add(tokens)),
                None => pieces.push((at, requests, tokens)),
            }
        }
        WindowMemory(pieces)
    }

    /// Charges what was charged in another process, unless something is charged already.
    pub(crate) fn restore(&mut self, memory: &WindowMemory, anchor: TimeAnchor, now: Instant) {
        if !self.entries.is_empty() {
            return;
        }
        let charges = memory.0.iter().map(|(at, requests, tokens)| {
            let amount = Amount { requests: *requests, tokens: *tokens };
            (anchor.time_of(*at).min(now), amount)
        });
        let mut charges: Vec<_> = charges.filter(|(at, _)| *at + WINDOW > now).collect();
        charges.sort_by_key(|(at, _)| *at);
        for (at, amount) in charges {
            self.charge(at, amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn restored_charges_count_as_long_as_they_did_and_at_most_a_piece_and_a_second_longer(
            charges in prop::collection::vec((0u64..60_000, 1u64..9, 0u64..9), 0..50),
            asked in 0u64..70_000,
        ) {
            let (old, now) = (Instant::now(), Instant::now() + Duration::from_secs(7_777));
            let mut charges = charges;
            charges.sort();
            let (mut window, mut restored) = (SlidingWindow::default(), SlidingWindow::default());
            for (at, requests, tokens) in charges {
                window.charge(old + Duration::from_millis(at), Amount { requests, tokens });
            }
            // The new process begins 60 s after the old one.
            let minute = Duration::from_secs(60);
            restored.restore(&window.memory(TimeAnchor::new(1_000, old)), TimeAnchor::new(1_060, now), now);
            let mut ages_ago = window.clone();
            let asked = Duration::from_millis(asked);
            restored.expire(now + asked);
            window.expire(old + minute + asked);
            prop_assert!(window.used().is_within(restored.used()), "{window:?} {restored:?}");
            let longer = Duration::from_secs(PIECE + 1);
            ages_ago.expire((old + minute + asked).checked_sub(longer).unwrap());
            prop_assert!(restored.used().is_within(ages_ago.used()), "{ages_ago:?} {restored:?}");
        }
    }

    #[test]
    fn charges_from_the_future_count_from_now_and_nothing_is_charged_twice() {
        let now = Instant::now();
        let (mut window, anchor) = (SlidingWindow::default(), TimeAnchor::new(1_000, now));
        let memory = WindowMemory(vec![(u64::MAX, u64::MAX, 1), (999, u64::MAX, 2), (900, 7, 7)]);
        window.restore(&memory, anchor, now);
        window.restore(&memory, anchor, now);
        assert_eq!(window.used(), Amount { requests: u64::MAX, tokens: 3 });
        window.expire(now + WINDOW);
        assert!(window.is_empty() && window.used() == Amount::default());
    }
}
