//! The times that answers take, a model: what a layer has to know before it waits for one.
//!
//! A clock that suits all models is too long for the fast ones, where a hang then costs minutes, and too short for
//! those that think. And an attempt that is sent when less time is left than the quickest answer took will hardly be
//! answered: it costs quota, and the upstream's work, for nobody.
//!
//! [`TimeoutLayer`](crate::TimeoutLayer) records the time of each attempt that was answered, and sets its clock by
//! them; [`RetryLayer`](crate::RetryLayer) and [`Limiter`](crate::rate_limit::Limiter) ask whether an answer can still
//! come in time. They go by the quickest of the last 64 answers and not by a percentile: the sample is of all callers,
//! and those with heavy requests must not make others give up whose answers are quick. Where a clock that was set by
//! the times has cut three attempts in a row, the times themselves are in doubt.
//!
//! A model's streams, whose time ends with their first content, are kept apart from its unary answers. Names have
//! the service tier where it is not the standard one.

mod latencies;
mod ordered;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

pub(crate) use self::latencies::Latencies;
use self::ordered::OrderedLatencies;
use crate::bounded::{ByAge, MAX_NAME};

/// The most models whose times are kept. Only models that have answered have any, so that nobody invents them.
const MAX_MODELS: usize = 256;

/// The attempts in a row that are cut before the times themselves are doubted. Where one attempt in ten hangs, three in
/// a row are one in a thousand; where the model has become slower, they are the next three.
const DOUBT: u32 = 3;

/// The calls more that were cut for nothing than for a hang, from which on cutting does more harm than good: each of
/// them was asked again, and paid for, although it was only slow.
const REGRET: u32 = 4;

/// The most that are counted, so that two hangs are enough to cut again.
const MAX_REGRET: u32 = 5;

/// The times that answers take: a cheap handle, which the layers of one stack share. All clones are the same.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::service_times::ServiceTimes;
///
/// let times = ServiceTimes::new();
/// assert_eq!(times.p95("gemini-2.5-flash", false), None);
/// (1..=20).for_each(|seconds| times.record("gemini-2.5-flash", false, Duration::from_secs(seconds)));
/// assert_eq!(times.p95("gemini-2.5-flash", false), Some(Duration::from_secs(19)));
/// assert_eq!(times.quick("gemini-2.5-flash", false), Some(Duration::from_secs(1)));
/// assert_eq!(times.p95("gemini-2.5-flash", true), None, "of streams nothing is known");
/// ```
#[derive(Clone)]
pub struct ServiceTimes {
    models: Arc<Mutex<ByAge<Box<str>, Arc<ModelTimes>>>>,
}

/// The times of one model.
#[derive(Debug, Default)]
pub(crate) struct ModelTimes {
    unary: TimeSample,
    streams: TimeSample,
}

/// A sample, and what was made of it when it last changed.
#[derive(Debug, Default)]
struct TimeSample {
    sample: Mutex<OrderedLatencies>,
    /// The least time in milliseconds plus 1; 0 until there are enough.
    quick: AtomicU32,
    /// The 95th percentile in the same way.
    p95: AtomicU32,
    /// The attempts in a row that a clock has ended which was set by this sample, since an answer came within it.
    cut: AtomicU32,
    /// The calls that were cut and answered late all the same, less those that were answered in time: from 0 to
    /// [`MAX_REGRET`].
    regret: AtomicU32,
}

impl ServiceTimes {
    /// Creates a handle that knows no times.
    #[must_use]
    pub fn new() -> Self {
        Self { models: Arc::new(Mutex::new(ByAge::new(MAX_MODELS))) }
    }

    /// Records that an attempt was answered after `time`: a unary answer, or a stream's first content.
    pub fn record(&self, model: &str, streams: bool, time: Duration) {
        if model.len() > MAX_NAME {
            return;
        }
        self.of_or_new(model).record(streams, time);
    }

    /// Returns the time that the quickest of this model's last 64 answers took. `None`: fewer than 16 are known.
    #[must_use]
    pub fn quick(&self, model: &str, streams: bool) -> Option<Duration> {
        self.of(model)?.quick(streams)
    }

    /// Returns a time that few answers of this model are slower than: the 95th percentile of the last 64. `None`: fewer
    /// than 16 are known.
    #[must_use]
    pub fn p95(&self, model: &str, streams: bool) -> Option<Duration> {
        self.of(model)?.p95(streams)
    }

    /// Returns the times of a model, once it has answered.
    pub(crate) fn of(&self, model: &str) -> Option<Arc<ModelTimes>> {
        self.models.lock().get(model).cloned()
    }

    /// Returns the times of a model that has answered just now.
    fn of_or_new(&self, model: &str) -> Arc<ModelTimes> {
        let mut models = self.models.lock();
        if let Some(known) = models.get(model) {
            return known.clone();
        }
        let times = Arc::<ModelTimes>::default();
        models.insert(model.into(), times.clone());
        times
    }
}

impl Default for ServiceTimes {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ServiceTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceTimes").field("models", &self.models.lock().len()).finish_non_exhaustive()
    }
}

impl ModelTimes {
    /// Records the time of an answer.
    pub(crate) fn record(&self, streams: bool, time: Duration) {
        let kind = self.kind(streams);
        let mut sample = kind.sample.lock();
        sample.add(time);
        if let Some((quick, p95)) = sample.percentile(0).zip(sample.percentile(95)).filter(|_| sample.are_enough()) {
            // Relaxed, because each is read by itself.
            kind.quick.store(packed(quick), Ordering::Relaxed);
            kind.p95.store(packed(p95), Ordering::Relaxed);
        }
    }

