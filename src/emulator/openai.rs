//! The OpenAI-compatible surface's shapes, as Google fills them.

use bytes::Bytes;
use serde::Serialize;

use super::{
    answer::{Answer, Frames, line},
    asked::Embedding,
    lists::vector,
    model::Model,
    trouble::Verdict,
};

pub(super) fn completion(answer: &Answer) -> Bytes {
    let finish_reason = finish_reason(answer);
    let content = answer.verdict.is_none().then(|| answer.pieces.concat());
    let choice = Choice { finish_reason, index: 0, message: Some(Message { content, role: "assistant" }), delta: None };
    line(&Completion {
        choices: vec![choice],
        created: answer.created,
        id: &answer.id,
        model: &answer.model,
        object: "chat.completion",
        usage: Some(usage(answer, answer.pieces.len())),
    })
    .into()
}

pub(super) fn frames(answer: &Answer) -> Frames {
    let pieces = if answer.verdict.is_some() { 1 } else { answer.pieces.len().max(1) };
    let mut frames: Vec<Bytes> = (0..pieces)
        .map(|at| {
            let content = answer.pieces.get(at).filter(|_| answer.verdict.is_none()).cloned();
            let choice = Choice {
                finish_reason: finish_reason(answer).filter(|_| at + 1 == pieces),
                index: 0,
                message: None,
                delta: Some(Message { content, role: "assistant" }),
            };
            event(&line(&Completion {
                choices: vec![choice],
                created: answer.created,
                id: &answer.id,
                model: &answer.model,
                object: "chat.completion.chunk",
                usage: answer.wants_usage.then(|| usage(answer, at + 1)),
            }))
        })
        .collect();
    frames.push(event("[DONE]"));
    Frames { frames, finish: pieces - 1 }
}

pub(super) fn event(data: &str) -> Bytes {
    format!("data: {data}\n\n").into()
}

pub(super) fn embeddings(asked: &Embedding, model: &str, seed: u64) -> Bytes {
    let data = asked.texts.iter().enumerate().map(|(index, text)| {
        let values = vector(text, asked.dimensions, seed);
        let embedding = match asked.base64 {
            true => Vector::Encoded(base64(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())),
            false => Vector::Plain(values),
        };
        EmbeddingEntry { embedding, index, object: "embedding" }
    });
    let usage = EmbeddingUsage { prompt_tokens: asked.tokens, total_tokens: asked.tokens };
    line(&EmbeddingList { data: data.collect(), model, object: "list", usage }).into()
}

pub(super) fn model_list(models: &[Model]) -> Bytes {
    line(&List { object: "list", data: models.iter().map(entry).collect::<Vec<_>>() }).into()
}

pub(super) fn one_model(model: &Model) -> Bytes {
    line(&entry(model)).into()
}

fn entry(model: &Model) -> ModelEntry {
    ModelEntry { id: format!("models/{}", model.name), object: "model", owned_by: "google" }
}

fn finish_reason(answer: &Answer) -> Option<&'static str> {
    Some(match &answer.verdict {
        None | Some(Verdict::Empty) => "stop",
        Some(Verdict::MalformedFunctionCall) => "function_call_filter: MALFORMED_FUNCTION_CALL",
        Some(Verdict::Blocked(_) | Verdict::PromptBlocked(_)) => "content_filter",
    })
}

fn usage(answer: &Answer, pieces: usize) -> Usage {
    let completion_tokens = match answer.verdict {
        None => answer.tokens_until(pieces) + answer.thought_tokens,
        Some(_) => 0,
    };
    let total_tokens = answer.prompt_tokens + completion_tokens;
    Usage { completion_tokens, prompt_tokens: answer.prompt_tokens, total_tokens }
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
struct Completion<'a> {
    choices: Vec<Choice>,
    created: u64,
    id: &'a str,
    model: &'a str,
    object: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct Choice {
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_reason: Option<&'static str>,
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message>,
}

#[derive(Serialize)]
struct Message {
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    role: &'static str,
}

#[derive(Serialize)]
struct Usage {
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
struct List<T> {
    object: &'static str,
    data: Vec<T>,
}

#[derive(Serialize)]
struct ModelEntry {
    id: String,
    object: &'static str,
    owned_by: &'static str,
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
