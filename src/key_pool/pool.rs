//! The handle of the pool: all keys and their state. It outlives the layers made from it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::HeaderName;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::{
    DisabledReason, Fingerprint, Key, KeyModelReport, KeyReport, KeySpendingReport, KeyState, Part,
    alike::Alike,
    health::Health,
    marks::Marks,
    owners::Owners,
    registry::{KeyEntry, PooledKey, Project, Registry},
};
use crate::{
    context::{ConfigError, Headroom},
    describe::Describe,
};

/// The keys of any number of projects and their state, for any number of [`KeyPoolLayer`](super::KeyPoolLayer)s.
///
/// A cheap handle: all clones share one pool.
///
/// ```
/// use tower_gemini::key_pool::{ApiKey, Key, KeyPool, KeyState};
///
/// let first = ApiKey::new("AIza-nobodys")?;
/// let fingerprint = first.fingerprint();
/// let pool = KeyPool::builder()
///     .key(Key::new(first).project("p1").name("first"))
///     .key(Key::new(ApiKey::new("AIza-anybodys")?).project("p2"))
///     .build()?;
///
/// assert_eq!(pool.snapshot()[0].state, KeyState::Active);
/// assert!(pool.disable(&fingerprint));
/// assert!(matches!(pool.snapshot()[0].state, KeyState::Disabled { .. }));
/// # Ok::<_, tower_gemini::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct KeyPool {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) headroom: Option<Arc<dyn Headroom>>,
    pub(super) default_project: Option<Arc<str>>,
    pub(super) spread_creations: bool,
    pub(super) registry: Mutex<Registry>,
    /// The number of projects.
    pub(super) projects: AtomicUsize,
    pub(super) owners: Mutex<Owners>,
    /// The projects that calls were sent to which begin alike. `None`: that makes no difference.
    pub(super) alike: Option<Alike>,
    /// Wakes `recheck` when a key was disabled.
    pub(super) disabled: Notify,
}

impl KeyPool {
    /// The number of refusals in a row that disables a key: 3. Good keys are refused occasionally.
    pub const STRIKES: u32 = super::health::STRIKES;

    /// Returns a builder without keys.
    pub fn builder() -> KeyPoolBuilder {
        KeyPoolBuilder::default()
    }

    /// Returns the current state of each key, in the order in which projects and keys were added.
    pub fn snapshot(&self) -> Vec<KeyReport> {
        let now = Instant::now();
        let registry = self.shared.registry.lock();
        registry
            .projects
            .iter()
            .flat_map(|project| project.keys.iter().map(|entry| report(project, entry, now)))
            .collect()
    }

    /// Disables a key until it is [enabled](Self::enable): no call uses it, and [`recheck`](Self::recheck) does not
    /// check it. Calls under way end as they would have. Returns whether the key is in the pool.
    pub fn disable(&self, fingerprint: &Fingerprint) -> bool {
        let mut registry = self.shared.registry.lock();
        let Some((project, at)) = registry.find(*fingerprint) else { return false };
        project.keys[at].change(|health| health.disable_by_hand(Instant::now()));
        let key = project.keys[at].key.clone();
        drop(registry);
        log_disabled(&key, DisabledReason::ByHand);
        true
    }

    /// Enables a key again, for whatever reason it was disabled, and forgets its refusals. Returns whether the key is
    /// in the pool.
    pub fn enable(&self, fingerprint: &Fingerprint) -> bool {
        let mut registry = self.shared.registry.lock();
        let Some((project, at)) = registry.find(*fingerprint) else { return false };
        project.keys[at].change(Health::enable);
        project.publish();
        let key = project.keys[at].key.clone();
        drop(registry);
        log_enabled(&key);
        true
    }

    /// Forgets all that refusals have said of the quota, the models and the money of a key's project: for an operator who
    /// knows that it is good again, because a tier was granted or a bill was paid. Returns whether the key is in the pool.
    ///
    /// Calls that come from now on go there at once. Those that have been refused already, and that a
    /// [`RetryLayer`](crate::retry::RetryLayer) outside has sleep until the refusal's hint, are not woken: they are tried
    /// again when it is over.
    pub fn lift(&self, fingerprint: &Fingerprint) -> bool {
        let mut registry = self.shared.registry.lock();
        let Some((project, _)) = registry.find(*fingerprint) else { return false };
        project.marks.clear();
        project.publish();
        true
    }

