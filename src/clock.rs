//! The clock: `tokio::time`, so that a paused one drives every layer; wall time in this one place.
//!
//! Waits are measured with [`tokio::time::Instant`], which a test can pause and advance. Wall time is needed for two
//! things only: an HTTP date in `Retry-After`, and midnight Pacific. Whoever needs it asks [`wall`], once, and turns the
//! answer into a duration at once.

use std::time::SystemTime;

/// The wall clock, for what the upstream expresses in calendar time.
///
/// ```
/// let now = tower_gemini::clock::wall();
/// assert!(now > std::time::SystemTime::UNIX_EPOCH);
/// ```
#[expect(clippy::disallowed_methods, reason = "the one place that reads wall time")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
