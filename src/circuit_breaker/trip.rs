//! The modes by which a closed breaker opens, and the memory of each. Pure: the caller passes the time.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::context::ConfigError;

/// The rule by which a closed breaker opens.
///
/// It sees only failures that count, and each request once, however often it was sent again.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::circuit_breaker::{CircuitBreakers, Trip, Window};
///
/// let by_rate = Trip::failure_rate(0.8, Window::Time(Duration::from_secs(30))).minimum_requests(20);
/// let breakers = CircuitBreakers::builder().trip(by_rate).build().unwrap();
/// assert_eq!(Trip::default(), Trip::silence());
/// # drop(breakers);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Trip {
    /// A rule that opens when nothing has succeeded for some time although enough was tried: an outage, whatever the
    /// rate of failures is on an ordinary day. The default.
    ///
    /// A failure opens it when `minimum_requests` requests have failed, the first of them at least `at_least` ago and
    /// at least twice the 95th percentile of the time that successes take, and nothing that was sent after that first
    /// failure has succeeded. Calls sent before it do not count. Calls that are in flight get the benefit of the doubt:
    /// for a minute it does not open while they are more than a quarter of the attempts that have failed. After a
    /// minute without a failure the count begins anew.
    #[non_exhaustive]
    Silence {
        /// The number of requests that must have failed (default 10).
        minimum_requests: u32,
        /// The least time without a success (default 10 s).
        at_least: Duration,
    },
    /// A rule that opens when too large a part of a sliding window has failed.
    ///
    /// A model that sheds half of its load answers the other half, and losing those answers is worse than trying twice:
    /// choose a high threshold.
    #[non_exhaustive]
    FailureRate {
        /// The part of the requests in the window that must fail, from 0 to 1.
        threshold: f64,
        /// The length of the window.
        window: Window,
        /// The least number of requests in the window (default 10); with fewer it does not open.
        minimum_requests: u32,
    },
    /// A rule that opens when enough requests have failed in a row, with no success between.
    #[non_exhaustive]
    Consecutive {
        /// The number of failures.
        failures: u32,
    },
}

/// The window of a [`Trip::FailureRate`]. It slides with each call: older requests no longer count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Window {
    /// The last `n` requests, from 1 to 10,000.
    Calls(u32),
    /// The requests of the last period, at least 10 ms. It slides in steps of a tenth.
    Time(Duration),
}

/// The longest window by calls, which bounds its memory.
const MAX_CALLS: u32 = 10_000;

/// The number of steps of a window by time.
const STEPS: u32 = 10;

/// The time for which calls in flight can hold a breaker back, and after which a failure without another is forgotten.
const MINUTE: Duration = Duration::from_secs(60);

impl Trip {
    /// Returns [`Trip::Silence`] with its defaults: 10 requests and 10 s.
    pub const fn silence() -> Self {
        Self::Silence { minimum_requests: 10, at_least: Duration::from_secs(10) }
    }

    /// Returns [`Trip::FailureRate`] with a threshold from 0 to 1; a value outside is clamped.
    pub const fn failure_rate(threshold: f64, window: Window) -> Self {
        Self::FailureRate { threshold: threshold.clamp(0.0, 1.0), window, minimum_requests: 10 }
    }

    /// Returns [`Trip::Consecutive`]. 0 counts as 1.
    pub const fn consecutive(failures: u32) -> Self {
        Self::Consecutive { failures: if failures == 0 { 1 } else { failures } }
    }

    /// Sets the least number of requests for [`Trip::Silence`] and [`Trip::FailureRate`]. 0 counts as 1.
    /// [`Trip::Consecutive`] has its own number and is not changed.
    pub const fn minimum_requests(mut self, requests: u32) -> Self {
        let requests = if requests == 0 { 1 } else { requests };
        match &mut self {
            Self::Silence { minimum_requests, .. } | Self::FailureRate { minimum_requests, .. } => {
                *minimum_requests = requests;
            }
            Self::Consecutive { .. } => {}
        }
        self
    }

    /// Sets the least time without a success for [`Trip::Silence`]; the other modes have no such time and are not
    /// changed.
    pub const fn at_least(mut self, silence: Duration) -> Self {
        if let Self::Silence { at_least, .. } = &mut self {
            *at_least = silence;
        }
        self
    }