    /// Does the same as [`lift`](Self::lift) for a project by its name. Returns whether it has a key in the pool.
    pub fn lift_project(&self, project: &str) -> bool {
        self.change_marks(project, Marks::clear)
    }

    /// Does the same for one model of a project: what has been said of its quota, of its grounded calls, and of whether the
    /// project may have it. What concerns the project's money stays. Returns whether the project has a key in the pool.
    pub fn lift_model(&self, project: &str, model: &str) -> bool {
        self.change_marks(project, |marks| marks.clear_model(model))
    }

    fn change_marks(&self, project: &str, change: impl FnOnce(&mut Marks)) -> bool {
        let mut registry = self.shared.registry.lock();
        let Some(project) = registry.projects.iter_mut().find(|known| *known.handle.name == *project) else {
            return false;
        };
        change(&mut project.marks);
        project.publish();
        true
    }

    /// Adds a key to its project.
    ///
    /// # Errors
    ///
    /// Fails if the key is in the pool already.
    pub fn add(&self, key: Key) -> Result<(), ConfigError> {
        let mut registry = self.shared.registry.lock();
        add(&mut registry, key)?;
        self.shared.projects.store(registry.projects.len(), Ordering::Relaxed);
        Ok(())
    }

    /// Removes a key. Calls under way end as they would have. A pool may be left without keys: then it refuses every
    /// call. Returns whether the key was in the pool.
    pub fn remove(&self, fingerprint: &Fingerprint) -> bool {
        let mut registry = self.shared.registry.lock();
        let was_there = registry.remove(*fingerprint);
        self.shared.projects.store(registry.projects.len(), Ordering::Relaxed);
        was_there
    }
}

fn add(registry: &mut Registry, key: Key) -> Result<(), ConfigError> {
    if let Some((project, _)) = registry.find(key.fingerprint) {
        let (key, project) = (key.fingerprint, &project.handle.name);
        return Err(ConfigError::new(format!(
            "the key {key} is in the pool already, in project {project}: add each key once"
        )));
    }
    registry.add(key);
    Ok(())
}

/// Reports the state of a key.
fn report(project: &Project, entry: &KeyEntry, now: Instant) -> KeyReport {
    let models = project.marks.report(now);
    let spending = project.marks.spending(now);
    KeyReport {
        fingerprint: entry.key.fingerprint,
        name: entry.key.name.clone(),
        project: project.handle.name.clone(),
        weight: entry.key.weight,
        state: state(entry, &models, spending.as_ref(), now),
        models,
        spending,
        strikes: entry.health.strikes,
        proven: entry.health.proven,
        uses: entry.uses,
    }
}

/// Returns the worst state that applies to a key.
fn state(entry: &KeyEntry, models: &[KeyModelReport], spending: Option<&KeySpendingReport>, now: Instant) -> KeyState {
    if let Some(disabled) = entry.health.disabled {
        return disabled.state(now);
    }
    let rank = |state: &KeyState| match state {
        KeyState::Cooling { left } => (1, *left),
        KeyState::Exhausted { left } => (2, *left),
        _ => (0, Duration::ZERO),
    };
    // A key without searches serves all other calls.
    let models = models.iter().filter(|report| report.part != Part::Grounded).map(|report| report.state);
    models.chain(spending.map(|report| report.state)).max_by_key(rank).unwrap_or(KeyState::Active)
}

pub(super) fn log_disabled(key: &PooledKey, reason: DisabledReason) {
    let (key, name, project) = (&*key.shown, key.name.as_deref().unwrap_or_default(), &*key.project.name);
    tracing::warn!(key, name, project, %reason, "key disabled");
}

pub(super) fn log_enabled(key: &PooledKey) {
    let (key, name, project) = (&*key.shown, key.name.as_deref().unwrap_or_default(), &*key.project.name);
    tracing::info!(key, name, project, "key re-enabled");
}

