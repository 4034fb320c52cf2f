//! The other end of a connection.

use std::net::SocketAddr;

/// The address of the other end of the connection, among a request's extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);
