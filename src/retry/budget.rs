//! The retry budget: it keeps retries from making an outage worse.
//!
//! It has one token bucket a model, shared by all clones. A retry takes a token, a success gives one back, and one a
//! second grows back. When a model is down for all calls, its bucket becomes empty, and failures go straight back; no
//! call ever sleeps for a token. The buckets themselves are pure: they are told the time.

use std::{
    cmp::Reverse,
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::bounded::make_room;

/// The retries that all calls to one model may make together. A cheap handle: all clones share one budget.
///
/// ```
/// use tower_gemini::retry::RetryBudget;
///
/// # tokio_test::block_on(async {
/// let budget = RetryBudget::new(2);
/// assert!(budget.try_take("gemini-2.5-pro") && budget.try_take("gemini-2.5-pro"));
/// assert!(!budget.try_take("gemini-2.5-pro"), "empty");
/// assert!(budget.try_take("gemini-2.5-flash"), "another model has its own");
/// # });
/// ```
#[derive(Clone)]
pub struct RetryBudget {
    shared: Arc<Shared>,
}

struct Shared {
    capacity: u32,
    /// Set while any bucket may be less than full. While it is not, a success need not take the lock.
    in_use: AtomicBool,
    buckets: Mutex<HashMap<Box<str>, Bucket>>,
}

/// The most models with a bucket of their own. Past that the full buckets are dropped, or the fullest if none is full:
/// it loses least, because a new one starts full.
const MAX_MODELS: usize = 256;

impl RetryBudget {
    /// The default capacity: a burst of 100 retries, then one for each second and one for each success.
    pub const CAPACITY: u32 = 100;

    /// Creates a budget of `capacity` retries a model, full at first.
    pub fn new(capacity: u32) -> Self {
        let shared = Shared { capacity, in_use: AtomicBool::new(false), buckets: Mutex::default() };
        Self { shared: shared.into() }
    }

    /// Takes one retry, and returns whether there was one. The check and the taking are one atomic step.
    pub fn try_take(&self, model: &str) -> bool {
        let now = Instant::now();
        let mut buckets = self.shared.buckets.lock();
        self.shared.in_use.store(true, Ordering::Release);
        if !buckets.contains_key(model) {
            let left = |bucket: &Bucket| bucket.level(self.shared.capacity, now).tokens;
            make_room(
                &mut buckets,
                MAX_MODELS,
                |bucket| left(bucket) < self.shared.capacity,
                |bucket| Reverse(left(bucket)),
            );
            buckets.insert(model.into(), Bucket::full(self.shared.capacity, now));
        }
        buckets.get_mut(model).is_some_and(|bucket| bucket.try_take(self.shared.capacity, now))
    }

    /// Returns whether any bucket may be less than full. If not, a success has nothing to give back.
    pub(super) fn is_in_use(&self) -> bool {
        self.shared.in_use.load(Ordering::Acquire)
    }

    /// Gives one retry back, after a success.
    pub fn deposit(&self, model: &str) {
        if !self.is_in_use() {
            return;
        }
        let now = Instant::now();
        let mut buckets = self.shared.buckets.lock();
        let full = buckets.get_mut(model).is_some_and(|bucket| bucket.deposit(self.shared.capacity, now));
        if full {
            buckets.remove(model);
        }
        self.shared.in_use.store(!buckets.is_empty(), Ordering::Release);
    }

    /// Returns the number of retries that this model has left.
    pub fn remaining(&self, model: &str) -> u32 {
        let buckets = self.shared.buckets.lock();
        buckets
            .get(model)
            .map_or(self.shared.capacity, |bucket| bucket.level(self.shared.capacity, Instant::now()).tokens)
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new(Self::CAPACITY)
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBudget").field("capacity", &self.shared.capacity).finish_non_exhaustive()
    }
}

/// A number of whole tokens at an instant. A fraction of a token is kept as time: the instant lies that much earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    tokens: u32,
    at: Instant,
}

