//! The limit of one dimension: as configured, as a 429 has named it, and lowered for a minute or longer, then growing,
//! where others use the same quota.
//!
//! A 429 below the limit means that another program uses the rest. The limit in force then falls to the usage at that
//! moment, but to no less than half of what it was: a program that has lost one race for the minute has seen nothing of
//! its share. It stays there, and grows back along a cubic curve as TCP's CUBIC does: slowly near the point where it
//! failed, faster beyond. If it fails again because it has grown, the use by others is a steady one, and each further
//! attempt waits twice as long. The refusals of one window are one event: what was sent before the first of them counts
//! for as long, so that the lower limit cannot show before. Pure: the caller passes the time.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::window::WINDOW;
use crate::clock::TimeAnchor;

/// The factor of the cube in the growth of a lowered limit: it has doubled 3.8 holds after the refusal.
const GROWTH: f64 = 0.05;

/// The time that a lowered limit is held at first. It begins to grow once that has passed twice.
const HOLD: Duration = Duration::from_secs(60);

/// The longest hold. Each growth that fails doubles the hold up to here.
const MAX_HOLD: Duration = Duration::from_secs(8 * 60);

/// The limit of one dimension.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bound {
    configured: Option<u64>,
    /// The limit that a 429 has named.
    learned: Option<u64>,
    /// The limit while no other program uses the quota: the lower of the configured and the learned one.
    full: Option<u64>,
    lowered: Option<Lowered>,
}

/// A limit that is lowered because another program uses the same quota.
#[derive(Clone, Copy, Debug)]
struct Lowered {
    /// The time of the event's last refusal.
    at: Instant,
    /// The time from then until the event ends, a window after its first refusal.
    event: Millis,
    hold: Millis,
    /// Half of the limit that was in force before the event.
    least: u64,
    /// The least usage at which the upstream refused.
    failed_at: u64,
}

/// The lessons of refusals about one limit, in a form that outlives the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct BoundMemory {
    /// The limit that was configured then: under another one, a program learns anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    configured: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    learned: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lowered: Option<LoweredMemory>,
}

/// A lowered limit in that form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LoweredMemory {
    /// The seconds from 1970 to the event's last refusal.
    at: u64,
    event_ms: u32,
    hold_ms: u32,
    least: u64,
    failed_at: u64,
}

/// A time in a few bytes: there are three limits in each scope.
#[derive(Clone, Copy, Debug)]
struct Millis(u32);

impl Millis {
    fn of(time: Duration) -> Self {
        Self(u32::try_from(time.as_millis()).unwrap_or(u32::MAX))
    }

    fn get(self) -> Duration {
        Duration::from_millis(self.0.into())
    }
}

impl Bound {
    pub(super) fn new(configured: Option<u64>) -> Self {
        Self { configured, full: configured, ..Self::default() }
    }

    /// Returns the limit that holds while no other program uses the quota.
    #[inline]
    pub(super) fn full(&self) -> Option<u64> {
        self.full
    }

    /// Returns the limit that holds at `now`.
    #[inline]
    pub(super) fn in_force(&self, now: Instant) -> Option<u64> {
        let full = self.full?;
        match &self.lowered {
            None => Some(full),
            Some(lowered) => Some(lowered.limit(now).min(full)),
        }
    }

    /// Returns the limit that was configured.
    pub(super) fn configured(&self) -> Option<u64> {
        self.configured
    }

    /// Forgets the limit that the upstream has named, because it serves more.
    pub(super) fn forget(&mut self) {
        (self.learned, self.full) = (None, self.configured);
    }

    pub(super) fn learned(&self) -> Option<u64> {
        self.learned
    }

    /// Returns whether refusals have taught anything.
    pub(super) fn knows_anything(&self) -> bool {
        self.learned.is_some() || self.lowered.is_some()
    }

    /// Takes over the limit that the upstream has named.
    pub(super) fn learn(&mut self, named: u64) {
        self.learned = Some(named);
        self.full = Some(self.configured.map_or(named, |configured| configured.min(named)));
    }

    /// Returns the lessons of refusals.
    pub(super) fn memory(&self, anchor: TimeAnchor) -> BoundMemory {
        let lowered = self.lowered.map(|lowered| LoweredMemory {
            at: anchor.seconds_at(lowered.at),
            event_ms: lowered.event.0,
            hold_ms: lowered.hold.0,
            least: lowered.least,
            failed_at: lowered.failed_at,
        });
        let configured = self.configured.filter(|_| self.knows_anything());
        BoundMemory { configured, learned: self.learned, lowered }
    }

