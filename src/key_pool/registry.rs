//! All keys, by project, and the choice among those that a call may use. Pure: it is told the time, and does no I/O.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Fingerprint, Key,
    health::{Health, TrialId, Use},
    key::Signer,
    marks::{Marks, Needs, ProjectLooks},
    share::RecentCalls,
};
use crate::{
    block::Passage,
    context::{Choice, Tried},
};

/// The most projects of which the wait is looked up for one call.
pub(super) const MAX_CANDIDATES: usize = 64;

/// The number of turns by which a key of weight 1 advances with each call.
const STRIDE: u64 = 1 << 20;

/// A key, as calls hold it.
#[derive(Debug)]
pub(super) struct PooledKey {
    pub(super) signer: Signer,
    pub(super) fingerprint: Fingerprint,
    /// The fingerprint as text, shared by all outcomes that carry it.
    pub(super) shown: Arc<str>,
    pub(super) name: Option<Arc<str>>,
    pub(super) weight: NonZeroU32,
    pub(super) project: Arc<ProjectRef>,
    /// The part of its [`Health`] that a call that has waited needs, without the lock.
    standing: AtomicU8,
}

/// A key, as the one call holds it that tests it.
#[derive(Debug)]
pub(super) struct Tested(pub(super) Arc<PooledKey>);

/// A project, as calls hold it.
#[derive(Debug)]
pub(super) struct ProjectRef {
    pub(super) name: Arc<str>,
    /// True if a success would change its state or that of a key: most would not, and need no lock.
    awaits_success: AtomicBool,
}

/// A key with its state.
#[derive(Debug)]
pub(super) struct KeyEntry {
    pub(super) key: Arc<PooledKey>,
    pub(super) health: Health,
    /// The number of calls that were sent with the key.
    pub(super) uses: u64,
    /// The turn of its next call. It grows with each call, and more slowly with a larger weight: the lowest is next.
    turn: u64,
}

/// A project with its state and its keys.
#[derive(Debug)]
pub(super) struct Project {
    pub(super) handle: Arc<ProjectRef>,
    pub(super) marks: Marks,
    pub(super) keys: Vec<KeyEntry>,
    /// The turn of the key that was used last: a key that is added, or that returns, begins here.
    turn: u64,
    pub(super) recent: RecentCalls,
}

/// All projects of a pool.
#[derive(Debug, Default)]
pub(super) struct Registry {
    pub(super) projects: Vec<Project>,
    /// The calls of all projects.
    pub(super) recent: RecentCalls,
}

/// The needs of a call that looks for a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query<'a> {
    pub(super) now: Instant,
    pub(super) needs: Needs<'a>,
    /// The one project that the call may go to.
    pub(super) pinned: Option<&'a str>,
    /// The keys and projects that were of no use to earlier attempts.
    pub(super) tried: &'a [Tried],
    /// The keys that currently have nothing to sign with.
    pub(super) passed_over: &'a [Arc<str>],
}

/// The reasons against a project, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// An attempt of this call has found the project to be of no use.
    tried: bool,
    /// Each of its keys is being tested by another call.
    shared: bool,
}

/// A project that can take a call.
#[derive(Clone, Debug)]
pub(super) struct ProjectCandidate {
    pub(super) project: Arc<ProjectRef>,
    pub(super) rank: Rank,
    /// The time for which it is out of quota.
    pub(super) cooling: Duration,
}

/// Two candidates, drawn at random by weight, among those of the lowest [`Rank`].
#[derive(Debug, Default)]
pub(super) struct Draw {
    pub(super) first: Option<Arc<ProjectRef>>,
    pub(super) second: Option<Arc<ProjectRef>>,
    /// True if the first one's block is due for a look, which the call would make.
    pub(super) looks: bool,
    /// The sum of the weights of the candidates of the lowest rank.
    pub(super) weights: u64,
    /// The number of candidates of any rank.
    pub(super) candidates: usize,
    /// The number of those that have not been tried.
    pub(super) untried: usize,
}

impl PooledKey {
    const TRUSTED: u8 = 0;
    const SUSPECTED: u8 = 1;
    const OUT: u8 = 2;
}

/// A call that waited is not sent with a key that was refused meanwhile: one call at a time tests that key.
impl Choice for PooledKey {
    fn is_good(&self) -> bool {
        self.standing.load(Ordering::Relaxed) == Self::TRUSTED
    }
}

impl Choice for Tested {
    fn is_good(&self) -> bool {
        self.0.standing.load(Ordering::Relaxed) != PooledKey::OUT
    }
}

impl KeyEntry {
    /// Changes the health of a key, and publishes the result to calls that wait with it.
    pub(super) fn change<T>(&mut self, change: impl FnOnce(&mut Health) -> T) -> T {
        let changed = change(&mut self.health);
        let standing = match &self.health {
            Health { disabled: Some(_), .. } => PooledKey::OUT,
            Health { strikes: 0, .. } => PooledKey::TRUSTED,
            Health { .. } => PooledKey::SUSPECTED,
        };
        self.key.standing.store(standing, Ordering::Relaxed);
        changed
    }
}

