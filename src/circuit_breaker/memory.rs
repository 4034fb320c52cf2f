//! The open breakers in a form that outlives the process, and that other processes can be told.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{CircuitBreakers, Target, machine::BreakerOpening};
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
    fn openings(&self, now: Instant) -> Vec<(Target, BreakerOpening)> {
        let breakers = self.some_open().into_iter();
        breakers.filter_map(|breaker| Some((breaker.scope().clone(), breaker.opening(now)?))).collect()
    }

    /// Opens the breaker of a scope, if that has one of its own or there is room for it. `heeds_answers`: not if calls are
    /// answered here. Returns whether it has opened.
    fn learn(&self, scope: &Target, told: BreakerOpening, heeds_answers: bool) -> bool {
        let breaker = self.breaker(scope.model(), scope.endpoint());
        // Many scopes must not be closed for one.
        !self.is_shared(&breaker) && breaker.learn(told, heeds_answers)
    }
}

fn memory(scope: &Target, opening: BreakerOpening, anchor: TimeAnchor) -> OpeningMemory {
    let BreakerOpening { until, openings, failed, .. } = opening;
    let (model, endpoint) = (scope.model().into(), scope.endpoint().into());
    OpeningMemory { model, endpoint, until: anchor.seconds_at(until), openings, failed }
}

impl OpeningMemory {
    /// Reads an opening; `None`: it is over, or of a scope with a name that is too long.
    fn read(&self, anchor: TimeAnchor, now: Instant) -> Option<(Target, BreakerOpening)> {
        let Self { model, endpoint, until, openings, failed } = self;
        let until = anchor.time_of(*until);
        let fits = model.len() + endpoint.len() <= MAX_NAME && until > now;
        let opening = BreakerOpening { until, openings: *openings, failed: *failed, is_told: true };
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
            let told = |(scope, opening): (Target, BreakerOpening)| {
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
            self.learn(&scope, BreakerOpening { until: opening.until + spread, ..opening }, true)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;
    use crate::circuit_breaker::{State, Trip, tracker::CountedFailure};

    const SECOND: Duration = Duration::from_secs(1);

    fn breakers() -> CircuitBreakers {
        CircuitBreakers::builder().trip(Trip::consecutive(3)).build().unwrap()
    }

    fn target() -> Target {
        Target::new("m", "e")
    }

    /// Admits a call and lets it fail, or succeed; returns whether it was admitted.
    fn call(breakers: &CircuitBreakers, succeeds: bool) -> bool {
        let breaker = breakers.breaker("m", "e");
        let Ok(admission) = breaker.admit(false) else { return false };
        if succeeds {
            breaker.succeed(admission)
        } else {
            breaker.fail(admission, CountedFailure::default())
        }
        true
    }

    fn open(breakers: &CircuitBreakers) {
        while breakers.state(&target()) != State::Open {
            assert!(call(breakers, false));
        }
    }

    fn kept(breakers: &CircuitBreakers) -> CircuitBreakersMemory {
        serde_json::from_str(&serde_json::to_string(&breakers.memory()).unwrap()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_breaker_is_open_after_a_restart_and_then_sends_one_probe() {
        let before = breakers();
        assert_eq!(before.memory(), CircuitBreakersMemory::default());
        open(&before);
        before.force_open(&Target::new("other", "e"));
        let memory = kept(&before);
        assert_eq!(memory.open.len(), 1, "the program holds the other one open itself");
        let after = breakers();
        after.restore(&memory);
        assert_eq!((after.state(&target()), call(&after, true)), (State::Open, false));
        let left = |breakers: &CircuitBreakers| breakers.openings(Instant::now())[0].1.until - Instant::now();
        // The times are in whole seconds, and none is too short.
        assert!(left(&after) >= left(&before) && left(&after) <= left(&before) + SECOND);
        advance(5 * SECOND).await;
        assert_eq!(after.state(&target()), State::HalfOpen);
        let breaker = after.breaker("m", "e");
        let probe = breaker.admit(false).unwrap();
        assert!(breaker.admit(false).is_err(), "a second probe");
        breaker.fail(probe, CountedFailure::default());
        // It opens for longer than for the first time, and is its own now.
        assert_eq!(after.state(&target()), State::Open);
        assert!(left(&after) >= 4 * SECOND, "{:?}", left(&after));
        advance(11 * SECOND).await;
        assert!(breaker.admit(false).is_ok() && breaker.admit(false).is_ok() && breaker.admit(false).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_memory_opens_nothing_that_is_not_closed_and_nothing_for_long() {
        let text = r#"{"open": [{"model": "m", "endpoint": "e", "until": 99999999999, "openings": 4000000000},
            {"model": "over", "endpoint": "e", "until": 5}], "more": 1}"#;
        let memory: CircuitBreakersMemory = serde_json::from_str(text).unwrap();
        let fresh = breakers();
        fresh.restore(&memory);
        assert_eq!((fresh.state(&target()), fresh.snapshot().len()), (State::Open, 1));
        advance(301 * SECOND).await;
        assert_eq!(fresh.state(&target()), State::HalfOpen);
        // One that probes, has recovered or is held closed goes by what it sees.
        fresh.restore(&memory);
        assert_eq!(fresh.state(&target()), State::HalfOpen);
        assert!(call(&fresh, true));
        fresh.restore(&memory);
        assert_eq!(fresh.state(&target()), State::Ramping);
        fresh.force_closed(&target());
        fresh.restore(&memory);
        assert_eq!(fresh.state(&target()), State::ForcedClosed);
        // The doublings that were told are bounded, too.
        fresh.reset(&target());
        fresh.restore(&memory);
        advance(301 * SECOND).await;
        assert!(call(&fresh, false));
        assert_eq!(fresh.state(&target()), State::Open);
        advance(10 * SECOND).await;
        assert_eq!(fresh.state(&target()), State::HalfOpen);
    }

    #[cfg(feature = "redis")]
    #[tokio::test(start_paused = true)]
    async fn an_opening_elsewhere_is_believed_unless_calls_are_answered_here() {
        let (one, other) = (breakers(), breakers());
        open(&one);
        let anchor = || (TimeAnchor::read(), Instant::now());
        let told = |to: &CircuitBreakers| {
            let (anchor, now) = anchor();
            let own = one.own_openings(anchor, now);
            to.told(&own[0].2, anchor, now)
        };
        assert!(call(&other, true) && !told(&other));
        other.age_answers();
        assert!(!told(&other), "there was an answer in the last seconds");
        other.age_answers();
        assert!(told(&other) && !told(&other));
        assert_eq!(other.state(&target()), State::Open);
        // It is no news of this instance's.
        let (anchor, now) = anchor();
        assert!(other.own_openings(anchor, now).is_empty());
        let openings = |breakers: &CircuitBreakers| breakers.openings(now)[0].1;
        let (own, told) = (openings(&one).until - now, openings(&other).until - now);
        assert!(told >= own && told <= own.mul_f64(1.25) + 2 * SECOND, "{own:?} {told:?}");
    }
}
