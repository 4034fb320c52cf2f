//! The future of a call: collects the request's body, and sends the request.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    memory::MemoryLease,
    settings::{Oversize, Settings},
};
use crate::{
    body::{Prefix, PrefixedBody, ReplayBody, too_large},
    call::{Call, Operation, RequestDetails, Shape},
    context::{BoxError, CallContext, Error, Outcome, polled_again},
    failure::{Failure, Kind},
    ready::Readied,
};

pin_project! {
    /// The future of [`Replay`](super::Replay).
    pub struct ResponseFuture<S, B, F> {
        #[pin]
        state: State<B, F>,
        inner: Readied<S>,
        kept: bool,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<B, F> {
        Collecting { collecting: Option<Collecting<B>> },
        Sending { request: Option<Request<ReplayBody<B>>> },
        Calling { #[pin] future: F },
    }
}

struct Collecting<B> {
    parts: Parts,
    body: B,
    prefix: Prefix,
    lease: MemoryLease,
    max_body: usize,
    oversize: Oversize,
}

/// The result of collecting a body.
enum Collected {
    Kept,
    TooLarge,
    NoMemory,
}

impl<S, B, F> ResponseFuture<S, B, F> {
    pub(super) fn new(inner: Readied<S>, request: Request<B>, settings: &Settings) -> Self {
        let (parts, body) = request.into_parts();
        let max_body = settings.max_body;
        let oversize = match Shape::new(&parts.method, &parts.uri).operation {
            // An upload is a file, not a prompt.
            Operation::Upload => Oversize::Stream,
            _ => settings.oversize,
        };
        let lease = settings.memory.lease();
        let collecting = Collecting { parts, body, prefix: Prefix::default(), lease, max_body, oversize };
        Self { state: State::Collecting { collecting: Some(collecting) }, inner, kept: true }
    }
}

impl<S, B, F> fmt::Debug for ResponseFuture<S, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The request and its body are left out, because they have keys in them.
        f.debug_struct("ResponseFuture").field("kept", &self.kept).finish_non_exhaustive()
    }
}

impl<S, B, R> Future for ResponseFuture<S, B, S::Future>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Collecting { collecting } => {
                    let Some(held) = collecting else { return Poll::Ready(Err(polled_again(super::NAME))) };
                    let Poll::Ready(collected) = held.poll_collect(cx) else {
                        // A slow upload must not hold a permit that another call could use.
                        this.inner.release();
                        return Poll::Pending;
                    };
                    let collecting = collecting.take().expect("just polled");
                    let request = collecting.finish(collected?)?;
                    *this.kept = request.body().is_resendable();
                    this.state.set(State::Sending { request: Some(request) });
                }
                StateProj::Sending { request } => {
                    ready!(this.inner.poll_ready(cx)).map_err(Into::into)?;
                    let Some(request) = request.take() else { return Poll::Ready(Err(polled_again(super::NAME))) };
                    let future = this.inner.call(request);
                    this.state.set(State::Calling { future });
                }
                StateProj::Calling { future } => {
                    let result = ready!(future.poll(cx)).map_err(Into::into);
                    return Poll::Ready(if *this.kept { result } else { streamed(result) });
                }
            }
        }
    }
}

impl<B> Collecting<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    fn poll_collect(&mut self, cx: &mut Context<'_>) -> Poll<Result<Collected, BoxError>> {
        // A body that announces too much need not be read; one that announces little is counted all the same.
        if self.body.size_hint().lower() > self.max_body as u64 {
            return Poll::Ready(Ok(Collected::TooLarge));
        }
        loop {
            let more = match ready!(self.prefix.poll_read(cx, Pin::new(&mut self.body))) {
                Err(error) => {
                    let failure = Failure::local(Kind::RequestBody, "the request's body broke off while it was read");
                    return Poll::Ready(Err(Error::caused(super::NAME, failure, error).into()));
                }
                Ok(None) => return Poll::Ready(Ok(Collected::Kept)),
                Ok(Some(data)) => data.len(),
            };
            self.prefix.join_small();
            if self.prefix.len() > self.max_body {
                return Poll::Ready(Ok(Collected::TooLarge));
            }
            if !self.lease.grow(more) {
                return Poll::Ready(Ok(Collected::NoMemory));
            }
        }
    }

    fn finish(self, collected: Collected) -> Result<Request<ReplayBody<B>>, BoxError> {
        let Self { mut parts, body, prefix, lease, max_body, oversize } = self;
        let mut call = Call::new(&parts.method, &parts.uri);
        let body = match collected {
            Collected::Kept => {
                let (bytes, trailers) = prefix.into_parts();
                call = read_body(call, &bytes, &parts);
                ReplayBody::kept(bytes, trailers, Arc::new(lease))
            }
            Collected::TooLarge if oversize == Oversize::Refuse => {
                return Err(too_large(max_body).into());
            }
            Collected::TooLarge | Collected::NoMemory => {
                let cap = (oversize == Oversize::Refuse).then_some(max_body);
                ReplayBody::streaming(PrefixedBody::new(prefix, body), Arc::new(lease), cap)
            }
        };
        CallContext::update(&mut parts.extensions, |context| context.set_call(call));
        Ok(Request::from_parts(parts, body))
    }
}

/// Reads the body, and for a call that is recorded also what only its record names.
fn read_body(call: Call, body: &[u8], parts: &Parts) -> Call {
    let Some(tally) = parts.extensions.get().and_then(CallContext::tally) else { return call.read_body(body) };
    let mut details = RequestDetails::default();
    let call = call.read_body_with(body, Some(&mut details));
    tally.add(|report| report.details = details);
    call
}

/// Notes in the outcome that the body was not kept.
fn streamed<R>(result: Result<Response<R>, BoxError>) -> Result<Response<R>, BoxError> {
    match result {
        Ok(mut response) => {
            Outcome::update(&mut response, |outcome| outcome.with_streamed_request());
            Ok(response)
        }
        Err(error) => Err(Error::map(error, super::NAME, |outcome| outcome.with_streamed_request())),
    }
}
