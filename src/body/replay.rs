//! A request body that can be sent more than once.
//!
//! [`Resend`] is the trait that a layer asks of a body before it sends a request again. Bodies in memory have it by
//! nature. [`ReplayBody`], which `ReplayLayer` makes of any other body, has it if the body fitted into the layer's
//! caps.

use std::{
    borrow::Cow,
    fmt,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Empty, Full};
use pin_project_lite::pin_project;

use super::prefixed::PrefixedBody;
use crate::{
    context::{BoxError, Error},
    failure::{Failure, Kind},
};

/// A body that may be sent again.
///
/// Bodies in memory implement it: [`Full`], [`Empty`], `String`, and [`Either`] of two of them. A streaming body does
/// not; `ReplayLayer` turns it into one that does.
#[diagnostic::on_unimplemented(
    message = "the request body `{Self}` cannot be sent twice",
    label = "this body streams: once sent, it is gone",
    note = "put `tower_gemini::ReplayLayer` outside the layer that sends again (`RetryLayer`): it keeps the body",
    note = "bodies in memory, such as `http_body_util::Full<bytes::Bytes>`, need no `ReplayLayer`"
)]
pub trait Resend: Body + Sized {
    /// Returns the same body from its beginning, or `None` when it can be sent only once.
    fn try_clone(&self) -> Option<Self>;

    /// Returns the whole body, where it is at hand in one piece. Default: `None`, and a layer that wants to look at the
    /// body reads a clone of it.
    fn whole(&self) -> Option<&Self::Data> {
        None
    }
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

    fn whole(&self) -> Option<&L::Data> {
        match self {
            Self::Left(body) => body.whole(),
            Self::Right(body) => body.whole(),
        }
    }
}

/// Returns the whole body, if it is in memory: borrowed where it is at hand.
pub(crate) fn in_memory<B: Resend<Data = Bytes>>(body: &B) -> Option<Cow<'_, Bytes>> {
    body.whole().map(Cow::Borrowed).or_else(|| read_clone(body).map(Cow::Owned))
}

/// Reads the whole body from a clone of it, if it is in memory.
fn read_clone<B: Resend<Data = Bytes>>(body: &B) -> Option<Bytes> {
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

/// A request body after `ReplayLayer`: kept in memory and resendable, or past the caps and streaming.
pub struct ReplayBody<B> {
    state: State<B>,
}

enum State<B> {
    Kept {
        kept: Arc<KeptBody<dyn Send + Sync>>,
        next: NextFrame,
    },
    /// Boxed, because it is large and rare: a client's queue has room for 32 requests for each of its connections.
    Streaming(Pin<Box<StreamingBody<B>>>),
}

pin_project! {
    /// A body past the caps.
    #[project = StreamingBodyProj]
    struct StreamingBody<B> {
        #[pin]
        body: PrefixedBody<B>,
        memory: Option<HeldMemory>,
        cap: Option<Cap>,
    }
}

/// A share of the layer's total, held as long as the bytes are.
type HeldMemory = Box<dyn Send + Sync>;

/// A cap on the bytes of a streaming body.
#[derive(Clone, Copy)]
struct Cap {
    of: usize,
    /// The bytes that may still come.
    left: usize,
}

/// Returns the refusal of a request whose body is larger than the cap.
pub(crate) fn too_large(cap: usize) -> Error {
    let message = format!(
        "the request's body is larger than {cap} bytes, the most that is taken here (max_body); send large media by the Files API"
    );
    Error::refusal("replay", Failure::local(Kind::BodyTooLarge, message))
}

/// A body in memory, with its share of the layer's total. All its clones share it.
struct KeptBody<M: ?Sized> {
    bytes: Bytes,
    /// In a box, because they are large and rare.
    trailers: Option<Box<HeaderMap>>,
    _memory: M,
}

/// The frame that a kept body gives next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextFrame {
    Data,
    Trailers,
    Nothing,
}

impl<B> ReplayBody<B> {
    /// Creates a body that is kept in memory. What it holds is dropped with its last clone.
    pub(crate) fn kept(bytes: Bytes, trailers: Option<Box<HeaderMap>>, memory: impl Send + Sync + 'static) -> Self {
        let kept = Arc::new(KeptBody { bytes, trailers, _memory: memory });
        Self { state: State::Kept { next: kept.first(), kept } }
    }

    /// Creates a body that is not kept. With a `cap`, more bytes than that are an error.
    pub(crate) fn streaming(body: PrefixedBody<B>, memory: impl Send + Sync + 'static, cap: Option<usize>) -> Self {
        let cap = cap.map(|cap| Cap { of: cap, left: cap });
        Self { state: State::Streaming(Box::pin(StreamingBody { body, memory: Some(Box::new(memory)), cap })) }
    }

    /// Returns whether the body may be sent again.
    pub fn is_resendable(&self) -> bool {
        self.bytes().is_some()
    }

    /// Returns the whole body in one piece, unless it streams.
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.state {
            State::Kept { kept, .. } => Some(&kept.bytes),
            State::Streaming(_) => None,
        }
    }
}

impl<M: ?Sized> KeptBody<M> {
    fn first(&self) -> NextFrame {
        match (self.bytes.is_empty(), &self.trailers) {
            (false, _) => NextFrame::Data,
            (true, Some(_)) => NextFrame::Trailers,
            (true, None) => NextFrame::Nothing,
        }
    }
}

/// Creates a body that counts against no layer's total: one that a layer wrote itself.
impl<B> From<Bytes> for ReplayBody<B> {
    fn from(bytes: Bytes) -> Self {
        Self::kept(bytes, None, ())
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
        match &self.state {
            State::Kept { kept, .. } => Some(Self { state: State::Kept { kept: kept.clone(), next: kept.first() } }),
            State::Streaming(_) => None,
        }
    }

    fn whole(&self) -> Option<&Bytes> {
        self.bytes()
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
        match &mut self.get_mut().state {
            State::Kept { kept, next } => {
                let frame = match *next {
                    NextFrame::Data => Some(Frame::data(kept.bytes.clone())),
                    NextFrame::Trailers => kept.trailers.as_deref().cloned().map(Frame::trailers),
                    NextFrame::Nothing => None,
                };
                *next = match (*next, &kept.trailers) {
                    (NextFrame::Data, Some(_)) => NextFrame::Trailers,
                    _ => NextFrame::Nothing,
                };
                Poll::Ready(frame.map(Ok))
            }
            State::Streaming(streaming) => {
                let StreamingBodyProj { mut body, memory, cap } = streaming.as_mut().project();
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
        match &self.state {
            State::Kept { next, .. } => *next == NextFrame::Nothing,
            State::Streaming(streaming) => streaming.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Kept { kept, next: NextFrame::Data } => SizeHint::with_exact(kept.bytes.len() as u64),
            State::Kept { .. } => SizeHint::with_exact(0),
            State::Streaming(streaming) => streaming.body.size_hint(),
        }
    }
}
