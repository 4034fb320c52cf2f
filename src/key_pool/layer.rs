use std::fmt;

use tower_layer::Layer;

use super::{KeyPool, KeyPoolService};
use crate::describe::Describe;

/// Signs each call with a key of the pool's. See the [module](super) for which one, and what takes a key out.
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct KeyPoolLayer {
    pool: Option<KeyPool>,
}

impl KeyPoolLayer {
    /// Signs with the keys of this pool. All layers and services of one pool share what it knows.
    pub fn new(pool: KeyPool) -> Self {
        Self { pool: Some(pool) }
    }

    /// A layer that leaves each call as it is, the caller's credentials included, of the same type: for where it is
    /// optional.
    pub fn disabled() -> Self {
        Self { pool: None }
    }

    /// The handle.
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
