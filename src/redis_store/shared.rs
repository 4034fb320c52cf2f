//! The state of a store that its handles, its calls and its task share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::Notify, time::Instant};

use super::{
    builder::StoreSettings,
    health::{DecideBy, Health, HealthChange},
    link::{Link, is_broken},
    registry::SeenInstances,
    report::{AwayReason, Overshoot, StoreCounts},
    scope::{DecideContext, LEARN, ScopeState},
    script::DayEnd,
    server_clock::ServerClock,
};
use crate::{
    bounded::{ByScope, Scoped},
    clock::TimeAnchor,
    quota::{PacificCalendar, Scope},
};

/// The most projects and models that are counted apart. The others, and those with names of more than 512 bytes, share one
/// count, so that names that callers invent neither grow the memory nor get around a limit.
const MAX_SCOPES: usize = 16_384;

/// The time after a step of the server's clock for which new contents only learn.
const LEAP: Duration = Duration::from_secs(2);

/// The seconds of an hour, in which midnight Pacific always falls.
const HOUR: u64 = 3_600;

/// The state of a store.
pub(super) struct StoreShared {
    pub(super) settings: StoreSettings,
    pub(super) begun: Instant,
    pub(super) runtime: Handle,
    pub(super) server: Mutex<ServerSide>,
    pub(super) scopes: Mutex<ByScope<ScopeEntry>>,
    overflow: Arc<ScopeEntry>,
    pub(super) tally: StoreTally,
    /// Told of each order that does not wait for others.
    pub(super) urgent: Notify,
    day: Mutex<Option<(Instant, DayEnd)>>,
}

/// All that is known of the server.
pub(super) struct ServerSide {
    pub(super) health: Health,
    pub(super) link: Option<Link>,
    pub(super) clock: ServerClock,
    pub(super) instances: SeenInstances,
    /// The time until which contents that are made may lack what others have charged.
    pub(super) learn_until: Option<Instant>,
    pub(super) name: Option<Box<str>>,
    pub(super) eviction: Option<Box<str>>,
}

/// A project and model.
#[derive(Debug)]
pub(super) struct ScopeEntry {
    project: Box<str>,
    model: Box<str>,
    /// The name of the key.
    pub(super) key: Box<str>,
    pub(super) state: Mutex<ScopeState>,
}

#[cfg(test)]
impl ScopeEntry {
    pub(super) fn for_test(state: Mutex<ScopeState>) -> Self {
        Self { project: "p".into(), model: "m".into(), key: "k".into(), state }
    }
}

impl Scoped for ScopeEntry {
    fn names(&self) -> (&str, &str) {
        (&self.model, &self.project)
    }

    fn is_forgettable(&self, now: Instant) -> bool {
        self.state.lock().is_forgettable(now)
    }
}

/// The counts since the store was made.
#[derive(Debug, Default)]
pub(super) struct StoreTally {
    pub(super) takes: AtomicU64,
    pub(super) granted: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) shared: AtomicU64,
    pub(super) leased: AtomicU64,
    pub(super) leases: AtomicU64,
    pub(super) late: AtomicU64,
    pub(super) timed_out: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) corrections_dropped: AtomicU64,
    pub(super) retold: AtomicU64,
    overshoot: [AtomicU64; 7],
}

impl StoreTally {
    /// Notes a refusal by the upstream, after a grant at which that part of the fullest limit was used, in percent.
    pub(super) fn overshoot(&self, fullness: Option<u64>) {
        let bands = Overshoot::BANDS.into_iter();
        let band = fullness.map_or(Overshoot::BANDS.len(), |fullness| bands.take_while(|end| fullness > *end).count());
        add(&self.overshoot[band]);
    }

    pub(super) fn counts(&self, outages: u64) -> StoreCounts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        StoreCounts {
            takes: of(&self.takes),
            granted: of(&self.granted),
            refused: of(&self.refused),
            shared: of(&self.shared),
            leased: of(&self.leased),
            leases: of(&self.leases),
            late: of(&self.late),
            timed_out: of(&self.timed_out),
            failed: of(&self.failed),
            corrections_dropped: of(&self.corrections_dropped),
            retold: of(&self.retold),
            outages,
        }
    }

    pub(super) fn overshoots(&self) -> Overshoot {
        Overshoot { counts: std::array::from_fn(|band| self.overshoot[band].load(Ordering::Relaxed)) }
    }
}

/// Adds one.
pub(super) fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

impl StoreShared {
    pub(super) fn new(settings: StoreSettings, runtime: Handle) -> Self {
        let begun = Instant::now();
        let overflow = Arc::new(ScopeEntry {
            project: "".into(),
            model: "".into(),
            key: format!("{}:overflow", settings.prefix).into(),
            state: Mutex::new(ScopeState::new(begun)),
        });
        let server = ServerSide {
            health: Health::new(begun),
            link: None,
            clock: ServerClock::default(),
            instances: SeenInstances::new(settings.instances_unless_seen),
            learn_until: None,
            name: None,
            eviction: None,
        };
        Self {
            settings,
            begun,
            runtime,
            server: Mutex::new(server),
            scopes: Mutex::new(ByScope::new(MAX_SCOPES, overflow.clone())),
            overflow,
            tally: StoreTally::default(),
            urgent: Notify::new(),
            day: Mutex::new(None),
        }
    }