    /// Takes up the lessons of another process, as far as this one has had none: a limit that was named, if that is still
    /// `believed`, and a lowered one within the bounds of any.
    pub(super) fn restore(&mut self, memory: &BoundMemory, believed: bool, anchor: TimeAnchor, now: Instant) {
        if memory.configured != self.configured {
            return;
        }
        if let Some(named) = memory.learned.filter(|named| *named > 0 && believed && self.learned.is_none()) {
            self.learn(named);
        }
        if self.lowered.is_none() {
            self.lowered = memory.lowered.as_ref().map(|lowered| Lowered {
                at: anchor.time_of(lowered.at).min(now),
                event: Millis(lowered.event_ms.min(Millis::of(WINDOW).0)),
                hold: Millis(lowered.hold_ms.clamp(Millis::of(HOLD).0, Millis::of(MAX_HOLD).0)),
                least: lowered.least.max(1),
                failed_at: lowered.failed_at,
            });
        }
    }

    /// Lowers the limit after a refusal at a usage of `used`, the refused request not included.
    pub(super) fn refused(&mut self, now: Instant, used: u64) {
        if self.full().is_none_or(|full| used >= full) {
            return;
        }
        let before = self.in_force(now).unwrap_or(used);
        let new = |hold| {
            let (event, hold) = (Millis::of(WINDOW), Millis::of(hold));
            Lowered { at: now, event, hold, least: before.div_ceil(2).max(1), failed_at: used }
        };
        let Some(last) = self.lowered else {
            self.lowered = Some(new(HOLD));
            return;
        };
        let (ends, hold) = (last.at + last.event.get(), last.hold.get());
        // It has grown into the others' part, and not they into its own.
        let has_grown = || now >= last.at + hold && used.saturating_mul(10) >= before.saturating_mul(9);
        self.lowered = Some(if now < ends {
            Lowered { at: now, event: Millis::of(ends - now), failed_at: used.min(last.failed_at), ..last }
        } else if now >= last.at + hold * 4 {
            new(HOLD)
        } else if has_grown() {
            new((hold * 2).min(MAX_HOLD))
        } else {
            new(hold)
        });
    }
}

