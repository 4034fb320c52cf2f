//! The calls of the last hour, minute by minute: their number, their failures by fault, and the times of their answers.
//!
//! Pure: it is told the time. A minute without calls takes no room, times are counted in [`Times`], and models beyond
//! the [`FOLLOWED`] that are used most share the relay's own line alone.

use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;
use tower_gemini::{call::ServiceTier, failure::Fault};

/// The minutes that are kept, the one under way included.
pub(crate) const MINUTES: usize = 60;

/// The number of models that have a history of their own. Callers can invent names.
pub(crate) const FOLLOWED: usize = 24;

/// The minutes that tell the state of a model, the one under way included.
const LATELY: u64 = 5;

/// All faults, in the order in which they are counted.
const FAULTS: [Fault; 7] =
    [Fault::Caller, Fault::Key, Fault::Quota, Fault::Model, Fault::Service, Fault::Transport, Fault::Local];

/// The service tiers, in the order in which they are counted.
const TIERS: [ServiceTier; 4] =
    [ServiceTier::Standard, ServiceTier::Flex, ServiceTier::Priority, ServiceTier::Deferred];

/// The end of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The answer has passed to its end, after that time.
    Answered(Duration),
    /// The caller has seen a failure. `Fault::Caller` is the fault of callers in any layer's words.
    Failed(Fault),
    /// The caller has left before the end.
    Left,
}

/// The calls of the last hour: of the relay, and of the models that are used most.
pub(crate) struct History {
    began: Instant,
    all: Minutes,
    models: HashMap<String, ModelHistory>,
}

/// The calls to one model.
#[derive(Default)]
struct ModelHistory {
    minutes: Minutes,
    /// The failures, other than by callers' faults, since the last answer.
    in_a_row: u64,
    last_answer: Option<Instant>,
}

impl History {
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, all: Minutes::default(), models: HashMap::new() }
    }

    /// Adds a call that has ended `now`. The tier is that which it asked for, if it came so far that this was read.
    pub(crate) fn add(&mut self, end: End, tier: Option<ServiceTier>, now: Instant) {
        let minute = self.minute(now);
        self.all.add(minute, end, tier);
    }

    /// Adds a call to a model that is followed. Returns whether it is.
    pub(crate) fn add_to(&mut self, model: &str, end: End, tier: Option<ServiceTier>, now: Instant) -> bool {
        let minute = self.minute(now);
        let Some(model) = self.models.get_mut(model) else { return false };
        model.add(minute, end, tier, now);
        true
    }

    /// Follows a model from its first call on, in place of the one that is used least.
    pub(crate) fn follow(&mut self, model: String, end: End, tier: Option<ServiceTier>, now: Instant) {
        let minute = self.minute(now);
        if self.models.len() >= FOLLOWED && !self.models.contains_key(&model) {
            let use_of = |(_, model): &(&String, &ModelHistory)| model.minutes.uses(minute);
            let least = self.models.iter().min_by_key(use_of).map(|(name, _)| name.clone());
            least.and_then(|least| self.models.remove(&least));
        }
        self.models.entry(model).or_default().add(minute, end, tier, now);
    }

    /// Returns the last hour of all calls.
    pub(crate) fn hour(&self, now: Instant) -> Hour {
        self.all.hour(self.minute(now))
    }

    /// Returns the names of the models that are followed.
    pub(crate) fn followed(&self) -> Vec<String> {
        self.models.keys().cloned().collect()
    }

    /// Returns the last minutes and the last hour of a model, if it is followed.
    pub(crate) fn model(&self, name: &str, now: Instant) -> Option<(Lately, Hour)> {
        let (model, minute) = (self.models.get(name)?, self.minute(now));
        Some((model.lately(minute, now), model.minutes.hour(minute)))
    }

    fn minute(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs() / 60
    }
}

impl ModelHistory {
    fn add(&mut self, minute: u64, end: End, tier: Option<ServiceTier>, now: Instant) {
        match end {
            End::Answered(_) => (self.in_a_row, self.last_answer) = (0, Some(now)),
            // A caller that leaves says nothing of the model.
            End::Failed(Fault::Caller) | End::Left => {}
            End::Failed(_) => self.in_a_row += 1,
        }
        self.minutes.add(minute, end, tier);
    }

    fn lately(&self, minute: u64, now: Instant) -> Lately {
        let mut lately = Lately {
            in_a_row: self.in_a_row,
            answered_ago: self.last_answer.map(|at| now.saturating_duration_since(at)),
            ..Lately::default()
        };
        for each in self.minutes.last(LATELY, minute) {
            lately.answered += u64::from(each.answered);
            lately.failed += each.failed();
            lately.by_callers += each.by_callers();
            lately.left += u64::from(each.left);
        }
        lately
    }
}

