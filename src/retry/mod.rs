//! Sends again what can be answered on another try.
mod budget;
mod decide;
mod future;
mod layer;
mod policy;
mod service;

pub use self::{
    budget::RetryBudget,
    future::ResponseFuture,
    layer::RetryLayer,
    policy::{Cause, OnOpen, RetryPolicy, Rule},
    service::Retry,
};

/// The room's name in errors.
const NAME: &str = "retry";
