//! Top-level settings of errors: their shape, and the end of a stream that breaks.

use tower_gemini::{
    ErrorResponseLayer,
    error_response::{OpenAiErrors, StreamEnding},
};

use crate::config::{
    toml::{Section, Value},
    values::one_of,
};

/// The settings of what callers are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Errors {
    openai: OpenAiErrors,
    ending: StreamEnding,
}

impl Errors {
    /// Reads the settings from the top level of the file.
    pub(crate) fn read(file: &mut Section<'_>) -> Self {
        Self {
            openai: file.get("openai_errors", openai_errors).unwrap_or_default(),
            ending: file.get("stream_ending", stream_ending).unwrap_or_default(),
        }
    }

    /// Returns the layer that answers for all others, without the relay's secrets.
    pub(crate) fn layer(self) -> ErrorResponseLayer {
        ErrorResponseLayer::new().openai_errors(self.openai).stream_ending(self.ending)
    }

    /// Describes the settings in a line as layers are described, unless they are the defaults.
    pub(crate) fn describe(self) -> Option<String> {
        if self == Self::default() {
            return None;
        }
        let shape = match self.openai {
            OpenAiErrors::GoogleLists => "Google's lists",
            _ => "objects",
        };
        let ending = match self.ending {
            StreamEnding::Event => "an error event and a clean end",
            StreamEnding::Break => "a broken connection alone",
            _ => "an error event and a broken connection",
        };
        Some(format!("{:<16}{shape} on OpenAI's surface; a stream that breaks ends in {ending}", "errors"))
    }
}

fn openai_errors(value: &Value<'_>) -> Result<OpenAiErrors, String> {
    one_of(value, &[("objects", OpenAiErrors::Objects), ("google", OpenAiErrors::GoogleLists)])
}

fn stream_ending(value: &Value<'_>) -> Result<StreamEnding, String> {
    let endings = [
        ("event_and_break", StreamEnding::EventThenBreak),
        ("event", StreamEnding::Event),
        ("break", StreamEnding::Break),
    ];
    one_of(value, &endings)
}
