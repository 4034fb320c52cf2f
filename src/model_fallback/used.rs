use std::sync::Arc;

/// Which model was asked for, and which one the answer is of: an extension of each response to a call that has a chain.
///
/// The header `x-gemini-model` says the same to those who are not in this program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelUsed {
    pub(super) asked: Arc<str>,
    pub(super) used: Arc<str>,
}

impl ModelUsed {
    /// The model that the caller asked for.
    pub fn asked(&self) -> &str {
        &self.asked
    }

    /// The model that the answer, or the failure, is of.
    pub fn used(&self) -> &str {
        &self.used
    }

    /// Whether another model has answered than the one that was asked for.
    pub fn is_other(&self) -> bool {
        self.asked != self.used
    }
}
