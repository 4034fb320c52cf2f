//! The open breakers in a form that outlives the process, and that other processes can be told.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{CircuitBreakers, Target, machine::Opening};
use crate::{bounded::MAX_NAME, clock::TimeAnchor};

/// The knowledge of [`CircuitBreakers`] in a form that outlives the process, from [`CircuitBreakers::memory`]: the breakers
/// that are open.
///
/// It is written with serde, in a format that describes itself, such as JSON. What a later version adds is missing in an older memory, and counts as
/// not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CircuitBreakersMemory {
    open: Vec<OpeningMemory>,
}

/// A breaker that is open, and the seconds from 1970 to the end of that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OpeningMemory {
    model: Box<str>,
    endpoint: Box<str>,
    until: u64,
    #[serde(default)]
    openings: u32,
    #[serde(default)]
    failed: u32,
}

impl CircuitBreakers {
    /// Returns the breakers that are open by their own decision, for [`restore`](Self::restore). Reads wall time. Those that
    /// the program [holds open](Self::force_open) are not in it, nor is the one that scopes share for want of room.
    ///
    /// ```
    /// use tower_gemini::circuit_breaker::{CircuitBreakers, CircuitBreakersMemory};
    ///
    /// let kept = serde_json::to_string(&CircuitBreakers::new().memory())?;
    /// // In the next process:
    /// CircuitBreakers::new().restore(&serde_json::from_str::<CircuitBreakersMemory>(&kept)?);
    /// # Ok::<_, serde_json::Error>(())
    /// ```
    pub fn memory(&self) -> CircuitBreakersMemory {
        let anchor = TimeAnchor::read();
        let open = self.openings(Instant::now());
        CircuitBreakersMemory { open: open.into_iter().map(|(scope, open)| memory(&scope, open, anchor)).collect() }
    }

    /// Takes up which breakers another process had open: for a program that has just started. Reads wall time.
    ///
    /// They open until then, but for no longer than the upstream itself could ask for, and then send a single probe first.
    /// Those that are not closed here stay as they are.
    pub fn restore(&self, memory: &CircuitBreakersMemory) {
        let (now, anchor) = (Instant::now(), TimeAnchor::read());
        for known in &memory.open {
            if let Some((scope, opening)) = known.read(anchor, now) {
                self.learn(&scope, opening, false);
            }
        }
    }

    /// Returns all openings that are not over, of breakers that scopes do not share.
    fn openings(&self, now: Instant) -> Vec<(Target, Opening)> {
        let breakers = self.some_open().into_iter();
        breakers.filter_map(|breaker| Some((breaker.scope().clone(), breaker.opening(now)?))).collect()
    }

    /// Opens the breaker of a scope, if that has one of its own or there is room for it. `heeds_answers`: not if calls are
    /// answered here. Returns whether it has opened.
    fn learn(&self, scope: &Target, told: Opening, heeds_answers: bool) -> bool {
        let breaker = self.breaker(scope.model(), scope.endpoint());
        // Many scopes must not be closed for one.
        !self.is_shared(&breaker) && breaker.learn(told, heeds_answers)
    }
}

fn memory(scope: &Target, opening: Opening, anchor: TimeAnchor) -> OpeningMemory {
    let Opening { until, openings, failed, .. } = opening;
    let (model, endpoint) = (scope.model().into(), scope.endpoint().into());
    OpeningMemory { model, endpoint, until: anchor.seconds_at(until), openings, failed }
}

impl OpeningMemory {
    /// Reads an opening; `None`: it is over, or of a scope with a name that is too long.
    fn read(&self, anchor: TimeAnchor, now: Instant) -> Option<(Target, Opening)> {
        let Self { model, endpoint, until, openings, failed } = self;
        let until = anchor.time_of(*until);
        let fits = model.len() + endpoint.len() <= MAX_NAME && until > now;
        let opening = Opening { until, openings: *openings, failed: *failed, is_told: true };
        fits.then(|| (Target::new(&**model, &**endpoint), opening))
    }
}

#[cfg(feature = "redis")]
mod told {
    use std::time::Duration;

    use super::*;

    /// The part of an opening by which one that was told is longer, at most, at random.
    const SPREAD: u32 = 4;

    /// The longest time by which it is longer.
    const LONGEST_SPREAD: Duration = Duration::from_secs(2);

    impl CircuitBreakers {
        /// Returns the breakers that have opened in this process first, with the ends of the openings, and in the form that
        /// is told.
        pub(crate) fn own_openings(&self, anchor: TimeAnchor, now: Instant) -> Vec<(Target, Instant, OpeningMemory)> {
            let own = self.openings(now).into_iter().filter(|(_, opening)| !opening.is_told);
            let told = |(scope, opening): (Target, Opening)| {
                let told = memory(&scope, opening, anchor);
                (scope, opening.until, told)
            };
            own.map(told).collect()
        }

        /// Takes up that a breaker has opened in another process. One that is not closed stays as it is, and so does one
        /// whose calls were answered in the last seconds: the other's own network may be down. Returns whether it has opened.
        pub(crate) fn told(&self, known: &OpeningMemory, anchor: TimeAnchor, now: Instant) -> bool {
            let Some((scope, opening)) = known.read(anchor, now) else { return false };
            // Not all probes at once; and whoever opened first sends the first.
            let spread = ((opening.until - now) / SPREAD).min(LONGEST_SPREAD).mul_f64(fastrand::f64());
            self.learn(&scope, Opening { until: opening.until + spread, ..opening }, true)
        }
    }
}
