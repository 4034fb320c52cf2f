//! The handle: all breakers, by scope. It outlives the layers made from it.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::request::Parts;
use parking_lot::{Mutex, RwLock};
use tokio::{sync::broadcast, time::Instant};

use super::{
    State, Target, Transitions, Trip,
    breaker::{Breaker, Common},
    lookup::RecentBreakers,
    machine::Rules,
    observe::Entered,
};
use crate::{context::ConfigError, describe::Describe, failure::Failure, quota};

/// The most scopes that are kept apart. Past that, and as long as none can be forgotten, new ones share one breaker.
const MAX_SCOPES: usize = 4096;

/// Longer names, model and endpoint together, have no breaker of their own: nobody's are, and callers invent models.
const MAX_NAME: usize = 512;

/// As good as for ever, and still a time that the clock can count to.
const FAR: Duration = Duration::from_secs(86_400 * 365);

/// A full map is looked through for what can be forgotten at most this often.
const SWEEP: Duration = Duration::from_secs(1);

/// All breakers: the state of any number of [`CircuitBreakerLayer`](super::CircuitBreakerLayer)s.
///
/// A cheap handle: all clones are the same breakers. It is also the [`Gate`](quota::Gate) that a
/// [`Limiter`](crate::rate_limit::Limiter) asks before it lets anybody queue.
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
    map: RwLock<Map>,
    overflow: Arc<Breaker>,
    swept: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Map {
    /// A model's breakers, in the order of their endpoints: most have one, but a program's own scopes may be many.
    models: HashMap<Box<str>, Vec<Arc<Breaker>>>,
    len: usize,
}

/// Which breaker a call belongs to.
#[derive(Clone)]
pub(super) enum Scoping {
    ModelAndEndpoint,
    One,
    By(Arc<dyn Fn(&Parts) -> Target + Send + Sync>),
}

/// The failures that count, by a function of the program's.
#[derive(Clone)]
pub(super) struct FailureFilter(pub(super) Arc<dyn Fn(&Failure) -> bool + Send + Sync>);

impl CircuitBreakers {
    /// CircuitBreakers with the default settings.
    pub fn new() -> Self {
        Self::of(CircuitBreakersBuilder::default())
    }

    /// CircuitBreakers with settings of your own.
    pub fn builder() -> CircuitBreakersBuilder {
        CircuitBreakersBuilder::default()
    }

    /// The state of a scope's breaker, as a call would find it now. One that has never been asked for is closed, as long as
    /// there is room for it; past that it is the shared one's.
    ///
    /// With [`one_for_all`](CircuitBreakersBuilder::one_for_all) every scope has the same.
    pub fn state(&self, scope: &Target) -> State {
        self.find(scope).map_or(State::Closed, |breaker| breaker.state(Instant::now()))
    }

    /// All scopes that have been asked for and are not forgotten, and their states. A moment's picture, scope by scope.
    /// Those past the number that is kept apart are one, of the model and the endpoint `others`, shown unless it is closed.
    pub fn snapshot(&self) -> Vec<(Target, State)> {
        let breakers: Vec<_> = self.shared.map.read().models.values().flatten().cloned().collect();
        let now = Instant::now();
        let seen = |breaker: &Arc<Breaker>| (breaker.scope().clone(), breaker.state(now));
        let others = Some(seen(&self.shared.overflow)).filter(|(_, state)| *state != State::Closed);
        breakers.iter().map(seen).chain(others).collect()
    }

    /// The same as the [snapshot](Self::snapshot), and how often each has come to each state.
    pub(super) fn histories(&self) -> Vec<(Target, State, Entered)> {
        let breakers: Vec<_> = self.shared.map.read().models.values().flatten().cloned().collect();
        let now = Instant::now();
        let all = breakers.iter().chain([&self.shared.overflow]).map(|breaker| {
            let (state, entered) = breaker.history(now);
            (breaker.scope().clone(), state, entered)
        });
        all.collect()
    }

    /// What happens from now on, in all scopes.
    pub fn subscribe(&self) -> Transitions {
        Transitions(self.shared.common.transitions.subscribe())
    }

    /// Lets nobody in until [`reset`](Self::reset). What is under way is not disturbed.
    ///
    /// Refusals name the longest opening as their wait, for nobody knows better. The scope gets a breaker of its own, however
    /// many there are.
    pub fn force_open(&self, scope: &Target) {
        self.find_or_make(scope.model(), scope.endpoint(), true).force(true);
    }

