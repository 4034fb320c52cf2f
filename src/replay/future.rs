//! The future of a call: collects the request's body, and sends the request.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{Request, Response};
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
    bounded::MAX_NAME,
    call::{Call, Operation},
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
        // The service, while the call waits for the body. In a box: a call whose body is at hand needs none, and is smaller
        // for it.
        inner: Option<Box<Readied<S>>>,
        unkept: Option<Unkept>,
        call: Option<Call>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<B, F> {
        Collecting { held: Option<(Collecting<B>, Readers)> },
        // A large body, on another thread.
        Reading { collecting: Option<Collecting<B>>, reading: BodyRead<WholeBody> },
        Sending { request: Option<Request<ReplayBody<B>>> },
        Calling { #[pin] future: F },
        Failed { error: Option<BoxError> },
    }
}

struct Collecting<B> {
    request: Request<B>,
    /// The call, as far as its URI says it.
    call: Call,
    prefix: Prefix,
    lease: MemoryLease,
    max_body: usize,
    oversize: Oversize,
}

/// The result of collecting a body.
#[derive(Clone, Copy)]
enum Collected {
    Kept,
    Unkept(Unkept),
}

/// The step that follows once a body was collected.
enum AfterCollecting<B> {
    /// Another thread reads it first.
    Read(Collecting<B>, BodyRead<WholeBody>),
    Send(Request<ReplayBody<B>>),
}

impl<S, B> ResponseFuture<S, B, S::Future>
where
    S: Service<Request<ReplayBody<B>>> + Clone,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    /// Begins a call of the ready service.
    pub(super) fn new(inner: &mut S, request: Request<B>, settings: &Settings, last: &mut Option<Arc<str>>) -> Self {
        let mut collecting = Collecting::new(request, settings, last);
        // A body in memory is there at once, and its call needs no copy of the service. Any other is asked again by the
        // future, whose task it can wake.
        let Poll::Ready(collected) = collecting.poll_collect(&mut Context::from_waker(Waker::noop())) else {
            let state = State::Collecting { held: Some((collecting, settings.readers.clone())) };
            return Self { state, inner: Some(Box::new(Readied::take(inner))), unkept: None, call: None };
        };
        let unkept = collected.as_ref().ok().copied().and_then(Collected::unkept);
        let request = match collected {
            // Nearly all go this way, and move no more than they have to.
            Ok(Collected::Kept) if !Readers::are_needed(collecting.prefix.len()) => collecting.read_here(),
            collected => match collected.and_then(|collected| collecting.then(collected, &settings.readers)) {
                Ok(AfterCollecting::Send(request)) => request,
                Ok(AfterCollecting::Read(collecting, reading)) => {
                    let state = State::Reading { collecting: Some(collecting), reading };
                    return Self { state, inner: Some(released(inner)), unkept, call: None };
                }
                Err(error) => {
                    return Self { state: State::Failed { error: Some(error) }, inner: None, unkept, call: None };
                }
            },
        };
        let call = CallRef::known_of(&request).cloned();
        Self { state: State::Calling { future: inner.call(request) }, inner: None, unkept, call }
    }
}

