//! The retry budget: it keeps retries from making an outage worse.
//!
//! It has one token bucket a model, shared by all clones. A retry takes a token, a success gives one back, and a
//! hundredth of the bucket grows back each second. When a model is down for all calls, its bucket becomes empty, and a
//! call that would be tried again waits for its token, in turn with other callers, for as long as its deadline allows.
//! The [room](super#why-the-budget-is-as-it-is) says why. The buckets themselves are pure: they are told the time.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    time::Duration,
};

use tokio::time::Instant;

use super::bucket::{Bucket, CallerName, Refill, TokenTurn};
use crate::{bounded::MAX_NAME, sync::Mutex};

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
    refill: Refill,
    /// Set while any bucket may be less than full. While it is not, a success need not take the lock.
    in_use: AtomicBool,
    buckets: Mutex<HashMap<Box<str>, Bucket>>,
}

/// The most models with a bucket of their own. Past that the full buckets are dropped, or the fullest if none is full:
/// it loses least, because a new one starts full. A bucket that calls wait at stays, and where all are such, further
/// models share [`SHARED`].
const MAX_MODELS: usize = 256;

/// The name of the bucket for calls without a model, for names longer than any model's, and for models past the most.
const SHARED: &str = "";

/// The capacity up to which one token a second grows back.
const CAPACITY: u32 = 100;

/// The time in which an empty bucket of that capacity or more fills by itself.
const FILLS: Duration = Duration::from_secs(100);

/// The answer to a call that asks for a token.
pub(super) enum TokenClaim {
    /// It has one.
    Taken,
    /// It waits for one.
    Waits(TokenPlace),
    /// There is none, and the line is full.
    Full,
}

/// A place in the line for a token. Dropping it leaves the line and wakes the next waiter.
pub(super) struct TokenPlace {
    budget: RetryBudget,
    bucket: Arc<str>,
    caller: CallerName,
    /// `None`: it has left the line.
    number: Option<u64>,
}

impl RetryBudget {
    /// The default capacity: a burst of 100 retries, then one for each second and one for each success.
    pub const CAPACITY: u32 = CAPACITY;
    /// The capacity of [`RetryPolicy::persistent`](super::RetryPolicy::persistent): a burst of 1,000 retries, then ten for
    /// each second and one for each success.
    pub const PERSISTENT_CAPACITY: u32 = 1_000;

    /// Creates a budget of `capacity` retries a model, full at first. It fills by itself within 100 s, and by one retry a
    /// second at least. A capacity of 0 allows none, and nobody waits for one.
    pub fn new(capacity: u32) -> Self {
        let refill = Refill { capacity, interval: FILLS / capacity.max(CAPACITY) };
        let shared = Shared { refill, in_use: AtomicBool::new(false), buckets: Mutex::new(HashMap::new()) };
        Self { shared: shared.into() }
    }

    /// Takes one retry, and returns whether there was one that no call waits for. The check and the taking are one
    /// atomic step.
    pub fn try_take(&self, model: &str) -> bool {
        self.try_take_at(model, Instant::now())
    }

    fn try_take_at(&self, model: &str, now: Instant) -> bool {
        let mut buckets = self.shared.buckets.lock();
        self.bucket(&mut buckets, model, now).1.try_take(self.shared.refill, now)
    }

    /// Takes one retry if there is one that no call waits for, and otherwise a place in the line for the next.
    pub(super) fn claim(&self, model: &Arc<str>, caller: &CallerName, now: Instant) -> TokenClaim {
        let mut buckets = self.shared.buckets.lock();
        let (is_shared, bucket) = self.bucket(&mut buckets, model, now);
        if bucket.try_take(self.shared.refill, now) {
            return TokenClaim::Taken;
        }
        let Some(number) = bucket.join(caller) else { return TokenClaim::Full };
        drop(buckets);
        let bucket = if is_shared { SHARED.into() } else { model.clone() };
        TokenClaim::Waits(TokenPlace { budget: self.clone(), bucket, caller: caller.clone(), number: Some(number) })
    }

    /// Returns whether a call that waits can ever have a token.
    pub(super) fn can_grow(&self) -> bool {
        self.shared.refill.capacity > 0
    }

