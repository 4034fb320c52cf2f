//! The note on an answer: the model that was asked for, and the one that answered.

use std::sync::Arc;

use crate::call::ServiceTier;

/// The model that was asked for, and the model that the answer is of: an extension of each response to a call that has
/// a chain.
///
/// Outside of this program, the header `x-gemini-model` names the second one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelUsed {
    asked: Arc<str>,
    /// The name of the model that was used, if it is another one.
    other: Option<Arc<str>>,
    tiers: [ServiceTier; 2],
}

impl ModelUsed {
    /// Makes the note from the model and the tier that were asked for, and those that were used.
    pub(super) fn new((asked, asked_tier): (&Arc<str>, ServiceTier), (used, tier): (&Arc<str>, ServiceTier)) -> Self {
        let other = (asked != used).then(|| used.clone());
        Self { asked: asked.clone(), other, tiers: [asked_tier, tier] }
    }

    /// Returns the name of the model that the caller asked for.
    pub fn asked(&self) -> &str {
        &self.asked
    }

    /// Returns the name of the model that the answer, or the failure, is of.
    pub fn used(&self) -> &str {
        self.other.as_ref().unwrap_or(&self.asked)
    }

    /// Returns the service tier in which that model was asked. The upstream may have served another one, and says so in
    /// its own header, `x-gemini-service-tier`.
    pub fn service_tier(&self) -> ServiceTier {
        self.tiers[1]
    }

    /// Returns whether the answer is of another model than the one that was asked for, or was asked of it in another
    /// service tier.
    pub fn is_other(&self) -> bool {
        self.other.is_some() || self.tiers[0] != self.tiers[1]
    }
}
