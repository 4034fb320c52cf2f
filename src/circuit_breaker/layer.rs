//! The layer, which holds a handle of the breakers.

use std::fmt;

use tower_layer::Layer;

use super::{CircuitBreaker, CircuitBreakers};
use crate::describe::{Describe, LEFT_OUT};

/// A layer that stops calls to an upstream that is down. See the [module](super) for when it opens and closes.
///
/// The default has breakers of its own, with the default settings.
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct CircuitBreakerLayer {
    breakers: Option<CircuitBreakers>,
}

impl CircuitBreakerLayer {
    /// Creates a layer that admits calls as these breakers allow. All layers and services of one handle share its
    /// state.
    pub fn new(breakers: CircuitBreakers) -> Self {
        Self { breakers: Some(breakers) }
    }

    /// Creates a layer that admits everything and counts nothing: of the same type, for stacks in which it is optional.
    pub fn disabled() -> Self {
        Self { breakers: None }
    }

    /// Returns the handle; `None` for a [disabled](Self::disabled) layer.
    pub fn breakers(&self) -> Option<&CircuitBreakers> {
        self.breakers.as_ref()
    }
}

impl Default for CircuitBreakerLayer {
    fn default() -> Self {
        Self::new(CircuitBreakers::new())
    }
}

impl Describe for CircuitBreakerLayer {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.breakers {
            None => f.write_str(LEFT_OUT),
            Some(breakers) => breakers.describe(f),
        }
    }
}

impl<S> Layer<S> for CircuitBreakerLayer {
    type Service = CircuitBreaker<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreaker::new(inner, self.breakers.clone())
    }
}