    /// Lets everybody in until [`reset`](Self::reset), whatever becomes of them. The scope gets a breaker of its own, however
    /// many there are.
    pub fn force_closed(&self, scope: &Target) {
        self.find_or_make(scope.model(), scope.endpoint(), true).force(false);
    }

    /// Closes the scope's breaker, the shared one where it has none of its own, and forgets what made it open, without a
    /// ramp. Undoes [`force_open`](Self::force_open) and
    /// [`force_closed`](Self::force_closed).
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
        let (map, swept, recent) = Default::default();
        Self { shared: Arc::new(Shared { common, scoping, recent, map, overflow, swept }) }
    }

    pub(super) fn scoping(&self) -> &Scoping {
        &self.shared.scoping
    }

    #[inline]
    pub(super) fn recent(&self) -> &RecentBreakers {
        &self.shared.recent
    }

    /// The breaker that a call of the scope would meet; none where it would get a new one.
    fn find(&self, scope: &Target) -> Option<Arc<Breaker>> {
        let (model, endpoint) = self.names(scope.model(), scope.endpoint());
        let map = self.shared.map.read();
        let is_shared = map.len >= MAX_SCOPES || is_too_long(model, endpoint);
        map.find(model, endpoint).or_else(|| is_shared.then(|| self.shared.overflow.clone()))
    }

    /// The breaker of a scope; a new one where there is none.
    pub(super) fn breaker(&self, model: &str, endpoint: &str) -> Arc<Breaker> {
        self.find_or_make(model, endpoint, false)
    }

    /// Whether it is the one of those that have none of their own: for as long as there is no room.
    pub(super) fn is_shared(&self, breaker: &Arc<Breaker>) -> bool {
        Arc::ptr_eq(breaker, &self.shared.overflow)
    }

    /// `is_named`: by the program, and so no invention of a caller's. It has one of its own in any case.
    fn find_or_make(&self, model: &str, endpoint: &str, is_named: bool) -> Arc<Breaker> {
        let shared = &*self.shared;
        let (model, endpoint) = self.names(model, endpoint);
        if let Some(breaker) = shared.map.read().find(model, endpoint) {
            return breaker;
        }
        if is_too_long(model, endpoint) && !is_named {
            return shared.overflow.clone();
        }
        let mut map = shared.map.write();
        // Somebody else may have been faster.
        if let Some(breaker) = map.find(model, endpoint) {
            return breaker;
        }
        if map.len >= MAX_SCOPES && !self.make_room(&mut map) && !is_named {
            return shared.overflow.clone();
        }
        let breaker = Arc::new(Breaker::new(Target::new(model, endpoint), shared.common.clone()));
        let breakers = map.models.entry(model.into()).or_default();
        let at = place_of(breakers, endpoint).unwrap_or_else(|at| at);
        breakers.insert(at, breaker.clone());
        map.len += 1;
        breaker
    }

    /// The names by which a scope's breaker is kept.
    fn names<'a>(&self, model: &'a str, endpoint: &'a str) -> (&'a str, &'a str) {
        if let Scoping::One = self.shared.scoping { ("", "") } else { (model, endpoint) }
    }

    /// Forgets breakers of which there is nothing to remember and that nobody holds.
    fn make_room(&self, map: &mut Map) -> bool {
        let (now, mut swept) = (Instant::now(), self.shared.swept.lock());
        if swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP) {
            return false;
        }
        *swept = Some(now);
        map.models.retain(|_, breakers| {
            breakers.retain(|breaker| Arc::strong_count(breaker) > 1 || !breaker.is_forgettable(now));
            !breakers.is_empty()
        });
        map.len = map.models.values().map(Vec::len).sum();
        map.len < MAX_SCOPES
    }
}

impl Map {
    fn find(&self, model: &str, endpoint: &str) -> Option<Arc<Breaker>> {
        let breakers = self.models.get(model)?;
        place_of(breakers, endpoint).ok().map(|at| breakers[at].clone())
    }
}

/// Where the breaker of an endpoint is, or would have to be.
fn place_of(breakers: &[Arc<Breaker>], endpoint: &str) -> Result<usize, usize> {
    breakers.binary_search_by(|breaker| breaker.scope().endpoint().cmp(endpoint))
}

fn is_too_long(model: &str, endpoint: &str) -> bool {
    model.len() + endpoint.len() > MAX_NAME
}

