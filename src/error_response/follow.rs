//! The watch over an upstream's bytes while they pass: for keys, for errors that it says itself, and for a place where
//! an error can follow.

use bytes::Bytes;
use http::{header::CONTENT_LENGTH, response::Parts};
use http_body::{Body, SizeHint};

use super::{
    ends::{ElementEnds, EventEnds},
    framer::Framer,
    items::{BodyEnd, ItemStream, StreamFacts},
    render,
    review::{Review, is_half},
    settings::{Settings, StreamEnding},
};
use crate::{
    answer::media::{coding, is_event_stream},
    call::{Shape, Streaming, Surface},
    context::BoxError,
    redact::{Masker, SecretMasker},
};

/// The watch over one answer.
pub(super) enum Follow {
    Nothing,
    /// Waits for the first byte that is not blank: a stream's type may be wrong.
    Undecided(Box<StreamFacts>),
    /// Holds each event until it is whole, so that another one can follow.
    Events(Box<EventFollow>),
    /// Holds each element of an array until it is whole.
    Elements(Box<ElementFollow>),
    /// Overwrites keys, which the text of an error may repeat.
    Secrets(Box<SecretMasker>),
}

/// The watch over a stream of events.
pub(super) struct EventFollow {
    /// Overwrites keys in the text of a failure.
    masker: Option<SecretMasker>,
    /// Frames what the stream of an interaction says without a frame.
    framer: Option<Framer>,
    stream: ItemStream<EventEnds>,
}

/// The watch over an array.
pub(super) struct ElementFollow(ItemStream<ElementEnds>);

impl Follow {
    /// Chooses the watch over a good answer.
    pub(super) fn answer<R: Body>(body: &R, shape: Shape, parts: &mut Parts, settings: &Settings) -> Self {
        // An empty body, such as that of a HEAD, keeps its header. Bytes that are encoded are no lines.
        if body.is_end_stream() || body.size_hint().exact() == Some(0) || coding(&parts.headers).is_some() {
            return Self::Nothing;
        }
        let is_events = is_event_stream(&parts.headers);
        if !is_events && shape.streaming == Streaming::No {
            return Self::Nothing;
        }
        // Words may follow the last byte, and an error: a server that knows the length would see neither.
        parts.headers.remove(CONTENT_LENGTH);
        let facts = StreamFacts::of(shape, parts, settings);
        if is_events { Self::events(&facts, None) } else { Self::Undecided(facts.into()) }
    }

    /// Chooses the watch over a failure, whose text may repeat keys.
    pub(super) fn failure(shape: Shape, parts: &mut Parts, settings: &Settings) -> Self {
        let masker = SecretMasker::new(settings.secrets.clone());
        if parts.status.is_success() && is_event_stream(&parts.headers) && coding(&parts.headers).is_none() {
            parts.headers.remove(CONTENT_LENGTH);
            return Self::events(&StreamFacts::of(shape, parts, settings), Some(masker));
        }
        Self::Secrets(masker.into())
    }

    fn events(facts: &StreamFacts, masker: Option<SecretMasker>) -> Self {
        let is_interaction = facts.shape.surface == Surface::Interactions;
        let framer = is_interaction.then(|| Framer::new(facts.settings.secrets.clone()));
        Self::Events(EventFollow { masker, framer, stream: ItemStream::new(EventEnds::new(), facts) }.into())
    }

    /// Chooses the watch over a stream that begins with that byte.
    fn by_content(facts: &StreamFacts, first: u8) -> Self {
        match first {
            b'[' => Self::Elements(ElementFollow(ItemStream::new(ElementEnds::new(), facts)).into()),
            // A comment, or one of the fields `data`, `event`, `id` and `retry`.
            b':' | b'd' | b'e' | b'i' | b'r' => Self::events(facts, None),
            _ => Self::Nothing,
        }
    }

    /// Takes the bytes that pass, and returns the first of those to pass on; [`next`](Self::next) has more, if there
    /// are.
    pub(super) fn push(&mut self, data: Bytes) -> Option<Bytes> {
        match self {
            Self::Nothing => Some(data),
            Self::Undecided(facts) => match data.iter().find(|byte| !byte.is_ascii_whitespace()) {
                Some(first) => {
                    *self = Self::by_content(facts, *first);
                    self.push(data)
                }
                None => Some(data),
            },
            Self::Events(events) => events.push(data),
            Self::Elements(elements) => elements.0.push(data, Review::elements),
            Self::Secrets(masker) => Some(masked(masker, &data)),
        }
    }

