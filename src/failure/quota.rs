//! The quota that a refusal names.

use std::time::Duration;

use crate::quota::Dimension;

/// The longest wait that is worth waiting for on the spot: 300 s, as in gemini-cli. A quota that comes back later is
/// not a minute's.
pub(super) const SOON: Duration = Duration::from_secs(300);

/// The quota that was used up, as far as the answer names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    pub(super) dimension: Option<Dimension>,
    pub(super) limit: Option<u64>,
    pub(super) id: Option<Box<str>>,
    pub(super) model: Option<Box<str>>,
    pub(super) per_model: bool,
}

impl Quota {
    /// Returns the dimension, where the answer names one. `None` for a quota of zero, which no period ends.
    ///
    /// A day's quota of tokens, and one of a longer period, count as [`Dimension::RequestsPerDay`].
    pub fn dimension(&self) -> Option<Dimension> {
        self.dimension
    }

    /// Returns the limit: `quotaValue`, or the number in the message.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Returns `quotaId`, such as `GenerateRequestsPerDayPerProjectPerModel-FreeTier`.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Returns the model that the quota is for, by its resolved name (not the alias that was sent).
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Returns whether every model has a quota of its own, so that another model is not blocked.
    pub fn per_model(&self) -> bool {
        self.per_model
    }
}
