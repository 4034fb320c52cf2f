//! The handle: all scopes, what they are allowed, and what they have used. It outlives the layers made from it.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Amount, Pacing,
    account::{Account, Calendar, DIMENSIONS},
    key::{Key, Named},
    pacing::Pacer,
    queue::ScopeQueue,
};
use crate::{
    clock,
    describe::Describe,
    quota::{Dimension, Gate, Headroom, Limits, Scope},
    sync::Mutex,
};

/// The most scopes that are kept apart. Past that, and as long as none can be forgotten, new ones share one account, but for
/// those that the settings name.
const MAX_SCOPES: usize = 16_384;

/// Longer names, project and model together, have no account of their own: nobody's are, and callers invent models.
const MAX_NAME: usize = 512;

/// The scopes are spread over so many maps, each with a lock of its own.
const SHARDS: usize = 16;

/// A full map is looked through for what can be forgotten at most this often.
const SWEEP: Duration = Duration::from_secs(1);

/// Who may use how much, and what has been used: the state of any number of [`RateLimitLayer`](super::RateLimitLayer)s.
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
/// assert_eq!(limiter.headroom(&Scope::new("p1", "gemini-2.5-pro"), 1_000), Duration::ZERO);
/// assert!(limiter.snapshot().is_empty(), "nobody has been asked for anything");
/// ```
#[derive(Clone)]
pub struct Limiter {
    shared: Arc<Shared>,
}

struct Shared {
    settings: LimiterBuilder,
    calendar: Calendar,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    overflow: Arc<ScopeQueue>,
}

#[derive(Default)]
struct Shard {
    queues: HashMap<Key, Arc<ScopeQueue>>,
    /// Whether any scope that belongs here has ever been counted with the others.
    overflowed: bool,
    swept: Option<Instant>,
}

impl Limiter {
    /// A limiter without limits: it learns them from the upstream's refusals.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A limiter with limits of your own.
    pub fn builder() -> LimiterBuilder {
        LimiterBuilder::default()
    }

    /// How long a request of so many input tokens would wait for its turn in this scope, the queue included. Zero: it
    /// would go at once. Nothing is taken.
    pub fn headroom(&self, scope: &Scope, tokens: u64) -> Duration {
        let now = Instant::now();
        let amount = Amount { requests: 1, tokens };
        let shard = self.shard(scope).lock();
        let known = shard.queues.get(scope as &dyn Named).cloned();
        let is_full = shard.queues.len() >= MAX_SCOPES / SHARDS && !self.shared.settings.names(scope);
        drop(shard);
        let is_no_name = scope.project().len() + scope.model().len() > MAX_NAME;
        match known {
            Some(queue) => queue.headroom(now, amount),
            None if is_full || is_no_name => self.shared.overflow.headroom(now, amount),
            // Nobody has asked for it yet: what its limits say.
            None => {
                let mut account = self.shared.settings.account(scope, self.shared.calendar, now);
                let at = account.turn_at(now, Amount::default(), amount, self.shared.calendar);
                at.saturating_duration_since(now)
            }
        }
    }

    /// What each scope has used, may use, and is blocked for. A moment's picture, scope by scope. Those past the number
    /// that is kept apart are one, of the project and the model `others`.
    pub fn snapshot(&self) -> Vec<ScopeReport> {
        let now = Instant::now();
        let queues = self.shared.shards.iter().flat_map(|shard| {
            let shard = shard.lock();
            shard.queues.values().map(|queue| (queue.scope().clone(), queue.clone())).collect::<Vec<_>>()
        });
        let overflow = Some(&self.shared.overflow).filter(|overflow| !overflow.is_forgettable(now));
        let queues = queues.chain(overflow.map(|overflow| (overflow.scope().clone(), overflow.clone())));
        let report = |(scope, queue): (Scope, Arc<ScopeQueue>)| {
            queue.read(now, |account, waiting| ScopeReport {
                scope,
                dimensions: DIMENSIONS.map(|dimension| DimensionReport {
                    dimension,
                    used: account.used(dimension),
                    limit: account.limit(dimension, now),
                    learned: account.learned(dimension),
                }),
                blocked_for: account.blocked_until(now).map(|until| until - now),
                waiting,
            })
        };
        queues.map(report).collect()
    }

    /// The longest that a call of this model's waits.
    pub(super) fn max_wait(&self, model: &str) -> Duration {
        let settings = &self.shared.settings;
        *settings.max_wait_by_model.get(model).unwrap_or(&settings.max_wait)
    }

    pub(super) fn default_project(&self) -> &Arc<str> {
        &self.shared.settings.project
    }

    pub(super) fn gate(&self) -> Option<&dyn Gate> {
        self.shared.settings.gate.as_deref()
    }

