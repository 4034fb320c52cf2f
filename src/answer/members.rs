//! The members of an answer that lead to something that is looked for.

use super::findings::{TokenKind, Wanted};

/// A container on the way to something that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Top,
    List,
    Answer,
    Candidates,
    Candidate,
    Content,
    Parts,
    Part,
    Feedback,
    UsageMetadata,
    Error,
    Choices,
    Choice,
    Delta,
}

impl Node {
    pub(super) fn is_array(self) -> bool {
        matches!(self, Self::List | Self::Candidates | Self::Parts | Self::Choices)
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
            (here, is_array) => match (here, name, is_array) {
                (Self::Answer, b"candidates", true) => Self::Candidates,
                (Self::Answer, b"choices", true) => Self::Choices,
                (Self::Answer, b"promptFeedback", false) => Self::Feedback,
                (Self::Answer, b"usageMetadata" | b"usage", false) => Self::UsageMetadata,
                (Self::Answer, b"error", false) => Self::Error,
                // Code Assist wraps its answers.
                (Self::Answer, b"response", false) => Self::Answer,
                (Self::Candidate, b"content", false) => Self::Content,
                (Self::Content, b"parts", true) => Self::Parts,
                (Self::Choice, b"delta" | b"message", false) => Self::Delta,
                _ => return None,
            },
        };
        Some(node)
    }

    /// Returns whether a container behind the member of that name is content itself: a call, a file, code.
    #[inline]
    pub(super) fn is_content(self, name: &[u8]) -> bool {
        match self {
            Self::Part => true,
            Self::Delta => matches!(name, b"tool_calls" | b"content"),
            _ => false,
        }
    }

    /// Returns the use of a scalar behind the member of that name.
    #[inline]
    pub(super) fn wanted(self, name: &[u8]) -> Wanted {
        match (self, name) {
            (Self::Part, b"thought" | b"thoughtSignature") => Wanted::Nothing,
            (Self::Part, _) => Wanted::Content,
            (Self::Delta, b"content" | b"refusal" | b"reasoning_content" | b"reasoning") => Wanted::Content,
            (Self::Candidate, b"finishReason") | (Self::Choice, b"finish_reason") => Wanted::FinishReason,
            (Self::Feedback, b"blockReason") => Wanted::BlockReason,
            (Self::Answer, b"modelVersion" | b"model") => Wanted::ModelVersion,
            (Self::Answer, b"error") => Wanted::ErrorMessage { alone: true },
            (Self::UsageMetadata, b"promptTokenCount" | b"prompt_tokens") => Wanted::Count(TokenKind::Prompt),
            (Self::UsageMetadata, b"candidatesTokenCount" | b"completion_tokens") => {
                Wanted::Count(TokenKind::Candidates)
            }
            (Self::UsageMetadata, b"thoughtsTokenCount") => Wanted::Count(TokenKind::Thoughts),
            (Self::UsageMetadata, b"cachedContentTokenCount") => Wanted::Count(TokenKind::Cached),
            (Self::UsageMetadata, b"toolUsePromptTokenCount") => Wanted::Count(TokenKind::ToolUsePrompt),
            (Self::UsageMetadata, b"totalTokenCount" | b"total_tokens") => Wanted::Count(TokenKind::Total),
            (Self::Error, b"code") => Wanted::ErrorCode,
            (Self::Error, b"status") => Wanted::ErrorStatus,
            (Self::Error, b"message") => Wanted::ErrorMessage { alone: false },
            _ => Wanted::Nothing,
        }
    }
}
