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
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use super::{
    RateLimitBody,
    booking::Booking,
    desk::{Desk, Ticket, Turn, Until},
    service::Refusal,
};
use crate::{
    body::GuardedBody,
    context::{Outcome, Retry},
    error::{BoxError, Error},
    failure::{Failure, Fault, Kind, QuotaScope},
    quota::Dimension,
    ready::Readied,
};

pin_project! {
    /// The future of [`RateLimit`](super::RateLimit).
    pub struct ResponseFuture<S, B, F> {
        #[pin]
        state: State<S, B, F>,
        booking: Option<Booking>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B, F> {
        Refused { refusal: Option<Box<Refusal>> },
        Waiting { #[pin] sleep: Option<Sleep>, waiting: Option<Box<Waiting<S, B>>> },
        Readying { waiting: Option<Box<Waiting<S, B>>> },
        Calling { #[pin] future: F },
    }
}

/// How long a call may wait, and its place in the queue.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) ticket: Ticket,
    pub(super) give_up: Instant,
    pub(super) may_move: bool,
}

struct Waiting<S, B> {
    inner: Readied<S>,
    request: Option<Request<B>>,
    place: Place,
    wait: Wait,
}

/// A place in a queue, left when it is dropped.
struct Place {
    desk: Arc<Desk>,
    ticket: Ticket,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.desk.leave(self.ticket);
    }
}

impl<S, B, F> ResponseFuture<S, B, F> {
    pub(super) fn calling(future: F, booking: Option<Booking>) -> Self {
        Self { state: State::Calling { future }, booking }
    }

    pub(super) fn refused(refusal: Box<Refusal>) -> Self {
        Self { state: State::Refused { refusal: Some(refusal) }, booking: None }
    }

    pub(super) fn waiting(mut inner: Readied<S>, request: Request<B>, desk: Arc<Desk>, wait: Wait) -> Self
    where
        S: Clone,
    {
        // A wait begins: whatever hangs on the readiness is free for others.
        inner.release();
        let place = Place { desk, ticket: wait.ticket };
        let waiting = Box::new(Waiting { inner, request: Some(request), place, wait });
        Self { state: State::Waiting { sleep: None, waiting: Some(waiting) }, booking: None }
    }
}

impl<S, B, F> fmt::Debug for ResponseFuture<S, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the request, which has keys in it.
        f.debug_struct("ResponseFuture").field("booking", &self.booking).finish_non_exhaustive()
    }
}

impl<S, B, R> Future for ResponseFuture<S, B, S::Future>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: Body,
{
    type Output = Result<Response<RateLimitBody<R>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Refused { refusal } => {
                    let refusal = refusal.take().expect("polled after completion");
                    return Poll::Ready(Err(refused(refusal.failure, refusal.may_move)));
                }
                StateProj::Waiting { mut sleep, waiting } => {
                    let in_line = waiting.as_mut().expect("polled after completion");
                    let now = Instant::now();
                    let at = match in_line.place.desk.turn(in_line.wait.ticket, now, cx.waker()) {
                        Turn::Taken(receipt) => {
                            *this.booking = Some(Booking::new(in_line.place.desk.clone(), receipt));
                            let waiting = waiting.take();
                            this.state.set(State::Readying { waiting });
                            continue;
                        }
                        Turn::SentAway(until) => {
                            let message =
                                "the upstream has refused this project for now; another one may take the call";
                            let failure = Failure::local(Kind::RateLimited, message);
                            return Poll::Ready(Err(refused(failure.with_hint(until - now), true)));
                        }
                        Turn::At(at) => Some(at),
                        Turn::NotYet => None,
                    };
                    let give_up = in_line.wait.give_up;
                    if now >= give_up {
                        let desk = &in_line.place.desk;
                        let used = desk.read(now, |account, waiting| super::describe(account, waiting, now));
                        let message = format!("waited for its turn as long as it may, in vain: {used}");
                        let needed = at.map_or(desk.headroom(now, super::Amount::default()), |at| at - now);
                        let failure = Failure::local(Kind::RateLimited, message).with_hint(needed);
                        return Poll::Ready(Err(refused(failure, in_line.wait.may_move)));
                    }
                    let until = at.map_or(give_up, |at| at.min(give_up));
                    match sleep.as_mut().as_pin_mut() {
                        Some(timer) if timer.deadline() != until => timer.reset(until),
                        Some(_) => {}
                        None => sleep.set(Some(sleep_until(until))),
                    }
                    let Some(timer) = sleep.as_pin_mut() else { return Poll::Pending };
                    ready!(timer.poll(cx));
                }
                StateProj::Readying { waiting } => {
                    let in_line = waiting.as_mut().expect("polled after completion");
                    ready!(in_line.inner.poll_ready(cx)).map_err(Into::into)?;
                    let Some(request) = in_line.request.take() else { unreachable!("taken only here") };
                    if let Some(booking) = this.booking {
                        booking.send_late(Instant::now());
                    }
                    let future = in_line.inner.call(request);
                    this.state.set(State::Calling { future });
                }
                StateProj::Calling { future } => {
                    let result = ready!(future.poll(cx)).map_err(Into::into);
                    return Poll::Ready(finished(result, this.booking.take()));
                }
            }
        }
    }
}

