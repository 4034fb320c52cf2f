//! Turns an error into the answer that Google would have given.
mod body;
mod future;
mod layer;
mod render;
mod service;

pub use self::{body::ErrorResponseBody, future::ResponseFuture, layer::ErrorResponseLayer, service::ErrorResponse};
