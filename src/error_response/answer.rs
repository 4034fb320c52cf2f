//! The answer in place of an upstream's failure: its own error with what callers need to know, or the error that it
//! should have sent. Pure.
//!
//! | the upstream's | goes out as |
//! |---|---|
//! | 4xx or 5xx with an error object | the same, with hints; on the OpenAI-compatible surface an object |
//! | the same, empty, cut off, a page of HTML, or JSON that is no error | an error object of that status, which says what came |
//! | the same, plain text | the same |
//! | 200 with an error before any content | that error, with its own status |
//! | the same, of more than is read | the same, with that status |
//! | 200 with content, whatever was found to be wrong with it | the same |
//! | 200 without any content, and no reason for it (`STOP` is none) | 502 (503 if it was cut off), which says what came |
//! | 200 with a verdict: a finish reason, a block reason, an interaction's status, the content filter's event on its stream | the same |
//!
//! A page of HTML is readable for Google's SDKs, but its users would get a screen of markup as the error's message.

use std::time::SystemTime;

use http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use serde_json::{Map, Value, json};

use super::{
    heard::{Form, Heard},
    hide,
    hints::Hints,
    render::{self, ErrorFacts},
    settings::{OpenAiErrors, Settings},
};
use crate::{
    bounded::start_of,
    call::{Shape, Streaming, Surface},
    context::Outcome,
    failure::Failure,
    status::{Envelope, Status, add_openai, take_error},
};

/// The most bytes of an upstream's text that are repeated in a message.
const MOST_WORDS: usize = 300;

/// An upstream's failure, but for its body.
pub(super) struct UpstreamFailure<'a> {
    pub(super) status: StatusCode,
    pub(super) headers: &'a HeaderMap,
    pub(super) outcome: &'a Outcome,
    pub(super) shape: Shape,
    pub(super) settings: &'a Settings,
    pub(super) now: SystemTime,
}

/// The answer in place of an upstream's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Replacement {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
    /// Set if the body is JSON, whatever the upstream's was.
    pub(super) is_json: bool,
}

