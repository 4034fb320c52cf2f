//! Shared parts of the tests: an upstream that behaves as a test says, bodies that are fed by hand, and a service that is
//! strict about its readiness.

#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]

use std::{
    error::Error as StdError,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header::CONTENT_TYPE, request::Parts};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::Instant};
use tower::Service;
use tower_gemini::{BoxError, Error, Outcome, context, failure::Failure};

/// A response body that is neither `Clone` nor `Sync`, as most are.
pub(crate) type AnyBody = UnsyncBoxBody<Bytes, BoxError>;

pub(crate) type Answer = Result<Response<AnyBody>, BoxError>;

type Answering = dyn Fn(usize, Asked) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync;

// === requests and answers ===

pub(crate) const GENERATE: &str = "/v1beta/models/gemini-2.5-pro:generateContent";
pub(crate) const STREAM: &str = "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse";
pub(crate) const ARRAY: &str = "/v1beta/models/gemini-2.5-pro:streamGenerateContent";
pub(crate) const CHAT: &str = "/v1beta/openai/chat/completions";
pub(crate) const INTERACTIONS: &str = "/v1beta/interactions";
pub(crate) const BATCH: &str = "/v1beta/models/gemini-2.5-pro:batchGenerateContent";

pub(crate) const PROMPT: &str = r#"{"contents":[{"parts":[{"text":"hi"}]}]}"#;
pub(crate) const HELLO: &str = r#"{"candidates":[{"content":{"parts":[{"text":"hello"}],"role":"model"},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":2,"candidatesTokenCount":1,"totalTokenCount":3},"modelVersion":"gemini-2.5-pro"}"#;
pub(crate) const EMPTY: &str = r#"{"candidates":[{"content":{},"finishReason":"STOP"}]}"#;
pub(crate) const BUSY: &str =
    r#"{"error":{"code":503,"message":"The model is overloaded. Please try again later.","status":"UNAVAILABLE"}}"#;

/// A key of the shape that Google's have; it is not a real one.
pub(crate) const KEY: &str = "AIzaSyA-0123456789_abcdefghijklmnopqrst";

pub(crate) fn post(uri: &str) -> Request<Full<Bytes>> {
    post_body(uri, PROMPT)
}

pub(crate) fn post_body(uri: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(uri).header(CONTENT_TYPE, "application/json").body(Full::new(body.into())).unwrap()
}

pub(crate) fn any<B>(body: B) -> AnyBody
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

pub(crate) fn full(body: impl Into<Bytes>) -> AnyBody {
    any(Full::new(body.into()))
}

pub(crate) fn json(status: u16, body: impl Into<Bytes>) -> Response<AnyBody> {
    typed(status, "application/json; charset=UTF-8", full(body))
}

pub(crate) fn sse(body: AnyBody) -> Response<AnyBody> {
    typed(200, "text/event-stream", body)
}

pub(crate) fn typed(status: u16, content_type: &'static str, body: AnyBody) -> Response<AnyBody> {
    Response::builder().status(status).header(CONTENT_TYPE, content_type).body(body).unwrap()
}

pub(crate) fn hello() -> Response<AnyBody> {
    json(200, HELLO)
}

pub(crate) fn busy() -> Response<AnyBody> {
    json(503, BUSY)
}

/// Makes an answer that is a bare status, as a proxy gives it.
pub(crate) fn status(status: u16) -> Response<AnyBody> {
    Response::builder().status(status).body(full("")).unwrap()
}

/// Adds to an answer the failure that `ClassifyLayer` would have found.
pub(crate) fn judged(mut response: Response<AnyBody>, failure: Failure) -> Response<AnyBody> {
    response.extensions_mut().insert(Outcome::default().with_failure(failure));
    response
}

/// Makes an event of a stream, with content.
pub(crate) fn event(text: &str) -> String {
    format!("data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"{text}\"}}]}}}}]}}\r\n\r\n")
}

