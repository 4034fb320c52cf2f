//! The findings of a scan: what an answer has shown so far.

use std::borrow::Cow;

use memchr::memchr;

use super::tokens::{CountList, Modality, TokenKind, TokenSide, Tokens};
use crate::{
    context::ShortText,
    resource::{Resource, TokenHash},
};

/// The most tokens that are kept of one answer: it has one for each candidate.
const MAX_CONTINUATIONS: usize = 8;

/// The findings so far.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Set once a part or a delta has something in it, thoughts included.
    pub(crate) content: bool,
    /// Set once a part or a delta with something in it that is not a thought has been read to its end.
    pub(crate) answer: bool,
    /// The reason why a candidate ended.
    pub(crate) finish_reason: Option<ShortText>,
    /// The verdict on the prompt.
    pub(crate) block_reason: Option<ShortText>,
    /// The model that answered.
    pub(crate) model_version: Option<ShortText>,
    /// The id of the answer, or of the interaction.
    pub(crate) response_id: Option<ShortText>,
    /// The id of the interaction that this one continues.
    pub(crate) previous_interaction_id: Option<ShortText>,
    /// The tokens with which another call goes on from the answer, as hashes.
    pub(crate) continuations: Vec<Resource>,
    /// The service tier that served, in the upstream's words.
    pub(crate) service_tier: Option<ShortText>,
    /// The status of an interaction.
    pub(crate) status: Option<ShortText>,
    /// Set once an interaction's stream has said that it is complete.
    pub(crate) completed: bool,
    /// The latest counts.
    pub(crate) tokens: Tokens,
    /// An `error` member at the top, which makes the answer a failure.
    pub(crate) error: Option<Box<ErrorFound>>,
    /// The first of the `errors` that are recorded on an interaction. They explain a status of `failed`.
    pub(crate) fault: Option<Box<ErrorFound>>,
    /// The number of changes, so that a reader sees in one comparison whether anything changed.
    pub(crate) version: u32,
    /// Set once the answer has shown a member that only answers of Gemini's or OpenAI's shape have.
    pub(super) native: bool,
    /// Set once the answer has shown a member that no such answer has.
    pub(super) strange: bool,
    /// The part or delta that is being read.
    piece: PartFacts,
    /// The list of counts by modality that is being read.
    pub(super) listed: CountList,
    /// The token that is being read, which may be longer than what is kept of a text.
    pub(super) token: TokenHash,
}

/// The facts of the part or delta that is being read.
#[derive(Clone, Copy, Debug, Default)]
struct PartFacts {
    has_content: bool,
    is_thought: bool,
}

/// An error object in the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ErrorFound {
    pub(crate) code: Option<u64>,
    pub(crate) status: Option<ShortText>,
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
    /// A thought in a member of its own, if it is not empty.
    Reasoning,
    /// The mark of a part that is a thought.
    Thought,
    FinishReason,
    BlockReason,
    ModelVersion,
    ResponseId,
    PreviousInteractionId,
    /// A token with which another call goes on.
    Continuation,
    ServiceTier,
    Status,
    /// The name of an interaction's event.
    EventType,
    Count(TokenKind),
    /// The count of one modality, in a member of its own.
    CountOf(TokenSide, Modality),
    /// The modality of an element in a list of counts.
    Modality,
    /// The count of an element in a list of counts.
    ModalityCount,
    ErrorCode(ErrorPlace),
    ErrorStatus(ErrorPlace),
    ErrorMessage(ErrorPlace),
    /// The message that is all of an error: `"error": "…"`.
    BareError,
}

/// The place of an error object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorPlace {
    /// The member `error`.
    Member,
    /// An element of the list `errors`.
    List,
}

impl Wanted {
    /// Returns whether the text itself is not needed.
    #[inline]
    pub(super) fn is_not_kept(self) -> bool {
        matches!(self, Self::Nothing | Self::Content | Self::Reasoning)
    }
}

impl Findings {
    /// Returns whether the answer is of a shape that is not known here, so that nothing can be said of its content: what
    /// `rawPredict` or a decision returns.
    pub(crate) fn is_foreign(&self) -> bool {
        self.strange && !self.native
    }

    /// Takes the inside of a string.
    pub(super) fn take_string(&mut self, wanted: Wanted, inside: &[u8]) {
        if let Some(place) = self.name_at(wanted) {
            let changed = set(place, inside);
            self.version += u32::from(changed);
            return;
        }
        let text = unescaped(inside);
        let changed = match wanted {
            Wanted::EventType => return self.event_named(text.as_bytes()),
            Wanted::Count(kind) => self.tokens.set(kind, text.parse().ok()),
            Wanted::CountOf(side, modality) => self.tokens.set_of(side, modality, text.parse().ok()),
            Wanted::Modality => return self.listed.name(&text),
            Wanted::ModalityCount => return self.listed.count(text.parse().ok()),
            Wanted::ErrorCode(place) => {
                let error = self.error_at(place);
                error.code = text.parse().ok();
                error.code.is_some() || set(&mut error.status, inside)
            }
            Wanted::ErrorStatus(place) => set(&mut self.error_at(place).status, inside),
            Wanted::ErrorMessage(place) => {
                self.error_at(place).message = Some(text.into());
                true
            }
            Wanted::BareError => {
                *self.error_at(ErrorPlace::Member) =
                    ErrorFound { message: Some(text.into()), whole: true, ..ErrorFound::default() };
                true
            }
            _ => false,
        };
        self.version += u32::from(changed);
    }

