//! The policy of the room: when an answer commits, and the verdict on an answer that ends before.
//!
//! An attempt can fail until its first content has been seen. Until then the answer is held, because an error event, a
//! bare JSON tail or an end without content may still come. [`Watch`] is told the bytes as they come, and keeps none of
//! them.

use http::{
    HeaderMap, HeaderName,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};

use crate::{
    answer::{
        scan::Scanner,
        sse::{Listener, Splitter},
    },
    call::{Operation, Shape, Streaming, Surface},
    failure::{Failure, Kind},
};

/// A watch over one answer, from its first byte to its end.
#[derive(Debug)]
pub(super) struct Watch {
    surface: Surface,
    streams: bool,
    scanner: Scanner,
    events: Option<Events>,
}

/// The verdict on a held answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is decided, and the answer stays held.
    Undecided,
    /// Content has been seen: the answer is handed over, and the request is never sent again.
    Commit,
    /// The upstream reports a failure.
    Failed,
}

impl Watch {
    /// Creates a watch for this call's answer. `None`: the answer is not a generated one that can be read, and is not
    /// held.
    pub(super) fn new(shape: Shape, headers: &HeaderMap) -> Option<Self> {
        if !matches!(shape.operation, Operation::GenerateContent | Operation::CreateInteraction) {
            return None;
        }
        if is_encoded(headers) {
            return None;
        }
        let content_type = text(headers, CONTENT_TYPE).trim_start();
        let is =
            |essence: &str| content_type.get(..essence.len()).is_some_and(|start| start.eq_ignore_ascii_case(essence));
        let is_sse = match content_type {
            "" => shape.streaming == Streaming::Sse,
            _ if is("text/event-stream") => true,
            _ if is("application/json") => false,
            _ => return None,
        };
        Some(Self {
            surface: shape.surface,
            streams: is_sse || shape.streaming != Streaming::No,
            scanner: Scanner::new(),
            events: is_sse.then(Events::default),
        })
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        match &mut self.events {
            Some(events) => events.push(bytes, &mut self.scanner),
            None => self.scanner.push(bytes),
        }
    }

    /// Returns the verdict on an answer that has not ended.
    pub(super) fn verdict(&self) -> Verdict {
        let found = &self.scanner.found;
        if found.content {
            Verdict::Commit
        } else if found.error.is_some() {
            // The error has to be read to its end first.
            if self.scanner.is_between_values() { Verdict::Failed } else { Verdict::Undecided }
        } else if self.surface == Surface::Interactions && self.events.as_ref().is_some_and(|events| events.seen > 0) {
            // An interaction exists once it is accepted, so that any event but an error is content.
            Verdict::Commit
        } else {
            Verdict::Undecided
        }
    }

    /// Returns the failure of an answer that ended before its commit. `held` is all of the answer.
    pub(super) fn judge_end(&self, held: &[u8]) -> Option<Failure> {
        let found = &self.scanner.found;
        if found.error.is_some() {
            return Some(Failure::from_event(held));
        }
        if self.surface == Surface::Interactions {
            return None;
        }
        Failure::from_answer(found.finish_reason.as_deref(), found.block_reason.as_deref(), found.content)
    }

    /// Returns whether an answer that was handed over ended before it had finished.
    pub(super) fn is_cut(&self) -> bool {
        let found = &self.scanner.found;
        if let Some(error) = &found.error {
            return !error.whole;
        }
        if self.surface == Surface::Interactions {
            return false;
        }
        let finished = found.finish_reason.is_some() || found.block_reason.is_some();
        let done = self.events.as_ref().is_some_and(|events| events.done == DoneMark::TEXT.len());
        match self.streams {
            true => !finished && !done,
            false => self.scanner.is_open(),
        }
    }

    /// Returns the failure that the upstream reports in an answer that was handed over already.
    pub(super) fn late_failure(&self) -> Option<Failure> {
        let error = self.scanner.found.error.as_ref().filter(|error| error.whole)?;
        // The error is rebuilt from the three members that were kept, so that one parser judges all errors.
        let object =
            serde_json::json!({ "error": { "code": error.code, "status": error.status, "message": error.message } });
        Some(Failure::from_event(object.to_string().as_bytes()).into_after_commit())
    }

    pub(super) fn findings(&self) -> &crate::answer::Findings {
        &self.scanner.found
    }
}

/// Returns whether an answer is compressed all the same, so that only its status can be read.
fn is_encoded(headers: &HeaderMap) -> bool {
    let encoding = text(headers, CONTENT_ENCODING).trim();
    !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity")
}

fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Returns the failure of a stream that ended without a finish reason.
pub(super) fn cut_stream() -> Failure {
    Failure::local(Kind::StreamCut, "the stream ended without a finishReason: the answer is not complete")
        .into_after_commit()
}

/// The server-sent events of an answer, on their way to the scanner.
#[derive(Debug)]
struct Events {
    splitter: Splitter,
    /// Set once data of the current event has been scanned.
    begun: bool,
    /// Set while raw text outside of events is scanned.
    in_raw: bool,
    /// The number of events with data so far.
    seen: u32,
    /// The number of bytes of `[DONE]` that have been seen.
    done: usize,
}

impl Default for Events {
    fn default() -> Self {
        Self { splitter: Splitter::new(), begun: false, in_raw: false, seen: 0, done: 0 }
    }
}

impl Events {
    fn push(&mut self, bytes: &[u8], scanner: &mut Scanner) {
        let Self { splitter, begun, in_raw, seen, done } = self;
        splitter.push(bytes, &mut Scanning { scanner, begun, in_raw, seen, done: DoneMark(done) });
    }
}

