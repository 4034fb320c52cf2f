//! The future of a call: answers by itself when the inner service is silent for too long.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE},
    response::Parts,
};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};

use super::{KeepAliveBody, dialect::Dialect};
use crate::{
    answer::media::{coding, is_event_stream},
    context::{BoxError, CallFlag, Deadline},
};

/// The header by which nginx and others are told to pass bytes on as they come.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

pin_project! {
    /// The future of [`KeepAlive`](super::KeepAlive).
    pub struct ResponseFuture<F> {
        #[pin]
        call: Calling<F>,
        // Made when the inner future is first pending.
        #[pin]
        sleep: Option<Sleep>,
    }
}

pin_project! {
    #[project = CallingProj]
    enum Calling<F> {
        // With a plan, the answer may turn out to be a stream.
        Plain { #[pin] future: F, plan: Option<Plan> },
        // In a box, because it goes on in the body after an early head, and what was polled must not move.
        Movable { future: Option<Pin<Box<F>>>, plan: Plan, streams: Streams },
    }
}

/// The plan for an answer that may be a stream.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) every: Duration,
    pub(super) dialect: Dialect,
}

/// Tells whether a call streams that may.
#[derive(Clone, Debug)]
pub(super) enum Streams {
    Yes,
    /// It does once this flag is set.
    Once(CallFlag),
}

impl Streams {
    fn is_known(&self) -> bool {
        match self {
            Self::Yes => true,
            Self::Once(flag) => flag.is_set(),
        }
    }
}

impl<F> ResponseFuture<F> {
    /// Makes the future of a call whose head is awaited. Without a plan its answer is left alone, too.
    pub(super) fn plain(future: F, plan: Option<Plan>) -> Self {
        Self { call: Calling::Plain { future, plan }, sleep: None }
    }

    /// Makes the future of a call that may stream.
    pub(super) fn movable(future: F, plan: Plan, streams: Streams) -> Self {
        Self { call: Calling::Movable { future: Some(Box::pin(future)), plan, streams }, sleep: None }
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = match &self.call {
            Calling::Plain { plan, .. } => plan.as_ref(),
            Calling::Movable { plan, .. } => Some(plan),
        };
        f.debug_struct("ResponseFuture").field("plan", &plan).finish_non_exhaustive()
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<KeepAliveBody<F, R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (slot, plan, streams) = match this.call.project() {
            CallingProj::Plain { future, plan } => {
                return future.poll(cx).map_ok(|response| match plan {
                    Some(plan) => passed_on(response, plan),
                    None => response.map(KeepAliveBody::untouched),
                });
            }
            CallingProj::Movable { future, plan, streams } => (future, plan, streams),
        };
        let Some(future) = slot else { return Poll::Pending };
        if let Poll::Ready(result) = future.as_mut().poll(cx) {
            *slot = None;
            return Poll::Ready(result.map(|response| passed_on(response, plan)));
        }
        loop {
            let Some(timer) = this.sleep.as_mut().as_pin_mut() else {
                this.sleep.set(Some(sleep_until(Deadline::after(plan.every).instant())));
                continue;
            };
            if timer.poll(cx).is_pending() {
                return Poll::Pending;
            }
            if streams.is_known() {
                break;
            }
            this.sleep.set(None);
        }
        match slot.take() {
            Some(call) => Poll::Ready(Ok(early_head().map(|()| KeepAliveBody::waiting(call, plan)))),
            None => Poll::Pending,
        }
    }
}

/// Makes the head of an answer that is not there yet.
fn early_head() -> Response<()> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// Passes the answer on: a stream of events is kept alive, and any other answer left alone.
fn passed_on<F, R: Body>(response: Response<R>, plan: &Plan) -> Response<KeepAliveBody<F, R>> {
    let (mut parts, body) = response.into_parts();
    if !is_stream(&parts) || body.size_hint().exact() == Some(0) {
        return Response::from_parts(parts, KeepAliveBody::untouched(body));
    }
    // A stream with pieces in it is longer.
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, KeepAliveBody::answer(body, plan))
}

/// Returns whether an answer is a stream of events that can be read.
pub(super) fn is_stream(parts: &Parts) -> bool {
    parts.status.is_success()
        && parts.status != StatusCode::NO_CONTENT
        && coding(&parts.headers).is_none()
        && is_event_stream(&parts.headers)
}
