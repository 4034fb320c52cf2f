//! The future of a call: waits for the store's answer, sends the call, and settles or gives back what it was charged.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    CallerLimitBody, NAME,
    inquiry::CallerInquiry,
    reservation::{CallerReservation, CallerSettlement, has_counts},
    service::AdmittedCall,
};
use crate::{
    context::{BoxError, Outcome, polled_again},
    failure::Fault,
    ready::Readied,
};

pin_project! {
    /// The future of [`CallerLimit`](super::CallerLimit).
    pub struct ResponseFuture<S, B, F> {
        #[pin]
        state: State<S, B, F>,
        // Beside the state, and not in it: a call moves its future once less.
        reservation: Option<CallerReservation>,
    }
}

pin_project! {
    #[project = StateProj]
    #[project_replace = StateReplaced]
    enum State<S, B, F> {
        Calling { #[pin] future: F },
        // Boxed: most calls never ask, and their future is smaller for it.
        Asking { asking: Box<CallerAsking<S, B>> },
        Refused { error: Option<BoxError> },
    }
}

/// A call whose question the store has not answered yet.
pub(super) struct CallerAsking<S, B> {
    /// The service, which stays ready unless the store is learning: an answer comes within tens of milliseconds.
    pub(super) inner: Readied<S>,
    pub(super) request: Request<B>,
    pub(super) inquiry: Box<CallerInquiry>,
    pub(super) gives_back_unsent: bool,
}

impl<S, B, F> ResponseFuture<S, B, F> {
    #[inline]
    pub(super) fn calling(future: F, reservation: Option<CallerReservation>) -> Self {
        Self { state: State::Calling { future }, reservation }
    }

    pub(super) fn asking(asking: CallerAsking<S, B>) -> Self {
        Self { state: State::Asking { asking: Box::new(asking) }, reservation: None }
    }

    pub(super) fn refused(error: BoxError) -> Self {
        Self { state: State::Refused { error: Some(error) }, reservation: None }
    }
}

impl<S, B, F> fmt::Debug for ResponseFuture<S, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Calling { .. } => "calling",
            State::Asking { .. } => "asking",
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
    type Output = Result<Response<CallerLimitBody<R>>, BoxError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.as_mut().project();
        if let StateProj::Calling { future } = this.state.project() {
            return match future.poll(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(response)) => {
                    let settlement =
                        this.reservation.take().and_then(|reservation| settlement_of(&response, reservation));
                    let (head, body) = response.into_parts();
                    Poll::Ready(Ok(Response::from_parts(head, CallerLimitBody::new(body, settlement))))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(failed(error.into(), this.reservation.take()))),
            };
        }
        ready!(self.as_mut().poll_asking(cx))?;
        self.poll(cx)
    }
}

impl<S, B, R> ResponseFuture<S, B, S::Future>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    /// Waits for the store's answer, then calls the inner service.
    #[inline(never)]
    fn poll_asking(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let this = self.project();
        let mut state = this.state;
        let result = match state.as_mut().project() {
            StateProj::Calling { .. } => return Poll::Ready(Ok(())),
            StateProj::Asking { asking } => ready!(asking.poll_admitted(cx)),
            StateProj::Refused { error } => {
                return Poll::Ready(Err(error.take().unwrap_or_else(|| polled_again(NAME))));
            }
        };
        // Nothing of a call outlives its result, if it is refused.
        let StateReplaced::Asking { asking } = state.as_mut().project_replace(State::Refused { error: None }) else {
            return Poll::Ready(Err(polled_again(NAME)));
        };
        result?;
        let CallerAsking { mut inner, mut request, inquiry, gives_back_unsent } = *asking;
        let (reservation, priority) = inquiry.admitted();
        let mut admitted = AdmittedCall { reservation: Some(reservation), priority };
        admitted.prepare(&mut request, gives_back_unsent);
        let future = inner.call(request);
        state.set(State::Calling { future });
        *this.reservation = admitted.reservation;
        Poll::Ready(Ok(()))
    }
}

impl<S, B> CallerAsking<S, B>
where
    S: Service<Request<B>> + Clone,
    S::Error: Into<BoxError>,
{
    /// Waits until the store admits the call, and the service is ready for it.
    fn poll_admitted(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let answered = self.inquiry.poll(cx);
        if self.inquiry.is_paused() {
            // The wait begins: what the readiness reserved is free for other calls.
            self.inner.release();
        }
        ready!(answered)?;
        self.inner.poll_ready(cx).map_err(Into::into)
    }
}

/// Returns the guard that settles the charge when the body ends. That of an answer which has failed is given back at once, unless the upstream
/// has counted its tokens all the same: a verdict on the content is billed.
fn settlement_of<R>(response: &Response<R>, mut reservation: CallerReservation) -> Option<Box<CallerSettlement>> {
    reservation.keep();
    if response.extensions().is_empty() && response.status().is_success() {
        // The charge stays as it is: no layer inside has counted the real cost.
        return None;
    }
    let is_success = response.status().is_success();
    let outcome = response.extensions().get::<Outcome>();
    let usage = outcome.and_then(Outcome::usage).filter(|_| is_success).cloned();
    let fault = match outcome {
        Some(outcome) => outcome.failure().map(|failure| failure.fault()),
        None => Outcome::of_response(response).failure().map(|failure| failure.fault()),
    };
    match (fault, usage) {
        (Some(fault), usage) if usage.as_ref().is_none_or(|usage| !usage.read(has_counts)) => {
            reservation.give_back(fault);
            None
        }
        (_, usage) => usage.map(|usage| Box::new(reservation.settle_by(usage))),
    }
}

/// Gives back the charge of a call that has failed.
fn failed(error: BoxError, reservation: Option<CallerReservation>) -> BoxError {
    if let Some(reservation) = reservation {
        let outcome = Outcome::of_error(&error);
        reservation.kept().give_back(outcome.failure().map_or(Fault::Local, |failure| failure.fault()));
    }
    error
}
