//! The shapes of the OpenAI-compatible surface, filled as Google fills them.

use bytes::Bytes;
use serde::Serialize;

use super::{
    answer::{AnswerFrames, EmptyAnswer, GeneratedAnswer},
    embedding::EmbeddingRequest,
    json::line,
};
use crate::call::ServiceTier;

/// Writes an answer in one piece.
pub(crate) fn completion(answer: &GeneratedAnswer) -> Bytes {
    let content = answer.empty.is_none().then(|| answer.pieces.concat());
    let choice = ChatChoice {
        finish_reason: finish_reason(answer),
        index: 0,
        message: Some(ChatMessage { content, role: "assistant" }),
        delta: None,
    };
    let usage = ChatUsage::new(answer, answer.pieces.len());
    line(&ChatCompletion::new(answer, "chat.completion", choice, Some(usage))).into()
}

/// Writes an answer as a stream of events.
pub(crate) fn frames(answer: &GeneratedAnswer) -> AnswerFrames {
    let pieces = answer.streamed_pieces();
    let frame = |at: usize| {
        let content = answer.pieces.get(at).filter(|_| answer.empty.is_none()).cloned();
        let choice = ChatChoice {
            finish_reason: finish_reason(answer).filter(|_| at + 1 == pieces),
            index: 0,
            message: None,
            delta: Some(ChatMessage { content, role: "assistant" }),
        };
        let usage = answer.wants_usage.then(|| ChatUsage::new(answer, at + 1));
        event(&line(&ChatCompletion::new(answer, "chat.completion.chunk", choice, usage)))
    };
    let frames = (0..pieces).map(frame).chain([event("[DONE]")]).collect();
    AnswerFrames { frames, finish: pieces - 1 }
}

pub(crate) fn event(data: &str) -> Bytes {
    format!("data: {data}\n\n").into()
}

pub(crate) fn embeddings(request: &EmbeddingRequest, model: &str, seed: u64) -> Bytes {
    let data = request.vectors(seed).enumerate().map(|(index, vector)| {
        let embedding = match request.base64 {
            true => Vector::Encoded(base64(&vector.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())),
            false => Vector::Plain(vector),
        };
        EmbeddingEntry { embedding, index, object: "embedding" }
    });
    let usage = EmbeddingUsage { prompt_tokens: request.tokens, total_tokens: request.tokens };
    line(&EmbeddingList { data: data.collect(), model, object: "list", usage }).into()
}

pub(crate) fn model_list<'a>(names: impl Iterator<Item = &'a str>) -> Bytes {
    line(&ModelList { object: "list", data: names.map(ModelEntry::new).collect() }).into()
}

pub(crate) fn one_model(name: &str) -> Bytes {
    line(&ModelEntry::new(name)).into()
}

fn finish_reason(answer: &GeneratedAnswer) -> Option<&'static str> {
    Some(match &answer.empty {
        None | Some(EmptyAnswer::NoParts | EmptyAnswer::Unfinished(_)) => "stop",
        Some(EmptyAnswer::Continuation(_)) => "length",
        Some(EmptyAnswer::MalformedFunctionCall | EmptyAnswer::ThoughtsOnly) => {
            "function_call_filter: MALFORMED_FUNCTION_CALL"
        }
        Some(EmptyAnswer::Blocked(_) | EmptyAnswer::PromptBlocked(_)) => "content_filter",
    })
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            match digit <= group.len() {
                true => text.push(char::from(ALPHABET[(bits >> (18 - 6 * digit) & 63) as usize])),
                false => text.push('='),
            }
        }
    }
    text
}

// === shapes ===

#[derive(Serialize)]
struct ChatCompletion<'a> {
    choices: [ChatChoice; 1],
    created: u64,
    id: &'a str,
    model: &'a str,
    object: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<ChatUsage>,
}

#[derive(Serialize)]
struct ChatChoice {
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<ChatMessage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_reason: Option<&'static str>,
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<ChatMessage>,
}

#[derive(Serialize)]
struct ChatMessage {
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    role: &'static str,
}

#[derive(Serialize)]
struct ChatUsage {
    completion_tokens: u64,
    prompt_tokens: u64,
    total_tokens: u64,
}

#[derive(Serialize)]
struct EmbeddingList<'a> {
    data: Vec<EmbeddingEntry>,
    model: &'a str,
    object: &'static str,
    usage: EmbeddingUsage,
}

#[derive(Serialize)]
struct EmbeddingEntry {
    embedding: Vector,
    index: usize,
    object: &'static str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Plain(Vec<f32>),
    Encoded(String),
}

#[derive(Serialize)]
struct EmbeddingUsage {
    prompt_tokens: u64,
    total_tokens: u64,
}

#[derive(Serialize)]
struct ModelList {
    object: &'static str,
    data: Vec<ModelEntry>,
}

#[derive(Serialize)]
struct ModelEntry {
    id: String,
    object: &'static str,
    owned_by: &'static str,
}

impl<'a> ChatCompletion<'a> {
    fn new(answer: &'a GeneratedAnswer, object: &'static str, choice: ChatChoice, usage: Option<ChatUsage>) -> Self {
        let GeneratedAnswer { created, id, model, .. } = answer;
        let service_tier = answer.tier.map(ServiceTier::as_str);
        Self { choices: [choice], created: *created, id, model, object, service_tier, usage }
    }
}

impl ChatUsage {
    fn new(answer: &GeneratedAnswer, pieces: usize) -> Self {
        let completion_tokens = match answer.empty {
            None => answer.tokens_until(pieces) + answer.thought_tokens,
            Some(_) => 0,
        };
        let total_tokens = answer.prompt_tokens + completion_tokens;
        Self { completion_tokens, prompt_tokens: answer.prompt_tokens, total_tokens }
    }
}

impl ModelEntry {
    fn new(name: &str) -> Self {
        Self { id: format!("models/{name}"), object: "model", owned_by: "google" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads() {
        for (plain, encoded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }
}