impl UpstreamFailure<'_> {
    /// Returns the answer in place of one with that body. `None`: the upstream's goes out as it is.
    pub(super) fn replacement(&self, heard: &Heard, body: &[u8]) -> Option<Replacement> {
        let failure = self.outcome.failure()?;
        let (status, body) = match self.status.is_client_error() || self.status.is_server_error() {
            true => match self.refusal(heard, body, failure) {
                Refusal::Unchanged => return None,
                Refusal::Text(body) => {
                    return Some(Replacement { status: self.status, body: body.into(), is_json: false });
                }
                Refusal::Error(body) => (self.status, body),
            },
            false => (failure.code(), self.hidden_failure(heard, failure)?),
        };
        Some(Replacement { status, body, is_json: true })
    }

    /// Returns the answer that blames the server's own credentials.
    pub(super) fn own_key_refused(&self, failure: Failure) -> Replacement {
        let facts = ErrorFacts::of_answer(failure, self.outcome.clone());
        let status = facts.code();
        let body = self.written(&facts, None, status);
        Replacement { status, body, is_json: true }
    }

    /// Reads an error that came with its status.
    fn refusal(&self, heard: &Heard, body: &[u8], failure: &Failure) -> Refusal {
        let is_whole = matches!(heard.form(), Form::Value | Form::List);
        let error = heard.error().filter(|envelope| envelope["error"].is_object());
        if let Some(envelope) = error {
            let came_as_list = heard.form() == Form::List;
            let mut envelope = envelope.clone();
            let changed = self.complete(&mut envelope, self.status);
            let is_list = match self.shape.surface {
                Surface::OpenAi => came_as_list && self.settings.openai == OpenAiErrors::GoogleLists,
                _ => came_as_list || !is_whole && render::is_listed(self.shape, self.settings),
            };
            if is_whole && !changed && is_list == came_as_list {
                return Refusal::Unchanged;
            }
            return Refusal::Error(text_of(envelope, is_list));
        }
        let status = Status::parse(body);
        let is_page = status.envelope() == Envelope::Html;
        let is_json =
            matches!(heard.form(), Form::Empty | Form::Value | Form::List | Form::Pieces) || self.is_typed_json();
        if !is_page && !is_json {
            let text = std::str::from_utf8(body).ok().filter(|_| self.hides_projects());
            return text.and_then(hide::in_text).map_or(Refusal::Unchanged, Refusal::Text);
        }
        let code = self.status.as_u16();
        // JSON that says nothing is its own text.
        let says_nothing = is_whole && status.envelope() == Envelope::Text;
        let words = if says_nothing { "" } else { start_of(status.message(), MOST_WORDS) };
        let message = match words {
            _ if heard.form() == Form::Empty => format!("the upstream answered {code} without a body"),
            "" => {
                format!(
                    "the upstream answered {code} with {}",
                    heard.in_words(false).unwrap_or("JSON that is no error")
                )
            }
            words if is_page => format!("the upstream answered {code} with a page: {words}"),
            words => format!("the upstream answered {code} with an error that cannot be read: {words}"),
        };
        Refusal::Error(self.own(failure, self.status, &message))
    }

    /// Reads a failure that came as a success. `None`: it is an answer, which says why it has no content.
    fn hidden_failure(&self, heard: &Heard, failure: &Failure) -> Option<Vec<u8>> {
        let code = failure.code();
        // An interaction tells of its error in a member of its own.
        if let Some(envelope) = heard.error().filter(|envelope| !Heard::tells_of_interaction(envelope)) {
            let mut envelope = envelope.clone();
            self.correct(&mut envelope, code, failure);
            self.complete(&mut envelope, code);
            return Some(text_of(envelope, render::is_listed(self.shape, self.settings)));
        }
        if heard.is_interaction() || heard.has_reason() {
            return None;
        }
        let what = heard.in_words(self.shape.streaming != Streaming::No);
        let what = what.unwrap_or("an answer without content and without a reason for that");
        Some(self.own(failure, code, &format!("the upstream answered {} with {what}", self.status.as_u16())))
    }

    /// Makes an error of this side's.
    fn own(&self, failure: &Failure, code: StatusCode, message: &str) -> Vec<u8> {
        let hidden = self.hides_projects().then(|| hide::in_text(message)).flatten();
        let message = hidden.as_deref().unwrap_or(message);
        let facts = ErrorFacts::of_answer(failure.clone(), self.outcome.clone());
        self.written(&facts, Some(message), code)
    }

    fn written(&self, facts: &ErrorFacts, message: Option<&str>, code: StatusCode) -> Vec<u8> {
        let is_listed = render::is_listed(self.shape, self.settings);
        facts.write(is_listed, self.shape.surface, message, Some(self.hints(code)))
    }

    /// Gives an error that came with a 200 the code and the name that its status has. An interaction's code is a name.
    fn correct(&self, envelope: &mut Map<String, Value>, code: StatusCode, failure: &Failure) {
        let error = take_error(envelope);
        envelope.insert("error".into(), error.into());
        let Some(error) = envelope.get_mut("error").and_then(Value::as_object_mut) else { return };
        if self.shape.surface == Surface::Interactions {
            if !error.get("code").is_some_and(Value::is_string) {
                error.insert("code".into(), failure.google_status().to_ascii_lowercase().into());
            }
            return;
        }
        error.insert("code".into(), code.as_u16().into());
        if !error.get("status").is_some_and(Value::is_string) {
            error.insert("status".into(), failure.google_status().into());
        }
    }

    /// Adds to an upstream's own error what its caller needs to know, and hides what is the server's. Returns whether
    /// anything has changed.
    fn complete(&self, envelope: &mut Map<String, Value>, code: StatusCode) -> bool {
        let hints = self.hints(code);
        let surface = self.shape.surface;
        let Some(error) = envelope.get_mut("error").and_then(Value::as_object_mut) else { return false };
        let message = error.get("message").map_or(Some(""), Value::as_str);
        let message = message.and_then(|message| hints.told(message)).map(|told| told.to_string());
        let mut changed = message.is_some();
        if let Some(message) = message {
            error.insert("message".into(), message.into());
        }
        if let Some(wait) = hints.retry_info().filter(|_| surface != Surface::Interactions) {
            let details = error.entry("details").or_insert(Value::Null);
            if details.is_null() {
                *details = json!([]);
            }
            let has_one = |details: &[Value]| details.iter().any(|detail| detail.get("retryDelay").is_some());
            if let Some(details) = details.as_array_mut().filter(|details| !has_one(details)) {
                details.push(json!(render::retry_info(wait)));
                changed = true;
            }
        }
        if surface == Surface::OpenAi && self.settings.openai == OpenAiErrors::Objects {
            changed |= add_openai(error, code);
        }
        if self.hides_projects() {
            changed |= envelope.values_mut().fold(false, |any, value| hide::in_value(value) | any);
        }
        changed
    }

    fn hints(&self, code: StatusCode) -> Hints {
        Hints::of(code, self.outcome, self.shape.surface, self.now)
    }

    /// Returns whether the project that is named is the server's own: a caller with a key of its own knows its project.
    fn hides_projects(&self) -> bool {
        self.outcome.key().is_some()
    }

    fn is_typed_json(&self) -> bool {
        let value = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        value.is_some_and(|value| value.to_ascii_lowercase().contains("json"))
    }
}

/// An error that came with its status.
enum Refusal {
    /// It is readable, and there is nothing to add.
    Unchanged,
    /// Its text, without what is the server's.
    Text(String),
    /// The error in its place.
    Error(Vec<u8>),
}

/// Writes an error's envelope, or a list of it alone.
fn text_of(envelope: Map<String, Value>, is_listed: bool) -> Vec<u8> {
    let object = Value::Object(envelope);
    let text = if is_listed { json!([object]).to_string() } else { object.to_string() };
    text.into_bytes()
}
