//! The cell that fills while an answer's body passes.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::failure::Failure;

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

    /// Returns the number of input tokens, if the upstream has reported it.
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

    /// Marks that the body has passed to its end.
    pub(crate) fn end(&self) {
        self.0.lock().ended = true;
    }
}

/// The contents of a [`Usage`] cell. A count that the upstream did not report is `None`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct UsageReport {
    /// The input tokens, tools and cached content included.
    pub prompt_tokens: Option<u64>,
    /// The output tokens; on Gemini's own surfaces without thoughts.
    pub candidates_tokens: Option<u64>,
    /// The tokens spent on thinking.
    pub thoughts_tokens: Option<u64>,
    /// The part of the input that came from a cache.
    pub cached_tokens: Option<u64>,
    /// The input tokens of tool results.
    pub tool_use_prompt_tokens: Option<u64>,
    /// The sum of all tokens.
    pub total_tokens: Option<u64>,
    /// The input tokens, tools and cached content included, by modality.
    pub input_by_modality: ByModality,
    /// The output tokens by modality.
    pub output_by_modality: ByModality,
    /// The part of the input that came from a cache, by modality.
    pub cached_by_modality: ByModality,
    /// The service tier that served: `standard`, `flex`, `priority`, …, as the upstream spells it.
    pub service_tier: Option<Box<str>>,
    /// The id that the upstream gave the answer: `responseId`, or `id` of an interaction or a chat completion.
    pub response_id: Option<Box<str>>,
    /// The model that really answered; it may differ from the one asked for.
    pub model_version: Option<Box<str>>,
    /// The reason why the answer ended: `STOP`, `MAX_TOKENS`, …
    pub finish_reason: Option<Box<str>>,
    /// The reason why the prompt was refused: `SAFETY`, …
    pub block_reason: Option<Box<str>>,
    /// The failure that was found after the answer had been handed over, so that nothing was sent again.
    pub failure: Option<Failure>,
    /// The flag for a body that has passed to its end. After a drop it stays `false`, and the counts may be too low.
    pub ended: bool,
}

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
