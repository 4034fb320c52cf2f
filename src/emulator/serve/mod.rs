//! The emulator as a service and as a server: reads requests, and carries out what was decided about them.

pub(super) mod body;
pub(super) mod builder;
pub(super) mod future;
pub(super) mod handle;
mod peer;
pub(super) mod server;
mod service;
