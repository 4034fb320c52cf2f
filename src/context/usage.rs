//! The cell that fills while an answer's body passes.

use std::sync::Arc;

use parking_lot::Mutex;

use super::ShortText;
use crate::{call::ServiceTier, failure::Failure, resource::Resource};

/// A cell that fills while the answer's body passes: token counts, the model that answered, how it ended.
///
/// All clones are the same cell. Read it when the body has ended, or earlier for what is known up to then. It is filled
/// by `ClassifyLayer`, which watches the body.
#[derive(Clone, Debug, Default)]
pub struct Usage(Arc<Mutex<UsageReport>>);

impl Usage {
    /// Returns the counts so far.
    pub fn report(&self) -> UsageReport {
        self.0.lock().clone()
    }

    /// Reads the counts so far without a copy of them.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&UsageReport) -> T) -> T {
        read(&self.0.lock())
    }

    /// Returns the number of all input tokens, if the upstream has reported it.
    pub(crate) fn input_tokens(&self) -> Option<u64> {
        self.0.lock().input_tokens()
    }

    /// Returns the number of tokens in the prompt, if the upstream has reported it.
    pub(crate) fn prompt_tokens(&self) -> Option<u64> {
        self.0.lock().prompt_tokens
    }

    /// Changes what is known. `ClassifyLayer` does it; a layer that reads answers in its place may, too.
    pub fn update(&self, change: impl FnOnce(&mut UsageReport)) {
        change(&mut self.0.lock());
    }

    /// Sets the failure, unless there is one already.
    pub(crate) fn fail(&self, failure: Failure) {
        self.0.lock().failure.get_or_insert(failure);
    }

    /// Returns whether nothing more will be known: the body has passed to its end, or was dropped with its answer.
    pub(crate) fn is_settled(&self) -> bool {
        Arc::strong_count(&self.0) == 1 || self.0.lock().ended
    }

    /// Returns the tokens with which another call goes on from the answer, and its name in a collection, where it is kept
    /// in one.
    pub(crate) fn handed_out(&self, collection: Option<&str>) -> Vec<Resource> {
        let report = self.0.lock();
        let id = collection.zip(report.response_id.as_deref());
        let kept = id.and_then(|(collection, id)| Resource::new(collection, id));
        report.continuations.iter().cloned().chain(kept).collect()
    }

    /// Marks that the body has passed to its end.
    pub(crate) fn end(&self) {
        self.0.lock().ended = true;
    }
}

/// The contents of a [`Usage`] cell. A count that the upstream did not report is `None`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct UsageReport {
    /// The tokens of the prompt: declared tools and cached content are included, the results of tools are not.
    pub prompt_tokens: Option<u64>,
    /// The part of them that the first turn of an interaction had.
    pub initial_prompt_tokens: Option<u64>,
    /// The output tokens; on Gemini's own surfaces without thoughts, in OpenAI's dialect with them.
    pub candidates_tokens: Option<u64>,
    /// The tokens spent on thinking.
    pub thoughts_tokens: Option<u64>,
    /// The part of the input that came from a cache.
    pub cached_tokens: Option<u64>,
    /// The input tokens of tool results.
    pub tool_use_prompt_tokens: Option<u64>,
    /// The sum of all tokens.
    pub total_tokens: Option<u64>,
    /// The tokens of the prompt by modality.
    pub input_by_modality: ByModality,
    /// The output tokens by modality.
    pub output_by_modality: ByModality,
    /// The part of the input that came from a cache, by modality.
    pub cached_by_modality: ByModality,
    /// The service tier that served, as the upstream spells it: `standard`, `flex`, `priority`, or Vertex's
    /// `ON_DEMAND_FLEX`. [`served_tier`](Self::served_tier) reads it.
    pub service_tier: Option<ShortText>,
    /// The id that the upstream gave the answer: `responseId`, or `id` of an interaction or a chat completion.
    pub response_id: Option<ShortText>,
    /// The id of the interaction that this one continues, where the answer repeats it.
    pub previous_interaction_id: Option<ShortText>,
    /// The tokens with which another call goes on from the answer, as hashes.
    pub(crate) continuations: Vec<Resource>,
    /// The model that really answered; it may differ from the one asked for.
    pub model_version: Option<ShortText>,
    /// The reason why the answer ended: `STOP`, `MAX_TOKENS`, …; of an interaction its last status: `completed`,
    /// `requires_action`, …
    pub finish_reason: Option<ShortText>,
    /// The reason why the prompt was refused: `SAFETY`, …
    pub block_reason: Option<ShortText>,
    /// The failure that was found after the answer had been handed over, so that nothing was sent again.
    pub failure: Option<Failure>,
    /// The flag for a body that has passed to its end. After a drop it stays `false`, and the counts may be too low.
    pub ended: bool,
}

