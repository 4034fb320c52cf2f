use std::fmt;

use tower_layer::Layer;

use super::{FallbackChains, ModelFallback};
use crate::describe::{Describe, LEFT_OUT};

/// Asks another model where one has failed. See the [module](super) for when and which.
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct ModelFallbackLayer {
    chains: Option<FallbackChains>,
}

impl ModelFallbackLayer {
    /// Moves along these chains. All layers and services of one handle share what it knows.
    pub fn new(chains: FallbackChains) -> Self {
        Self { chains: Some(chains) }
    }

    /// A layer that moves nothing, of the same type: for where it is optional.
    pub fn disabled() -> Self {
        Self { chains: None }
    }

    /// The handle. `None` where it is disabled.
    pub fn chains(&self) -> Option<&FallbackChains> {
        self.chains.as_ref()
    }
}

impl Describe for ModelFallbackLayer {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.chains {
            None => f.write_str(LEFT_OUT),
            Some(chains) => chains.describe(f),
        }
    }
}

impl<S> Layer<S> for ModelFallbackLayer {
    type Service = ModelFallback<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ModelFallback { inner, chains: self.chains.clone() }
    }
}
