//! The future of a call: waits in the queue, sends the call, and reports the answer to the limiter.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower_service::Service;

use super::{
    NAME, RateLimitBody,
    queue::UpstreamRefusal,
    reservation::{Reservation, Settlement},
    waiting::{ReadyCall, Waiting},
};
use crate::{
    block::Claim,
    body::GuardedBody,
    context::{BoxError, Outcome, polled_again},
    failure::{Failure, Fault, Kind},
    quota::Dimension,
};

pin_project! {
    /// The future of [`RateLimit`](super::RateLimit).
    pub struct ResponseFuture<S, B, F> {
        #[pin]
        state: State<S, B, F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B, F> {
        Calling { #[pin] future: F, reservation: Option<Reservation> },
        // Boxed: most calls never wait, and their future is smaller for it.
        Waiting { waiting: Pin<Box<Waiting<S, B>>> },
        Refused { error: Option<BoxError> },
    }
}

impl<S, B, F> ResponseFuture<S, B, F> {
    #[inline]
    pub(super) fn calling(future: F, reservation: Option<Reservation>) -> Self {
        Self { state: State::Calling { future, reservation } }
    }

    pub(super) fn waiting(waiting: Waiting<S, B>) -> Self {
        Self { state: State::Waiting { waiting: Box::pin(waiting) } }
    }

    pub(super) fn refused(error: BoxError) -> Self {
        Self { state: State::Refused { error: Some(error) } }
    }
}

impl<S, B, F> fmt::Debug for ResponseFuture<S, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The request is left out: it has keys in it.
        let state = match &self.state {
            State::Calling { .. } => "calling",
            State::Waiting { .. } => "waiting",
            State::Refused { .. } => "refused",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}

impl<S, B, R> Future for ResponseFuture<S, B, S::Future>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: Body,
{
    type Output = Result<Response<RateLimitBody<R>>, BoxError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let StateProj::Calling { future, reservation } = self.as_mut().project().state.project() {
            return Poll::Ready(match ready!(future.poll(cx)) {
                Ok(response) => {
                    let settlement = reservation.take().and_then(|reservation| answered(&response, reservation));
                    Ok(response.map(|body| match settlement {
                        Some(settlement) => GuardedBody::new(body, settlement),
                        None => GuardedBody::unguarded(body),
                    }))
                }
                Err(error) => Err(failed(error.into(), reservation.take())),
            });
        }
        ready!(self.as_mut().poll_waiting(cx))?;
        self.poll(cx)
    }
}

impl<S, B, R> ResponseFuture<S, B, S::Future>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    /// Waits for admission, then calls the inner service.
    #[inline(never)]
    fn poll_waiting(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let mut state = self.project().state;
        let ReadyCall { mut inner, request, reservation, place } = match state.as_mut().project() {
            StateProj::Calling { .. } => return Poll::Ready(Ok(())),
            StateProj::Waiting { waiting } => ready!(waiting.as_mut().poll(cx))?,
            StateProj::Refused { error } => {
                return Poll::Ready(Err(error.take().unwrap_or_else(|| polled_again(NAME))));
            }
        };
        let future = inner.call(request);
        drop(place);
        state.set(State::Calling { future, reservation: Some(reservation) });
        Poll::Ready(Ok(()))
    }
}

/// Returns the guard that settles the reservation when the body ends, or settles it at once where the response is a failure.
#[inline]
fn answered<R>(response: &Response<R>, mut reservation: Reservation) -> Option<Settlement> {
    if response.extensions().is_empty() && response.status().is_success() {
        // The charge stays as reserved: no layer inside has counted the real cost.
        reservation.succeeded();
        return None;
    }
    settled(response, reservation)
}

/// Does so by what the layers inside say of the answer.
fn settled<R>(response: &Response<R>, mut reservation: Reservation) -> Option<Settlement> {
    let outcome = response.extensions().get::<Outcome>();
    let failure = match outcome {
        Some(outcome) => outcome.failure().cloned(),
        None => Outcome::of_response(response).failure().cloned(),
    };
    if failure.is_none() {
        reservation.succeeded();
    }
    match (failure, outcome.and_then(Outcome::usage)) {
        // The upstream charges nothing for a model that does not exist, or that it keeps from the project: which projects
        // have a model is not the limiter's to remember.
        (Some(failure), _) if matches!(failure.kind(), Kind::ModelNotFound | Kind::ModelClosed) => {
            reservation.refund();
            None
        }
        (Some(failure), _) if failure.fault() == Fault::Quota => {
            let now = Instant::now();
            reservation.refused(now, upstream_refusal(&failure));
            None
        }
        (Some(failure), _) if failure.fault() == Fault::Caller => {
            reservation.leave_one();
            None
        }
        (_, Some(usage)) => Some(reservation.settle_by(usage.clone())),
        (_, None) => None,
    }
}

/// Refunds the reservation of a call that failed before it was sent.
fn failed(error: BoxError, reservation: Option<Reservation>) -> BoxError {
    if let Some(reservation) = reservation
        && !Outcome::of_error(&error).was_sent()
    {
        reservation.refund();
    }
    error
}

/// Reads what the limiter has to know of a refusal by the upstream.
fn upstream_refusal(failure: &Failure) -> UpstreamRefusal {
    let quota = failure.quota();
    let counts_requests = quota.and_then(|quota| quota.id()).is_none_or(|id| id.contains("Requests"));
    let dimension = match quota.and_then(|quota| quota.dimension()) {
        Some(Dimension::RequestsPerDay) if !counts_requests => None,
        dimension => dimension,
    };
    UpstreamRefusal {
        claim: Claim::of(failure),
        grounded: failure.kind() == Kind::QuotaGrounding,
        dimension,
        named: quota.and_then(|quota| quota.limit()),
    }
}
