//! The service: starts the clocks of a call, and sets `X-Server-Timeout`.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    ResponseFuture, TimeoutBody,
    clocks::{CallClocks, Clocks, ClocksByTier},
};
use crate::{
    call::{Shape, Streaming, Surface},
    context::{BoxError, CallContext, CallRef, Deadline},
    failure::{Failure, Kind},
};

/// The header in which the API takes a caller's own deadline: whole seconds. Less than 10 is a 400.
const SERVER_TIMEOUT: HeaderName = HeaderName::from_static("x-server-timeout");

/// The least value that the API takes: "Minimum allowed deadline is 10s."
const MIN_SERVER_TIMEOUT: u64 = 10;

/// The service of [`TimeoutLayer`](super::TimeoutLayer).
#[derive(Clone, Debug)]
pub struct Timeout<S> {
    pub(super) inner: S,
    pub(super) clocks: Clocks,
}

crate::macros::accessors!(Timeout);

impl<S, B, R> Service<Request<B>> for Timeout<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body,
    R::Error: Into<BoxError>,
{
    type Response = Response<TimeoutBody<R>>;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if self.clocks.are_all_stopped() {
            return ResponseFuture::new(self.inner.call(request), ClocksByTier::of(CallClocks::NONE));
        }
        let call = CallRef::of(&request);
        let (shape, is_known) = (call.shape(), call.is_known());
        let callers = match callers_timeout(request.headers()) {
            Ok(callers) => callers,
            Err(failure) => return ResponseFuture::refused(failure),
        };
        let (streams, may_wait) = (shape.streaming != Streaming::No, shape.tier.may_wait());
        let mut clocks = ClocksByTier::of(self.clocks.for_call(streams, may_wait, callers));
        if let Some(total) = self.clocks.total(may_wait, callers) {
            // The tier stands in the body, which nobody has read yet.
            let later =
                self.clocks.total(true, callers).filter(|later| !is_known && shape.pays_quota() && *later != total);
            let deadline = Deadline::after(total);
            CallContext::update(request.extensions_mut(), |context| match later {
                None => context.tighten_deadline(deadline),
                Some(later) => {
                    let flag = context.tighten_deadline_by_tier(deadline, Deadline::after(later));
                    clocks.if_it_may_wait(flag, self.clocks.for_call(streams, true, callers));
                }
            });
        }
        tell_upstream(&mut request, shape, callers, self.clocks.attempt(false, may_wait));
        ResponseFuture::new(self.inner.call(request), clocks)
    }
}

/// Reads the caller's own `X-Server-Timeout`.
fn callers_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let Some(value) = headers.get(SERVER_TIMEOUT) else { return Ok(None) };
    // Digits only: Rust's parser would take a sign as well.
    let digits = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = value.to_str().ok().map(str::trim).filter(digits).and_then(|text| text.parse().ok());
    match seconds.filter(|seconds| *seconds > 0) {
        Some(seconds) => Ok(Some(Duration::from_secs(seconds))),
        None => Err(Failure::local(
            Kind::BadRequest,
            format!("X-Server-Timeout is {value:?}; it takes whole seconds, 10 or more, such as 30"),
        )),
    }
}

/// Sets `X-Server-Timeout` to the caller's own, else to the attempt's clock on unary calls; to at least 10 s.
fn tell_upstream<B>(request: &mut Request<B>, shape: Shape, callers: Option<Duration>, attempt: Option<Duration>) {
    let ours = || {
        let unary = shape.streaming == Streaming::No && request.method() == Method::POST;
        let known = matches!(shape.surface, Surface::Developer | Surface::Vertex);
        attempt.filter(|_| unary && known)
    };
    if let Some(limit) = callers.or_else(ours) {
        let seconds = limit.as_secs().saturating_add(u64::from(limit.subsec_nanos() > 0));
        request.headers_mut().insert(SERVER_TIMEOUT, HeaderValue::from(seconds.max(MIN_SERVER_TIMEOUT)));
    }
}
