//! The body of an upstream's failure, read before its answer is handed over.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::response::Parts;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use crate::{
    body::{Prefix, PrefixedBody},
    context::BoxError,
    status::MOST_READ,
};

/// The longest wait for the rest of a failure's body, from the first time that nothing was there. Behind a
/// [`ClassifyLayer`](crate::ClassifyLayer) the body has been read, and nothing waits here.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The most bytes that are looked at before a body's end, in all looks together: each of them begins at the first byte.
const MOST_LOOKED_AT: usize = 8 * MOST_READ;

/// An answer whose body is being read, and held meanwhile.
pub(super) struct HeldAnswer<R> {
    pub(super) parts: Parts,
    prefix: Prefix,
    // It moves on to whoever takes the answer, and bodies need not be `Unpin`.
    body: Pin<Box<R>>,
    /// The last byte so far.
    last: u8,
    /// The number of bytes at the last look.
    looked_at: usize,
    /// The number of bytes that may still be looked at.
    looks: usize,
    /// The end of the wait, once there is one.
    until: Option<Pin<Box<Sleep>>>,
}

/// The reason why reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The body has ended, or has failed.
    Ended,
    /// The body is larger than what is read of one.
    TooLarge,
    /// Nothing more has come yet, and what has come may be all.
    Paused,
    /// The rest has not come in time.
    Late,
}

impl<R> HeldAnswer<R>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    pub(super) fn new(parts: Parts, body: R) -> Self {
        Self {
            parts,
            prefix: Prefix::default(),
            body: Box::pin(body),
            last: 0,
            looked_at: 0,
            looks: MOST_LOOKED_AT,
            until: None,
        }
    }

    /// Reads on. A body that fails has ended: its failure is known, and the rest would have been a part of its text.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        loop {
            // No frame is empty.
            let last = self.prefix.poll_read(cx, self.body.as_mut()).map_ok(|data| data?.last().copied());
            match last {
                Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(Stop::Ended),
                Poll::Ready(Ok(Some(last))) => {
                    self.last = last;
                    self.prefix.join_small();
                }
                Poll::Pending if self.may_be_whole() => return Poll::Ready(Stop::Paused),
                Poll::Pending => {
                    ready!(self.until.get_or_insert_with(|| Box::pin(sleep(LONGEST_WAIT))).as_mut().poll(cx));
                    return Poll::Ready(Stop::Late);
                }
            }
            if self.prefix.len() > MOST_READ {
                return Poll::Ready(Stop::TooLarge);
            }
        }
    }

    /// Returns whether what has come may be all of an error, and has not been looked at.
    fn may_be_whole(&mut self) -> bool {
        let len = self.prefix.len();
        let is_due = len > self.looked_at && len <= self.looks && matches!(self.last, b'}' | b']' | b'\n' | b'\r');
        if is_due {
            self.looked_at = len;
            self.looks -= len;
        }
        is_due
    }

    /// Returns what has been read.
    pub(super) fn bytes(&self) -> Bytes {
        self.prefix.to_bytes()
    }

    /// Gives the answer back, as it came.
    pub(super) fn into_parts(self) -> (Parts, AnswerBody<R>) {
        (self.parts, AnswerBody::Read { body: PrefixedBody::new(self.prefix, self.body).into() })
    }
}

pin_project! {
    /// The body of an upstream's answer, of which something may have been read.
    #[project = AnswerBodyProj]
    pub(super) enum AnswerBody<R> {
        Unread { #[pin] body: R },
        // Few answers are read, and all are moved.
        Read { body: Box<PrefixedBody<Pin<Box<R>>>> },
    }
}

impl<R: Body<Data = Bytes>> Body for AnswerBody<R> {
    type Data = Bytes;
    type Error = R::Error;

    #[inline]
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        match self.project() {
            AnswerBodyProj::Unread { body } => body.poll_frame(cx),
            AnswerBodyProj::Read { body } => Pin::new(&mut **body).poll_frame(cx),
        }
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Unread { body } => body.is_end_stream(),
            Self::Read { body } => body.is_end_stream(),
        }
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Unread { body } => body.size_hint(),
            Self::Read { body } => body.size_hint(),
        }
    }
}