    /// Returns the time of the quickest answer, once enough are known.
    pub(crate) fn quick(&self, streams: bool) -> Option<Duration> {
        unpacked(&self.kind(streams).quick)
    }

    /// Returns the 95th percentile, once enough answers are known.
    pub(crate) fn p95(&self, streams: bool) -> Option<Duration> {
        unpacked(&self.kind(streams).p95)
    }

    /// Notes that a clock which was set by these times has ended an attempt: it hung, or the times no longer hold.
    pub(crate) fn note_cut(&self, streams: bool) {
        // Relaxed here and below, because the number guards nothing. The check keeps it from overflowing.
        if !self.are_in_doubt(streams) {
            self.kind(streams).cut.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that an answer came within the clock that is set by these times.
    pub(crate) fn note_in_time(&self, streams: bool) {
        let cut = &self.kind(streams).cut;
        // Mostly it is 0 already: a read is shared by all threads, a write is not.
        if cut.load(Ordering::Relaxed) > 0 {
            cut.store(0, Ordering::Relaxed);
        }
    }

    /// Returns whether so many attempts in a row were cut that these times may no longer hold.
    pub(crate) fn are_in_doubt(&self, streams: bool) -> bool {
        self.kind(streams).cut.load(Ordering::Relaxed) >= DOUBT
    }

    /// Notes that a call which had been cut was answered: in time, so that it had hung, or late, so that the cut was
    /// for nothing.
    pub(crate) fn judge_cut(&self, streams: bool, in_time: bool) {
        let regret = &self.kind(streams).regret;
        let now = regret.load(Ordering::Relaxed);
        // A judgement that is lost between two threads is one of many.
        regret.store(if in_time { now.saturating_sub(1) } else { (now + 1).min(MAX_REGRET) }, Ordering::Relaxed);
    }

    /// Returns whether so many calls were cut for nothing that clocks should not be set by these times.
    pub(crate) fn are_regretted(&self, streams: bool) -> bool {
        self.kind(streams).regret.load(Ordering::Relaxed) >= REGRET
    }

    fn kind(&self, streams: bool) -> &TimeSample {
        if streams { &self.streams } else { &self.unary }
    }
}

fn packed(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX).saturating_add(1)
}

fn unpacked(cell: &AtomicU32) -> Option<Duration> {
    cell.load(Ordering::Relaxed).checked_sub(1).map(|millis| Duration::from_millis(millis.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_said_before_enough_is_known_and_old_times_are_forgotten() {
        let times = ServiceTimes::new();
        (0..15).for_each(|_| times.record("m", true, Duration::from_secs(1)));
        assert_eq!((times.quick("m", true), times.p95("m", true)), (None, None));
        times.record("m", true, Duration::ZERO);
        assert_eq!(times.p95("m", true), Some(Duration::from_secs(1)));
        (0..64).for_each(|_| times.record("m", true, Duration::from_secs(9)));
        assert_eq!(times.quick("m", true), Some(Duration::from_secs(9)));
        assert_eq!(times.quick("m", false), None);
    }

    #[test]
    fn one_quick_answer_among_slow_ones_is_the_quickest() {
        let times = ServiceTimes::new();
        times.record("m", false, Duration::from_secs(2));
        (0..63).for_each(|_| times.record("m", false, Duration::from_secs(100)));
        assert_eq!(times.quick("m", false), Some(Duration::from_secs(2)));
        times.record("m", false, Duration::from_secs(100));
        assert_eq!(times.quick("m", false), Some(Duration::from_secs(100)), "it is forgotten in its turn");
    }

    #[test]
    fn three_cuts_in_a_row_are_a_doubt_until_an_answer_comes_in_time() {
        let times = ModelTimes::default();
        (0..2).for_each(|_| times.note_cut(true));
        assert!(!times.are_in_doubt(true));
        times.note_in_time(true);
        (0..2).for_each(|_| times.note_cut(true));
        assert!(!times.are_in_doubt(true), "an answer came between");
        (0..9).for_each(|_| times.note_cut(true));
        // An answer that is only known to have come is no sign that the clock is right.
        times.record(true, Duration::ZERO);
        assert!(times.are_in_doubt(true) && !times.are_in_doubt(false));
        times.note_in_time(true);
        assert!(!times.are_in_doubt(true));
    }

    #[test]
    fn cuts_for_nothing_are_regretted_until_two_calls_have_hung() {
        let times = ModelTimes::default();
        let judge = |cuts: &[bool]| cuts.iter().for_each(|in_time| times.judge_cut(false, *in_time));
        judge(&[true, false, false, true, false, false]);
        assert!(!times.are_regretted(false));
        judge(&[false]);
        assert!(times.are_regretted(false) && !times.are_regretted(true));
        judge(&[false; 100]);
        judge(&[true]);
        assert!(times.are_regretted(false));
        judge(&[true]);
        assert!(!times.are_regretted(false));
    }

    #[test]
    fn models_are_bounded() {
        let times = ServiceTimes::new();
        (0..2 * MAX_MODELS).for_each(|model| times.record(&format!("m{model}"), false, Duration::ZERO));
        times.record(&"m".repeat(MAX_NAME + 1), false, Duration::ZERO);
        assert_eq!(times.models.lock().len(), MAX_MODELS);
    }
}
