//! The bytes of a stream that is kept alive: the pieces that fill its silences, and what has to become of the bytes
//! behind them. Pure.

use bytes::Bytes;

use super::{dialect::Dialect, error_search::ErrorSearch, open_line::OpenLine, reason, tail::Tail};

/// The beginning of an event's line, which is sent before the event is there.
const OPENING: &[u8] = b"data: ";

/// White space before JSON, which means nothing.
const SPACE: &[u8] = b" ";

const COMMENT: &[u8] = b": ping\n\n";

/// The bytes of one stream.
#[derive(Debug)]
pub(super) struct KeptStream {
    dialect: Dialect,
    tail: Tail,
    errors: ErrorSearch,
    /// Set once the answer has named the reason for its end, or an error.
    is_ended: bool,
    place: StreamPlace,
}

/// The place at which the caller's side of the stream stands.
#[derive(Debug)]
enum StreamPlace {
    /// Bytes pass as they come.
    Passing,
    /// On a line that was opened early.
    Opened(Box<OpenLine>),
    /// On that line, behind its data's first byte. These fields of the event come after it.
    Continued(Vec<u8>),
    /// After a line end that was written in place of the upstream's CR: a LF belongs to it.
    AfterCr,
}

impl KeptStream {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, tail: Tail::new(), errors: ErrorSearch::new(), is_ended: false, place: StreamPlace::Passing }
    }

    /// Takes the upstream's next bytes, and returns those to pass on: without a line that was opened early the same,
    /// not copied. There may be none.
    pub(super) fn push(&mut self, mut data: Bytes) -> Bytes {
        match &mut self.place {
            StreamPlace::Passing => {}
            StreamPlace::Opened(line) => {
                let Some(start) = line.push(&data) else { return Bytes::new() };
                let StreamPlace::Opened(line) = std::mem::replace(&mut self.place, StreamPlace::Passing) else {
                    return data;
                };
                let fields = line.into_fields();
                let data = data.slice(start..);
                if fields.is_empty() {
                    self.note(&data);
                    return data;
                }
                self.place = StreamPlace::Continued(fields);
                return self.push(data);
            }
            StreamPlace::Continued(fields) => {
                if let Some(end) = memchr::memchr2(b'\n', b'\r', &data) {
                    let fields = std::mem::take(fields);
                    let is_cr = data[end] == b'\r';
                    self.place = if is_cr { StreamPlace::AfterCr } else { StreamPlace::Passing };
                    let mut out = [&data[..end], b"\n", &fields].concat();
                    self.note(&out);
                    out.extend_from_slice(&self.push(data.slice(end + 1..)));
                    return out.into();
                }
            }
            StreamPlace::AfterCr if data.is_empty() => return data,
            StreamPlace::AfterCr => {
                if data[0] == b'\n' {
                    data = data.slice(1..);
                }
                self.place = StreamPlace::Passing;
            }
        }
        self.note(&data);
        data
    }

    /// Returns the piece that fills a silence, if one may be sent here.
    pub(super) fn piece(&mut self) -> Option<Bytes> {
        let piece = match &self.place {
            StreamPlace::Opened(_) => SPACE,
            // The end of a line whose CR was replaced is no end of an event either.
            StreamPlace::Passing if !self.has_ended() && self.tail.is_between_events() => match self.dialect {
                Dialect::Gemini => {
                    self.place = StreamPlace::Opened(OpenLine::new(self.tail.bytes().is_empty()).into());
                    self.errors.open_data();
                    OPENING
                }
                Dialect::OpenAi | Dialect::Interactions => COMMENT,
            },
            _ => return None,
        };
        Some(Bytes::from_static(piece))
    }

    /// Returns whether nothing but the end is to come, so that no silence is filled any more.
    pub(super) fn has_ended(&self) -> bool {
        self.is_ended || self.tail.is_done()
    }

    /// Returns the line that was opened early, while nothing is on it: the stream cannot end well there.
    pub(super) fn open_line(&self) -> Option<&OpenLine> {
        match &self.place {
            StreamPlace::Opened(line) => Some(line),
            _ => None,
        }
    }

    /// Returns the dialect.
    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Frames an error as the stream's last event, on the open line if there is one.
    pub(super) fn last_event(&self, error: &str) -> Bytes {
        match (self.dialect, &self.place) {
            (_, StreamPlace::Opened(_)) => format!("{error}\n\n"),
            (Dialect::Interactions, _) => format!("event: error\ndata: {error}\n\n"),
            _ => format!("data: {error}\n\n"),
        }
        .into()
    }

    /// Notices bytes that pass on. Nothing good comes after an error, and it may have to be written before the connection
    /// breaks.
    fn note(&mut self, data: &[u8]) {
        if !self.is_ended {
            let names_reason = || self.dialect == Dialect::Gemini && reason::is_named(self.tail.bytes(), data);
            self.is_ended = self.errors.push(data) || names_reason();
        }
        self.tail.push(data);
    }
}

