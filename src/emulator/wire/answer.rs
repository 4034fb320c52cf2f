//! A generated answer, before it has the shape of a surface.

use bytes::Bytes;

use super::prompt::{Prompt, tokens_of};
use crate::{call::ServiceTier, emulator::seeded::seeded};

/// An answer to one prompt.
#[derive(Clone, Debug)]
pub(crate) struct GeneratedAnswer {
    /// The text, in the pieces that a stream sends.
    pub(crate) pieces: Vec<String>,
    /// The reason that there is no text, if there is none.
    pub(crate) empty: Option<EmptyAnswer>,
    /// The thought that is shown.
    pub(crate) thought: Option<&'static str>,
    pub(crate) prompt_tokens: u64,
    pub(crate) thought_tokens: u64,
    /// The name of the model that was requested.
    pub(crate) model: String,
    /// The name that it resolves to.
    pub(crate) model_version: String,
    pub(crate) id: String,
    /// Seconds since 1970, by the emulator's clock.
    pub(crate) created: u64,
    pub(crate) wants_usage: bool,
    /// The tier of service that served the request, if the request named one.
    pub(crate) tier: Option<ServiceTier>,
    /// The answer is Vertex's, which names the type of traffic.
    pub(crate) is_on_vertex: bool,
}

/// An answer with status 200 and without text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EmptyAnswer {
    /// A STOP without a part.
    NoParts,
    MalformedFunctionCall,
    /// Thoughts, and then a MALFORMED_FUNCTION_CALL.
    ThoughtsOnly,
    /// A CONTINUATION without a part, and the token to go on with.
    Continuation(String),
    /// An interaction with that status, such as `failed`; elsewhere a STOP without a part.
    Unfinished(String),
    /// A candidate without content, with this finishReason.
    Blocked(String),
    /// No candidate, and a promptFeedback with this blockReason.
    PromptBlocked(String),
}

/// A streamed answer: each frame is one event or array element, ready for the wire.
#[derive(Debug)]
pub(crate) struct AnswerFrames {
    pub(crate) frames: Vec<Bytes>,
    /// The index of the frame with the finishReason. A broken answer ends before it.
    pub(crate) finish: usize,
}

/// The text of the thoughts.
pub(crate) const THOUGHT: &str = "**Thinking about it**\n\nThe emulator pretends to think.\n\n";

// === impl GeneratedAnswer ===

impl GeneratedAnswer {
    /// Makes an answer of that text, to be streamed in `chunks` pieces.
    pub(crate) fn new(text: &str, chunks: usize, prompt: &Prompt, model: &str, model_version: &str) -> Self {
        Self {
            pieces: pieces(text, chunks),
            empty: None,
            thought: None,
            prompt_tokens: prompt.tokens,
            thought_tokens: 0,
            model: model.to_owned(),
            model_version: model_version.to_owned(),
            id: String::new(),
            created: 0,
            wants_usage: prompt.wants_usage,
            tier: prompt.tier,
            is_on_vertex: false,
        }
    }

    /// Puts a thought before the text: always counted, and `shown` only to a caller that asked for thoughts.
    pub(crate) fn think(&mut self, shown: bool) {
        self.thought_tokens = tokens_of(THOUGHT);
        self.thought = shown.then_some(THOUGHT);
    }

    /// Returns the number of events or elements in which the answer is streamed.
    pub(crate) fn streamed_pieces(&self) -> usize {
        match self.empty {
            None => self.pieces.len().max(1),
            Some(EmptyAnswer::ThoughtsOnly) => 2,
            Some(_) => 1,
        }
    }

    /// Returns the tokens of the first `pieces` pieces.
    pub(crate) fn tokens_until(&self, pieces: usize) -> u64 {
        let bytes: usize = self.pieces.iter().take(pieces).map(String::len).sum();
        bytes.div_ceil(4) as u64
    }
}

// === impl AnswerFrames ===

impl AnswerFrames {
    /// Keeps the first `frames` frames, and never the one with the finishReason.
    pub(crate) fn break_after(&mut self, frames: usize) {
        self.frames.truncate(frames.min(self.finish));
    }
}

/// Returns an identifier that looks like Google's: the same for the same seed and number.
pub(crate) fn response_id(seed: u64, number: u64) -> String {
    let mut rng = seeded(seed, &number.to_string());
    (0..22).map(|_| rng.alphanumeric()).collect()
}

fn pieces(text: &str, chunks: usize) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let chunks = chunks.clamp(1, characters.len().max(1));
    let at = |chunk: usize| chunk * characters.len() / chunks;
    (0..chunks).map(|chunk| characters[at(chunk)..at(chunk + 1)].iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_put_together_are_the_text() {
        for text in ["", "a", "You said: h\u{e9}llo w\u{f6}rld"] {
            for chunks in 0..40 {
                let pieces = pieces(text, chunks);
                assert_eq!(pieces.concat(), text);
                assert!(pieces.len() <= chunks.max(1));
            }
        }
    }
}
