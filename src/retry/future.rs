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
    attempts::{Attempts, Consequence, LastFailure},
    backoff::Backoff,
    policy::RetryPolicy,
    token_wait::TokenWait,
};
use crate::{
    body::Resend,
    context::{BoxError, polled_again},
    ready::Readied,
};

pin_project! {
    /// The future of [`Retry`](super::Retry).
    pub struct ResponseFuture<S, B, R, F> {
        #[pin]
        state: State<B, R, F>,
        // `None`: the request is never sent again.
        inner: Option<Readied<S>>,
        attempts: Attempts<B>,
    }
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
    pub(super) fn new(place: &mut S, policy: Arc<RetryPolicy>, mut request: Request<B>) -> Self {
        let mut inner = policy.ever_resends().then(|| Readied::take(place));
        let attempts = Attempts::begin(policy, &mut request);
        let future = match &mut inner {
            Some(inner) => inner.call(request),
            None => place.call(request),
        };
        Self { state: State::Calling { future }, inner, attempts }
    }
}

impl<S, B, R, F> fmt::Debug for ResponseFuture<S, B, R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The request and its body are left out, because they have keys in them.
        f.debug_struct("ResponseFuture").field("history", self.attempts.history()).finish_non_exhaustive()
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
                    let result = ready!(future.poll(cx)).map_err(Into::into);
                    match this.attempts.follow(result) {
                        Consequence::Done(result) => return Poll::Ready(result),
                        Consequence::Again { wait, request, failed, owes } => {
                            // A layer inside that refused has not used the readiness of what it wraps: release it.
                            if let Some(inner) = this.inner {
                                inner.renew();
                            }
                            let backoff = Backoff::new(wait, failed);
                            let pause = Box::pin(Pause::Waiting { backoff, request: Some(request), owes });
                            this.state.set(State::Pausing { pause });
                            continue;
                        }
                    }
                }
                StateProj::Pausing { pause } => pause,
            };
            let next = match pause.as_mut().project() {
                PauseProj::Waiting { backoff, request, owes } => {
                    ready!(backoff.poll(cx));
                    let request = request.take();
                    match owes.take().zip(this.attempts.wait_for_token()) {
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
                        return Poll::Ready(this.attempts.without_token(*last));
                    }
                    this.attempts.note_token_wait(waited);
                    Pause::Readying { request: request.take() }
                }
                PauseProj::Readying { request } => {
                    let Some(inner) = this.inner else { return Poll::Ready(Err(polled_again(super::NAME))) };
                    if let Err(error) = ready!(inner.poll_ready(cx)) {
                        return Poll::Ready(this.attempts.unready(error.into()));
                    }
                    let Some(mut request) = request.take() else {
                        return Poll::Ready(Err(polled_again(super::NAME)));
                    };
                    this.attempts.begin_again(&mut request);
                    let future = inner.call(request);
                    this.state.set(State::Calling { future });
                    continue;
                }
            };
            pause.set(next);
        }
    }
}
