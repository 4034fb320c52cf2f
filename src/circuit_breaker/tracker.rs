//! The memory of a closed breaker: the failures by which each mode decides. Pure: the caller passes the time.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::trip::{MAX_CALLS, Trip, Window};

/// The number of steps of a window by time.
const STEPS: u32 = 10;

/// The least requests by which a silence opens, where their attempts are many.
pub(super) const FEW_REQUESTS: u32 = 3;

/// The time for which calls in flight can hold a breaker back, and after which a failure without another is forgotten.
pub(super) const MINUTE: Duration = Duration::from_secs(60);

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

/// A failure that counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CountedFailure {
    /// Set if an earlier attempt of the same request has failed already.
    pub(super) repeated: bool,
    /// Set if one of this program's own clocks ended the attempt.
    pub(super) timed_out: bool,
    /// The wait that the upstream asks for.
    pub(super) hint: Option<Duration>,
}

/// The memory of a breaker while it is closed.
#[derive(Clone, Debug)]
pub(super) struct Tracker {
    memory: TripMemory,
    /// The time of the last answer that it was told of.
    answered: Option<Instant>,
    /// The time of the failure that ended the last calm: calls of which no time is known were sent before.
    stirred: Option<Instant>,
    /// The time-outs of calls that were sent after the last answer.
    unanswered: FailureCount,
}

/// The memory of a mode.
#[derive(Clone, Debug)]
enum TripMemory {
    Silence(FailureCount),
    Calls {
        outcomes: VecDeque<(Instant, CallEnd)>,
        failed: u32,
        timed_out: u32,
        longest: usize,
    },
    /// In a box, because it is larger than all else in a breaker.
    Time(Box<Steps>),
    Consecutive(FailureCount),
}

/// The end of a call in a window by calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CallEnd {
    Answered,
    Failed,
    TimedOut,
}

impl Tracker {
    pub(super) fn new(trip: Trip) -> Self {
        let memory = match trip {
            Trip::Silence { .. } => TripMemory::Silence(FailureCount::default()),
            Trip::FailureRate { window: Window::Calls(calls), .. } => {
                let longest = calls.clamp(1, MAX_CALLS) as usize;
                TripMemory::Calls { outcomes: VecDeque::new(), failed: 0, timed_out: 0, longest }
            }
            Trip::FailureRate { window: Window::Time(time), .. } => TripMemory::Time(Box::new(Steps::new(time))),
            Trip::Consecutive { .. } => TripMemory::Consecutive(FailureCount::default()),
        };
        Self { memory, answered: None, stirred: None, unanswered: FailureCount::default() }
    }

    /// Returns whether there is nothing to remember.
    pub(super) fn is_blank(&self) -> bool {
        match &self.memory {
            TripMemory::Silence(count) | TripMemory::Consecutive(count) => count.first.is_none(),
            TripMemory::Calls { .. } | TripMemory::Time(_) => false,
        }
    }

    /// Returns whether a success would change nothing. It always changes something where failures can open the breaker
    /// at once, by a rate or in a row: the time-outs among them count by the last answer before their calls were sent.
    pub(super) fn ignores_successes(&self) -> bool {
        matches!(self.memory, TripMemory::Silence(_)) && self.is_blank()
    }

    /// Records a success of a call that began at `began`; `None`: it began while the breaker was calm.
    pub(super) fn succeeded(&mut self, began: Option<Instant>, now: Instant) {
        self.answered = Some(now);
        self.unanswered = FailureCount::default();
        match &mut self.memory {
            TripMemory::Silence(count) => {
                if began >= count.first {
                    *count = FailureCount::default();
                }
            }
            TripMemory::Consecutive(count) => *count = FailureCount::default(),
            TripMemory::Calls { .. } => self.push(now, CallEnd::Answered),
            TripMemory::Time(steps) => steps.add(now, CallEnd::Answered),
        }
    }

