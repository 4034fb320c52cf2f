//! The places at which the items of a stream end: the events of an event stream, the elements of an array.
//!
//! Both rules take a stream cut wherever it is, copy nothing, and notice on their way an item that is no ordinary
//! answer, so that only such a one has to be looked at.

/// The rule by which a stream is divided into items.
pub(super) trait ItemEnds {
    /// Takes the next bytes, and reports each place among them at which no item is open, in their order.
    fn scan(&mut self, bytes: &[u8], ended: impl FnMut(usize));

    /// Returns whether an item has begun that may be an error, and forgets it.
    fn take_doubt(&mut self) -> bool;

    /// Finds the last place at which no item is open.
    fn last_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut last = None;
        self.scan(bytes, |end| last = Some(end));
        last
    }
}

/// The ends of events: a blank line, or the end of a comment between events.
#[derive(Debug)]
pub(super) struct EventEnds {
    line: LinePlace,
    /// Set once a line of the event has begun that is no comment.
    has_begun: bool,
    /// Set after a CR, so that a LF belongs to the same line end.
    after_cr: bool,
    doubt: bool,
}

/// The place within a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinePlace {
    Start,
    Comment,
    Other,
}

impl EventEnds {
    pub(super) fn new() -> Self {
        Self { line: LinePlace::Start, has_begun: false, after_cr: false, doubt: false }
    }
}

/// Returns whether a line begins as that of an ordinary answer: nearly all do.
fn is_ordinary_line(line: &[u8]) -> bool {
    let Some(name) = line.strip_prefix(b"data: {\"") else { return false };
    let list = name.strip_prefix(b"candidates\":").or_else(|| name.strip_prefix(b"choices\":"));
    list.is_some_and(|list| list.starts_with(b"[{") || list.starts_with(b" [{"))
}

impl ItemEnds for EventEnds {
    fn scan(&mut self, bytes: &[u8], mut ended: impl FnMut(usize)) {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                at += 1;
                // It belongs to a line end that was the event's, too.
                if !self.has_begun {
                    ended(at);
                }
                continue;
            }
            if self.line == LinePlace::Start {
                match byte {
                    b'\n' | b'\r' => {
                        at += 1;
                        self.after_cr = byte == b'\r';
                        self.has_begun = false;
                        ended(at);
                        continue;
                    }
                    b':' => self.line = LinePlace::Comment,
                    _ => {
                        self.doubt |= !is_ordinary_line(&bytes[at..]);
                        (self.line, self.has_begun) = (LinePlace::Other, true);
                    }
                }
            }
            let Some(length) = memchr::memchr2(b'\n', b'\r', &bytes[at..]) else { break };
            at += length + 1;
            self.after_cr = bytes[at - 1] == b'\r';
            // A comment between events keeps the connection alive, and waits for nothing.
            if self.line == LinePlace::Comment && !self.has_begun {
                ended(at);
            }
            self.line = LinePlace::Start;
        }
    }

    fn take_doubt(&mut self) -> bool {
        std::mem::take(&mut self.doubt)
    }
}

/// The ends of an array's elements, which are objects. A comma and white space between them belong to no element. The
/// closing bracket is an item that does not end: until the body has ended, an error may have to stand in front of it.
#[derive(Debug)]
pub(super) struct ElementEnds {
    place: ElementPlace,
    /// The number of open brackets, the array's own included.
    depth: u32,
    in_string: bool,
    escaped: bool,
    doubt: bool,
}

/// The place within an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ElementPlace {
    /// Before the array.
    Outside,
    /// Behind the opening bracket or a comma, or within the element that follows.
    Awaited,
    /// Behind an element.
    Behind,
    Closed {
        is_empty: bool,
    },
    /// No array of objects: its bytes pass as they come.
    Other,
}

impl ElementEnds {
    pub(super) fn new() -> Self {
        Self { place: ElementPlace::Outside, depth: 0, in_string: false, escaped: false, doubt: false }
    }

    /// Returns whether one more element would need a comma, once the half of one or the closing bracket has been dropped.
    /// `None`: there is no array that one could be added to.
    pub(super) fn needs_comma(&self) -> Option<bool> {
        match self.place {
            ElementPlace::Awaited => Some(false),
            ElementPlace::Behind => Some(true),
            ElementPlace::Closed { is_empty } => Some(!is_empty),
            ElementPlace::Outside | ElementPlace::Other => None,
        }
    }

