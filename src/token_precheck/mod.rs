//! Counts tokens before they are sent.
//!
//! [`texts`] finds the texts in a request that count. [`estimate`] guesses their tokens from their characters, and
//! `tokenizer`, behind the feature of its name, counts them exactly.

pub mod estimate;
pub mod texts;
#[cfg(feature = "tokenizer")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokenizer")))]
pub mod tokenizer;
