//! The crate's clock: `tokio::time`, so that a paused one drives every layer. Wall time is read in this one place.
//!
//! Waits are measured with [`tokio::time::Instant`], which a test can pause and advance. Wall time is needed for three
//! things only: an HTTP date in `Retry-After`, midnight Pacific, and what is kept over a restart. Code that needs it calls [`wall`] once, and turns
//! the answer into a duration at once.

use std::{
    ops::Add,
    time::{Duration, SystemTime},
};

use governor::nanos::Nanos;
use http::HeaderValue;
use tokio::time::Instant;

/// Returns the wall time, for what the upstream expresses in calendar time.
///
/// ```
/// let now = tower_gemini::clock::wall();
/// assert!(now > std::time::SystemTime::UNIX_EPOCH);
/// ```
#[expect(clippy::disallowed_methods, reason = "the one place that reads wall time")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// A practically infinite duration that the clock can still count to: 30 years, which tokio's own timers take for
/// "never".
pub(crate) const FAR: Duration = Duration::from_secs(86_400 * 365 * 30);

/// Returns a number of seconds as the value of a header. Up to 999 it is a piece of static text, so that a header that
/// each call gets costs no allocation.
pub(crate) fn in_seconds(seconds: u64) -> HeaderValue {
    let place = usize::try_from(seconds).ok().filter(|number| *number < NUMBERS).map(|number| 3 * number);
    match place.and_then(|place| NUMERALS.get(place..place + 3)) {
        Some(digits) => HeaderValue::from_static(match seconds {
            0..10 => &digits[2..],
            10..100 => &digits[1..],
            _ => digits,
        }),
        None => seconds.into(),
    }
}

/// The number of [`NUMERALS`].
const NUMBERS: usize = 1_000;

/// The numbers from 0 on, of three digits each.
const NUMERALS: &str = {
    const DIGITS: [u8; 3 * NUMBERS] = {
        let mut digits = [0; 3 * NUMBERS];
        let mut place = 0;
        while place < digits.len() {
            let power = [100, 10, 1][place % 3];
            digits[place] = b'0' + (place / 3 / power % 10) as u8;
            place += 1;
        }
        digits
    };
    match std::str::from_utf8(&DIGITS) {
        Ok(text) => text,
        Err(_) => panic!("digits are text"),
    }
};

/// Wall time and the clock's time at one moment, by which times of the clock become seconds since 1970 and back: the clock
/// begins anew with each process, and what outlives one has to say its times in the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeAnchor {
    wall: SystemTime,
    at: Instant,
}

impl TimeAnchor {
    /// Reads both times.
    pub(crate) fn read() -> Self {
        Self { wall: wall(), at: Instant::now() }
    }

    /// Returns the anchor of another machine, whose clock says `wall` at that time.
    #[cfg(feature = "redis")]
    pub(crate) fn of(wall: SystemTime, at: Instant) -> Self {
        Self { wall, at }
    }

    /// Returns the anchor at which `at` is that many seconds after 1970.
    #[cfg(test)]
    pub(crate) fn new(seconds: u64, at: Instant) -> Self {
        Self { wall: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), at }
    }

    /// Returns the whole seconds from 1970 to a time, rounded up, so that nothing ends too early.
    pub(crate) fn seconds_at(self, time: Instant) -> u64 {
        let wall = match time.checked_duration_since(self.at) {
            Some(later) => self.wall.checked_add(later),
            None => self.wall.checked_sub(self.at - time),
        };
        let since = wall.and_then(|wall| wall.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
        since.as_secs() + u64::from(since.subsec_nanos() > 0)
    }

    /// Returns the time that is so many seconds after 1970: no later than [`FAR`] from now, and no earlier than the clock
    /// can say.
    pub(crate) fn time_of(self, seconds: u64) -> Instant {
        let since = Duration::from_secs(seconds);
        let now = self.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        match since.checked_sub(now) {
            Some(later) => self.at + later.min(FAR),
            None => self.at.checked_sub(now - since).unwrap_or(self.at),
        }
    }
}

/// tokio's clock, with the interface that governor asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PacingClock;

/// An instant of tokio's clock, with which governor can count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) Instant);

impl governor::clock::Clock for PacingClock {
    type Instant = Moment;

    fn now(&self) -> Moment {
        Moment(Instant::now())
    }
}

impl governor::clock::Reference for Moment {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_duration_since(earlier.0).into()
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        Self(self.0.checked_sub(duration.into()).unwrap_or(self.0))
    }
}

impl Add<Nanos> for Moment {
    type Output = Self;

    fn add(self, duration: Nanos) -> Self {
        Self(self.0.checked_add(duration.into()).unwrap_or(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_written_as_their_number() {
        for seconds in (0..=1_001).chain([u64::MAX]) {
            assert_eq!(in_seconds(seconds), seconds.to_string());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_comes_back_to_the_second_and_never_earlier_in_another_process_too() {
        let (now, later) = (Instant::now(), Duration::from_millis(2_500));
        let (one, other) = (TimeAnchor::new(1_000, now), TimeAnchor::new(1_001, now + Duration::from_secs(60)));
        assert_eq!(
            (one.seconds_at(now), one.seconds_at(now + later), one.seconds_at(now - later)),
            (1_000, 1_003, 998)
        );
        assert_eq!(other.time_of(one.seconds_at(now + later)), now + Duration::from_secs(62));
        assert_eq!(other.time_of(0), other.at - Duration::from_secs(1_001));
        assert_eq!(other.time_of(u64::MAX), other.at + FAR);
    }
}
