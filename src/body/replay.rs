//! A request body that can be sent more than once.
//!
//! [`Resend`] is what a layer asks of a body before it sends a request again. Bodies that sit in memory have it by nature.
//! [`ReplayBody`], which `ReplayLayer` makes of any other body, has it as long as the body fitted into the layer's caps.

use std::{
    fmt,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Empty, Full};
use pin_project_lite::pin_project;

use super::prefixed::PrefixedBody;
use crate::{
    context::{BoxError, Error},
    failure::{Failure, Kind as FailureKind},
};

/// A body that may be sent again.
///
/// In-memory bodies are: [`Full`], [`Empty`], `String`, `Bytes`-like ones, and [`Either`] of two of them. A streaming body
/// is not; `ReplayLayer` makes it so.
#[diagnostic::on_unimplemented(
    message = "the request body `{Self}` cannot be sent twice",
    label = "this body streams: once sent, it is gone",
    note = "put `tower_gemini::ReplayLayer` outside the layer that sends again (`RetryLayer`): it keeps the body",
    note = "bodies in memory, such as `http_body_util::Full<bytes::Bytes>`, need no `ReplayLayer`"
)]
pub trait Resend: Body + Sized {
    /// The same body from its beginning, or `None` when it can be sent only once.
    fn try_clone(&self) -> Option<Self>;
}

impl<D: Buf + Clone> Resend for Full<D> {
    fn try_clone(&self) -> Option<Self> {
        Some(self.clone())
    }
}

impl<D: Buf> Resend for Empty<D> {
    fn try_clone(&self) -> Option<Self> {
        Some(Self::new())
    }
}

impl Resend for String {
    fn try_clone(&self) -> Option<Self> {
        Some(self.clone())
    }
}

impl<L, R> Resend for Either<L, R>
where
    L: Resend,
    R: Resend<Data = L::Data>,
    L::Error: Into<BoxError>,
    R::Error: Into<BoxError>,
{
    fn try_clone(&self) -> Option<Self> {
        Some(match self {
            Self::Left(body) => Self::Left(body.try_clone()?),
            Self::Right(body) => Self::Right(body.try_clone()?),
        })
    }
}

/// The same request once more, if its body allows it.
pub(crate) fn clone_request<B: Resend>(request: &Request<B>) -> Option<Request<B>> {
    let mut clone = Request::new(request.body().try_clone()?);
    clone.method_mut().clone_from(request.method());
    clone.uri_mut().clone_from(request.uri());
    *clone.version_mut() = request.version();
    clone.headers_mut().clone_from(request.headers());
    clone.extensions_mut().clone_from(request.extensions());
    Some(clone)
}

/// The whole body, if it is in memory.
pub(crate) fn in_memory<B: Resend<Data = Bytes>>(body: &B) -> Option<Bytes> {
    let mut body = pin!(body.try_clone()?);
    let mut context = Context::from_waker(Waker::noop());
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    loop {
        match Pin::as_mut(&mut body).poll_frame(&mut context) {
            Poll::Ready(None) => return Some(if more.is_empty() { first } else { more.freeze() }),
            Poll::Ready(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else { continue };
                if first.is_empty() && more.is_empty() {
                    first = data;
                } else {
                    if more.is_empty() {
                        more.extend_from_slice(&first);
                    }
                    more.extend_from_slice(&data);
                }
            }
            Poll::Ready(Some(Err(_))) | Poll::Pending => return None,
        }
    }
}