impl Lowered {
    fn limit(&self, now: Instant) -> u64 {
        let (since, hold) = (now.saturating_duration_since(self.at), self.hold.get());
        let grows_for = since.saturating_sub(hold).as_secs() as f64 / hold.as_secs_f64();
        let part = 1.0 + GROWTH * (grows_for.powi(3) - 1.0).max(0.0);
        (self.failed_at.max(self.least) as f64 * part) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    proptest::proptest! {
        #[test]
        fn a_restored_limit_goes_on_as_the_old_one_would_have(
            refusals in proptest::collection::vec((0u64..900, 0u64..120), 0..12),
            learned: Option<u8>,
            down in 0u64..300,
            more in proptest::collection::vec((0u64..900, 0u64..120), 0..6),
        ) {
            let (began, shift) = (Instant::now(), secs(1 << 20));
            let (mut old, mut at) = (Bound::new(Some(100)), 0);
            if let Some(named) = learned.filter(|named| *named > 0) {
                old.learn(named.into());
            }
            for (after, used) in refusals {
                at += after;
                old.refused(began + secs(at), used);
            }
            let kept = old.memory(TimeAnchor::new(5_000, began + secs(at)));
            at += down;
            let (mut new, now) = (Bound::new(Some(100)), began + secs(at) + shift);
            new.restore(&kept, true, TimeAnchor::new(5_000 + down, now), now);
            for (after, used) in [(0, None); 1].into_iter().chain(more.into_iter().map(|(after, used)| (after, Some(used)))) {
                at += after;
                let now = began + secs(at);
                if let Some(used) = used {
                    old.refused(now, used);
                    new.refused(now + shift, used);
                }
                for later in [0, 59, 61, 130, 400, 2_000].map(secs) {
                    let limits = (old.in_force(now + later), new.in_force(now + later + shift));
                    proptest::prop_assert_eq!(limits.0, limits.1);
                }
                proptest::prop_assert_eq!((old.full(), old.learned()), (new.full(), new.learned()));
            }
        }

        #[test]
        fn whatever_was_kept_a_lowered_limit_grows_back(at: u64, event_ms: u32, hold_ms: u32, least: u64, failed_at: u64) {
            let now = Instant::now() + secs(1 << 20);
            let lowered = LoweredMemory { at, event_ms, hold_ms, least, failed_at };
            let (mut bound, kept) = (Bound::new(Some(100)), BoundMemory { configured: Some(100), learned: Some(0), lowered: Some(lowered) });
            bound.restore(&kept, true, TimeAnchor::new(5_000, now), now);
            proptest::prop_assert!(bound.in_force(now) > Some(0));
            proptest::prop_assert_eq!(bound.in_force(now + 20 * MAX_HOLD), Some(100));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_was_named_too_long_ago_is_not_taken_up_and_a_newer_one_stays() {
        let (now, anchor) = (Instant::now(), TimeAnchor::new(5_000, Instant::now()));
        let kept = BoundMemory { configured: Some(100), learned: Some(7), lowered: None };
        let mut bound = Bound::new(Some(100));
        bound.restore(&kept, false, anchor, now);
        assert_eq!(bound.full(), Some(100));
        bound.restore(&kept, true, anchor, now);
        assert_eq!((bound.full(), bound.learned()), (Some(7), Some(7)));
        // Whoever raises the limit has been granted more.
        let mut raised = Bound::new(Some(200));
        raised.restore(&kept, true, anchor, now);
        assert_eq!(raised.full(), Some(200));
        bound.learn(9);
        bound.restore(&kept, true, anchor, now);
        assert_eq!(bound.full(), Some(9));
        bound.forget();
        assert_eq!(bound.full(), Some(100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lowered_limit_stays_and_grows_back_slowly_at_first() {
        let now = Instant::now();
        let mut bound = Bound::new(Some(100));
        bound.refused(now, 60);
        for (at, limit) in [(0, 60), (60, 60), (120, 60), (150, 67), (180, 81), (210, 100), (9999, 100)] {
            assert_eq!(bound.in_force(now + secs(at)), Some(limit), "{at}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_race_that_was_lost_takes_half_of_the_limit_at_most() {
        let now = Instant::now();
        let mut bound = Bound::new(Some(60));
        // The window has just turned, and others were faster.
        for used in [4, 3, 2, 1, 0] {
            bound.refused(now, used);
        }
        assert_eq!(bound.in_force(now), Some(30));
        // The next window is another event.
        bound.refused(now + WINDOW, 1);
        assert_eq!(bound.in_force(now + WINDOW), Some(15));
        // However often it loses, one call passes.
        for window in 2..20 {
            bound.refused(now + WINDOW * window, 0);
        }
        assert_eq!(bound.in_force(now + WINDOW * 20), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_of_one_window_are_one_event_of_which_the_least_use_counts() {
        let now = Instant::now();
        let mut bound = Bound::new(Some(100));
        for (at, used) in [(0, 80), (1, 90), (30, 70), (60, 75)] {
            bound.refused(now + secs(at), used);
        }
        assert_eq!(bound.in_force(now + secs(61)), Some(70));
        assert_eq!(bound.in_force(now + secs(180)), Some(70));
        assert!(bound.in_force(now + secs(240)) > Some(90));
    }

    #[tokio::test(start_paused = true)]
    async fn a_growth_that_fails_waits_twice_as_long_up_to_eight_minutes() {
        let mut now = Instant::now();
        let mut bound = Bound::new(Some(100));
        bound.refused(now, 60);
        for hold in [60, 120, 240, 480, 480, 480] {
            assert_eq!(bound.in_force(now + secs(2 * hold)), Some(60), "{hold}");
            assert!(bound.in_force(now + secs(3 * hold)) > Some(70), "{hold}");
            now += secs(9 * hold / 4);
            bound.refused(now, 60);
        }
        // A refusal long after that is a new event.
        now += secs(4 * 480);
        bound.refused(now, 60);
        assert!(bound.in_force(now + secs(180)) > Some(70));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_that_the_growth_has_not_caused_doubles_nothing() {
        let now = Instant::now();
        let mut bound = Bound::new(Some(100));
        bound.refused(now, 60);
        let later = now + secs(180);
        bound.refused(later, 50);
        assert_eq!(bound.in_force(later), Some(50));
        assert!(bound.in_force(later + secs(180)) > Some(60));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_else_is_blamed_for_a_refusal_at_the_limit_and_without_a_limit_nothing_is_lowered() {
        let now = Instant::now();
        let mut bound = Bound::new(Some(100));
        bound.refused(now, 100);
        assert_eq!(bound.in_force(now), Some(100));
        let mut bound = Bound::default();
        bound.refused(now, 5);
        assert!(bound.in_force(now).is_none() && !bound.knows_anything());
        bound.learn(10);
        bound.refused(now, 0);
        assert_eq!((bound.full(), bound.in_force(now)), (Some(10), Some(5)));
    }
}