/// Makes the last event of a stream.
pub(crate) fn last_event(text: &str) -> String {
    format!(
        "data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"{text}\"}}]}},\"finishReason\":\"STOP\"}}]}}\r\n\r\n"
    )
}

/// Reads a whole body, in one piece.
pub(crate) async fn read<B>(body: B) -> Bytes
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).collect().await.expect("a body that ends well").to_bytes()
}

/// Reads the frames of a body up to its end, or to the error that ended it.
pub(crate) async fn frames<B>(body: B) -> (Vec<Bytes>, Option<BoxError>)
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut body = std::pin::pin!(body);
    let mut frames = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => frames.extend(frame.into_data()),
            Err(error) => return (frames, Some(error.into())),
        }
    }
    (frames, None)
}

pub(crate) fn outcome<R>(response: &Response<R>) -> Outcome {
    response.extensions().get::<Outcome>().cloned().expect("an outcome")
}

/// Finds this crate's error within another.
pub(crate) fn find(error: &BoxError) -> &Error {
    Error::find(&**error).unwrap_or_else(|| panic!("not one of this crate's errors: {error:?}"))
}

/// Finds the error of that type, anywhere in the chain of sources.
pub(crate) fn source<E: StdError + 'static>(error: &BoxError) -> Option<&E> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(&**error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Lets all tasks run that can run without time passing.
pub(crate) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

// === an upstream ===

/// A request as the upstream saw it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    pub(crate) method: http::Method,
    pub(crate) uri: http::Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) context: Option<context::CallContext>,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

/// A service that reads the request and answers as the test says, call by call. All clones are the same upstream.
#[derive(Clone)]
pub(crate) struct Upstream {
    answering: Arc<Answering>,
    asked: Arc<Mutex<Vec<Asked>>>,
    in_flight: Arc<AtomicUsize>,
}

impl Upstream {
    /// Makes an upstream that answers the `n`th call (from 0) by `answer`.
    pub(crate) fn new<F, Fut>(answer: F) -> Self
    where
        F: Fn(usize, Asked) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Answer> + Send + 'static,
    {
        let answering = Arc::new(move |nth, asked| Box::pin(answer(nth, asked)) as Pin<Box<_>>);
        Self { answering, asked: Arc::default(), in_flight: Arc::default() }
    }

    /// Makes an upstream that answers the `n`th call at once.
    pub(crate) fn at_once(answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::new(move |nth, _| std::future::ready(answer(nth)))
    }

    /// Makes an upstream that fails `times` times, then says hello.
    pub(crate) fn fails(times: usize, failed: impl Fn() -> Answer + Send + Sync + 'static) -> Self {
        Self::at_once(move |nth| if nth < times { failed() } else { Ok(hello()) })
    }

    /// Makes an upstream that never answers.
    pub(crate) fn hangs() -> Self {
        Self::new(|_, _| std::future::pending())
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }

    pub(crate) fn calls(&self) -> usize {
        self.asked.lock().len()
    }

    /// Counts the calls whose future has neither ended nor been dropped.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Returns the times between one call and the next.
    pub(crate) fn waits(&self) -> Vec<Duration> {
        self.asked.lock().windows(2).map(|two| two[1].at - two[0].at).collect()
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").finish_non_exhaustive()
    }
}

impl<B> Service<Request<B>> for Upstream
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<AnyBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Self { answering, asked, in_flight } = self.clone();
        let (Parts { method, uri, headers, extensions, .. }, body) = request.into_parts();
        let guard = Counted::new(in_flight);
        let at = Instant::now();
        Box::pin(async move {
            let _guard = guard;
            let body = any(body).collect().await?;
            let context = extensions.get().cloned();
            let trailers = body.trailers().cloned();
            let now = Asked { at, method, uri, headers, context, body: body.to_bytes(), trailers };
            let nth = {
                let mut asked = asked.lock();
                asked.push(now.clone());
                asked.len() - 1
            };
            answering(nth, now).await
        })
    }
}