#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    use super::*;

    /// Passes a stream on that comes in these pieces, each after so many silences. Returns the bytes that have passed, and
    /// whether they end on an open line.
    pub(crate) fn keep_alive(pieces: &[(&[u8], usize)], gemini: bool) -> (Vec<u8>, bool) {
        let mut stream = KeptStream::new(if gemini { Dialect::Gemini } else { Dialect::Interactions });
        let mut out = Vec::new();
        for (piece, silences) in pieces {
            for _ in 0..*silences {
                out.extend(stream.piece().into_iter().flatten());
            }
            out.extend(stream.push(Bytes::copy_from_slice(piece)));
        }
        (out, stream.open_line().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes text on; each `None` is a silence.
    fn kept(dialect: Dialect, pieces: &[Option<&str>]) -> (String, KeptStream) {
        let mut stream = KeptStream::new(dialect);
        let mut out = Vec::new();
        for piece in pieces {
            match piece {
                Some(text) => out.extend(stream.push(Bytes::copy_from_slice(text.as_bytes()))),
                None => out.extend(stream.piece().into_iter().flatten()),
            }
        }
        (String::from_utf8(out).unwrap(), stream)
    }

    fn gemini(pieces: &[Option<&str>]) -> String {
        kept(Dialect::Gemini, pieces).0
    }

    #[test]
    fn the_next_events_line_is_opened_early() {
        let cases: [(&[Option<&str>], &str); 9] = [
            (&[None, Some("data: {}\n\n")], "data: {}\n\n"),
            (&[None, None, None, Some("data: {}\r\n\r\n")], "data:   {}\r\n\r\n"),
            (&[Some("data: 1\n\n"), None, None, Some("data: 2\n\n"), None], "data: 1\n\ndata:  2\n\ndata: "),
            (&[None, Some("da"), None, Some("ta"), Some(": "), None, Some("{}\n\n")], "data:   {}\n\n"),
            (&[None, Some(": ping\n\nevent: x\ndata: {}\n\n")], "data: {}\nevent: x\n\n"),
            (&[None, Some("event: x\r\ndata: {}\r"), Some("\n\r\n"), None], "data: {}\nevent: x\n\r\ndata: "),
            (&[None, Some("id: 7\ndata: {"), Some("}"), Some("\n\n")], "data: {}\nid: 7\n\n"),
            (&[None, Some("id: 7\ndata: {\ndata: }\n\n")], "data: {\nid: 7\ndata: }\n\n"),
            (&[None, Some("data:\n\n"), None, Some("data: {\ndata: }\n\n")], "data:  {\ndata: }\n\n"),
        ];
        for (pieces, expected) in cases {
            assert_eq!(gemini(pieces), expected, "{pieces:?}");
        }
    }

    #[test]
    fn nothing_is_sent_within_an_event() {
        for text in
            ["data: {", "data: {}\n", "data: {}\r\n\r", "event: x\n", "d", "data: {}\n\ndata: {\"candid", ": ping\n"]
        {
            assert_eq!(gemini(&[Some(text), None, None]), text);
            assert_eq!(kept(Dialect::OpenAi, &[Some(text), None]).0, text);
        }
    }

    #[test]
    fn nothing_is_sent_after_the_end_was_said() {
        let last = "data: {\"candidates\":[{\"finishReason\":\"STOP\"}]}\n\n";
        let usage = "data: {\"usageMetadata\":{}}\n\n";
        assert_eq!(gemini(&[Some(last), None, Some(usage), None]), format!("{last}{usage}"));
        // Also where it came on a line that was opened early.
        assert_eq!(gemini(&[None, Some(last), None]), last);
        assert_eq!(gemini(&[None, Some("event: x\n"), Some(last), None]), last.replace("}\n", "}\nevent: x\n"));
        for dialect in [Dialect::Gemini, Dialect::OpenAi, Dialect::Interactions] {
            for last in ["data: [DONE]\n\n", "data: {\"error\":{}}\n\n", "event: error\ndata: {}\n\n"] {
                assert_eq!(kept(dialect, &[Some(last), None]).0, last);
            }
        }
        assert_eq!(gemini(&[None, Some("data: {\"error\":{}}\n\n"), None]), "data: {\"error\":{}}\n\n");
        // An error may come behind good events, and in parts.
        let good = "data: {\"candidates\":[]}\n\n";
        for dialect in [Dialect::Gemini, Dialect::OpenAi, Dialect::Interactions] {
            for error in ["data: {\"error\":{}}\n\n", "data:{ \"error\":{}}\r\n\r\n", "event: error\ndata: {}\n\n"] {
                let text = format!("{good}{error}");
                for at in good.len() - 5..text.len() {
                    let (first, second) = text.split_at(at);
                    let (out, stream) = kept(dialect, &[Some(first), Some(second), None]);
                    assert!(out == text && stream.open_line().is_none(), "{text:?} at {at} became {out:?}");
                }
            }
        }
    }

    #[test]
    fn comments_stand_between_events() {
        let chat = [None, Some("data: {\"finish_reason\":null}\n\n"), None, None, Some("data: [DONE]\n\n"), None];
        let expected = ": ping\n\ndata: {\"finish_reason\":null}\n\n: ping\n\n: ping\n\ndata: [DONE]\n\n";
        assert_eq!(kept(Dialect::OpenAi, &chat).0, expected);
        assert_eq!(
            kept(Dialect::Interactions, &[None, Some("event: a\n"), None, Some("data: b\n\n"), None]).0,
            ": ping\n\nevent: a\ndata: b\n\n: ping\n\n"
        );
    }

    #[test]
    fn an_error_ends_the_open_line_or_is_an_event() {
        let error = "{\"error\":{}}";
        let (out, stream) = kept(Dialect::Gemini, &[None, None]);
        assert_eq!(out.into_bytes(), b"data:  ");
        assert_eq!(stream.last_event(error), "{\"error\":{}}\n\n");
        assert_eq!(kept(Dialect::Gemini, &[]).1.last_event(error), "data: {\"error\":{}}\n\n");
        assert_eq!(kept(Dialect::OpenAi, &[None]).1.last_event(error), "data: {\"error\":{}}\n\n");
        assert_eq!(kept(Dialect::Interactions, &[None]).1.last_event(error), "event: error\ndata: {\"error\":{}}\n\n");
    }

    #[test]
    fn bytes_pass_uncopied_on_an_open_line_too() {
        let mut stream = KeptStream::new(Dialect::Gemini);
        let data = Bytes::from_static(b"data: {}\n\n");
        assert_eq!(stream.push(data.clone()).as_ptr(), data.as_ptr());
        stream.piece().unwrap();
        assert_eq!(stream.push(data.clone()).as_ptr(), data[6..].as_ptr());
    }

    /// Reads a stream by the rules of server-sent events: name and data of each event that has data other than white space.
    /// White space before the data is left out.
    fn events(text: &str) -> Vec<(String, String)> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n").replace('\r', "\n");
        let (mut found, mut name, mut data) = (Vec::new(), String::new(), None::<String>);
        // The rest behind the last line end is no line.
        let lines = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        for line in lines.split('\n').filter(|_| text.contains('\n')) {
            if line.is_empty() {
                let (name, data) = (std::mem::take(&mut name), data.take().unwrap_or_default());
                if !data.trim().is_empty() {
                    found.push((name, data.trim_start().to_owned()));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => name = value.to_owned(),
                "data" => {
                    data = Some(match data {
                        Some(data) => data + "\n" + value,
                        None => value.to_owned(),
                    });
                }
                _ => {}
            }
        }
        found
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2_000))]
        #[test]
        fn whatever_the_cuts_and_silences_the_events_stay(
            text in "(\u{feff}|)(((data|event|id|retry|x|\\{|):?[: a\\[\\}]{0,3}(\n|\r\n|\r)){0,4}(data: ?\\{\"a\":1\\}(\n\n|\r\n\r\n|\r\r|\n))){0,6}",
            cuts in proptest::collection::vec((0usize..160, 0usize..3), 0..12),
            dialect in proptest::sample::select(vec![Dialect::Gemini, Dialect::OpenAi]),
        ) {
            // A byte order mark after a comment would be text; no upstream of chats sends one.
            let text = if dialect == Dialect::Gemini { text } else { text.replace('\u{feff}', "") };
            let mut cuts: Vec<_> = cuts.into_iter().map(|(cut, silence)| (cut.min(text.len()), silence)).collect();
            cuts.extend([(0, 0), (text.len(), 0)]);
            cuts.sort_unstable();
            let mut stream = KeptStream::new(dialect);
            let mut out = Vec::new();
            for cut in cuts.windows(2) {
                for _ in 0..cut[0].1 {
                    out.extend(stream.piece().into_iter().flatten());
                }
                out.extend(stream.push(Bytes::copy_from_slice(&text.as_bytes()[cut[0].0..cut[1].0])));
            }
            let kept = String::from_utf8(out).unwrap();
            proptest::prop_assert_eq!(events(&kept), events(&text), "{:?} became {:?}", text, kept);
            if dialect == Dialect::Gemini {
                proptest::prop_assert_eq!(kept.matches(": ping").count(), 0);
            }
        }
    }
}