    /// Returns the state of a scope, made new where there is none.
    pub(super) fn entry(&self, scope: &Scope, now: Instant) -> Arc<ScopeEntry> {
        let (project, model) = (scope.project(), scope.model());
        let make = |_: Option<&ScopeEntry>| ScopeEntry {
            project: project.into(),
            model: model.into(),
            key: quota_key(&self.settings.prefix, project, model),
            state: Mutex::new(ScopeState::new(self.begun)),
        };
        self.scopes.lock().find_or_insert((model, project), false, now, make)
    }

    /// Returns the state of a scope that was asked for before.
    pub(super) fn known_entry(&self, scope: &Scope) -> Option<Arc<ScopeEntry>> {
        self.scopes.lock().find(scope.model(), scope.project()).cloned()
    }

    /// Returns all scopes, and the one of all that have no count of their own.
    pub(super) fn entries(&self) -> Vec<Arc<ScopeEntry>> {
        let mut entries: Vec<_> = self.scopes.lock().iter().cloned().collect();
        entries.push(self.overflow.clone());
        entries
    }

    /// Returns all that a decision depends on besides the scope, and the connection.
    pub(super) fn context(&self, now: Instant) -> (DecideContext, Option<Link>) {
        let day = self.day(now);
        let server = self.server.lock();
        let by = server.health.decide_by(now);
        let learn = server.learn_until.is_some_and(|until| until > now);
        let cx = DecideContext {
            now,
            by,
            instances: server.instances.count(),
            day,
            leases: self.settings.leases,
            learn: if learn { LEARN } else { Duration::ZERO },
            timeout: self.settings.call_timeout,
            clock: server.clock,
        };
        (cx, server.link.clone().filter(|_| !matches!(by, DecideBy::Share(_))))
    }

    /// Returns the connection, where the server counts.
    pub(super) fn connected(&self) -> Option<Link> {
        let server = self.server.lock();
        server.link.clone().filter(|_| server.health.is_connected())
    }

    /// Returns the end of the day, and the time until then.
    pub(super) fn day(&self, now: Instant) -> (DayEnd, Duration) {
        let mut day = self.day.lock();
        let (end, name) = match *day {
            Some(known) if known.0 > now => known,
            _ => {
                // The wall time is read anew each day: the two clocks drift.
                let end = PacificCalendar::read().day_end(now);
                let seconds = TimeAnchor::read().seconds_at(end);
                // All instances must name it the same, and their clocks differ.
                let name = DayEnd((seconds + HOUR / 2) / HOUR * HOUR);
                *day.insert((end, name))
            }
        };
        (name, end - now)
    }

    /// Learns the server's time from an answer. The nodes of a Cluster have no time in common.
    pub(super) fn learn(&self, server_ms: u64, sent: Instant, received: Instant, link: &Link) {
        if link.is_cluster() {
            return;
        }
        let has_leapt = {
            let mut server = self.server.lock();
            let has_leapt = server.clock.has_leapt(server_ms, received);
            server.clock.learn(server_ms, sent, received);
            if has_leapt {
                server.learn_until = Some(received + LEAP);
            }
            has_leapt
        };
        if has_leapt {
            // Charges are over on the server that still count.
            self.entries().iter().for_each(|entry| entry.state.lock().is_reset = true);
            self.failed(received, AwayReason::Clock);
        }
    }

    /// Notes that the server has failed.
    pub(super) fn failed(&self, now: Instant, reason: AwayReason) {
        let change = {
            let mut server = self.server.lock();
            if is_broken(reason) {
                server.link = None;
            }
            server.health.failed(now, reason)
        };
        self.log(change);
    }

    /// Tells the log of a change, in one line.
    pub(super) fn log(&self, change: Option<HealthChange>) {
        let address = &self.settings.address;
        let instances = self.server.lock().instances.count();
        match change {
            Some(HealthChange::Lost(reason)) => tracing::warn!(
                %address,
                reason = reason.as_str(),
                instances,
                "the shared quota's server is away: this instance takes no more than its share"
            ),
            Some(HealthChange::Back(after)) => tracing::info!(
                %address,
                away_seconds = after.as_secs_f64(),
                "the shared quota's server counts for all instances"
            ),
            None => {}
        }
    }
}

/// Returns the name of a scope's key. A project that has a `/` or a `%` cannot be taken for another one with a longer model.
fn quota_key(prefix: &str, project: &str, model: &str) -> Box<str> {
    let project = project.replace('%', "%25").replace('/', "%2F");
    format!("{prefix}:quota:{project}/{model}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_scopes_never_have_one_key() {
        let key = |project, model| quota_key("p", project, model);
        assert_eq!(&*key("a", "models/b"), "p:quota:a/models/b");
        assert_ne!(key("a/models", "b"), key("a", "models/b"));
        assert_ne!(key("a%2Fb", "c"), key("a/b", "c"));
    }

    #[test]
    fn an_overshoot_is_counted_by_how_full_the_limit_was() {
        let tally = StoreTally::default();
        for fullness in [0, 50, 51, 80, 99, 100, 101, 900] {
            tally.overshoot(Some(fullness));
        }
        tally.overshoot(None);
        assert_eq!(tally.overshoots().counts, [2, 2, 0, 0, 1, 1, 3]);
    }
}
