use std::sync::Arc;

use parking_lot::Mutex;

use crate::{answer::scan::Findings, failure::Failure};

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

    pub(crate) fn fill(&self, found: &Findings) {
        let mut report = self.0.lock();
        report.prompt_tokens = found.tokens.prompt;
        report.candidates_tokens = found.tokens.candidates;
        report.thoughts_tokens = found.tokens.thoughts;
        report.cached_tokens = found.tokens.cached;
        report.tool_use_prompt_tokens = found.tokens.tool_use_prompt;
        report.total_tokens = found.tokens.total;
        if report.model_version != found.model_version {
            report.model_version.clone_from(&found.model_version);
        }
        if report.finish_reason != found.finish_reason {
            report.finish_reason.clone_from(&found.finish_reason);
        }
        if report.block_reason != found.block_reason {
            report.block_reason.clone_from(&found.block_reason);
        }
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
