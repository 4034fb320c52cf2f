//! The watch over an upstream's bytes while they pass: for keys, for bare errors, and for a place where an error can
//! follow.

use bytes::Bytes;
use http::{
    header::{CONTENT_LENGTH, CONTENT_TYPE},
    response::Parts,
};
use http_body::{Body, SizeHint};

use super::{framer::Framer, gate::EventGate, render};
use crate::{
    answer::scan::Scanner,
    call::{Shape, Streaming, Surface},
    context::BoxError,
    redact::{Masker, SecretMasker, Secrets},
};

const EVENT_STREAM: &[u8] = b"text/event-stream";

/// The watch over one answer.
pub(super) enum Follow {
    Nothing,
    /// Holds each event until it is whole, so that another one can follow.
    Events(Box<EventFollow>),
    /// Finds the ends of an array's elements, so that one more can follow.
    Elements(Box<Scanner>),
    /// Overwrites keys, which the text of an error may repeat.
    Secrets(Box<SecretMasker>),
}

/// The watch over a stream of events.
pub(super) struct EventFollow {
    /// Overwrites keys in the text of a failure.
    masker: Option<SecretMasker>,
    /// Frames what the stream of an interaction says without a frame.
    framer: Option<Framer>,
    gate: EventGate,
}

impl Follow {
    /// Chooses the watch over a good answer.
    pub(super) fn answer<R: Body>(body: &R, shape: Shape, parts: &mut Parts, secrets: &Secrets) -> Self {
        if is_interaction_stream(shape, parts) {
            return EventFollow::interaction(parts, Framer::new(secrets.clone()), None);
        }
        // A body of a known length has no room for another event.
        if body.size_hint().exact().is_some() {
            Self::Nothing
        } else if is_event_stream(parts) {
            Self::Events(EventFollow { masker: None, framer: None, gate: EventGate::new() }.into())
        } else if shape.streaming == Streaming::Array {
            Self::Elements(Scanner::new().into())
        } else {
            Self::Nothing
        }
    }

    /// Chooses the watch over a failure, whose text may repeat keys.
    pub(super) fn failure(shape: Shape, parts: &mut Parts, secrets: Secrets) -> Self {
        let masker = SecretMasker::new(secrets);
        match parts.status.is_success() && is_interaction_stream(shape, parts) {
            true => EventFollow::interaction(parts, Framer::new(Secrets::default()), Some(masker)),
            false => Self::Secrets(masker.into()),
        }
    }

    /// Takes the bytes that pass, and returns the first of those to pass on; [`next`](Self::next) has more, if there
    /// are.
    pub(super) fn push(&mut self, data: Bytes) -> Option<Bytes> {
        match self {
            Self::Nothing => {}
            Self::Events(events) => return events.push(data),
            Self::Elements(scanner) => scanner.push(&data),
            Self::Secrets(masker) => return Some(masked(masker, &data)),
        }
        Some(data)
    }

    /// Returns the next bytes that have been let go.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::Events(events) => events.gate.next(),
            _ => None,
        }
    }

    /// Returns whether bytes have been let go that are not passed on yet.
    pub(super) fn has_next(&self) -> bool {
        matches!(self, Self::Events(events) if events.gate.has_next())
    }

    /// Lets go of the bytes that are held back, because the body has ended well. Returns the first of them.
    pub(super) fn end(&mut self) -> Option<Bytes> {
        match self {
            Self::Secrets(masker) => rest_of(masker),
            Self::Events(events) => {
                events.end();
                events.gate.next()
            }
            _ => None,
        }
    }

    /// Writes the error as the stream's last words, if the stream can take them.
    pub(super) fn last_words(&mut self, error: &BoxError, surface: Surface) -> Option<Bytes> {
        match self {
            Self::Events(events) => Some(events.last_words(&render::event(error, surface))),
            Self::Elements(scanner) => {
                let comma = scanner.needs_comma()?;
                let element = render::element(error, surface);
                Some(format!("{}{element}\n]\n", if comma { ",\n" } else { "" }).into())
            }
            Self::Nothing | Self::Secrets(_) => None,
        }
    }

    /// Returns whether the connection breaks after the last words. An array that was closed is whole JSON, and a client
    /// reads it only as a whole.
    pub(super) fn breaks_after_its_words(&self) -> bool {
        !matches!(self, Self::Elements(_))
    }

    /// Returns the hint for the bytes to pass on, by that for the bytes to come.
    pub(super) fn size_hint(&self, inner: SizeHint) -> SizeHint {
        let mut hint = SizeHint::new();
        match self {
            // Nobody knows yet what will get a frame, and what will be the last words.
            Self::Events(_) => {}
            Self::Secrets(masker) => {
                let held = masker.held() as u64;
                if let Some(upper) = inner.upper() {
                    hint.set_upper(upper.saturating_add(held));
                }
                hint.set_lower(inner.lower().saturating_add(held));
            }
            Self::Nothing | Self::Elements(_) => return inner,
        }
        hint
    }
}

impl EventFollow {
    fn interaction(parts: &mut Parts, framer: Framer, masker: Option<SecretMasker>) -> Follow {
        // A line that gets a frame gets longer.
        parts.headers.remove(CONTENT_LENGTH);
        Follow::Events(Self { masker, framer: Some(framer), gate: EventGate::new() }.into())
    }

    fn push(&mut self, mut data: Bytes) -> Option<Bytes> {
        if let Some(masker) = &mut self.masker {
            data = masked(masker, &data);
        }
        if let Some(framer) = &mut self.framer {
            data = framer.push(data);
        }
        self.gate.push(data)
    }

    fn end(&mut self) {
        self.end_masking();
        if let Some(held) = self.framer.as_mut().and_then(Framer::finish) {
            self.gate.hold(held);
        }
        self.gate.release();
    }

    /// Takes what the masker has held back: only its end shows that it is no key.
    fn end_masking(&mut self) {
        if let Some(rest) = self.masker.as_mut().and_then(rest_of) {
            let rest = match &mut self.framer {
                Some(framer) => framer.push(rest),
                None => rest,
            };
            self.gate.hold(rest);
        }
    }

    /// Returns what is left of whole events, and the error's event. The half of an event is dropped: an SDK would take
    /// it for one.
    fn last_words(&mut self, event: &str) -> Bytes {
        self.end_masking();
        let is_open = self.gate.abandon();
        let mut words: Vec<u8> = std::iter::from_fn(|| self.gate.next()).flatten().collect();
        if is_open {
            words.extend_from_slice(b"\n\n");
        }
        words.extend_from_slice(event.as_bytes());
        words.into()
    }
}

fn masked(masker: &mut SecretMasker, data: &[u8]) -> Bytes {
    let mut masked = Vec::with_capacity(data.len() + Masker::MOST_HELD);
    masker.push(data, &mut masked);
    masked.into()
}

fn rest_of(masker: &mut SecretMasker) -> Option<Bytes> {
    let mut rest = Vec::new();
    masker.finish(&mut rest);
    (!rest.is_empty()).then(|| rest.into())
}

fn is_event_stream(parts: &Parts) -> bool {
    let essence = parts.headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().get(..EVENT_STREAM.len()));
    essence.is_some_and(|essence| essence.eq_ignore_ascii_case(EVENT_STREAM))
}

fn is_interaction_stream(shape: Shape, parts: &Parts) -> bool {
    shape.surface == Surface::Interactions && is_event_stream(parts)
}