    /// Checks that it can open at all.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let Self::FailureRate { threshold, window, minimum_requests } = *self else { return Ok(()) };
        if !(0.0..=1.0).contains(&threshold) {
            return Err(ConfigError::new(format!("threshold is {threshold}; set a number from 0 to 1")));
        }
        match window {
            Window::Calls(calls) if minimum_requests > calls.clamp(1, MAX_CALLS) => {
                let holds = calls.clamp(1, MAX_CALLS);
                Err(ConfigError::new(format!(
                    "minimum_requests is {minimum_requests}, and the window holds {holds} calls: the breaker would never \
                     open; set a lower number, or a longer window"
                )))
            }
            Window::Time(Duration::ZERO) => {
                Err(ConfigError::new("the window is 0 s: the breaker would never open; set 10 s or more"))
            }
            Window::Calls(_) | Window::Time(_) => Ok(()),
        }
    }

    /// Returns the number of failures below which it never opens.
    pub(super) fn requests_needed(&self) -> u32 {
        match *self {
            Self::Silence { minimum_requests, .. } | Self::FailureRate { minimum_requests, .. } => minimum_requests,
            Self::Consecutive { failures } => failures,
        }
    }
}

impl Default for Trip {
    fn default() -> Self {
        Self::silence()
    }
}

/// The traffic of a breaker, apart from what its mode remembers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traffic {
    /// The 95th percentile of the time that successes take, once one has been timed.
    pub(super) p95: Option<Duration>,
    /// The number of calls in flight.
    pub(super) pending: u32,
}

/// The numbers by which a breaker opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Evidence {
    pub(super) failed: u32,
    pub(super) requests: u32,
    pub(super) over: Duration,
}

/// The memory of a mode while the breaker is closed.
#[derive(Clone, Debug)]
pub(super) enum Tracker {
    Silence(Silence),
    Calls { outcomes: VecDeque<(Instant, bool)>, failed: u32, longest: usize },
    Time(Steps),
    Consecutive { failed: u32, first: Option<Instant> },
}

impl Tracker {
    pub(super) fn new(trip: Trip) -> Self {
        match trip {
            Trip::Silence { .. } => Self::Silence(Silence::default()),
            Trip::FailureRate { window: Window::Calls(calls), .. } => {
                let longest = calls.clamp(1, MAX_CALLS) as usize;
                Self::Calls { outcomes: VecDeque::new(), failed: 0, longest }
            }
            Trip::FailureRate { window: Window::Time(time), .. } => Self::Time(Steps::new(time)),
            Trip::Consecutive { .. } => Self::Consecutive { failed: 0, first: None },
        }
    }

    /// Returns whether a success would change nothing.
    pub(super) fn is_blank(&self) -> bool {
        match self {
            Self::Silence(silence) => silence.first.is_none(),
            Self::Consecutive { first, .. } => first.is_none(),
            Self::Calls { .. } | Self::Time(_) => false,
        }
    }

    /// Records a success of a call that began at `began`; `None`: it began while the breaker was calm.
    pub(super) fn succeeded(&mut self, began: Option<Instant>, now: Instant) {
        match self {
            Self::Silence(silence) => {
                if began >= silence.first {
                    *silence = Silence::default();
                }
            }
            Self::Consecutive { failed, first } => (*failed, *first) = (0, None),
            Self::Calls { .. } => self.push(now, false),
            Self::Time(steps) => steps.add(now, 0),
        }
    }

    /// Records a failure that counts. `repeated`: an earlier attempt of the same request has failed already.
    pub(super) fn failed(&mut self, now: Instant, repeated: bool) {
        match self {
            Self::Silence(silence) => {
                if silence.last.is_some_and(|last| now.saturating_duration_since(last) > MINUTE) {
                    *silence = Silence::default();
                }
                silence.first.get_or_insert(now);
                silence.last = Some(now);
                silence.attempts = silence.attempts.saturating_add(1);
                silence.requests = silence.requests.saturating_add(u32::from(!repeated));
            }
            _ if repeated => {}
            Self::Consecutive { failed, first } => {
                first.get_or_insert(now);
                *failed = failed.saturating_add(1);
            }
            Self::Calls { .. } => self.push(now, true),
            Self::Time(steps) => steps.add(now, 1),
        }
    }

    fn push(&mut self, now: Instant, fails: bool) {
        let Self::Calls { outcomes, failed, longest } = self else { return };
        if outcomes.len() >= *longest
            && let Some((_, true)) = outcomes.pop_front()
        {
            *failed -= 1;
        }
        outcomes.push_back((now, fails));
        *failed += u32::from(fails);
    }

