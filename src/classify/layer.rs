//! The layer and its settings.

use std::fmt;

use tower_layer::Layer;

use super::{service::Classify, settings::Settings};
use crate::describe::{Describe, LEFT_OUT};

/// A layer that reads each failure once, for every layer outside. The [module](super) says what it reads and writes.
///
/// It belongs next to the transport, inside of all other layers.
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until it wraps a service"]
pub struct ClassifyLayer {
    settings: Settings,
}

impl ClassifyLayer {
    /// Creates a layer that reads failures and holds answers until their first content.
    pub fn new() -> Self {
        Self { settings: Settings { enabled: true, hold_answers: true } }
    }

    /// Creates a layer that does nothing. It has the same type, for stacks where it is optional.
    pub fn disabled() -> Self {
        Self { settings: Settings { enabled: false, hold_answers: false } }
    }

    /// Sets whether a 200 is held until its first content (default: yes). If not, an error inside a 200, or an empty
    /// answer, is passed on and cannot be retried.
    pub fn hold_answers(mut self, hold: bool) -> Self {
        self.settings.hold_answers = hold;
        self
    }
}

impl Default for ClassifyLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl Describe for ClassifyLayer {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.settings {
            Settings { enabled: false, .. } => LEFT_OUT,
            Settings { hold_answers: true, .. } => "reads failures, and holds answers until their first content",
            Settings { hold_answers: false, .. } => "reads failures",
        })
    }
}

impl<S> Layer<S> for ClassifyLayer {
    type Service = Classify<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Classify { inner, settings: self.settings }
    }
}
