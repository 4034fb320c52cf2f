//! The handle: all breakers by scope. It outlives the layers made from it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::request::Parts;
use parking_lot::RwLock;
use tokio::{sync::broadcast, time::Instant};

use super::{
    State, Target, Transitions, Trip,
    breaker::{Breaker, Common, FailureFilter},
    lookup::RecentBreakers,
    machine::Rules,
    observe::Entered,
    tracker::FEW_REQUESTS,
};
use crate::{
    bounded::{ByScope, Scoped},
    clock::FAR,
    context::ConfigError,
    describe::Describe,
    failure::Failure,
    quota,
};

/// The most scopes with a breaker of their own. Beyond that, and while none can be forgotten, new ones share one
/// breaker.
const MAX_SCOPES: usize = 4096;

/// The breakers of all scopes: the state of any number of [`CircuitBreakerLayer`](super::CircuitBreakerLayer)s.
///
/// A cheap handle: all clones are the same breakers. It is also the [`Gate`](quota::Gate) that a
/// [`Limiter`](crate::rate_limit::Limiter) asks before it queues a call.
///
/// ```
/// use tower_gemini::{circuit_breaker::{CircuitBreakers, Target, State}, rate_limit::Limiter};
///
/// let breakers = CircuitBreakers::new();
/// let limiter = Limiter::builder().gate(breakers.clone()).build();
///
/// let scope = Target::new("gemini-2.5-pro", "generativelanguage.googleapis.com");
/// assert_eq!(breakers.state(&scope), State::Closed);
/// breakers.force_open(&scope);
/// assert_eq!(breakers.state(&scope), State::ForcedOpen);
/// breakers.reset(&scope);
/// assert_eq!(breakers.state(&scope), State::Closed);
/// # drop(limiter);
/// ```
#[derive(Clone)]
pub struct CircuitBreakers {
    shared: Arc<Shared>,
}

struct Shared {
    common: Arc<Common>,
    scoping: Scoping,
    recent: RecentBreakers,
    scopes: RwLock<ByScope<Breaker>>,
    /// The breaker that scopes share while there is no room.
    overflow: Arc<Breaker>,
}

/// The rule by which a call gets its scope.
#[derive(Clone)]
pub(super) enum Scoping {
    ModelAndEndpoint,
    One,
    By(Arc<dyn Fn(&Parts) -> Target + Send + Sync>),
}

impl CircuitBreakers {
    /// Creates breakers with the default settings.
    pub fn new() -> Self {
        Self::of(CircuitBreakersBuilder::default())
    }

    /// Returns a builder for breakers with settings of your own.
    pub fn builder() -> CircuitBreakersBuilder {
        CircuitBreakersBuilder::default()
    }

    /// Returns the state of a scope's breaker, as a call would find it now. A scope that has never been called is
    /// closed while there is room for a breaker of its own, and else in the state of the shared one.
    ///
    /// With [`one_for_all`](CircuitBreakersBuilder::one_for_all) every scope has the same state.
    pub fn state(&self, scope: &Target) -> State {
        self.find(scope).map_or(State::Closed, |breaker| breaker.state(Instant::now()))
    }

    /// Returns all scopes that have been called and are not forgotten, with their states, each read at its own moment.
    /// The scopes that share a breaker are one, of the model and the endpoint `others`, which is left out while it is
    /// closed.
    pub fn snapshot(&self) -> Vec<(Target, State)> {
        let breakers: Vec<_> = self.shared.scopes.read().iter().cloned().collect();
        let now = Instant::now();
        let state_of = |breaker: &Arc<Breaker>| (breaker.scope().clone(), breaker.state(now));
        let others = Some(state_of(&self.shared.overflow)).filter(|(_, state)| *state != State::Closed);
        breakers.iter().map(state_of).chain(others).collect()
    }

