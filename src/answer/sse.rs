//! Splits server-sent events as they pass, without copying them.
//!
//! The stream is cut anywhere: in a field's name, between CR and LF. [`Splitter::push`] hands on the payload of `data:`
//! lines piece by piece and says when an event is whole. What is neither a field nor a comment is handed on as raw text:
//! when something breaks, Gemini ends a stream with a bare multi-line JSON object, and that is an error to be read.

/// Who listens to a [`Splitter`].
pub(crate) trait Listener {
    /// A piece of an event's data. Several `data:` lines of one event are joined by a line feed.
    fn data(&mut self, piece: &[u8]);
    /// A piece of a line that is no field at all, its line feed included.
    fn raw(&mut self, piece: &[u8]);
    /// A blank line: the event is whole.
    fn dispatch(&mut self);
}

/// The longest field name that means something, with its colon.
const MAX_NAME: usize = 6;

/// Finds the events in a stream of bytes.
#[derive(Debug)]
pub(crate) struct Splitter {
    state: State,
    name: [u8; MAX_NAME],
    name_len: usize,
    /// The last byte was a CR, so that a LF now belongs to the same line end.
    after_cr: bool,
    /// The event has had a data line already.
    has_data: bool,
    /// Nothing has come yet: a byte order mark may.
    at_start: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the beginning of a line, or in a field's name.
    Name,
    /// After `data:`, where one space is skipped.
    DataStart,
    Data,
    Raw,
    /// A comment, or a field that nobody needs.
    Skip,
}

impl Splitter {
    pub(crate) fn new() -> Self {
        let name = [0; MAX_NAME];
        Self { state: State::Name, name, name_len: 0, after_cr: false, has_data: false, at_start: true }
    }

    /// Whether the stream stands between events: no line is begun, and no event waits for its blank line.
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
                // As nearly every line begins, in one step where it came in one piece.
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
                State::Data | State::Raw | State::Skip => self.line(bytes, listener),
            };
        }
    }

    /// The rest of a line whose kind is known.
    fn line<'b>(&mut self, bytes: &'b [u8], listener: &mut impl Listener) -> &'b [u8] {
        let end = memchr::memchr2(b'\n', b'\r', bytes);
        let (piece, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        match self.state {
            State::Data => listener.data(piece),
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

    /// A byte at the beginning of a line.
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
                b"" | b"event" | b"id" | b"retry" => self.state = State::Skip,
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
    struct Heard {
        events: Vec<String>,
        open: Vec<u8>,
        raw: Vec<u8>,
    }

    impl Listener for Heard {
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

    fn split<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Heard {
        let (mut splitter, mut heard) = (Splitter::new(), Heard::default());
        for piece in pieces {
            splitter.push(piece, &mut heard);
        }
        heard
    }

    #[test]
    fn events_end_with_a_blank_line_of_any_kind() {
        for text in ["data: a\n\ndata: b\n\n", "data: a\r\n\r\ndata: b\r\n\r\n", "\u{feff}data:a\r\rdata:b\r\r"] {
            assert_eq!(split([text.as_bytes()]).events, ["a", "b"], "{text:?}");
        }
    }

    #[test]
    fn lines_join_and_comments_and_other_fields_do_not_count() {
        let heard = split([&b": ping\nid: 7\nevent: error\nretry: 5\ndata: a\ndata\ndata:  b\n\n:x\n\n"[..]]);
        assert_eq!(heard.events, ["a\n\n b"]);
        assert_eq!(heard.raw, b"");
    }

    #[test]
    fn a_bare_json_tail_is_raw() {
        let tail = b"{\n  \"error\": {\n    \"code\": 503\n  }\n}\n";
        let heard = split([&b"data: a\n\n"[..], tail]);
        assert_eq!(heard.events, ["a"]);
        assert_eq!(heard.raw, tail);
    }

    #[test]
    fn it_knows_when_it_stands_between_events() {
        let between = |text: &[u8]| {
            let mut splitter = Splitter::new();
            splitter.push(text, &mut Heard::default());
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
