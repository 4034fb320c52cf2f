//! The body of an upstream's failure, read before its answer is handed over.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::response::Parts;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::{
    body::{Prefix, PrefixedBody},
    context::BoxError,
    status::MOST_READ,
};

/// An answer whose body is being read, and held meanwhile.
pub(super) struct Reading<R> {
    pub(super) parts: Parts,
    prefix: Prefix,
    // It moves on to whoever takes the answer, and bodies need not be `Unpin`.
    body: Pin<Box<R>>,
    has_paused: bool,
}

/// The reason why reading stopped.
pub(super) enum Stop {
    /// The body has ended, or has failed.
    Ended,
    /// The body is larger than what is read of one.
    TooLarge,
    /// Nothing more has come yet, for the first time.
    Paused,
}

impl<R> Reading<R>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    pub(super) fn new(parts: Parts, body: R) -> Self {
        Self { parts, prefix: Prefix::default(), body: Box::pin(body), has_paused: false }
    }

    /// Reads on. A body that fails has ended: its failure is known, and the rest would have been a part of its text.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        loop {
            match self.prefix.poll_read(cx, self.body.as_mut()) {
                Poll::Pending if !self.has_paused => {
                    self.has_paused = true;
                    return Poll::Ready(Stop::Paused);
                }
                read => match ready!(read) {
                    Ok(None) | Err(_) => return Poll::Ready(Stop::Ended),
                    Ok(Some(_)) => self.prefix.join_small(),
                },
            }
            if self.prefix.len() > MOST_READ {
                return Poll::Ready(Stop::TooLarge);
            }
        }
    }

    /// Returns what has been read.
    pub(super) fn bytes(&self) -> Bytes {
        self.prefix.to_bytes()
    }

    /// Gives the answer back, as it came.
    pub(super) fn into_parts(self) -> (Parts, AnswerBody<R>) {
        (self.parts, AnswerBody::Read { body: PrefixedBody::new(self.prefix, self.body) })
    }
}

pin_project! {
    /// The body of an upstream's answer, of which something may have been read.
    #[project = AnswerBodyProj]
    pub(super) enum AnswerBody<R> {
        Unread { #[pin] body: R },
        Read { body: PrefixedBody<Pin<Box<R>>> },
    }
}

impl<R: Body<Data = Bytes>> Body for AnswerBody<R> {
    type Data = Bytes;
    type Error = R::Error;

    #[inline]
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        match self.project() {
            AnswerBodyProj::Unread { body } => body.poll_frame(cx),
            AnswerBodyProj::Read { body } => Pin::new(body).poll_frame(cx),
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