/// The result as it goes back, with the booking corrected by what it says.
fn finished<R: Body>(
    result: Result<Response<R>, BoxError>,
    booking: Option<Booking>,
) -> Result<Response<RateLimitBody<R>>, BoxError> {
    let Some(booking) = booking else { return result.map(|response| response.map(GuardedBody::unguarded)) };
    match result {
        Ok(response) => {
            let said = response.extensions().get::<Outcome>();
            let failure = match said {
                Some(outcome) => outcome.failure().cloned(),
                None => Outcome::of_response(&response).failure().cloned(),
            };
            let usage = said.and_then(Outcome::usage).cloned();
            let settlement = match (failure, usage) {
                (Some(failure), _) if failure.fault() == Fault::Quota => {
                    learn(&booking, &failure);
                    // What the upstream refuses, it does not count.
                    booking.refund();
                    None
                }
                (_, Some(usage)) => Some(booking.settle_by(usage)),
                (_, None) => None,
            };
            Ok(response.map(|body| match settlement {
                Some(settlement) => GuardedBody::new(body, settlement),
                None => GuardedBody::unguarded(body),
            }))
        }
        Err(error) => {
            let outcome = Outcome::of_error(&error);
            if !outcome.was_sent() {
                booking.refund();
            }
            Err(error)
        }
    }
}

/// What a refusal of the upstream's teaches.
fn learn(booking: &Booking, failure: &Failure) {
    let now = Instant::now();
    let quota = failure.quota();
    let until = match (failure.kind(), failure.hint()) {
        (Kind::QuotaDay, Some(hint)) => Until::At(now + hint.delay()),
        (Kind::QuotaDay | Kind::QuotaZero, _) => Until::Midnight,
        (_, Some(hint)) => {
            // A hint that was cut to whole seconds is up to one too short.
            let cut = if hint.is_exact() { std::time::Duration::ZERO } else { std::time::Duration::from_secs(1) };
            Until::At(now + hint.delay() + cut)
        }
        (_, None) => Until::Unsaid,
    };
    let counts_requests = quota.and_then(|quota| quota.id()).is_none_or(|id| id.contains("Requests"));
    let dimension = match quota.and_then(|quota| quota.scope()) {
        Some(QuotaScope::Minute) => Some(Dimension::RequestsPerMinute),
        Some(QuotaScope::TokensMinute) => Some(Dimension::InputTokensPerMinute),
        Some(QuotaScope::Day) if counts_requests => Some(Dimension::RequestsPerDay),
        _ => None,
    };
    booking.desk().refused(now, until, dimension, quota.and_then(|quota| quota.limit()));
}

fn refused(failure: Failure, may_move: bool) -> BoxError {
    let error = Error::refusal(super::NAME, failure);
    if may_move { error.map_outcome(|outcome| outcome.with_retry(Retry::Now)).into() } else { error.into() }
}
