//! The layer, which holds a handle of the chains.

use std::fmt;

use tower_layer::Layer;

use super::{FallbackChains, ModelFallback};
use crate::describe::{Describe, LEFT_OUT};

/// A layer that falls back to another model where one has failed. The [module](super) says when, and to which.
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct ModelFallbackLayer {
    chains: Option<FallbackChains>,
}

impl ModelFallbackLayer {
    /// Makes a layer that falls back along these chains. All layers and services of one handle share its state.
    pub fn new(chains: FallbackChains) -> Self {
        Self { chains: Some(chains) }
    }

    /// Makes a layer of the same type that passes each call on as it is: for where falling back is optional.
    pub fn disabled() -> Self {
        Self { chains: None }
    }

    /// Returns the handle of the chains. `None`: the layer is disabled.
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
