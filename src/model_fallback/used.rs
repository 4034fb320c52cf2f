//! The note on an answer: the model that was asked for, and the one that answered.

use std::sync::Arc;

/// The model that was asked for, and the model that the answer is of: an extension of each response to a call that has
/// a chain.
///
/// Outside of this program, the header `x-gemini-model` names the second one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelUsed {
    asked: Arc<str>,
    used: Arc<str>,
}

impl ModelUsed {
    pub(super) fn new(asked: Arc<str>, used: Arc<str>) -> Self {
        Self { asked, used }
    }

    /// Returns the name of the model that the caller asked for.
    pub fn asked(&self) -> &str {
        &self.asked
    }

    /// Returns the name of the model that the answer, or the failure, is of.
    pub fn used(&self) -> &str {
        &self.used
    }

    /// Returns whether the answer is of another model than the one that was asked for.
    pub fn is_other(&self) -> bool {
        self.asked != self.used
    }
}
