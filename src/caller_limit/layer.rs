//! The layer, which holds a handle of the limits.

use std::fmt;

use tower_layer::Layer;

use super::{CallerLimit, CallerLimits};
use crate::describe::{Describe, LEFT_OUT};

/// A layer that keeps each caller within limits of its own. See the [module](super) for what it counts.
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct CallerLimitLayer {
    limits: Option<CallerLimits>,
}

impl CallerLimitLayer {
    /// Creates a layer that admits calls as these limits allow. All layers and services of one handle share its state.
    pub fn new(limits: CallerLimits) -> Self {
        Self { limits: Some(limits) }
    }

    /// Creates a layer that admits everything and counts nothing: of the same type, for stacks in which it is optional.
    pub fn disabled() -> Self {
        Self { limits: None }
    }

    /// Returns the handle; `None` for a [disabled](Self::disabled) layer.
    pub fn limits(&self) -> Option<&CallerLimits> {
        self.limits.as_ref()
    }
}

impl Describe for CallerLimitLayer {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.limits {
            None => f.write_str(LEFT_OUT),
            Some(limits) => limits.describe(f),
        }
    }
}

impl<S> Layer<S> for CallerLimitLayer {
    type Service = CallerLimit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CallerLimit { inner, limits: self.limits.clone() }
    }
}
