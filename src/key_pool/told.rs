//! The knowledge of a pool that processes tell each other: which keys are disabled, and which parts of projects are blocked.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    DisabledReason, Fingerprint, KeyPool, Part,
    health::{Disabled, DisabledMemory, Health},
    pool::log_enabled,
    registry::{KeyEntry, PooledKey, Registry},
};
use crate::{
    block::{Block, BlockMemory},
    bounded::MAX_NAME,
    clock::TimeAnchor,
};

/// The least time by which the look at a block that another has seen is later than that one's own.
const LOOK_LATER: Duration = Duration::from_secs(1);

/// The difference of times that are told, which are rounded up to seconds.
const ROUNDED: Duration = Duration::from_secs(2);

/// A thing that a pool knows something about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PoolSubject {
    Key(Fingerprint),
    /// A part of a project. The model is empty where the part has none.
    Part {
        project: Arc<str>,
        part: Part,
        model: Arc<str>,
    },
}

/// The knowledge of a pool about one thing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Standing {
    /// The key serves, or the part is not blocked.
    Good,
    Disabled(Disabled),
    Blocked(Block),
}

/// A [`Standing`] in the form that is told. Neither: good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StandingMemory {
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled: Option<DisabledMemory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<BlockMemory>,
}

/// The names of the things that a pool has.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    /// A number that is another one when the pool has other keys.
    id: u64,
    keys: HashSet<Fingerprint>,
    projects: HashSet<Arc<str>>,
}

impl Roster {
    /// Returns whether the pool has a thing.
    pub(crate) fn has(&self, subject: &PoolSubject) -> bool {
        match subject {
            PoolSubject::Key(fingerprint) => self.keys.contains(fingerprint),
            PoolSubject::Part { project, .. } => self.projects.contains(project),
        }
    }

    /// Reads the names anew if they are others. Returns whether they are.
    fn update(&mut self, registry: &Registry) -> bool {
        // Each key has an address of its own, and a place.
        let of_key = |entry: &KeyEntry| Arc::as_ptr(&entry.key) as usize as u64;
        let id = registry.entries().fold(1, |id: u64, entry| id.rotate_left(5).wrapping_mul(31) ^ of_key(entry));
        if id == self.id {
            return false;
        }
        self.id = id;
        self.keys = registry.entries().map(|entry| entry.key.fingerprint).collect();
        self.projects = registry.projects.iter().map(|project| project.handle.name.clone()).collect();
        true
    }
}

impl PoolSubject {
    /// Returns the thing that is named so. `None`: no pool has such a thing.
    pub(crate) fn part(project: &str, part: &str, model: &str) -> Option<Self> {
        let part = Part::ALL.into_iter().find(|known| known.as_str() == part)?;
        let fits = project.len() <= MAX_NAME && model.len() <= MAX_NAME && (part != Part::Spending || model.is_empty());
        fits.then(|| Self::Part { project: project.into(), part, model: model.into() })
    }
}

impl Standing {
    /// Returns whether nothing has changed since the other was read from the same pool.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Good, Self::Good) => true,
            (Self::Disabled(one), Self::Disabled(other)) => (one.reason, one.since) == (other.reason, other.since),
            (Self::Blocked(one), Self::Blocked(other)) => one.is_same_belief(other),
            _ => false,
        }
    }

    /// Returns whether whoever knows the one gains nothing by the other, which may have been told.
    pub(crate) fn is_alike(&self, other: &Self) -> bool {
        let near = |one: Instant, other: Instant| one.max(other) - one.min(other) <= ROUNDED;
        match (self, other) {
            (Self::Good, Self::Good) => true,
            (Self::Disabled(one), Self::Disabled(other)) => one.reason == other.reason,
            (Self::Blocked(one), Self::Blocked(other)) => {
                one.kind() == other.kind() && one.step() == other.step() && near(one.ends(), other.ends())
            }
            _ => false,
        }
    }

    /// Returns whether it is believed more than another that was found at the same time: it lasts longer.
    pub(crate) fn outranks(&self, other: &Self) -> bool {
        let is_by_hand = |disabled: &Disabled| disabled.reason == DisabledReason::ByHand;
        match (self, other) {
            (Self::Disabled(one), Self::Disabled(other)) => is_by_hand(one) && !is_by_hand(other),
            (Self::Blocked(one), Self::Blocked(other)) => one.ends() > other.ends() + ROUNDED,
            (one, Self::Good) => !matches!(one, Self::Good),
            _ => false,
        }
    }

    /// Returns the time at which a key was disabled.
    pub(crate) fn since(&self) -> Option<Instant> {
        match self {
            Self::Disabled(disabled) => Some(disabled.since),
            _ => None,
        }
    }

    /// Returns the time until a block ends by itself; `None` where it has ended, and for all that ends never.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        match self {
            Self::Blocked(block) => Some(block.left(now)?.0),
            _ => None,
        }
    }

    /// Returns whether it is a block that has ended.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        matches!(self, Self::Blocked(_)) && self.left(now).is_none()
    }

    /// Returns the form that is told. `None`: nobody remembers the block any more.
    pub(crate) fn memory(&self, anchor: TimeAnchor, now: Instant) -> Option<StandingMemory> {
        Some(match self {
            Self::Good => StandingMemory::default(),
            Self::Disabled(disabled) => StandingMemory { disabled: Some(disabled.memory(anchor)), block: None },
            Self::Blocked(block) => StandingMemory { disabled: None, block: Some(block.memory(anchor, now)?) },
        })
    }

    /// Reads what was told of a thing. `None`: it is over, or of a sort that does not fit the thing or is not known.
    pub(crate) fn told(
        subject: &PoolSubject,
        memory: &StandingMemory,
        anchor: TimeAnchor,
        now: Instant,
    ) -> Option<Self> {
        match (subject, memory) {
            (_, StandingMemory { disabled: None, block: None }) => Some(Self::Good),
            (PoolSubject::Key(_), StandingMemory { disabled: Some(disabled), block: None }) => {
                Disabled::restored(disabled, anchor, now).map(Self::Disabled)
            }
            (PoolSubject::Part { .. }, StandingMemory { disabled: None, block: Some(block) }) => {
                let told = Self::Blocked(Block::restored(block, anchor, now)?);
                Some(told).filter(|told| !told.is_over(now))
            }
            _ => None,
        }
    }
}