/// A guard that is counted while it lives.
#[derive(Debug)]
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Counted {
    pub(crate) fn new(count: Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

// === a service that is strict about readiness ===

/// A service that panics when it is called without having been made ready, and takes a few polls to become so. Clones are not
/// ready.
#[derive(Debug)]
pub(crate) struct Strict<S> {
    pub(crate) inner: S,
    ready: bool,
    left: usize,
    pending: usize,
}

impl<S> Strict<S> {
    /// Makes a service that is pending for `pending` polls before it is ready.
    pub(crate) fn new(inner: S, pending: usize) -> Self {
        Self { inner, ready: false, left: pending, pending }
    }
}

impl<S: Clone> Clone for Strict<S> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.pending)
    }
}

impl<S, B> Service<Request<B>> for Strict<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if self.left > 0 {
            self.left -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.inner.poll_ready(cx))?;
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        assert!(std::mem::take(&mut self.ready), "called without having been made ready");
        self.left = self.pending;
        self.inner.call(request)
    }
}

// === a body that is fed by hand ===

/// The other end of a [`FedBody`].
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    sender: mpsc::UnboundedSender<Result<Frame<Bytes>, BoxError>>,
    live: Arc<AtomicUsize>,
}

/// A body whose frames come one by one, when the test wants it. It ends when its feed is dropped.
///
/// Its size hint is the one that the test sets, minus the bytes that have passed.
#[derive(Debug)]
pub(crate) struct FedBody {
    frames: mpsc::UnboundedReceiver<Result<Frame<Bytes>, BoxError>>,
    hint: SizeHint,
    _live: Counted,
}

pub(crate) fn fed() -> (Feed, FedBody) {
    let (sender, frames) = mpsc::unbounded_channel();
    let live = Arc::<AtomicUsize>::default();
    let body = FedBody { frames, hint: SizeHint::default(), _live: Counted::new(live.clone()) };
    (Feed { sender, live }, body)
}

impl Feed {
    pub(crate) fn data(&self, data: impl Into<Bytes>) {
        let _ = self.sender.send(Ok(Frame::data(data.into())));
    }

    pub(crate) fn trailers(&self, trailers: HeaderMap) {
        let _ = self.sender.send(Ok(Frame::trailers(trailers)));
    }

    pub(crate) fn fail(&self, error: impl Into<BoxError>) {
        let _ = self.sender.send(Err(error.into()));
    }

    /// Resolves once the body was dropped.
    pub(crate) async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Returns whether the body has not been dropped.
    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Ordering::SeqCst) > 0
    }
}

impl FedBody {
    pub(crate) fn with_hint(mut self, hint: SizeHint) -> Self {
        self.hint = hint;
        self
    }
}

impl Body for FedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(self.frames.poll_recv(cx));
        if let Some(Ok(data)) = frame.as_ref().map(|frame| frame.as_ref().map(|frame| frame.data_ref())) {
            let passed = data.map_or(0, |data| data.len() as u64);
            let upper = self.hint.upper().map(|upper| upper.saturating_sub(passed));
            let mut left = SizeHint::new();
            left.set_lower(self.hint.lower().saturating_sub(passed));
            if let Some(upper) = upper {
                left.set_upper(upper);
            }
            self.hint = left;
        }
        Poll::Ready(frame)
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

/// Makes a body whose frames are all there already.
pub(crate) fn chunks<T: AsRef<[u8]>>(chunks: impl IntoIterator<Item = T>) -> AnyBody {
    let (feed, body) = fed();
    for chunk in chunks {
        feed.data(chunk.as_ref().to_vec());
    }
    any(body)
}

/// Makes a body with these frames, after which the connection breaks.
pub(crate) fn broken<T: AsRef<[u8]>>(chunks: impl IntoIterator<Item = T>) -> AnyBody {
    let (feed, body) = fed();
    for chunk in chunks {
        feed.data(chunk.as_ref().to_vec());
    }
    feed.fail(reset());
    any(body)
}

pub(crate) fn reset() -> std::io::Error {
    std::io::ErrorKind::ConnectionReset.into()
}

pub(crate) const OK: StatusCode = StatusCode::OK;
