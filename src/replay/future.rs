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
    read::WholeBody,
    settings::{Oversize, Settings},
};
use crate::{
    body::{Prefix, PrefixedBody, ReplayBody, too_large},
    call::{Call, Operation, Shape},
    context::{BoxError, CallContext, CallRef, Error, Outcome, Unkept, polled_again},
    failure::{Failure, Kind},
    ready::Readied,
    request::readers::{BodyRead, Readers},
};

pin_project! {
    /// The future of [`Replay`](super::Replay).
    pub struct ResponseFuture<S, B, F> {
        #[pin]
        state: State<B, F>,
        inner: Readied<S>,
        unkept: Option<Unkept>,
        call: Option<Call>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<B, F> {
        Collecting { collecting: Option<Collecting<B>> },
        // A large body, on another thread.
        Reading { collecting: Option<Collecting<B>>, reading: BodyRead<WholeBody> },
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
    readers: Readers,
}

/// The result of collecting a body.
#[derive(Clone, Copy)]
enum Collected {
    Kept,
    Unkept(Unkept),
}

impl<S, B, F> ResponseFuture<S, B, F> {
    pub(super) fn new(inner: Readied<S>, request: Request<B>, settings: &Settings) -> Self {
        let caller = CallContext::of(&request).and_then(|context| context.caller().cloned());
        let (parts, body) = request.into_parts();
        let max_body = settings.max_body;
        let oversize = match Shape::new(&parts.method, &parts.uri).operation {
            // An upload is a file, not a prompt.
            Operation::Upload => Oversize::Stream,
            _ => settings.oversize,
        };
        let lease = settings.memory.lease(caller);
        let readers = settings.readers.clone();
        let collecting = Collecting { parts, body, prefix: Prefix::default(), lease, max_body, oversize, readers };
        Self { state: State::Collecting { collecting: Some(collecting) }, inner, unkept: None, call: None }
    }
}

impl<S, B, F> fmt::Debug for ResponseFuture<S, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The request and its body are left out, because they have keys in them.
        f.debug_struct("ResponseFuture").field("unkept", &self.unkept).finish_non_exhaustive()
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
                    let mut collecting = collecting.take().expect("just polled");
                    let collected = collected?;
                    if matches!(collected, Collected::Kept) && Readers::are_needed(collecting.prefix.len()) {
                        // The wait begins: what the readiness holds is another call's meanwhile.
                        this.inner.release();
                        let reading = collecting.read_elsewhere();
                        this.state.set(State::Reading { collecting: Some(collecting), reading });
                        continue;
                    }
                    if let Collected::Unkept(why) = collected {
                        *this.unkept = Some(why);
                    }
                    let request = collecting.finish(collected)?;
                    *this.call = CallRef::known_of(&request).cloned();
                    this.state.set(State::Sending { request: Some(request) });
                }
                StateProj::Reading { collecting, reading } => {
                    let whole = ready!(Pin::new(reading).poll(cx));
                    let held = whole.zip(collecting.take());
                    // Without it the reader has panicked, or the runtime is shutting down.
                    let Some((whole, collecting)) = held else { return Poll::Ready(Err(polled_again(super::NAME))) };
                    let request = collecting.kept(whole);
                    *this.call = CallRef::known_of(&request).cloned();
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
                    let result = match *this.unkept {
                        None => result,
                        Some(why) => streamed(result, why),
                    };
                    return Poll::Ready(match this.call.take() {
                        Some(call) => named(result, call),
                        None => result,
                    });
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
            return Poll::Ready(Ok(Collected::Unkept(Unkept::TooLarge)));
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
                return Poll::Ready(Ok(Collected::Unkept(Unkept::TooLarge)));
            }
            if let Err(why) = self.lease.grow(more) {
                return Poll::Ready(Ok(Collected::Unkept(why)));
            }
        }
    }

    /// Lets another thread read what was collected.
    fn read_elsewhere(&mut self) -> BodyRead<WholeBody> {
        let (pieces, call) = (std::mem::take(&mut self.prefix), self.call());
        let is_recorded = self.is_recorded();
        self.readers.read(move || WholeBody::read(pieces, call, is_recorded))
    }

    fn call(&self) -> Call {
        Call::new(&self.parts.method, &self.parts.uri)
    }

    fn is_recorded(&self) -> bool {
        self.parts.extensions.get().and_then(CallContext::tally).is_some()
    }

    /// Makes the request of a body that was kept and read.
    fn kept(self, whole: WholeBody) -> Request<ReplayBody<B>> {
        let Self { mut parts, lease, .. } = self;
        let WholeBody { bytes, trailers, call, details, large } = whole;
        if let (Some(details), Some(tally)) = (details, parts.extensions.get().and_then(CallContext::tally)) {
            tally.add(|report| report.details = details);
        }
        CallContext::update(&mut parts.extensions, |context| {
            context.set_call(call);
            context.set_large_body(large);
        });
        Request::from_parts(parts, ReplayBody::kept(bytes, trailers, Arc::new(lease)))
    }

    fn finish(mut self, collected: Collected) -> Result<Request<ReplayBody<B>>, BoxError> {
        let call = self.call();
        let Collected::Unkept(why) = collected else {
            let whole = WholeBody::read(std::mem::take(&mut self.prefix), call, self.is_recorded());
            return Ok(self.kept(whole));
        };
        let Self { mut parts, body, prefix, lease, max_body, oversize, .. } = self;
        let cap = (oversize == Oversize::Refuse).then_some(max_body);
        if let Some(cap) = cap.filter(|_| why == Unkept::TooLarge) {
            return Err(too_large(cap).into());
        }
        lease.note_unkept(why);
        let body = ReplayBody::streaming(PrefixedBody::new(prefix, body), Arc::new(lease), cap);
        CallContext::update(&mut parts.extensions, |context| {
            context.set_call(call);
            context.set_large_body(None);
        });
        Ok(Request::from_parts(parts, body))
    }
}

/// Names the call in the outcome, where there is one.
fn named<R>(mut result: Result<Response<R>, BoxError>, call: Call) -> Result<Response<R>, BoxError> {
    match &mut result {
        Ok(response) => {
            if let Some(outcome) = response.extensions_mut().get_mut::<Outcome>() {
                *outcome = std::mem::take(outcome).with_call(call);
            }
            result
        }
        Err(error) if error.is::<Error>() => {
            result.map_err(|error| Error::map(error, super::NAME, |outcome| outcome.with_call(call)))
        }
        Err(_) => result,
    }
}

/// Notes in the outcome that the body was not kept, and why.
fn streamed<R>(result: Result<Response<R>, BoxError>, why: Unkept) -> Result<Response<R>, BoxError> {
    match result {
        Ok(mut response) => {
            Outcome::update(&mut response, |outcome| outcome.with_unkept(why));
            Ok(response)
        }
        Err(error) => Err(Error::map(error, super::NAME, |outcome| outcome.with_unkept(why))),
    }
}
