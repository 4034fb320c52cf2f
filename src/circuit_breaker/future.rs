//! The future of a call: reports the call's outcome to the breaker.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use pin_project_lite::pin_project;

use super::{NAME, permit::Permit, refusal};
use crate::{
    context::{BoxError, Outcome, polled_again},
    failure::Failure,
};

pin_project! {
    /// The future of [`CircuitBreaker`](super::CircuitBreaker).
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
        permit: Option<Permit>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Refused { failure: Option<Failure> },
        Calling { #[pin] future: F },
    }
}

impl<F> ResponseFuture<F> {
    #[inline]
    pub(super) fn calling(future: F, permit: Option<Permit>) -> Self {
        Self { state: State::Calling { future }, permit }
    }

    pub(super) fn refused(failure: Failure) -> Self {
        Self { state: State::Refused { failure: Some(failure) }, permit: None }
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("permit", &self.permit).finish_non_exhaustive()
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<R>, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let StateProj::Calling { future } = this.state.as_mut().project() else {
            return Poll::Ready(Err(refused(this.state)));
        };
        let result = ready!(future.poll(cx)).map_err(Into::into);
        if let Some(permit) = this.permit.take() {
            match &result {
                Ok(response) => answered(permit, response),
                Err(error) => report(permit, Outcome::of_error(error).failure()),
            }
        }
        Poll::Ready(result)
    }
}

/// Returns the refusal of a call that was not let in.
#[cold]
fn refused<F>(state: Pin<&mut State<F>>) -> BoxError {
    match state.project() {
        StateProj::Refused { failure } => failure.take().map_or_else(|| polled_again(NAME), refusal::error),
        StateProj::Calling { .. } => polled_again(NAME),
    }
}

/// Reports an answer to the breaker of its call.
#[inline]
fn answered<R>(permit: Permit, response: &Response<R>) {
    match response.extensions().get::<Outcome>() {
        Some(outcome) => report(permit, outcome.failure()),
        None if !(response.status().is_client_error() || response.status().is_server_error()) => permit.succeed(),
        None => report(permit, Outcome::of_response(response).failure()),
    }
}

/// Reports the outcome of a call to its breaker: a success, a failure that counts, or neither.
fn report(permit: Permit, failure: Option<&Failure>) {
    match failure {
        None => permit.succeed(),
        Some(failure) if permit.counts(failure) => permit.fail(failure),
        Some(_) => drop(permit),
    }
}