    /// Returns all scopes, the shared one included, with their states and how often each has entered each state.
    pub(super) fn histories(&self) -> Vec<(Target, State, Entered)> {
        let breakers: Vec<_> = self.shared.scopes.read().iter().cloned().collect();
        let now = Instant::now();
        let all = breakers.iter().chain([&self.shared.overflow]).map(|breaker| {
            let (state, entered) = breaker.history(now);
            (breaker.scope().clone(), state, entered)
        });
        all.collect()
    }

    /// Subscribes to the transitions of all scopes from now on.
    pub fn subscribe(&self) -> Transitions {
        Transitions(self.shared.common.transitions.subscribe())
    }

    /// Holds the scope's breaker open, so that no call is admitted, until [`reset`](Self::reset). Calls in flight go
    /// on.
    ///
    /// Refusals name the longest opening as their wait, because the real one is unknown. The scope gets a breaker of
    /// its own, however many there are.
    pub fn force_open(&self, scope: &Target) {
        self.find_or_insert(scope.model(), scope.endpoint(), true).force(true);
    }

    /// Holds the scope's breaker closed, so that all calls are admitted whatever their outcome, until
    /// [`reset`](Self::reset). The scope gets a breaker of its own, however many there are.
    pub fn force_closed(&self, scope: &Target) {
        self.find_or_insert(scope.model(), scope.endpoint(), true).force(false);
    }

    /// Closes the scope's breaker without a ramp, or the shared one where it has none of its own, and forgets why it
    /// opened. Undoes [`force_open`](Self::force_open) and [`force_closed`](Self::force_closed).
    pub fn reset(&self, scope: &Target) {
        if let Some(breaker) = self.find(scope) {
            breaker.reset();
        }
    }

    fn of(settings: CircuitBreakersBuilder) -> Self {
        let CircuitBreakersBuilder { rules, scoping, counts } = settings;
        let (transitions, _) = broadcast::channel(Transitions::KEPT);
        let common = Arc::new(Common { rules, counts, transitions, open: AtomicUsize::new(0) });
        let overflow = Arc::new(Breaker::new(Target::new("others", "others"), common.clone()));
        let scopes = RwLock::new(ByScope::new(MAX_SCOPES, overflow.clone()).with_models());
        Self { shared: Arc::new(Shared { common, scoping, recent: Default::default(), scopes, overflow }) }
    }

    pub(super) fn scoping(&self) -> &Scoping {
        &self.shared.scoping
    }

    #[inline]
    pub(super) fn recent(&self) -> &RecentBreakers {
        &self.shared.recent
    }

    /// Returns all breakers that scopes do not share, unless none is open.
    pub(super) fn some_open(&self) -> Vec<Arc<Breaker>> {
        if self.shared.common.open.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        self.shared.scopes.read().iter().cloned().collect()
    }

    /// Lets the answers so far count only until the next call of this, against what others tell.
    #[cfg(feature = "redis")]
    pub(crate) fn age_answers(&self) {
        self.shared.scopes.read().iter().for_each(|breaker| breaker.age_answers());
    }

    /// Returns the breaker that a call of the scope would meet; `None` where it would get a new one.
    fn find(&self, scope: &Target) -> Option<Arc<Breaker>> {
        let (model, endpoint) = self.names(scope.model(), scope.endpoint());
        self.shared.scopes.read().find(model, endpoint).cloned()
    }

    /// Returns the breaker of a call's scope; a new one where there is none and there is room, else the shared one.
    pub(super) fn breaker(&self, model: &str, endpoint: &str) -> Arc<Breaker> {
        self.find_or_insert(model, endpoint, false)
    }

    /// Returns whether the breaker is the one that scopes share while there is no room.
    pub(super) fn is_shared(&self, breaker: &Arc<Breaker>) -> bool {
        Arc::ptr_eq(breaker, &self.shared.overflow)
    }