    /// Returns whether there is a retry that no call waits for, without taking it.
    pub(super) fn has_token(&self, model: &str) -> bool {
        let refill = self.shared.refill;
        let buckets = self.shared.buckets.lock();
        let bucket = buckets.get(name_of(&buckets, model));
        bucket.map_or(refill.capacity > 0, |bucket| !bucket.has_line() && bucket.tokens(refill, Instant::now()) > 0)
    }

    /// Returns whether any bucket may be less than full. If not, a success has nothing to give back.
    pub(super) fn is_in_use(&self) -> bool {
        self.shared.in_use.load(Ordering::Acquire)
    }

    /// Gives one retry back, after a success: to the call whose turn it is, if any waits.
    pub fn deposit(&self, model: &str) {
        if self.is_in_use() {
            self.deposit_at(model, Instant::now());
        }
    }

    fn deposit_at(&self, model: &str, now: Instant) {
        let refill = self.shared.refill;
        let mut buckets = self.shared.buckets.lock();
        let model = name_of(&buckets, model);
        let first = buckets.get_mut(model).and_then(|bucket| bucket.deposit(refill, now));
        if buckets.get(model).is_some_and(|bucket| bucket.is_forgettable(refill, now)) {
            buckets.remove(model);
        }
        self.shared.in_use.store(!buckets.is_empty(), Ordering::Release);
        drop(buckets);
        wake(first);
    }

    /// Returns the number of retries that this model has left.
    pub fn remaining(&self, model: &str) -> u32 {
        let refill = self.shared.refill;
        let buckets = self.shared.buckets.lock();
        buckets.get(name_of(&buckets, model)).map_or(refill.capacity, |bucket| bucket.tokens(refill, Instant::now()))
    }

    /// Returns the model's bucket, and whether it is the shared one.
    fn bucket<'a>(
        &self,
        buckets: &'a mut HashMap<Box<str>, Bucket>,
        model: &str,
        now: Instant,
    ) -> (bool, &'a mut Bucket) {
        let Shared { refill, in_use, .. } = &*self.shared;
        in_use.store(true, Ordering::Release);
        let is_new = model.len() <= MAX_NAME && !buckets.contains_key(model);
        if is_new && buckets.len() >= MAX_MODELS {
            buckets.retain(|_, bucket| !bucket.is_forgettable(*refill, now));
            let fullest = buckets.iter().filter(|(name, bucket)| &***name != SHARED && !bucket.has_line());
            let fullest = fullest.max_by_key(|(_, bucket)| bucket.tokens(*refill, now)).map(|(name, _)| name.clone());
            if buckets.len() >= MAX_MODELS
                && let Some(fullest) = fullest
            {
                buckets.remove(&fullest);
            }
        }
        let name = name_of(buckets, model);
        let bucket = buckets.entry(name.into()).or_insert_with(|| Bucket::full(*refill, now));
        (name == SHARED, bucket)
    }
}

/// Returns the name of the bucket that a model uses.
fn name_of<'a>(buckets: &HashMap<Box<str>, Bucket>, model: &'a str) -> &'a str {
    let is_known = || buckets.contains_key(model);
    if model.len() > MAX_NAME || buckets.len() >= MAX_MODELS && !is_known() { SHARED } else { model }
}

impl TokenPlace {
    /// Takes a token if this place is first and there is one.
    pub(super) fn poll(&mut self, now: Instant, waker: &Waker) -> TokenTurn {
        let Self { budget, bucket, caller, number } = self;
        let refill = budget.shared.refill;
        let Some(at) = *number else { return TokenTurn::NotYet };
        let mut buckets = budget.shared.buckets.lock();
        let Some(bucket) = buckets.get_mut(&**bucket) else { return TokenTurn::NotYet };
        let turn = bucket.poll(caller, at, refill, now, waker);
        drop(buckets);
        match turn {
            TokenTurn::Taken(next) => {
                *number = None;
                wake(next);
                TokenTurn::Taken(None)
            }
            turn => turn,
        }
    }
}

impl Drop for TokenPlace {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let mut buckets = self.budget.shared.buckets.lock();
            let next = buckets.get_mut(&*self.bucket).and_then(|bucket| bucket.leave(&self.caller, number));
            drop(buckets);
            wake(next);
        }
    }
}

