//! Handles that ask each other, and can be replaced one without the other.

use std::{sync::Arc, time::Duration};

use parking_lot::RwLock;
use tower_gemini::{
    circuit_breaker::CircuitBreakers,
    context::{Claimant, Headroom},
    quota::{Gate, Scope},
    rate_limit::Limiter,
};

/// The handle that is in force, for others who ask it and may outlive it.
#[derive(Clone, Debug)]
pub(crate) struct Wired<T>(Arc<RwLock<T>>);

impl<T: Clone> Wired<T> {
    pub(crate) fn new(handle: T) -> Self {
        Self(Arc::new(RwLock::new(handle)))
    }

    pub(crate) fn get(&self) -> T {
        self.0.read().clone()
    }

    pub(crate) fn set(&self, handle: T) {
        *self.0.write() = handle;
    }
}

/// No call queues for a model that is down.
impl Gate for Wired<Option<CircuitBreakers>> {
    fn closed_for(&self, scope: &Scope) -> Option<Duration> {
        self.get()?.closed_for(scope)
    }
}

/// A call goes to the project where it waits least.
impl Headroom for Wired<Limiter> {
    fn headroom(&self, scope: &Scope, requests: u32, tokens: u64, claimant: Claimant<'_>) -> Duration {
        Headroom::headroom(&self.get(), scope, requests, tokens, claimant)
    }
}