impl UsageReport {
    /// Returns the number of all input tokens: those of the prompt and those of the results of tools, which are billed
    /// and limited as input too.
    #[must_use]
    pub fn input_tokens(&self) -> Option<u64> {
        self.prompt_tokens.map(|prompt| prompt.saturating_add(self.tool_use_prompt_tokens.unwrap_or(0)))
    }

    /// Returns the number of all output tokens, thoughts included, because they are billed.
    ///
    /// Gemini's own surfaces count thoughts separately and the OpenAI-compatible one does not; the total is right for
    /// both.
    #[must_use]
    pub fn output_tokens(&self) -> Option<u64> {
        let by_total = self.input_tokens().zip(self.total_tokens).and_then(|(input, total)| total.checked_sub(input));
        let by_parts = || match (self.candidates_tokens, self.thoughts_tokens) {
            (None, None) => None,
            (candidates, thoughts) => Some(candidates.unwrap_or(0).saturating_add(thoughts.unwrap_or(0))),
        };
        by_total.or_else(by_parts)
    }

    /// Returns the service tier that served. `None`: the upstream did not say, or it is none of those that a caller may
    /// ask for, such as Vertex's `ON_DEMAND_OFFPEAK` and `PROVISIONED_THROUGHPUT`.
    #[must_use]
    pub fn served_tier(&self) -> Option<ServiceTier> {
        let name = self.service_tier.as_deref()?;
        match name.split_at_checked(ON_DEMAND.len()) {
            Some((start, "")) if start.eq_ignore_ascii_case(ON_DEMAND) => Some(ServiceTier::Standard),
            Some((start, tier)) if start.eq_ignore_ascii_case(ON_DEMAND) => {
                ServiceTier::from_name(tier.strip_prefix('_')?)
            }
            _ => ServiceTier::from_name(name),
        }
    }
}

/// Vertex's word for what is billed by use, to which the tier is added unless it is the standard one.
const ON_DEMAND: &str = "ON_DEMAND";

/// Token counts by modality. One that the upstream did not report is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ByModality {
    /// The tokens of text.
    pub text: Option<u64>,
    /// The tokens of images.
    pub image: Option<u64>,
    /// The tokens of audio.
    pub audio: Option<u64>,
    /// The tokens of video.
    pub video: Option<u64>,
    /// The tokens of documents.
    pub document: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tier_that_served_is_read_in_either_spelling() {
        let tier = |name: &str| UsageReport { service_tier: Some(name.into()), ..UsageReport::default() }.served_tier();
        for standard in ["standard", "STANDARD", "ON_DEMAND", "on_demand", "SERVICE_TIER_STANDARD"] {
            assert_eq!(tier(standard), Some(ServiceTier::Standard), "{standard}");
        }
        for flex in ["flex", "ON_DEMAND_FLEX"] {
            assert_eq!(tier(flex), Some(ServiceTier::Flex), "{flex}");
        }
        assert_eq!(tier("ON_DEMAND_PRIORITY"), Some(ServiceTier::Priority));
        assert_eq!(tier("deferred"), Some(ServiceTier::Deferred));
        for other in ["ON_DEMAND_OFFPEAK", "ON_DEMANDS", "PROVISIONED_THROUGHPUT", "é", ""] {
            assert_eq!(tier(other), None, "{other}");
        }
        assert_eq!(UsageReport::default().served_tier(), None);
    }

    #[test]
    fn the_results_of_tools_are_input_too() {
        let report = |prompt_tokens, tool_use_prompt_tokens| UsageReport {
            prompt_tokens,
            tool_use_prompt_tokens,
            ..UsageReport::default()
        };
        assert_eq!(report(Some(7), Some(3)).input_tokens(), Some(10));
        assert_eq!(report(Some(7), None).input_tokens(), Some(7));
        assert_eq!(report(None, Some(3)).input_tokens(), None);
    }
}