struct Scanning<'a> {
    scanner: &'a mut Scanner,
    begun: &'a mut bool,
    in_raw: &'a mut bool,
    seen: &'a mut u32,
    done: DoneMark<'a>,
}

impl Listener for Scanning<'_> {
    fn data(&mut self, piece: &[u8]) {
        if !std::mem::replace(self.begun, true) {
            *self.in_raw = false;
            self.scanner.reset();
            self.done.restart();
        }
        self.done.push(piece);
        self.scanner.push(piece);
    }

    fn raw(&mut self, piece: &[u8]) {
        if !std::mem::replace(self.in_raw, true) {
            self.scanner.reset();
        }
        self.scanner.push(piece);
    }

    fn dispatch(&mut self) {
        if std::mem::take(self.begun) {
            *self.seen = self.seen.saturating_add(1);
        }
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

#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    use super::*;

    /// Shows all that a watch returns at the end of an answer that came in these pieces.
    pub fn watch(uri: &http::Uri, content_type: http::HeaderValue, pieces: &[&[u8]]) -> String {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type)]);
        let Some(mut watch) = Watch::new(Shape::new(&http::Method::POST, uri), &headers) else { return String::new() };
        pieces.iter().for_each(|piece| watch.push(piece));
        let failure = watch.judge_end(&pieces.concat());
        format!(
            "{:?}, cut: {}, late: {:?}, end: {failure:?}, {}",
            watch.verdict(),
            watch.is_cut(),
            watch.late_failure(),
            crate::fuzzing::shown(&watch.scanner)
        )
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};

    use super::*;
    use crate::failure::Fault;

    fn watch(uri: &'static str, content_type: &'static str, text: &str) -> Watch {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        let shape = Shape::new(&Method::POST, &http::Uri::from_static(uri));
        let mut watch = Watch::new(shape, &headers).unwrap();
        // Byte by byte, the hardest way to cut it.
        text.as_bytes().chunks(1).for_each(|byte| watch.push(byte));
        watch
    }

    fn sse(text: &str) -> Watch {
        watch("/v1beta/models/m:streamGenerateContent?alt=sse", "text/event-stream", text)
    }

    fn array(text: &str) -> Watch {
        watch("/v1beta/models/m:streamGenerateContent", "application/json; charset=UTF-8", text)
    }

    const HELLO: &str = r#"{"candidates":[{"content":{"parts":[{"text":"hello"}]}}]}"#;
    const STOP: &str = r#"{"candidates":[{"content":{"parts":[{"text":""}]},"finishReason":"STOP"}]}"#;
    const BUSY: &str = r#"{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}"#;

    #[test]
    fn the_first_content_commits_and_nothing_before_it() {
        assert_eq!(sse(": hi\n\ndata: {\"usageMetadata\":{}}\n\n").verdict(), Verdict::Undecided);
        assert_eq!(sse(&format!("data: {HELLO}")).verdict(), Verdict::Commit);
        assert_eq!(array("[").verdict(), Verdict::Undecided);
        assert_eq!(array(&format!("[{HELLO}")).verdict(), Verdict::Commit);
    }

    #[test]
    fn an_error_before_the_content_is_read_to_its_end() {
        for watch in [sse(&format!("data: {BUSY}\n\n")), sse(&format!("{BUSY}\n")), array(&format!("[{BUSY}"))] {
            assert_eq!(watch.verdict(), Verdict::Failed);
            let failure = watch.judge_end(BUSY.as_bytes()).unwrap();
            assert_eq!(failure.fault(), Fault::Model);
        }
        assert_eq!(sse(r#"data: {"error":{"code":503,"#).verdict(), Verdict::Undecided);
    }

    #[test]
    fn an_end_without_content_is_judged_by_its_reason() {
        let fault = |text: &str| sse(text).judge_end(text.as_bytes()).map(|failure| failure.fault());
        assert_eq!(fault(""), Some(Fault::Service));
        assert_eq!(fault(&format!("data: {STOP}\n\n")), Some(Fault::Service));
        assert_eq!(fault("data: {\"promptFeedback\":{\"blockReason\":\"SAFETY\"}}\n\n"), Some(Fault::Caller));
    }

    #[test]
    fn a_stream_is_cut_unless_it_says_that_it_has_ended() {
        assert!(sse(&format!("data: {HELLO}\n\n")).is_cut());
        assert!(!sse(&format!("data: {HELLO}\n\ndata: {STOP}\n\n")).is_cut());
        assert!(array(&format!("[{HELLO}")).is_cut());
        assert!(!array(&format!("[{HELLO},{STOP}]")).is_cut());
        let openai = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
        let of = |text: &str| watch("/v1beta/openai/chat/completions", "text/event-stream", text);
        assert!(of(openai).is_cut());
        assert!(!of(&format!("{openai}data: [DONE]\n\n")).is_cut());
        assert!(of(&format!("{openai}data: not [DONE]\n\n")).is_cut());
    }

    #[test]
    fn an_error_after_the_content_is_reported_and_is_no_cut() {
        let watch = sse(&format!("data: {HELLO}\n\ndata: {BUSY}\n\n"));
        let failure = watch.late_failure().unwrap();
        assert_eq!((failure.fault(), failure.same_key_may_help()), (Fault::Model, false));
        assert!(!watch.is_cut());
    }

    #[test]
    fn what_does_not_generate_is_not_watched() {
        let none = |uri: &'static str, content_type: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            Watch::new(Shape::new(&Method::POST, &http::Uri::from_static(uri)), &headers).is_none()
        };
        assert!(none("/v1beta/models/m:countTokens", "application/json"));
        assert!(none("/v1beta/models/m:generateContent", "text/html"));
    }
}
