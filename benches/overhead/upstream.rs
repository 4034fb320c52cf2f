//! The service at the end of every stack, its requests and its answers.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use tower::Service;

pub(crate) type Sent = Request<Full<Bytes>>;

/// A service that answers at once. One that is to fail answers every other call with a 503.
#[derive(Clone)]
pub(crate) struct Upstream {
    frames: Arc<[Bytes]>,
    content_type: &'static str,
    uri: &'static str,
    /// The body of every request.
    asked: &'static str,
    failing: Option<Arc<AtomicU32>>,
}

impl Upstream {
    const UNARY: &'static str =
        "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent";
    const EVENTS: &'static str =
        "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse";

    pub(crate) fn unary() -> Self {
        Self::text(&prose(1600))
    }

    pub(crate) fn failing() -> Self {
        Self { failing: Some(Arc::default()), ..Self::unary() }
    }

    /// Makes an upstream with a unary answer of this text, in the frames of 16 KiB that HTTP/2 makes.
    pub(crate) fn text(text: &str) -> Self {
        Self::of(Self::UNARY, "application/json; charset=UTF-8", Self::cut(answer(text, 400)))
    }

    /// Makes an upstream with an answer of short parts, indented as the API does it: mostly white space.
    pub(crate) fn pretty(len: usize) -> Self {
        let part = "          {\n            \"text\": \"Sixteen letters.\"\n          }";
        let parts = vec![part; len / part.len()].join(",\n");
        let text = format!(
            "{{\n  \"candidates\": [\n    {{\n      \"content\": {{\n        \"parts\": [\n{parts}\n        ]\n      }},\n      \
             \"finishReason\": \"STOP\"\n    }}\n  ]\n}}\n"
        );
        Self::of(Self::UNARY, "application/json; charset=UTF-8", Self::cut(text))
    }

    /// Makes an upstream with a stream of `events` events of `tokens` tokens each.
    pub(crate) fn events(events: usize, tokens: usize) -> Self {
        let text = prose(tokens * 4);
        let event = |nth: usize| {
            let answer = answer(&text, nth);
            let answer = if nth == events { answer } else { answer.replace(r#","finishReason":"STOP""#, "") };
            Bytes::from(format!("data: {answer}\r\n\r\n"))
        };
        Self::stream((1..=events).map(event).collect())
    }

    /// Makes an upstream with a stream of `events` events of 150 bytes on average: of one to six words each, in every tenth the
    /// usage so far, and a last one with all of it.
    pub(crate) fn short_events(events: usize) -> Self {
        let mut words = WORDS.split(' ').cycle();
        let mut tokens = 0;
        let mut event = |nth: usize| {
            let several = 1 + nth * nth * 7 / 3 % 6;
            tokens += several;
            let text: String = words.by_ref().take(several).flat_map(|word| [" ", word]).collect();
            let usage = nth.is_multiple_of(10).then_some(tokens);
            Bytes::from(short(&text, usage))
        };
        let mut all: Vec<_> = (1..events).map(&mut event).collect();
        all.push(Bytes::from(format!("data: {}\r\n\r\n", answer(" The end.", tokens + 3))));
        Self::stream(all)
    }

    fn stream(events: Vec<Bytes>) -> Self {
        Self::of(Self::EVENTS, "text/event-stream", events)
    }

    fn of(uri: &'static str, content_type: &'static str, frames: Vec<Bytes>) -> Self {
        Self { frames: frames.into(), content_type, uri, asked: question(2048), failing: None }
    }

    fn cut(text: String) -> Vec<Bytes> {
        let whole = Bytes::from(text);
        (0..whole.len()).step_by(16_384).map(|at| whole.slice(at..whole.len().min(at + 16_384))).collect()
    }

    /// Sets the length of the requests' bodies.
    pub(crate) fn asked(mut self, len: usize) -> Self {
        self.asked = question(len);
        self
    }

    /// Makes a copy with frames of its own, so that two threads do not share their reference counters.
    pub(crate) fn apart(&self) -> Self {
        let frames = self.frames.iter().map(|frame| Bytes::copy_from_slice(frame)).collect();
        Self { frames, ..self.clone() }
    }

    /// Returns the length of an answer.
    pub(crate) fn len(&self) -> usize {
        self.frames.iter().map(Bytes::len).sum()
    }

    /// Returns the number of frames in an answer.
    pub(crate) fn frames(&self) -> usize {
        self.frames.len()
    }

    /// Makes a request as it comes fresh from a client: nothing in it is shared or static.
    pub(crate) fn request(&self) -> Sent {
        Request::post(self.uri)
            .header(header::CONTENT_TYPE, value("application/json"))
            .header(header::USER_AGENT, value("google-genai-sdk/1.38.0 gl-python/3.12"))
            .header("x-goog-api-key", value("AIzaSyA-0123456789_abcdefghijklmnopqrst"))
            .body(Full::new(Bytes::from(self.asked.to_owned())))
            .expect("a good request")
    }
}

fn value(text: &str) -> HeaderValue {
    text.parse().expect("a good value")
}

/// Makes a request's body of this length, which lives as long as the program.
fn question(len: usize) -> &'static str {
    let (before, after) = (r#"{"contents":[{"parts":[{"text":""#, r#""}],"role":"user"}]}"#);
    let text = prose(len).split_off(prose(len).len() - (len - before.len() - after.len()));
    format!("{before}{text}{after}").leak()
}

/// Makes an answer with this text.
fn answer(text: &str, tokens: usize) -> String {
    format!(
        r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}],"role":"model"}},"finishReason":"STOP","index":0,"safetyRatings":[{{"category":"HARM_CATEGORY_HATE_SPEECH","probability":"NEGLIGIBLE"}}]}}],"usageMetadata":{{"promptTokenCount":512,"candidatesTokenCount":{tokens},"totalTokenCount":{},"promptTokensDetails":[{{"modality":"TEXT","tokenCount":512}}]}},"modelVersion":"gemini-2.5-flash","responseId":"nXuqaMnTIOqHnsEPgsqF8AU"}}"#,
        512 + tokens
    )
}

