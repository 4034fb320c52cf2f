//! Holds an event until it is whole, so that a stream that breaks has no half of one.
//!
//! An SDK takes the half of an event for an event as soon as a blank line follows it, and fails on its JSON: the error
//! event behind it would never be read. An event is of use only as a whole, so that nothing is lost by the wait.

use std::collections::VecDeque;

use bytes::Bytes;

/// The most bytes of an event that are held. A longer one, such as an image, passes as it comes.
const MOST_HELD: usize = 64 * 1024;

/// A gate for the frames of an event stream.
#[derive(Debug)]
pub(super) struct EventGate {
    /// The frames of the event that is not whole.
    held: VecDeque<Bytes>,
    held_len: usize,
    /// The frames that pass on, where one made several pass.
    passing: VecDeque<Bytes>,
    line: Line,
    /// Set once a line of the event has begun that is no comment.
    has_begun: bool,
    /// Set after a CR, so that a LF belongs to the same line end.
    after_cr: bool,
    /// Set if a part of the event has passed already, because it was too long.
    is_open: bool,
}

/// The place within a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Start,
    Comment,
    Other,
}

impl EventGate {
    pub(super) fn new() -> Self {
        Self {
            held: VecDeque::new(),
            held_len: 0,
            passing: VecDeque::new(),
            line: Line::Start,
            has_begun: false,
            after_cr: false,
            is_open: false,
        }
    }

    /// Takes a frame, and returns the first one that passes on; [`next`](Self::next) has more, if there are. A frame of
    /// whole events passes as it is.
    pub(super) fn push(&mut self, data: Bytes) -> Option<Bytes> {
        if self.held.is_empty() && self.passing.is_empty() {
            let end = self.last_end(&data);
            if end == Some(data.len()) {
                self.is_open = false;
                return Some(data);
            }
            self.take(data, end);
        } else {
            self.hold(data);
        }
        self.next()
    }

    /// Takes a frame, and lets go of what is whole.
    pub(super) fn hold(&mut self, data: Bytes) {
        let end = self.last_end(&data);
        self.take(data, end);
    }

    /// Takes a frame in which an event ends there.
    fn take(&mut self, mut data: Bytes, end: Option<usize>) {
        if let Some(end) = end {
            let whole = data.split_to(end);
            self.release();
            self.passing.push_back(whole);
            self.is_open = false;
        }
        if !data.is_empty() {
            self.held_len += data.len();
            self.held.push_back(data);
        }
        if self.is_open || self.held_len > MOST_HELD {
            self.is_open = !self.held.is_empty() || self.is_open;
            self.release();
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

    /// Lets all frames pass: the stream has ended well.
    pub(super) fn release(&mut self) {
        self.held_len = 0;
        self.passing.append(&mut self.held);
    }

    /// Drops the half of an event that is held. Returns whether one has passed, so that its end has to be marked.
    pub(super) fn abandon(&mut self) -> bool {
        self.held_len = 0;
        self.held.clear();
        self.is_open
    }

    /// Finds the end of the last event or comment that ends in these bytes.
    fn last_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let (mut at, mut end) = (0, None);
        while let Some(&byte) = bytes.get(at) {
            if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                at += 1;
                // It belongs to a line end that was the event's, too.
                if !self.has_begun {
                    end = Some(at);
                }
                continue;
            }
            if self.line == Line::Start {
                match byte {
                    b'\n' | b'\r' => {
                        at += 1;
                        self.after_cr = byte == b'\r';
                        self.has_begun = false;
                        end = Some(at);
                        continue;
                    }
                    b':' => self.line = Line::Comment,
                    _ => (self.line, self.has_begun) = (Line::Other, true),
                }
            }
            let Some(length) = memchr::memchr2(b'\n', b'\r', &bytes[at..]) else { break };
            at += length + 1;
            self.after_cr = bytes[at - 1] == b'\r';
            // A comment between events keeps the connection alive, and waits for nothing.
            if self.line == Line::Comment && !self.has_begun {
                end = Some(at);
            }
            self.line = Line::Start;
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes pieces on, and returns what has passed after each.
    fn passed(pieces: &[&str]) -> (Vec<String>, EventGate) {
        let mut gate = EventGate::new();
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
    fn the_half_of_an_event_is_dropped_or_its_end_marked() {
        let (passed_on, mut gate) = passed(&["data: a\n\ndata: {\"candi"]);
        assert_eq!((&passed_on[..], gate.abandon()), (&["data: a\n\n".to_owned()][..], false));
        gate.release();
        assert_eq!(gate.next(), None);

        let long = "x".repeat(MOST_HELD);
        let (passed_on, mut gate) = passed(&["data: ", &long, "y", "\n"]);
        let expected = ["".to_owned(), format!("data: {long}"), "y".into(), "\n".into()];
        assert!(passed_on == expected, "a long one passes as it comes");
        assert!(gate.abandon());
        let (_, mut gate) = passed(&["data: ", &long, "\n\n", "data: b"]);
        assert!(!gate.abandon(), "it was whole in the end");
    }

    #[test]
    fn frames_of_whole_events_are_not_copied() {
        let mut gate = EventGate::new();
        let data = Bytes::from_static(b"data: a\n\ndata: b\n\n");
        assert_eq!(gate.push(data.clone()).unwrap().as_ptr(), data.as_ptr());
        assert_eq!((gate.passing.capacity(), gate.held.capacity()), (0, 0));
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost_and_cuts_change_nothing(
            text in "((data|event|:|\\{|é|)[: a]{0,3}(\n|\r\n|\r|)){0,12}",
            cuts in proptest::collection::vec(0usize..80, 0..8),
        ) {
            let whole = passed(&[&text]);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.retain(|cut| text.is_char_boundary(*cut));
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
            let (parts, mut gate) = passed(&pieces);
            assert_eq!(parts.concat(), whole.0.concat());
            // The rest comes with the end.
            gate.release();
            let rest: Vec<_> = std::iter::from_fn(|| gate.next()).collect();
            assert_eq!(parts.concat() + std::str::from_utf8(&rest.concat()).unwrap(), text);
        }
    }
}