/// Wakes outside of the lock, because a waker may run any code.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new(Self::CAPACITY)
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBudget").field("capacity", &self.shared.refill.capacity).finish_non_exhaustive()
    }
}

#[cfg(gemini_loom)]
pub(crate) mod proofs;

#[cfg(test)]
mod tests {
    use super::*;

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
    async fn a_model_that_calls_wait_for_is_never_forgotten() {
        let budget = RetryBudget::new(1);
        let now = Instant::now();
        let mut places = Vec::new();
        for model in 0..2 * MAX_MODELS {
            let model: Arc<str> = format!("model-{model}").into();
            assert!(matches!(budget.claim(&model, &None, now), TokenClaim::Taken) == (places.len() <= MAX_MODELS));
            let TokenClaim::Waits(place) = budget.claim(&model, &None, now) else { panic!("a second token") };
            places.push(place);
        }
        // One more than the most: the shared one.
        assert_eq!(budget.shared.buckets.lock().len(), MAX_MODELS + 1);
        let later = now + Duration::from_secs(1);
        for place in places.iter_mut().take(MAX_MODELS + 1) {
            assert!(matches!(place.poll(later, Waker::noop()), TokenTurn::Taken(None)));
        }
        drop(places);
        assert!(budget.shared.buckets.lock().values().all(|bucket| !bucket.has_line()));
        // No name is kept that is longer than any model's.
        let long = "m".repeat(MAX_NAME + 1);
        budget.try_take(&long);
        assert!(!budget.shared.buckets.lock().contains_key(&*long));
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_gives_back_and_a_full_bucket_is_forgotten() {
        let budget = RetryBudget::new(1);
        assert!(budget.try_take("m") && !budget.try_take("m"));
        budget.deposit("m");
        assert_eq!(budget.remaining("m"), 1);
        assert!(budget.shared.buckets.lock().is_empty() && !budget.shared.in_use.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_gives_back_to_the_bucket_that_was_taken_from() {
        let budget = RetryBudget::new(2);
        let long = "m".repeat(MAX_NAME + 1);
        assert!(budget.has_token(&long));
        assert!(budget.try_take(&long) && budget.try_take(&long));
        assert!(budget.remaining(&long) == 0 && !budget.has_token(&long));
        budget.deposit(&long);
        assert!(budget.remaining(&long) == 1 && budget.has_token(&long));
        assert_eq!(budget.remaining("m"), 2, "another bucket");
        // Past the most models with a line, all further ones share one.
        let now = Instant::now();
        let mut places = Vec::new();
        for model in 1..MAX_MODELS {
            let model: Arc<str> = format!("model-{model}").into();
            assert!(budget.try_take(&model) && budget.try_take(&model));
            let TokenClaim::Waits(place) = budget.claim(&model, &None, now) else { panic!("a third token") };
            places.push(place);
        }
        assert!(budget.try_take("further") && !budget.try_take("another"), "the shared bucket's last");
        budget.deposit("further");
        assert_eq!((budget.remaining("another"), budget.remaining("model-1")), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn one_a_second_grows_back_or_a_hundredth_of_what_there_is_room_for() {
        for (capacity, seconds, grown) in
            [(0, 5, 0), (3, 2, 2), (3, 5, 3), (RetryBudget::CAPACITY, 5, 5), (RetryBudget::PERSISTENT_CAPACITY, 5, 50)]
        {
            let budget = RetryBudget::new(capacity);
            while budget.try_take("m") {}
            tokio::time::advance(Duration::from_secs(seconds)).await;
            assert_eq!(budget.remaining("m"), grown, "{capacity}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_bucket_that_calls_wait_for_is_kept() {
        let budget = RetryBudget::new(1);
        let (model, now) = ("m".into(), Instant::now());
        assert!(matches!(budget.claim(&model, &None, now), TokenClaim::Taken));
        let TokenClaim::Waits(mut first) = budget.claim(&model, &None, now) else { panic!() };
        let TokenClaim::Waits(second) = budget.claim(&model, &None, now) else { panic!() };
        budget.deposit("m");
        assert!(!budget.try_take("m"), "the first waiter's");
        assert!(matches!(first.poll(now, Waker::noop()), TokenTurn::Taken(None)));
        drop((first, second));
        budget.deposit("m");
        assert!(budget.try_take("m"));
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
