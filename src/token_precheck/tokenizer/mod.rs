//! Counts a text's tokens as Google's models do, exactly and without asking.
//!
//! Without this, nobody knows what a request costs before it is sent: four bytes a token undercounts by a fifth in the
//! median and by two thirds at worst, and `countTokens` is another call, with a quota and a latency of its own.
//!
//! Gemini's texts are cut into pieces of Gemma's vocabulary of 262,144, the same in Gemma 3 and Gemma 4 but for the special
//! ones. The counter has that vocabulary as a list of merges (1.2 MB in the program), cuts a text where no piece reaches
//! across, remembers what the words in between came to, and merges only those that it has not seen. It reads mixed text at
//! about 100 MB/s on one core, where SentencePiece reads 1.6 and the next fastest 14; it uses 7 MB, and starts in 10 to 20 ms.
//!
//! It never guesses: where counting would cost too much it says between which numbers the count lies, proven. And it never
//! counts what is not text: media, cached content, and the few tokens that the upstream adds for each turn.
//!
//! ```
//! use tower_gemini::token_precheck::tokenizer::{Exactness, Tokenizer};
//!
//! let (tokenizer, exactness) = Tokenizer::for_model("gemini-2.5-flash");
//! assert_eq!(exactness, Exactness::Exact);
//! assert_eq!(tokenizer.count("What is your name?").exact(), Some(5));
//! // Whatever is longer than the limit need not be read to its end.
//! assert!(tokenizer.count_until(&"word ".repeat(1_000_000), 100).at_least > 100);
//! ```
//!
//! A whole request, of which every text is counted by itself:
//!
//! ```
//! use tower_gemini::token_precheck::tokenizer::Tokenizer;
//!
//! let body = br#"{"contents": [{"parts": [{"text": "What is your name?"}]}],
//!                 "systemInstruction": {"parts": [{"text": "You are a cat."}]}}"#;
//! assert_eq!(Tokenizer::gemma3().count_request(body).unwrap().exact(), Some(10));
//! ```
//!
//! # Bounds
//!
//! Words are short: in 13 MB of documents in many languages, the longest stretch without a cut had 150 characters, and those
//! of more than 32 made up a third of a percent. An attacker's are as long as the body. So a stretch of more than
//! [`Counter::LONGEST_STRETCH`] characters is not merged, nor are stretches of more than 32 once a counter has merged
//! [`Counter::ALLOWANCE`] characters of such. They count as at least a sixteenth of their characters, which is the longest
//! piece, and at most as many as they have. A megabyte took 2 to 31 ms in the benchmark, whatever was in it; random words of
//! 32 letters took the longest. A [limit](Counter::limit) ends the count of a larger body as soon as it is passed.
//!
//! # Special pieces
//!
//! Gemma 3 takes 76 tags and marks for one token where they are written out in a text, such as `<table>`, `</li>` and
//! `<start_of_turn>`; so does this counter for Gemma 3. For Gemma 4 it takes the 24 special tokens of its published
//! tokenizer so, such as `<|turn>` and `<bos>`.
//!
//! # Where it comes from
//!
//! The vocabulary is Google's, of `google/gemma-4-12B-it`, under Apache-2.0; see the file NOTICE. `tests/tokenizer` makes the
//! packed form, and compares the counts with Google's own local tokenizer and with Hugging Face's.

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
use super::{
    Count, CountTokens, TextCounter,
    scan::{self, Unread},
};

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
