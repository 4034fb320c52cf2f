//! The ends of days and months at midnight Pacific, with daylight saving.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use jiff::{Span, Timestamp, ToSpan, Zoned, civil::Date, tz::TimeZone};
use tokio::time::Instant;

use crate::clock;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Returns the time from `now` until the next midnight Pacific, when a day's quota is renewed.
///
/// It is at most 25 hours: the day on which daylight saving ends is an hour longer. A time outside the calendar (years
/// before -9999 or after 9999) counts as the beginning of an ordinary day of 24 hours.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// // 2026-11-21 07:59:59 UTC is one second before midnight in California.
/// let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_247_999);
/// assert_eq!(tower_gemini::quota::until_pacific_midnight(now), Duration::from_secs(1));
/// ```
pub fn until_pacific_midnight(now: SystemTime) -> Duration {
    until(now, |today| today, 1.day()).unwrap_or(DAY)
}

/// Returns the time from `now` until the first midnight Pacific of the next month, when a month's budget is renewed.
///
/// It is at most 31 days and an hour. A time outside the calendar counts as the beginning of a month of 31 days.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// // 2026-11-21 07:59:59 UTC is one second before November 21 in California, and ten days before December.
/// let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_247_999);
/// let left = tower_gemini::quota::until_pacific_month_end(now);
/// assert_eq!(left, Duration::from_secs(10 * 86_400 + 1));
/// ```
pub fn until_pacific_month_end(now: SystemTime) -> Duration {
    until(now, Date::first_of_month, 1.month()).unwrap_or(DAY * 31)
}

/// Returns the time until the midnight that is `after` the date which `begin` makes of today.
fn until(now: SystemTime, begin: impl FnOnce(Date) -> Date, after: Span) -> Option<Duration> {
    let now: Zoned = Timestamp::try_from(now).ok()?.to_zoned(pacific()?);
    let midnight = begin(now.date()).checked_add(after).ok()?.to_zoned(now.time_zone().clone()).ok()?;
    Duration::try_from(now.duration_until(&midnight)).ok()
}

/// Returns the rule in force since 2007 as POSIX writes it, so that no time zone database is needed.
fn pacific() -> Option<TimeZone> {
    // Read once: each new day of each scope asks for it.
    static RULE: LazyLock<Option<TimeZone>> = LazyLock::new(|| TimeZone::posix("PST8PDT,M3.2.0,M11.1.0").ok());
    RULE.clone()
}

/// Wall time and the clock's time at one moment, by which the ends of days and months become instants. Wall time is read
/// once, and derived from the clock after that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PacificCalendar {
    wall: SystemTime,
    at: Instant,
}

impl PacificCalendar {
    /// Reads both times.
    pub(crate) fn read() -> Self {
        Self { wall: clock::wall(), at: Instant::now() }
    }

    /// Returns the calendar in which `at` is that wall time.
    #[cfg(any(test, gemini_loom))]
    pub(crate) fn new(wall: SystemTime, at: Instant) -> Self {
        Self { wall, at }
    }

    /// Returns the first midnight after `now`.
    pub(crate) fn day_end(self, now: Instant) -> Instant {
        now + until_pacific_midnight(self.wall_at(now))
    }

    /// Returns the first midnight of the month after `now`.
    pub(crate) fn month_end(self, now: Instant) -> Instant {
        now + until_pacific_month_end(self.wall_at(now))
    }

    /// Returns the date of the day that `now` is in, as `2026-11-21`: a day's usage is of that date.
    pub(crate) fn date(self, now: Instant) -> Box<str> {
        let date = || Some(Timestamp::try_from(self.wall_at(now)).ok()?.to_zoned(pacific()?).date().to_string());
        date().unwrap_or_default().into()
    }

    fn wall_at(self, now: Instant) -> SystemTime {
        self.wall + now.saturating_duration_since(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wall(utc: &str) -> SystemTime {
        utc.parse::<Timestamp>().unwrap().into()
    }

    fn until_midnight(utc: &str) -> u64 {
        until_pacific_midnight(wall(utc)).as_secs()
    }

    fn until_month_end(utc: &str) -> u64 {
        until_pacific_month_end(wall(utc)).as_secs()
    }

    #[test]
    fn a_day_ends_at_midnight_pacific() {
        assert_eq!(until_midnight("2026-01-15T08:00:00Z"), 24 * 3600);
        assert_eq!(until_midnight("2026-01-15T07:59:00Z"), 60);
        assert_eq!(until_midnight("2026-07-15T07:00:00Z"), 24 * 3600);
        assert_eq!(until_midnight("2026-07-15T06:30:00Z"), 1800);
    }

    #[test]
    fn the_days_on_which_the_clocks_change_have_23_and_25_hours() {
        assert_eq!(until_midnight("2026-03-08T08:00:00Z"), 23 * 3600);
        assert_eq!(until_midnight("2026-11-01T07:00:00Z"), 25 * 3600);
        // An hour before and after the change itself.
        assert_eq!(until_midnight("2026-03-08T10:00:00Z"), 21 * 3600);
        assert_eq!(until_midnight("2026-11-01T09:00:00Z"), 23 * 3600);
    }

    #[test]
    fn a_month_ends_at_the_first_midnight_pacific_of_the_next() {
        // In UTC it is February for eight hours already.
        assert_eq!(until_month_end("2026-02-01T07:59:59Z"), 1);
        assert_eq!(until_month_end("2026-02-01T08:00:00Z"), 28 * 86_400);
        assert_eq!(until_month_end("2028-02-01T08:00:00Z"), 29 * 86_400);
        assert_eq!(until_month_end("2026-12-31T20:00:00Z"), 12 * 3600);
        assert_eq!(until_month_end("2027-01-01T08:00:00Z"), 31 * 86_400);
        // The last day of a month of 31 days before a shorter one.
        assert_eq!(until_month_end("2026-01-31T08:00:00Z"), 86_400);
        assert_eq!(until_month_end("2026-06-01T06:30:00Z"), 1800);
    }

    #[test]
    fn the_months_in_which_the_clocks_change_are_an_hour_shorter_and_longer() {
        assert_eq!(until_month_end("2026-03-01T08:00:00Z"), 31 * 86_400 - 3600);
        assert_eq!(until_month_end("2026-11-01T07:00:00Z"), 30 * 86_400 + 3600);
    }

    #[tokio::test(start_paused = true)]
    async fn the_ends_become_instants() {
        let at = Instant::now();
        let calendar = PacificCalendar::new(wall("2026-12-31T20:00:00Z"), at);
        let later = at + Duration::from_secs(3600);
        let end = at + Duration::from_secs(12 * 3600);
        assert_eq!((calendar.day_end(later), calendar.month_end(later)), (end, end));
        assert_eq!(
            (&*calendar.date(end - Duration::from_nanos(1)), &*calendar.date(end)),
            ("2026-12-31", "2027-01-01")
        );
        assert_eq!((calendar.day_end(end), calendar.month_end(end)), (end + DAY, end + DAY * 31));
    }
}
