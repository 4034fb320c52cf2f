//! The settings of a limiter, and the account that they give a scope.

use std::{array, collections::HashMap, hash::RandomState, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Limiter, MAX_SCOPES, SHARDS, Shared};
use crate::{
    bounded::ByScope,
    quota::{Gate, Limits, PacificCalendar, QuotaStore, Scope},
    rate_limit::{
        Pacing,
        account::{Account, DIMENSIONS},
        pacing::Pacer,
        queue::ScopeQueue,
    },
    recent::Recent,
    service_times::ServiceTimes,
    sync::Mutex,
};

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
    /// `None`: until the deadline.
    pub(super) max_wait: Option<Duration>,
    pub(super) max_wait_by_model: HashMap<Box<str>, Duration>,
    pub(super) project: Arc<str>,
    pub(super) gate: Option<Arc<dyn Gate>>,
    pub(super) service_times: Option<ServiceTimes>,
    pub(super) store: Option<Arc<dyn QuotaStore>>,
}

impl LimiterBuilder {
    /// Sets the limits of every scope that has none of its own. Default: none.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the limits of a model, in every project that has none of its own.
    pub fn limits_for(mut self, model: impl Into<Box<str>>, limits: Limits) -> Self {
        self.by_model.insert(model.into(), limits);
        self
    }

    /// Sets the limits of every model in a project.
    pub fn limits_in(mut self, project: impl Into<Box<str>>, limits: Limits) -> Self {
        self.by_project.insert(project.into(), limits);
        self
    }

    /// Sets the limits of one model in one project, whatever else is set.
    pub fn limits_of(mut self, scope: Scope, limits: Limits) -> Self {
        self.by_scope.insert(scope, limits);
        self
    }

    /// Sets the pacing: the way in which a minute's requests are spread. Default: [`Pacing::Burst`].
    pub fn pacing(mut self, pacing: Pacing) -> Self {
        self.pacing = pacing;
        self
    }

    /// Sets the pacing of one model, in every project.
    pub fn pacing_for(mut self, model: impl Into<Box<str>>, pacing: Pacing) -> Self {
        self.pacing_by_model.insert(model.into(), pacing);
        self
    }

    /// Sets the longest time that a call waits in the queue; one that would have to wait longer is refused at once.
    /// Default: 60 s, one turn of the window.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = Some(wait);
        self
    }

    /// Lets a call wait until its deadline, and for 285 s where it has none: for servers whose calls all have one. A call
    /// for which no turn comes in time is refused at once, as with [`max_wait`](Self::max_wait), whose place it takes.
    pub fn wait_until_deadline(mut self) -> Self {
        self.max_wait = None;
        self
    }

    /// Sets the longest wait for one model, in every project.
    pub fn max_wait_for(mut self, model: impl Into<Box<str>>, wait: Duration) -> Self {
        self.max_wait_by_model.insert(model.into(), wait);
        self
    }

    /// Refuses at once whatever does not fit: a longest wait of zero.
    pub fn reject(self) -> Self {
        self.max_wait(Duration::ZERO)
    }

    /// Sets the project of calls whose [`CallContext`](crate::CallContext) names none. Default: `default`.
    pub fn project(mut self, project: impl Into<Arc<str>>) -> Self {
        self.project = project.into();
        self
    }

    /// Sets the gate that is asked before a call is queued: usually the
    /// [`CircuitBreakers`](crate::circuit_breaker::CircuitBreakers). Default: none.
    pub fn gate(mut self, gate: impl Gate + 'static) -> Self {
        self.gate = Some(Arc::new(gate));
        self
    }

    /// Sets the times that answers take, which a [`TimeoutLayer`](crate::TimeoutLayer) of the same stack records. A call
    /// waits no longer than its deadline leaves time for the quickest of the last 64 answers; one that would have to is
    /// refused at once. Default: none, so that a call waits until its deadline itself.
    pub fn service_times(mut self, times: ServiceTimes) -> Self {
        self.service_times = Some(times);
        self
    }

    /// Sets the store that counts the quota for other limiters, too. Each call that this limiter would admit asks it, and
    /// waits where others have used the room up; see [Several processes](crate::rate_limit#several-processes). Default: none.
    pub fn store(mut self, store: impl QuotaStore + 'static) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Creates the limiter. Reads wall time once, for midnight Pacific.
    pub fn build(self) -> Limiter {
        let now = Instant::now();
        let calendar = PacificCalendar::read();
        let scope = Scope::new("others", "others");
        let account = Account::new(self.strictest(), Pacer::new(self.pacing), calendar, now);
        let overflow = Arc::new(ScopeQueue::new(scope, account, calendar).with_store(self.store.clone()));
        let shards = array::from_fn(|_| Mutex::new(ByScope::new(MAX_SCOPES / SHARDS, overflow.clone())));
        let hasher = RandomState::new();
        Limiter {
            shared: Arc::new(Shared { settings: self, calendar, hasher, shards, recent: Recent::default(), overflow }),
        }
    }

    /// Returns all limits that were set, each with a name for its scopes, in a stable order.
    pub(crate) fn all_limits(&self) -> Vec<(String, Limits)> {
        let models = self.by_model.iter().map(|(model, limits)| (format!("model {model}"), *limits));
        let projects = self.by_project.iter().map(|(project, limits)| (format!("project {project}"), *limits));
        let scopes = self.by_scope.iter().map(|(scope, limits)| (scope.to_string(), *limits));
        let mut named: Vec<_> = models.chain(projects).chain(scopes).collect();
        named.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        named.insert(0, ("every model".to_owned(), self.limits));
        named
    }

    /// Returns the models that have limits of their own.
    pub(crate) fn limits_by_model(&self) -> impl Iterator<Item = (&str, &Limits)> {
        self.by_model.iter().map(|(model, limits)| (&**model, limits))
    }

    /// Returns the limits of a model where its project has none of its own.
    pub(crate) fn limits_of_model(&self, model: &str) -> &Limits {
        self.by_model.get(model).unwrap_or(&self.limits)
    }

    /// Returns the longest wait that any call is allowed, apart from its own deadline.
    pub(crate) fn longest_wait(&self) -> Duration {
        self.max_wait_by_model.values().copied().fold(self.max_wait.unwrap_or_default(), Duration::max)
    }

    /// Returns whether the settings name the scope or its model. Such a scope never shares the overflow account, so
    /// that invented models cannot lift its limits; their number is bounded by the settings.
    pub(super) fn names(&self, scope: &Scope) -> bool {
        self.by_scope.contains_key(scope)
            || self.by_model.contains_key(scope.model())
            || self.pacing_by_model.contains_key(scope.model())
    }

    /// Returns the limits of the shared account, whose scopes may be of any project: the least in each dimension.
    fn strictest(&self) -> Limits {
        let all = || self.by_project.values().chain([&self.limits]);
        let least = |dimension| all().filter_map(|limits| limits.get(dimension)).min();
        let [requests, tokens, day] = DIMENSIONS.map(least);
        let mut limits = Limits::new();
        limits = requests.map_or(limits, |requests| limits.requests_per_minute(requests));
        limits = tokens.map_or(limits, |tokens| limits.input_tokens_per_minute(tokens));
        day.map_or(limits, |day| limits.requests_per_day(day))
    }

    /// Creates the account of a scope, with the most specific limits and pacing.
    pub(super) fn account(&self, scope: &Scope, calendar: PacificCalendar, now: Instant) -> Account {
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
            max_wait: Some(Duration::from_secs(60)),
            max_wait_by_model: HashMap::new(),
            project: "default".into(),
            gate: None,
            service_times: None,
            store: None,
        }
    }
}
