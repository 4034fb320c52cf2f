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

/// A vocabulary to count with. A copy costs nothing; what it needs is made at the first count, in 10 to 20 ms, and shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokenizer {
    special: Special,
}

impl Tokenizer {
    /// Gemma 3's: for Gemini 2.0 to `gemini-3-flash-preview`.
    pub const fn gemma3() -> Self {
        Self { special: Special::Gemma3 }
    }

    /// Gemma 4's: for `gemini-3.1-pro-preview`, `gemini-3.1-flash-lite`, `gemini-3.5-flash`, and presumably what came after.
    pub const fn gemma4() -> Self {
        Self { special: Special::Gemma4 }
    }

    /// The vocabulary of a model, with or without `models/` before its name, and whether Google says so.
    ///
    /// Models that Google's SDK does not count, among them all new ones, are counted as their kin are; the newest kin for
    /// those that have none.
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

    /// Counts several texts, each by itself.
    pub fn counter(self) -> Counter {
        Counter::new(self.special)
    }

    /// Counts the texts of a request's body, each by itself: of `generateContent` and its kin, and of `countTokens` in both
    /// its forms. Media and what the upstream adds for each turn are not in it. `None`: it is no JSON.
    pub fn count_request(self, body: &[u8]) -> Option<Count> {
        let mut counter = self.counter();
        match scan::scan(body, &mut counter) {
            Ok(_) | Err(Unread::Enough) => Some(counter.count()),
            Err(_) => None,
        }
    }

    /// Makes what the first count would otherwise have to make. For programs that would rather wait at their start.
    pub fn prepare() {
        vocabulary::vocabulary();
    }
}

/// Counts each model's requests by its own vocabulary: what [`TokenPrecheckLayer`](crate::TokenPrecheckLayer) counts with.
///
/// Where nobody has said which vocabulary a model has, the count may be off by what the known ones differ by: 9 % where a
/// text is full of tags.
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