impl ProjectRef {
    /// Returns whether a success would change the state of the project or of one of its keys.
    pub(super) fn awaits_success(&self) -> bool {
        self.awaits_success.load(Ordering::Relaxed)
    }
}

impl Query<'_> {
    /// Returns whether the call may go to that project.
    pub(super) fn allows(&self, project: &ProjectRef) -> bool {
        self.pinned.is_none_or(|pinned| *project.name == *pinned)
    }

    fn has_tried_key(&self, key: &PooledKey) -> bool {
        self.tried.iter().any(|tried| matches!(tried, Tried::Key(shown) if *shown == key.shown))
    }

    pub(super) fn has_tried_project(&self, project: &ProjectRef) -> bool {
        self.pinned.is_none()
            && self.tried.iter().any(|tried| matches!(tried, Tried::Project(name) if *name == project.name))
    }

    /// Returns the use that the call may make of a key.
    pub(super) fn usable(&self, entry: &KeyEntry) -> Use {
        match entry.health.usable(self.now) {
            Use::Disabled => Use::Disabled,
            _ if self.has_tried_key(&entry.key) => Use::Disabled,
            _ if self.passed_over.iter().any(|key| *key == entry.key.shown) => Use::Busy,
            other => other,
        }
    }
}

impl Project {
    fn new(name: &Arc<str>) -> Self {
        let handle = Arc::new(ProjectRef { name: name.clone(), awaits_success: AtomicBool::new(true) });
        Self { handle, marks: Marks::default(), keys: Vec::new(), turn: 0, recent: RecentCalls::default() }
    }

    /// Returns the best use that a call can make of its keys, and the weight of the usable ones. `None`: none is
    /// usable.
    pub(super) fn best(&self, query: &Query<'_>) -> Option<(Use, u32)> {
        let (mut best, mut weight) = (Use::Busy, 0u32);
        for entry in &self.keys {
            match query.usable(entry) {
                Use::Free | Use::OnTrial => best = Use::Free,
                Use::Shared if best == Use::Busy => best = Use::Shared,
                Use::Shared => {}
                Use::Busy | Use::Disabled => continue,
            }
            weight = weight.saturating_add(entry.key.weight.get());
        }
        (best != Use::Busy).then_some((best, weight))
    }

    /// Publishes whether a success would change anything. To be called after each change of its marks or keys.
    pub(super) fn publish(&self) {
        let settled = self.marks.is_empty() && self.keys.iter().all(|entry| entry.health.is_settled());
        self.handle.awaits_success.store(!settled, Ordering::Relaxed);
    }
}

impl Registry {
    /// Adds a key, and its project if that is new.
    pub(super) fn add(&mut self, key: Key) {
        let at = self.projects.iter().position(|project| project.handle.name == key.project).unwrap_or_else(|| {
            self.projects.push(Project::new(&key.project));
            self.projects.len() - 1
        });
        let project = &mut self.projects[at];
        let Key { signer, fingerprint, weight, name, .. } = key;
        let key = Arc::new(PooledKey {
            signer,
            fingerprint,
            shown: fingerprint.to_string().into(),
            name,
            weight,
            project: project.handle.clone(),
            standing: AtomicU8::new(PooledKey::TRUSTED),
        });
        project.keys.push(KeyEntry { key, health: Health::default(), uses: 0, turn: 0 });
        project.publish();
    }

    /// Removes a key, and with its last key the project. Returns whether the key was there.
    pub(super) fn remove(&mut self, fingerprint: Fingerprint) -> bool {
        let Some(at) = self.projects.iter().position(|project| project.has(fingerprint)) else { return false };
        let project = &mut self.projects[at];
        project.keys.retain(|entry| {
            let stays = entry.key.fingerprint != fingerprint;
            if !stays {
                entry.key.standing.store(PooledKey::OUT, Ordering::Relaxed);
            }
            stays
        });
        if project.keys.is_empty() {
            self.projects.remove(at);
        }
        true
    }

    /// Iterates over all keys.
    pub(super) fn entries(&self) -> impl Iterator<Item = &KeyEntry> {
        self.projects.iter().flat_map(|project| &project.keys)
    }

    /// Finds a project by its name.
    pub(super) fn project_named(&self, name: &str) -> Option<&Project> {
        self.projects.iter().find(|project| *project.handle.name == *name)
    }

    /// Finds the key of that fingerprint: its project, and its index there.
    pub(super) fn find(&mut self, fingerprint: Fingerprint) -> Option<(&mut Project, usize)> {
        self.projects.iter_mut().find_map(|project| {
            let at = project.keys.iter().position(|entry| entry.key.fingerprint == fingerprint)?;
            Some((project, at))
        })
    }

    /// Finds the project that a call holds, if it is still there.
    pub(super) fn project(&mut self, handle: &Arc<ProjectRef>) -> Option<&mut Project> {
        self.projects.iter_mut().find(|project| Arc::ptr_eq(&project.handle, handle))
    }

    /// Finds the key that a call holds, if it is still there.
    pub(super) fn entry(&mut self, key: &Arc<PooledKey>) -> Option<&mut KeyEntry> {
        self.project(&key.project)?.keys.iter_mut().find(|entry| Arc::ptr_eq(&entry.key, key))
    }

