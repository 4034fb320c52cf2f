//! The settings that a layer hands to its services.

use crate::redact::Secrets;

/// The end of a stream that has begun and that breaks.
///
/// LangChain's JavaScript packages and genkit take an error event with a clean end for a complete answer; a broken
/// connection is noticed by every SDK, but has no status. So the default is both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamEnding {
    /// An error event, and then the body fails, which breaks the connection (HTTP/1) or resets the stream (HTTP/2).
    #[default]
    EventThenBreak,
    /// An error event, and a clean end: for callers that are known to read it.
    Event,
    /// The body fails, and nothing is said.
    Break,
}

/// The shape of errors on the OpenAI-compatible surface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OpenAiErrors {
    /// An object with `message`, `type` and `code`, as OpenAI's own clients read it.
    #[default]
    Objects,
    /// Google's list of one, as the API sends it. Errors of this layer are written in the same way.
    GoogleLists,
}

/// The settings of one layer.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) secrets: Secrets,
    pub(super) ending: StreamEnding,
    pub(super) openai: OpenAiErrors,
}