/// The ends of a model's calls in the last five minutes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lately {
    pub(crate) answered: u64,
    /// The failures that are not the callers' fault.
    pub(crate) failed: u64,
    /// The failures by the callers' own fault.
    pub(crate) by_callers: u64,
    /// The calls whose callers have left before the end.
    pub(crate) left: u64,
    /// The failures, other than by callers' faults, since the last answer, however long ago that was.
    pub(crate) in_a_row: u64,
    /// The time since the last answer.
    pub(crate) answered_ago: Option<Duration>,
}

/// The last hour as columns of [`MINUTES`] numbers, the oldest first; the last minute is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hour {
    pub(crate) calls: Vec<u64>,
    /// The failures that are not the callers' fault.
    pub(crate) failed: Vec<u64>,
    /// The failures by the callers' own fault.
    pub(crate) by_callers: Vec<u64>,
    pub(crate) p50: Vec<Option<Duration>>,
    pub(crate) p95: Vec<Option<Duration>>,
    /// The same of the whole hour.
    pub(crate) p50_of_all: Option<Duration>,
    pub(crate) p95_of_all: Option<Duration>,
    /// The failures of the whole hour by fault, those that there are.
    pub(crate) faults: Vec<(Fault, u64)>,
    /// The calls of the whole hour by the service tier that they asked for, where that is known.
    pub(crate) tiers: Vec<(ServiceTier, u64)>,
}

/// The minutes of an hour in which something has ended, the oldest first.
#[derive(Default)]
struct Minutes(VecDeque<Minute>);

#[derive(Default)]
struct Minute {
    /// The number of the minute since the beginning.
    at: u64,
    answered: u32,
    left: u32,
    failed: [u32; FAULTS.len()],
    tiers: [u32; TIERS.len()],
    times: Times,
}

impl Minute {
    fn calls(&self) -> u64 {
        u64::from(self.answered) + u64::from(self.left) + self.failed() + self.by_callers()
    }

    fn failed(&self) -> u64 {
        self.failed[1..].iter().copied().map(u64::from).sum()
    }

    fn by_callers(&self) -> u64 {
        u64::from(self.failed[0])
    }
}

impl Minutes {
    fn add(&mut self, minute: u64, end: End, tier: Option<ServiceTier>) {
        // A call that has waited for the lock may come after one of the next minute.
        if self.0.back().is_none_or(|last| last.at < minute) {
            while self.0.len() >= MINUTES
                || self.0.front().is_some_and(|first| !is_within(MINUTES as u64, first, minute))
            {
                self.0.pop_front();
            }
            self.0.push_back(Minute { at: minute, ..Minute::default() });
        }
        let Some(last) = self.0.back_mut() else { return };
        let count = match end {
            End::Answered(time) => {
                last.times.add(time);
                &mut last.answered
            }
            End::Failed(fault) => {
                &mut last.failed[FAULTS.iter().position(|of| *of == fault).unwrap_or(FAULTS.len() - 1)]
            }
            End::Left => &mut last.left,
        };
        *count = count.saturating_add(1);
        if let Some(at) = TIERS.iter().position(|of| Some(*of) == tier) {
            last.tiers[at] = last.tiers[at].saturating_add(1);
        }
    }

    /// Returns the last `minutes`, that under way included.
    fn last(&self, minutes: u64, minute: u64) -> impl Iterator<Item = &Minute> {
        self.0.iter().filter(move |each| is_within(minutes, each, minute))
    }

    /// Returns how much it is used: first by the calls of the hour, then by the time of the last of them.
    fn uses(&self, minute: u64) -> (u64, u64) {
        let calls = self.last(MINUTES as u64, minute).map(Minute::calls).sum();
        (calls, self.0.back().map_or(0, |last| last.at))
    }

