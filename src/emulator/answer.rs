//! Answers, with the members that Google's have.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use serde::Serialize;

use super::{
    asked::{Prompt, tokens_of},
    errors::pretty,
    model::Model,
    openai,
    trouble::Verdict,
};
use crate::call::{Streaming, Surface};

/// What the emulator answers to a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// "You said: " and the first 1,000 characters of the last turn.
    #[default]
    Echo,
    /// So many words, chosen by the emulator's seed and the prompt: the same prompt always gets the same words.
    Words(usize),
    /// Always that text.
    Text(String),
}

/// An answer to one prompt, before it has taken any surface's shape.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) pieces: Vec<String>,
    pub(super) verdict: Option<Verdict>,
    pub(super) thought: Option<&'static str>,
    pub(super) prompt_tokens: u64,
    pub(super) thought_tokens: u64,
    /// The name that was asked for, and what it stands for.
    pub(super) model: String,
    pub(super) model_version: String,
    pub(super) id: String,
    /// Seconds since 1970, on the emulator's clock.
    pub(super) created: u64,
    pub(super) wants_usage: bool,
}

/// A streamed answer: each frame is one event or element, ready for the wire.
#[derive(Debug)]
pub(super) struct Frames {
    pub(super) frames: Vec<Bytes>,
    /// The frame that says how it finished: what breaks off breaks off before it.
    pub(super) finish: usize,
}

const ECHO_CHARACTERS: usize = 1_000;
const THOUGHT: &str = "**Thinking about it**\n\nThe emulator pretends to think.\n\n";
const WORDS: [&str; 24] = [
    "amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "harbor", "island", "juniper", "kestrel", "lagoon",
    "meadow", "nectar", "orchid", "pebble", "quartz", "river", "saffron", "thicket", "umber", "valley", "willow",
    "zephyr",
];

// === impl Answer ===

impl Answer {
    pub(super) fn new(prompt: &Prompt, model: &Model, reply: &Reply, chunks: usize, seed: u64) -> Self {
        let text = match reply {
            Reply::Echo => {
                let said = prompt.last_turn();
                let end = said.char_indices().nth(ECHO_CHARACTERS).map_or(said.len(), |(at, _)| at);
                format!("You said: {}", &said[..end])
            }
            Reply::Words(count) => {
                let mut rng = seeded(seed, &prompt.text);
                let words: Vec<&str> = (0..*count).map(|_| WORDS[rng.usize(..WORDS.len())]).collect();
                words.join(" ")
            }
            Reply::Text(text) => text.clone(),
        };
        Self {
            pieces: pieces(&text, chunks),
            verdict: None,
            thought: None,
            prompt_tokens: prompt.tokens,
            thought_tokens: 0,
            model: model.name.clone(),
            model_version: model.resolved.clone(),
            id: String::new(),
            created: 0,
            wants_usage: prompt.wants_usage,
        }
    }

    pub(super) fn think(&mut self, shown: bool) {
        self.thought_tokens = tokens_of(THOUGHT);
        self.thought = shown.then_some(THOUGHT);
    }

    /// In one piece.
    pub(super) fn whole(&self, surface: Surface) -> Bytes {
        match surface {
            Surface::OpenAi => openai::completion(self),
            _ => with_line_end(pretty(&self.response(0..self.pieces.len()))),
        }
    }

    /// Piece by piece.
    pub(super) fn frames(&self, surface: Surface, streaming: Streaming) -> Frames {
        if surface == Surface::OpenAi {
            return openai::frames(self);
        }
        let pieces = if self.verdict.is_some() { 1 } else { self.pieces.len().max(1) };
        let last = pieces - 1;
        let frame = |at: usize| {
            let response = self.response(at..at + 1);
            match streaming {
                Streaming::Array => {
                    let before = if at == 0 { "[" } else { ",\r\n" };
                    let after = if at == last { "\n]" } else { "\n" };
                    format!("{before}{}{after}", pretty(&response)).into()
                }
                _ => event(&line(&response)),
            }
        };
        Frames { frames: (0..pieces).map(frame).collect(), finish: last }
    }

    /// The candidates' tokens, up to that piece.
    pub(super) fn tokens_until(&self, piece: usize) -> u64 {
        let bytes: usize = self.pieces.iter().take(piece).map(String::len).sum();
        bytes.div_ceil(4) as u64
    }

