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

/// How the requests of a minute are spread over it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pacing {
    /// As soon as there is room: the whole minute's quota may go at once (default).
    #[default]
    Burst,
    /// This many at once, and then at the even rate that the limit allows. Timers have ticks of a millisecond: from about
    /// 1,000 requests a minute on, let a few go at once, so that no tick is lost.
    Smooth {
        /// At least 1. More than the limit is the limit.
        burst: NonZeroU32,
    },
}

/// The pace of one scope.
#[derive(Debug)]
pub(super) struct Pacer {
    burst: NonZeroU32,
    pace: Option<Pace>,
}

/// The pace for one limit.
#[derive(Debug)]
struct Pace {
    limit: u64,
    interval: Duration,
    burst: NonZeroU32,
    gcra: Box<Gcra>,
    /// When all that went would have gone evenly: governor's own state, which it does not show.
    even: Instant,
}

type Gcra = RateLimiter<NotKeyed, InMemoryState, PacingClock, NoOpMiddleware<Moment>>;

impl Pacer {
    pub(super) fn new(pacing: Pacing) -> Option<Self> {
        match pacing {
            Pacing::Burst => None,
            Pacing::Smooth { burst } => Some(Self { burst, pace: None }),
        }
    }

    /// Takes one request's turn, or says when it comes.
    pub(super) fn take(&mut self, now: Instant, limit: Option<u64>) -> Instant {
        let Some(limit) = limit.filter(|limit| *limit > 0) else { return now };
        if self.pace.as_ref().is_none_or(|pace| pace.limit != limit) {
            self.pace = Pace::new(now, limit, self.burst, self.pace.as_ref());
        }
        self.pace.as_mut().map_or(now, |pace| pace.take(now))
    }

    /// How long one request goes after the other once the burst is used, where there is a limit.
    pub(super) fn interval(&self, limit: Option<u64>) -> Option<Duration> {
        limit.filter(|limit| *limit > 0).map(interval)
    }

    /// When so many more requests will have gone.
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
    /// A pace for this limit. What is ahead of the even pace stays ahead.
    fn new(now: Instant, limit: u64, burst: NonZeroU32, before: Option<&Self>) -> Option<Self> {
        let (interval, burst) = (interval(limit), at_most(burst, limit));
        let quota = Quota::with_period(interval)?.allow_burst(burst);
        let gcra = Box::new(RateLimiter::direct_with_clock(quota, PacingClock));
        let mut pace = Self { limit, interval, burst, gcra, even: now };
        let ahead = before.map_or(Duration::ZERO, |before| before.even.saturating_duration_since(now));
        let ahead = before.map_or(0, |before| ahead.as_nanos().div_ceil(before.interval.as_nanos().max(1)));
        for _ in 0..ahead.min(u128::from(pace.burst.get())) {
            pace.take(now);
        }
        Some(pace)
    }

    fn take(&mut self, now: Instant) -> Instant {
        match self.gcra.check() {
            Ok(()) => {
                self.even = self.even.max(now) + self.interval;
                now
            }
            Err(not_until) => not_until.earliest_possible().0.max(now + Duration::from_nanos(1)),
        }
    }
}

fn interval(limit: u64) -> Duration {
    (WINDOW / u32::try_from(limit).unwrap_or(u32::MAX)).max(Duration::from_nanos(1))
}

fn at_most(burst: NonZeroU32, limit: u64) -> NonZeroU32 {
    u32::try_from(limit).ok().and_then(NonZeroU32::new).map_or(burst, |limit| burst.min(limit))
}