    fn hour(&self, minute: u64) -> Hour {
        let mut hour = Hour {
            calls: vec![0; MINUTES],
            failed: vec![0; MINUTES],
            by_callers: vec![0; MINUTES],
            p50: vec![None; MINUTES],
            p95: vec![None; MINUTES],
            ..Hour::default()
        };
        let (mut times, mut faults, mut tiers) = (Times::default(), [0; FAULTS.len()], [0; TIERS.len()]);
        for each in self.last(MINUTES as u64, minute) {
            let ago = usize::try_from(minute.saturating_sub(each.at)).unwrap_or(MINUTES);
            let Some(column) = (MINUTES - 1).checked_sub(ago) else { continue };
            hour.calls[column] = each.calls();
            hour.failed[column] = each.failed();
            hour.by_callers[column] = each.by_callers();
            hour.p50[column] = each.times.quantile(50);
            hour.p95[column] = each.times.quantile(95);
            times.merge(&each.times);
            faults.iter_mut().zip(each.failed).for_each(|(sum, count)| *sum += u64::from(count));
            tiers.iter_mut().zip(each.tiers).for_each(|(sum, count)| *sum += u64::from(count));
        }
        (hour.p50_of_all, hour.p95_of_all) = (times.quantile(50), times.quantile(95));
        hour.faults = FAULTS.into_iter().zip(faults).filter(|(_, count)| *count > 0).collect();
        hour.tiers = TIERS.into_iter().zip(tiers).filter(|(_, count)| *count > 0).collect();
        hour.tiers.sort_by_key(|(_, count)| Reverse(*count));
        hour
    }
}

/// Returns whether a minute is one of the last `minutes`, that under way included.
fn is_within(minutes: u64, each: &Minute, minute: u64) -> bool {
    minute.saturating_sub(each.at) < minutes
}

/// A histogram of times: each doubling of a millisecond has [`STEPS`] buckets, so that a quantile is at most an eighth
/// away from the true one.
#[derive(Clone, Debug, Default)]
struct Times(Vec<u32>);

/// The buckets of one doubling.
const STEPS: u64 = 4;

/// The longest time that is told apart from longer ones, in milliseconds: 35 minutes. Calls of the flex tier have 16.
const LONGEST: u64 = (1 << 21) - 1;

impl Times {
    fn add(&mut self, time: Duration) {
        let at = bucket(u64::try_from(time.as_millis()).unwrap_or(LONGEST).min(LONGEST));
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] = self.0[at].saturating_add(1);
    }

    fn merge(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(sum, count)| *sum = sum.saturating_add(*count));
    }

    /// Returns the time that `percent` of all times do not exceed.
    fn quantile(&self, percent: u64) -> Option<Duration> {
        let all: u64 = self.0.iter().copied().map(u64::from).sum();
        let rank = (all * percent).div_ceil(100).max(1);
        let mut passed = 0;
        let at = self.0.iter().position(|count| {
            passed += u64::from(*count);
            passed >= rank
        });
        at.map(|at| Duration::from_millis(middle(at as u64)))
    }
}

/// Returns the bucket of a time in milliseconds.
fn bucket(millis: u64) -> usize {
    let at = match millis.checked_ilog2() {
        Some(doublings @ 2..) => u64::from(doublings - 1) * STEPS + (millis >> (doublings - 2)) % STEPS,
        _ => millis,
    };
    usize::try_from(at).unwrap_or(usize::MAX)
}

