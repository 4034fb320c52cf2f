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
    gives_back_unsent: bool,
}

impl CallerLimitLayer {
    /// Creates a layer that admits calls as these limits allow. All layers and services of one handle share its state.
    pub fn new(limits: CallerLimits) -> Self {
        Self { limits: Some(limits), gives_back_unsent: false }
    }

    /// Creates a layer that admits everything and counts nothing: of the same type, for stacks in which it is optional.
    pub fn disabled() -> Self {
        Self { limits: None, gives_back_unsent: false }
    }

    /// Gives the charge of a call back that is dropped before it was sent: while it waits for its turn, say. This takes
    /// [`ClassifyLayer`](crate::ClassifyLayer) inside, which marks what is sent: without it, no call that is dropped before its
    /// answer would cost anything. [`GeminiLayer`](crate::GeminiLayer) sets it. Default: such a call stays charged.
    pub fn gives_back_unsent(mut self) -> Self {
        self.gives_back_unsent = true;
        self
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
        CallerLimit { inner, limits: self.limits.clone(), gives_back_unsent: self.gives_back_unsent }
    }
}
