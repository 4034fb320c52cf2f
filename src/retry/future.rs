//! The future of a call: its attempts, and the waits between them.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    attempts::{Attempts, Consequence, LastFailure, begin_only, of_only},
    backoff::Backoff,
    policy::RetryPolicy,
    token_wait::TokenWait,
};
use crate::{
    body::Resend,
    context::{BoxError, Outcome, polled_again},
    ready::Readied,
};

pin_project! {
    /// The future of [`Retry`](super::Retry).
    pub struct ResponseFuture<S, B, R, F> {
        #[pin]
        state: State<B, R, F>,
        resending: Resending<S, B>,
    }
}

/// The part of a call that further attempts need.
#[expect(clippy::large_enum_variant, reason = "most calls may be sent again, and a box would cost each an allocation")]
enum Resending<S, B> {
    /// The request is sent once only, in the attempt of this number.
    Never(u32),
    Ever {
        inner: Readied<S>,
        attempts: Attempts<B>,
    },
}

pin_project! {
    #[project = StateProj]
    enum State<B, R, F> {
        Calling { #[pin] future: F },
        // In a box: most calls have one attempt, and their futures are smaller for it.
        Pausing { pause: Pin<Box<Pause<B, R>>> },
    }
}

pin_project! {
    /// The time between two attempts.
    #[project = PauseProj]
    enum Pause<B, R> {
        Waiting { #[pin] backoff: Backoff<R>, request: Option<Request<B>>, owes: Option<Box<LastFailure>> },
        Paying { #[pin] token: TokenWait, request: Option<Request<B>>, owes: Option<Box<LastFailure>> },
        Readying { request: Option<Request<B>> },
    }
}

impl<S, B, R> ResponseFuture<S, B, R, S::Future>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    B: Resend,
{
    /// Begins a call of the ready service, which stays where it is if nothing is ever sent again.
    pub(super) fn new(place: &mut S, policy: &Arc<RetryPolicy>, mut request: Request<B>) -> Self {
        if !policy.ever_resends() {
            let number = begin_only(&mut request);
            return Self { state: State::Calling { future: place.call(request) }, resending: Resending::Never(number) };
        }
        let attempts = Attempts::begin(policy, &mut request);
        let mut inner = Readied::take(place);
        Self { state: State::Calling { future: inner.call(request) }, resending: Resending::Ever { inner, attempts } }
    }
}

impl<S, B, R, F> fmt::Debug for ResponseFuture<S, B, R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The request and its body are left out, because they have keys in them.
        let attempts = match &self.resending {
            Resending::Never(number) => *number,
            Resending::Ever { attempts, .. } => attempts.number(),
        };
        f.debug_struct("ResponseFuture").field("attempts", &attempts).finish_non_exhaustive()
    }
}

impl<S, B, R> Future for ResponseFuture<S, B, R, S::Future>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Resend,
    R: Body,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let pause = match this.state.as_mut().project() {
                StateProj::Calling { future } => {
                    let mut result = ready!(future.poll(cx)).map_err(Into::into);
                    let (inner, attempts) = match this.resending {
                        Resending::Never(number) => return Poll::Ready(of_only(result, *number)),
                        Resending::Ever { inner, attempts } => (inner, attempts),
                    };
                    if let Ok(response) = &mut result
                        && !Outcome::is_failure(response)
                    {
                        attempts.succeeded(response);
                        return Poll::Ready(result);
                    }
                    match attempts.follow(result) {
                        Consequence::Done(result) => return Poll::Ready(result),
                        Consequence::Again { wait, request, failed, owes } => {
                            // A layer inside that refused has not used the readiness of what it wraps: release it.
                            inner.renew();
                            let backoff = Backoff::new(wait, failed);
                            let pause = Box::pin(Pause::Waiting { backoff, request: Some(request), owes });
                            this.state.set(State::Pausing { pause });
                            continue;
                        }
                    }
                }
                StateProj::Pausing { pause } => pause,
            };
            let Resending::Ever { inner, attempts } = this.resending else {
                return Poll::Ready(Err(polled_again(super::NAME)));
            };
            let next = match pause.as_mut().project() {
                PauseProj::Waiting { backoff, request, owes } => {
                    ready!(backoff.poll(cx));
                    let request = request.take();
                    match owes.take().zip(attempts.wait_for_token()) {
                        Some((owes, token)) => Pause::Paying { token, request, owes: Some(owes) },
                        None => Pause::Readying { request },
                    }
                }
                PauseProj::Paying { token, request, owes } => {
                    if owes.is_none() {
                        return Poll::Ready(Err(polled_again(super::NAME)));
                    }
                    let waited = token.waited();
                    if !ready!(token.poll(cx))
                        && let Some(last) = owes.take()
                    {
                        return Poll::Ready(attempts.without_token(*last));
                    }
                    attempts.note_token_wait(waited);
                    Pause::Readying { request: request.take() }
                }
                PauseProj::Readying { request } => {
                    if let Err(error) = ready!(inner.poll_ready(cx)) {
                        return Poll::Ready(attempts.unready(error.into()));
                    }
                    let Some(mut request) = request.take() else {
                        return Poll::Ready(Err(polled_again(super::NAME)));
                    };
                    attempts.begin_again(&mut request);
                    let future = inner.call(request);
                    this.state.set(State::Calling { future });
                    continue;
                }
            };
            pause.set(next);
        }
    }
}
