//! Holds an item of a stream until it is whole, so that a stream that breaks has no half of one.
//!
//! An SDK takes the half of an event for an event as soon as a blank line follows it, and fails on its JSON: the error
//! event behind it would never be read. The half of an element makes a whole array unreadable. An item is of use only as
//! a whole, so that nothing is lost by the wait.

use std::collections::VecDeque;

use bytes::Bytes;

use super::ends::ItemEnds;

/// The most bytes of an item that are held. A longer one, such as an image, passes as it comes.
pub(super) const MOST_HELD: usize = 64 * 1024;

/// The most bytes that are copied so that the end of an item passes in one frame with its beginning.
const MOST_JOINED: usize = 4 * 1024;

/// A gate for the frames of a stream.
#[derive(Debug)]
pub(super) struct ItemGate<E> {
    ends: E,
    /// The item that is not whole. It is a copy: a slice would keep the whole buffer of a connection alive.
    held: Vec<u8>,
    /// The frames that pass on, where one made several pass.
    passing: VecDeque<Bytes>,
    /// Set if a part of the item has passed already, because it was too long.
    is_open: bool,
    /// Set if the item that is held, or one that has just been let go, may be an error.
    doubt: bool,
}

impl<E: ItemEnds> ItemGate<E> {
    pub(super) fn new(ends: E) -> Self {
        Self { ends, held: Vec::new(), passing: VecDeque::new(), is_open: false, doubt: false }
    }

    /// Takes a frame, and returns the first one that passes on; [`next`](Self::next) has more, if there are. A frame of
    /// whole items passes as it is.
    pub(super) fn push(&mut self, data: Bytes) -> Option<Bytes> {
        let end = self.last_end(&data);
        if end == Some(data.len()) && self.held.is_empty() && self.passing.is_empty() {
            self.is_open = false;
            return Some(data);
        }
        self.take(data, end);
        self.next()
    }

    /// Takes a frame, and lets go of what is whole.
    pub(super) fn hold(&mut self, data: Bytes) {
        let end = self.last_end(&data);
        self.take(data, end);
    }

    fn last_end(&mut self, data: &[u8]) -> Option<usize> {
        let end = self.ends.last_end(data);
        self.doubt |= self.ends.take_doubt();
        end
    }

    /// Takes a frame of which the bytes before `end` are whole.
    fn take(&mut self, mut data: Bytes, end: Option<usize>) {
        if let Some(end) = end {
            self.let_go(data.split_to(end));
            self.is_open = false;
        }
        if self.is_open || self.held.len() + data.len() > MOST_HELD {
            self.let_go(data);
            self.is_open = true;
        } else {
            self.held.extend_from_slice(&data);
        }
    }

    /// Lets go of what is held, and of the bytes that follow it.
    fn let_go(&mut self, data: Bytes) {
        let mut held = std::mem::take(&mut self.held);
        if held.is_empty() {
            self.passing.extend((!data.is_empty()).then_some(data));
        } else if data.len() <= MOST_JOINED || self.doubt {
            held.extend_from_slice(&data);
            self.passing.push_back(held.into());
        } else {
            self.passing.extend([held.into(), data]);
        }
    }

