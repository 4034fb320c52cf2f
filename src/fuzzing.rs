//! What the targets in `tests/fuzz` have to see of the inside. Exists under `cfg(fuzzing)` only, and is no part of the API.
//!
//! Each function takes its input in pieces, and gives back something to compare: however the pieces were cut, it has to be
//! the same.

#![allow(missing_docs, reason = "nobody sees it")]

use crate::{
    answer::{
        scan::Scanner,
        sse::{Listener, Splitter},
    },
    redact::Masker,
};

pub use crate::{classify::fuzzing::watch, request::fuzzing::request};

/// What the scan of an answer finds.
pub fn scan(pieces: &[&[u8]]) -> String {
    let mut scanner = Scanner::new();
    pieces.iter().for_each(|piece| scanner.push(piece));
    shown(&scanner)
}

pub(crate) fn shown(scanner: &Scanner) -> String {
    let found = &scanner.found;
    format!(
        "content: {}, finish: {:?}, block: {:?}, model: {:?}, {:?}, {:?}, open: {}, between: {}, comma: {:?}",
        found.content,
        found.finish_reason,
        found.block_reason,
        found.model_version,
        found.tokens,
        found.error,
        scanner.is_open(),
        scanner.is_between_values(),
        scanner.needs_comma(),
    )
}

/// What a splitter hears.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    pub events: Vec<Vec<u8>>,
    pub open: Vec<u8>,
    pub raw: Vec<u8>,
    pub is_between_events: bool,
}

impl Listener for Heard {
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

/// The events of a stream.
pub fn split(pieces: &[&[u8]]) -> Heard {
    let (mut splitter, mut heard) = (Splitter::new(), Heard::default());
    pieces.iter().for_each(|piece| splitter.push(piece, &mut heard));
    Heard { is_between_events: splitter.is_between_events(), ..heard }
}

/// A body with its keys overwritten.
pub fn mask(pieces: &[&[u8]]) -> Vec<u8> {
    let (mut masker, mut out) = (Masker::default(), Vec::new());
    pieces.iter().for_each(|piece| masker.push(piece, &mut out));
    masker.finish(&mut out);
    out
}
