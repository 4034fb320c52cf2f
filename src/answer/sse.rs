//! A splitter of server-sent events, which takes them as they pass and does not copy them.
//!
//! The stream may be cut anywhere: in a field's name, between CR and LF. [`Splitter::push`] hands on the payload of
//! `data:` lines piece by piece and tells when an event is whole. A line that is neither a field nor a comment is
//! handed on as raw text: when something breaks, Gemini ends a stream with a bare JSON object over several lines, and
//! that is an error to be read.

/// The receiver of what a [`Splitter`] finds.
pub(crate) trait Listener {
    /// Takes a piece of an event's name. An event may have none.
    fn name(&mut self, _piece: &[u8]) {}
    /// Takes a piece of an event's data. Several `data:` lines of one event are joined by a line feed.
    fn data(&mut self, piece: &[u8]);
    /// Takes a piece of a line that is not a field, its line feed included.
    fn raw(&mut self, piece: &[u8]);
    /// Ends an event, at its blank line.
    fn dispatch(&mut self);
}

/// The longest field name that means something, with its colon.
const MAX_NAME: usize = 6;

/// A splitter of one stream.
#[derive(Debug)]
pub(crate) struct Splitter {
    state: State,
    name: [u8; MAX_NAME],
    name_len: usize,
    /// Set after a CR, so that a LF belongs to the same line end.
    after_cr: bool,
    /// Set once the event has had a data line.
    has_data: bool,
    /// Set until the first byte, where a byte order mark may stand.
    at_start: bool,
}

/// The place within a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the beginning of a line, or in a field's name.
    Name,
    /// After `data:`, where one space is skipped.
    DataStart,
    Data,
    /// After `event:`, where one space is skipped.
    EventStart,
    Event,
    Raw,
    /// A comment, or a field that is not needed.
    Skip,
}

impl Splitter {
    pub(crate) fn new() -> Self {
        let name = [0; MAX_NAME];
        Self { state: State::Name, name, name_len: 0, after_cr: false, has_data: false, at_start: true }
    }

    /// Returns whether the stream stands between events: no line has begun, and no event waits for its blank line.
    pub(crate) fn is_between_events(&self) -> bool {
        self.state == State::Name && self.name_len == 0 && !self.has_data
    }