    /// Returns the next frame that passes on.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        self.passing.pop_front()
    }

    /// Returns whether there are frames that pass on.
    pub(super) fn has_next(&self) -> bool {
        !self.passing.is_empty()
    }

    /// Returns whether one of the items that were let go since may be an error, and forgets it.
    pub(super) fn take_doubt(&mut self) -> bool {
        let doubt = self.doubt;
        self.doubt &= !self.held.is_empty();
        doubt
    }

    /// Returns the half of an item, which is held no longer.
    pub(super) fn take_half(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// Returns whether the half of an item has passed, so that nothing can be said behind it.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    pub(super) fn ends(&self) -> &E {
        &self.ends
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing {
    use super::{super::ends::*, *};

    /// Passes pieces on. Returns all bytes that have passed after each piece, and the half that is held in the end.
    ///
    /// # Panics
    ///
    /// If a byte is lost, if one passes before its item is whole, or if one is held whose item is.
    pub(crate) fn gate(pieces: &[&[u8]]) -> Vec<u8> {
        let events = passed(pieces, EventEnds::new);
        let elements = passed(pieces, ElementEnds::new);
        assert_eq!(events.len(), elements.len());
        events
    }

    fn passed<E: ItemEnds>(pieces: &[&[u8]], rule: fn() -> E) -> Vec<u8> {
        let (mut gate, mut whole) = (ItemGate::new(rule()), rule());
        let (mut came, mut passed, mut certain) = (Vec::new(), Vec::new(), 0);
        for piece in pieces {
            // The rule itself, without the gate, says how far the items are whole.
            if let Some(end) = whole.last_end(piece) {
                certain = came.len() + end;
            }
            came.extend_from_slice(piece);
            let first = gate.push(Bytes::copy_from_slice(piece));
            first.into_iter().chain(std::iter::from_fn(|| gate.next())).for_each(|frame| passed.extend(frame));
            assert!(came.starts_with(&passed), "changed");
            let is_long = came.len() - certain > MOST_HELD || gate.is_open();
            assert!(is_long || passed.len() == certain, "{} passed, {certain} were whole", passed.len());
            assert!(gate.held.len() <= MOST_HELD);
        }
        passed.extend(gate.take_half());
        assert_eq!(passed, came, "lost");
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::{super::ends::*, *};

    type EventGate = ItemGate<EventEnds>;

    /// Passes pieces on, and returns what has passed after each.
    fn passed(pieces: &[&str]) -> (Vec<String>, EventGate) {
        let mut gate = ItemGate::new(EventEnds::new());
        let mut push = |piece: &&str| {
            let first = gate.push(Bytes::copy_from_slice(piece.as_bytes()));
            let more = std::iter::from_fn(|| gate.next());
            String::from_utf8(first.into_iter().chain(more).collect::<Vec<_>>().concat()).unwrap()
        };
        (pieces.iter().map(&mut push).collect(), gate)
    }

    #[test]
    fn an_event_passes_when_it_is_whole() {
        let cases: [(&[&str], &[&str]); 9] = [
            (&["data: a\n\n"], &["data: a\n\n"]),
            (&["data: a\n", "\n"], &["", "data: a\n\n"]),
            (&["data: a\n\ndata: b", "\n\n"], &["data: a\n\n", "data: b\n\n"]),
            (&["data: a\r\n\r", "\ndata: b\r\n", "\r\n"], &["data: a\r\n\r", "\n", "data: b\r\n\r\n"]),
            (&["data: a\r\r", "data: b\r\r"], &["data: a\r\r", "data: b\r\r"]),
            (&["event: x\n", "data: a\ndata: b\n", "\n"], &["", "", "event: x\ndata: a\ndata: b\n\n"]),
            // Comments wait for nothing, unless they are within an event.
            (&[": ping\n", ": ping\r\n", ":"], &[": ping\n", ": ping\r\n", ""]),
            (&["data: a\n: ping\n", "\n"], &["", "data: a\n: ping\n\n"]),
            (&["", "\n", "\n\n"], &["", "\n", "\n\n"]),
        ];
        for (pieces, expected) in cases {
            assert_eq!(passed(pieces).0, expected, "{pieces:?}");
        }
    }

    #[test]
    fn the_half_of_an_event_stays_behind_unless_it_was_too_long() {
        let (passed_on, mut gate) = passed(&["data: a\n\ndata: {\"candi"]);
        assert_eq!(passed_on, ["data: a\n\n"]);
        assert_eq!((gate.take_half(), gate.is_open()), (b"data: {\"candi".to_vec(), false));

        let long = "x".repeat(MOST_HELD);
        let (passed_on, mut gate) = passed(&["data: ", &long, "y", "\n"]);
        let expected = ["".to_owned(), format!("data: {long}"), "y".into(), "\n".into()];
        assert!(passed_on == expected, "a long one passes as it comes");
        assert_eq!((gate.take_half(), gate.is_open()), (vec![], true));
        let (_, gate) = passed(&["data: ", &long, "\n\n", "data: b"]);
        assert!(!gate.is_open(), "it was whole in the end");
    }

    #[test]
    fn frames_of_whole_events_are_not_copied() {
        let mut gate = ItemGate::new(EventEnds::new());
        let data = Bytes::from_static(b"data: a\n\ndata: b\n\n");
        assert_eq!(gate.push(data.clone()).unwrap().as_ptr(), data.as_ptr());
        assert_eq!((gate.passing.capacity(), gate.held.capacity()), (0, 0));
    }

    #[test]
    fn what_is_held_keeps_no_buffer_alive() {
        let mut gate = ItemGate::new(EventEnds::new());
        let mut buffer = bytes::BytesMut::from(&[b"data: a\n\ndata: b".as_slice(), &[b'x'; 16_000]].concat()[..]);
        let frame = buffer.split_to(15).freeze();
        drop(buffer);
        drop(gate.push(frame.clone()));
        assert_eq!(gate.held, b"data: "[..]);
        assert!(frame.is_unique());
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost_delayed_or_passed_too_early(
            text in "(((data|event|:|\\{|é|)[: a]{0,3}(\n|\r\n|\r|))|[\\[\\]{},\" a\\\\]{1,4}){0,12}",
            cuts in proptest::collection::vec(0usize..80, 0..8),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            assert_eq!(fuzzing::gate(&pieces), bytes);
        }
    }
}