    /// Where the calls of a scope are admitted.
    pub(super) fn queue(&self, project: &str, model: &str, now: Instant) -> Arc<ScopeQueue> {
        let (named, shared) = ((project, model), &*self.shared);
        if project.len() + model.len() > MAX_NAME {
            return shared.overflow.clone();
        }
        let mut shard = self.shard(&named).lock();
        if let Some(queue) = shard.queues.get(&named as &dyn Named) {
            return queue.clone();
        }
        let scope = Scope::new(project, model);
        let is_named = shared.settings.names(&scope);
        if shard.queues.len() >= MAX_SCOPES / SHARDS && !shard.make_room(now) && !is_named {
            shard.overflowed = true;
            return shared.overflow.clone();
        }
        let mut account = shared.settings.account(&scope, shared.calendar, now);
        if shard.overflowed && !is_named {
            // It may have been counted there so far.
            account = shared.overflow.heir(now, account);
        }
        let queue = Arc::new(ScopeQueue::new(scope.clone(), account, shared.calendar));
        shard.queues.insert(Key(scope), queue.clone());
        queue
    }

    fn shard(&self, named: &dyn Named) -> &Mutex<Shard> {
        let hash = self.shared.hasher.hash_one(named);
        // The map within uses the low bits of another hash; any will do here.
        &self.shared.shards[(hash as usize) % SHARDS]
    }
}

impl Shard {
    /// Forgets scopes of which there is nothing to remember and that nobody holds.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP) {
            return false;
        }
        self.swept = Some(now);
        let before = self.queues.len();
        self.queues.retain(|_, queue| Arc::strong_count(queue) > 1 || !queue.is_forgettable(now));
        self.queues.len() < before
    }
}

impl Headroom for Limiter {
    fn headroom(&self, scope: &Scope, tokens: u64) -> Duration {
        Self::headroom(self, scope, tokens)
    }
}

impl Describe for Limiter {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.shared.settings;
        let mut any = false;
        for (whose, limits) in settings.all_limits() {
            for dimension in DIMENSIONS {
                let Some(limit) = limits.get(dimension) else { continue };
                write!(f, "{}{limit} {dimension} for {whose}", if any { ", " } else { "" })?;
                any = true;
            }
        }
        f.write_str(if any { "; " } else { "learns its limits from refusals; " })?;
        write!(f, "waits for up to {:?}", settings.max_wait)
    }
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scopes: usize = self.shared.shards.iter().map(|shard| shard.lock().queues.len()).sum();
        f.debug_struct("Limiter").field("settings", &self.shared.settings).field("scopes", &scopes).finish()
    }
}

/// Settings of a [`Limiter`].
#[derive(Clone, Debug)]
#[must_use]
pub struct LimiterBuilder {
    limits: Limits,
    by_model: HashMap<Box<str>, Limits>,
    by_project: HashMap<Box<str>, Limits>,
    by_scope: HashMap<Scope, Limits>,
    pacing: Pacing,
    pacing_by_model: HashMap<Box<str>, Pacing>,
    max_wait: Duration,
    max_wait_by_model: HashMap<Box<str>, Duration>,
    project: Arc<str>,
    gate: Option<Arc<dyn Gate>>,
}

impl LimiterBuilder {
    /// What holds for every scope that has no limits of its own. Default: none.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What holds for a model, in every project that has no limits of its own.
    pub fn limits_for(mut self, model: impl Into<Box<str>>, limits: Limits) -> Self {
        self.by_model.insert(model.into(), limits);
        self
    }

    /// What holds in a project, for every model.
    pub fn limits_in(mut self, project: impl Into<Box<str>>, limits: Limits) -> Self {
        self.by_project.insert(project.into(), limits);
        self
    }

    /// What holds for one model in one project, whatever else is set.
    pub fn limits_of(mut self, scope: Scope, limits: Limits) -> Self {
        self.by_scope.insert(scope, limits);
        self
    }

    /// How the requests of a minute are spread over it. Default: [`Pacing::Burst`].
    pub fn pacing(mut self, pacing: Pacing) -> Self {
        self.pacing = pacing;
        self
    }

    /// The same for one model, in every project.
    pub fn pacing_for(mut self, model: impl Into<Box<str>>, pacing: Pacing) -> Self {
        self.pacing_by_model.insert(model.into(), pacing);
        self
    }

    /// The longest that a call waits for its turn; one that would have to wait longer is refused at once. Default: 60 s,
    /// one turn of the window.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// The same for one model, in every project.
    pub fn max_wait_for(mut self, model: impl Into<Box<str>>, wait: Duration) -> Self {
        self.max_wait_by_model.insert(model.into(), wait);
        self
    }

    /// Nobody waits: what does not fit is refused at once.
    pub fn reject(self) -> Self {
        self.max_wait(Duration::ZERO)
    }

