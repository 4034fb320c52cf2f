//! A line that was opened before its event came, and the search for the data that continues it. Pure.
//!
//! The line began with `data: `, so that only the data of the next event can follow there. Whatever the upstream sends
//! before that data has another place, or none.

/// The most bytes of other fields that are kept until the data has passed. Further ones are dropped.
const MOST_FIELDS: usize = 4 * 1024;

/// The most bytes of lines that are no fields. A bare error is not longer.
const MOST_RAW: usize = 64 * 1024;

/// The longest name of a field that means something.
const MOST_NAME: usize = 5;

/// The search for the data that continues an open line.
#[derive(Debug)]
pub(super) struct OpenLine {
    state: State,
    name: [u8; MOST_NAME],
    name_len: usize,
    /// The fields of the next event other than its data, whose lines come after the data's. Each has its line end.
    fields: Vec<u8>,
    /// The place of the first `event` among them.
    first_name: Option<usize>,
    /// The lines that are no fields: an upstream that breaks may end in a bare JSON object.
    raw: Vec<u8>,
    /// Set until the first byte of the stream, where a byte order mark may stand.
    at_start: bool,
    /// Set after a CR, so that a LF belongs to the same line end.
    after_cr: bool,
}

/// The place within a line of the upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the beginning of a line, or in a field's name.
    Name,
    /// After `data:`, where no data has come: white space before JSON means nothing.
    Data,
    /// In a field that is kept.
    Field,
    /// In a line that is no field.
    Raw,
    /// In a comment, or in a field that is dropped.
    Skip,
}

impl OpenLine {
    /// Opens a line; `at_start` says whether no byte of the stream has come.
    pub(super) fn new(at_start: bool) -> Self {
        let (name, fields, raw) = ([0; MOST_NAME], Vec::new(), Vec::new());
        Self { state: State::Name, name, name_len: 0, fields, first_name: None, raw, at_start, after_cr: false }
    }