    /// Finds the scope's breaker, or inserts one. `is_named`: the program names the scope, which a caller cannot
    /// invent, and which gets a breaker of its own in any case.
    fn find_or_insert(&self, model: &str, endpoint: &str, is_named: bool) -> Arc<Breaker> {
        let shared = &*self.shared;
        let (model, endpoint) = self.names(model, endpoint);
        let scopes = shared.scopes.read();
        let long = || scopes.shared_if_long(model, endpoint).filter(|_| !is_named);
        if let Some(breaker) = scopes.get(model, endpoint).or_else(long) {
            return breaker.clone();
        }
        drop(scopes);
        let new = |_: Option<&Breaker>| Breaker::new(Target::new(model, endpoint), shared.common.clone());
        shared.scopes.write().find_or_insert((model, endpoint), is_named, Instant::now(), new)
    }

    /// Returns the names by which a scope's breaker is kept.
    fn names<'a>(&self, model: &'a str, endpoint: &'a str) -> (&'a str, &'a str) {
        if let Scoping::One = self.shared.scoping { ("", "") } else { (model, endpoint) }
    }
}

impl Scoped for Breaker {
    fn names(&self) -> (&str, &str) {
        (self.scope().model(), self.scope().endpoint())
    }

    fn is_forgettable(&self, now: Instant) -> bool {
        self.is_forgettable(now)
    }
}

impl quota::Gate for CircuitBreakers {
    /// Returns how long a model is closed. The limiter's scopes are of projects, and these are of endpoints: a model is
    /// closed where all its endpoints that have been called are, and until the first of them opens the way again.
    fn closed_for(&self, scope: &quota::Scope) -> Option<Duration> {
        if self.shared.common.open.load(Ordering::Acquire) == 0 {
            return None;
        }
        let now = Instant::now();
        let scopes = self.shared.scopes.read();
        let (model, _) = self.names(scope.model(), "");
        let breakers = scopes.of_model(model);
        if breakers.is_empty() {
            return scopes.find(model, "").and_then(|shared| shared.closed_for(now));
        }
        let mut least: Option<Duration> = None;
        for breaker in breakers {
            let closed = breaker.closed_for(now)?;
            least = Some(least.map_or(closed, |least| least.min(closed)));
        }
        least
    }
}

impl Describe for CircuitBreakers {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rules { trip, open, max_open, probes, .. } = self.shared.common.rules;
        match trip {
            Trip::Silence { minimum_requests, minimum_attempts, at_least } => {
                write!(f, "opens after {minimum_requests} failures")?;
                if minimum_requests > FEW_REQUESTS && minimum_attempts < u32::MAX {
                    write!(f, ", or {FEW_REQUESTS} with {minimum_attempts} attempts,")?;
                }
                write!(f, " and {at_least:?} without a success")?;
            }
            Trip::FailureRate { threshold, window, minimum_requests } => {
                let percent = threshold * 100.0;
                write!(f, "opens at {percent:.0} % failures of {window:?}, from {minimum_requests} calls on")?;
            }
            Trip::Consecutive { failures } => write!(f, "opens after {failures} failures in a row")?,
        }
        write!(f, ", for {open:?} to {max_open:?}; then {probes} probes")
    }
}

impl Default for CircuitBreakers {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CircuitBreakers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { common, scopes, .. } = &*self.shared;
        let open = common.open.load(Ordering::Relaxed);
        let (rules, scopes) = (common.rules, scopes.read().len());
        f.debug_struct("CircuitBreakers").field("rules", &rules).field("scopes", &scopes).field("open", &open).finish()
    }
}

/// The settings of [`CircuitBreakers`].
#[derive(Clone)]
#[must_use]
pub struct CircuitBreakersBuilder {
    rules: Rules,
    scoping: Scoping,
    counts: Option<FailureFilter>,
}

impl CircuitBreakersBuilder {
    /// Sets the rule by which a closed breaker opens. Default: [`Trip::Silence`].
    pub fn trip(mut self, trip: Trip) -> Self {
        self.rules.trip = trip;
        self
    }

