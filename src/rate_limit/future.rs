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
    desk::{Desk, Refusal, Ticket, Turn, Until},
    refusal,
};
use crate::{
    body::GuardedBody,
    context::Outcome,
    error::BoxError,
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
        Refused { error: Option<BoxError> },
        Waiting { #[pin] sleep: Option<Sleep>, waiting: Option<Box<Waiting<S, B>>> },
        Readying { waiting: Option<Box<Waiting<S, B>>> },
        Calling { #[pin] future: F },
        Done,
    }
}

/// How long a call may wait, and its place in the queue.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) ticket: Ticket,
    pub(super) since: Instant,
    pub(super) give_up: Instant,
    pub(super) may_move: bool,
}

struct Waiting<S, B> {
    inner: Readied<S>,
    request: Request<B>,
    place: Place,
    wait: Wait,
}

/// A place in a queue, left at the latest when it is dropped, which wakes the next.
struct Place {
    desk: Arc<Desk>,
    ticket: Option<Ticket>,
}

impl Place {
    fn leave(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.desk.leave(ticket);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<S, B, F> ResponseFuture<S, B, F> {
    pub(super) fn calling(future: F, booking: Option<Booking>) -> Self {
        Self { state: State::Calling { future }, booking }
    }

    pub(super) fn refused(error: BoxError) -> Self {
        Self { state: State::Refused { error: Some(error) }, booking: None }
    }

    pub(super) fn waiting(mut inner: Readied<S>, request: Request<B>, desk: Arc<Desk>, wait: Wait) -> Self
    where
        S: Clone,
    {
        // A wait begins: whatever hangs on the readiness is free for others.
        inner.release();
        let place = Place { desk, ticket: Some(wait.ticket) };
        let waiting = Box::new(Waiting { inner, request, place, wait });
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
        // Whatever is decided, nothing of a wait outlives it: who is done must not stand in a queue.
        let result = loop {
            match this.state.as_mut().project() {
                StateProj::Waiting { mut sleep, waiting } => {
                    let Some(in_line) = waiting else { break Err(refusal::polled_again()) };
                    let Wait { ticket, give_up, may_move, since } = in_line.wait;
                    let now = Instant::now();
                    let desk = &in_line.place.desk;
                    let at = match desk.turn(ticket, now, cx.waker()) {
                        Turn::Taken(receipt) => {
                            *this.booking = Some(Booking::held(desk.clone(), receipt));
                            let waiting = waiting.take();
                            this.state.set(State::Readying { waiting });
                            continue;
                        }
                        Turn::SentAway(until) => break Err(refusal::sent_away(desk, until - now)),
                        Turn::At(at) => Some(at),
                        Turn::NotYet => None,
                    };
                    if now >= give_up {
                        break Err(refusal::waited_in_vain(desk, now, now - since, at, may_move));
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
                    let Some(in_line) = waiting else { break Err(refusal::polled_again()) };
                    let Poll::Ready(ready) = in_line.inner.poll_ready(cx) else {
                        // Nobody behind it waits for an inner service that is not ready for this one.
                        in_line.place.leave();
                        return Poll::Pending;
                    };
                    if let Err(error) = ready {
                        break Err(error.into());
                    }
                    let Some(in_line) = waiting.take() else { continue };
                    let Waiting { mut inner, request, place, .. } = *in_line;
                    if let Some(booking) = this.booking {
                        booking.send(Instant::now());
                    }
                    let future = inner.call(request);
                    // Only now: the next one is handed on after this one.
                    drop(place);
                    this.state.set(State::Calling { future });
                }
                StateProj::Calling { future } => {
                    let result = ready!(future.poll(cx)).map_err(Into::into);
                    return Poll::Ready(finished(result, this.booking.take()));
                }
                StateProj::Refused { error } => break Err(error.take().unwrap_or_else(refusal::polled_again)),
                StateProj::Done => break Err(refusal::polled_again()),
            }
        };
        this.state.set(State::Done);
        *this.booking = None;
        Poll::Ready(result)
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
                    let now = Instant::now();
                    booking.refused(now, read(&failure, now));
                    None
                }
                // Nothing is charged to what does not exist.
                (Some(failure), _) if failure.kind() == Kind::ModelNotFound => {
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

/// What a refusal of the upstream's says to the limiter.
fn read(failure: &Failure, now: Instant) -> Refusal {
    let quota = failure.quota();
    let until = match (failure.kind(), failure.hint()) {
        (Kind::QuotaDay, Some(hint)) => Until::At(now + hint.delay()),
        (Kind::QuotaDay | Kind::QuotaZero, _) => Until::Midnight,
        (_, Some(hint)) => Until::At(now + hint.sufficient()),
        (_, None) => Until::Unsaid,
    };
    let counts_requests = quota.and_then(|quota| quota.id()).is_none_or(|id| id.contains("Requests"));
    let dimension = match quota.and_then(|quota| quota.scope()) {
        Some(QuotaScope::Minute) => Some(Dimension::RequestsPerMinute),
        Some(QuotaScope::TokensMinute) => Some(Dimension::InputTokensPerMinute),
        Some(QuotaScope::Day) if counts_requests => Some(Dimension::RequestsPerDay),
        _ => None,
    };
    Refusal { until, dimension, named: quota.and_then(|quota| quota.limit()) }
}