impl KeyPool {
    /// Returns the standing of each key that is disabled or is one of the `known` things, and the names of the keys if they are
    /// others than those of `roster`. One lock; nothing is written.
    pub(crate) fn keys_told(&self, known: &[PoolSubject], roster: &mut Roster) -> (Vec<(PoolSubject, Standing)>, bool) {
        let registry = self.shared.registry.lock();
        let is_new = roster.update(&registry);
        let disabled = registry.entries().filter_map(|entry| {
            let disabled = entry.health.disabled?;
            Some((PoolSubject::Key(entry.key.fingerprint), Standing::Disabled(disabled)))
        });
        let mut all: Vec<_> = disabled.collect();
        drop(registry);
        let found: HashSet<_> = all.iter().map(|(subject, _)| subject.clone()).collect();
        let others = known.iter().filter(|subject| matches!(subject, PoolSubject::Key(_)) && roster.has(subject));
        all.extend(others.filter(|subject| !found.contains(subject)).map(|subject| (subject.clone(), Standing::Good)));
        (all, is_new)
    }

    /// Does the same for the parts of projects that are blocked.
    pub(crate) fn parks_told(
        &self,
        known: &[PoolSubject],
        roster: &mut Roster,
        now: Instant,
    ) -> (Vec<(PoolSubject, Standing)>, bool) {
        let registry = self.shared.registry.lock();
        let is_new = roster.update(&registry);
        let mut all = Vec::new();
        for project in registry.projects.iter().filter(|project| !project.marks.is_empty()) {
            let name = &project.handle.name;
            for (part, model, block) in project.marks.all().filter(|(.., block)| block.left(now).is_some()) {
                let model = model.cloned().unwrap_or_default();
                all.push((PoolSubject::Part { project: name.clone(), part, model }, Standing::Blocked(*block)));
            }
        }
        if known.is_empty() {
            return (all, is_new);
        }
        let marks: HashMap<_, _> =
            registry.projects.iter().map(|project| (&*project.handle.name, &project.marks)).collect();
        let found: HashSet<_> = all.iter().map(|(subject, _)| subject.clone()).collect();
        for subject in known.iter().filter(|subject| !found.contains(subject)) {
            let PoolSubject::Part { project, part, model } = subject else { continue };
            let Some(marks) = marks.get(&**project) else { continue };
            // A block that has ended by itself is no news.
            let standing = marks.block_of(*part, model).map_or(Standing::Good, |block| Standing::Blocked(*block));
            all.push((subject.clone(), standing));
        }
        (all, is_new)
    }

    /// Takes up what another process has found later than this one has: disables or enables a key, or blocks a part of a
    /// project or lifts its block, as [`disable`](Self::disable), [`enable`](Self::enable), a refusal and
    /// [`lift_model`](Self::lift_model) do here. Returns its standing afterwards; `None`: the thing is not in the pool.
    pub(crate) fn learn(&self, subject: &PoolSubject, told: Standing, now: Instant) -> Option<Standing> {
        match subject {
            PoolSubject::Key(fingerprint) => self.learn_key(*fingerprint, told),
            PoolSubject::Part { project, part, model } => self.learn_part(project, *part, model, told, now),
        }
    }

    fn learn_key(&self, fingerprint: Fingerprint, told: Standing) -> Option<Standing> {
        let mut registry = self.shared.registry.lock();
        let (project, at) = registry.find(fingerprint)?;
        let entry = &mut project.keys[at];
        let has_changed = match told {
            Standing::Disabled(disabled) => entry.change(|health| health.learn(disabled, fastrand::f64())),
            Standing::Good if entry.health.disabled.is_some() => {
                entry.change(Health::enable);
                true
            }
            Standing::Good | Standing::Blocked(_) => false,
        };
        let (key, disabled) = (entry.key.clone(), entry.health.disabled);
        project.publish();
        drop(registry);
        match disabled {
            Some(disabled) if has_changed => {
                log_told(&key, disabled.reason);
                self.shared.disabled.notify_one();
            }
            None if has_changed => log_enabled(&key),
            _ => {}
        }
        Some(disabled.map_or(Standing::Good, Standing::Disabled))
    }

    fn learn_part(
        &self,
        project: &str,
        part: Part,
        model: &Arc<str>,
        told: Standing,
        now: Instant,
    ) -> Option<Standing> {
        let mut registry = self.shared.registry.lock();
        let project = registry.projects.iter_mut().find(|known| *known.handle.name == *project)?;
        match told {
            Standing::Blocked(block) => {
                let later = LOOK_LATER + block.step().mul_f64(fastrand::f64() / 4.0);
                project.marks.learn(part, model, block.look_later(later, now), now);
            }
            Standing::Good => project.marks.forget(part, model),
            Standing::Disabled(_) => {}
        }
        project.publish();
        Some(project.marks.block_of(part, model).map_or(Standing::Good, |block| Standing::Blocked(*block)))
    }
}

fn log_told(key: &PooledKey, reason: DisabledReason) {
    let (key, name, project) = (&*key.shown, key.name.as_deref().unwrap_or_default(), &*key.project.name);
    tracing::warn!(key, name, project, %reason, "key disabled, as another instance says");
}
