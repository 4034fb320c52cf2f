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
    /// This many at once, and then at the even rate that the limit allows.
    Smooth {
        /// At least 1.
        burst: NonZeroU32,
    },
}

/// The pace of one scope.
#[derive(Debug)]
pub(super) struct Pacer {
    burst: NonZeroU32,
    /// The requests a minute that the pace is made for, and the pace.
    pace: Option<(u64, Box<Pace>)>,
}

type Pace = RateLimiter<NotKeyed, InMemoryState, PacingClock, NoOpMiddleware<Moment>>;

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
        if self.pace.as_ref().is_none_or(|(made_for, _)| *made_for != limit) {
            let Some(quota) = Quota::with_period(interval(limit)) else { return now };
            let pace = RateLimiter::direct_with_clock(quota.allow_burst(self.burst), PacingClock);
            self.pace = Some((limit, Box::new(pace)));
        }
        match self.pace.as_ref().map(|(_, pace)| pace.check()) {
            Some(Err(not_until)) => not_until.earliest_possible().0.max(now),
            _ => now,
        }
    }

    /// How long that many requests take at the even rate.
    pub(super) fn time_for(&self, requests: u64, limit: Option<u64>) -> Duration {
        let beyond = u32::try_from(requests.saturating_sub(u64::from(self.burst.get()))).unwrap_or(u32::MAX);
        limit.filter(|limit| *limit > 0).map_or(Duration::ZERO, |limit| interval(limit).saturating_mul(beyond))
    }
}

fn interval(limit: u64) -> Duration {
    (WINDOW / u32::try_from(limit).unwrap_or(u32::MAX)).max(Duration::from_nanos(1))
}
