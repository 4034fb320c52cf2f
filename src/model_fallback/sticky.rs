//! Where a chain's calls begin.

use std::time::Duration;

use tokio::time::Instant;

/// The state of one chain.
#[derive(Debug)]
pub(super) struct Sticky {
    duration: Duration,
    at: usize,
    since: Option<Instant>,
}

impl Sticky {
    pub(super) fn new(duration: Duration) -> Self {
        Self { duration, at: 0, since: None }
    }

    /// Where calls begin now, and since when if that is not the first choice.
    pub(super) fn state(&self) -> (usize, Option<Instant>) {
        (self.at, self.since)
    }
}
