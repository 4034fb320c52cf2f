//! The times that answers take, a model: what a layer has to know before it waits for one.
//!
//! A clock that suits all models is too long for the fast ones, where a hang then costs minutes, and too short for those
//! that think. And an attempt that is sent when less time is left than the model has ever needed cannot be answered: it
//! costs quota, and the upstream's work, for nobody.
//!
//! [`TimeoutLayer`](crate::TimeoutLayer) records the time of each attempt that was answered, and sets its clock by them;
//! [`RetryLayer`](crate::RetryLayer) and [`Limiter`](crate::rate_limit::Limiter) ask whether an answer can still come in
//! time. A model's streams, whose time ends with their first content, are kept apart from its unary answers. Names have
//! the service tier where it is not the standard one.

mod latencies;

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
use crate::bounded::{ByAge, MAX_NAME};

/// The most models whose times are kept. Only models that have answered have any, so that nobody invents them.
const MAX_MODELS: usize = 256;

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
/// assert_eq!(times.quick("gemini-2.5-flash", false), Some(Duration::from_secs(2)));
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
    sample: Mutex<Latencies>,
    /// The 10th percentile in milliseconds plus 1; 0 until there are enough.
    quick: AtomicU32,
    /// The 95th percentile in the same way.
    p95: AtomicU32,
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
        let known = self.of(model);
        let times = known.unwrap_or_else(|| {
            let times = Arc::<ModelTimes>::default();
            self.models.lock().insert(model.into(), times.clone());
            times
        });
        times.record(streams, time);
    }

    /// Returns a time that few answers of this model are faster than: the 10th percentile of the last 64. `None`: fewer
    /// than 16 are known.
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
        if let Some([quick, p95]) = sample.percentiles([10, 95]).filter(|_| sample.are_enough()) {
            // Relaxed, because each is read by itself.
            kind.quick.store(packed(quick), Ordering::Relaxed);
            kind.p95.store(packed(p95), Ordering::Relaxed);
        }
    }

    /// Returns the 10th percentile, once enough answers are known.
    pub(crate) fn quick(&self, streams: bool) -> Option<Duration> {
        unpacked(&self.kind(streams).quick)
    }

    /// Returns the 95th percentile, once enough answers are known.
    pub(crate) fn p95(&self, streams: bool) -> Option<Duration> {
        unpacked(&self.kind(streams).p95)
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
    fn models_are_bounded() {
        let times = ServiceTimes::new();
        (0..2 * MAX_MODELS).for_each(|model| times.record(&format!("m{model}"), false, Duration::ZERO));
        times.record(&"m".repeat(MAX_NAME + 1), false, Duration::ZERO);
        assert_eq!(times.models.lock().len(), MAX_MODELS);
    }
}