    fn response(&self, pieces: std::ops::Range<usize>) -> Response<'_> {
        let first = pieces.start == 0;
        let last = pieces.end >= self.pieces.len();
        let answered = self.tokens_until(pieces.end);
        let text = self.pieces.get(pieces).unwrap_or_default().concat();
        let mut parts = Vec::new();
        if let (Some(thought), true) = (self.thought, first) {
            parts.push(Part { text: thought.into(), thought: Some(true) });
        }
        parts.push(Part { text, thought: None });
        let content = Content { parts: Some(parts), role: "model" };
        let finished = last.then_some("STOP");
        let candidate = match &self.verdict {
            None => Some(Candidate { content: Some(content), finish_reason: finished, finish_message: None, index: 0 }),
            Some(Verdict::Empty) => Some(Candidate {
                content: Some(Content { parts: None, role: "model" }),
                finish_reason: Some("STOP"),
                finish_message: None,
                index: 0,
            }),
            Some(Verdict::MalformedFunctionCall) => Some(Candidate {
                content: None,
                finish_reason: Some("MALFORMED_FUNCTION_CALL"),
                finish_message: Some("Malformed function call: print(default_api.emulated(1)"),
                index: 0,
            }),
            Some(Verdict::Blocked(reason)) => {
                Some(Candidate { content: None, finish_reason: Some(reason), finish_message: None, index: 0 })
            }
            Some(Verdict::PromptBlocked(_)) => None,
        };
        let answered = if self.verdict.is_some() { 0 } else { answered };
        let block_reason = match &self.verdict {
            Some(Verdict::PromptBlocked(reason)) => Some(PromptFeedback { block_reason: reason }),
            _ => None,
        };
        Response {
            candidates: candidate.map(|candidate| [candidate]),
            prompt_feedback: block_reason,
            usage_metadata: UsageMetadata {
                prompt_token_count: self.prompt_tokens,
                candidates_token_count: (answered > 0).then_some(answered),
                total_token_count: self.prompt_tokens + answered + self.thought_tokens,
                prompt_tokens_details: [ModalityTokens::of_text(self.prompt_tokens)],
                thoughts_token_count: (self.thought_tokens > 0).then_some(self.thought_tokens),
            },
            model_version: &self.model_version,
            response_id: &self.id,
        }
    }
}

/// An event as Google writes it: one line of data, and lines that end in CR LF.
pub(super) fn event(json: &str) -> Bytes {
    format!("data: {json}\r\n\r\n").into()
}

pub(super) fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

pub(super) fn with_line_end(json: String) -> Bytes {
    (json + "\n").into()
}

/// An identifier that looks like Google's and is always the same.
pub(super) fn response_id(seed: u64, number: u64) -> String {
    let mut rng = seeded(seed, &number.to_string());
    (0..22).map(|_| rng.alphanumeric()).collect()
}

fn pieces(text: &str, chunks: usize) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let chunks = chunks.clamp(1, characters.len().max(1));
    let at = |chunk: usize| chunk * characters.len() / chunks;
    (0..chunks).map(|chunk| characters[at(chunk)..at(chunk + 1)].iter().collect()).collect()
}

pub(super) fn seeded(seed: u64, text: &str) -> fastrand::Rng {
    let mut hasher = DefaultHasher::new();
    (seed, text).hash(&mut hasher);
    fastrand::Rng::with_seed(hasher.finish())
}

// === shapes ===

impl ModalityTokens {
    pub(super) fn of_text(token_count: u64) -> Self {
        Self { modality: "TEXT", token_count }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    candidates: Option<[Candidate<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_feedback: Option<PromptFeedback<'a>>,
    usage_metadata: UsageMetadata,
    model_version: &'a str,
    response_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Candidate<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Content>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_message: Option<&'a str>,
    index: u32,
}

#[derive(Serialize)]
struct Content {
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<Vec<Part>>,
    role: &'static str,
}

#[derive(Serialize)]
struct Part {
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    thought: Option<bool>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PromptFeedback<'a> {
    block_reason: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UsageMetadata {
    prompt_token_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidates_token_count: Option<u64>,
    total_token_count: u64,
    prompt_tokens_details: [ModalityTokens; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    thoughts_token_count: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ModalityTokens {
    modality: &'static str,
    token_count: u64,
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
