//! The future of a call: awaits the list of models and the count, where the check needs them, and then the answer.

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
    await_list::{ListFuture, ListedCall},
    await_read::ReadFuture,
    check::{Checked, check, judge},
    counting::{CountFuture, CountedCall},
    learn::Learner,
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
        Calling { #[pin] future: F, learner: Option<Learner> },
        // In boxes, because most calls are decided at once, and their futures are smaller for it.
        AwaitingList { list: Pin<Box<ListFuture<S, B>>> },
        Reading { read: Box<ReadFuture<S, B>> },
        Counting { count: Pin<Box<CountFuture<S, B, R, F>>> },
        Refused { failure: Option<Failure> },
    }
}

impl<S, B, R, F> ResponseFuture<S, B, R, F> {
    pub(super) fn calling(future: F, learner: Option<Learner>) -> Self {
        Self { state: State::Calling { future, learner } }
    }

    pub(super) fn awaiting_list(list: ListFuture<S, B>) -> Self {
        Self { state: State::AwaitingList { list: Box::pin(list) } }
    }

    pub(super) fn reading(read: ReadFuture<S, B>) -> Self {
        Self { state: State::Reading { read: Box::new(read) } }
    }

    pub(super) fn counting(count: CountFuture<S, B, R, F>) -> Self {
        Self { state: State::Counting { count: Box::pin(count) } }
    }

    pub(super) fn refused(failure: Failure) -> Self {
        Self { state: State::Refused { failure: Some(failure) } }
    }
}

impl<S, B, R, F> fmt::Debug for ResponseFuture<S, B, R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The request is left out, because it has keys in it.
        let state = match &self.state {
            State::Calling { .. } => "calling",
            State::AwaitingList { .. } => "awaiting a list of models",
            State::Reading { .. } => "reading",
            State::Counting { .. } => "counting",
            State::Refused { .. } => "refused",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}

/// Returns the state that a check leads to, or the refusal.
fn enter<S, B, R>(
    checked: Checked,
    ListedCall { mut inner, request, settings }: ListedCall<S, B>,
    may_wait: bool,
) -> Result<State<S, B, R, S::Future>, BoxError>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Resend<Data = Bytes> + From<Bytes>,
    R: Body,
{
    Ok(match checked {
        Checked::Send(learner) => State::Calling { future: inner.call(request), learner },
        Checked::Count(question) => {
            State::Counting { count: Box::pin(CountFuture::new(inner, request, settings, question)) }
        }
        Checked::Read(reading) => {
            State::Reading { read: Box::new(ReadFuture::new(inner, request, settings, reading, may_wait)) }
        }
        Checked::AwaitList(list) => {
            State::AwaitingList { list: Box::pin(ListFuture::new(inner, request, settings, list)) }
        }
        Checked::Refuse(failure) => return Err(refusal(failure)),
    })
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
                StateProj::AwaitingList { list } => {
                    let mut listed = ready!(list.as_mut().poll(cx))?;
                    let checked = check(&listed.settings, &mut listed.request, false);
                    state.set(enter(checked, listed, false)?);
                }
                StateProj::Reading { read } => {
                    let (mut listed, facts) = ready!(read.poll(cx))?;
                    let may_wait = read.may_wait;
                    let checked = match facts {
                        Some(facts) => judge(&listed.settings, &mut listed.request, facts, may_wait),
                        // The reader has panicked, or the runtime is shutting down.
                        None => Checked::Send(None),
                    };
                    state.set(enter(checked, listed, may_wait)?);
                }
                StateProj::Counting { count } => {
                    let CountedCall { mut inner, request, learner } = ready!(count.as_mut().poll(cx))?;
                    let future = inner.call(request);
                    state.set(State::Calling { future, learner: Some(learner) });
                }
                StateProj::Calling { future, learner } => {
                    let result = ready!(future.poll(cx)).map_err(Into::into);
                    if let Some(learner) = learner.take() {
                        learner.learn(&result);
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
