//! A token counter: counts the tokens of a text as Google's models do, exactly and without a call.
//!
//! Without it, the cost of a request is not known before it is sent: four bytes a token undercounts by a fifth in the
//! median and by two thirds at worst, and `countTokens` is another call, with a quota and a latency of its own.
//!
//! Gemini's texts are cut into pieces of Gemma's vocabulary of 262,144, the same in Gemma 3 and Gemma 4 except for the
//! special ones. The counter has that vocabulary as a list of merges (1.2 MB in the program). It cuts a text where no
//! piece can reach across, remembers the counts of the words in between, and merges only those that it has not seen. It
//! reads mixed text at about 100 MB/s on one core, where SentencePiece reads 1.6 and the next fastest 14; it uses 7 MB,
//! and starts in 10 to 20 ms.
//!
//! It never guesses: where counting would cost too much, it returns proven bounds of the count. And it counts text
//! only: no media, no cached content, and not the few tokens that the upstream adds for each turn.
//!
//! ```
//! use tower_gemini::tokenizer::{Exactness, Tokenizer};
//!
//! let (tokenizer, exactness) = Tokenizer::for_model("gemini-2.5-flash");
//! assert_eq!(exactness, Exactness::Exact);
//! assert_eq!(tokenizer.count("What is your name?").exact(), Some(5));
//! // A text with more tokens than the limit is not read to its end.
//! assert!(tokenizer.count_until(&"word ".repeat(1_000_000), 100).at_least > 100);
//! ```
//!
//! A whole request, whose texts are counted one by one:
//!
//! ```
//! use tower_gemini::tokenizer::Tokenizer;
//!
//! let body = br#"{"contents": [{"parts": [{"text": "What is your name?"}]}],
//!                 "systemInstruction": {"parts": [{"text": "You are a cat."}]}}"#;
//! assert_eq!(Tokenizer::gemma3().count_request(body).unwrap().exact(), Some(10));
//! ```
//!
//! # Bounds
//!
//! Words are short: in 13 MB of documents in many languages, the longest stretch without a cut had 150 characters, and
//! those of more than 32 made up a third of a percent. An attacker's are as long as the body. So a stretch of more than
//! [`Counter::LONGEST_STRETCH`] characters is not merged, and neither are stretches of more than 32 once a counter has
//! merged [`Counter::ALLOWANCE`] characters of such stretches. They count as at least a sixteenth of their characters,
//! because the longest piece has 16, and as at most all of them. A megabyte took 2 to 31 ms in the benchmark, whatever
//! its content; random words of 32 letters took the longest. A [limit](Counter::limit) ends the count as soon as it is
//! passed.
//!
//! # Special pieces
//!
//! Gemma 3 takes 76 tags and marks for one token each where they are written out in a text, such as `<table>`, `</li>`
//! and `<start_of_turn>`, and so does this counter. For Gemma 4 it does the same with the 24 special tokens of the
//! published tokenizer, such as `<|turn>` and `<bos>`.
//!
//! # Source
//!
//! The vocabulary is Google's, of `google/gemma-4-12B-it`, under Apache-2.0; see the file NOTICE. `tests/tokenizer`
//! makes the packed form, and compares the counts with Google's own local tokenizer and with Hugging Face's.
//!
//! # Without the feature
//!
//! [`CountTokens`] and [`TextCounter`] are the traits for a counter of your own, and [`Count`] is its result. They need
//! no feature; the vocabulary needs `tokenizer`.

mod count;
#[cfg(feature = "tokenizer")]
mod gemma;

pub use self::count::{Count, CountTokens, TextCounter};
#[cfg(feature = "tokenizer")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokenizer")))]
pub use self::gemma::{Counter, Exactness, Tokenizer};

/// Returns the default counter: none without the feature `tokenizer`.
pub(crate) fn default_counter() -> Option<std::sync::Arc<dyn CountTokens>> {
    #[cfg(feature = "tokenizer")]
    return Some(std::sync::Arc::new(gemma::ByModel));
    #[cfg(not(feature = "tokenizer"))]
    None
}
