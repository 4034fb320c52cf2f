//! Generated answers in the shapes of the Developer API and Vertex.

use bytes::Bytes;
use serde::Serialize;

use super::{
    answer::{AnswerFrames, EmptyAnswer, GeneratedAnswer, THOUGHT},
    json::{line, pretty, with_line_end},
    tier::traffic_type,
};
use crate::call::{ServiceTier, Streaming};

/// Writes an answer in one piece.
pub(crate) fn response(answer: &GeneratedAnswer) -> Bytes {
    with_line_end(pretty(&ResponseJson::new(answer, 0..answer.pieces.len().max(answer.streamed_pieces()))))
}

/// Returns an answer in one piece as a JSON value, as results of batches have it.
pub(crate) fn response_value(answer: &GeneratedAnswer) -> serde_json::Value {
    serde_json::to_value(ResponseJson::new(answer, 0..answer.pieces.len().max(answer.streamed_pieces())))
        .unwrap_or_default()
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
    #[serde(skip_serializing_if = "Option::is_none")]
    continuation_token: Option<&'a str>,
    index: u32,
}

#[derive(Serialize)]
struct ContentJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<Vec<PartJson>>,
    role: &'static str,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct PartJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thought: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thought_signature: Option<&'static str>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traffic_type: Option<&'static str>,
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
        let is_last = pieces.end >= answer.streamed_pieces();
        let (content, finish_reason, finish_message) = match &answer.empty {
            None => (Some(ContentJson::new(answer, pieces)), is_last.then_some("STOP"), None),
            Some(EmptyAnswer::NoParts | EmptyAnswer::Unfinished(_)) => {
                (Some(ContentJson::without_parts()), Some("STOP"), None)
            }
            Some(EmptyAnswer::Continuation(_)) => (Some(ContentJson::without_parts()), Some("CONTINUATION"), None),
            Some(EmptyAnswer::MalformedFunctionCall) => (None, Some(MALFORMED), Some(MALFORMED_MESSAGE)),
            Some(EmptyAnswer::ThoughtsOnly) => (
                Some(ContentJson::of_thoughts(&pieces)),
                is_last.then_some(MALFORMED),
                is_last.then_some(MALFORMED_MESSAGE),
            ),
            Some(EmptyAnswer::Blocked(reason)) => (None, Some(reason.as_str()), None),
            Some(EmptyAnswer::PromptBlocked(_)) => return None,
        };
        let continuation_token = match &answer.empty {
            Some(EmptyAnswer::Continuation(token)) => Some(token.as_str()),
            _ => None,
        };
        Some(Self { content, finish_reason, finish_message, continuation_token, index: 0 })
    }
}

const MALFORMED: &str = "MALFORMED_FUNCTION_CALL";
const MALFORMED_MESSAGE: &str = "Malformed function call: print(default_api.emulated(1)";
/// The base64 of "emulated".
const SIGNATURE: &str = "ZW11bGF0ZWQ=";

impl ContentJson {
    fn new(answer: &GeneratedAnswer, pieces: std::ops::Range<usize>) -> Self {
        let thought = answer.thought.filter(|_| pieces.start == 0).map(PartJson::thought);
        let text =
            Some(answer.pieces.get(pieces.start..pieces.end.min(answer.pieces.len())).unwrap_or_default().concat());
        let parts = thought.into_iter().chain([PartJson { text, ..PartJson::default() }]).collect();
        Self { parts: Some(parts), role: "model" }
    }

    fn without_parts() -> Self {
        Self { parts: None, role: "model" }
    }

    /// Shapes thoughts alone: in one piece, or as a piece with the thought and one with its signature.
    fn of_thoughts(pieces: &std::ops::Range<usize>) -> Self {
        let part = match pieces.start {
            0 => PartJson::thought(THOUGHT),
            _ => PartJson { thought_signature: Some(SIGNATURE), ..PartJson::default() },
        };
        Self { parts: Some(vec![part]), role: "model" }
    }
}

impl PartJson {
    fn thought(thought: &str) -> Self {
        Self { text: Some(thought.into()), thought: Some(true), ..Self::default() }
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
            service_tier: answer.tier.filter(|_| !answer.is_on_vertex).map(ServiceTier::as_str),
            traffic_type: answer.tier.filter(|_| answer.is_on_vertex).map(traffic_type),
        }
    }
}

impl ModalityTokens {
    pub(crate) fn of_text(token_count: u64) -> Self {
        Self { modality: "TEXT", token_count }
    }
}