pin_project! {
    /// A request body after `ReplayLayer`: kept in memory and resendable, or past the caps and streaming.
    pub struct ReplayBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B> {
        Kept { kept: Kept, next: Next },
        Streaming { #[pin] body: PrefixedBody<B>, memory: Option<Memory>, cap: Option<Cap> },
    }
}

/// A place in the layer's total, held as long as the bytes are.
type Memory = Arc<dyn Send + Sync>;

/// How many bytes are taken in all, and how many may still come.
#[derive(Clone, Copy)]
struct Cap {
    of: usize,
    left: usize,
}

/// The refusal of a request whose body is over the cap.
pub(crate) fn too_large(cap: usize) -> Error {
    let message = format!("the request's body is larger than {cap} bytes, the most that is taken here");
    Error::refusal("replay", Failure::local(FailureKind::BodyTooLarge, message))
}

/// A body in memory, shared by all its clones.
#[derive(Clone)]
struct Kept {
    bytes: Bytes,
    trailers: Option<Arc<HeaderMap>>,
    _memory: Memory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Data,
    Trailers,
    Nothing,
}

impl<B> ReplayBody<B> {
    pub(crate) fn kept(bytes: Bytes, trailers: Option<HeaderMap>, memory: Memory) -> Self {
        let kept = Kept { bytes, trailers: trailers.map(Arc::new), _memory: memory };
        Self { kind: Kind::Kept { next: kept.first(), kept } }
    }

    /// A body that is not kept. With a `cap`, more than that many bytes are an error.
    pub(crate) fn streaming(body: PrefixedBody<B>, memory: Memory, cap: Option<usize>) -> Self {
        let cap = cap.map(|cap| Cap { of: cap, left: cap });
        Self { kind: Kind::Streaming { body, memory: Some(memory), cap } }
    }

    /// Whether the body may be sent again.
    pub fn is_resendable(&self) -> bool {
        self.bytes().is_some()
    }

    /// The whole body in one piece, unless it streams.
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.kind {
            Kind::Kept { kept, .. } => Some(&kept.bytes),
            Kind::Streaming { .. } => None,
        }
    }
}

impl Kept {
    fn first(&self) -> Next {
        match (self.bytes.is_empty(), &self.trailers) {
            (false, _) => Next::Data,
            (true, Some(_)) => Next::Trailers,
            (true, None) => Next::Nothing,
        }
    }
}

/// A body that was written here, and is held by nobody's account.
impl<B> From<Bytes> for ReplayBody<B> {
    fn from(bytes: Bytes) -> Self {
        Self::kept(bytes, None, Arc::new(()))
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody").field("kept", &self.bytes().map(Bytes::len)).finish_non_exhaustive()
    }
}

impl<B> Resend for ReplayBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    fn try_clone(&self) -> Option<Self> {
        match &self.kind {
            Kind::Kept { kept, .. } => Some(Self { kind: Kind::Kept { kept: kept.clone(), next: kept.first() } }),
            Kind::Streaming { .. } => None,
        }
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().kind.project() {
            KindProj::Kept { kept, next } => {
                let frame = match *next {
                    Next::Data => Some(Frame::data(kept.bytes.clone())),
                    Next::Trailers => kept.trailers.as_deref().cloned().map(Frame::trailers),
                    Next::Nothing => None,
                };
                *next = match (*next, &kept.trailers) {
                    (Next::Data, Some(_)) => Next::Trailers,
                    _ => Next::Nothing,
                };
                Poll::Ready(frame.map(Ok))
            }
            KindProj::Streaming { mut body, memory, cap } => {
                let frame = body.as_mut().poll_frame(cx);
                if !body.is_in_prefix() {
                    *memory = None;
                }
                if let (Some(cap), Poll::Ready(Some(Ok(frame)))) = (cap, &frame) {
                    let len = frame.data_ref().map_or(0, Bytes::len);
                    match cap.left.checked_sub(len) {
                        Some(left) => cap.left = left,
                        None => return Poll::Ready(Some(Err(too_large(cap.of).into()))),
                    }
                }
                frame.map_err(Into::into)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Kept { next, .. } => *next == Next::Nothing,
            Kind::Streaming { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Kept { kept, next: Next::Data } => SizeHint::with_exact(kept.bytes.len() as u64),
            Kind::Kept { .. } => SizeHint::with_exact(0),
            Kind::Streaming { body, .. } => body.size_hint(),
        }
    }
}
