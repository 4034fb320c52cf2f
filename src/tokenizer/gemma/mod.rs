//! The vocabulary of Gemma 3 and Gemma 4, and the counter that reads it.

mod counter;
mod memo;
mod merge;
mod model;
mod special;
#[cfg(test)]
mod tests;
mod vocabulary;

pub use self::{counter::Counter, model::Exactness};

use self::special::Special;
use super::{Count, CountTokens, TextCounter};
use crate::request::scan::{self, Unread};

/// A tokenizer's vocabulary. A copy costs nothing: the tables are made at the first count, in 10 to 20 ms, and shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokenizer {
    special: Special,
}

impl Tokenizer {
    /// Returns Gemma 3's vocabulary: for Gemini 2.0 to `gemini-3-flash-preview`.
    pub const fn gemma3() -> Self {
        Self { special: Special::Gemma3 }
    }

    /// Returns Gemma 4's vocabulary: for `gemini-3.1-pro-preview`, `gemini-3.1-flash-lite`, `gemini-3.5-flash`, and
    /// presumably for later models.
    pub const fn gemma4() -> Self {
        Self { special: Special::Gemma4 }
    }

    /// Returns the vocabulary of a model, and whether Google's SDK confirms it. The name may have `models/` in front.
    ///
    /// A model that Google's SDK does not know, such as every new one, has the vocabulary of its family, or else the
    /// newest.
    pub fn for_model(model: &str) -> (Self, Exactness) {
        model::for_model(model)
    }

    /// Counts a text's tokens.
    pub fn count(self, text: &str) -> Count {
        self.count_until(text, u64::MAX)
    }

    /// Counts a text's tokens, but reads no further once there are more than `limit`.
    pub fn count_until(self, text: &str, limit: u64) -> Count {
        let mut counter = self.counter().limit(limit);
        counter.push(text);
        counter.count()
    }

    /// Makes a counter of several texts, each counted by itself.
    pub fn counter(self) -> Counter {
        Counter::new(self.special)
    }

    /// Counts the texts of a request's body, each by itself: of `generateContent` and its like, and of `countTokens` in
    /// both its forms. Media, and the tokens that the upstream adds for each turn, are not counted. Returns `None` for
    /// a body that is not JSON.
    pub fn count_request(self, body: &[u8]) -> Option<Count> {
        let mut counter = self.counter();
        match scan::scan(body, &mut counter) {
            Ok(_) | Err(Unread::Enough) => Some(counter.count()),
            Err(_) => None,
        }
    }

    /// Makes the tables now rather than at the first count, for programs that prefer to wait at their start.
    pub fn prepare() {
        vocabulary::vocabulary();
    }
}

/// The counter of [`TokenPrecheckLayer`](crate::TokenPrecheckLayer), which counts each model's requests by its own
/// vocabulary.
///
/// The count of a model whose vocabulary is only presumed may be off by the difference between the known vocabularies:
/// 9 % where a text is full of tags.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByModel;

/// A count by a vocabulary that is only presumed.
struct Presumed(Counter);

impl CountTokens for ByModel {
    fn counter(&self, model: &str) -> Box<dyn TextCounter> {
        let (tokenizer, exactness) = Tokenizer::for_model(model);
        match exactness {
            Exactness::Exact => Box::new(tokenizer.counter()),
            Exactness::Estimate => Box::new(Presumed(tokenizer.counter())),
        }
    }
}

impl TextCounter for Presumed {
    fn push(&mut self, text: &str) {
        self.0.push(text);
    }

    fn count(&self) -> Count {
        let Count { at_least, at_most } = self.0.count();
        Count::between(at_least - at_least / 10, at_most.saturating_add(at_most / 10))
    }
}
