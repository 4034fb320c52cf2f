//! The future of a call: sends it, and settles or gives back what it was charged.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::{
    CallerLimitBody, NAME,
    reservation::{CallerReservation, has_counts},
};
use crate::{
    context::{BoxError, Outcome, polled_again},
    failure::Fault,
};

pin_project! {
    /// The future of [`CallerLimit`](super::CallerLimit).
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Calling { #[pin] future: F, reservation: Option<CallerReservation> },
        Refused { error: Option<BoxError> },
    }
}

impl<F> ResponseFuture<F> {
    #[inline]
    pub(super) fn calling(future: F, reservation: Option<CallerReservation>) -> Self {
        Self { state: State::Calling { future, reservation } }
    }

    pub(super) fn refused(error: BoxError) -> Self {
        Self { state: State::Refused { error: Some(error) } }
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Calling { .. } => "calling",
            State::Refused { .. } => "refused",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
    R: Body,
{
    type Output = Result<Response<CallerLimitBody<R>>, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Calling { future, reservation } => {
                let result = ready!(future.poll(cx));
                Poll::Ready(match (result, reservation.take().map(CallerReservation::answered)) {
                    (Ok(response), None) => Ok(response.map(|body| CallerLimitBody::new(body, None))),
                    (Ok(response), Some(reservation)) => Ok(answered(response, reservation)),
                    (Err(error), None) => Err(error.into()),
                    (Err(error), Some(reservation)) => Err(failed(error.into(), reservation)),
                })
            }
            StateProj::Refused { error } => Poll::Ready(Err(error.take().unwrap_or_else(|| polled_again(NAME)))),
        }
    }
}

/// Returns the response with the guard that settles the charge. That of an answer which has failed is given back at once,
/// unless the upstream has counted its tokens all the same: a verdict on the content is billed.
#[inline]
fn answered<R: Body>(response: Response<R>, reservation: CallerReservation) -> Response<CallerLimitBody<R>> {
    let is_success = response.status().is_success();
    if response.extensions().is_empty() && is_success {
        // The charge stays as it is: no layer inside has counted the real cost.
        return response.map(|body| CallerLimitBody::new(body, None));
    }
    let outcome = response.extensions().get::<Outcome>();
    let usage = outcome.and_then(Outcome::usage).filter(|_| is_success).cloned();
    let fault = match outcome {
        Some(outcome) => outcome.failure().map(|failure| failure.fault()),
        None => Outcome::of_response(&response).failure().map(|failure| failure.fault()),
    };
    let settlement = match (fault, usage) {
        (Some(fault), usage) if usage.as_ref().is_none_or(|usage| !usage.read(has_counts)) => {
            reservation.give_back(fault);
            None
        }
        (_, usage) => usage.map(|usage| reservation.settle_by(usage)),
    };
    response.map(|body| CallerLimitBody::new(body, settlement))
}

/// Gives back the charge of a call that has failed.
fn failed(error: BoxError, reservation: CallerReservation) -> BoxError {
    let outcome = Outcome::of_error(&error);
    reservation.give_back(outcome.failure().map_or(Fault::Local, |failure| failure.fault()));
    error
}