    /// Returns the place of a name that is kept as it is.
    fn name_at(&mut self, wanted: Wanted) -> Option<&mut Option<ShortText>> {
        Some(match wanted {
            Wanted::FinishReason => &mut self.finish_reason,
            Wanted::BlockReason => &mut self.block_reason,
            Wanted::ModelVersion => &mut self.model_version,
            Wanted::ResponseId => &mut self.response_id,
            Wanted::PreviousInteractionId => &mut self.previous_interaction_id,
            Wanted::ServiceTier => &mut self.service_tier,
            Wanted::Status => &mut self.status,
            _ => return None,
        })
    }

    /// Takes a number, or a word like `null`.
    pub(super) fn take_scalar(&mut self, wanted: Wanted, text: &[u8]) {
        let changed = match wanted {
            Wanted::Count(kind) => self.tokens.set(kind, number(text)),
            Wanted::CountOf(side, modality) => self.tokens.set_of(side, modality, number(text)),
            Wanted::ModalityCount => return self.listed.count(number(text)),
            Wanted::Thought => {
                self.piece.is_thought |= text == b"true";
                false
            }
            Wanted::ErrorCode(place) => {
                self.error_at(place).code = number(text);
                true
            }
            _ => false,
        };
        self.version += u32::from(changed);
    }

    /// Takes a count.
    pub(super) fn counted(&mut self, kind: TokenKind, count: u64) {
        self.version += u32::from(self.tokens.set(kind, Some(count)));
    }

    fn error_at(&mut self, place: ErrorPlace) -> &mut ErrorFound {
        let error = match place {
            ErrorPlace::Member => &mut self.error,
            ErrorPlace::List => &mut self.fault,
        };
        error.get_or_insert_default()
    }

    /// Notices content in the part that is being read.
    #[inline]
    pub(super) fn content_seen(&mut self) {
        self.piece.has_content = true;
        self.commit_seen();
    }

    /// Notices content, be it a thought.
    #[inline]
    pub(super) fn commit_seen(&mut self) {
        if !self.content {
            self.content = true;
            self.version += 1;
        }
    }

    /// Notices content that is no thought.
    pub(super) fn answer_seen(&mut self) {
        self.commit_seen();
        self.version += u32::from(!std::mem::replace(&mut self.answer, true));
    }

    /// Notices that a part or a delta begins.
    pub(super) fn piece_begins(&mut self) {
        self.piece = PartFacts::default();
    }

    /// Notices that a part or a delta has been read to its end.
    pub(super) fn piece_ends(&mut self) {
        let piece = std::mem::take(&mut self.piece);
        if piece.has_content && !piece.is_thought {
            self.answer_seen();
        }
    }

    /// Takes the name of an interaction's event.
    pub(crate) fn event_named(&mut self, name: &[u8]) {
        match name {
            b"interaction.completed" | b"interaction.complete" | b"interaction.cancelled" | b"interaction.failed" => {
                self.version += u32::from(!std::mem::replace(&mut self.completed, true));
            }
            // They say that something begins or how it goes on, and are no part of it.
            b"interaction.created"
            | b"interaction.start"
            | b"interaction.status_update"
            | b"step.start"
            | b"content.start"
            | b"error"
            | b"ping"
            | b"done" => {}
            // `step.delta`, `content.delta`, the ends of these, and events that are not known yet.
            _ => self.commit_seen(),
        }
    }

    /// Notices that an error object begins. Returns whether it is of use: of a list, only the first one is.
    pub(super) fn error_begins(&mut self, place: ErrorPlace) -> bool {
        if place == ErrorPlace::List && self.fault.is_some() {
            return false;
        }
        self.error_at(place);
        self.version += 1;
        true
    }

    /// Notices that the error object has been read to its end.
    pub(super) fn error_ends(&mut self, place: ErrorPlace) {
        self.error_at(place).whole = true;
        self.version += 1;
    }

    /// Takes a token that has been read to its end.
    pub(super) fn continued_by(&mut self, token: Resource) {
        if self.continuations.len() < MAX_CONTINUATIONS && !self.continuations.contains(&token) {
            self.continuations.push(token);
            self.version += 1;
        }
    }

    /// Notices that a list of counts by modality has been read to its end.
    pub(super) fn list_ends(&mut self, side: TokenSide) {
        let counts = std::mem::take(&mut self.listed).counts();
        self.version += u32::from(self.tokens.set_all(side, counts));
    }
}

/// Keeps the inside of a string that is not there already, and returns whether it changed: every event of a stream repeats
/// its model.
fn set(place: &mut Option<ShortText>, inside: &[u8]) -> bool {
    let is_known = |known: &str| known.as_bytes() == inside && memchr(b'\\', inside).is_none();
    if place.as_deref().is_some_and(is_known) {
        return false;
    }
    let text = unescaped(inside);
    let changed = place.as_deref() != Some(&*text);
    if changed {
        *place = Some((*text).into());
    }
    changed
}

/// Reads a number without a sign, a point or an exponent.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let (first, rest) = text.split_first()?;
    rest.iter().try_fold(digit(first)?, |number, byte| number.checked_mul(10)?.checked_add(digit(byte)?))
}

/// Decodes the inside of a string. One that was cut in the middle of an escape stays as it stood.
fn unescaped(inside: &[u8]) -> Cow<'_, str> {
    let text = std::str::from_utf8(inside).map_or_else(|_| String::from_utf8_lossy(inside), Cow::Borrowed);
    if memchr(b'\\', inside).is_none() {
        return text;
    }
    serde_json::from_str(&format!("\"{text}\"")).map_or(text, Cow::Owned)
}
