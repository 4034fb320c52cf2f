use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};
use tower_service::Service;

use super::{
    RetryPolicy,
    decide::{Decision, History, Situation, decide},
};
use crate::{
    body::{Resend, clone_request},
    call,
    context::{self, BoxError, Deadline, Error, GaveUp, Outcome},
    failure::Failure,
    ready::Readied,
};

/// How much of a failed answer is read before it is dropped, so that its connection can be used again.
const MAX_DRAIN: usize = 64 * 1024;

pin_project! {
    /// The future of [`Retry`](super::Retry).
    pub struct ResponseFuture<S, B, R, F> {
        #[pin]
        state: State<B, R, F>,
        inner: Readied<S>,
        policy: Arc<RetryPolicy>,
        // The request as it came, for the next attempt. None: it cannot be sent again.
        request: Option<Request<B>>,
        history: History,
        deadline: Option<Deadline>,
        models_left: u32,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<B, R, F> {
        Calling { #[pin] future: F },
        // The failed answer is read to its end meanwhile, and dropped with the wait at the latest.
        Waiting { #[pin] failed: Option<R>, #[pin] sleep: Option<Sleep>, drained: usize, again: Option<Request<B>> },
        Readying { again: Option<Request<B>> },
    }
}

impl<S, B, R> ResponseFuture<S, B, R, S::Future>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    B: Resend,
{
    pub(super) fn new(mut inner: Readied<S>, policy: Arc<RetryPolicy>, mut request: Request<B>) -> Self {
        let (deadline, models_left, before) = match context::CallContext::of(&request) {
            Some(context) => (context.deadline(), context.models_left(), context.attempt()),
            None => (None, 0, 0),
        };
        let mut history = History::new(before);
        history.attempt_begins();
        if let Some(context) = request.extensions_mut().get_mut::<context::CallContext>() {
            context.set_attempt(history.attempts());
        }
        let kept = if policy.ever_resends() { clone_request(&request) } else { None };
        let state = State::Calling { future: inner.call(request) };
        Self { state, inner, policy, request: kept, history, deadline, models_left }
    }
}

impl<S, B, R, F> fmt::Debug for ResponseFuture<S, B, R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the request, which has keys in it, nor its body.
        f.debug_struct("ResponseFuture").field("history", &self.history).finish_non_exhaustive()
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
            match this.state.as_mut().project() {
                StateProj::Calling { future } => {
                    let result = ready!(future.poll(cx)).map_err(Into::into);
                    let outcome = Outcome::of(&result);
                    let Some(mut failure) = outcome.failure().cloned() else {
                        if let (Some(request), Some(budget)) = (&*this.request, &this.policy.budget)
                            && budget.is_in_use()
                        {
                            budget.deposit(&model_of(request));
                        }
                        return Poll::Ready(finished(result, this.history, None));
                    };
                    this.history.suspect_content(&mut failure);
                    if let Some(tried) = outcome.tried() {
                        this.history.note_tried(tried);
                    }
                    let kept = Kept {
                        request: this.request.as_ref(),
                        deadline: *this.deadline,
                        models_left: *this.models_left,
                    };
                    let (wait, again) = match next(this.policy, this.history, &failure, &outcome, kept) {
                        Ok(next) => next,
                        Err(end) => return Poll::Ready(finished(result, this.history, Some((failure, end)))),
                    };
                    this.history.note_failed(failure.kind(), Instant::now());
                    // A layer inside that has refused has left what hangs on the readiness unused.
                    this.inner.renew();
                    let sleep = (!wait.is_zero()).then(|| sleep(wait));
                    let failed = result.ok().map(Response::into_body);
                    this.state.set(State::Waiting { failed, sleep, drained: 0, again: Some(again) });
                }
                StateProj::Waiting { mut failed, sleep, drained, again } => {
                    while let Some(body) = failed.as_mut().as_pin_mut() {
                        match body.poll_frame(cx) {
                            Poll::Ready(Some(Ok(frame))) if *drained < MAX_DRAIN => {
                                *drained += frame.data_ref().map_or(1, bytes::Buf::remaining).max(1);
                            }
                            Poll::Ready(_) => failed.set(None),
                            Poll::Pending => break,
                        }
                    }
                    if let Some(sleep) = sleep.as_pin_mut() {
                        ready!(sleep.poll(cx));
                    }
                    let again = again.take();
                    this.state.set(State::Readying { again });
                }
                StateProj::Readying { again } => {
                    if let Err(error) = ready!(this.inner.poll_ready(cx)) {
                        return Poll::Ready(finished(Err(error.into()), this.history, None));
                    }
                    let mut again = again.take().expect("polled after completion");
                    this.history.attempt_begins();
                    let (attempt, failed) = (this.history.attempts(), this.history.upstream_has_failed());
                    let tried = this.history.tried();
                    let retried = this.history.retried(Instant::now());
                    context::CallContext::update(again.extensions_mut(), |context| {
                        context.set_attempt(attempt);
                        context.set_failed_before(failed);
                        context.set_tried(tried);
                        if let Some(retried) = retried {
                            if let Some(tally) = context.tally() {
                                tally.add(|report| report.backed_off += retried.waited);
                            }
                            context.set_retried(retried);
                        }
                    });
                    let future = this.inner.call(again);
                    this.state.set(State::Calling { future });
                }
            }
        }
    }
}

