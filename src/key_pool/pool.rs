//! The handle: all keys, and what is known of them. It outlives the layers made from it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::{
    DisabledReason, Fingerprint, Key, KeyModelReport, KeyReport, KeyState,
    health::Health,
    owners::Owners,
    registry::{KeyEntry, PooledKey, Project, Registry},
};
use crate::{context::ConfigError, describe::Describe, quota::Headroom};

/// Keys of any number of projects: the state of any number of [`KeyPoolLayer`](super::KeyPoolLayer)s.
///
/// A cheap handle: all clones are the same pool.
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
    /// How many projects there are.
    pub(super) projects: AtomicUsize,
    pub(super) owners: Mutex<Owners>,
    /// A key was disabled: recheck has something new to look at.
    pub(super) disabled: Notify,
}

impl KeyPool {
    /// Refusals of a key in a row that disable it: 3. Good keys are refused now and then.
    pub const STRIKES: u32 = super::health::STRIKES;

    /// A pool of keys that are told one by one.
    pub fn builder() -> KeyPoolBuilder {
        KeyPoolBuilder::default()
    }

    /// How each key stands, in the order in which projects and keys were added. A moment's picture.
    pub fn snapshot(&self) -> Vec<KeyReport> {
        let now = Instant::now();
        let registry = self.shared.registry.lock();
        registry
            .projects
            .iter()
            .flat_map(|project| project.keys.iter().map(|entry| report(project, entry, now)))
            .collect()
    }

    /// Takes a key out of service until it is [enabled](Self::enable): no call uses it, and nobody looks whether it is good.
    /// Calls under way end as they would have. False: there is no such key.
    pub fn disable(&self, fingerprint: &Fingerprint) -> bool {
        let mut registry = self.shared.registry.lock();
        let Some((project, at)) = registry.find(*fingerprint) else { return false };
        project.keys[at].change(|health| health.disable_by_hand(Instant::now()));
        let key = project.keys[at].key.clone();
        drop(registry);
        warn_disabled(&key, DisabledReason::ByHand);
        true
    }

    /// Takes a key into service again, whoever has disabled it; what was held against it is forgotten. False: there is no
    /// such key.
    pub fn enable(&self, fingerprint: &Fingerprint) -> bool {
        let mut registry = self.shared.registry.lock();
        let Some((project, at)) = registry.find(*fingerprint) else { return false };
        project.keys[at].change(Health::enable);
        project.note();
        let key = project.keys[at].key.clone();
        drop(registry);
        tell_enabled(&key);
        true
    }

    /// Adds a key to those that serve.
    ///
    /// # Errors
    ///
    /// The pool has it already.
    pub fn add(&self, key: Key) -> Result<(), ConfigError> {
        let mut registry = self.shared.registry.lock();
        add(&mut registry, key)?;
        self.shared.projects.store(registry.projects.len(), Ordering::Relaxed);
        Ok(())
    }

    /// Takes a key out for good. Calls under way end as they would have. A pool may be left without any: then it refuses
    /// what it is asked. False: there is no such key.
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
        return Err(ConfigError::new(format!("the key {key} is in the pool already, in project {project}")));
    }
    registry.add(key);
    Ok(())
}

fn report(project: &Project, entry: &KeyEntry, now: Instant) -> KeyReport {
    let mut models: Vec<KeyModelReport> = project
        .marks
        .iter(now)
        .map(|(model, mark)| KeyModelReport { model: model.clone(), state: mark.state(now) })
        .collect();
    models.sort_by(|one, other| one.model.cmp(&other.model));
    KeyReport {
        fingerprint: entry.key.fingerprint,
        name: entry.key.name.clone(),
        project: project.handle.name.clone(),
        weight: entry.key.weight,
        state: state(entry, &models, now),
        models,
        strikes: entry.health.strikes,
        proven: entry.health.proven,
        uses: entry.uses,
    }
}

/// The worst that can be said of it.
fn state(entry: &KeyEntry, models: &[KeyModelReport], now: Instant) -> KeyState {
    if let Some(disabled) = entry.health.disabled {
        return disabled.state(now);
    }
    let rank = |state: &KeyState| match state {
        KeyState::Cooling { left } => (1, *left),
        KeyState::Exhausted { left } => (2, *left),
        _ => (0, Duration::ZERO),
    };
    models.iter().map(|report| report.state).max_by_key(rank).unwrap_or(KeyState::Active)
}

pub(super) fn warn_disabled(key: &PooledKey, reason: DisabledReason) {
    let (key, name, project) = (&*key.shown, key.name.as_deref().unwrap_or_default(), &*key.project.name);
    tracing::warn!(key, name, project, %reason, "a key is disabled");
}

pub(super) fn tell_enabled(key: &PooledKey) {
    let (key, name, project) = (&*key.shown, key.name.as_deref().unwrap_or_default(), &*key.project.name);
    tracing::info!(key, name, project, "a key serves again");
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

/// Builds a [`KeyPool`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct KeyPoolBuilder {
    keys: Vec<Key>,
    headroom: Option<Arc<dyn Headroom>>,
    default_project: Option<Arc<str>>,
    spread_creations: bool,
}

impl KeyPoolBuilder {
    /// Whether there is no key in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Each key's project.
    pub(crate) fn projects(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| &*key.project)
    }

    /// Adds a key.
    pub fn key(mut self, key: Key) -> Self {
        self.keys.push(key);
        self
    }

    /// Who knows how long a call would wait in a project: the [`Limiter`](crate::rate_limit::Limiter) inside, as a clone of
    /// it. Without, a project is chosen by chance and weight among those that the upstream has not refused.
    pub fn headroom(mut self, headroom: impl Headroom + 'static) -> Self {
        self.headroom = Some(Arc::new(headroom));
        self
    }

    /// The project for whatever belongs to one project and nobody knows to which, and in which files and the like are
    /// made. Default: the first key's.
    pub fn default_project(mut self, project: impl Into<Arc<str>>) -> Self {
        self.default_project = Some(project.into());
        self
    }

    /// Whether files, cached contents and the like are made in the project that has the most room, and not in the default
    /// one. Then two files of one prompt may be in two projects, and no key can read both. Default: false.
    pub fn spread_creations(mut self, spread: bool) -> Self {
        self.spread_creations = spread;
        self
    }

    /// The pool.
    ///
    /// # Errors
    ///
    /// There is no key, a key is there twice, or no key is of the default project.
    pub fn build(self) -> Result<KeyPool, ConfigError> {
        let Self { keys, headroom, default_project, spread_creations } = self;
        let mut registry = Registry::default();
        keys.into_iter().try_for_each(|key| add(&mut registry, key))?;
        if registry.projects.is_empty() {
            return Err(ConfigError::new("a key pool without a key can serve nobody: add one"));
        }
        if let Some(project) = default_project.as_ref().filter(|project| registry.project_named(project).is_none()) {
            return Err(ConfigError::new(format!("no key is of the default project {project}")));
        }
        let shared = Shared {
            headroom,
            default_project,
            spread_creations,
            projects: registry.projects.len().into(),
            registry: Mutex::new(registry),
            owners: Mutex::default(),
            disabled: Notify::new(),
        };
        Ok(KeyPool { shared: Arc::new(shared) })
    }
}
