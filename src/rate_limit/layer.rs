//! The layer, which holds a handle of the limiter.

use std::fmt;

use tower_layer::Layer;

use super::{Limiter, RateLimit};
use crate::describe::{Describe, LEFT_OUT};

/// A layer that keeps calls within the upstream's quota. See the [module](super) for what it counts and when it waits.
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct RateLimitLayer {
    limiter: Option<Limiter>,
}

impl RateLimitLayer {
    /// Creates a layer that admits calls as this limiter allows. All layers and services of one limiter share its
    /// state.
    pub fn new(limiter: Limiter) -> Self {
        Self { limiter: Some(limiter) }
    }

    /// Creates a layer that admits everything and counts nothing: of the same type, for stacks in which it is optional.
    pub fn disabled() -> Self {
        Self { limiter: None }
    }

    /// Returns the handle; `None` for a [disabled](Self::disabled) layer.
    pub fn limiter(&self) -> Option<&Limiter> {
        self.limiter.as_ref()
    }
}

impl Describe for RateLimitLayer {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.limiter {
            None => f.write_str(LEFT_OUT),
            Some(limiter) => limiter.describe(f),
        }
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimit { inner, limiter: self.limiter.clone() }
    }
}