    /// Returns the evidence by which the breaker has to open, if there is enough.
    pub(super) fn verdict(&mut self, trip: Trip, now: Instant, view: Traffic) -> Option<Evidence> {
        match (self, trip) {
            (Self::Silence(silence), Trip::Silence { minimum_requests, at_least }) => {
                let over = now.saturating_duration_since(silence.first?);
                let needed = view.p95.map_or(at_least, |p95| at_least.max(p95.saturating_mul(2)));
                let may_answer = over < MINUTE && may_still_answer(view.pending, silence.attempts);
                let opens = silence.requests >= minimum_requests && over >= needed && !may_answer;
                opens.then_some(Evidence { failed: silence.requests, requests: silence.requests, over })
            }
            (Self::Calls { outcomes, failed, .. }, Trip::FailureRate { threshold, minimum_requests, .. }) => {
                let (requests, failed) = (outcomes.len() as u32, *failed);
                let over = now.saturating_duration_since(outcomes.front()?.0);
                exceeds(requests, failed, threshold, minimum_requests).then_some(Evidence { failed, requests, over })
            }
            (Self::Time(steps), Trip::FailureRate { threshold, minimum_requests, .. }) => {
                let (requests, failed) = steps.sum(now);
                let over = steps.covered(now);
                exceeds(requests, failed, threshold, minimum_requests).then_some(Evidence { failed, requests, over })
            }
            (Self::Consecutive { failed, first }, Trip::Consecutive { failures }) => {
                let over = now.saturating_duration_since((*first)?);
                (*failed >= failures).then_some(Evidence { failed: *failed, requests: *failed, over })
            }
            _ => None,
        }
    }
}

/// Returns whether too many calls are in flight to conclude anything from the failures: failures come fast, answers
/// take longer.
pub(super) fn may_still_answer(pending: u32, failed: u32) -> bool {
    pending > failed / 4
}

fn exceeds(requests: u32, failed: u32, threshold: f64, minimum_requests: u32) -> bool {
    requests >= minimum_requests && failed > 0 && f64::from(failed) >= threshold * f64::from(requests)
}

/// The failures since the last success.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Silence {
    first: Option<Instant>,
    last: Option<Instant>,
    requests: u32,
    attempts: u32,
}

/// A window by time: a ring of steps, each with its requests and failures.
#[derive(Clone, Debug)]
pub(super) struct Steps {
    step: Duration,
    ring: [(u32, u32); STEPS as usize],
    began: Option<Instant>,
    /// The number of the step that was written last.
    last: u64,
}

impl Steps {
    fn new(window: Duration) -> Self {
        let step = (window / STEPS).max(Duration::from_millis(1));
        Self { step, ring: [(0, 0); STEPS as usize], began: None, last: 0 }
    }

    /// Clears the steps that have left the window.
    fn advance(&mut self, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let number = (now.saturating_duration_since(began).as_nanos() / self.step.as_nanos()) as u64;
        let passed = number.saturating_sub(self.last).min(u64::from(STEPS));
        for offset in 0..passed {
            self.ring[((number - offset) % u64::from(STEPS)) as usize] = (0, 0);
        }
        self.last = self.last.max(number);
    }

    fn add(&mut self, now: Instant, failed: u32) {
        self.advance(now);
        let step = &mut self.ring[(self.last % u64::from(STEPS)) as usize];
        *step = (step.0.saturating_add(1), step.1.saturating_add(failed));
    }

    fn sum(&mut self, now: Instant) -> (u32, u32) {
        self.advance(now);
        let add = |sum: (u32, u32), step: &(u32, u32)| (sum.0.saturating_add(step.0), sum.1.saturating_add(step.1));
        self.ring.iter().fold((0, 0), add)
    }