    /// Records a failure that counts, of a call that began at `began`; `None`: it began while the breaker was calm.
    pub(super) fn failed(&mut self, failure: CountedFailure, began: Option<Instant>, now: Instant) {
        if failure.repeated && !matches!(self.memory, TripMemory::Silence(_)) {
            return;
        }
        if self.is_blank() {
            self.stirred = Some(now);
        }
        if let TripMemory::Silence(count) = &mut self.memory
            && count.is_old(now)
        {
            (*count, self.unanswered) = Default::default();
        }
        if failure.timed_out && self.answered < began.or(self.stirred) {
            self.unanswered.add(failure, now);
        }
        let end = if failure.timed_out { CallEnd::TimedOut } else { CallEnd::Failed };
        match &mut self.memory {
            TripMemory::Silence(count) => count.add(failure, now),
            TripMemory::Consecutive(count) => count.add(failure, now),
            TripMemory::Calls { .. } => self.push(now, end),
            TripMemory::Time(steps) => steps.add(now, end),
        }
    }

    fn push(&mut self, now: Instant, end: CallEnd) {
        let TripMemory::Calls { outcomes, failed, timed_out, longest } = &mut self.memory else { return };
        let left = if outcomes.len() >= *longest { outcomes.pop_front() } else { None };
        outcomes.push_back((now, end));
        *failed = *failed + end.fails() - left.map_or(0, |(_, left)| left.fails());
        *timed_out = *timed_out + end.times_out() - left.map_or(0, |(_, left)| left.times_out());
    }

    /// Returns the evidence by which the breaker has to open, if there is enough.
    pub(super) fn verdict(&mut self, trip: Trip, now: Instant, view: Traffic) -> Option<Evidence> {
        let unanswered = self.unanswered;
        // Time-outs of our own alone count only if nothing has been answered since they were sent.
        let counted = |all: FailureCount| if all.are_time_outs() { unanswered } else { all };
        let of_window = |Step { requests, failed, timed_out }: Step| {
            let excused = if failed == timed_out { failed.saturating_sub(unanswered.requests) } else { 0 };
            (requests - excused, failed - excused)
        };
        match (&mut self.memory, trip) {
            (TripMemory::Silence(all), Trip::Silence { minimum_requests, minimum_attempts, at_least }) => {
                let FailureCount { first, requests, attempts, .. } = counted(*all);
                let over = now.saturating_duration_since(first?);
                let needed = view.p95.map_or(at_least, |p95| at_least.max(p95.saturating_mul(2)));
                let may_answer = over < MINUTE && may_still_answer(view.pending, attempts);
                // Of few callers a single answer decides, and so does one that is still to come.
                let is_few = requests < minimum_requests;
                let has_enough = !is_few || requests >= FEW_REQUESTS && attempts >= minimum_attempts;
                let may_answer = may_answer || is_few && over < MINUTE.max(needed * 2) && view.pending > 0;
                let opens = has_enough && over >= needed && !may_answer;
                opens.then_some(Evidence { failed: requests, requests, over })
            }
            (
                TripMemory::Calls { outcomes, failed, timed_out, .. },
                Trip::FailureRate { threshold, minimum_requests, .. },
            ) => {
                let requests = outcomes.len() as u32;
                let (requests, failed) = of_window(Step { requests, failed: *failed, timed_out: *timed_out });
                let over = now.saturating_duration_since(outcomes.front()?.0);
                exceeds(requests, failed, threshold, minimum_requests).then_some(Evidence { failed, requests, over })
            }
            (TripMemory::Time(steps), Trip::FailureRate { threshold, minimum_requests, .. }) => {
                let (requests, failed) = of_window(steps.sum(now));
                let over = steps.covered(now);
                exceeds(requests, failed, threshold, minimum_requests).then_some(Evidence { failed, requests, over })
            }
            (TripMemory::Consecutive(all), Trip::Consecutive { failures }) => {
                let FailureCount { first, requests, .. } = counted(*all);
                let over = now.saturating_duration_since(first?);
                (requests >= failures).then_some(Evidence { failed: requests, requests, over })
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

impl CallEnd {
    fn fails(self) -> u32 {
        u32::from(self != Self::Answered)
    }

    fn times_out(self) -> u32 {
        u32::from(self == Self::TimedOut)
    }
}

/// Failures without a success between them.
#[derive(Clone, Copy, Debug, Default)]
struct FailureCount {
    first: Option<Instant>,
    last: Option<Instant>,
    requests: u32,
    attempts: u32,
    timed_out: u32,
}

impl FailureCount {
    fn add(&mut self, failure: CountedFailure, now: Instant) {
        self.first.get_or_insert(now);
        self.last = Some(now);
        self.attempts = self.attempts.saturating_add(1);
        self.requests = self.requests.saturating_add(u32::from(!failure.repeated));
        self.timed_out = self.timed_out.saturating_add(u32::from(failure.timed_out));
    }

    /// Returns whether all of them are time-outs of this program's own.
    fn are_time_outs(&self) -> bool {
        self.timed_out == self.attempts
    }

    /// Returns whether the last of them was so long ago that the next begins anew.
    fn is_old(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now.saturating_duration_since(last) > MINUTE)
    }
}

/// A window by time: a ring of steps.
#[derive(Clone, Debug)]
struct Steps {
    step: Duration,
    ring: [Step; STEPS as usize],
    began: Option<Instant>,
    /// The number of the step that was written last.
    last: u64,
}

/// The requests of a step, those that failed, and those of them that timed out.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    requests: u32,
    failed: u32,
    timed_out: u32,
}

impl Step {
    fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            failed: self.failed.saturating_add(other.failed),
            timed_out: self.timed_out.saturating_add(other.timed_out),
        }
    }
}