    /// The project of calls whose [`CallContext`](crate::CallContext) names none. Default: `default`.
    pub fn project(mut self, project: impl Into<Arc<str>>) -> Self {
        self.project = project.into();
        self
    }

    /// Who is asked before anybody is let into a queue.
    pub fn gate(mut self, gate: impl Gate + 'static) -> Self {
        self.gate = Some(Arc::new(gate));
        self
    }

    /// The limiter. Reads wall time, once, for midnight Pacific.
    pub fn build(self) -> Limiter {
        let now = Instant::now();
        let calendar = Calendar { wall: clock::wall(), at: now };
        let scope = Scope::new("others", "others");
        let account = Account::new(self.strictest(), Pacer::new(self.pacing), calendar, now);
        let overflow = Arc::new(ScopeQueue::new(scope, account, calendar));
        let (hasher, shards) = (RandomState::new(), Default::default());
        Limiter { shared: Arc::new(Shared { settings: self, calendar, hasher, shards, overflow }) }
    }

    /// All limits that were set, and for whom, in an order that does not change.
    pub(crate) fn all_limits(&self) -> Vec<(String, Limits)> {
        let models = self.by_model.iter().map(|(model, limits)| (format!("model {model}"), *limits));
        let projects = self.by_project.iter().map(|(project, limits)| (format!("project {project}"), *limits));
        let scopes = self.by_scope.iter().map(|(scope, limits)| (scope.to_string(), *limits));
        let mut named: Vec<_> = models.chain(projects).chain(scopes).collect();
        named.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        named.insert(0, ("every model".to_owned(), self.limits));
        named
    }

    /// The models that have limits of their own.
    pub(crate) fn limits_by_model(&self) -> impl Iterator<Item = (&str, &Limits)> {
        self.by_model.iter().map(|(model, limits)| (&**model, limits))
    }

    /// What holds for a model where its project has no limits of its own.
    pub(crate) fn limits_of_model(&self, model: &str) -> &Limits {
        self.by_model.get(model).unwrap_or(&self.limits)
    }

    /// The longest that any call waits.
    pub(crate) fn longest_wait(&self) -> Duration {
        self.max_wait_by_model.values().copied().fold(self.max_wait, Duration::max)
    }

    /// Whether the program has named the scope or its model: such a one is never counted with the others, so that no
    /// invention of a caller's lifts its limits. There are no more of them than the program knows.
    fn names(&self, scope: &Scope) -> bool {
        self.by_scope.contains_key(scope)
            || self.by_model.contains_key(scope.model())
            || self.pacing_by_model.contains_key(scope.model())
    }

    /// What holds for those that share one account, whatever their projects: in each dimension the least.
    fn strictest(&self) -> Limits {
        let all = || self.by_project.values().chain([&self.limits]);
        let least = |dimension| all().filter_map(|limits| limits.get(dimension)).min();
        let [requests, tokens, day] = DIMENSIONS.map(least);
        let mut limits = Limits::new();
        limits = requests.map_or(limits, |requests| limits.requests_per_minute(requests));
        limits = tokens.map_or(limits, |tokens| limits.input_tokens_per_minute(tokens));
        day.map_or(limits, |day| limits.requests_per_day(day))
    }

    fn account(&self, scope: &Scope, calendar: Calendar, now: Instant) -> Account {
        let limits = self
            .by_scope
            .get(scope)
            .or_else(|| self.by_project.get(scope.project()))
            .or_else(|| self.by_model.get(scope.model()))
            .unwrap_or(&self.limits);
        let pacing = *self.pacing_by_model.get(scope.model()).unwrap_or(&self.pacing);
        Account::new(*limits, Pacer::new(pacing), calendar, now)
    }
}

impl Default for LimiterBuilder {
    fn default() -> Self {
        Self {
            limits: Limits::new(),
            by_model: HashMap::new(),
            by_project: HashMap::new(),
            by_scope: HashMap::new(),
            pacing: Pacing::Burst,
            pacing_by_model: HashMap::new(),
            max_wait: Duration::from_secs(60),
            max_wait_by_model: HashMap::new(),
            project: "default".into(),
            gate: None,
        }
    }
}

/// What one scope looks like at a moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ScopeReport {
    /// The project and the model.
    pub scope: Scope,
    /// Requests a minute, input tokens a minute, requests a day.
    pub dimensions: [DimensionReport; 3],
    /// How much longer the upstream has blocked it.
    pub blocked_for: Option<Duration>,
    /// How many calls wait.
    pub waiting: usize,
}

/// One dimension of a scope at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DimensionReport {
    /// What is counted.
    pub dimension: Dimension,
    /// What counts at the moment.
    pub used: u64,
    /// The limit in force, if there is one: the configured or learned one, lowered while others use the same quota.
    pub limit: Option<u64>,
    /// The limit that the upstream has named.
    pub learned: Option<u64>,
}