impl Describe for KeyPool {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registry = self.shared.registry.lock();
        let (keys, projects) = (registry.entries().count(), registry.projects.len());
        write!(f, "keys: {keys}; projects: {projects}")
    }
}

impl fmt::Debug for KeyPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registry = self.shared.registry.lock();
        let keys = registry.entries().count();
        f.debug_struct("KeyPool")
            .field("projects", &registry.projects.len())
            .field("keys", &keys)
            .finish_non_exhaustive()
    }
}

/// A builder of a [`KeyPool`].
#[derive(Clone, Debug)]
#[must_use]
pub struct KeyPoolBuilder {
    keys: Vec<Key>,
    headroom: Option<Arc<dyn Headroom>>,
    default_project: Option<Arc<str>>,
    spread_creations: bool,
    cache_affinity: Option<Duration>,
    session_header: HeaderName,
}

impl Default for KeyPoolBuilder {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            headroom: None,
            default_project: None,
            spread_creations: false,
            cache_affinity: Some(Duration::from_secs(2)),
            session_header: HeaderName::from_static("x-session-id"),
        }
    }
}

impl KeyPoolBuilder {
    /// Returns whether there is no key in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the project of each key.
    pub(crate) fn projects(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| &*key.project)
    }

    /// Adds a key to its project.
    pub fn key(mut self, key: Key) -> Self {
        self.keys.push(key);
        self
    }

    /// Sets the source that tells how long a call would wait in a project: a clone of the
    /// [`Limiter`](crate::rate_limit::Limiter) inside. Default: none; a project is chosen at random, by weight, among
    /// those that the upstream has not refused.
    pub fn headroom(mut self, headroom: impl Headroom + 'static) -> Self {
        self.headroom = Some(Arc::new(headroom));
        self
    }

    /// Sets the project for calls that name a resource of an unknown project, and for calls that create files and other
    /// resources. Default: the first key's.
    pub fn default_project(mut self, project: impl Into<Arc<str>>) -> Self {
        self.default_project = Some(project.into());
        self
    }

    /// Sets whether files, cached contents and other resources are created in the project with the least wait, and not
    /// in the default one. Then two files of one prompt may be in two projects, and no key can read both. Default:
    /// false.
    pub fn spread_creations(mut self, spread: bool) -> Self {
        self.spread_creations = spread;
        self
    }

    /// Sets how much longer than in the best project a call may wait in the one that had the last call which began alike,
    /// and so may have its beginning in its cache. It is no preference for a project that takes much more than its share of the
    /// calls. `None`: that makes no difference. Default: 2 s.
    pub fn cache_affinity(mut self, longest: impl Into<Option<Duration>>) -> Self {
        self.cache_affinity = longest.into();
        self
    }

    /// Sets the header by which a caller says which calls begin alike: those of one value do, whatever their bodies. It is
    /// sent on. Default: `x-session-id`.
    pub fn session_header(mut self, name: HeaderName) -> Self {
        self.session_header = name;
        self
    }

    /// Builds the pool.
    ///
    /// # Errors
    ///
    /// Fails if there is no key, if a key is there twice, or if no key is of the default project.
    pub fn build(self) -> Result<KeyPool, ConfigError> {
        let Self { keys, headroom, default_project, spread_creations, cache_affinity, session_header } = self;
        let mut registry = Registry::default();
        keys.into_iter().try_for_each(|key| add(&mut registry, key))?;
        if registry.projects.is_empty() {
            return Err(ConfigError::new("a key pool without a key can serve no call: add one"));
        }
        if let Some(project) = default_project.as_ref().filter(|project| registry.project_named(project).is_none()) {
            return Err(ConfigError::new(format!(
                "no key is of the default project {project}: add one, or name a project that has a key"
            )));
        }
        let shared = Shared {
            headroom,
            default_project,
            spread_creations,
            projects: registry.projects.len().into(),
            registry: Mutex::new(registry),
            owners: Mutex::default(),
            alike: cache_affinity.map(|longest| Alike::new(longest, session_header)),
            disabled: Notify::new(),
        };
        Ok(KeyPool { shared: Arc::new(shared) })
    }
}