    /// Iterates over the projects that have a key for the call, out of quota or not, each with the time for which it
    /// is, and the weight of its usable keys.
    fn candidates<'a>(
        &'a self,
        query: &'a Query<'_>,
        now: Instant,
    ) -> impl Iterator<Item = (&'a Project, Rank, Duration, u32)> {
        self.projects.iter().filter(|project| query.allows(&project.handle)).filter_map(move |project| {
            let (best, weight) = project.best(query)?;
            let rank = Rank { tried: query.has_tried_project(&project.handle), shared: best == Use::Shared };
            let cooling = match rank.tried {
                true => project.marks.left_after_refusal(query.needs, now),
                false => project.marks.left(query.needs, now),
            };
            Some((project, rank, cooling, weight))
        })
    }

    /// Draws two projects that can take the call now, at random by weight.
    pub(super) fn draw(&self, query: &Query<'_>, now: Instant, mut roll: impl FnMut() -> f64) -> Draw {
        let mut draw = Draw::default();
        let mut rank = Rank { tried: true, shared: true };
        let (mut first, mut second) = (f64::INFINITY, f64::INFINITY);
        let alone = self.projects.len() == 1 || query.pinned.is_some();
        for (project, its_rank, _, weight) in self.candidates(query, now).filter(|(_, _, cooling, _)| cooling.is_zero())
        {
            draw.candidates += 1;
            draw.untried += usize::from(!its_rank.tried);
            if its_rank > rank {
                continue;
            }
            if its_rank < rank {
                (rank, first, second) = (its_rank, f64::INFINITY, f64::INFINITY);
                (draw.first, draw.second, draw.weights) = (None, None, 0);
            }
            draw.weights += u64::from(weight);
            // The least of exponential variates, each with the weight as its rate, is each project's in proportion to
            // its weight.
            let arrival = if alone { 0.0 } else { -(1.0 - roll()).ln() / f64::from(weight) };
            if arrival < first {
                (second, draw.second) = (first, draw.first.take());
                (first, draw.first) = (arrival, Some(project.handle.clone()));
            } else if arrival < second {
                (second, draw.second) = (arrival, Some(project.handle.clone()));
            }
        }
        let is_first =
            |project: &&Project| draw.first.as_ref().is_some_and(|first| Arc::ptr_eq(first, &project.handle));
        let passage = self.projects.iter().find(is_first).map(|project| project.marks.passage(query.needs, now));
        draw.looks = passage == Some(Passage::Look);
        draw
    }

    /// Lists the projects that have a key for the call, beginning with number `start` and at most [`MAX_CANDIDATES`].
    pub(super) fn all_candidates(&self, query: &Query<'_>, now: Instant, start: usize) -> Vec<ProjectCandidate> {
        let mut all: Vec<ProjectCandidate> = self
            .candidates(query, now)
            .map(|(project, rank, cooling, _)| ProjectCandidate { project: project.handle.clone(), rank, cooling })
            .collect();
        if !all.is_empty() {
            let start = start % all.len();
            all.rotate_left(start);
        }
        all.truncate(MAX_CANDIDATES);
        all
    }

    /// Takes the next key of a project for the call. Begins a trial if the call is to test it, and looks at the blocks
    /// that are due. `None`: another call has taken the key, or looks.
    pub(super) fn take(
        &mut self,
        project: &Arc<ProjectRef>,
        query: &Query<'_>,
    ) -> Option<(Arc<PooledKey>, Option<TrialId>, ProjectLooks)> {
        let project = self.project(project)?;
        let passage = project.marks.passage(query.needs, query.now);
        if matches!(passage, Passage::Closed(_)) {
            return None;
        }
        let from = project.turn;
        let rank = |usable| match usable {
            Use::Free | Use::OnTrial => Some(0),
            Use::Shared => Some(1),
            Use::Busy | Use::Disabled => None,
        };
        let next = project.keys.iter_mut().filter_map(|entry| Some((rank(query.usable(entry))?, entry)));
        let (_, entry) = next.min_by_key(|(rank, entry)| (*rank, entry.turn.max(from)))?;
        project.turn = entry.turn.max(from);
        entry.turn = project.turn + STRIDE / u64::from(entry.key.weight.get()).min(STRIDE);
        entry.uses += 1;
        project.recent.add(query.now);
        let is_tested = entry.health.usable(query.now) == Use::OnTrial;
        let trial = is_tested.then(|| entry.health.begin_trial(query.now));
        let key = entry.key.clone();
        let looks = match passage {
            Passage::Look => project.marks.begin_looks(query.needs, query.now),
            _ => ProjectLooks::default(),
        };
        self.recent.add(query.now);
        Some((key, trial, looks))
    }
}

impl Project {
    fn has(&self, fingerprint: Fingerprint) -> bool {
        self.keys.iter().any(|entry| entry.key.fingerprint == fingerprint)
    }
}

impl Rank {
    pub(super) fn is_tried(self) -> bool {
        self.tried
    }
}

#[cfg(test)]
mod tests;
