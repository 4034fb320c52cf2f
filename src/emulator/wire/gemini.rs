//! Generated answers in the shapes of the Developer API and Vertex.

use bytes::Bytes;
use serde::Serialize;

use super::{
    answer::{AnswerFrames, EmptyAnswer, GeneratedAnswer},
    json::{line, pretty, with_line_end},
};
use crate::call::Streaming;

/// Writes an answer in one piece.
pub(crate) fn response(answer: &GeneratedAnswer) -> Bytes {
    with_line_end(pretty(&ResponseJson::new(answer, 0..answer.pieces.len())))
}

/// Writes an answer as a stream of events, or of array elements.
pub(crate) fn frames(answer: &GeneratedAnswer, streaming: Streaming) -> AnswerFrames {
    let pieces = answer.streamed_pieces();
    let last = pieces - 1;
    let frame = |at: usize| {
        let response = ResponseJson::new(answer, at..at + 1);
        match streaming {
            Streaming::Array => {
                let before = if at == 0 { "[" } else { ",\r\n" };
                let after = if at == last { "\n]" } else { "\n" };
                format!("{before}{}{after}", pretty(&response)).into()
            }
            _ => event(&line(&response)),
        }
    };
    AnswerFrames { frames: (0..pieces).map(frame).collect(), finish: last }
}

/// Writes an event as Google does: one line of data, and lines that end in CR LF.
pub(crate) fn event(json: &str) -> Bytes {
    format!("data: {json}\r\n\r\n").into()
}

// === shapes ===

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResponseJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    candidates: Option<[CandidateJson<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_feedback: Option<PromptFeedback<'a>>,
    usage_metadata: UsageMetadata,
    model_version: &'a str,
    response_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CandidateJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<ContentJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_message: Option<&'a str>,
    index: u32,
}

#[derive(Serialize)]
struct ContentJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<Vec<PartJson>>,
    role: &'static str,
}

#[derive(Serialize)]
struct PartJson {
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
pub(crate) struct ModalityTokens {
    modality: &'static str,
    token_count: u64,
}

// === impl ResponseJson ===

impl<'a> ResponseJson<'a> {
    /// Shapes those pieces of an answer.
    fn new(answer: &'a GeneratedAnswer, pieces: std::ops::Range<usize>) -> Self {
        let block_reason = match &answer.empty {
            Some(EmptyAnswer::PromptBlocked(reason)) => Some(reason),
            _ => None,
        };
        Self {
            usage_metadata: UsageMetadata::new(answer, pieces.end),
            candidates: CandidateJson::new(answer, pieces).map(|candidate| [candidate]),
            prompt_feedback: block_reason.map(|block_reason| PromptFeedback { block_reason }),
            model_version: &answer.model_version,
            response_id: &answer.id,
        }
    }
}

impl<'a> CandidateJson<'a> {
    fn new(answer: &'a GeneratedAnswer, pieces: std::ops::Range<usize>) -> Option<Self> {
        let is_last = pieces.end >= answer.pieces.len();
        let (content, finish_reason, finish_message) = match &answer.empty {
            None => (Some(ContentJson::new(answer, pieces)), is_last.then_some("STOP"), None),
            Some(EmptyAnswer::NoParts) => (Some(ContentJson { parts: None, role: "model" }), Some("STOP"), None),
            Some(EmptyAnswer::MalformedFunctionCall) => {
                let message = "Malformed function call: print(default_api.emulated(1)";
                (None, Some("MALFORMED_FUNCTION_CALL"), Some(message))
            }
            Some(EmptyAnswer::Blocked(reason)) => (None, Some(reason.as_str()), None),
            Some(EmptyAnswer::PromptBlocked(_)) => return None,
        };
        Some(Self { content, finish_reason, finish_message, index: 0 })
    }
}

impl ContentJson {
    fn new(answer: &GeneratedAnswer, pieces: std::ops::Range<usize>) -> Self {
        let thought = answer.thought.filter(|_| pieces.start == 0);
        let thought = thought.map(|thought| PartJson { text: thought.into(), thought: Some(true) });
        let text = answer.pieces.get(pieces).unwrap_or_default().concat();
        let parts = thought.into_iter().chain([PartJson { text, thought: None }]).collect();
        Self { parts: Some(parts), role: "model" }
    }
}

impl UsageMetadata {
    fn new(answer: &GeneratedAnswer, pieces: usize) -> Self {
        let answered = if answer.empty.is_some() { 0 } else { answer.tokens_until(pieces) };
        Self {
            prompt_token_count: answer.prompt_tokens,
            candidates_token_count: (answered > 0).then_some(answered),
            total_token_count: answer.prompt_tokens + answered + answer.thought_tokens,
            prompt_tokens_details: [ModalityTokens::of_text(answer.prompt_tokens)],
            thoughts_token_count: (answer.thought_tokens > 0).then_some(answer.thought_tokens),
        }
    }
}

impl ModalityTokens {
    pub(crate) fn of_text(token_count: u64) -> Self {
        Self { modality: "TEXT", token_count }
    }
}
