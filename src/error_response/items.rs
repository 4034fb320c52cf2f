//! The items of a stream as they pass: held until each is whole, reviewed, and followed by the error that ends them.

use bytes::{Bytes, BytesMut};
use http::response::Parts;

use super::{
    ends::ItemEnds,
    gate::ItemGate,
    review::Review,
    settings::{Settings, StreamEnding},
};
use crate::{
    call::{Shape, Surface},
    context::{BoxError, Error, Outcome, Usage},
    failure::{Failure, Kind},
};

/// The name of the room in its errors.
const NAME: &str = "error_response";

/// The facts of an answer that its watch is made of.
#[derive(Clone, Debug)]
pub(super) struct StreamFacts {
    pub(super) shape: Shape,
    pub(super) settings: Settings,
    hides_projects: bool,
    usage: Option<Usage>,
}

impl StreamFacts {
    pub(super) fn of(shape: Shape, parts: &Parts, settings: &Settings) -> Self {
        let outcome = parts.extensions.get::<Outcome>();
        // A caller with a key of its own knows its project.
        let hides_projects = outcome.is_some_and(|outcome| outcome.key().is_some());
        let usage = outcome.and_then(Outcome::usage).cloned();
        Self { shape, settings: settings.clone(), hides_projects, usage }
    }
}

/// The items of a stream.
pub(super) struct ItemStream<E> {
    pub(super) gate: ItemGate<E>,
    pub(super) review: Review,
    pub(super) surface: Surface,
    pub(super) ending: StreamEnding,
    /// The cell for a failure that the layers inside have not seen.
    usage: Option<Usage>,
}

/// The end of a body: the last bytes to pass on, and the error that follows them.
#[derive(Debug, Default)]
pub(super) struct BodyEnd {
    pub(super) rest: Option<Bytes>,
    pub(super) error: Option<BoxError>,
}

impl<E: ItemEnds> ItemStream<E> {
    pub(super) fn new(ends: E, facts: &StreamFacts) -> Self {
        let StreamFacts { shape, settings, hides_projects, usage } = facts;
        let review = Review::new(*shape, settings.clone(), *hides_projects);
        let (surface, ending, usage) = (shape.surface, settings.ending, usage.clone());
        Self { gate: ItemGate::new(ends), review, surface, ending, usage }
    }

    /// Takes a frame, and lets `look` see the items that pass, if one of them may be an error.
    pub(super) fn push(&mut self, data: Bytes, look: fn(&mut Review, Bytes) -> Bytes) -> Option<Bytes> {
        let first = self.gate.push(data)?;
        if !self.gate.take_doubt() {
            return Some(first);
        }
        let items = self.rest_behind(first);
        Some(look(&mut self.review, items))
    }

    /// Returns these bytes and all others that have been let go, in one piece.
    pub(super) fn rest_behind(&mut self, first: Bytes) -> Bytes {
        if !self.gate.has_next() {
            return first;
        }
        let all: Vec<Bytes> = std::iter::once(first).chain(std::iter::from_fn(|| self.gate.next())).collect();
        all.concat().into()
    }

    pub(super) fn breaks_at_its_end(&self) -> bool {
        self.review.error().is_some() && self.ending != StreamEnding::Event
    }

    /// Ends a stream whose last bytes these are.
    pub(super) fn ended(&self, rest: Bytes) -> BodyEnd {
        let said = self.review.error().filter(|_| self.breaks_at_its_end());
        let error = said.map(|failure| Error::refusal(NAME, failure.clone()).into());
        BodyEnd { rest: (!rest.is_empty()).then_some(rest), error }
    }

    /// Makes the error of a stream that has ended too early, as only this room sees.
    pub(super) fn cut(&self, message: &str) -> BoxError {
        let failure = Failure::local(Kind::StreamCut, message).into_after_commit();
        if let Some(usage) = &self.usage {
            usage.fail(failure.clone());
        }
        Error::refusal(NAME, failure).into()
    }

    /// Ends a stream that has failed: these are its last bytes before the half of an item, and `words` says the error.
    /// Without words the connection breaks alone.
    pub(super) fn broken_by(
        &self,
        error: BoxError,
        rest: Bytes,
        words: impl FnOnce(&BoxError) -> Option<Vec<u8>>,
    ) -> BodyEnd {
        // The upstream has said it already.
        if self.review.error().is_some() {
            let error = (self.ending != StreamEnding::Event).then_some(error);
            return BodyEnd { rest: (!rest.is_empty()).then_some(rest), error };
        }
        let may_speak = self.ending != StreamEnding::Break && !self.gate.is_open();
        let words = may_speak.then(|| words(&error)).flatten();
        let is_over = words.is_some() && self.ending == StreamEnding::Event;
        let mut rest = BytesMut::from(rest);
        // Transports put whole addresses into their errors.
        let words = words.map(|words| self.review.mask(&words).unwrap_or(words));
        rest.extend_from_slice(&words.unwrap_or_default());
        BodyEnd { rest: (!rest.is_empty()).then(|| rest.freeze()), error: (!is_over).then_some(error) }
    }
}