    /// Takes the next bytes, cut wherever they are.
    pub(crate) fn push(&mut self, mut bytes: &[u8], listener: &mut impl Listener) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                bytes = rest;
                continue;
            }
            bytes = match self.state {
                // Nearly every line begins like this; it is taken in one step where it came in one piece.
                State::Name if self.name_len == 0 && bytes.starts_with(b"data: ") => {
                    self.at_start = false;
                    self.data_line(listener);
                    self.state = State::Data;
                    &bytes[6..]
                }
                State::Name => {
                    self.name(byte, listener);
                    rest
                }
                State::DataStart => {
                    self.state = State::Data;
                    if byte == b' ' { rest } else { bytes }
                }
                State::EventStart => {
                    self.state = State::Event;
                    if byte == b' ' { rest } else { bytes }
                }
                State::Data | State::Event | State::Raw | State::Skip => self.line(bytes, listener),
            };
        }
    }

    /// Takes the rest of a line whose kind is known.
    fn line<'b>(&mut self, bytes: &'b [u8], listener: &mut impl Listener) -> &'b [u8] {
        let end = memchr::memchr2(b'\n', b'\r', bytes);
        let (piece, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        match self.state {
            State::Data => listener.data(piece),
            State::Event if !piece.is_empty() => listener.name(piece),
            State::Raw => listener.raw(piece),
            _ => {}
        }
        let Some((&line_end, rest)) = rest.split_first() else { return &[] };
        if self.state == State::Raw {
            listener.raw(b"\n");
        }
        self.line_ended(line_end);
        rest
    }

    /// Takes a byte at the beginning of a line.
    fn name(&mut self, byte: u8, listener: &mut impl Listener) {
        match byte {
            b'\n' | b'\r' => {
                let name = &self.name[..self.name_len];
                match name {
                    b"" => {
                        listener.dispatch();
                        self.has_data = false;
                    }
                    // A field without a colon has an empty value.
                    b"data" => self.data_line(listener),
                    b"event" | b"id" | b"retry" => {}
                    raw => {
                        listener.raw(raw);
                        listener.raw(b"\n");
                    }
                }
                self.line_ended(byte);
            }
            b':' => match &self.name[..self.name_len] {
                b"data" => {
                    self.data_line(listener);
                    self.state = State::DataStart;
                }
                b"event" => self.state = State::EventStart,
                b"" | b"id" | b"retry" => self.state = State::Skip,
                raw => {
                    listener.raw(raw);
                    listener.raw(b":");
                    self.state = State::Raw;
                }
            },
            _ => {
                self.name[self.name_len] = byte;
                self.name_len += 1;
                let name = &self.name[..self.name_len];
                if self.at_start && b"\xef\xbb\xbf".starts_with(name) {
                    if name.len() == 3 {
                        self.name_len = 0;
                        self.at_start = false;
                    }
                    return;
                }
                self.at_start = false;
                if ![&b"data"[..], b"event", b"id", b"retry"].iter().any(|field| field.starts_with(name)) {
                    listener.raw(name);
                    self.state = State::Raw;
                }
            }
        }
    }

    /// Begins a data line.
    fn data_line(&mut self, listener: &mut impl Listener) {
        if std::mem::replace(&mut self.has_data, true) {
            listener.data(b"\n");
        }
    }

    fn line_ended(&mut self, line_end: u8) {
        self.after_cr = line_end == b'\r';
        self.state = State::Name;
        self.name_len = 0;
        self.at_start = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default, Debug, PartialEq)]
    struct Recorded {
        names: Vec<u8>,
        events: Vec<String>,
        open: Vec<u8>,
        raw: Vec<u8>,
    }

    impl Listener for Recorded {
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
            if !self.open.is_empty() {
                self.events.push(String::from_utf8(std::mem::take(&mut self.open)).unwrap());
            }
        }
    }

    fn split<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Recorded {
        let (mut splitter, mut found) = (Splitter::new(), Recorded::default());
        for piece in pieces {
            splitter.push(piece, &mut found);
        }
        found
    }

    #[test]
    fn events_end_with_a_blank_line_of_any_kind() {
        for text in ["data: a\n\ndata: b\n\n", "data: a\r\n\r\ndata: b\r\n\r\n", "\u{feff}data:a\r\rdata:b\r\r"] {
            assert_eq!(split([text.as_bytes()]).events, ["a", "b"], "{text:?}");
        }
    }

    #[test]
    fn lines_join_and_comments_and_other_fields_do_not_count() {
        let found = split([&b": ping\nid: 7\nevent: error\nretry: 5\ndata: a\ndata\ndata:  b\n\n:x\n\n"[..]]);
        assert_eq!(found.events, ["a\n\n b"]);
        assert_eq!(found.names, b"error");
        assert_eq!(found.raw, b"");
    }

    #[test]
    fn a_bare_json_tail_is_raw() {
        let tail = b"{\n  \"error\": {\n    \"code\": 503\n  }\n}\n";
        let found = split([&b"data: a\n\n"[..], tail]);
        assert_eq!(found.events, ["a"]);
        assert_eq!(found.raw, tail);
    }

    #[test]
    fn it_knows_when_it_stands_between_events() {
        let between = |text: &[u8]| {
            let mut splitter = Splitter::new();
            splitter.push(text, &mut Recorded::default());
            splitter.is_between_events()
        };
        assert!(between(b"") && between(b"data: a\n\n") && between(b": ping\n"));
        assert!(!between(b"data: a\n") && !between(b"data: a") && !between(b"da"));
    }

    proptest::proptest! {
        #[test]
        fn cuts_change_nothing(text in "((data|event|id|x|:|\\{|é|)[: a]{0,3}(\n|\r\n|\r)){0,12}", cuts in proptest::collection::vec(0usize..120, 0..8)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            assert_eq!(split([bytes]), split(cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]])));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            Splitter::new().push(&bytes, &mut Raw);
        }
    }

    struct Raw;
    impl Listener for Raw {
        fn data(&mut self, _: &[u8]) {}
        fn raw(&mut self, _: &[u8]) {}
        fn dispatch(&mut self) {}
    }
}
