use std::sync::Arc;

use parking_lot::Mutex;

use crate::failure::Failure;

/// A cell that fills while the answer's body passes: token counts, the model that answered, how it ended.
///
/// All clones are the same cell. Read it when the body has ended, or earlier for what is known so far.
#[derive(Clone, Debug, Default)]
pub struct Usage(Arc<Mutex<UsageReport>>);

impl Usage {
    /// What is known now.
    pub fn report(&self) -> UsageReport {
        self.0.lock().clone()
    }

    /// The input tokens, as far as the upstream has said.
    pub(crate) fn prompt_tokens(&self) -> Option<u64> {
        self.0.lock().prompt_tokens
    }

    /// Changes what is known.
    pub(crate) fn update(&self, change: impl FnOnce(&mut UsageReport)) {
        change(&mut self.0.lock());
    }

    pub(crate) fn fail(&self, failure: Failure) {
        self.0.lock().failure.get_or_insert(failure);
    }

    pub(crate) fn end(&self) {
        self.0.lock().ended = true;
    }
}

/// What a [`Usage`] cell holds. What the upstream did not say is `None`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct UsageReport {
    /// Input tokens, tools and cached content included.
    pub prompt_tokens: Option<u64>,
    /// Output tokens, without thoughts on Gemini's own surfaces.
    pub candidates_tokens: Option<u64>,
    /// Tokens spent on thinking.
    pub thoughts_tokens: Option<u64>,
    /// The part of the input that came from a cache.
    pub cached_tokens: Option<u64>,
    /// Input tokens of tool results.
    pub tool_use_prompt_tokens: Option<u64>,
    /// All of it.
    pub total_tokens: Option<u64>,
    /// The model that really answered; it may differ from the one asked for.
    pub model_version: Option<Box<str>>,
    /// Why the answer ended.
    pub finish_reason: Option<Box<str>>,
    /// Why the prompt was refused.
    pub block_reason: Option<Box<str>>,
    /// What went wrong after the answer had been handed over: nothing was sent again.
    pub failure: Option<Failure>,
    /// Whether the body has passed to its end. `false` after a drop: the counts may be short.
    pub ended: bool,
}