/// The words of short events, one of them with an escape.
const WORDS: &str = r"Every failure is somebody's fault, and each layer acts on one fault only;\n the layer next to the transport reads it once.";

/// Makes an event as a model sends it for a few words, with the usage so far if there is one.
fn short(text: &str, tokens: Option<usize>) -> String {
    let usage = tokens.map_or_else(String::new, |tokens| {
        format!(
            r#","usageMetadata":{{"promptTokenCount":512,"candidatesTokenCount":{tokens},"totalTokenCount":{}}}"#,
            512 + tokens
        )
    });
    format!(
        "data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"{text}\"}}],\"role\":\"model\"}},\"index\":0}}]{usage},\"modelVersion\":\"gemini-2.5-flash\"}}\r\n\r\n"
    )
}

/// Makes text with a line end now and then.
pub(crate) fn prose(len: usize) -> String {
    const LINE: &str = r"Every failure is somebody's fault, and each layer acts on one fault only; the layer next to the transport reads a failure once.\n";
    LINE.repeat(len.div_ceil(LINE.len()))
}

/// Makes text full of escapes.
pub(crate) fn code(len: usize) -> String {
    const LINE: &str = r#"    fn name(&self) -> &str {\n        println!(\"{}\", \u003cSelf\u003e::NAME);\n"#;
    LINE.repeat(len.div_ceil(LINE.len()))
}

impl<B> Service<Request<B>> for Upstream {
    type Response = Response<Frames>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Frames>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        drop(request);
        let fails = self.failing.as_ref().is_some_and(|calls| calls.fetch_add(1, Ordering::Relaxed) % 2 == 0);
        let mut response = Response::new(if fails {
            Frames::One(Some(Bytes::from_static(BUSY)))
        } else {
            Frames::Several { frames: self.frames.clone(), next: 0 }
        });
        if fails {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CONTENT_TYPE, self.content_type),
            (header::DATE, "Tue, 06 Oct 2026 10:00:00 GMT"),
            (header::SERVER, "scaffolding on HTTPServer2"),
            (header::VARY, "Origin, X-Origin, Referer"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::X_FRAME_OPTIONS, "SAMEORIGIN"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        ready(Ok(response))
    }
}

const BUSY: &[u8] = br#"{
  "error": {
    "code": 503,
    "message": "The model is overloaded. Please try again later.",
    "status": "UNAVAILABLE"
  }
}
"#;

/// A service whose calls are pending at their first poll, and ready at their second.
#[derive(Clone)]
pub(crate) struct Later(pub(crate) Upstream);

impl<B> Service<Request<B>> for Later {
    type Response = Response<Frames>;
    type Error = Infallible;
    type Future = LaterFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> LaterFuture {
        LaterFuture { answer: self.0.call(request).into_inner().ok(), polled: false }
    }
}

/// The future of [`Later`].
pub(crate) struct LaterFuture {
    answer: Option<Response<Frames>>,
    polled: bool,
}

impl Future for LaterFuture {
    type Output = Result<Response<Frames>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !std::mem::replace(&mut self.polled, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(self.answer.take().expect("a future that is polled to its end once")))
    }
}

/// An answer's body, of unknown length as the API's chunked answers are.
pub(crate) enum Frames {
    One(Option<Bytes>),
    Several { frames: Arc<[Bytes]>, next: usize },
}

/// No body: tower-http answers with it when its time is up.
impl Default for Frames {
    fn default() -> Self {
        Self::One(None)
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match self.get_mut() {
            Self::One(frame) => frame.take(),
            Self::Several { frames, next } => {
                *next += 1;
                frames.get(*next - 1).cloned()
            }
        };
        Poll::Ready(frame.map(|frame| Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::One(frame) => frame.is_none(),
            Self::Several { frames, next } => *next >= frames.len(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
