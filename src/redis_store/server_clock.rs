//! The server's clock, as far as its answers tell it.
//!
//! An answer says a time of the server's that lies between the question and the answer. All answers together bound what its
//! clock shows now, from both sides.

use std::time::Duration;

use tokio::time::Instant;

use super::script::{SLOT, Slot};

/// The deadline of a question to a server whose time is not known: the largest number that a script can compare exactly.
const NO_DEADLINE: u64 = (1 << 53) - 1;

/// The time for which charges are kept for longer than they count.
const SLACK_MS: u64 = 250;

/// The bounds of the server's clock, in milliseconds since 1970. Nothing is known at first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ServerClock {
    bounds: Option<(Reading, Reading)>,
}

/// A time of the server's at a time of ours.
#[derive(Clone, Copy, Debug)]
struct Reading {
    ms: u64,
    at: Instant,
}

impl Reading {
    /// Returns the server's time at another time of ours.
    fn at(self, time: Instant) -> u64 {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        match time.checked_duration_since(self.at) {
            Some(since) => self.ms.saturating_add(millis(since)),
            // Rounded so that it is never later than it should be.
            None => self.ms.saturating_sub(millis(self.at - time) + 1),
        }
    }
}

impl ServerClock {
    /// Learns from an answer that says the server's time. One that contradicts all before it means that the clock was set, or
    /// that another server answers, and counts alone.
    pub(super) fn learn(&mut self, server_ms: u64, sent: Instant, received: Instant) {
        let (low, high) = (Reading { ms: server_ms, at: received }, Reading { ms: server_ms + 1, at: sent });
        self.bounds = Some(match self.bounds {
            Some((least, most)) if least.at(sent) <= server_ms + 1 && most.at(received) + 1 >= server_ms => {
                let low = if low.at(received) > least.at(received) { low } else { least };
                let high = if high.at(received) < most.at(received) { high } else { most };
                (low, high)
            }
            _ => (low, high),
        });
    }

    /// Returns whether an answer says a time that the clock cannot have reached but by a step, by more than charges are kept for
    /// longer than they count.
    pub(super) fn has_leapt(&self, server_ms: u64, received: Instant) -> bool {
        self.bounds.is_some_and(|(_, most)| server_ms > most.at(received).saturating_add(SLACK_MS))
    }

    pub(super) fn is_known(&self) -> bool {
        self.bounds.is_some()
    }

    /// Returns a time that the server's clock has reached by then.
    pub(super) fn at_least(&self, time: Instant) -> Option<u64> {
        Some(self.bounds?.0.at(time))
    }

    /// Returns a time that the server's clock has not passed by then.
    pub(super) fn at_most(&self, time: Instant) -> Option<u64> {
        Some(self.bounds?.1.at(time).saturating_add(1))
    }

    /// Returns the server's time from which a question is too late that is sent now and whose answer is awaited for `limit`.
    pub(super) fn deadline(&self, now: Instant, limit: Duration) -> u64 {
        self.at_least(now + limit).unwrap_or(NO_DEADLINE)
    }

    /// Returns a time by which a slot is over on the server.
    pub(super) fn end_of(&self, slot: Slot) -> Option<Instant> {
        let low = self.bounds?.0;
        let end = slot.0.saturating_add(1).saturating_mul(SLOT.as_millis() as u64);
        Some(match end.checked_sub(low.ms) {
            Some(later) => low.at + Duration::from_millis(later.min(1 << 40)),
            None => low.at.checked_sub(Duration::from_millis(low.ms - end)).unwrap_or(low.at),
        })
    }

    /// Returns a slot that a charge of that time cannot be later than.
    pub(super) fn slot_at(&self, time: Instant) -> Option<Slot> {
        Some(Slot(self.at_most(time)? / SLOT.as_millis() as u64))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: u64 = 1_795_000_000_000;

    proptest! {
        #[test]
        fn the_servers_time_is_within_the_bounds_whatever_the_network_does(
            calls in prop::collection::vec((0u64..3_000, 0u64..300, 0u64..300), 1..50),
            offset in 0u64..100_000,
            asked in 0u64..90_000,
        ) {
            let begun = Instant::now();
            let server = |at: Instant| BASE + offset + at.duration_since(begun).as_millis() as u64;
            let mut clock = ServerClock::default();
            let mut now = begun;
            for (wait, there, back) in calls {
                let sent = now + Duration::from_millis(wait);
                let decided = sent + Duration::from_millis(there);
                now = decided + Duration::from_millis(back);
                clock.learn(server(decided), sent, now);
            }
            let asked = now + Duration::from_millis(asked);
            let (least, most) = (clock.at_least(asked).unwrap(), clock.at_most(asked).unwrap());
            prop_assert!(least <= server(asked) && server(asked) <= most, "{least} {} {most}", server(asked));
            let limit = Duration::from_millis(20);
            prop_assert!(clock.deadline(asked, limit) <= server(asked + limit));
            let slot = Slot(server(asked) / 500);
            prop_assert!(server(clock.end_of(slot).unwrap()) >= (slot.0 + 1) * 500);
            prop_assert!(clock.slot_at(asked).unwrap() >= slot);
        }

        #[test]
        fn a_clock_that_was_set_is_followed_with_the_next_answer(by in -5_000_000i64..5_000_000, trip in 0u64..100) {
            let now = Instant::now();
            let mut clock = ServerClock::default();
            let ms = Duration::from_millis;
            clock.learn(BASE, now, now + ms(trip));
            let set = BASE.checked_add_signed(by).unwrap() + 1_000;
            clock.learn(set, now + ms(1_000), now + ms(1_000 + trip));
            let (least, most) = (clock.at_least(now + ms(1_000 + trip)).unwrap(), clock.at_most(now + ms(1_000)).unwrap());
            prop_assert!(least.abs_diff(set) <= trip + 2, "{least} {set}");
            prop_assert!(most.abs_diff(set) <= trip + 3, "{most} {set}");
        }
    }

    #[test]
    fn a_server_that_never_answered_has_no_deadline() {
        let clock = ServerClock::default();
        assert!(!clock.is_known() && clock.slot_at(Instant::now()).is_none());
        assert_eq!(clock.deadline(Instant::now(), SLOT), 9_007_199_254_740_991);
    }

    #[test]
    fn a_step_by_more_than_the_slack_is_a_leap() {
        let now = Instant::now();
        let mut clock = ServerClock::default();
        assert!(!clock.has_leapt(1 << 50, now));
        clock.learn(1_000_000, now, now);
        let later = now + Duration::from_secs(1);
        assert!(!clock.has_leapt(1_001_200, later) && !clock.has_leapt(0, later) && clock.has_leapt(1_001_300, later));
    }
}