/// What is at hand for another attempt.
struct Kept<'a, B> {
    request: Option<&'a Request<B>>,
    deadline: Option<Deadline>,
    models_left: u32,
}

/// Why there is no next attempt.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    reason: Option<GaveUp>,
    /// There could have been one after that wait, but not before the deadline.
    needed: Option<Duration>,
}

/// The next attempt and how long to wait before it.
fn next<B: Resend>(
    policy: &RetryPolicy,
    history: &mut History,
    failure: &Failure,
    outcome: &Outcome,
    kept: Kept<'_, B>,
) -> Result<(Duration, Request<B>), End> {
    let request = kept.request.ok_or(End::default())?;
    let situation = Situation {
        idempotency: context::CallContext::shape(request).idempotency,
        sent: outcome.was_sent(),
        models_left: kept.models_left,
        remaining: kept.deadline.map(|deadline| deadline.remaining(Instant::now())),
    };
    match decide(policy, history, failure, outcome.retry(), situation, fastrand::f64()) {
        Decision::GiveUp(reason) => Err(End { reason, needed: None }),
        Decision::TooLate(wait) => Err(End { reason: Some(GaveUp::Wait), needed: Some(wait) }),
        Decision::Again { wait, spends_budget } => {
            let again = clone_request(request).ok_or(End::default())?;
            let may = !spends_budget || policy.budget.as_ref().is_none_or(|budget| budget.try_take(&model_of(request)));
            may.then_some((wait, again)).ok_or(End { reason: Some(GaveUp::Budget), needed: None })
        }
    }
}

/// The result as it goes back, with the attempts that it took.
fn finished<R>(
    result: Result<Response<R>, BoxError>,
    history: &History,
    failure: Option<(Failure, End)>,
) -> Result<Response<R>, BoxError> {
    let attempts = history.attempts();
    let is_news = failure.as_ref().is_some_and(|(_, end)| end.reason.is_some());
    let say = |outcome: Outcome| {
        let outcome = outcome.with_attempts(attempts);
        let Some((failure, End { reason, needed })) = failure else { return outcome };
        let mut outcome = outcome.with_failure(failure);
        if let Some(reason) = reason {
            outcome = outcome.with_gave_up(reason);
        }
        match needed {
            Some(needed) => outcome.with_retry(context::RetryAdvice::After(needed)),
            None => outcome,
        }
    };
    match result {
        Ok(mut response) => {
            // A first answer to which nobody has anything to say costs nothing.
            if is_news || !history.is_first() || response.extensions().get::<Outcome>().is_some() {
                Outcome::update(&mut response, say);
            }
            Ok(response)
        }
        Err(error) => Err(Error::map(error, super::NAME, say)),
    }
}

/// The model's name, or nothing where the call has none: then all such calls share one budget.
fn model_of<B>(request: &Request<B>) -> Arc<str> {
    let known =
        context::CallContext::of(request).and_then(context::CallContext::call).and_then(call::Call::shared_model);
    known.or_else(|| call::Call::new(request.method(), request.uri()).shared_model()).unwrap_or_default()
}
