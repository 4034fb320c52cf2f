//! The inside of the crate, as far as the targets in `tests/fuzz` have to see it. It exists under `cfg(fuzzing)` only,
//! and is not part of the API.
//!
//! Each function takes its input in pieces, and gives back something to compare: however the pieces were cut, it has to
//! be the same.

#![allow(missing_docs, reason = "it is shown to the fuzz targets only")]

use crate::{
    answer::{
        scan::Scanner,
        sse::{Listener, Splitter},
    },
    redact::Masker,
};

pub use crate::{classify::fuzzing::watch, request::fuzzing::request};

/// Returns the findings of the scan of an answer, as text.
pub fn scan(pieces: &[&[u8]]) -> String {
    let mut scanner = Scanner::new();
    pieces.iter().for_each(|piece| scanner.push(piece));
    shown(&scanner)
}

pub(crate) fn shown(scanner: &Scanner) -> String {
    let found = &scanner.found;
    format!(
        "content: {}, answer: {}, names: {:?}, completed: {}, foreign: {}, finish: {:?}, block: {:?}, model: {:?}, {:?}, \
         {:?}, {:?}, open: {}, between: {}",
        found.content,
        found.answer,
        [&found.response_id, &found.previous_interaction_id, &found.service_tier, &found.status],
        found.completed,
        found.is_foreign(),
        found.finish_reason,
        found.block_reason,
        found.model_version,
        found.tokens,
        found.error,
        found.fault,
        scanner.is_open(),
        scanner.is_between_values(),
    )
}

/// The events and lines that a splitter finds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Split {
    pub names: Vec<u8>,
    pub events: Vec<Vec<u8>>,
    pub open: Vec<u8>,
    pub raw: Vec<u8>,
    pub is_between_events: bool,
}

impl Listener for Split {
    fn name(&mut self, piece: &[u8]) {
        self.names.extend_from_slice(piece);
    }

    fn data(&mut self, piece: &[u8]) {
        self.open.extend_from_slice(piece);
    }

    fn raw(&mut self, piece: &[u8]) {
        self.raw.extend_from_slice(piece);
    }

    fn dispatch(&mut self) {
        self.events.push(std::mem::take(&mut self.open));
    }
}

/// Returns the events of a stream.
pub fn split(pieces: &[&[u8]]) -> Split {
    let (mut splitter, mut found) = (Splitter::new(), Split::default());
    pieces.iter().for_each(|piece| splitter.push(piece, &mut found));
    Split { is_between_events: splitter.is_between_events(), ..found }
}

/// Returns the stream of an interaction with its bare errors framed.
pub fn frame(pieces: &[&[u8]]) -> Vec<u8> {
    crate::error_response::fuzzing::frame(pieces)
}

/// Returns a stream that has passed the gate, which holds its items until they are whole.
pub fn gate(pieces: &[&[u8]]) -> Vec<u8> {
    crate::error_response::fuzzing::gate(pieces)
}

/// Returns a body with its keys overwritten.
pub fn mask(pieces: &[&[u8]]) -> Vec<u8> {
    let (mut masker, mut out) = (Masker::default(), Vec::new());
    pieces.iter().for_each(|piece| masker.push(piece, &mut out));
    masker.finish(&mut out);
    out
}
