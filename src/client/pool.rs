//! The connections of one client, and the choice among them.

use std::{
    iter,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hyper_util::client::legacy;

use super::{InFlight, connector::Connector};

/// The connections to one upstream.
pub(super) struct ConnectionPool<B> {
    /// The number of calls in flight on one connection at which the next one is used.
    streams: usize,
    first: Connection<B>,
    more: Box<[Connection<B>]>,
}

/// One of hyper-util's clients, which has one HTTP/2 connection, and the number of calls in flight on it.
pub(super) struct Connection<B> {
    client: legacy::Client<Connector, B>,
    in_flight: Arc<AtomicUsize>,
}

impl<B> ConnectionPool<B> {
    /// Makes a pool of `connections`, at least one.
    pub(super) fn new(connections: usize, streams: usize, client: impl Fn() -> legacy::Client<Connector, B>) -> Self {
        let connection = || Connection { client: client(), in_flight: Arc::default() };
        let more = iter::repeat_with(connection).take(connections.saturating_sub(1)).collect();
        Self { streams, first: connection(), more }
    }

    /// Returns the number of calls in flight on all connections.
    pub(super) fn in_flight(&self) -> usize {
        self.connections().map(Connection::load).sum()
    }

    fn connections(&self) -> impl Iterator<Item = &Connection<B>> {
        iter::once(&self.first).chain(&self.more)
    }

    /// Chooses the first connection with room, so that few calls need only one; where all are full, the least loaded
    /// one.
    pub(super) fn choose(&self) -> (&Connection<B>, InFlight) {
        let with_room =
            self.connections().find_map(|connection| Some((connection, connection.try_take(self.streams)?)));
        with_room.unwrap_or_else(|| {
            let least = self.connections().min_by_key(|connection| connection.load()).unwrap_or(&self.first);
            (least, InFlight::new(&least.in_flight))
        })
    }
}

impl<B> Connection<B> {
    pub(super) fn client(&self) -> &legacy::Client<Connector, B> {
        &self.client
    }

    fn try_take(&self, streams: usize) -> Option<InFlight> {
        InFlight::below(streams, &self.in_flight)
    }

    fn load(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}