impl quota::Gate for CircuitBreakers {
    /// The limiter's scopes are of projects, and these are of endpoints: a model is closed where all its endpoints are that
    /// have been asked, and for as long as the first of them stays so.
    fn closed_for(&self, scope: &quota::Scope) -> Option<Duration> {
        if self.shared.common.open.load(Ordering::Acquire) == 0 {
            return None;
        }
        let now = Instant::now();
        let map = self.shared.map.read();
        let (model, _) = self.names(scope.model(), "");
        let Some(breakers) = map.models.get(model) else {
            let is_shared = map.len >= MAX_SCOPES || is_too_long(model, "");
            return is_shared.then(|| self.shared.overflow.closed_for(now)).flatten();
        };
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
            Trip::Silence { minimum_requests, at_least } => {
                write!(f, "opens after {minimum_requests} failures and {at_least:?} without a success")?;
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
        let Shared { common, map, .. } = &*self.shared;
        let open = common.open.load(Ordering::Relaxed);
        let (rules, scopes) = (common.rules, map.read().len);
        f.debug_struct("CircuitBreakers").field("rules", &rules).field("scopes", &scopes).field("open", &open).finish()
    }
}

/// Settings of [`CircuitBreakers`].
#[derive(Clone)]
#[must_use]
pub struct CircuitBreakersBuilder {
    rules: Rules,
    scoping: Scoping,
    counts: Option<FailureFilter>,
}

impl CircuitBreakersBuilder {
    /// When a closed breaker opens. Default: [`Trip::Silence`].
    pub fn trip(mut self, trip: Trip) -> Self {
        self.rules.trip = trip;
        self
    }

    /// How long a breaker stays open at least (default 2 s): the first time up to twice as long, by chance, and each
    /// further time up to twice as long as before.
    pub fn open_duration(mut self, least: Duration) -> Self {
        self.rules.open = least;
        self
    }

    /// How long a breaker stays open at most (default 10 s), unless the upstream asks for more. Each opening that is
    /// bounded by it lasts between half of it and all of it, by chance.
    pub fn max_open_duration(mut self, most: Duration) -> Self {
        self.rules.max_open = most;
        self
    }

    /// How many probes are let in at once when its time is over (default 2), and how many have to fail until it opens
    /// again. One success closes it.
    pub fn half_open_max_requests(mut self, probes: u32) -> Self {
        self.rules.probes = probes;
        self
    }

    /// How long a probe may take (default 60 s, and four times the time in which 95 % of successes come if that is longer).
    /// Then another may go in its place, and if it fails, that says nothing any more; if it is answered all the same, and
    /// the breaker still waits for an answer, that closes it.
    pub fn probe_lease(mut self, lease: Duration) -> Self {
        self.rules.lease = lease;
        self
    }

    /// Which failures count. Default: [`Failure::counts_against_upstream`].
    ///
    /// [`RetryLayer`](crate::RetryLayer) says of an attempt whether an earlier one of the same call has failed; it goes by
    /// the default. Failures that only this function counts, count once an attempt.
    pub fn counts(mut self, counts: impl Fn(&Failure) -> bool + Send + Sync + 'static) -> Self {
        self.counts = Some(FailureFilter(Arc::new(counts)));
        self
    }

    /// One breaker for every call. Default: one for each model at each endpoint.
    pub fn one_for_all(mut self) -> Self {
        self.scoping = Scoping::One;
        self
    }

    /// The breaker that this function names. It is asked for each call. A [`Limiter`](crate::rate_limit::Limiter) asks by
    /// the model's name, and so finds only scopes that carry it.
    pub fn scope_by(mut self, scope: impl Fn(&Parts) -> Target + Send + Sync + 'static) -> Self {
        self.scoping = Scoping::By(Arc::new(scope));
        self
    }

    /// The breakers.
    ///
    /// # Errors
    ///
    /// No probes at all, a lease of zero, or a longest opening that is shorter than the shortest: it could never close. A
    /// [`Trip::FailureRate`] whose window is no time, or holds fewer calls than its `minimum_requests`, or whose threshold
    /// is no number from 0 to 1: it could never open.
    pub fn build(mut self) -> Result<CircuitBreakers, ConfigError> {
        let Rules { trip, open, max_open, probes, lease } = self.rules;
        trip.check()?;
        if probes == 0 {
            return Err(ConfigError::new(
                "half_open_max_requests is 0: a breaker that has opened would never close; 1 or more",
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
