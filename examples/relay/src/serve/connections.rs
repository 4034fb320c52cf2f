//! The connections of a listener: their number, its caps, and the wish that all of them end.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::StatusCode;
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, SemaphorePermit, watch},
    time::Instant,
};
use tower_gemini::observe::{Observe, Reading, Value};

use crate::serve::peer::network;

/// The time between two lines of the log about the same.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// The refused connections that are open for a moment, so that their callers can read the refusal.
const MOST_REFUSALS: usize = 64;

/// The most connections that a listener serves at once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Caps {
    pub(crate) all: Option<usize>,
    pub(crate) per_address: Option<usize>,
}

/// The connections of a listener. Clones share them.
#[derive(Clone)]
pub(crate) struct Connections(Arc<Shared>);

struct Shared {
    open: Mutex<Open>,
    /// Becomes true when all are to end.
    ends: watch::Sender<bool>,
    /// The number of open ones, for who waits until there is none.
    number: watch::Sender<usize>,
    tally: Arc<Tally>,
    refusals: Semaphore,
}

#[derive(Default)]
struct Open {
    all: usize,
    /// Addresses without a connection are not in it.
    by_address: HashMap<IpAddr, usize>,
}

/// Counts of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConnectionsSnapshot {
    /// Those that are open.
    pub(crate) open: usize,
    /// Those of them that have a call under way, or an answer to be written.
    pub(crate) busy: usize,
    /// Those that were refused since the start, because of a cap.
    pub(crate) refused: u64,
    /// Those that were closed since the start, because their callers did not read.
    pub(crate) unread: u64,
    /// Those that were closed since the start, because they had no call.
    pub(crate) idle: u64,
}

impl Connections {
    /// Begins without connections.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            open: Mutex::default(),
            ends: watch::Sender::new(false),
            number: watch::Sender::new(0),
            tally: Arc::default(),
            refusals: Semaphore::new(MOST_REFUSALS),
        }))
    }

    /// Counts a connection, or refuses it.
    pub(crate) fn enter(&self, address: IpAddr, caps: Caps) -> Result<ConnectionPlace, Full> {
        let address = network(address);
        let mut open = self.0.open.lock();
        let of_address = open.by_address.get(&address).copied().unwrap_or(0);
        let full = match caps {
            Caps { all: Some(cap), .. } if open.all >= cap => Some(Full::All(cap)),
            Caps { per_address: Some(cap), .. } if of_address >= cap => Some(Full::OfAddress(cap)),
            _ => None,
        };
        if let Some(full) = full {
            drop(open);
            self.0.tally.refused(full);
            return Err(full);
        }
        open.all += 1;
        open.by_address.insert(address, of_address + 1);
        self.0.number.send_replace(open.all);
        Ok(ConnectionPlace { connections: self.clone(), address })
    }

    /// Asks all connections to end: those with calls when these have ended, the others at once.
    pub(crate) fn end(&self) {
        self.0.ends.send_replace(true);
    }

    /// Waits until no connection is open.
    pub(crate) async fn ended(&self) {
        // The sender is borrowed, and so not gone.
        let _ = self.0.number.subscribe().wait_for(|open| *open == 0).await;
    }

    /// Returns the counts of this moment.
    pub(crate) fn snapshot(&self) -> ConnectionsSnapshot {
        let Tally { busy, refused, unread, idle, .. } = &*self.0.tally;
        ConnectionsSnapshot {
            open: self.0.open.lock().all,
            busy: busy.load(Relaxed),
            refused: refused.load(Relaxed),
            unread: unread.load(Relaxed),
            idle: idle.load(Relaxed),
        }
    }

    /// Takes a place for a refusal that its caller can read, if there is one.
    pub(crate) fn refusal(&self) -> Option<SemaphorePermit<'_>> {
        self.0.refusals.try_acquire().ok()
    }
}

const OPEN: &str = "relay.connections.open";
const BUSY: &str = "relay.connections.busy";
const REFUSED: &str = "relay.connections.refused";
const CLOSED: &str = "relay.connections.closed";

impl Connections {
    /// Describes the metrics of connections, once there is an exporter.
    pub(crate) fn describe_metrics() {
        metrics::describe_gauge!(OPEN, "Connections of callers that are open.");
        metrics::describe_gauge!(BUSY, "Open connections that have a call under way, or an answer to be written.");
        metrics::describe_counter!(REFUSED, "Connections that a cap has refused.");
        metrics::describe_counter!(
            CLOSED,
            "Connections that were closed: of callers that did not read, or did not call."
        );
    }
}

