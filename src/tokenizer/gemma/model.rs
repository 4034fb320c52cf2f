//! The vocabulary of each model.

use super::Tokenizer;

/// The reliability of a count by a model's vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exactness {
    /// Google's SDK counts this model's tokens by this vocabulary.
    Exact,
    /// The vocabulary is presumed, because it is that of the model's family.
    Estimate,
}

/// The models that Google's SDK counts with Gemma 3's vocabulary.
const GEMMA3: [&str; 8] = [
    "gemini-2.0-flash",
    "gemini-2.0-flash-lite",
    "gemini-2.5-pro",
    "gemini-2.5-flash",
    "gemini-2.5-flash-lite",
    "gemini-live-2.5-flash",
    "gemini-3-pro-preview",
    "gemini-3-flash-preview",
];

/// The models that Google's SDK counts with Gemma 4's vocabulary.
const GEMMA4: [&str; 3] = ["gemini-3.1-pro-preview", "gemini-3.1-flash-lite", "gemini-3.5-flash"];

pub(super) fn for_model(model: &str) -> (Tokenizer, Exactness) {
    let name = model.rsplit('/').next().unwrap_or(model);
    if GEMMA3.iter().any(|known| is_version(name, known)) {
        (Tokenizer::gemma3(), Exactness::Exact)
    } else if GEMMA4.iter().any(|known| is_version(name, known)) {
        (Tokenizer::gemma4(), Exactness::Exact)
    } else if ["gemini-2.", "gemini-3-", "gemma-3"].iter().any(|kin| name.starts_with(kin)) {
        (Tokenizer::gemma3(), Exactness::Estimate)
    } else {
        (Tokenizer::gemma4(), Exactness::Estimate)
    }
}

/// Returns whether `name` is the known model, or a numbered, dated or preview version of it: `-001`, `-preview-06-05`,
/// `-exp-03-25`.
fn is_version(name: &str, known: &str) -> bool {
    name.strip_prefix(known).is_some_and(|rest| {
        let mut words = rest.split('-');
        let version = |word: &str| matches!(word, "preview" | "exp") || word.bytes().all(|byte| byte.is_ascii_digit());
        words.next() == Some("") && words.all(|word| !word.is_empty() && version(word))
    })
}
