//! Finds the error that a stream says, wherever its event stands and is cut. Pure.
//!
//! Only the beginning of each line is looked at: an event says an error by its name, or by the first member of its data.

/// The beginning of an error's data. White space may stand before its first two marks.
const OBJECT: &[u8] = b"{\"error\"";

/// The name of an error's event.
const NAME: &[u8] = b"error";

const DATA: &[u8] = b"data:";
const EVENT: &[u8] = b"event:";

/// The search for an error in one stream.
#[derive(Debug)]
pub(super) struct ErrorSearch {
    line: LinePart,
    /// The number of [`OBJECT`]'s bytes with which the event's data has begun. `None`: it is no error.
    object: Option<usize>,
    /// Set after a CR, so that a LF belongs to the same line end.
    after_cr: bool,
}

/// The part of a line that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinePart {
    Start,
    /// The first bytes of a field's name.
    Field(&'static [u8], usize),
    /// Within data that may be an error's.
    Data,
    /// The first bytes of an event's name.
    Name(usize),
    Rest,
}

impl ErrorSearch {
    pub(super) fn new() -> Self {
        Self { line: LinePart::Start, object: Some(0), after_cr: false }
    }

    /// Notices that `data:` has been sent ahead of the stream's next bytes.
    pub(super) fn open_data(&mut self) {
        (self.line, self.object, self.after_cr) = (LinePart::Data, Some(0), false);
    }

    /// Takes the next bytes. Returns whether an error begins among them.
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        let mut at = 0;
        while at < bytes.len() {
            if self.line == LinePart::Rest {
                let Some(length) = memchr::memchr2(b'\n', b'\r', &bytes[at..]) else { return false };
                at += length;
            }
            if self.line == LinePart::Start && is_plain_event(&bytes[at..]) {
                (self.line, self.object, self.after_cr) = (LinePart::Rest, None, false);
                continue;
            }
            let byte = bytes[at];
            at += 1;
            if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                continue;
            }
            if matches!(byte, b'\n' | b'\r') {
                self.after_cr = byte == b'\r';
                match std::mem::replace(&mut self.line, LinePart::Start) {
                    // A blank line ends the event.
                    LinePart::Start => self.object = Some(0),
                    LinePart::Name(length) if length == NAME.len() => return true,
                    _ => {}
                }
                continue;
            }
            self.line = match self.line {
                LinePart::Start => match byte {
                    b'd' => LinePart::Field(DATA, 1),
                    b'e' => LinePart::Field(EVENT, 1),
                    // An upstream that breaks may say its error without a frame.
                    b'{' => self.data(byte),
                    // A byte order mark stands before the first line.
                    0xef | 0xbb | 0xbf => LinePart::Start,
                    _ => LinePart::Rest,
                },
                LinePart::Field(field, length) if field[length] == byte => match length + 1 {
                    length if length < field.len() => LinePart::Field(field, length),
                    _ if field == DATA => LinePart::Data,
                    _ => LinePart::Name(0),
                },
                LinePart::Name(0) if byte == b' ' => LinePart::Name(0),
                LinePart::Name(length) if NAME.get(length) == Some(&byte) => LinePart::Name(length + 1),
                LinePart::Data => self.data(byte),
                LinePart::Field(..) | LinePart::Name(_) | LinePart::Rest => LinePart::Rest,
            };
            if self.object == Some(OBJECT.len()) {
                return true;
            }
        }
        false
    }

    /// Takes a byte of the event's data, which may go on over lines.
    fn data(&mut self, byte: u8) -> LinePart {
        self.object = match self.object {
            Some(length @ (0 | 1)) if matches!(byte, b' ' | b'\t') => Some(length),
            Some(length) if OBJECT.get(length) == Some(&byte) => Some(length + 1),
            _ => None,
        };
        if self.object.is_some() { LinePart::Data } else { LinePart::Rest }
    }
}

/// Returns whether a line begins as that of nearly every event does: with an object whose first member is no error.
fn is_plain_event(line: &[u8]) -> bool {
    let member = line.strip_prefix(b"data: {\"").and_then(|member| member.first());
    member.is_some_and(|first| !matches!(first, b'e' | b'\n' | b'\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_found_wherever_it_stands_and_is_cut() {
        let good = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}]}";
        for (text, is_error) in [
            ("data: {\"error\":{}}\n\n".to_owned(), true),
            ("{\"error\":{}}".to_owned(), true),
            ("\u{feff}data: {\"error\":{}}\n\n".to_owned(), true),
            (format!("{good}\n\ndata: {{\"error\":{{}}}}\n\n"), true),
            (format!("{good}\r\n\r\ndata:{{ \"error\" : {{}}}}\r\n\r\n"), true),
            (format!("{good}\r\rdata: {{\rdata:  \"error\":{{}}}}\r\r"), true),
            (format!(": ping\n\n{good}\n\nevent: error\ndata: {{}}\n\n"), true),
            (format!("{good}\n\nevent:error\r\ndata: {{}}\r\n\r\n"), true),
            (format!("{good}\n\n"), false),
            ("event: errors\ndata: {}\n\n".to_owned(), false),
            ("event: x\nerror\ndata: error\n\n".to_owned(), false),
            ("data: {\"errors\":[]}\n\n".to_owned(), false),
            ("data: {\"text\":\"data: {\\\"error\\\":1}\"}\n\n".to_owned(), false),
            ("data: {\"a\":\ndata: {\"error\":1}}\n\n".to_owned(), false),
            (": {\"error\":1}\n\nid: {\"error\":1}\n\n".to_owned(), false),
        ] {
            assert_eq!(ErrorSearch::new().push(text.as_bytes()), is_error, "{text:?}");
            for at in 0..=text.len() {
                let (first, second) = text.as_bytes().split_at(at);
                let mut search = ErrorSearch::new();
                assert_eq!(search.push(first) || search.push(second), is_error, "{text:?} at {at}");
            }
            let mut search = ErrorSearch::new();
            assert_eq!(text.as_bytes().chunks(1).any(|byte| search.push(byte)), is_error, "{text:?} in bytes");
        }
    }

    #[test]
    fn the_data_may_continue_a_line_that_was_opened() {
        for (text, is_error) in [
            ("{\"error\":{}}\n\n", true),
            ("  {\"error\":{}}\n\n", true),
            ("{}\n\ndata: {\"error\"", true),
            ("{}\n\n", false),
        ] {
            let mut search = ErrorSearch::new();
            assert!(!search.push(b": x\r"));
            search.open_data();
            assert_eq!(search.push(text.as_bytes()), is_error, "{text:?}");
        }
    }
}
