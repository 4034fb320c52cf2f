//! Reads a failure once, for every layer outside.
mod body;
mod future;
mod layer;
mod service;
mod watch;

pub use self::{body::ClassifyBody, future::ResponseFuture, layer::ClassifyLayer, service::Classify};

/// The room's name in errors.
const NAME: &str = "classify";
