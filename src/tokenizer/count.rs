//! What a counter of tokens is asked, and what it answers.

use std::fmt;

/// Counts the tokens of requests, exactly or within bounds.
///
/// It is asked only where bytes alone decide nothing. What is over 64 KiB of text in all is counted on tokio's blocking
/// threads.
///
/// ```
/// use tower_gemini::{TokenPrecheckLayer, tokenizer::{Count, CountTokens, TextCounter}};
///
/// /// Counts words, which is no way to count tokens.
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
    /// A counter for one request to this model.
    fn counter(&self, model: &str) -> Box<dyn TextCounter>;
}

/// Counts the texts of one request: contents, function calls, declarations, schemas, the system instruction.
pub trait TextCounter {
    /// One more text, which is counted by itself, without a beginning-of-text token.
    fn push(&mut self, text: &str);

    /// The tokens of all texts so far.
    fn count(&self) -> Count;
}

/// A number of tokens, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Count {
    /// There are no fewer: proven.
    pub at_least: u64,
    /// There are no more: proven.
    pub at_most: u64,
}

impl Count {
    /// Counted.
    pub const fn exactly(tokens: u64) -> Self {
        Self { at_least: tokens, at_most: tokens }
    }

    /// No fewer and no more than that.
    pub const fn between(at_least: u64, at_most: u64) -> Self {
        Self { at_least, at_most }
    }

    /// The number, if nothing is left open.
    pub const fn exact(self) -> Option<u64> {
        if self.is_exact() { Some(self.at_least) } else { None }
    }

    #[cfg(feature = "tokenizer")]
    pub(super) fn add(&mut self, tokens: u64) {
        *self += Self::exactly(tokens);
    }

    /// Whether nothing is left open.
    pub const fn is_exact(self) -> bool {
        self.at_least == self.at_most
    }

    /// What is proven by a text's length alone, for the vocabulary of Gemini and Gemma: no piece of it is longer than 48
    /// bytes or 31 characters, and none is shorter than a byte.
    pub fn by_length(text: &str) -> Self {
        Self { at_least: (text.len() as u64).div_ceil(48), at_most: text.len() as u64 }
    }
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.at_least = self.at_least.saturating_add(other.at_least);
        self.at_most = self.at_most.saturating_add(other.at_most);
    }
}
