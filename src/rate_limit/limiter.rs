//! The handle: all scopes with their limits and usage. It outlives the layers made from it.

mod builder;
mod memory;

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

pub use self::{builder::LimiterBuilder, memory::LimiterMemory};
use super::{
    Amount,
    account::DIMENSIONS,
    queue::ScopeQueue,
    report::{DimensionReport, ScopeReport, WaitingReport},
    turns::HORIZON,
};
use crate::{
    bounded::{ByScope, Scoped},
    context::{Claimant, Headroom},
    describe::Describe,
    quota::{Gate, PacificCalendar, Scope},
    recent::{Held, Recent},
    service_times::ServiceTimes,
    sync::Mutex,
};

/// The most scopes with an account of their own. Beyond that, and while none can be forgotten, new ones share one
/// account, except those that the settings name.
const MAX_SCOPES: usize = 16_384;

/// The number of maps over which the scopes are spread, each with a lock of its own.
const SHARDS: usize = 16;

/// The limits and the usage of all scopes: the state of any number of [`RateLimitLayer`](super::RateLimitLayer)s.
///
/// A cheap handle: all clones are the same limiter.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::{quota::{Limits, Scope}, rate_limit::Limiter};
///
/// let limiter = Limiter::builder()
///     .limits(Limits::new().requests_per_minute(10).input_tokens_per_minute(250_000))
///     .limits_for("gemini-2.5-pro", Limits::new().requests_per_minute(5))
///     .max_wait(Duration::from_secs(30))
///     .build();
/// assert_eq!(limiter.headroom(&Scope::new("p1", "gemini-2.5-pro"), 1, 1_000), Duration::ZERO);
/// assert!(limiter.snapshot().is_empty(), "no call has been made");
/// ```
#[derive(Clone)]
pub struct Limiter {
    shared: Arc<Shared>,
}

struct Shared {
    settings: LimiterBuilder,
    calendar: PacificCalendar,
    hasher: RandomState,
    /// The queues of all scopes, spread over several maps.
    shards: [Mutex<ByScope<ScopeQueue>>; SHARDS],
    recent: Recent<(), ScopeQueue>,
    /// The queue that scopes share while there is no room.
    overflow: Arc<ScopeQueue>,
}

impl Limiter {
    /// Creates a limiter without limits: it learns them from the upstream's refusals.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Returns a builder for a limiter with limits of your own.
    pub fn builder() -> LimiterBuilder {
        LimiterBuilder::default()
    }

    /// Returns the time that a call which is charged `requests` requests and `tokens` input tokens would currently wait in
    /// this scope, if it names no caller, priority or deadline; zero where it would go at once. Nothing is reserved.
    pub fn headroom(&self, scope: &Scope, requests: u32, tokens: u64) -> Duration {
        self.headroom_of(scope, requests, tokens, Claimant::default())
    }

    fn headroom_of(&self, scope: &Scope, requests: u32, tokens: u64, claimant: Claimant<'_>) -> Duration {
        let now = Instant::now();
        let amount = Amount { requests: requests.into(), tokens };
        let (settings, calendar) = (&self.shared.settings, self.shared.calendar);
        match self.find_queue(scope) {
            Some(queue) => queue.headroom(now, amount, claimant),
            // The scope has not been used yet: its limits alone decide.
            None => {
                let at =
                    settings.account(scope, calendar, now).turn_at(now, Amount::default(), amount, false, calendar);
                at.saturating_duration_since(now)
            }
        }
    }

    /// Returns the queue that a call of a scope would meet. `None`: it would get a new one.
    fn find_queue(&self, scope: &Scope) -> Option<Arc<ScopeQueue>> {
        let (model, project) = (scope.model(), scope.project());
        let shard = self.shard(model, project).lock();
        let own = || shard.get(model, project).or_else(|| shard.shared_if_long(model, project));
        if self.shared.settings.names(scope) { own() } else { shard.find(model, project) }.cloned()
    }

    /// Forgets what refusals have said of the quota of a project, for all of its models: for an operator who knows that it
    /// is good again, because a tier was granted or a quota reset. Calls that wait for their turn here go at once, as far as the
    /// limits allow. Calls that were refused already, and that a [`RetryLayer`](crate::retry::RetryLayer) outside has sleep until
    /// that refusal's hint, are not woken.
    ///
    /// With a [store](LimiterBuilder::store), the models that this limiter has had calls of are opened for all.
    pub fn lift(&self, project: &str) {
        for shard in &self.shared.shards {
            let queues: Vec<_> =
                shard.lock().iter().filter(|queue| queue.scope().project() == project).cloned().collect();
            queues.iter().for_each(|queue| {
                queue.open();
                queue.lift();
            });
        }
    }

    /// Does the same for one model of a project. Its own limits and usage stay as they are.
    pub fn lift_scope(&self, scope: &Scope) {
        let queue = self.shard(scope.model(), scope.project()).lock().get(scope.model(), scope.project()).cloned();
        if let Some(store) = &self.shared.settings.store {
            store.open(scope);
        }
        if let Some(queue) = queue {
            queue.lift();
        }
    }

