use std::sync::Arc;

/// Which model was asked for, and which one the answer is of: an extension of each response to a call that has a chain.
///
/// The header `x-gemini-model` says the second to those who are not in this program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelUsed {
    asked: Arc<str>,
    used: Arc<str>,
}

impl ModelUsed {
    pub(super) fn new(asked: Arc<str>, used: Arc<str>) -> Self {
        Self { asked, used }
    }

    /// The model that the caller asked for.
    pub fn asked(&self) -> &str {
        &self.asked
    }

    /// The model that the answer, or the failure, is of.
    pub fn used(&self) -> &str {
        &self.used
    }

    /// Whether that is another model than the one that was asked for.
    pub fn is_other(&self) -> bool {
        self.asked != self.used
    }
}
