//! The members of an answer that lead to something that is looked for.

use super::{
    findings::{ErrorPlace, Wanted},
    tokens::{Modality, TokenKind, TokenSide},
};

/// A container on the way to something that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Top,
    List,
    /// An answer, a chunk of one, an event of an interaction, or the interaction in it.
    Answer,
    Candidates,
    Candidate,
    Content,
    Parts,
    Part,
    Feedback,
    UsageMetadata,
    /// A list of counts by modality.
    Counts(TokenSide),
    /// An element of such a list.
    CountOf(TokenSide),
    /// The parts of a count, each a member: `prompt_tokens_details` of OpenAI's dialect.
    Breakdown(TokenSide),
    Error(ErrorPlace),
    Errors,
    Choices,
    Choice,
    Delta,
    /// Google's additions to a delta of OpenAI's dialect, and those to an interaction's delta.
    Extra,
    Metadata,
}

impl Node {
    pub(super) fn is_array(self) -> bool {
        matches!(self, Self::List | Self::Candidates | Self::Parts | Self::Choices | Self::Counts(_) | Self::Errors)
    }

    /// Returns whether the container has content of its own, of which it has to be said whether it is a thought.
    pub(super) fn is_piece(self) -> bool {
        matches!(self, Self::Part | Self::Delta | Self::Choice)
    }

    /// Returns the container that opens behind the member of that name, if something that is looked for can be inside.
    #[inline]
    pub(super) fn child(self, name: &[u8], is_array: bool) -> Option<Self> {
        let node = match (self, is_array) {
            (Self::Top, true) => Self::List,
            (Self::Top | Self::List, false) => Self::Answer,
            (Self::Candidates, false) => Self::Candidate,
            (Self::Parts, false) => Self::Part,
            (Self::Choices, false) => Self::Choice,
            (Self::Counts(side), false) => Self::CountOf(side),
            (Self::Errors, false) => Self::Error(ErrorPlace::List),
            (here, is_array) => match (here, name, is_array) {
                (Self::Answer, b"candidates", true) => Self::Candidates,
                (Self::Answer, b"choices", true) => Self::Choices,
                (Self::Answer, b"promptFeedback" | b"prompt_feedback", false) => Self::Feedback,
                (Self::Answer, b"usageMetadata" | b"usage", false) => Self::UsageMetadata,
                (Self::Answer, b"error", false) => Self::Error(ErrorPlace::Member),
                (Self::Answer, b"errors", true) => Self::Errors,
                // Code Assist wraps its answers; the first and the last event of an interaction have it inside.
                (Self::Answer, b"response" | b"interaction", false) => Self::Answer,
                (Self::Answer, b"metadata", false) => Self::Metadata,
                (Self::Metadata, b"total_usage", false) => Self::UsageMetadata,
                (Self::UsageMetadata, name, true) => Self::Counts(side_of_list(name)?),
                (Self::UsageMetadata, name, false) => Self::Breakdown(side_of_parts(name)?),
                (Self::Candidate, b"content", false) => Self::Content,
                (Self::Content, b"parts", true) => Self::Parts,
                (Self::Choice, b"delta" | b"message", false) => Self::Delta,
                (Self::Delta, b"extra_content", false) | (Self::Extra, b"google", false) => Self::Extra,
                _ => return None,
            },
        };
        Some(node)
    }

    /// Returns whether a container behind the member of that name is content itself: a call, a file, code.
    #[inline]
    pub(super) fn is_content(self, name: &[u8]) -> bool {
        match self {
            Self::Part => !matches!(name, b"videoMetadata" | b"partMetadata" | b"mediaResolution"),
            Self::Delta => matches!(name, b"tool_calls" | b"function_call" | b"content" | b"audio"),
            // Those of a decision.
            Self::Answer => name == b"answers",
            _ => false,
        }
    }

