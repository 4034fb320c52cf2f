//! The findings of a scan: what an answer has shown so far.

use std::borrow::Cow;

use memchr::memchr;

/// The findings so far.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Set once a part or a delta has something in it, thoughts included.
    pub(crate) content: bool,
    /// The reason why a candidate ended.
    pub(crate) finish_reason: Option<Box<str>>,
    /// The verdict on the prompt.
    pub(crate) block_reason: Option<Box<str>>,
    /// The model that answered.
    pub(crate) model_version: Option<Box<str>>,
    /// The latest counts.
    pub(crate) tokens: Tokens,
    /// An `error` member at the top, which makes the answer a failure.
    pub(crate) error: Option<ErrorFound>,
    /// The number of changes, so that a reader sees in one comparison whether anything changed.
    pub(crate) version: u32,
}

/// Token counts as the upstream gives them, in either dialect. The last ones count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) prompt: Option<u64>,
    pub(crate) candidates: Option<u64>,
    pub(crate) thoughts: Option<u64>,
    pub(crate) cached: Option<u64>,
    pub(crate) tool_use_prompt: Option<u64>,
    pub(crate) total: Option<u64>,
}

/// An error object in the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ErrorFound {
    pub(crate) code: Option<u64>,
    pub(crate) status: Option<Box<str>>,
    pub(crate) message: Option<Box<str>>,
    /// Set once it has been read to its end.
    pub(crate) whole: bool,
}

/// The use of the string or scalar that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Nothing,
    /// Content, if it is not empty.
    Content,
    FinishReason,
    BlockReason,
    ModelVersion,
    Count(TokenKind),
    ErrorCode,
    ErrorStatus,
    /// The error's message; `alone` where it is all of the error: `"error": "…"`.
    ErrorMessage {
        alone: bool,
    },
}

/// One of the [`Tokens`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    Prompt,
    Candidates,
    Thoughts,
    Cached,
    ToolUsePrompt,
    Total,
}

impl Findings {
    /// Takes the inside of a string.
    pub(super) fn take_string(&mut self, wanted: Wanted, text: &[u8]) {
        let text = unescaped(text);
        let changed = match wanted {
            Wanted::FinishReason => set(&mut self.finish_reason, &text),
            Wanted::BlockReason => set(&mut self.block_reason, &text),
            Wanted::ModelVersion => set(&mut self.model_version, &text),
            Wanted::Count(kind) => self.tokens.set(kind, text.parse().ok()),
            Wanted::ErrorCode => {
                let error = self.error.get_or_insert_default();
                error.code = text.parse().ok();
                error.code.is_some() || set(&mut error.status, &text)
            }
            Wanted::ErrorStatus => set(&mut self.error.get_or_insert_default().status, &text),
            Wanted::ErrorMessage { alone } => {
                let error = self.error.get_or_insert_default();
                error.whole |= alone;
                error.message = Some(text.into());
                true
            }
            Wanted::Nothing | Wanted::Content => false,
        };
        self.version += u32::from(changed);
    }

    /// Takes a number, or a word like `null`.
    pub(super) fn take_scalar(&mut self, wanted: Wanted, text: &[u8]) {
        let number = || std::str::from_utf8(text).ok()?.parse().ok();
        let changed = match wanted {
            Wanted::Count(kind) => self.tokens.set(kind, number()),
            Wanted::ErrorCode => {
                self.error.get_or_insert_default().code = number();
                true
            }
            _ => false,
        };
        self.version += u32::from(changed);
    }

    /// Notices content.
    #[inline]
    pub(super) fn content_seen(&mut self) {
        if !self.content {
            self.content = true;
            self.version += 1;
        }
    }

    /// Notices that an error object begins.
    pub(super) fn error_begins(&mut self) {
        self.error.get_or_insert_default();
        self.version += 1;
    }

    /// Notices that the error object has been read to its end.
    pub(super) fn error_ends(&mut self) {
        if let Some(error) = &mut self.error {
            error.whole = true;
            self.version += 1;
        }
    }
}

impl Tokens {
    /// Sets a count, and returns whether it changed.
    fn set(&mut self, kind: TokenKind, value: Option<u64>) -> bool {
        let place = match kind {
            TokenKind::Prompt => &mut self.prompt,
            TokenKind::Candidates => &mut self.candidates,
            TokenKind::Thoughts => &mut self.thoughts,
            TokenKind::Cached => &mut self.cached,
            TokenKind::ToolUsePrompt => &mut self.tool_use_prompt,
            TokenKind::Total => &mut self.total,
        };
        std::mem::replace(place, value) != value
    }
}

/// Keeps a text that is not there already, and returns whether it changed: every event of a stream repeats its model.
fn set(place: &mut Option<Box<str>>, text: &str) -> bool {
    let changed = place.as_deref() != Some(text);
    if changed {
        *place = Some(text.into());
    }
    changed
}

/// Decodes the inside of a string. One that was cut in the middle of an escape stays as it stood.
fn unescaped(inside: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(inside);
    if memchr(b'\\', inside).is_none() {
        return text;
    }
    serde_json::from_str(&format!("\"{text}\"")).map_or(text, Cow::Owned)
}