/// Takes a ready service that is not called now, and gives its readiness up.
fn released<S: Clone>(place: &mut S) -> Box<Readied<S>> {
    let mut service = Box::new(Readied::take(place));
    service.release();
    service
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
                StateProj::Collecting { held } => {
                    let Some((collecting, _)) = held else { return Poll::Ready(Err(polled_again(super::NAME))) };
                    let Poll::Ready(collected) = collecting.poll_collect(cx) else {
                        // A slow upload must not hold a permit that another call could use.
                        if let Some(inner) = this.inner {
                            inner.release();
                        }
                        return Poll::Pending;
                    };
                    let (collecting, readers) = held.take().expect("just polled");
                    let collected = collected?;
                    *this.unkept = collected.unkept();
                    match collecting.then(collected, &readers)? {
                        AfterCollecting::Read(collecting, reading) => {
                            // The wait begins: what the readiness holds is another call's meanwhile.
                            if let Some(inner) = this.inner {
                                inner.release();
                            }
                            this.state.set(State::Reading { collecting: Some(collecting), reading });
                        }
                        AfterCollecting::Send(request) => {
                            *this.call = CallRef::known_of(&request).cloned();
                            this.state.set(State::Sending { request: Some(request) });
                        }
                    }
                }
                StateProj::Reading { collecting, reading } => {
                    let whole = ready!(Pin::new(reading).poll(cx));
                    let held = whole.zip(collecting.take());
                    // Without it the reader has panicked, or the runtime is shutting down.
                    let Some((whole, collecting)) = held else { return Poll::Ready(Err(polled_again(super::NAME))) };
                    let request = kept(collecting.request, collecting.lease, whole);
                    *this.call = CallRef::known_of(&request).cloned();
                    this.state.set(State::Sending { request: Some(request) });
                }
                StateProj::Sending { request } => {
                    let polled_again = || polled_again(super::NAME);
                    let inner = this.inner.as_mut().ok_or_else(polled_again)?;
                    ready!(inner.poll_ready(cx)).map_err(Into::into)?;
                    let future = inner.call(request.take().ok_or_else(polled_again)?);
                    this.state.set(State::Calling { future });
                }
                StateProj::Failed { error } => {
                    return Poll::Ready(Err(error.take().unwrap_or_else(|| polled_again(super::NAME))));
                }
                StateProj::Calling { future } => {
                    let mut polled = future.poll(cx);
                    if let Poll::Ready(Ok(response)) = &mut polled {
                        // It is changed in its place, because it is large.
                        noted(response, *this.unkept, this.call.take());
                    }
                    return polled.map_err(|error| noted_in(error.into(), *this.unkept, this.call.take()));
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
    fn new(request: Request<B>, settings: &Settings, last: &mut Option<Arc<str>>) -> Self {
        let caller = CallContext::of(&request).and_then(|context| context.caller().cloned());
        let call = Call::after(last.take(), request.method(), request.uri());
        *last = call.shared_quota_name().filter(|name| name.len() <= MAX_NAME);
        let Settings { max_body, oversize, .. } = *settings;
        Self { request, call, prefix: Prefix::default(), lease: settings.memory.lease(caller), max_body, oversize }
    }

    fn poll_collect(&mut self, cx: &mut Context<'_>) -> Poll<Result<Collected, BoxError>> {
        // A body that announces too much need not be read; one that announces little is counted all the same.
        if self.request.body().size_hint().lower() > self.max_body as u64 {
            return Poll::Ready(Ok(Collected::Unkept(Unkept::TooLarge)));
        }
        loop {
            let more = match ready!(self.prefix.poll_read(cx, Pin::new(self.request.body_mut()))) {
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

    /// Goes on with a body that was collected: reads it here, or lets another thread do it.
    fn then(mut self, collected: Collected, readers: &Readers) -> Result<AfterCollecting<B>, BoxError> {
        if !matches!(collected, Collected::Kept) || !Readers::are_needed(self.prefix.len()) {
            return self.finish(collected).map(AfterCollecting::Send);
        }
        let (pieces, call) = (std::mem::take(&mut self.prefix), self.call.clone());
        let is_recorded = self.is_recorded();
        let reading = readers.read(move || WholeBody::read(pieces, call, is_recorded));
        Ok(AfterCollecting::Read(self, reading))
    }

    fn is_recorded(&self) -> bool {
        CallContext::of(&self.request).and_then(CallContext::tally).is_some()
    }

    /// Reads a body that is kept, on this thread.
    #[inline]
    fn read_here(self) -> Request<ReplayBody<B>> {
        let is_recorded = self.is_recorded();
        let Self { request, call, prefix, lease, .. } = self;
        kept(request, lease, WholeBody::read(prefix, call, is_recorded))
    }

    fn finish(self, collected: Collected) -> Result<Request<ReplayBody<B>>, BoxError> {
        let Collected::Unkept(why) = collected else { return Ok(self.read_here()) };
        let Self { request, call, prefix, lease, max_body, oversize } = self;
        // An upload is a file, not a prompt.
        let is_refused = oversize == Oversize::Refuse && call.operation() != Operation::Upload;
        let cap = is_refused.then_some(max_body);
        if let Some(cap) = cap.filter(|_| why == Unkept::TooLarge) {
            return Err(too_large(cap).into());
        }
        lease.note_unkept(why);
        let streaming = |body| ReplayBody::streaming(PrefixedBody::new(prefix, body), lease, cap);
        let mut request = request.map(streaming);
        CallContext::update(request.extensions_mut(), |context| {
            context.set_call(call);
            context.set_large_body(None);
        });
        Ok(request)
    }
}

/// Makes the request of a body that was kept and read.
#[inline]
fn kept<B>(request: Request<B>, lease: MemoryLease, whole: WholeBody) -> Request<ReplayBody<B>> {
    let WholeBody { bytes, trailers, call, details, large } = whole;
    let mut request = request.map(|_| ReplayBody::kept(bytes, trailers, lease));
    CallContext::update(request.extensions_mut(), |context| {
        if let (Some(details), Some(tally)) = (details, context.tally()) {
            tally.add(|report| report.details = details);
        }
        context.set_call(call);
        context.set_large_body(large);
    });
    request
}

impl Collected {
    fn unkept(self) -> Option<Unkept> {
        match self {
            Self::Kept => None,
            Self::Unkept(why) => Some(why),
        }
    }
}

/// Notes in the outcome that the body was not kept, and why; and names the call where there is an outcome.
fn noted<R>(response: &mut Response<R>, unkept: Option<Unkept>, call: Option<Call>) {
    if let Some(why) = unkept {
        Outcome::update(response, |outcome| outcome.with_unkept(why));
    }
    if let Some(outcome) = response.extensions_mut().get_mut::<Outcome>()
        && let Some(call) = call
    {
        *outcome = std::mem::take(outcome).with_call(call);
    }
}

/// Notes the same in the outcome of an error.
fn noted_in(error: BoxError, unkept: Option<Unkept>, call: Option<Call>) -> BoxError {
    let error = match unkept {
        Some(why) => Error::map(error, super::NAME, |outcome| outcome.with_unkept(why)),
        None => error,
    };
    match call {
        Some(call) if error.is::<Error>() => Error::map(error, super::NAME, |outcome| outcome.with_call(call)),
        _ => error,
    }
}
