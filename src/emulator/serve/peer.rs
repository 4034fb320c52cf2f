//! The connection that a request came by, and the way to reset it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use http::Version;

/// The connection of a request.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// The connection's number, counted from 0.
    pub(super) connection: u64,
    /// The mark of a connection that is to end with a reset, set before the error that ends it.
    pub(super) abort: Arc<AtomicBool>,
}

// === impl Peer ===

impl Peer {
    /// Makes the connection end with a reset. On HTTP/2, only the stream is reset.
    pub(super) fn abort(&self, version: Version) {
        if version < Version::HTTP_2 {
            self.abort.store(true, Ordering::Release);
        }
    }
}

/// Returns the error of a connection that the script resets.
pub(super) fn reset() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by the emulator, as its script says")
}
