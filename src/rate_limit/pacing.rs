//! An even pace instead of a burst: governor's GCRA, on this crate's clock.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use tokio::time::Instant;

use super::window::WINDOW;
use crate::clock::{Moment, PacingClock};

/// The way in which the requests of a minute are spread over it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pacing {
    /// Each request goes as soon as there is room: the whole minute's quota may go at once (default).
    #[default]
    Burst,
    /// A burst goes at once, and then one request after the other at the even rate that the limit allows. Timers tick
    /// once a millisecond: from about 1,000 requests a minute on, allow a burst of a few, so that no tick is lost.
    Smooth {
        /// The number of requests that go at once, from 1 up to the limit; more counts as the limit.
        burst: NonZeroU32,
    },
}

/// The pace of one scope.
#[derive(Debug)]
pub(super) struct Pacer {
    burst: NonZeroU32,
    pace: Option<Pace>,
}

/// The pace at one limit.
#[derive(Debug)]
struct Pace {
    limit: u64,
    interval: Duration,
    burst: NonZeroU32,
    gcra: Box<Gcra>,
    /// The time at which all admitted requests would have gone at an even rate: governor's own state, which it does not
    /// expose.
    even: Instant,
    /// Set from a batch that was larger than the burst until the even rate has caught up: governor's state is behind.
    owes: bool,
}

type Gcra = RateLimiter<NotKeyed, InMemoryState, PacingClock, NoOpMiddleware<Moment>>;

impl Pacer {
    pub(super) fn new(pacing: Pacing) -> Option<Self> {
        match pacing {
            Pacing::Burst => None,
            Pacing::Smooth { burst } => Some(Self { burst, pace: None }),
        }
    }

    /// Takes the turns of a call's requests and returns `now`, or returns the later time at which its turn comes.
    pub(super) fn take(&mut self, now: Instant, limit: Option<u64>, requests: u64) -> Instant {
        let Some(limit) = limit.filter(|limit| *limit > 0) else { return now };
        if self.pace.as_ref().is_none_or(|pace| pace.limit != limit) {
            self.pace = Pace::new(now, limit, self.burst, self.pace.as_ref());
        }
        self.pace.as_mut().map_or(now, |pace| pace.take(now, requests))
    }

    /// Gives back the turns of a call that does not go: the others go as if they had not been taken.
    pub(super) fn give_back(&mut self, now: Instant, requests: u64) {
        let Some(mut pace) = self.pace.take() else { return };
        let turns = pace.interval.saturating_mul(u32::try_from(requests).unwrap_or(u32::MAX));
        pace.even = pace.even.checked_sub(turns).map_or(now, |even| even.max(now));
        let before = Some(&pace);
        self.pace = Pace::new(now, pace.limit, self.burst, before).map(|new| Pace {
            owes: pace.owes && pace.even > now,
            even: pace.even,
            ..new
        });
    }

    /// Returns the number of turns that a call has to wait for: its requests, or the burst where they are more. A batch
    /// goes as a whole, and the calls behind it wait for the rest of its turns.
    pub(super) fn turns(&self, limit: Option<u64>, requests: u64) -> u64 {
        limit.filter(|limit| *limit > 0).map_or(requests, |limit| requests.min(at_most(self.burst, limit).get().into()))
    }

    /// Returns the time between two requests once the burst is used, where there is a limit.
    pub(super) fn interval(&self, limit: Option<u64>) -> Option<Duration> {
        limit.filter(|limit| *limit > 0).map(interval)
    }

    /// Returns the time at which `requests` more will have gone.
    pub(super) fn gone_at(&self, now: Instant, requests: u64, limit: Option<u64>) -> Instant {
        let Some(limit) = limit.filter(|limit| *limit > 0) else { return now };
        let (interval, burst) = (interval(limit), u64::from(at_most(self.burst, limit).get()));
        let even = self.pace.as_ref().map_or(now, |pace| pace.even.max(now));
        let before = |requests: u64| interval.saturating_mul(u32::try_from(requests).unwrap_or(u32::MAX));
        let last = even.checked_add(before(requests.saturating_sub(1))).unwrap_or(even);
        last.checked_sub(before(burst - 1)).map_or(now, |at| at.max(now))
    }
}

impl Pace {
    /// Creates a pace for this limit. A lead over the even rate at the limit `before` carries over, so that a new limit
    /// gives no new burst.
    fn new(now: Instant, limit: u64, burst: NonZeroU32, before: Option<&Self>) -> Option<Self> {
        let (interval, burst) = (interval(limit), at_most(burst, limit));
        let quota = Quota::with_period(interval)?.allow_burst(burst);
        let gcra = Box::new(RateLimiter::direct_with_clock(quota, PacingClock));
        let mut pace = Self { limit, interval, burst, gcra, even: now, owes: false };
        let ahead = before.map_or(Duration::ZERO, |before| before.even.saturating_duration_since(now));
        let ahead = before.map_or(0, |before| ahead.as_nanos().div_ceil(before.interval.as_nanos().max(1)));
        for _ in 0..ahead.min(u128::from(pace.burst.get())) {
            pace.take(now, 1);
        }
        Some(pace)
    }

    fn take(&mut self, now: Instant, requests: u64) -> Instant {
        let turns =
            u32::try_from(requests).ok().and_then(NonZeroU32::new).map_or(self.burst, |most| most.min(self.burst));
        if self.owes {
            let before = self.interval.saturating_mul(self.burst.get() - turns.get());
            let due = self.even.checked_sub(before).unwrap_or(now);
            if due > now {
                return due;
            }
        }
        match self.gcra.check_n(turns) {
            Ok(Err(not_until)) => not_until.earliest_possible().0.max(now + Duration::from_nanos(1)),
            // It is never more than the burst.
            Ok(Ok(())) | Err(_) => {
                let all = self.interval.saturating_mul(u32::try_from(requests).unwrap_or(u32::MAX));
                self.owes = requests > turns.get().into() || self.owes && self.even > now;
                self.even = self.even.max(now) + all;
                now
            }
        }
    }
}

fn interval(limit: u64) -> Duration {
    (WINDOW / u32::try_from(limit).unwrap_or(u32::MAX)).max(Duration::from_nanos(1))
}

fn at_most(burst: NonZeroU32, limit: u64) -> NonZeroU32 {
    u32::try_from(limit).ok().and_then(NonZeroU32::new).map_or(burst, |limit| burst.min(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burst(requests: u32) -> Pacer {
        Pacer::new(Pacing::Smooth { burst: NonZeroU32::new(requests).unwrap() }).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_goes_as_a_whole_and_those_behind_it_wait_for_all_of_it() {
        // A request in a second, and a quarter of one for the window's slack.
        let (limit, second) = (Some(60), WINDOW / 60);
        for (size, batch) in [(1, 5), (5, 5), (3, 7), (10, 40)] {
            let now = Instant::now();
            let mut pacer = burst(size);
            assert_eq!(pacer.take(now, limit, batch), now, "{size} {batch}");
            // Of the batch, a burst was free.
            let next = now + second * (u32::try_from(batch).unwrap() - size + 1);
            assert_eq!(pacer.take(now, limit, 1), next, "{size} {batch}");
            assert_eq!(pacer.gone_at(now, pacer.turns(limit, 1), limit), next, "{size} {batch}");
            tokio::time::advance(next - now).await;
            assert_eq!(pacer.take(next, limit, 1), next, "{size} {batch}");
            assert_eq!(pacer.take(next, limit, 1), next + second, "{size} {batch}");
            tokio::time::advance(second * 100).await;
        }
    }
}