    /// Sets the shortest time that a breaker stays open (default 2 s). The first opening lasts up to twice as long, at
    /// random, and the bound doubles with each further opening.
    pub fn open_duration(mut self, least: Duration) -> Self {
        self.rules.open = least;
        self
    }

    /// Sets the longest time that a breaker stays open (default 10 s), unless the upstream asks for more. An opening
    /// that it bounds lasts between half of it and all of it, at random.
    pub fn max_open_duration(mut self, most: Duration) -> Self {
        self.rules.max_open = most;
        self
    }

    /// Sets the number of probes that are admitted at once when the open time is over (default 2). It opens again when
    /// as many have failed; one success closes it.
    pub fn half_open_max_requests(mut self, probes: u32) -> Self {
        self.rules.probes = probes;
        self
    }

    /// Sets the time that a probe may take (default 60 s): this, or four times the 95th percentile of the time that
    /// successes take, whichever is longer. After that another probe may go in its place, and its failure no longer
    /// counts; its answer still closes the breaker while that waits for one.
    pub fn probe_lease(mut self, lease: Duration) -> Self {
        self.rules.lease = lease;
        self
    }

    /// Sets the function that decides which failures count. Default: [`Failure::counts_against_upstream`].
    ///
    /// [`RetryLayer`](crate::RetryLayer) marks an attempt of which an earlier one has failed, and goes by the default
    /// for that. So a failure that only this function counts is counted once an attempt, and not once a request.
    pub fn counts(mut self, counts: impl Fn(&Failure) -> bool + Send + Sync + 'static) -> Self {
        self.counts = Some(FailureFilter(Arc::new(counts)));
        self
    }

    /// Uses one breaker for every call. Default: one for each model at each endpoint.
    pub fn one_for_all(mut self) -> Self {
        self.scoping = Scoping::One;
        self
    }

    /// Sets the function that names the scope of a call. It runs for each call. A
    /// [`Limiter`](crate::rate_limit::Limiter) looks a gate up by the model's name, and so finds only scopes that have
    /// it as their model.
    pub fn scope_by(mut self, scope: impl Fn(&Parts) -> Target + Send + Sync + 'static) -> Self {
        self.scoping = Scoping::By(Arc::new(scope));
        self
    }

    /// Creates the breakers.
    ///
    /// # Errors
    ///
    /// - Zero probes, or a lease of zero: it could never close, or admit any number of probes at once.
    /// - A longest opening that is shorter than the shortest.
    /// - A [`Trip::FailureRate`] whose window is 0 s or holds fewer calls than its `minimum_requests`, or whose
    ///   threshold is not a number from 0 to 1: it could never open.
    pub fn build(mut self) -> Result<CircuitBreakers, ConfigError> {
        let Rules { trip, open, max_open, probes, lease } = self.rules;
        trip.check()?;
        if probes == 0 {
            return Err(ConfigError::new(
                "half_open_max_requests is 0: a breaker that has opened would never close; set 1 or more",
            ));
        }
        if lease.is_zero() {
            return Err(ConfigError::new(
                "probe_lease is 0: any number of probes would go out at once; give it the time of a slow answer",
            ));
        }
        if max_open < open {
            let message = format!("max_open_duration is {max_open:?}, less than open_duration, which is {open:?}");
            return Err(ConfigError::new(message));
        }
        for duration in [&mut self.rules.open, &mut self.rules.max_open, &mut self.rules.lease] {
            *duration = FAR.min(*duration);
        }
        Ok(CircuitBreakers::of(self))
    }
}

impl Default for CircuitBreakersBuilder {
    fn default() -> Self {
        let rules = Rules {
            trip: Trip::default(),
            open: Duration::from_secs(2),
            max_open: Duration::from_secs(10),
            probes: 2,
            lease: Duration::from_secs(60),
        };
        Self { rules, scoping: Scoping::ModelAndEndpoint, counts: None }
    }
}

impl fmt::Debug for CircuitBreakersBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakersBuilder").field("rules", &self.rules).finish_non_exhaustive()
    }
}
