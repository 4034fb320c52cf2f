//! The layer, which has the time of a silence.

use std::{fmt, time::Duration};

use tower_layer::Layer;

use super::KeepAlive;
use crate::describe::{Describe, LEFT_OUT};

/// A layer that keeps silent streams alive. See the [module](super) for what it sends.
///
/// It is for servers, outside of [`ErrorResponseLayer`](crate::ErrorResponseLayer).
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct KeepAliveLayer {
    every: Option<Duration>,
}

impl KeepAliveLayer {
    /// Makes a layer that sends a piece after each `every` of silence. A time of zero disables it.
    ///
    /// It should be well below the time after which what is between here and the callers cuts silent connections, which
    /// is often 30 s or 60 s: 15 s leaves room for a piece that is late.
    pub fn new(every: Duration) -> Self {
        Self { every: Some(every).filter(|every| !every.is_zero()) }
    }

    /// Makes a layer that does nothing, of the same type: for stacks in which it is optional.
    pub fn disabled() -> Self {
        Self { every: None }
    }
}

impl Describe for KeepAliveLayer {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.every {
            Some(every) => write!(f, "a piece after each {every:?} of a stream's silence"),
            None => f.write_str(LEFT_OUT),
        }
    }
}

/// Shows the line that describes the layer.
impl fmt::Display for KeepAliveLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe(f)
    }
}

impl<S> Layer<S> for KeepAliveLayer {
    type Service = KeepAlive<S>;

    fn layer(&self, inner: S) -> Self::Service {
        KeepAlive { inner, every: self.every }
    }
}