impl Bucket {
    fn full(capacity: u32, now: Instant) -> Self {
        Self { tokens: capacity, at: now }
    }

    /// Returns the bucket as it is at `now`, with the tokens that have grown.
    fn level(self, capacity: u32, now: Instant) -> Self {
        let grown = now.saturating_duration_since(self.at).as_secs();
        let tokens = u64::from(self.tokens).saturating_add(grown).min(u64::from(capacity)) as u32;
        let at = if tokens == capacity { now } else { self.at + Duration::from_secs(grown) };
        Self { tokens, at }
    }

    fn try_take(&mut self, capacity: u32, now: Instant) -> bool {
        *self = self.level(capacity, now);
        let taken = self.tokens.checked_sub(1);
        self.tokens = taken.unwrap_or(0);
        taken.is_some()
    }

    /// Gives a token back. Returns whether the bucket is full, so that it need not be kept.
    fn deposit(&mut self, capacity: u32, now: Instant) -> bool {
        *self = self.level(capacity, now);
        self.tokens = self.tokens.saturating_add(1).min(capacity);
        self.tokens == capacity
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum BucketEvent {
        Take,
        Deposit,
        Wait(u64),
    }

    fn events() -> impl Strategy<Value = Vec<BucketEvent>> {
        let event = prop_oneof![3 => Just(BucketEvent::Take), 1 => Just(BucketEvent::Deposit), 1 => (0u64..3_000).prop_map(BucketEvent::Wait)];
        proptest::collection::vec(event, 0..200)
    }

    proptest! {
        /// The plain model: milliseconds as fractions of a token, in one number.
        #[test]
        fn a_bucket_is_its_plain_model(capacity in 1u32..20, events in events()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let mut now = Instant::now();
                let mut bucket = Bucket::full(capacity, now);
                let mut model = u64::from(capacity) * 1000;
                let cap = model;
                for event in events {
                    match event {
                        BucketEvent::Wait(ms) => {
                            now += Duration::from_millis(ms);
                            model = (model + ms).min(cap);
                        }
                        BucketEvent::Take => {
                            let expected = model >= 1000;
                            model -= if expected { 1000 } else { 0 };
                            assert_eq!(bucket.try_take(capacity, now), expected);
                        }
                        BucketEvent::Deposit => {
                            model = (model + 1000).min(cap);
                            bucket.deposit(capacity, now);
                            // A full bucket keeps no fraction.
                            if bucket.tokens == capacity {
                                model = cap;
                            }
                        }
                    }
                    assert_eq!(u64::from(bucket.level(capacity, now).tokens), model / 1000);
                }
            });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn models_are_bounded_and_a_dry_one_is_not_forgotten() {
        let budget = RetryBudget::new(3);
        for _ in 0..3 {
            assert!(budget.try_take("dry"));
        }
        for model in 0..2 * MAX_MODELS {
            assert!(budget.try_take(&format!("model-{model}")));
        }
        assert!(budget.shared.buckets.lock().len() <= MAX_MODELS);
        assert!(!budget.try_take("dry"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(budget.try_take("dry") && !budget.try_take("dry"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_gives_back_and_a_full_bucket_is_forgotten() {
        let budget = RetryBudget::new(1);
        assert!(budget.try_take("m") && !budget.try_take("m"));
        budget.deposit("m");
        assert_eq!(budget.remaining("m"), 1);
        assert!(budget.shared.buckets.lock().is_empty() && !budget.shared.in_use.load(Ordering::Relaxed));
    }

    #[test]
    fn as_many_take_as_there_are_tokens_however_many_try() {
        let budget = RetryBudget::new(50);
        let taken: usize = std::thread::scope(|scope| {
            let tasks: Vec<_> =
                (0..8).map(|_| scope.spawn(|| (0..50).filter(|_| budget.try_take("m")).count())).collect();
            tasks.into_iter().map(|task| task.join().unwrap()).sum()
        });
        // Real time passes here: at most five seconds, even on a very slow machine.
        assert!((50..=55).contains(&taken), "{taken}");
    }
}