impl Steps {
    fn new(window: Duration) -> Self {
        let step = (window / STEPS).max(Duration::from_millis(1));
        Self { step, ring: Default::default(), began: None, last: 0 }
    }

    /// Clears the steps that have left the window.
    fn advance(&mut self, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let number = (now.saturating_duration_since(began).as_nanos() / self.step.as_nanos()) as u64;
        let passed = number.saturating_sub(self.last).min(u64::from(STEPS));
        for offset in 0..passed {
            self.ring[((number - offset) % u64::from(STEPS)) as usize] = Step::default();
        }
        self.last = self.last.max(number);
    }

    fn add(&mut self, now: Instant, end: CallEnd) {
        self.advance(now);
        let step = &mut self.ring[(self.last % u64::from(STEPS)) as usize];
        *step = step.plus(Step { requests: 1, failed: end.fails(), timed_out: end.times_out() });
    }

    fn sum(&mut self, now: Instant) -> Step {
        self.advance(now);
        self.ring.iter().copied().fold(Step::default(), Step::plus)
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

    const FAILS: CountedFailure = CountedFailure { repeated: false, timed_out: false, hint: None };
    const TIMED_OUT: CountedFailure = CountedFailure { timed_out: true, ..FAILS };
    const AGAIN: CountedFailure = CountedFailure { repeated: true, ..FAILS };

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
            tracker.failed(FAILS, None, now);
        }
        assert_eq!(tracker.verdict(trip, now + Duration::from_millis(9_999), VIEW), None);
        let evidence = Evidence { failed: 50, requests: 50, over: secs(10) };
        assert_eq!(tracker.verdict(trip, now + secs(10), VIEW), Some(evidence));

