//! The quota that a refusal names.

use std::time::Duration;

use crate::quota::Dimension;

/// A wait up to this long is worth waiting for on the spot; a quota that comes back later is not a minute's. The same
/// line as gemini-cli's.
pub(super) const SOON: Duration = Duration::from_secs(300);

/// Which quota it was, as far as the answer says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    pub(super) dimension: Option<Dimension>,
    pub(super) limit: Option<u64>,
    pub(super) id: Option<Box<str>>,
    pub(super) model: Option<Box<str>>,
    pub(super) per_model: bool,
}

impl Quota {
    /// The dimension, where the answer names one. `None` for a quota of zero, which no period ends.
    ///
    /// A day's quota of tokens, and one of a longer period, count as [`Dimension::RequestsPerDay`].
    pub fn dimension(&self) -> Option<Dimension> {
        self.dimension
    }

    /// The limit itself: `quotaValue`, or the number in the message.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// `quotaId`, such as `GenerateRequestsPerDayPerProjectPerModel-FreeTier`.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The model that the quota is for, by its resolved name (not the alias that was sent).
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// True where every model has a quota of its own, so that another model is not blocked.
    pub fn per_model(&self) -> bool {
        self.per_model
    }
}
