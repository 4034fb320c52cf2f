use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    await_list::{Listed, Unlisted},
    check::{Checked, check},
    counting::{Decided, Undecided},
    learn::Watch,
    refusal::{polled_again, refusal},
};
use crate::{body::Resend, context::BoxError, failure::Failure};

pin_project! {
    /// The future of [`TokenPrecheck`](super::TokenPrecheck).
    pub struct ResponseFuture<S, B, R, F> {
        #[pin]
        state: State<S, B, R, F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B, R, F> {
        Calling { #[pin] future: F, watch: Option<Watch> },
        // In boxes: most calls are decided at once, and are smaller for it.
        Unlisted { unlisted: Pin<Box<Unlisted<S, B>>> },
        Undecided { undecided: Pin<Box<Undecided<S, B, R, F>>> },
        Refused { failure: Option<Failure> },
    }
}

impl<S, B, R, F> ResponseFuture<S, B, R, F> {
    pub(super) fn calling(future: F, watch: Option<Watch>) -> Self {
        Self { state: State::Calling { future, watch } }
    }

    pub(super) fn unlisted(unlisted: Unlisted<S, B>) -> Self {
        Self { state: State::Unlisted { unlisted: Box::pin(unlisted) } }
    }

    pub(super) fn undecided(undecided: Undecided<S, B, R, F>) -> Self {
        Self { state: State::Undecided { undecided: Box::pin(undecided) } }
    }

    pub(super) fn refused(failure: Failure) -> Self {
        Self { state: State::Refused { failure: Some(failure) } }
    }
}

impl<S, B, R, F> fmt::Debug for ResponseFuture<S, B, R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the request, which has keys in it.
        let state = match &self.state {
            State::Calling { .. } => "calling",
            State::Unlisted { .. } => "unlisted",
            State::Undecided { .. } => "undecided",
            State::Refused { .. } => "refused",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}

impl<S, B, R> Future for ResponseFuture<S, B, R, S::Future>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Resend<Data = Bytes> + From<Bytes>,
    R: Body,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProj::Unlisted { unlisted } => {
                    let Listed { mut inner, mut request, settings } = ready!(unlisted.as_mut().poll(cx))?;
                    match check(&settings, &mut request, false) {
                        Checked::Passes(watch) => {
                            let future = inner.call(request);
                            state.set(State::Calling { future, watch });
                        }
                        Checked::Undecided(question) => {
                            let undecided = Undecided::new(inner, request, settings, question);
                            state.set(State::Undecided { undecided: Box::pin(undecided) });
                        }
                        Checked::Refused(failure) => return Poll::Ready(Err(refusal(failure))),
                        Checked::Unlisted(_) => return Poll::Ready(Err(polled_again())),
                    }
                }
                StateProj::Undecided { undecided } => {
                    let Decided { mut inner, request, watch } = ready!(undecided.as_mut().poll(cx))?;
                    let future = inner.call(request);
                    state.set(State::Calling { future, watch: Some(watch) });
                }
                StateProj::Calling { future, watch } => {
                    let result = ready!(future.poll(cx)).map_err(Into::into);
                    if let Some(watch) = watch.take() {
                        watch.learn(&result);
                    }
                    return Poll::Ready(result);
                }
                StateProj::Refused { failure } => {
                    return Poll::Ready(Err(match failure.take() {
                        Some(failure) => refusal(failure),
                        None => polled_again(),
                    }));
                }
            }
        }
    }
}
