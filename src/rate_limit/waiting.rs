//! The wait of a call: its place in the queue, its grant, and the readiness that it regains before it goes.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::Request;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use super::{
    NAME,
    queue::{self, ScopeQueue},
    refusal,
    reservation::Reservation,
    turns::WaiterId,
};
use crate::{
    context::{BoxError, CallContext, Claimant, Queueing, polled_again},
    ready::Readied,
};

/// A call's waiter, since when it waits, and when it gives up.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) waiter: WaiterId,
    pub(super) since: Instant,
    pub(super) give_up: Instant,
    /// True if an answer would come too late from then on, so that a turn is of no use.
    pub(super) is_last_call: bool,
    pub(super) may_move: bool,
    /// The time at which it could go, as it was last told.
    pub(super) at: Option<Instant>,
}

pin_project! {
    #[project = WaitingProj]
    /// A call that waits for admission and then for the inner service.
    pub(super) struct Waiting<S, B> {
        #[pin]
        sleep: Option<Sleep>,
        queued: Option<Queued<S, B>>,
        // The amount held for the call, once it has its grant.
        reservation: Option<Reservation>,
    }
}

struct Queued<S, B> {
    inner: Readied<S>,
    request: Request<B>,
    place: QueuePlace,
    wait: Wait,
    // Adds the wait to the call's tally when it is dropped.
    _queueing: Option<Queueing>,
}

/// A place in a queue. Dropping it leaves the queue and wakes the next waiter.
pub(super) struct QueuePlace {
    queue: Arc<ScopeQueue>,
    waiter: Option<WaiterId>,
}

impl QueuePlace {
    fn leave(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            self.queue.leave(waiter);
        }
    }
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        self.leave();
    }
}

/// An admitted call, and a service that is ready for it.
pub(super) struct ReadyCall<S, B> {
    pub(super) inner: Readied<S>,
    pub(super) request: Request<B>,
    pub(super) reservation: Reservation,
    /// The place in the queue, to be left once the service has been called and no sooner, so that the next call follows
    /// this one.
    pub(super) place: QueuePlace,
}

/// Returns the part of a call that decides on its turn.
pub(super) fn claimant<B>(request: &Request<B>) -> Claimant<'_> {
    CallContext::of(request).map_or(Claimant::default(), CallContext::claimant)
}

impl<S: Clone, B> Waiting<S, B> {
    pub(super) fn new(mut inner: Readied<S>, request: Request<B>, queue: Arc<ScopeQueue>, wait: Wait) -> Self {
        // The wait begins: what the readiness reserved is free for other calls.
        inner.release();
        let place = QueuePlace { queue, waiter: Some(wait.waiter) };
        let _queueing = CallContext::of(&request).and_then(CallContext::tally).map(|tally| tally.queueing(wait.since));
        Self { sleep: None, queued: Some(Queued { inner, request, place, wait, _queueing }), reservation: None }
    }
}

impl<S, B> Waiting<S, B>
where
    S: Service<Request<B>> + Clone,
    S::Error: Into<BoxError>,
{
    /// Waits for admission, then for the service. Polled after it was ready, it returns an error.
    pub(super) fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<ReadyCall<S, B>, BoxError>> {
        let mut this = self.project();
        let result = ready!(this.poll_called(cx));
        // Nothing of a wait outlives its result: a call that is done must not stand in a queue.
        this.sleep.set(None);
        *this.queued = None;
        *this.reservation = None;
        Poll::Ready(result)
    }
}

impl<S, B> WaitingProj<'_, S, B>
where
    S: Service<Request<B>> + Clone,
    S::Error: Into<BoxError>,
{
    fn poll_called(&mut self, cx: &mut Context<'_>) -> Poll<Result<ReadyCall<S, B>, BoxError>> {
        let Some(queued) = self.queued else { return Poll::Ready(Err(polled_again(NAME))) };
        while self.reservation.is_none() {
            let Wait { waiter, give_up, is_last_call, may_move, since, at } = queued.wait;
            let now = Instant::now();
            let queue = &queued.place.queue;
            let exhausted =
                |at| refusal::wait_exhausted(queue, now, now - since, at, claimant(&queued.request), may_move);
            if is_last_call && now >= give_up {
                return Poll::Ready(Err(exhausted(at)));
            }
            let at = match queue.poll_grant(waiter, now, cx.waker()) {
                queue::Grant::Taken(charge) => {
                    *self.reservation = Some(Reservation::new(queue.clone(), charge));
                    break;
                }
                queue::Grant::SentAway(shut) => return Poll::Ready(Err(refusal::blocked(queue, now, shut, may_move))),
                queue::Grant::At(at) => Some(at),
                queue::Grant::NotYet => None,
            };
            queued.wait.at = at;
            if now >= give_up {
                return Poll::Ready(Err(exhausted(at)));
            }
            let until = at.map_or(give_up, |at| at.min(give_up));
            match self.sleep.as_mut().as_pin_mut() {
                Some(timer) if timer.deadline() != until => timer.reset(until),
                Some(_) => {}
                None => self.sleep.set(Some(sleep_until(until))),
            }
            let Some(timer) = self.sleep.as_mut().as_pin_mut() else { return Poll::Pending };
            ready!(timer.poll(cx));
        }
        let Poll::Ready(ready) = queued.inner.poll_ready(cx) else {
            // The waiters behind this call do not wait for an inner service that is not ready for it.
            queued.place.leave();
            return Poll::Pending;
        };
        ready.map_err(Into::into)?;
        if CallContext::of(&queued.request).is_some_and(|context| !context.choice_is_good()) {
            return Poll::Ready(Err(refusal::choice_lost(&queued.place.queue)));
        }
        let (Some(Queued { inner, request, place, .. }), Some(mut reservation)) =
            (self.queued.take(), self.reservation.take())
        else {
            return Poll::Ready(Err(polled_again(NAME)));
        };
        reservation.send(Instant::now());
        Poll::Ready(Ok(ReadyCall { inner, request, reservation, place }))
    }
}
