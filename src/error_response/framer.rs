//! The framing of an error that an interaction's stream says without any.
//!
//! Google's content filter ends such a stream with a bare line of JSON, `{"error": {"code": "prohibited_content", …}}`.
//! By the rules of server-sent events that is a field of an unknown name, so that every SDK drops it: the stream seems
//! to end for no reason. Google's documentation promises an event of the type `error`, and this makes one of the line.
//! All other bytes pass as they are.

use bytes::Bytes;
use serde_json::Value;

use crate::{
    answer::sse::{Listener, Splitter},
    redact::Secrets,
    status::error_object,
};

/// The most bytes of a bare line that are held until it has ended. An error's message is cut at 2 KiB in reports.
const MOST_HELD: usize = 64 * 1024;

/// A watch over the stream of an interaction.
pub(super) struct Framer {
    splitter: Splitter,
    secrets: Secrets,
    /// Set at the beginning of a line.
    at_line_start: bool,
    /// The JSON that began a line and has not ended.
    held: Vec<u8>,
    json: Depth,
}

impl Framer {
    pub(super) fn new(secrets: Secrets) -> Self {
        Self { splitter: Splitter::new(), secrets, at_line_start: true, held: Vec::new(), json: Depth::default() }
    }

    /// Takes the bytes that pass, and returns those to pass on. Without a bare line these are the same, not copied.
    pub(super) fn push(&mut self, data: Bytes) -> Bytes {
        if self.held.is_empty() && self.bare_line(&data).is_none() {
            self.passes(&data);
            return data;
        }
        let mut out = Vec::with_capacity(data.len());
        let mut rest = &data[..];
        while !rest.is_empty() {
            if self.held.is_empty() {
                let before = self.bare_line(rest).unwrap_or(rest.len());
                self.pass(&rest[..before], &mut out);
                rest = &rest[before..];
                self.json = Depth::default();
            }
            let next = &rest[..rest.len().min(MOST_HELD - self.held.len())];
            let end = self.json.end(next);
            let (piece, after) = rest.split_at(end.unwrap_or(next.len()));
            self.held.extend_from_slice(piece);
            rest = after;
            if end.is_some() || self.held.len() == MOST_HELD {
                self.release(&mut out);
            }
        }
        out.into()
    }

    /// Returns the bytes that are held, as they came: the line was cut.
    pub(super) fn finish(&mut self) -> Option<Bytes> {
        let held = std::mem::take(&mut self.held);
        self.passes(&held);
        (!held.is_empty()).then(|| held.into())
    }

    /// Finds a line that begins like JSON.
    fn bare_line(&self, bytes: &[u8]) -> Option<usize> {
        let begins = |at: usize| matches!(bytes.get(at), Some(b'{' | b'['));
        let first = (self.at_line_start && begins(0)).then_some(0);
        first.or_else(|| memchr::memchr2_iter(b'\n', b'\r', bytes).map(|end| end + 1).find(|at| begins(*at)))
    }

    fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.passes(bytes);
        out.extend_from_slice(bytes);
    }

    /// Notices bytes that pass on.
    fn passes(&mut self, bytes: &[u8]) {
        self.splitter.push(bytes, &mut Unheard);
        if let Some(last) = bytes.last() {
            self.at_line_start = matches!(last, b'\n' | b'\r');
        }
    }

    /// Lets go of the JSON that is held: as an event if it is an error, else as it came.
    fn release(&mut self, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        match error_event(&held) {
            Some(event) => {
                // An event that still waits for its blank line must not run into it.
                if !self.splitter.is_between_events() {
                    self.pass(b"\n", out);
                }
                let event = self.secrets.mask(event.as_bytes()).unwrap_or(event.into_bytes());
                out.extend_from_slice(&event);
                self.at_line_start = true;
            }
            None => self.pass(&held, out),
        }
    }
}

/// Makes an event of an error; a list may be around it. `None`: it is something else.
fn error_event(json: &[u8]) -> Option<String> {
    let mut object = error_object(json)?;
    object.entry("event_type").or_insert_with(|| "error".into());
    Some(format!("event: error\ndata: {}\n\n", Value::Object(object)))
}

/// A listener that takes nothing: only the ends of events matter.
struct Unheard;

impl Listener for Unheard {
    fn data(&mut self, _: &[u8]) {}
    fn raw(&mut self, _: &[u8]) {}
    fn dispatch(&mut self) {}
}

