//! Google's names for its quotas.

use super::path::DEVELOPER_SERVICE;
use crate::quota::Dimension;

/// A limit that a request would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExceededLimit {
    pub(crate) dimension: Dimension,
    pub(crate) limit: u64,
}

/// The properties that choose a quota's name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QuotaNames<'a> {
    /// The model that the requested name resolves to.
    pub(crate) model: &'a str,
    /// The call embeds rather than generates.
    pub(crate) embeds: bool,
    /// The project is on the paid tier.
    pub(crate) paid: bool,
}

impl QuotaNames<'_> {
    pub(crate) fn metric(&self, dimension: Dimension) -> String {
        let name = match (self.embeds, dimension, self.paid) {
            (false, Dimension::InputTokensPerMinute, false) => "generate_content_free_tier_input_token_count",
            (false, Dimension::InputTokensPerMinute, true) => "generate_content_paid_tier_input_token_count",
            (false, _, false) => "generate_content_free_tier_requests",
            (false, Dimension::RequestsPerDay, true) => "generate_requests_per_model_per_day",
            (false, _, true) => "generate_requests_per_model",
            (true, Dimension::InputTokensPerMinute, false) => "embed_content_free_tier_input_token_count",
            (true, Dimension::InputTokensPerMinute, true) => "embed_content_paid_tier_input_token_count",
            (true, _, false) => "embed_content_free_tier_requests",
            (true, _, true) => "embed_content_paid_tier_requests",
        };
        format!("{DEVELOPER_SERVICE}/{name}")
    }

    pub(crate) fn id(&self, dimension: Dimension) -> String {
        let name = match (self.embeds, dimension, self.paid) {
            (false, Dimension::InputTokensPerMinute, false) => "GenerateContentInputTokensPerModelPerMinute",
            (false, Dimension::InputTokensPerMinute, true) => "GenerateContentPaidTierInputTokensPerModelPerMinute",
            (false, Dimension::RequestsPerDay, _) => "GenerateRequestsPerDayPerProjectPerModel",
            (false, ..) => "GenerateRequestsPerMinutePerProjectPerModel",
            (true, Dimension::InputTokensPerMinute, _) => "EmbedContentInputTokensPerMinutePerProjectPerModel",
            (true, Dimension::RequestsPerDay, _) => "EmbedContentRequestsPerDayPerProjectPerModel",
            (true, ..) => "EmbedContentRequestsPerMinutePerProjectPerModel",
        };
        match self.paid {
            true => name.into(),
            false => format!("{name}-FreeTier"),
        }
    }
}