    /// Takes the upstream's next bytes. Returns the place of the first byte that continues the open line, once it is
    /// among them.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, &byte) in bytes.iter().enumerate() {
            if std::mem::replace(&mut self.after_cr, byte == b'\r') && byte == b'\n' {
                continue;
            }
            let ends = matches!(byte, b'\n' | b'\r');
            match self.state {
                State::Name => self.name(byte, ends),
                State::Data => match byte {
                    b' ' | b'\t' => {}
                    // An event without data would close the line with nothing on it.
                    _ if ends => self.begin_line(),
                    _ => return Some(at),
                },
                State::Field => match ends {
                    true => {
                        self.fields.push(b'\n');
                        self.begin_line();
                    }
                    false if self.fields.len() < MOST_FIELDS => self.fields.push(byte),
                    false => {
                        self.drop_field();
                        self.state = State::Skip;
                    }
                },
                State::Raw => {
                    self.add_raw(&[byte]);
                    if ends {
                        self.begin_line();
                    }
                }
                State::Skip if ends => self.begin_line(),
                State::Skip => {}
            }
        }
        None
    }

    /// Returns the lines to put behind the data's line.
    pub(super) fn into_fields(self) -> Vec<u8> {
        self.fields
    }

    /// Returns the lines that were no fields.
    pub(super) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Takes a byte at the beginning of a line.
    fn name(&mut self, byte: u8, ends: bool) {
        const BOM: &[u8] = b"\xef\xbb\xbf";
        let name = &self.name[..self.name_len];
        match (name, byte) {
            (b"", _) if ends => {
                // A blank line ends an event that had no data, and so its name means nothing. Its id does.
                self.drop_event_names();
                self.at_start = false;
            }
            // A field without a colon has no value.
            (b"data", _) if ends => self.begin_line(),
            (b"event" | b"id" | b"retry", _) if ends => {
                if self.fields.len() + MOST_NAME < MOST_FIELDS {
                    self.begin_field();
                    self.fields.push(b'\n');
                }
                self.begin_line();
            }
            (b"", b':') => self.state = State::Skip,
            (b"data", b':') => self.state = State::Data,
            (b"event" | b"id" | b"retry", b':') if self.fields.len() + MOST_NAME < MOST_FIELDS => {
                self.begin_field();
                self.fields.push(b':');
                self.state = State::Field;
            }
            (b"event" | b"id" | b"retry", b':') => self.state = State::Skip,
            _ if ends || byte == b':' || name.len() == MOST_NAME => {
                let (name, len) = (self.name, self.name_len);
                self.add_raw(&name[..len]);
                self.add_raw(&[byte]);
                self.state = State::Raw;
                if ends {
                    self.begin_line();
                }
            }
            _ => {
                self.name[self.name_len] = byte;
                self.name_len += 1;
                if std::mem::take(&mut self.at_start) && BOM.starts_with(&self.name[..self.name_len]) {
                    self.at_start = self.name_len < BOM.len();
                    if !self.at_start {
                        self.name_len = 0;
                    }
                }
            }
        }
    }

    fn begin_line(&mut self) {
        (self.state, self.name_len, self.at_start) = (State::Name, 0, false);
    }

    /// Keeps the name of a field.
    fn begin_field(&mut self) {
        let name = &self.name[..self.name_len];
        if name == b"event" {
            self.first_name.get_or_insert(self.fields.len());
        }
        self.fields.extend_from_slice(name);
    }

    /// Drops the field whose line has not ended.
    fn drop_field(&mut self) {
        let line = memchr::memrchr(b'\n', &self.fields).map_or(0, |end| end + 1);
        self.fields.truncate(line);
    }

    /// Drops the names of events. Each byte is looked at once: what stands before the first name was looked at before.
    fn drop_event_names(&mut self) {
        let Some(first) = self.first_name.take() else { return };
        let new = self.fields.split_off(first.min(self.fields.len()));
        for line in new.split_inclusive(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"event")) {
            self.fields.extend_from_slice(line);
        }
    }

    fn add_raw(&mut self, bytes: &[u8]) {
        // A longer one cannot be read, and half of one is of no use.
        if self.raw.len() + bytes.len() <= MOST_RAW {
            self.raw.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what continues the line, the fields that come after it, and the raw lines.
    fn continued(pieces: &[&[u8]]) -> (Option<String>, String, String) {
        let mut line = OpenLine::new(true);
        let mut rest = None;
        for piece in pieces {
            match &mut rest {
                None => rest = line.push(piece).map(|at| piece[at..].to_vec()),
                Some(rest) => rest.extend_from_slice(piece),
            }
        }
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (rest.as_deref().map(text), text(&line.fields), text(&line.raw))
    }

    #[test]
    fn the_data_is_found_whatever_stands_before_it_and_wherever_it_is_cut() {
        let cases = [
            ("data: {}\n\n", Some("{}\n\n"), "", ""),
            ("data:{}\n\n", Some("{}\n\n"), "", ""),
            ("data:  \t{}\n\n", Some("{}\n\n"), "", ""),
            ("\u{feff}data: {}\r\n\r\n", Some("{}\r\n\r\n"), "", ""),
            (": ping\n\ndata: {}\n\n", Some("{}\n\n"), "", ""),
            ("\n\r\n\rdata: {}\n\n", Some("{}\n\n"), "", ""),
            ("event: x\nid: 7\r\nretry:5\rdata: {}\n\n", Some("{}\n\n"), "event: x\nid: 7\nretry:5\n", ""),
            ("event: x\nid: 7\n\ndata: {}\n\n", Some("{}\n\n"), "id: 7\n", ""),
            ("event: x\nevent\rid\ndata: {}\n\n", Some("{}\n\n"), "event: x\nevent\nid\n", ""),
            ("data\ndata:\ndata: {\ndata: }\n\n", Some("{\ndata: }\n\n"), "", ""),
            ("data:\n\ndata: {}\n\n", Some("{}\n\n"), "", ""),
            ("{\"error\":{\n}}\n", None, "", "{\"error\":{\n}}\n"),
            ("dat: x\nother\nevents: x\n", None, "", "dat: x\nother\nevents: x\n"),
            ("data", None, "", ""),
        ];
        for (text, rest, fields, raw) in cases {
            let expected = (rest.map(str::to_owned), fields.to_owned(), raw.to_owned());
            for at in 0..=text.len() {
                let (first, second) = text.as_bytes().split_at(at);
                assert_eq!(continued(&[first, second]), expected, "{text:?} at {at}");
            }
            let single: Vec<_> = text.as_bytes().chunks(1).collect();
            assert_eq!(continued(&single), expected, "{text:?} in bytes");
        }
    }

    #[test]
    fn memory_has_bounds() {
        let mut line = OpenLine::new(true);
        let long = [b'x'; 100];
        for _ in 0..2_000 {
            assert_eq!(line.push(&[b"id: ", &long[..], b"\n", &long, b"\n"].concat()), None);
        }
        assert_eq!(
            line.push(&[b"id: ", &[b'x'; 2 * MOST_FIELDS][..], b"\ndata: {"].concat()),
            Some(2 * MOST_FIELDS + 11)
        );
        assert!(line.fields.len() <= MOST_FIELDS && line.fields.ends_with(b"xx\n"));
        assert!(line.raw.len() <= MOST_RAW);
    }
}
