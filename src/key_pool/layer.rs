//! The layer, which holds a handle of the pool.

use std::fmt;

use tower_layer::Layer;

use super::{KeyPool, KeyPoolService};
use crate::describe::Describe;

/// A layer that signs each call with a key of a pool. The [module](super) says which key, and what takes a key out.
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct KeyPoolLayer {
    pool: Option<KeyPool>,
}

impl KeyPoolLayer {
    /// Makes a layer that signs with the keys of this pool. All layers and services of one pool share its state.
    pub fn new(pool: KeyPool) -> Self {
        Self { pool: Some(pool) }
    }

    /// Makes a layer of the same type that passes each call on as it is, the caller's credentials included: for where a
    /// pool is optional.
    pub fn disabled() -> Self {
        Self { pool: None }
    }

    /// Returns the handle of the pool. `None`: the layer is disabled.
    pub fn pool(&self) -> Option<&KeyPool> {
        self.pool.as_ref()
    }
}

impl Describe for KeyPoolLayer {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pool {
            None => f.write_str("left out: the caller's own credentials go on"),
            Some(pool) => pool.describe(f),
        }
    }
}

impl<S> Layer<S> for KeyPoolLayer {
    type Service = KeyPoolService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        KeyPoolService::new(inner, self.pool.clone())
    }
}