    /// Returns the use of a scalar behind the member of that name.
    #[inline]
    pub(super) fn wanted(self, name: &[u8]) -> Wanted {
        match (self, name) {
            (Self::Part | Self::Extra, b"thought") => Wanted::Thought,
            (Self::Part, b"thoughtSignature" | b"thought_signature") => Wanted::Nothing,
            (Self::Part, _) => Wanted::Content,
            (Self::Delta, b"content" | b"refusal") | (Self::Choice, b"text") => Wanted::Content,
            (Self::Delta, b"reasoning_content" | b"reasoning") => Wanted::Reasoning,
            (Self::Candidate, b"finishReason") | (Self::Choice, b"finish_reason") => Wanted::FinishReason,
            (Self::Feedback, b"blockReason" | b"block_reason") => Wanted::BlockReason,
            (Self::Answer, b"modelVersion" | b"model") => Wanted::ModelVersion,
            (Self::Answer, b"responseId" | b"id" | b"interaction_id") => Wanted::ResponseId,
            (Self::Answer, b"previous_interaction_id") => Wanted::PreviousInteractionId,
            (Self::Answer | Self::Candidate, b"continuationToken" | b"continuation_token") => Wanted::Continuation,
            (Self::Answer, b"event_type") => Wanted::EventType,
            (Self::Answer, b"status") => Wanted::Status,
            (Self::Answer, b"service_tier")
            | (Self::UsageMetadata, b"serviceTier" | b"service_tier" | b"trafficType") => Wanted::ServiceTier,
            (Self::Answer, b"error") => Wanted::BareError,
            (Self::UsageMetadata, _) => token_kind(name).map_or(Wanted::Nothing, Wanted::Count),
            (Self::CountOf(_), b"modality") => Wanted::Modality,
            (Self::CountOf(_), b"tokenCount" | b"tokens") => Wanted::ModalityCount,
            (Self::Breakdown(TokenSide::Input), b"cached_tokens") => Wanted::Count(TokenKind::Cached),
            (Self::Breakdown(TokenSide::Output), b"reasoning_tokens") => Wanted::Count(TokenKind::Thoughts),
            (Self::Breakdown(side), b"text_tokens") => Wanted::CountOf(side, Modality::Text),
            (Self::Breakdown(side), b"image_tokens") => Wanted::CountOf(side, Modality::Image),
            (Self::Breakdown(side), b"audio_tokens") => Wanted::CountOf(side, Modality::Audio),
            (Self::Error(place), b"code") => Wanted::ErrorCode(place),
            (Self::Error(place), b"status") => Wanted::ErrorStatus(place),
            (Self::Error(place), b"message") => Wanted::ErrorMessage(place),
            _ => Wanted::Nothing,
        }
    }
}

/// Returns whether only an answer of Gemini's or OpenAI's shape has a member of that name.
pub(super) fn is_native(name: &[u8]) -> bool {
    matches!(name, b"candidates" | b"choices" | b"promptFeedback" | b"prompt_feedback" | b"answers")
}

/// Returns whether answers of these shapes have a member of that name, be it one in which nothing is looked for.
pub(super) fn is_known(name: &[u8]) -> bool {
    is_native(name)
        || [false, true].into_iter().any(|is_array| Node::Answer.child(name, is_array).is_some())
        || matches!(
            name,
            b"createTime"
                | b"created"
                | b"object"
                | b"modelStatus"
                | b"system_fingerprint"
                | b"automaticFunctionCallingHistory"
                | b"sdkHttpResponse"
                | b"traceId"
        )
}

/// Returns the count behind the member of that name: in Gemini's words, in those of Interactions, in OpenAI's.
#[inline]
fn token_kind(name: &[u8]) -> Option<TokenKind> {
    Some(match name {
        b"promptTokenCount" | b"total_input_tokens" | b"totalInputTokens" | b"prompt_tokens" | b"input_tokens" => {
            TokenKind::Prompt
        }
        b"initial_input_tokens" | b"initialInputTokens" => TokenKind::Initial,
        // Embeddings say `responseTokenCount`, as the Live API does.
        b"candidatesTokenCount"
        | b"responseTokenCount"
        | b"total_output_tokens"
        | b"totalOutputTokens"
        | b"completion_tokens"
        | b"output_tokens" => TokenKind::Candidates,
        b"thoughtsTokenCount" | b"total_thought_tokens" | b"totalThoughtTokens" => TokenKind::Thoughts,
        b"cachedContentTokenCount" | b"total_cached_tokens" | b"totalCachedTokens" => TokenKind::Cached,
        b"toolUsePromptTokenCount" | b"total_tool_use_tokens" | b"totalToolUseTokens" => TokenKind::ToolUsePrompt,
        b"totalTokenCount" | b"total_tokens" | b"totalTokens" => TokenKind::Total,
        _ => return None,
    })
}

fn side_of_list(name: &[u8]) -> Option<TokenSide> {
    Some(match name {
        b"promptTokensDetails" | b"input_tokens_by_modality" | b"inputTokensByModality" => TokenSide::Input,
        b"candidatesTokensDetails"
        | b"responseTokensDetails"
        | b"output_tokens_by_modality"
        | b"outputTokensByModality" => TokenSide::Output,
        b"cacheTokensDetails" | b"cached_tokens_by_modality" | b"cachedTokensByModality" => TokenSide::Cached,
        _ => return None,
    })
}

fn side_of_parts(name: &[u8]) -> Option<TokenSide> {
    Some(match name {
        b"prompt_tokens_details" | b"input_tokens_details" => TokenSide::Input,
        b"completion_tokens_details" | b"output_tokens_details" => TokenSide::Output,
        _ => return None,
    })
}
