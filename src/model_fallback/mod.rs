//! Asks another model, where the one that was asked for has failed for everybody.
//!
//! The essay follows.

mod chains;
mod future;
mod layer;
mod reason;
mod service;
mod sticky;
mod used;

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