/// Returns the middle of a bucket, in milliseconds.
fn middle(bucket: u64) -> u64 {
    match bucket / STEPS {
        0 => bucket,
        doublings => {
            let width = 1 << (doublings - 1);
            (STEPS + bucket % STEPS) * width + width / 2
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends() -> impl Strategy<Value = End> {
        prop_oneof![
            3 => (0_u64..3_000_000).prop_map(|millis| End::Answered(Duration::from_millis(millis))),
            1 => (0_u64..600).prop_map(|millis| End::Answered(Duration::from_millis(millis))),
            2 => (0..FAULTS.len()).prop_map(|fault| End::Failed(FAULTS[fault])),
            1 => Just(End::Left),
        ]
    }

    /// Returns the exact time that `percent` of all do not exceed.
    fn exact(times: &mut [u64], percent: usize) -> Option<u64> {
        times.sort_unstable();
        times.get((times.len() * percent).div_ceil(100).max(1) - 1).copied()
    }

    proptest! {
        #[test]
        fn the_last_hour_is_that_of_a_list_of_all_calls(
            calls in prop::collection::vec((0_u64..400, ends(), 0..=TIERS.len()), 1..200),
            later in 0_u64..5_000,
        ) {
            let start = Instant::now();
            let mut history = History::new(start);
            let (mut second, mut all) = (0, Vec::new());
            for (wait, end, tier) in calls {
                second += wait;
                history.add(end, TIERS.get(tier).copied(), start + Duration::from_secs(second));
                all.push((second / 60, end, TIERS.get(tier).copied()));
                prop_assert!(history.all.0.len() <= MINUTES);
            }
            let minute = (second + later) / 60;
            let hour = history.hour(start + Duration::from_secs(second + later));
            for column in 0..MINUTES {
                let at = (minute + 1 + column as u64).checked_sub(MINUTES as u64);
                let here: Vec<_> = all.iter().filter(|(of, ..)| Some(*of) == at).map(|(_, end, _)| *end).collect();
                let count = |is: &dyn Fn(&End) -> bool| here.iter().filter(|end| is(end)).count() as u64;
                prop_assert_eq!(hour.calls[column], here.len() as u64);
                prop_assert_eq!(hour.by_callers[column], count(&|end| *end == End::Failed(Fault::Caller)));
                let failed = count(&|end| matches!(end, End::Failed(fault) if *fault != Fault::Caller));
                prop_assert_eq!(hour.failed[column], failed);
                let mut times: Vec<_> = here.iter().filter_map(|end| match end {
                    End::Answered(time) => Some((time.as_millis() as u64).min(LONGEST)),
                    _ => None,
                }).collect();
                for (percent, found) in [(50, hour.p50[column]), (95, hour.p95[column])] {
                    let (exact, found) = (exact(&mut times, percent), found.map(|time| time.as_millis() as u64));
                    prop_assert_eq!(exact.is_some(), found.is_some());
                    if let (Some(exact), Some(found)) = (exact, found) {
                        prop_assert!(found.abs_diff(exact) * 8 <= exact, "{} for {}", found, exact);
                    }
                }
            }
            let kept: Vec<_> = all.iter().filter(|(of, ..)| minute - of < MINUTES as u64).collect();
            for (fault, calls) in FAULTS.iter().map(|of| (of, kept.iter().filter(|call| call.1 == End::Failed(*of)).count())) {
                prop_assert_eq!(hour.faults.iter().find(|(of, _)| of == fault).map_or(0, |(_, calls)| *calls), calls as u64);
            }
            for (tier, calls) in TIERS.iter().map(|of| (of, kept.iter().filter(|call| call.2 == Some(*of)).count())) {
                prop_assert_eq!(hour.tiers.iter().find(|(of, _)| of == tier).map_or(0, |(_, calls)| *calls), calls as u64);
            }
        }
    }

    #[test]
    fn each_time_is_in_the_bucket_whose_middle_is_near() {
        for millis in (0..5_000).chain([LONGEST - 1, LONGEST]) {
            let middle = middle(bucket(millis) as u64);
            assert!(middle.abs_diff(millis) * 8 <= millis, "{middle} for {millis}");
            assert!(bucket(millis + 1) >= bucket(millis));
        }
        let mut times = Times::default();
        times.add(Duration::MAX);
        assert_eq!(times.0.len(), 80, "the most that a minute takes");
    }

    #[test]
    fn models_that_are_used_stay_and_invented_names_drive_out_each_other() {
        let now = Instant::now();
        let mut history = History::new(now);
        let answer = End::Answered(Duration::from_millis(5));
        for used in ["pro", "flash"] {
            history.follow(used.to_owned(), answer, Some(ServiceTier::Standard), now);
            assert!(history.add_to(used, answer, Some(ServiceTier::Standard), now));
        }
        for nth in 0..1_000 {
            let model = format!("invented-{nth}");
            assert!(!history.add_to(&model, answer, Some(ServiceTier::Standard), now));
            history.follow(model, End::Failed(Fault::Service), Some(ServiceTier::Standard), now);
        }
        assert_eq!(history.followed().len(), FOLLOWED);
        assert!(["pro", "flash"].iter().all(|used| history.model(used, now).is_some()), "{:?}", history.followed());
    }

    #[test]
    fn failures_in_a_row_end_with_an_answer_alone() {
        let now = Instant::now();
        let mut history = History::new(now);
        let mut add = |end: End, second: u64| {
            let at = now + Duration::from_secs(second);
            if !history.add_to("flash", end, Some(ServiceTier::Standard), at) {
                history.follow("flash".to_owned(), end, Some(ServiceTier::Standard), at);
            }
            history.model("flash", at).unwrap().0
        };
        add(End::Answered(Duration::ZERO), 0);
        add(End::Failed(Fault::Service), 10);
        add(End::Left, 15);
        add(End::Failed(Fault::Caller), 20);
        let lately = add(End::Failed(Fault::Model), 200);
        let answered_ago = Some(Duration::from_secs(200));
        assert_eq!(lately, Lately { answered: 1, failed: 2, by_callers: 1, left: 1, in_a_row: 2, answered_ago });
        let later = add(End::Failed(Fault::Model), 320);
        assert_eq!((later.answered, later.failed, later.in_a_row), (0, 2, 3), "the first minute is over for long");
        assert_eq!(add(End::Answered(Duration::ZERO), 321).in_a_row, 0);
    }
}
