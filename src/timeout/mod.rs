//! Ends what hangs, and says which clock ran out.
mod body;
mod future;
mod layer;
mod service;

pub use self::{body::TimeoutBody, future::ResponseFuture, layer::TimeoutLayer, service::Timeout};

/// The room's name in errors.
const NAME: &str = "timeout";