        let mut tracker = Tracker::new(trip);
        for second in 0..9 {
            tracker.failed(FAILS, None, now + secs(second));
            tracker.failed(AGAIN, None, now + secs(second));
        }
        assert_eq!(tracker.verdict(trip, now + secs(50), VIEW), None, "9 requests, however often sent");
        tracker.failed(FAILS, None, now + secs(50));
        assert!(tracker.verdict(trip, now + secs(50), VIEW).is_some());
        tracker.succeeded(Some(now), now + secs(50));
        assert!(tracker.is_blank() && tracker.verdict(trip, now + secs(50), VIEW).is_none());
    }

    #[test]
    fn a_few_requests_are_enough_where_their_attempts_are_many() {
        let now = start();
        for (trip, requests, attempts, opens) in [
            (Trip::silence(), 3, 20, true),
            (Trip::silence(), 3, 19, false),
            (Trip::silence(), 2, 100, false),
            (Trip::silence(), 9, 19, false),
            (Trip::silence(), 10, 10, true),
            (Trip::silence().minimum_attempts(30), 3, 29, false),
            (Trip::silence().minimum_attempts(30), 3, 30, true),
            (Trip::silence().minimum_attempts(u32::MAX), 9, 1_000, false),
            (Trip::silence().minimum_requests(2), 2, 2, true),
        ] {
            let mut tracker = Tracker::new(trip);
            (0..attempts).for_each(|nth| tracker.failed(if nth < requests { FAILS } else { AGAIN }, None, now));
            assert_eq!(tracker.verdict(trip, now + secs(9), VIEW), None);
            let verdict = tracker.verdict(trip, now + secs(10), VIEW);
            assert_eq!(verdict.is_some(), opens, "{trip:?} {requests} {attempts}");
        }
    }

    /// The modes, each of which opens by the third failure of three.
    fn modes() -> [Trip; 4] {
        [
            Trip::silence().minimum_requests(3).at_least(Duration::ZERO),
            Trip::failure_rate(0.7, Window::Calls(10)).minimum_requests(3),
            Trip::failure_rate(0.7, Window::Time(secs(1_000))).minimum_requests(3),
            Trip::consecutive(3),
        ]
    }

    #[test]
    fn time_outs_alone_count_only_of_calls_that_were_sent_after_the_last_answer() {
        let now = start();
        for trip in modes() {
            let mut tracker = Tracker::new(trip);
            let opens = |tracker: &mut Tracker, at: u64| {
                let view = Traffic { p95: None, pending: 0 };
                tracker.verdict(trip, now + secs(at), view).is_some()
            };
            // A call that was sent before them was answered while they hung.
            tracker.succeeded(Some(now), now + secs(20));
            for _ in 0..5 {
                tracker.failed(TIMED_OUT, Some(now + secs(1)), now + secs(31));
                assert!(!opens(&mut tracker, 31), "{trip:?}");
            }
            // An answer after the time-outs excuses them as well, whenever its call was sent.
            (0..2).for_each(|_| tracker.failed(TIMED_OUT, Some(now + secs(21)), now + secs(51)));
            tracker.succeeded(Some(now), now + secs(52));
            tracker.failed(TIMED_OUT, Some(now + secs(22)), now + secs(53));
            assert!(!opens(&mut tracker, 53), "{trip:?}");
            // Nothing is answered any more.
            let mut needed = 0;
            while !opens(&mut tracker, 90) {
                tracker.failed(TIMED_OUT, Some(now + secs(60)), now + secs(90));
                needed += 1;
            }
            // Those that are excused are no requests of a window either.
            assert!(needed == 3 || matches!(trip, Trip::FailureRate { .. }) && needed == 5, "{trip:?} {needed}");
        }
    }

    #[test]
    fn time_outs_count_as_ever_beside_another_failure() {
        let now = start();
        for trip in modes() {
            for other in 0..3 {
                let mut tracker = Tracker::new(trip);
                tracker.succeeded(Some(now), now + secs(20));
                for nth in 0..3 {
                    tracker.failed(if nth == other { FAILS } else { TIMED_OUT }, Some(now), now + secs(30));
                }
                let verdict = tracker.verdict(trip, now + secs(30), Traffic { p95: None, pending: 0 });
                assert!(verdict.is_some(), "{trip:?} {other}");
            }
        }
    }

    /// The breaker does not see the calls that begin while it is calm.
    #[test]
    fn time_outs_of_calls_that_nobody_saw_begin_count_unless_an_answer_came_since_the_first_of_them() {
        let (trip, now) = (Trip::silence().minimum_requests(3).at_least(Duration::ZERO), start());
        let view = Traffic { p95: None, pending: 0 };
        for answered in [false, true] {
            let mut tracker = Tracker::new(trip);
            tracker.failed(TIMED_OUT, None, now);
            if answered {
                tracker.succeeded(None, now + secs(1));
            }
            (0..2).for_each(|_| tracker.failed(TIMED_OUT, None, now + secs(2)));
            assert_eq!(tracker.verdict(trip, now + secs(2), view).is_none(), answered);
        }
    }

    #[test]
    fn silence_lasts_twice_as_long_as_successes_take() {
        let (trip, now) = (Trip::silence(), start());
        let mut tracker = Tracker::new(trip);
        (0..20).for_each(|_| tracker.failed(FAILS, None, now));
        let slow = Traffic { p95: Some(secs(30)), pending: 0 };
        assert_eq!(tracker.verdict(trip, now + Duration::from_millis(59_999), slow), None);
        assert!(tracker.verdict(trip, now + secs(60), slow).is_some());
    }

    #[test]
    fn calls_under_way_hold_it_back_for_a_minute() {
        let (trip, now) = (Trip::silence(), start());
        let mut tracker = Tracker::new(trip);
        (0..20).for_each(|_| tracker.failed(FAILS, None, now));
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
            (0..20).for_each(|_| tracker.failed(FAILS, None, now + secs(1)));
            tracker.succeeded(began, now + secs(5));
            assert_eq!(tracker.verdict(trip, now + secs(11), VIEW).is_none(), breaks);
        }
    }

    #[test]
    fn a_failure_of_long_ago_is_forgotten() {
        let (trip, now) = (Trip::silence(), start());
        let mut tracker = Tracker::new(trip);
        tracker.failed(FAILS, None, now);
        (0..20).for_each(|_| tracker.failed(FAILS, None, now + secs(3_600)));
        assert_eq!(tracker.verdict(trip, now + secs(3_600), VIEW), None);
    }

    #[test]
    fn consecutive_counts_requests_in_a_row() {
        let (trip, now) = (Trip::consecutive(3), start());
        let mut tracker = Tracker::new(trip);
        let outcomes = |tracker: &mut Tracker, text: &str| {
            text.chars().for_each(|outcome| match outcome {
                's' => tracker.succeeded(None, now),
                'f' => tracker.failed(FAILS, None, now),
                _ => tracker.failed(AGAIN, None, now),
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
            outcomes in proptest::collection::vec(any::<bool>(), 0..200),
            longest in 1u32..30,
            minimum in 1u32..30,
            threshold in 0.0f64..1.0,
        ) {
            let (now, trip) = (start(), Trip::failure_rate(threshold, Window::Calls(longest)).minimum_requests(minimum));
            let mut tracker = Tracker::new(trip);
            for end in 0..outcomes.len() {
                if outcomes[end] { tracker.failed(FAILS, None, now) } else { tracker.succeeded(None, now) }
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
                ring.add(now, if failed { CallEnd::Failed } else { CallEnd::Answered });
                let count = |window: u64, fails: bool| {
                    all.iter().filter(|(then, failed)| at - then < window && (*failed || !fails)).count() as u32
                };
                let Step { requests, failed, .. } = ring.sum(now);
                prop_assert!((count(9_000, false)..=count(10_000, false)).contains(&requests));
                prop_assert!((count(9_000, true)..=count(10_000, true)).contains(&failed));
            }
        }
    }
}
