//! A Gemini that misbehaves on request.
use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use self::{
    builder::Settings,
    credentials::Fingerprint,
    journal::Journal,
    quota::{Meter, Refusal},
    script::Script,
};
use crate::quota::{Limits, Scope, until_pacific_midnight};

mod answer;
mod asked;
mod body;
mod builder;
mod credentials;
mod errors;
mod journal;
mod judge;
mod model;
mod openai;
mod plan;
mod quota;
mod script;
mod server;
mod service;
mod trouble;
mod when;

pub use self::{
    answer::Reply,
    body::EmulatorBody,
    builder::EmulatorBuilder,
    journal::{End, Visit},
    model::Model,
    quota::Window,
    server::Server,
    service::ResponseFuture,
    trouble::Trouble,
    when::{Capacity, When},
};

/// An emulated Gemini: a service, and the handle to it. Cheap to clone; clones are the same emulator.
///
/// See the [module's documentation](self).
#[derive(Clone)]
pub struct Emulator {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    started: Instant,
    started_wall: SystemTime,
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    rng: fastrand::Rng,
    script: Script,
    meters: HashMap<Scope, Meter>,
    journal: Journal,
}

/// Scopes that are counted at once; above it, the one that is idle for longest is forgotten.
const SCOPES: usize = 4_096;

// === impl Emulator ===

impl Emulator {
    /// An emulator on which nothing goes wrong: every key is good, nothing is limited, and everything is at once.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// An emulator that is told what goes wrong.
    pub fn builder() -> EmulatorBuilder {
        EmulatorBuilder::default()
    }

    // --- the script, at run time ---

    /// Adds a trouble behind those that there are. Its trigger counts from now; its times count from the emulator's start
    /// ([`elapsed`](Self::elapsed)).
    pub fn trouble(&self, when: When, trouble: Trouble) {
        self.shared.state.lock().script.push(when, trouble);
    }

    /// Adds a list of troubles, consumed one a request in order.
    pub fn script(&self, when: When, troubles: impl IntoIterator<Item = Trouble>) {
        let troubles: Vec<Trouble> = troubles.into_iter().collect();
        self.shared.state.lock().script.push_list(when, troubles);
    }

    /// Forgets all troubles. Requests that were struck stay struck.
    pub fn clear_troubles(&self) {
        self.shared.state.lock().script.clear();
    }

    // --- the journal ---

    /// Everything that was asked, oldest first, as far back as the journal reaches.
    pub fn journal(&self) -> Vec<Visit> {
        self.shared.state.lock().journal.visits().cloned().collect()
    }

    /// How many of the journal's visits are so.
    ///
    /// ```
    /// # let emulator = tower_gemini::emulator::Emulator::new();
    /// let refused = emulator.count(|visit| visit.status == Some(http::StatusCode::SERVICE_UNAVAILABLE));
    /// # assert_eq!(refused, 0);
    /// ```
    pub fn count(&self, is_so: impl FnMut(&Visit) -> bool) -> usize {
        self.journal().iter().map(is_so).filter(|is_so| *is_so).count()
    }

    /// Requests that have arrived and not ended.
    pub fn in_flight(&self) -> usize {
        self.shared.state.lock().journal.in_flight()
    }

    /// Resolves at the next entry in the journal, or change of one, after this call.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut changes = self.shared.changes.subscribe();
        async move {
            // An error means that the emulator is gone: nothing will change any more.
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Resolves once the journal is so: looked at now, and after each change.
    ///
    /// ```
    /// # use tower_gemini::emulator::Emulator;
    /// # async fn example(emulator: Emulator) {
    /// emulator.wait_for(|journal| journal.iter().all(|visit| !visit.is_in_flight())).await;
    /// # }
    /// ```
    pub async fn wait_for(&self, mut is_so: impl FnMut(&[Visit]) -> bool) {
        loop {
            let changed = self.changed();
            if is_so(&self.journal()) {
                return;
            }
            changed.await;
        }
    }

    /// The time since the emulator's start, on tokio's clock.
    pub fn elapsed(&self) -> Duration {
        self.shared.elapsed()
    }

    /// What the journal writes for a key.
    pub fn fingerprint(key: &str) -> String {
        Fingerprint::of(key).to_string()
    }
}

impl Default for Emulator {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator")
            .field("elapsed", &self.elapsed())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    fn new(settings: Settings, script: Script, started_wall: SystemTime) -> Self {
        let state = State {
            rng: fastrand::Rng::with_seed(settings.seed),
            script,
            meters: HashMap::new(),
            journal: Journal::new(settings.journal_capacity),
        };
        Self {
            settings,
            started: Instant::now(),
            started_wall,
            state: Mutex::new(state),
            changes: watch::Sender::new(0),
        }
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The wall time at the start, and what tokio's clock has counted since.
    fn wall(&self, elapsed: Duration) -> SystemTime {
        self.started_wall.checked_add(elapsed).unwrap_or(self.started_wall)
    }

    fn unix_seconds(&self) -> u64 {
        let since = self.wall(self.elapsed()).duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs())
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    fn take(&self, scope: Scope, limits: &Limits, tokens: u64) -> Result<(), Refusal> {
        let now = self.elapsed();
        let next_midnight = || now + until_pacific_midnight(self.wall(now));
        let meters = &mut self.state.lock().meters;
        if meters.len() >= SCOPES && !meters.contains_key(&scope) {
            meters.retain(|_, meter| !meter.is_idle(now));
            let oldest = meters.iter().min_by_key(|(_, meter)| meter.last_spent()).map(|(scope, _)| scope.clone());
            if let Some(oldest) = oldest.filter(|_| meters.len() >= SCOPES) {
                meters.remove(&oldest);
            }
        }
        let meter = meters.entry(scope).or_insert_with(|| Meter::new(self.settings.window));
        meter.take(limits, now, tokens, next_midnight)
    }
}
