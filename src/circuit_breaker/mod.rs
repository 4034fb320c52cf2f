//! Nobody calls an upstream that is down, except to see whether it is.
//!
//! WIP
mod breaker;
mod breakers;
mod future;
mod layer;
mod machine;
mod place;
mod refusal;
mod service;
mod state;
mod ticket;
mod trip;

pub use self::{
    breakers::{Breakers, BreakersBuilder},
    future::ResponseFuture,
    layer::CircuitBreakerLayer,
    service::CircuitBreaker,
    state::{Reason, Scope, State, Transition, Transitions},
    trip::{Trip, Window},
};

/// The room's name in errors.
const NAME: &str = "circuit_breaker";
