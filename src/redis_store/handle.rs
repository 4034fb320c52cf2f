//! The handle of a store.

use std::{fmt, sync::Arc};

use tokio::{runtime::Handle, sync::mpsc, time::Instant};

use super::{
    ask::Asking,
    builder::{RedisStoreBuilder, StoreSettings},
    driver::{self, Order},
    error::RedisStoreError,
    report::{StoreOutage, StoreReport, StoreState},
    scope::{Decided, DecidedBy, Decision},
    script::Correct,
    shared::{ScopeEntry, StoreShared, add},
};
use crate::quota::{Answer, Closing, Correction, Question, QuotaStore, Reply, Scope, StoreCharge};

/// The corrections and closings that may wait for the server.
const ORDERS: usize = 8_192;

/// A store on Redis or Valkey: all instances that use one server and one prefix share each quota.
///
/// A cheap handle: all clones are the same store. See the [module](super).
#[derive(Clone)]
pub struct RedisStore {
    handle: Arc<StoreHandle>,
}

/// The state of a store, and the way to its task, which ends when the last of these is dropped.
pub(super) struct StoreHandle {
    pub(super) shared: Arc<StoreShared>,
    orders: mpsc::Sender<Order>,
}

impl RedisStore {
    /// Begins the settings of a store on the server at that address.
    ///
    /// | address | server |
    /// |---|---|
    /// | `redis://[user:password@]host[:port][/database]` | one server; `valkey://` is the same |
    /// | `rediss://…` | the same over TLS, with the roots of Mozilla |
    /// | `unix:///path/of/the.sock` | the same over a socket of this machine |
    /// | `redis+sentinel://[user:password@]host[:port],host[:port]/master[/database]` | the master that one of these Sentinels names; the login is the master's |
    /// | `redis+cluster://[user:password@]host[:port],host[:port]` | a Cluster that has these nodes |
    ///
    /// `rediss+sentinel://` and `rediss+cluster://` use TLS for all connections. A program that has not chosen rustls' provider of
    /// cryptography has ring from then on. A `%` and two digits stand for any byte of a
    /// name or a password.
    pub fn builder(url: impl AsRef<str>) -> Result<RedisStoreBuilder, RedisStoreError> {
        RedisStoreBuilder::new(url.as_ref())
    }

    pub(super) fn start(settings: StoreSettings) -> Self {
        let runtime = Handle::current();
        let (orders, waiting) = mpsc::channel(ORDERS);
        let shared = Arc::new(StoreShared::new(settings, runtime.clone()));
        runtime.spawn(driver::run(shared.clone(), waiting));
        Self { handle: Arc::new(StoreHandle { shared, orders }) }
    }

    /// Returns the current state.
    #[must_use]
    pub fn report(&self) -> StoreReport {
        let now = Instant::now();
        let shared = &self.handle.shared;
        let scopes = shared.scopes.lock().len();
        let server = shared.server.lock();
        let instances = server.instances.count();
        StoreReport {
            state: match server.health.away() {
                Some((since, reason)) => StoreState::Away { since: now.saturating_duration_since(since), reason },
                None => StoreState::Connected,
            },
            last_outage: server.health.last_outage().map(|(since, until, reason)| StoreOutage {
                reason,
                lasted: until.saturating_duration_since(since),
                ended: now.saturating_duration_since(until),
            }),
            instance: (*shared.settings.instance).into(),
            address: shared.settings.address.to_string().into(),
            server: server.name.clone(),
            instances,
            share: 0.8 / f64::from(instances),
            scopes,
            counts: shared.tally.counts(server.health.outages()),
            eviction: server.eviction.clone(),
            overshoot: shared.tally.overshoots(),
        }
    }
}

impl StoreHandle {
    /// Counts an answer.
    pub(super) fn count(&self, decided: Decided) {
        let tally = &self.shared.tally;
        add(if matches!(decided.answer, Answer::Granted(_)) { &tally.granted } else { &tally.refused });
        match decided.by {
            DecidedBy::Lease => add(&tally.leased),
            DecidedBy::Share => add(&tally.shared),
            DecidedBy::Memory | DecidedBy::Server => {}
        }
    }

    /// Corrects a charge here, and on the server later.
    pub(super) fn correct_entry(&self, entry: &Arc<ScopeEntry>, charge: StoreCharge, by: Correction) {
        let correct = entry.state.lock().correct(Instant::now(), charge, by);
        self.correct_later(entry, correct);
    }

    pub(super) fn correct_later(&self, entry: &Arc<ScopeEntry>, correct: Option<Correct>) {
        if let Some(correct) = correct {
            self.order(Order::Correct(entry.clone(), correct));
        }
    }

    fn order(&self, order: Order) {
        let is_urgent = !matches!(order, Order::Correct(..));
        if self.orders.try_send(order).is_err() {
            add(&self.shared.tally.corrections_dropped);
        } else if is_urgent {
            self.shared.urgent.notify_one();
        }
    }
}

impl QuotaStore for RedisStore {
    fn take(&self, scope: &Scope, question: Question) -> Reply {
        let StoreHandle { shared, .. } = &*self.handle;
        let now = Instant::now();
        add(&shared.tally.takes);
        let entry = shared.entry(scope, now);
        let (cx, link) = shared.context(now);
        let (decision, rest) = entry.state.lock().decide(&question, &cx);
        self.handle.correct_later(&entry, rest);
        match (decision, link) {
            (Decision::Done(decided), _) => {
                self.handle.count(decided);
                Reply::Now(decided.answer)
            }
            (Decision::Ask { take, hold }, Some(link)) => {
                Reply::Later(Box::pin(Asking::new(self.handle.clone(), entry, question, (take, hold), link)))
            }
            // There is none to ask only where the share decides.
            (Decision::Ask { take, .. }, None) => {
                if take.wish_requests > 0 {
                    entry.state.lock().asked_wish();
                }
                Reply::Now(self.handle.by_share(&entry, &question))
            }
        }
    }

    fn correct(&self, scope: &Scope, charge: StoreCharge, by: Correction) {
        if let Some(entry) = self.handle.shared.known_entry(scope) {
            self.handle.correct_entry(&entry, charge, by);
        }
    }

    fn close(&self, scope: &Scope, closing: Closing) {
        let now = Instant::now();
        let entry = self.handle.shared.entry(scope, now);
        let (granted, rest) = entry.state.lock().close(now, closing);
        if let Some(fullness) = granted {
            self.handle.shared.tally.overshoot(fullness);
        }
        self.handle.correct_later(&entry, rest);
        self.handle.order(Order::close(entry, now, closing));
    }

    fn open(&self, scope: &Scope) {
        let entry = self.handle.shared.entry(scope, Instant::now());
        entry.state.lock().open();
        self.handle.order(Order::Open(entry));
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.handle.shared.settings;
        f.debug_struct("RedisStore").field("address", &settings.address).field("instance", &settings.instance).finish()
    }
}