    fn covered(&self, now: Instant) -> Duration {
        let age = self.began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
        age.min(self.step * STEPS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VIEW: Traffic = Traffic { p95: Some(Duration::from_secs(1)), pending: 0 };

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// Reads tokio's clock, which needs no runtime for that.
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn silence_needs_enough_requests_and_enough_time_since_the_first_failure() {
        let (trip, now) = (Trip::silence(), start());
        let mut tracker = Tracker::new(trip);
        // An idle hour before the first failure does not count.
        let now = now + secs(3600);
        for _ in 0..50 {
            tracker.failed(now, false);
        }
        assert_eq!(tracker.verdict(trip, now + Duration::from_millis(9_999), VIEW), None);
        let evidence = Evidence { failed: 50, requests: 50, over: secs(10) };
        assert_eq!(tracker.verdict(trip, now + secs(10), VIEW), Some(evidence));

        let mut tracker = Tracker::new(trip);
        for second in 0..9 {
            tracker.failed(now + secs(second), false);
            tracker.failed(now + secs(second), true);
        }
        assert_eq!(tracker.verdict(trip, now + secs(50), VIEW), None, "9 requests, however often sent");
        tracker.failed(now + secs(50), false);
        assert!(tracker.verdict(trip, now + secs(50), VIEW).is_some());
        tracker.succeeded(Some(now), now + secs(50));
        assert!(tracker.is_blank() && tracker.verdict(trip, now + secs(50), VIEW).is_none());
    }

    #[test]
    fn silence_lasts_twice_as_long_as_successes_take() {
        let (trip, now) = (Trip::silence(), start());
        let mut tracker = Tracker::new(trip);
        (0..20).for_each(|_| tracker.failed(now, false));
        let slow = Traffic { p95: Some(secs(30)), pending: 0 };
        assert_eq!(tracker.verdict(trip, now + Duration::from_millis(59_999), slow), None);
        assert!(tracker.verdict(trip, now + secs(60), slow).is_some());
    }

    #[test]
    fn calls_under_way_hold_it_back_for_a_minute() {
        let (trip, now) = (Trip::silence(), start());
        let mut tracker = Tracker::new(trip);
        (0..20).for_each(|_| tracker.failed(now, false));
        let view = |pending| Traffic { pending, ..VIEW };
        assert!(tracker.verdict(trip, now + secs(10), view(5)).is_some());
        assert_eq!(tracker.verdict(trip, now + secs(59), view(6)), None);
        assert!(tracker.verdict(trip, now + secs(60), view(6)).is_some());
    }

    #[test]
    fn what_was_sent_before_the_first_failure_does_not_break_the_silence() {
        let (trip, now) = (Trip::silence(), start());
        for (began, breaks) in [(None, false), (Some(now), false), (Some(now + secs(2)), true)] {
            let mut tracker = Tracker::new(trip);
            (0..20).for_each(|_| tracker.failed(now + secs(1), false));
            tracker.succeeded(began, now + secs(5));
            assert_eq!(tracker.verdict(trip, now + secs(11), VIEW).is_none(), breaks);
        }
    }

    #[test]
    fn a_failure_of_long_ago_is_forgotten() {
        let (trip, now) = (Trip::silence(), start());
        let mut tracker = Tracker::new(trip);
        tracker.failed(now, false);
        (0..20).for_each(|_| tracker.failed(now + secs(3_600), false));
        assert_eq!(tracker.verdict(trip, now + secs(3_600), VIEW), None);
    }

    #[test]
    fn consecutive_counts_requests_in_a_row() {
        let (trip, now) = (Trip::consecutive(3), start());
        let mut tracker = Tracker::new(trip);
        let outcomes = |tracker: &mut Tracker, text: &str| {
            text.chars().for_each(|outcome| match outcome {
                's' => tracker.succeeded(None, now),
                'f' => tracker.failed(now, false),
                _ => tracker.failed(now, true),
            });
            tracker.verdict(trip, now, VIEW).is_some()
        };
        assert!(!outcomes(&mut tracker, "ffsffrrr"));
        assert!(outcomes(&mut tracker, "f"));
    }

    proptest! {
        /// The plain model counts all outcomes anew each time.
        #[test]
        fn a_window_by_calls_is_its_plain_model(
            outcomes in proptest::collection::vec(any::<bool>(), 0..200), longest in 1u32..30, minimum in 1u32..30, threshold in 0.0f64..1.0,
        ) {
            let (now, trip) = (start(), Trip::failure_rate(threshold, Window::Calls(longest)).minimum_requests(minimum));
            let mut tracker = Tracker::new(trip);
            for end in 0..outcomes.len() {
                if outcomes[end] { tracker.failed(now, false) } else { tracker.succeeded(None, now) }
                let window = &outcomes[(end + 1).saturating_sub(longest as usize)..=end];
                let failed = window.iter().filter(|failed| **failed).count();
                let opens = window.len() >= minimum as usize && failed > 0 && failed as f64 >= threshold * window.len() as f64;
                prop_assert_eq!(tracker.verdict(trip, now, VIEW).is_some(), opens);
            }
        }

        /// In the plain model an outcome younger than nine tenths of the window counts, and one older than the window
        /// does not.
        #[test]
        fn a_window_by_time_is_its_plain_model(steps in proptest::collection::vec((0u64..4_000, any::<bool>()), 0..200)) {
            let begun = start();
            let mut ring = Steps::new(secs(10));
            let (mut at, mut all) = (0, Vec::new());
            for (wait, failed) in steps {
                at += wait;
                all.push((at, failed));
                let now = begun + Duration::from_millis(at);
                ring.add(now, u32::from(failed));
                let count = |window: u64, fails: bool| {
                    all.iter().filter(|(then, failed)| at - then < window && (*failed || !fails)).count() as u32
                };
                let (requests, failed) = ring.sum(now);
                prop_assert!((count(9_000, false)..=count(10_000, false)).contains(&requests));
                prop_assert!((count(9_000, true)..=count(10_000, true)).contains(&failed));
            }
        }
    }
}
