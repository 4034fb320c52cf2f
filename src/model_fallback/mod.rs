//! Asks another model, where the one that was asked for has failed for everybody.
//!
//! The essay follows.

mod chains;
mod features;
mod future;
mod kept;
mod layer;
mod members;
mod reason;
mod route;
mod service;
mod step;
mod sticky;
mod used;
mod walk;

pub use self::{
    chains::{ChainReport, Chains, ChainsBuilder},
    future::ResponseFuture,
    layer::ModelFallbackLayer,
    reason::Reason,
    service::ModelFallback,
    used::ModelUsed,
};

/// The room's name in errors.
const NAME: &str = "model_fallback";

/// Says in each answer which model it is of.
const HEADER: http::HeaderName = http::HeaderName::from_static("x-gemini-model");