    /// Returns the next bytes that have been let go.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::Events(events) => events.stream.gate.next(),
            Self::Elements(elements) => elements.0.gate.next(),
            Self::Nothing | Self::Undecided(_) | Self::Secrets(_) => None,
        }
    }

    /// Returns whether bytes have been let go that are not passed on yet.
    pub(super) fn has_next(&self) -> bool {
        match self {
            Self::Events(events) => events.stream.gate.has_next(),
            Self::Elements(elements) => elements.0.gate.has_next(),
            Self::Nothing | Self::Undecided(_) | Self::Secrets(_) => false,
        }
    }

    /// Returns whether the upstream has said an error, after which the connection breaks.
    pub(super) fn will_break(&self) -> bool {
        match self {
            Self::Events(events) => events.stream.breaks_at_its_end(),
            Self::Elements(elements) => elements.0.breaks_at_its_end(),
            Self::Nothing | Self::Undecided(_) | Self::Secrets(_) => false,
        }
    }

    /// Ends a body that has ended well, as far as the layers inside know.
    pub(super) fn end(&mut self) -> BodyEnd {
        match self {
            Self::Nothing | Self::Undecided(_) => BodyEnd::default(),
            Self::Secrets(masker) => BodyEnd { rest: rest_of(masker), error: None },
            Self::Events(events) => events.end(),
            Self::Elements(elements) => elements.end(),
        }
    }

    /// Ends a body that has failed: with the error as the stream's last words, if it can take them.
    pub(super) fn broken_by(&mut self, error: BoxError) -> BodyEnd {
        match self {
            Self::Nothing | Self::Undecided(_) | Self::Secrets(_) => BodyEnd { rest: None, error: Some(error) },
            Self::Events(events) => events.broken_by(error),
            Self::Elements(elements) => elements.broken_by(error),
        }
    }

    /// Returns the hint for the bytes to pass on, by that for the bytes to come.
    pub(super) fn size_hint(&self, inner: SizeHint) -> SizeHint {
        let mut hint = SizeHint::new();
        match self {
            // Nobody knows yet what will get a frame, what will be dropped, and what will be the last words.
            Self::Undecided(_) | Self::Events(_) | Self::Elements(_) => {}
            Self::Secrets(masker) => {
                let held = masker.held() as u64;
                if let Some(upper) = inner.upper() {
                    hint.set_upper(upper.saturating_add(held));
                }
                hint.set_lower(inner.lower().saturating_add(held));
            }
            Self::Nothing => return inner,
        }
        hint
    }
}

impl EventFollow {
    fn push(&mut self, mut data: Bytes) -> Option<Bytes> {
        if let Some(masker) = &mut self.masker {
            data = masked(masker, &data);
        }
        if let Some(framer) = &mut self.framer {
            data = framer.push(data);
        }
        self.stream.push(data, Review::events)
    }

    fn end(&mut self) -> BodyEnd {
        let mut rest = self.rest();
        if let Some(held) = self.framer.as_mut().and_then(Framer::finish) {
            self.stream.gate.hold(held);
            rest = self.stream.rest_behind(rest);
        }
        let last = self.stream.gate.take_half();
        if self.stream.surface != Surface::Other && is_half(&last) {
            return self.say(self.stream.cut("the stream ended in the middle of an event"), rest);
        }
        // The last event may lack its blank line.
        let rest = joined(rest, last.into());
        let rest = self.stream.review.events(rest);
        self.stream.ended(rest)
    }

    fn broken_by(&mut self, error: BoxError) -> BodyEnd {
        let rest = self.rest();
        let half = self.stream.gate.take_half();
        // The half may be all of an error that the upstream has said before it broke off.
        if self.stream.ending == StreamEnding::Break || self.stream.review.error().is_some() {
            return self.say(error, rest);
        }
        let said = self.stream.review.events(half.into());
        match self.stream.review.error() {
            Some(_) => self.say(error, joined(rest, said)),
            None => self.say(error, rest),
        }
    }

    fn say(&self, error: BoxError, rest: Bytes) -> BodyEnd {
        self.stream.broken_by(error, rest, |error| Some(render::event(error, self.stream.surface)))
    }

    /// Takes what the masker has held back, because only its end shows that it is no key, and returns what is whole.
    fn rest(&mut self) -> Bytes {
        if let Some(rest) = self.masker.as_mut().and_then(rest_of) {
            let rest = match &mut self.framer {
                Some(framer) => framer.push(rest),
                None => rest,
            };
            self.stream.gate.hold(rest);
        }
        let rest = self.stream.rest_behind(Bytes::new());
        self.stream.review.events(rest)
    }
}

impl ElementFollow {
    fn end(&mut self) -> BodyEnd {
        let ends = self.0.gate.ends();
        let is_unclosed = ends.needs_comma().is_some() && !ends.is_closed();
        if is_unclosed && self.0.review.error().is_none() {
            return self.broken_by(self.0.cut("the array ended before its closing bracket"));
        }
        let rest = self.0.gate.take_half();
        self.0.ended(if is_unclosed { Bytes::new() } else { rest.into() })
    }

    /// Says the error in one more element, which closes the array.
    fn broken_by(&mut self, error: BoxError) -> BodyEnd {
        let half = self.0.gate.take_half();
        let ends = self.0.gate.ends();
        let (comma, is_closed) = (ends.needs_comma(), ends.is_closed());
        // Behind an error that the upstream has said, nothing is put in front of the closing bracket.
        let rest = Bytes::from(if is_closed && self.0.review.error().is_some() { half } else { Vec::new() });
        self.0.broken_by(error, rest, |error| Some(render::last_element(error, self.0.surface, comma?)))
    }
}

fn joined(first: Bytes, second: Bytes) -> Bytes {
    match (first.is_empty(), second.is_empty()) {
        (true, _) => second,
        (_, true) => first,
        _ => [first, second].concat().into(),
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
