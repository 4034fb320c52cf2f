//! The share of the recent calls that a project takes: calls that begin alike prefer it only as long as it takes not much
//! more than its own. Pure: it is told the time.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    health::Use,
    registry::{ProjectRef, Query, Registry},
};

/// The time in which a call's weight in the count falls to a third.
const RECENT: Duration = Duration::from_secs(60);

/// The part of its share of the recent calls up to which a project is preferred.
const MOST_OF_SHARE: f64 = 1.5;

/// The number of calls by which it may take more than that, so that a few conversations stay where they are.
const BURST: f64 = 10.0;

/// A count of calls, in which each counts for less as time goes by: at a steady rate, the calls of a minute.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RecentCalls {
    count: f64,
    at: Option<Instant>,
}

impl RecentCalls {
    /// Counts a call.
    pub(super) fn add(&mut self, now: Instant) {
        *self = Self { count: self.count(now) + 1.0, at: Some(now) };
    }

    fn count(&self, now: Instant) -> f64 {
        let Some(at) = self.at else { return 0.0 };
        let age = now.saturating_duration_since(at).as_secs_f64();
        self.count * (-age / RECENT.as_secs_f64()).exp()
    }
}

impl Registry {
    /// Returns whether a project can take the call now as well as any other can, and has not had much more than its share
    /// of the calls of late. `weights` is the sum of the weights of the projects that can take it.
    ///
    /// Without the share, one prompt that all calls begin with would send all of them to one project, whatever its weight,
    /// wherever nothing is known of its limits.
    pub(super) fn is_preferable(&mut self, project: &Arc<ProjectRef>, weights: u64, query: &Query<'_>) -> bool {
        let all = self.recent.count(query.now);
        self.project(project).is_some_and(|project| {
            let usable = project.best(query).filter(|(best, _)| *best == Use::Free);
            query.allows(&project.handle)
                && !query.has_tried_project(&project.handle)
                && project.marks.left(query.needs, query.now).is_zero()
                && usable.is_some_and(|(_, weight)| {
                    let share = f64::from(weight) / (weights.max(1) as f64);
                    project.recent.count(query.now) <= MOST_OF_SHARE * share * all + BURST
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_the_calls_of_a_minute_and_falls_when_there_are_none() {
        let begun = Instant::now();
        let mut recent = RecentCalls::default();
        assert_eq!(recent.count(begun), 0.0);
        for second in 0..600 {
            recent.add(begun + Duration::from_secs(second));
            recent.add(begun + Duration::from_secs(second));
        }
        let ended = begun + Duration::from_secs(600);
        assert!((115.0..125.0).contains(&recent.count(ended)), "{recent:?}");
        // A clock that goes back counts nothing twice.
        assert!(recent.count(begun) <= 125.0);
        assert!(recent.count(ended + Duration::from_secs(300)) < 1.0);
    }
}
