//! The record of each call from its beginning to its end, for [`Failures`] and the history.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};
use tower_gemini::{
    Error, Outcome,
    call::Call,
    context::{CallProgress, Usage},
    failure::{Failure, Fault},
};

use crate::show::{
    call_news::CallNews,
    failures::{Failures, is_by_caller},
    history::End,
};

impl<S> Layer<S> for Failures {
    type Service = RecordFailures<S>;

    fn layer(&self, inner: S) -> RecordFailures<S> {
        RecordFailures { inner, failures: self.clone() }
    }
}

/// A service whose failures are recorded, those in the middle of an answer included.
#[derive(Clone)]
pub(crate) struct RecordFailures<S> {
    inner: S,
    failures: Failures,
}

impl<S, B, R> Service<Request<B>> for RecordFailures<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = BoxError, Future: Unpin>,
    R: http_body::Body,
{
    type Response = Response<RecordedBody<R>>;
    type Error = BoxError;
    type Future = RecordedAnswer<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let call = Call::new(request.method(), request.uri());
        let record = CallRecord {
            failures: self.failures.clone(),
            began: Instant::now(),
            requested: Requested {
                model: call.model().unwrap_or_default().to_owned(),
                news: request.extensions().get().cloned(),
                progress: CallProgress::watch(&mut request),
            },
            outcome: None,
            at_admission: false,
            has_ended: false,
        };
        RecordedAnswer { answer: self.inner.call(request), record: Some(record) }
    }
}

/// The future of an answer whose call is recorded.
pub(crate) struct RecordedAnswer<F> {
    answer: F,
    /// The record, until the answer's body takes it.
    record: Option<CallRecord>,
}

impl<F, R> Future for RecordedAnswer<F>
where
    F: Future<Output = Result<Response<R>, BoxError>> + Unpin,
    R: http_body::Body,
{
    type Output = Result<Response<RecordedBody<R>>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(Pin::new(&mut self.answer).poll(cx));
        // It is there for the first result, and a future that has given one is not polled again.
        let Some(mut record) = self.record.take() else { return Poll::Pending };
        record.has_begun(&result);
        Poll::Ready(result.map(|response| {
            response.map(|body| {
                record.has_ended = body.is_end_stream();
                RecordedBody { body, record }
            })
        }))
    }
}

/// A body that tells the record of its call how it ends.
pub(crate) struct RecordedBody<R> {
    body: R,
    record: CallRecord,
}

impl<R> http_body::Body for RecordedBody<R>
where
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx)).map(|frame| frame.map_err(Into::into));
        match &frame {
            Some(Err(error)) => self.record.has_broken(error),
            // A reader that knows the length does not poll again after the last frame.
            _ => self.record.has_ended |= frame.is_none() || self.body.is_end_stream(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The call as its request says it, for failures that know no better.
struct Requested {
    model: String,
    news: Option<CallNews>,
    /// It has the call as its body says, of a caller that has left before an answer came.
    progress: CallProgress,
}

impl Requested {
    /// Returns the model that was asked last.
    fn model<'a>(&'a self, outcome: &'a Outcome, call: Option<&'a Call>) -> &'a str {
        outcome.model().or_else(|| call?.quota_name()).unwrap_or(&self.model)
    }

    fn caller(&self) -> Option<&str> {
        self.news.as_ref().and_then(CallNews::caller)
    }
}

/// The record of a call from its beginning to its end. It lives in the call's future, and then in its answer's body.
struct CallRecord {
    failures: Failures,
    requested: Requested,
    began: Instant,
    /// The outcome when the answer began, and later its failure.
    outcome: Option<Outcome>,
    /// The relay's own admission has refused the call.
    at_admission: bool,
    /// All of the answer has passed.
    has_ended: bool,
}

impl CallRecord {
    fn has_begun<R>(&mut self, result: &Result<Response<R>, BoxError>) {
        self.at_admission = result.as_ref().err().is_some_and(|error| self.failures.is_own(error));
        let outcome = Outcome::of(result);
        if !self.is_strange(&outcome) {
            self.keep(&outcome, self.at_admission);
        }
        self.outcome = Some(outcome);
    }

    /// Keeps the failure of an outcome, if it has one.
    fn keep(&self, outcome: &Outcome, at_admission: bool) {
        let model = self.requested.model(outcome, outcome.call());
        self.failures.record(model, self.requested.caller(), outcome, at_admission);
    }

    /// Returns whether a stranger was turned away. Strangers could fill the ring, and drive out of it the failures that
    /// callers have seen.
    fn is_strange(&self, outcome: &Outcome) -> bool {
        let is_closed = |code| matches!(code, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        let is_closed = outcome.failure().is_some_and(|failure| is_closed(failure.code()));
        self.at_admission && is_closed && self.requested.caller().is_none()
    }

    /// Records that the answer ends in an error.
    fn has_broken(&mut self, error: &BoxError) {
        let failure = Error::find(&**error).and_then(|error| error.outcome().failure().cloned());
        self.has_failed(failure.unwrap_or_else(|| Failure::from_error(&**error)));
    }

    fn has_failed(&mut self, failure: Failure) {
        let outcome = self.outcome.take().unwrap_or_default();
        self.outcome = Some(if outcome.failure().is_none() {
            let outcome = outcome.with_failure(failure.into_after_commit());
            self.keep(&outcome, false);
            outcome
        } else {
            outcome
        });
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        let usage = self.outcome.as_ref().and_then(Outcome::usage).map(Usage::report).unwrap_or_default();
        // The upstream may say in the middle of an answer that it has failed.
        if let Some(failure) = usage.failure {
            self.has_failed(failure);
        }
        let outcome = self.outcome.take();
        let end = match outcome.as_ref().map(|outcome| (outcome, outcome.failure())) {
            Some((outcome, Some(_))) if self.is_strange(outcome) => return,
            Some((_, Some(failure)))
                if is_by_caller(failure.fault(), failure.kind(), self.at_admission, failure.code()) =>
            {
                End::Failed(Fault::Caller)
            }
            Some((_, Some(failure))) => End::Failed(failure.fault()),
            // A caller that stops reading after the finish reason has the whole answer.
            Some((_, None)) if self.has_ended || usage.ended || usage.finish_reason.is_some() => {
                End::Answered(self.began.elapsed())
            }
            _ => End::Left,
        };
        let outcome = outcome.unwrap_or_default();
        let under_way = if outcome.call().is_none() { self.requested.progress.call() } else { None };
        // Nobody knows the tier of a call that was turned away before its body was read.
        let call = outcome.call().or(under_way.as_ref());
        let (model, tier) = (self.requested.model(&outcome, call), call.map(Call::service_tier));
        self.failures.count(model, end, tier, self.at_admission);
    }
}
