//! The service: starts the clocks of a call, and sets `X-Server-Timeout`.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower_service::Service;

use super::{
    ResponseFuture, TimeoutBody,
    adaptive::{Adapting, TimedAttempt},
    clocks::{CallClocks, Clocks, ClocksByTier},
};
use crate::{
    call::{Idempotency, Streaming, Surface},
    clock,
    context::{BoxError, CallContext, CallRef, Deadline, Error},
    failure::{Failure, Kind},
    service_times::ServiceTimes,
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
    pub(super) timekeeping: Option<Timekeeping>,
    /// The name of the last call's model, for callers who call the same one again and whose context does not name it.
    pub(super) last: Option<Arc<str>>,
}

/// The times of answered attempts, and their use.
#[derive(Clone, Debug)]
pub(super) struct Timekeeping {
    pub(super) times: ServiceTimes,
    /// Set if the clocks of an attempt are made by them.
    pub(super) adapts: bool,
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
            return ResponseFuture::new(self.inner.call(request), ClocksByTier::of(CallClocks::NONE), None);
        }
        let context = CallContext::of(&request);
        let call = CallRef::with(context, &request);
        let (shape, is_known) = (call.shape(), call.is_known());
        let timed =
            self.timekeeping.as_ref().and_then(|times| times.begin(&call, context, self.clocks, &mut self.last));
        let (streams, may_wait) = (shape.streaming != Streaming::No, shape.tier.may_wait());
        // The time that the upstream is told, where the caller tells it none: of unary calls only.
        let tells = !streams
            && matches!(shape.surface, Surface::Developer | Surface::Vertex)
            && *request.method() == Method::POST;
        let ours = self.clocks.attempt(false, may_wait).filter(|_| tells);
        let callers = match agree(request.headers_mut(), ours) {
            Ok(callers) => callers,
            Err(failure) => return ResponseFuture::refused(Error::refusal(super::NAME, failure).into()),
        };
        let mut clocks = ClocksByTier::of(self.clocks.for_call(streams, may_wait, callers));
        if let Some(total) = self.clocks.total(may_wait, callers) {
            // The tier stands in the body, which nobody has read yet.
            let later =
                self.clocks.total(true, callers).filter(|later| !is_known && shape.pays_quota() && *later != total);
            let now = Instant::now();
            let deadline = Deadline::counted_from(now, total);
            CallContext::update(request.extensions_mut(), |context| match later {
                None => context.tighten_deadline(deadline),
                Some(later) => {
                    let flag = context.tighten_deadline_by_tier(deadline, Deadline::counted_from(now, later));
                    clocks.if_it_may_wait(flag, self.clocks.for_call(streams, true, callers));
                }
            });
        }
        ResponseFuture::new(self.inner.call(request), clocks, timed)
    }
}

impl Timekeeping {
    /// Begins to time an attempt. `None`: its time says nothing of the model, or no clock runs for it.
    fn begin(
        &self,
        call: &CallRef<'_>,
        context: Option<&CallContext>,
        clocks: Clocks,
        last: &mut Option<Arc<str>>,
    ) -> Option<TimedAttempt> {
        let shape = call.shape();
        let streams = shape.streaming != Streaming::No;
        // Counting tokens takes no time, and work that goes on in the background is not waited for.
        if !shape.pays_quota() || shape.background || clocks.attempt(streams, shape.tier.may_wait()).is_none() {
            return None;
        }
        let name = call.shared_quota_name(last.take())?;
        if !call.is_known() {
            *last = Some(name.clone());
        }
        // A clock that is shorter than it is set must not cost a call its only attempt.
        let repeats = |context: &&CallContext| context.repeats_timeouts() && shape.idempotency != Idempotency::Unsafe;
        let adapting = context
            .filter(|_| self.adapts)
            .filter(repeats)
            .map(|context| Adapting { timed_out: context.timed_out(), deadline: context.deadline() });
        Some(TimedAttempt::new(self.times.clone(), name, shape.tier, streams, adapting))
    }
}

/// Sets `X-Server-Timeout` to the caller's own, else to `ours`, and returns the caller's.
fn agree(headers: &mut HeaderMap, ours: Option<Duration>) -> Result<Option<Duration>, Failure> {
    // One look at the headers does for nearly all calls: few callers say their own.
    let said = match ours {
        Some(ours) => headers.insert(SERVER_TIMEOUT, value_of(ours)),
        None => headers.get(SERVER_TIMEOUT).cloned(),
    };
    let Some(said) = said else { return Ok(None) };
    let callers = time_of(&said)?;
    headers.insert(SERVER_TIMEOUT, value_of(callers));
    Ok(Some(callers))
}

/// Reads a caller's time.
fn time_of(value: &HeaderValue) -> Result<Duration, Failure> {
    // Digits only: Rust's parser would take a sign as well.
    let digits = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = value.to_str().ok().map(str::trim).filter(digits).and_then(|text| text.parse().ok());
    match seconds.filter(|seconds| *seconds > 0) {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => Err(Failure::local(
            Kind::BadRequest,
            format!("X-Server-Timeout is {value:?}; it takes whole seconds, 10 or more, such as 30"),
        )),
    }
}

/// Writes a time as the API takes it: whole seconds, at least 10.
fn value_of(limit: Duration) -> HeaderValue {
    let seconds = limit.as_secs().saturating_add(u64::from(limit.subsec_nanos() > 0));
    clock::in_seconds(seconds.max(MIN_SERVER_TIMEOUT))
}
