//! What Google calls its quotas.

use super::errors::SERVICE;
use crate::quota::Dimension;

/// How a quota is named: by tier, by what was asked, and by the model that the name asked for resolves to.
#[derive(Clone, Copy, Debug)]
pub(super) struct QuotaNames<'a> {
    pub(super) model: &'a str,
    pub(super) embeds: bool,
    pub(super) paid: bool,
}

impl QuotaNames<'_> {
    pub(super) fn metric(&self, dimension: Dimension) -> String {
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
        format!("{SERVICE}/{name}")
    }

    pub(super) fn id(&self, dimension: Dimension) -> String {
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