/// The place within a JSON value.
#[derive(Debug, Default)]
struct Depth {
    open: u32,
    in_string: bool,
    escaped: bool,
}

impl Depth {
    /// Takes the next bytes. Returns the place behind the value's last byte, once that is among them.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                _ if std::mem::take(&mut self.escaped) => {}
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.open += 1,
                b'}' | b']' => {
                    self.open = self.open.saturating_sub(1);
                    if self.open == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing {
    use super::*;

    /// Passes a stream on that came in these pieces.
    pub(crate) fn frame(pieces: &[&[u8]]) -> Vec<u8> {
        let mut framer = Framer::new(Secrets::default());
        let mut out: Vec<u8> = pieces.iter().flat_map(|piece| framer.push(Bytes::copy_from_slice(piece))).collect();
        out.extend(framer.finish().into_iter().flatten());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(pieces: &[&[u8]]) -> String {
        String::from_utf8(fuzzing::frame(pieces)).unwrap()
    }

    const CREATED: &str = "event: interaction.created\ndata: {\"event_type\":\"interaction.created\"}\n\n";
    const BARE: &str = "{\"error\":{\"code\":\"prohibited_content\",\"message\":\"a \\\"}\"}}";
    const FRAMED: &str = "event: error\ndata: {\"error\":{\"code\":\"prohibited_content\",\"message\":\"a \\\"}\"},\"event_type\":\"error\"}\n\n";

    #[test]
    fn a_bare_error_becomes_an_event_wherever_it_is_cut() {
        let pretty = BARE.replace(",", ",\n  ");
        for bare in [BARE.to_owned(), pretty, format!("[{BARE}]"), BARE.replace("}}", "},\"event_type\":\"error\"}")] {
            for (before, end, after) in [
                (CREATED.to_owned(), "", ""),
                (CREATED.to_owned(), "\n", "\n"),
                (CREATED.to_owned(), "\n\n", "\n\n"),
                (CREATED.replace('\n', "\r\n"), "\r\n", "\r\n"),
                (String::new(), "\ndata: [DONE]\n\n", "\ndata: [DONE]\n\n"),
                (format!("{CREATED}: ping\n"), "\n", "\n"),
            ] {
                let text = format!("{before}{bare}{end}");
                for at in 0..=text.len() {
                    let (first, second) = text.as_bytes().split_at(at);
                    assert_eq!(framed(&[first, second]), format!("{before}{FRAMED}{after}"), "{text:?} at {at}");
                }
                let single: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
                assert_eq!(framed(&single), format!("{before}{FRAMED}{after}"));
            }
        }
    }

    #[test]
    fn an_event_without_its_blank_line_does_not_run_into_it() {
        let open = CREATED.trim_end();
        assert_eq!(framed(&[format!("{open}\n{BARE}").as_bytes()]), format!("{open}\n\n{FRAMED}"));
    }

    #[test]
    fn all_else_passes_as_it_came() {
        let long = format!("{{\"error\":\"{}\"}}\n\n", "x".repeat(2 * MOST_HELD));
        for text in [
            CREATED,
            "{\"hello\":1}\n",
            "[1,2]\n",
            "{\"error\":null}\n",
            "{not json}\n{\"error\"\n",
            "data: {\"error\":{}}\n\n",
            "data: x\ndata: {\"error\":{}}\n\n",
            &BARE[..20],
            "",
            &long,
        ] {
            assert!(framed(&[text.as_bytes()]) == text, "{:.100}", text);
            let small: Vec<&[u8]> = text.as_bytes().chunks(7).collect();
            assert!(framed(&small) == text, "{:.100}, cut", text);
        }
    }

    #[test]
    fn what_passes_is_not_copied() {
        let mut framer = Framer::new(Secrets::default());
        let data = Bytes::from(CREATED.repeat(3));
        assert_eq!(framer.push(data.clone()).as_ptr(), data.as_ptr());
    }

    proptest::proptest! {
        #[test]
        fn cuts_change_nothing(
            text in "((data|event|:|\\{\"error\":|\\{|\\[|\\}|\\]|\"|é|)[: a]{0,3}(\n|\r\n|\r|)){0,12}",
            cuts in proptest::collection::vec(0usize..120, 0..8),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            assert_eq!(framed(&pieces), framed(&[bytes]));
        }
    }
}
