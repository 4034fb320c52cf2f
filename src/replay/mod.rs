//! Keeps a request's body, so that it can be sent again, and reads what the call is.
mod future;
mod layer;
mod memory;
mod service;

pub use self::{
    future::ResponseFuture,
    layer::{Oversize, ReplayLayer},
    service::Replay,
};

/// The room's name in errors.
const NAME: &str = "replay";
