use tower_layer::Layer;

use super::{Chains, ModelFallback};

/// Asks another model where one has failed. See the [module](super) for when and which.
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct ModelFallbackLayer {
    chains: Option<Chains>,
}

impl ModelFallbackLayer {
    /// Moves along these chains. All layers and services of one handle share what it knows.
    pub fn new(chains: Chains) -> Self {
        Self { chains: Some(chains) }
    }

    /// A layer that moves nothing, of the same type: for where it is optional.
    pub fn disabled() -> Self {
        Self { chains: None }
    }

    /// The handle. `None` where it is disabled.
    pub fn chains(&self) -> Option<&Chains> {
        self.chains.as_ref()
    }
}

impl<S> Layer<S> for ModelFallbackLayer {
    type Service = ModelFallback<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ModelFallback { inner, chains: self.chains.clone() }
    }
}