    /// Returns a report on each scope's usage, limits and block, each read at its own moment. The scopes that share an
    /// account are reported as one, of the project and the model `others`.
    pub fn snapshot(&self) -> Vec<ScopeReport> {
        let now = Instant::now();
        let queues = self.shared.shards.iter().flat_map(|shard| {
            let shard = shard.lock();
            shard.iter().map(|queue| (queue.scope().clone(), queue.clone())).collect::<Vec<_>>()
        });
        let overflow = Some(&self.shared.overflow).filter(|overflow| !overflow.is_forgettable(now));
        let queues = queues.chain(overflow.map(|overflow| (overflow.scope().clone(), overflow.clone())));
        let report = |(scope, queue): (Scope, Arc<ScopeQueue>)| {
            let waiting_by_priority = queue.waiting_by_priority();
            queue.read(now, |account, waiting| ScopeReport {
                scope,
                dimensions: DIMENSIONS.map(|dimension| DimensionReport {
                    dimension,
                    used: account.used(dimension),
                    limit: account.limit(dimension, now),
                    learned: account.learned(dimension),
                }),
                blocked_for: account.rests_until(now).map(|until| until - now),
                blocks: account.blocks(now),
                shared: account.shared_report(now),
                waiting,
                waiting_by_priority,
            })
        };
        queues.map(report).collect()
    }

    /// Returns the number of calls of each caller that wait for their turn, in all scopes, in no order. Calls without a
    /// caller are counted together. It looks at each call that waits.
    pub fn waiting(&self) -> Vec<WaitingReport> {
        let mut calls = HashMap::new();
        for shard in &self.shared.shards {
            let queues: Vec<_> = shard.lock().iter().cloned().collect();
            queues.iter().for_each(|queue| queue.count_waiting(&mut calls));
        }
        self.shared.overflow.count_waiting(&mut calls);
        calls.into_iter().map(|((caller, priority), waiting)| WaitingReport { caller, priority, waiting }).collect()
    }

    /// Returns the longest wait that a call of this model is allowed. `None`: until its deadline.
    pub(super) fn max_wait(&self, model: &str) -> Option<Duration> {
        let settings = &self.shared.settings;
        settings.max_wait_by_model.get(model).copied().or(settings.max_wait)
    }

    pub(super) fn service_times(&self) -> Option<&ServiceTimes> {
        self.shared.settings.service_times.as_ref()
    }

    pub(super) fn default_project(&self) -> &Arc<str> {
        &self.shared.settings.project
    }

    pub(super) fn gate(&self) -> Option<&dyn Gate> {
        self.shared.settings.gate.as_deref()
    }

    /// Returns the queue that admits the calls of a scope.
    #[inline]
    pub(super) fn queue(&self, project: &str, model: &str, now: Instant) -> Held<ScopeQueue> {
        let is_it = |(): &(), queue: &ScopeQueue| queue.scope().model() == model && queue.scope().project() == project;
        self.shared.recent.find(is_it).unwrap_or_else(|| {
            let queue = self.queue_of_all(project, model, now);
            let is_own = !Arc::ptr_eq(&queue, &self.shared.overflow);
            if is_own { self.shared.recent.insert((), queue) } else { Held::new(queue) }
        })
    }

    /// Returns the queue of a scope that no recent call has used.
    #[cold]
    fn queue_of_all(&self, project: &str, model: &str, now: Instant) -> Arc<ScopeQueue> {
        let shared = &*self.shared;
        let mut shard = self.shard(model, project).lock();
        if let Some(queue) = shard.get(model, project).or_else(|| shard.shared_if_long(model, project)) {
            return queue.clone();
        }
        let scope = Scope::new(project, model);
        let is_named = shared.settings.names(&scope);
        shard.find_or_insert((model, project), is_named, now, |overflow| {
            let account = shared.settings.account(&scope, shared.calendar, now);
            // The calls of a scope may have been counted in the overflow queue so far.
            let account = match overflow {
                Some(overflow) => overflow.continue_in(now, account),
                None => account,
            };
            ScopeQueue::new(scope, account, shared.calendar).with_store(shared.settings.store.clone())
        })
    }

    fn shard(&self, model: &str, project: &str) -> &Mutex<ByScope<ScopeQueue>> {
        let hash = self.shared.hasher.hash_one((model, project));
        // The map inside has a hasher of its own, so that any bits of this hash will do.
        &self.shared.shards[(hash as usize) % SHARDS]
    }
}

impl Scoped for ScopeQueue {
    fn names(&self) -> (&str, &str) {
        (self.scope().model(), self.scope().project())
    }

    fn is_forgettable(&self, now: Instant) -> bool {
        self.is_forgettable(now)
    }
}

impl Headroom for Limiter {
    fn headroom(&self, scope: &Scope, requests: u32, tokens: u64, claimant: Claimant<'_>) -> Duration {
        self.headroom_of(scope, requests, tokens, claimant)
    }

    fn depends_on_tokens(&self, scope: &Scope) -> bool {
        let Shared { settings, calendar, .. } = &*self.shared;
        let of_new = || settings.account(scope, *calendar, Instant::now()).limits_tokens();
        self.find_queue(scope).map_or_else(of_new, |queue| queue.limits_tokens())
    }
}

impl Describe for Limiter {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.shared.settings;
        let mut any = false;
        for (name, limits) in settings.all_limits() {
            for dimension in DIMENSIONS {
                let Some(limit) = limits.get(dimension) else { continue };
                write!(f, "{}{limit} {dimension} for {name}", if any { ", " } else { "" })?;
                any = true;
            }
        }
        f.write_str(if any { "; " } else { "learns its limits from refusals; " })?;
        if settings.store.is_some() {
            f.write_str("shares its quota through a store; ")?;
        }
        match settings.max_wait {
            Some(wait) => write!(f, "waits for up to {wait:?}"),
            None => write!(f, "waits until the deadline, or for up to {HORIZON:?} where there is none"),
        }
    }
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scopes: usize = self.shared.shards.iter().map(|shard| shard.lock().len()).sum();
        f.debug_struct("Limiter").field("settings", &self.shared.settings).field("scopes", &scopes).finish()
    }
}
