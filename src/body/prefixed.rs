//! A body whose beginning was read and put back.
//!
//! Whoever has to look at a body before it is handed on (an error's text, an answer's first content, a request that turned
//! out too large to keep) gives the pieces back as they came, one frame each, and the rest streams on behind them.

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
    /// The frames that were read, then the rest of the body.
    pub struct PrefixedBody<B> {
        prefix: Prefix,
        #[pin]
        rest: B,
    }
}

/// What was read of a body so far.
#[derive(Default)]
pub(crate) struct Prefix {
    frames: VecDeque<Bytes>,
    /// Behind the frames: the small ones that were joined, where that was asked for.
    joined: Vec<u8>,
    len: usize,
    trailers: Option<HeaderMap>,
    /// The body has ended: the rest is not asked again.
    ended: bool,
}

/// A frame below this size may be joined to its neighbours.
const SMALL: usize = 512;

/// Joined frames are about this large.
const JOINED: usize = 4096;

impl Prefix {
    /// Reads the next bytes of the body into the prefix. `Ready(Ok(None))`: the body has ended.
    ///
    /// Frames without a byte are not kept: nothing would bound them.
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
                        self.frames.push_back(data);
                        return Poll::Ready(Ok(self.frames.back()));
                    }
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
        Poll::Ready(Ok(None))
    }

    /// Joins the frame that was read last to the one before, if it is small: a body of single bytes would take thirty
    /// times its size. For bodies whose frames mean nothing.
    pub(crate) fn join_small(&mut self) {
        let Some(last) = self.frames.pop_back() else { return };
        if last.len() < SMALL && !(self.frames.is_empty() && self.joined.is_empty()) {
            self.joined.extend_from_slice(&last);
            if self.joined.len() >= JOINED {
                self.end_joined();
            }
        } else {
            self.end_joined();
            self.frames.push_back(last);
        }
    }

    fn end_joined(&mut self) {
        if !self.joined.is_empty() {
            self.frames.push_back(std::mem::take(&mut self.joined).into());
        }
    }

    /// Bytes read so far.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// All that was read, in one piece; nothing is copied where it came in one.
    pub(crate) fn to_bytes(&self) -> Bytes {
        match self.frames.len() {
            0 => Bytes::new(),
            1 if self.joined.is_empty() => self.frames[0].clone(),
            _ => {
                let mut whole = Vec::with_capacity(self.len);
                self.frames.iter().for_each(|frame| whole.extend_from_slice(frame));
                whole.extend_from_slice(&self.joined);
                whole.into()
            }
        }
    }

    pub(crate) fn into_trailers(self) -> Option<HeaderMap> {
        self.trailers
    }
}

impl<B> PrefixedBody<B> {
    pub(crate) fn new(mut prefix: Prefix, rest: B) -> Self {
        prefix.end_joined();
        Self { prefix, rest }
    }

    /// A body of which nothing was read.
    pub(crate) fn untouched(rest: B) -> Self {
        Self::new(Prefix::default(), rest)
    }

    /// Whether the next frame comes from what was read before.
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
        if let Some(data) = this.prefix.frames.pop_front() {
            this.prefix.len -= data.len();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(trailers) = this.prefix.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
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