impl Observe for Connections {
    fn observe(&self, say: &mut dyn FnMut(Reading<'_>)) {
        let ConnectionsSnapshot { open, busy, refused, unread, idle } = self.snapshot();
        let mut reading =
            |name, value, labels: &[(&'static str, &str)]| say(Reading { name, value, model: "", labels });
        reading(OPEN, Value::Gauge(open as f64), &[]);
        reading(BUSY, Value::Gauge(busy as f64), &[]);
        reading(REFUSED, Value::Counter(refused), &[]);
        reading(CLOSED, Value::Counter(unread), &[("reason", "unread")]);
        reading(CLOSED, Value::Counter(idle), &[("reason", "idle")]);
    }
}

/// The place of an open connection.
pub(crate) struct ConnectionPlace {
    connections: Connections,
    address: IpAddr,
}

impl ConnectionPlace {
    /// Returns the counts to which the connection adds.
    pub(crate) fn tally(&self) -> Arc<Tally> {
        self.connections.0.tally.clone()
    }

    /// Returns a watch that becomes true when all connections are to end.
    pub(crate) fn ends(&self) -> watch::Receiver<bool> {
        self.connections.0.ends.subscribe()
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let shared = &self.connections.0;
        let mut open = shared.open.lock();
        open.all -= 1;
        if let Some(of_address) = open.by_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                open.by_address.remove(&self.address);
            }
        }
        shared.number.send_replace(open.all);
    }
}

/// The cap that refuses a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    All(usize),
    OfAddress(usize),
}

impl Full {
    /// Returns the status for the caller, and Google's word for it.
    pub(crate) fn status(self) -> (StatusCode, &'static str) {
        match self {
            Self::All(_) => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
            Self::OfAddress(_) => (StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED"),
        }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(cap) => write!(f, "{cap} connections are open, and max_connections allows no more"),
            Self::OfAddress(cap) => {
                write!(f, "{cap} connections of one address are open, and max_connections_per_address allows no more")
            }
        }
    }
}

/// Counts that connections add to.
#[derive(Default)]
pub(crate) struct Tally {
    busy: AtomicUsize,
    refused: AtomicU64,
    unread: AtomicU64,
    idle: AtomicU64,
    refused_lines: Mutex<Lines>,
    unread_lines: Mutex<Lines>,
}

impl Tally {
    pub(crate) fn became_busy(&self) {
        self.busy.fetch_add(1, Relaxed);
    }

    pub(crate) fn became_free(&self) {
        self.busy.fetch_sub(1, Relaxed);
    }

    pub(crate) fn closed_idle(&self) {
        self.idle.fetch_add(1, Relaxed);
    }

    pub(crate) fn closed_unread(&self, limit: Duration) {
        self.unread.fetch_add(1, Relaxed);
        if let Some(number) = self.unread_lines.lock().next(Instant::now()) {
            tracing::warn!(number, "connections were closed: their callers read nothing of an answer for {limit:?}");
        }
    }

    fn refused(&self, full: Full) {
        self.refused.fetch_add(1, Relaxed);
        if let Some(number) = self.refused_lines.lock().next(Instant::now()) {
            tracing::warn!(number, "connections were refused: {full}");
        }
    }
}

/// Lines of the log about what may happen thousands of times a second.
#[derive(Default)]
struct Lines {
    last: Option<Instant>,
    unsaid: u64,
}

impl Lines {
    /// Counts one more. Returns how many there are to report, if it is time for a line.
    fn next(&mut self, now: Instant) -> Option<u64> {
        self.unsaid += 1;
        if self.last.is_some_and(|last| now < last + BETWEEN_LINES) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_a_cap_a_connection_is_refused_until_another_has_ended() {
        let connections = Connections::new();
        let caps = Caps { all: Some(2), per_address: Some(1) };
        let [a, b, c] = [1, 2, 3].map(|last| IpAddr::from([192, 0, 2, last]));
        let first = connections.enter(a, caps).ok().unwrap();
        assert_eq!(connections.enter(a, caps).err(), Some(Full::OfAddress(1)));
        let _second = connections.enter(b, caps).ok().unwrap();
        assert_eq!(connections.enter(c, caps).err(), Some(Full::All(2)));
        drop(first);
        assert!(connections.enter(a, caps).is_ok());
        let expected = ConnectionsSnapshot { open: 1, refused: 2, ..Default::default() };
        assert_eq!(connections.snapshot(), expected);
    }

    #[test]
    fn the_addresses_of_one_network_of_ipv6_are_one() {
        let connections = Connections::new();
        let caps = Caps { all: None, per_address: Some(1) };
        let [a, b, c] = ["2001:db8::1", "2001:db8::2:0:0:1", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
        let _a = connections.enter(a, caps).ok().unwrap();
        assert!(connections.enter(b, caps).is_err());
        assert!(connections.enter(c, caps).is_ok());
    }

    #[test]
    fn a_flood_is_a_line_every_ten_seconds() {
        let (mut lines, start) = (Lines::default(), Instant::now());
        assert_eq!(lines.next(start), Some(1));
        assert_eq!((0..99).find_map(|_| lines.next(start)), None);
        assert_eq!(lines.next(start + BETWEEN_LINES), Some(100));
    }
}
