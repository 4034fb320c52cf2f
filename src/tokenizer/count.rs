//! The traits of a counter of tokens, and the count that it returns.

use std::fmt;

/// A counter of the tokens of requests, exact or within bounds.
///
/// It is used only where the number of bytes alone decides nothing. Requests with more than 64 KiB of text in all are
/// counted on tokio's blocking threads.
///
/// ```
/// use tower_gemini::{TokenPrecheckLayer, tokenizer::{Count, CountTokens, TextCounter}};
/// /// A counter of words, which does not count tokens.
/// #[derive(Debug)]
/// struct Words;
///
/// impl CountTokens for Words {
///     fn counter(&self, _model: &str) -> Box<dyn TextCounter> {
///         Box::new(WordCounter(Count::default()))
///     }
/// }
///
/// struct WordCounter(Count);
///
/// impl TextCounter for WordCounter {
///     fn push(&mut self, text: &str) {
///         self.0 += Count::between(text.split_whitespace().count() as u64, text.len() as u64);
///     }
///
///     fn count(&self) -> Count {
///         self.0
///     }
/// }
///
/// let layer = TokenPrecheckLayer::default().counter(Words);
/// # drop(layer);
/// ```
pub trait CountTokens: fmt::Debug + Send + Sync + 'static {
    /// Makes a counter for one request to this model.
    fn counter(&self, model: &str) -> Box<dyn TextCounter>;
}

/// A counter of the texts of one request: contents, function calls, declarations, schemas, the system instruction.
pub trait TextCounter {
    /// Adds a text, which is counted by itself, without a beginning-of-text token.
    fn push(&mut self, text: &str);

    /// Returns the tokens of all texts so far.
    fn count(&self) -> Count;
}

/// A number of tokens, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Count {
    /// The proven lower bound.
    pub at_least: u64,
    /// The proven upper bound.
    pub at_most: u64,
}

impl Count {
    /// Makes an exact count.
    pub const fn exactly(tokens: u64) -> Self {
        Self { at_least: tokens, at_most: tokens }
    }

    /// Makes a count that is known within bounds, both included.
    pub const fn between(at_least: u64, at_most: u64) -> Self {
        Self { at_least, at_most }
    }

    /// Returns the number, if it is exact.
    pub const fn exact(self) -> Option<u64> {
        if self.is_exact() { Some(self.at_least) } else { None }
    }

    #[cfg(feature = "tokenizer")]
    pub(super) fn add(&mut self, tokens: u64) {
        *self += Self::exactly(tokens);
    }

    /// Returns whether both bounds are the same.
    pub const fn is_exact(self) -> bool {
        self.at_least == self.at_most
    }

    /// Returns the bounds that follow from a text's length alone, for the vocabulary of Gemini and Gemma: none of its
    /// pieces is longer than 48 bytes or 31 characters, and none is shorter than a byte.
    pub fn by_length(text: &str) -> Self {
        Self::by_bytes(text.len())
    }

    /// Returns the bounds of a text of so many bytes.
    pub(crate) fn by_bytes(bytes: usize) -> Self {
        Self { at_least: (bytes as u64).div_ceil(48), at_most: bytes as u64 }
    }
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.at_least = self.at_least.saturating_add(other.at_least);
        self.at_most = self.at_most.saturating_add(other.at_most);
    }
}
