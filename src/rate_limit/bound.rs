//! The limit of one dimension: as configured, as a 429 has named it, and lowered for a minute or longer, then growing,
//! where others use the same quota.
//!
//! A 429 below the limit means that another program uses the rest. The limit in force then falls to the usage at that
//! moment, less 5 %; stays there; and grows back along a cubic curve as TCP's CUBIC does: slowly near the point where
//! it failed, faster beyond. If it fails again soon, the use by others is a steady one, and each further attempt to
//! grow waits twice as long. Pure: the caller passes the time.

use std::time::Duration;

use tokio::time::Instant;

use super::window::WINDOW;

/// The part by which a lowered limit is below the usage at which the upstream refused.
const LESS: f64 = 0.05;

/// The time that a lowered limit stays as it is at first. It takes as long again to grow back to where it failed.
const HOLD: Duration = Duration::from_secs(60);

/// The longest hold. Each further refusal doubles the hold up to here.
const MAX_HOLD: Duration = Duration::from_secs(16 * 60);

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
    /// The usage at which the upstream refused.
    failed_at: u64,
    at: Instant,
    hold: Duration,
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

    /// Lowers the limit after a refusal at a usage of `used`, the refused request not included.
    pub(super) fn refused(&mut self, now: Instant, used: u64) {
        if self.full().is_none_or(|full| used >= full) {
            return;
        }
        let failed_at = used.max(1);
        self.lowered = Some(match self.lowered {
            None => Lowered { failed_at, at: now, hold: HOLD },
            // Calls that were in flight together are refused together: one event.
            Some(last) if now < last.at + WINDOW => {
                Lowered { failed_at: failed_at.min(last.failed_at), at: now, hold: last.hold }
            }
            Some(last) => {
                let soon = now < last.at + last.hold * 4;
                let hold = if soon { (last.hold * 2).min(MAX_HOLD) } else { HOLD };
                Lowered { failed_at, at: now, hold }
            }
        });
    }
}

impl Lowered {
    fn limit(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.at);
        let grows_for = since.saturating_sub(self.hold).as_secs() as f64 / self.hold.as_secs_f64();
        let part = 1.0 - LESS + LESS * grows_for.powi(3);
        ((self.failed_at as f64 * part) as u64).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lowered_limit_stays_and_grows_back_slowly_at_first() {
        let now = Instant::now();
        let mut bound = Bound::new(Some(100));
        bound.refused(now, 40);
        for (at, limit) in
            [(0, 38), (60, 38), (90, 38), (120, 40), (150, 44), (180, 54), (240, 92), (260, 100), (9999, 100)]
        {
            assert_eq!(bound.in_force(now + secs(at)), Some(limit), "{at}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_refused_together_are_one_event_and_one_that_comes_soon_doubles_the_wait() {
        let now = Instant::now();
        let mut bound = Bound::new(Some(100));
        for used in (60..100).rev() {
            bound.refused(now + secs(1), used);
        }
        assert_eq!(bound.in_force(now + secs(61)), Some(57));
        assert_eq!(bound.in_force(now + secs(121)), Some(60));
        bound.refused(now + secs(121), 60);
        // It is held for two minutes now, and needs two more to be back where it failed.
        assert_eq!(bound.in_force(now + secs(241)), Some(57));
        assert_eq!(bound.in_force(now + secs(361)), Some(60));
        // A refusal long after that is a new event.
        bound.refused(now + secs(121 + 480), 50);
        assert_eq!(bound.in_force(now + secs(121 + 480 + 120)), Some(50));
    }

    #[tokio::test(start_paused = true)]
    async fn of_calls_refused_together_the_least_use_counts() {
        let now = Instant::now();
        let mut bound = Bound::new(Some(100));
        for used in [60, 90, 75] {
            bound.refused(now, used);
        }
        assert_eq!(bound.in_force(now), Some(57));
    }

    #[tokio::test(start_paused = true)]
    async fn each_try_waits_twice_as_long_up_to_sixteen_minutes() {
        let mut now = Instant::now();
        let mut bound = Bound::new(Some(100));
        bound.refused(now, 60);
        for hold in [60, 120, 240, 480, 960, 960, 960] {
            assert_eq!(bound.in_force(now + secs(hold)), Some(57));
            assert_eq!(bound.in_force(now + secs(2 * hold)), Some(60), "{hold}");
            now += secs(2 * hold);
            bound.refused(now, 60);
        }
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
        assert_eq!((bound.full(), bound.in_force(now)), (Some(10), Some(1)));
    }
}
