//! A body whose beginning was read and put back.
//!
//! A layer that looks at a body before it hands it on (for an error's text, an answer's first content, or to keep a
//! request that turned out too large) gives the pieces back as they came, one frame each, and the rest streams on
//! behind them.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// A body that gives the frames that were read before, then the rest.
    pub struct PrefixedBody<B> {
        prefix: Prefix,
        #[pin]
        rest: B,
    }
}

/// The part of a body that has been read so far.
#[derive(Default)]
pub(crate) struct Prefix {
    frames: FrameQueue,
    len: usize,
    trailers: Option<Box<HeaderMap>>,
    /// Set once the body has ended, so that the rest is not polled again.
    ended: bool,
}

/// A queue of frames that needs no memory of its own for the one frame that most bodies have.
#[derive(Default)]
struct FrameQueue {
    first: Option<Bytes>,
    more: Option<Box<MoreFrames>>,
}

/// The frames behind a first one.
#[derive(Default)]
struct MoreFrames {
    frames: VecDeque<Bytes>,
    /// The small frames behind the others that were joined, where that was asked for.
    joined: Vec<u8>,
}

/// The size below which a frame may be joined to its neighbours.
const SMALL: usize = 512;

/// The approximate size of joined frames.
const JOINED: usize = 4096;

impl Prefix {
    /// Reads the next bytes of the body into the prefix. `Ready(Ok(None))`: the body has ended.
    ///
    /// Frames without a byte are not kept, because nothing would bound their number.
    pub(crate) fn poll_read<B>(
        &mut self,
        cx: &mut Context<'_>,
        mut body: Pin<&mut B>,
    ) -> Poll<Result<Option<&Bytes>, B::Error>>
    where
        B: Body<Data = Bytes>,
    {
        while !self.ended {
            match std::task::ready!(body.as_mut().poll_frame(cx)) {
                None => self.ended = true,
                Some(Err(error)) => return Poll::Ready(Err(error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => {
                        self.len += data.len();
                        self.frames.push(data);
                        return Poll::Ready(Ok(self.frames.last()));
                    }
                    Err(frame) => self.trailers = frame.into_trailers().ok().map(Box::new),
                },
            }
        }
        Poll::Ready(Ok(None))
    }

    /// Joins the frame that was read last to the one before, if it is small: a body of single bytes would take thirty
    /// times its size. For bodies whose frames mean nothing.
    pub(crate) fn join_small(&mut self) {
        let Some(more) = &mut self.frames.more else { return };
        let Some(last) = more.frames.pop_back() else { return };
        if last.len() < SMALL {
            more.joined.extend_from_slice(&last);
            if more.joined.len() >= JOINED {
                more.end_joined();
            }
        } else {
            more.end_joined();
            more.frames.push_back(last);
        }
    }

    /// Returns the number of bytes read so far.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns all that was read in one piece. Nothing is copied where it came in one.
    pub(crate) fn to_bytes(&self) -> Bytes {
        if let Some(only) = self.only_frame() {
            return only.clone();
        }
        let mut whole = Vec::with_capacity(self.len);
        whole.extend_from_slice(self.frames.first.as_deref().unwrap_or_default());
        if let Some(more) = &self.frames.more {
            more.frames.iter().for_each(|frame| whole.extend_from_slice(frame));
            whole.extend_from_slice(&more.joined);
        }
        whole.into()
    }

    /// Gives away all that was read, and the trailers.
    pub(crate) fn into_parts(mut self) -> (Bytes, Option<Box<HeaderMap>>) {
        let bytes = match self.only_frame() {
            Some(_) => self.frames.pop_first().unwrap_or_default(),
            None => self.to_bytes(),
        };
        (bytes, self.trailers)
    }

    fn only_frame(&self) -> Option<&Bytes> {
        self.frames.first.as_ref().filter(|_| self.frames.more.is_none())
    }
}

impl FrameQueue {
    fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    fn last(&self) -> Option<&Bytes> {
        self.more.as_ref().and_then(|more| more.frames.back()).or(self.first.as_ref())
    }

    fn push(&mut self, frame: Bytes) {
        match self.first {
            None => self.first = Some(frame),
            Some(_) => self.more.get_or_insert_default().frames.push_back(frame),
        }
    }

    fn pop_first(&mut self) -> Option<Bytes> {
        let next = self.more.as_mut().and_then(|more| more.frames.pop_front());
        std::mem::replace(&mut self.first, next)
    }
}

impl MoreFrames {
    fn end_joined(&mut self) {
        if !self.joined.is_empty() {
            self.frames.push_back(std::mem::take(&mut self.joined).into());
        }
    }
}

impl<B> PrefixedBody<B> {
    /// Puts the prefix back before the rest.
    pub(crate) fn new(mut prefix: Prefix, rest: B) -> Self {
        if let Some(more) = &mut prefix.frames.more {
            more.end_joined();
        }
        Self { prefix, rest }
    }

    /// Wraps a body of which nothing was read.
    pub(crate) fn untouched(rest: B) -> Self {
        Self::new(Prefix::default(), rest)
    }

    /// Returns whether the next frame comes from what was read before.
    pub(crate) fn is_in_prefix(&self) -> bool {
        !self.prefix.frames.is_empty()
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prefix").field("len", &self.len).field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for PrefixedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrefixedBody").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl<B> Body for PrefixedBody<B>
where
    B: Body<Data = Bytes>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if let Some(data) = this.prefix.frames.pop_first() {
            this.prefix.len -= data.len();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(trailers) = this.prefix.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(*trailers))));
        }
        if this.prefix.ended {
            return Poll::Ready(None);
        }
        this.rest.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        let Prefix { frames, trailers, ended, .. } = &self.prefix;
        frames.is_empty() && trailers.is_none() && (*ended || self.rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.prefix.len as u64;
        if self.prefix.ended {
            return SizeHint::with_exact(held);
        }
        let mut hint = self.rest.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(held));
        }
        hint.set_lower(hint.lower().saturating_add(held));
        hint
    }
}