    /// Returns whether the array has had its closing bracket.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.place, ElementPlace::Closed { .. })
    }

    /// Takes a byte outside of all elements.
    fn between(&mut self, byte: u8, rest: &[u8]) {
        match (self.place, byte) {
            (_, b' ' | b'\t' | b'\r' | b'\n') => {}
            (ElementPlace::Outside, b'[') => (self.place, self.depth) = (ElementPlace::Awaited, 1),
            (ElementPlace::Awaited, b'{') => {
                self.depth = 2;
                self.doubt |= !is_ordinary_element(rest);
            }
            (ElementPlace::Behind, b',') => self.place = ElementPlace::Awaited,
            (ElementPlace::Awaited, b']') => (self.place, self.depth) = (ElementPlace::Closed { is_empty: true }, 0),
            (ElementPlace::Behind, b']') => (self.place, self.depth) = (ElementPlace::Closed { is_empty: false }, 0),
            _ => self.place = ElementPlace::Other,
        }
    }
}

/// Returns whether an element goes on as an ordinary answer, behind its opening brace.
fn is_ordinary_element(rest: &[u8]) -> bool {
    rest.trim_ascii_start().starts_with(b"\"candidates\"")
}

impl ItemEnds for ElementEnds {
    fn scan(&mut self, bytes: &[u8], mut ended: impl FnMut(usize)) {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if self.place == ElementPlace::Other {
                return ended(bytes.len());
            }
            if self.depth < 2 {
                at += 1;
                self.between(byte, &bytes[at..]);
                if self.depth < 2 && !self.is_closed() {
                    ended(at);
                }
            } else if std::mem::take(&mut self.escaped) {
                at += 1;
            } else if self.in_string {
                let Some(length) = memchr::memchr2(b'"', b'\\', &bytes[at..]) else { return };
                at += length + 1;
                (self.in_string, self.escaped) = (bytes[at - 1] != b'"', bytes[at - 1] == b'\\');
            } else {
                at += 1;
                match byte {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                    b'}' | b']' => {
                        self.depth -= 1;
                        if self.depth < 2 {
                            self.place = ElementPlace::Behind;
                            ended(at);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn take_doubt(&mut self) -> bool {
        std::mem::take(&mut self.doubt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(mut rule: impl ItemEnds, text: &str) -> Vec<usize> {
        let mut ends = Vec::new();
        rule.scan(text.as_bytes(), |end| ends.push(end));
        ends
    }

    #[test]
    fn events_end_with_a_blank_line_and_comments_at_once() {
        assert_eq!(ends(EventEnds::new(), "data: a\n\ndata: b\r\n\r\n: c\nid: 1\n: d\n\n"), [9, 19, 20, 24, 35]);
    }

    #[test]
    fn elements_end_with_their_brace_and_what_is_between_belongs_to_none() {
        assert_eq!(ends(ElementEnds::new(), "[{\"}\":\"\\\"}\"},\n{\"a\":[{}]}]"), [1, 12, 13, 14, 24]);
        for (text, comma) in [
            ("", None),
            ("[", Some(false)),
            ("[{\"a\":", Some(false)),
            ("[{}", Some(true)),
            ("[{} ,", Some(false)),
            ("[{},{\"a", Some(false)),
            ("[{}]", Some(true)),
            ("[{}] \n", Some(true)),
            ("[]", Some(false)),
            ("[{}]x", None),
            ("{\"a\":1", None),
            ("[1", None),
        ] {
            let mut rule = ElementEnds::new();
            rule.scan(text.as_bytes(), |_| {});
            assert_eq!(rule.needs_comma(), comma, "{text}");
        }
    }

    #[test]
    fn only_what_is_no_ordinary_answer_is_doubted() {
        let doubts = |mut rule: EventEnds, text: &str| {
            rule.scan(text.as_bytes(), |_| {});
            (rule.take_doubt(), rule.take_doubt())
        };
        for text in ["data: {\"candidates\":[{", "data: {\"candidates\": [{", ": x\n\ndata: {\"choices\":[{}]}\n\n"] {
            assert_eq!(doubts(EventEnds::new(), text), (false, false), "{text}");
        }
        for text in
            ["data: {\"error\":{}}\n\n", "data: {\"candidates\":[],\"error\":", "event: x\n", "{\n", "data: {\"can"]
        {
            assert_eq!(doubts(EventEnds::new(), text), (true, false), "{text}");
        }
    }
}
