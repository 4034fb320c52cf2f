//! The server-sent events of an answer, on their way to the scanner.

use crate::answer::{
    repeat::Pattern,
    scan::Scanner,
    sse::{Listener, Splitter},
};

/// The longest name of an event that is kept: `interaction.status_update` has 25 bytes.
const MAX_NAME: usize = 32;

/// The events of one answer.
#[derive(Debug)]
pub(super) struct Events {
    splitter: Splitter,
    place: EventPlace,
}

/// The place in the stream.
#[derive(Debug)]
struct EventPlace {
    /// Set if the names of the events mean something: those of interactions do.
    are_named: bool,
    /// The name of the current event, from its `event:` line.
    name: [u8; MAX_NAME],
    name_len: usize,
    /// Set once data of the current event has been scanned.
    begun: bool,
    /// Set while raw text outside of events is scanned.
    in_raw: bool,
    /// The number of bytes of `[DONE]` that have been seen.
    done: usize,
    /// The event before.
    before: Pattern,
}

impl Events {
    pub(super) fn new(are_named: bool) -> Self {
        let (name, name_len) = ([0; MAX_NAME], 0);
        let place =
            EventPlace { are_named, name, name_len, begun: false, in_raw: false, done: 0, before: Pattern::default() };
        Self { splitter: Splitter::new(), place }
    }

    pub(super) fn push(&mut self, bytes: &[u8], scanner: &mut Scanner) {
        self.splitter.push(bytes, &mut Scanning { scanner, place: &mut self.place });
    }

    /// Returns whether the end mark of OpenAI's dialect has been seen.
    pub(super) fn is_done(&self) -> bool {
        self.place.done == DoneMark::TEXT.len()
    }
}

struct Scanning<'a> {
    scanner: &'a mut Scanner,
    place: &'a mut EventPlace,
}

impl Listener for Scanning<'_> {
    fn name(&mut self, piece: &[u8]) {
        let place = &mut *self.place;
        if !place.are_named {
            return;
        }
        let end = place.name_len.saturating_add(piece.len());
        match place.name.get_mut(place.name_len..end) {
            Some(room) => room.copy_from_slice(piece),
            None => place.name_len = MAX_NAME + 1,
        }
        place.name_len = end.max(place.name_len);
    }

    fn data(&mut self, piece: &[u8]) {
        let is_first = !std::mem::replace(&mut self.place.begun, true);
        if is_first {
            self.place.in_raw = false;
            DoneMark(&mut self.place.done).restart();
            if let Some(name) = self.place.name.get(..self.place.name_len).filter(|name| !name.is_empty()) {
                self.scanner.found.event_named(name);
            }
        }
        DoneMark(&mut self.place.done).push(piece);
        if is_first {
            self.scanner.event(piece, &mut self.place.before);
        } else {
            self.place.before.forget();
            self.scanner.push(piece);
        }
    }

    fn raw(&mut self, piece: &[u8]) {
        if !std::mem::replace(&mut self.place.in_raw, true) {
            self.scanner.reset();
            self.place.before.forget();
        }
        self.scanner.push(piece);
    }

    fn dispatch(&mut self) {
        self.place.begun = false;
        self.place.name_len = 0;
    }
}

/// A search for OpenAI's end mark, an event whose data is `[DONE]`.
struct DoneMark<'a>(&'a mut usize);

impl DoneMark<'_> {
    const TEXT: &'static [u8] = b"[DONE]";
    /// The progress in an event with other data.
    const OTHER: usize = usize::MAX;

    fn restart(&mut self) {
        if *self.0 != Self::TEXT.len() {
            *self.0 = 0;
        }
    }

    fn push(&mut self, piece: &[u8]) {
        let Some(awaited) = Self::TEXT.get(*self.0..) else { return };
        let matching = awaited.iter().zip(piece).take_while(|(a, b)| a == b).count();
        *self.0 = if matching == piece.len().min(awaited.len()) { *self.0 + matching } else { Self::OTHER };
    }
}
