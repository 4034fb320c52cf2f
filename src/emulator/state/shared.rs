//! The state that all clones of an emulator share.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use super::{
    journal::Journal,
    quota::{QuotaMeter, QuotaRefusal},
    settings::Settings,
    storage::Storage,
};
use crate::{
    bounded::make_room,
    emulator::script::rules::Script,
    quota::{Limits, Scope, until_pacific_midnight},
};

/// The shared state of an emulator.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) state: Mutex<State>,
    started: Instant,
    started_wall: SystemTime,
    /// The number of changes of the journal.
    changes: watch::Sender<u64>,
}

/// The part of the state that requests change.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) rng: fastrand::Rng,
    pub(crate) script: Script,
    pub(crate) storage: Storage,
    pub(crate) journal: Journal,
    meters: HashMap<Scope, QuotaMeter>,
}

/// The largest number of scopes that are counted. Above it, the scope that has been idle for longest is dropped.
const SCOPES: usize = 4_096;

// === impl Shared ===

impl Shared {
    pub(crate) fn new(settings: Settings, script: Script, started_wall: SystemTime) -> Self {
        let state = State {
            rng: fastrand::Rng::with_seed(settings.seed),
            script,
            storage: Storage::new(settings.seed),
            journal: Journal::new(settings.journal_capacity),
            meters: HashMap::new(),
        };
        Self {
            settings,
            state: Mutex::new(state),
            started: Instant::now(),
            started_wall,
            changes: watch::Sender::new(0),
        }
    }

    // --- time ---

    /// Returns the time since the emulator's start, on tokio's clock.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns the wall time: that of the start, plus the time that tokio's clock has counted since.
    pub(crate) fn wall(&self, elapsed: Duration) -> SystemTime {
        self.started_wall.checked_add(elapsed).unwrap_or(self.started_wall)
    }

    /// Returns the wall time in seconds since 1970.
    pub(crate) fn unix_seconds(&self) -> u64 {
        let since = self.wall(self.elapsed()).duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs())
    }

    // --- changes of the journal ---

    /// Wakes the tasks that wait for a change of the journal.
    pub(crate) fn notify(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    // --- quota ---

    /// Spends requests and their tokens from a scope's quota.
    pub(crate) fn spend(&self, scope: Scope, limits: &Limits, requests: u64, tokens: u64) -> Result<(), QuotaRefusal> {
        let now = self.elapsed();
        let next_midnight = || now + until_pacific_midnight(self.wall(now));
        let mut state = self.state.lock();
        let meter = state.meter(scope, now, || QuotaMeter::new(self.settings.window));
        meter.take(limits, now, requests, tokens, next_midnight)
    }
}

// === impl State ===

impl State {
    /// Returns the scope's meter, and makes room for a new one.
    fn meter(&mut self, scope: Scope, now: Duration, new: impl FnOnce() -> QuotaMeter) -> &mut QuotaMeter {
        if !self.meters.contains_key(&scope) {
            make_room(&mut self.meters, SCOPES, |meter| !meter.is_idle(now), QuotaMeter::last_spent);
        }
        self.meters.entry(scope).or_insert_with(new)
    }
}
