//! The values of attributes and labels, in the terms of OpenTelemetry's conventions for generative AI where these have
//! one. Pure.

use std::borrow::Cow;

use http::Uri;

use crate::{
    call::{Call, Operation, Surface},
    context::UsageReport,
    failure::Failure,
    redact::redact,
};

/// The longest text of the caller's or the upstream's in a span, in bytes.
const MAX_TEXT: usize = 128;

/// The way in which a call or an attempt has ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum RecordEnd<'a> {
    Ok,
    /// The caller, or a layer outside, does not wait for it any more.
    Cancelled,
    Failed(&'a Failure),
}

impl<'a> RecordEnd<'a> {
    /// Returns the value of `outcome`: `ok`, `cancelled`, or the name of the fault.
    pub(super) fn outcome(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Cancelled => "cancelled",
            Self::Failed(failure) => failure.fault().as_str(),
        }
    }

    /// Returns the value of `error.type`: the failure's kind. A 499 of the service is `cancelled`, so that the caller's
    /// own cancellation has another name.
    pub(super) fn error_type(self) -> Option<&'static str> {
        match self {
            Self::Ok => None,
            Self::Cancelled => Some("cancelled_by_caller"),
            Self::Failed(failure) => Some(failure.kind().as_str()),
        }
    }

    pub(super) fn failure(self) -> Option<&'a Failure> {
        if let Self::Failed(failure) = self { Some(failure) } else { None }
    }
}

/// Returns the value of `gen_ai.operation.name`: the conventions' name, or else the API's in snake case.
pub(super) fn operation(call: &Call) -> &'static str {
    match call.operation() {
        Operation::GenerateContent if call.surface() == Surface::OpenAi => "chat",
        Operation::GenerateContent | Operation::CreateInteraction => "generate_content",
        Operation::EmbedContent | Operation::BatchEmbedContents => "embeddings",
        Operation::Predict => "predict",
        Operation::CountTokens => "count_tokens",
        Operation::ComputeTokens => "compute_tokens",
        Operation::ListModels => "list_models",
        Operation::GetModel => "get_model",
        Operation::Upload => "upload",
        Operation::Read => "read",
        Operation::Write => "write",
    }
}

/// Returns the value of `gen_ai.provider.name`.
pub(super) fn provider(call: &Call, uri: &Uri) -> &'static str {
    let is_vertex = uri.host().is_some_and(|host| host.ends_with("aiplatform.googleapis.com"));
    match call.surface() {
        _ if is_vertex => "gcp.vertex_ai",
        Surface::Vertex => "gcp.vertex_ai",
        Surface::OpenAi if uri.path().contains("/openapi/") => "gcp.vertex_ai",
        Surface::Developer | Surface::OpenAi | Surface::Interactions => "gcp.gemini",
        Surface::Other => "gcp.gen_ai",
    }
}

/// Counts all input tokens. The results of tools are billed as input too.
pub(super) fn input_tokens(usage: &UsageReport) -> Option<u64> {
    usage.prompt_tokens.map(|prompt| prompt.saturating_add(usage.tool_use_prompt_tokens.unwrap_or(0)))
}

/// Counts all output tokens, thoughts included, because they are billed. Gemini's own surfaces count thoughts
/// separately and the OpenAI-compatible one does not; the total is right for both.
pub(super) fn output_tokens(usage: &UsageReport) -> Option<u64> {
    let by_total = input_tokens(usage).zip(usage.total_tokens).and_then(|(input, total)| total.checked_sub(input));
    let by_parts = || match (usage.candidates_tokens, usage.thoughts_tokens) {
        (None, None) => None,
        (candidates, thoughts) => Some(candidates.unwrap_or(0).saturating_add(thoughts.unwrap_or(0))),
    };
    by_total.or_else(by_parts)
}

/// Makes a text of the caller's or the upstream's fit to be shown: without keys, and at most [`MAX_TEXT`] bytes long.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    match redact(text) {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..cut(text)]),
        Cow::Owned(mut text) => {
            text.truncate(cut(&text));
            Cow::Owned(text)
        }
    }
}

/// Finds the position at which a text is cut, between two characters.
fn cut(text: &str) -> usize {
    (0..=MAX_TEXT.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(prompt: u64, tools: Option<u64>, parts: [Option<u64>; 2], total: Option<u64>) -> UsageReport {
        let [candidates_tokens, thoughts_tokens] = parts;
        let (prompt_tokens, tool_use_prompt_tokens, total_tokens) = (Some(prompt), tools, total);
        UsageReport {
            prompt_tokens,
            tool_use_prompt_tokens,
            candidates_tokens,
            thoughts_tokens,
            total_tokens,
            ..UsageReport::default()
        }
    }

    #[test]
    fn tokens_are_what_is_billed() {
        // Gemini's own surfaces count thoughts and tools apart, the OpenAI-compatible one counts thoughts in.
        for (usage, input, output) in [
            (usage(10, None, [Some(5), Some(7)], Some(22)), 10, Some(12)),
            (usage(10, Some(3), [Some(5), Some(7)], Some(25)), 13, Some(12)),
            (usage(10, None, [Some(12), Some(7)], Some(22)), 10, Some(12)),
            (usage(10, None, [Some(5), None], None), 10, Some(5)),
            (usage(10, None, [None, Some(7)], None), 10, Some(7)),
            (usage(10, None, [None, None], None), 10, None),
            (usage(10, None, [Some(5), None], Some(9)), 10, Some(5)),
        ] {
            assert_eq!((input_tokens(&usage), output_tokens(&usage)), (Some(input), output), "{usage:?}");
        }
        assert_eq!(output_tokens(&UsageReport::default()), None);
    }

    #[test]
    fn foreign_text_is_redacted_before_it_is_cut() {
        assert_eq!(shown("gemini-2.5-pro"), "gemini-2.5-pro");
        let key = "AIzaSyA-0123456789_abcdefghijklmnopqrst";
        let long = format!("{}{key}", "x".repeat(MAX_TEXT - 15));
        assert_eq!(shown(&long), format!("{}[redacted]", "x".repeat(MAX_TEXT - 15)));
        assert_eq!(shown(&"é".repeat(100)).len(), MAX_TEXT);
        assert_eq!(shown(&format!("x{}", "é".repeat(100))).len(), MAX_TEXT - 1);
        assert_eq!(shown(&format!("{key}{}", "é".repeat(100))).len(), MAX_TEXT);
    }
}
