//! The bodies of a connection's calls: they tell its life how far each call is.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use crate::serve::connection_life::{CallHandle, RequestHandle, WaitingBytes};

/// The body of a request, whose call lasts until it is read or dropped.
pub(crate) struct RequestBody {
    pub(crate) body: Incoming,
    pub(crate) _call: RequestHandle,
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer, as hyper gets it.
pub(crate) struct AnswerBody {
    body: Body,
    call: CallHandle,
}

impl AnswerBody {
    /// Wraps the body of a call's answer, whose head has come.
    pub(crate) fn new(body: Body, call: CallHandle) -> Self {
        call.answered();
        Self { body, call }
    }
}

impl http_body::Body for AnswerBody {
    type Data = AnswerBytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<AnswerBytes>, axum::Error>>> {
        let Self { body, call } = &mut *self;
        if call.pauses(cx.waker()) {
            return Poll::Pending;
        }
        let frame = Pin::new(body).poll_frame(cx);
        if frame.is_pending() {
            call.asked();
        }
        let frame = ready!(frame).map(|frame| {
            frame.map(|frame| frame.map_data(|bytes| AnswerBytes { waiting: call.handed(bytes.len()), bytes }))
        });
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes of an answer, which wait in hyper's buffers until they are written.
pub(crate) struct AnswerBytes {
    bytes: Bytes,
    waiting: WaitingBytes,
}

impl Buf for AnswerBytes {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, written: usize) {
        self.bytes.advance(written);
        self.waiting.taken(written);
    }
}

impl Drop for AnswerBytes {
    fn drop(&mut self) {
        self.waiting.taken(self.bytes.len());
    }
}
