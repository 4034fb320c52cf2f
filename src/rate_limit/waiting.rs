//! The wait of a call: its place in the queue, its grant, and the readiness that it regains before it goes.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Request;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use super::{
    NAME,
    asking::{Asking, Direct},
    joining::{Wait, join},
    queue::{self, Outlook, ScopeQueue},
    refusal,
    reservation::Reservation,
    turns::WaiterId,
};
use crate::{
    context::{BoxError, CallContext, CallRef, Claimant, Queueing, polled_again},
    quota::{Answer, AwaitedAnswer, Reply},
    ready::Readied,
    recent::Held,
};

pin_project! {
    #[project = WaitingProj]
    /// A call that waits for admission and then for the inner service.
    pub(super) struct Waiting<S, B> {
        #[pin]
        sleep: Option<Sleep>,
        // The question to the store that is under way.
        asking: Option<Box<Asking>>,
        queued: Option<Queued<S, B>>,
        // The amount held for the call, once it has its grant.
        reservation: Option<Reservation>,
    }
}

struct Queued<S, B> {
    inner: Readied<S>,
    request: Request<B>,
    place: QueuePlace,
    standing: Standing,
    // Adds the wait to the call's tally when it is dropped.
    _queueing: Option<Queueing>,
}

/// The standing of a call that waits.
enum Standing {
    /// It is in the queue.
    Waits(Wait),
    /// It has found room here, and the store is asked whether others have left it.
    Asks(Box<Direct>),
}

/// A place in a queue. Dropping it leaves the queue and wakes the next waiter.
pub(super) struct QueuePlace {
    queue: Held<ScopeQueue>,
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
    pub(super) fn new(mut inner: Readied<S>, request: Request<B>, queue: Held<ScopeQueue>, wait: Wait) -> Self {
        // The wait begins: what the readiness reserved is free for other calls.
        inner.release();
        let place = QueuePlace { queue, waiter: Some(wait.waiter) };
        let _queueing = queueing(&request, wait.since);
        let queued = Queued { inner, request, place, standing: Standing::Waits(wait), _queueing };
        Self { sleep: None, asking: None, queued: Some(queued), reservation: None }
    }

    /// Waits for the store's answer first. That is no wait for which the readiness is given up.
    pub(super) fn asking(
        inner: Readied<S>,
        request: Request<B>,
        queue: Held<ScopeQueue>,
        asking: Box<Asking>,
        direct: Box<Direct>,
    ) -> Self {
        let place = QueuePlace { queue, waiter: None };
        let queued = Queued { inner, request, place, standing: Standing::Asks(direct), _queueing: None };
        Self { sleep: None, asking: Some(asking), queued: Some(queued), reservation: None }
    }
}

fn queueing<B>(request: &Request<B>, since: Instant) -> Option<Queueing> {
    CallContext::of(request).and_then(CallContext::tally).map(|tally| tally.queueing(since))
}

impl<S: Clone, B> Queued<S, B> {
    /// Takes note of the store's answer. Returns the reservation where it is a grant; a call that is refused waits, or
    /// has to join the queue first.
    fn answered(
        &mut self,
        now: Instant,
        mut held: Reservation,
        answer: Answer,
    ) -> Result<Option<Reservation>, BoxError> {
        let waiter = self.place.waiter;
        if let Answer::Granted(grant) = answer {
            held.granted(now, waiter, grant);
            return Ok(Some(held));
        }
        let held_amount = held.amount();
        held.denied(now, waiter, answer);
        self.inner.release();
        let (context, queue) = (CallContext::of(&self.request), &self.place.queue);
        let (call, claimant) = (CallRef::with(context, &self.request), claimant(&self.request));
        let Direct { limiter, amount, place, .. } = match &mut self.standing {
            Standing::Asks(direct) => &**direct,
            Standing::Waits(wait) => {
                if waiter.is_none() {
                    // It has left to get ready, and has its place back.
                    let (place, grounded) = (wait.waiter.place(wait.since), call.shape().grounded);
                    wait.waiter = queue.join(now, held_amount, wait.may_move, grounded, claimant, Some(place));
                    self.place.waiter = Some(wait.waiter);
                }
                return Ok(None);
            }
        };
        let at = match queue.outlook(now, *amount, call.shape().grounded, claimant) {
            Outlook::Later(at) => at,
            Outlook::Shut(shut) => {
                return Err(refusal::blocked(queue, now, shut, context.is_some_and(CallContext::may_move)));
            }
        };
        let wait = join(limiter, &self.request, &call, queue, *amount, claimant, now, at, Some(*place))?;
        self.place.waiter = Some(wait.waiter);
        self._queueing = queueing(&self.request, wait.since);
        self.standing = Standing::Waits(wait);
        Ok(None)
    }

    /// Returns the time at which the call gives up while the store is asked, and whether it has waited since when.
    fn gives_up(&self, asking: &Asking) -> (Instant, Instant) {
        match &self.standing {
            Standing::Asks(direct) => {
                let (give_up, deadline) = (asking.gives_up(direct.give_up), claimant(&self.request).deadline);
                (deadline.map_or(give_up, |deadline| deadline.min(give_up)), asking.since())
            }
            // A turn is of no use to a call whose answer would come too late.
            Standing::Waits(wait) if wait.is_last_call => (wait.give_up, wait.since),
            Standing::Waits(wait) => (asking.gives_up(wait.give_up), wait.since),
        }
    }

    /// Returns the refusal of a call that has waited for as long as it may.
    fn exhausted(&self, now: Instant, since: Instant, at: Option<Instant>) -> BoxError {
        let may_move = CallContext::of(&self.request).is_some_and(CallContext::may_move);
        refusal::wait_exhausted(&self.place.queue, now, now - since, at, claimant(&self.request), may_move)
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
        *this.asking = None;
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
    /// Waits for the reservation: for its turn and for the store's answer.
    fn poll_reserved(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let Some(queued) = self.queued else { return Poll::Ready(Err(polled_again(NAME))) };
        while self.reservation.is_none() {
            let now = Instant::now();
            let until = if let Some(asking) = self.asking {
                let (give_up, since) = queued.gives_up(asking);
                if now >= give_up {
                    return Poll::Ready(Err(queued.exhausted(now, since, None)));
                }
                if let Poll::Ready(answer) = asking.poll(cx) {
                    let Some(asking) = self.asking.take() else { return Poll::Pending };
                    *self.reservation = queued.answered(now, asking.into_held(), answer)?;
                    continue;
                }
                give_up
            } else {
                let Standing::Waits(wait) = &mut queued.standing else {
                    return Poll::Ready(Err(polled_again(NAME)));
                };
                let (waiter, give_up, is_last_call, since) = (wait.waiter, wait.give_up, wait.is_last_call, wait.since);
                if is_last_call && now >= give_up {
                    let at = wait.at;
                    return Poll::Ready(Err(queued.exhausted(now, since, at)));
                }
                let queue = &queued.place.queue;
                let (at, polled_at) = match queue.poll_grant(waiter, now, cx.waker()) {
                    queue::Grant::Taken(charge) => {
                        *self.reservation = Some(Reservation::new(queue.clone(), charge));
                        break;
                    }
                    queue::Grant::Ask(charge, question) => {
                        let held = Reservation::new(queue.clone(), charge);
                        // Its minute begins in the store with the answer: only a call that can go then asks.
                        match queued.inner.poll_ready(cx) {
                            Poll::Ready(ready) => ready.map_err(Into::into)?,
                            Poll::Pending => {
                                *self.reservation = Some(held);
                                queue.leave_for_readiness(waiter);
                                queued.place.waiter = None;
                                return Poll::Pending;
                            }
                        }
                        match queue.ask(question) {
                            Reply::Now(answer) => *self.reservation = queued.answered(now, held, answer)?,
                            Reply::Later(answer) => {
                                *self.asking = Some(Asking::new(AwaitedAnswer::new(answer), held, now))
                            }
                        }
                        continue;
                    }
                    queue::Grant::SentAway(shut) => {
                        return Poll::Ready(Err(refusal::blocked(queue, now, shut, wait.may_move)));
                    }
                    queue::Grant::HeldBack(held_back) => (Some(held_back.at), Some(held_back.again)),
                    queue::Grant::At(at) => (Some(at), Some(at)),
                    queue::Grant::NotYet => (None, None),
                };
                wait.at = at;
                if now >= give_up {
                    return Poll::Ready(Err(queued.exhausted(now, since, at)));
                }
                polled_at.map_or(give_up, |at| at.min(give_up))
            };
            match self.sleep.as_mut().as_pin_mut() {
                Some(timer) if timer.deadline() != until => timer.reset(until),
                Some(_) => {}
                None => self.sleep.set(Some(sleep_until(until))),
            }
            let Some(timer) = self.sleep.as_mut().as_pin_mut() else { return Poll::Pending };
            ready!(timer.poll(cx));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_called(&mut self, cx: &mut Context<'_>) -> Poll<Result<ReadyCall<S, B>, BoxError>> {
        let queued = loop {
            ready!(self.poll_reserved(cx))?;
            let Some(queued) = self.queued else { return Poll::Ready(Err(polled_again(NAME))) };
            let Poll::Ready(ready) = queued.inner.poll_ready(cx) else {
                // The waiters behind this call do not wait for an inner service that is not ready for it.
                queued.place.leave();
                return Poll::Pending;
            };
            ready.map_err(Into::into)?;
            let Some(unasked) = self.reservation.take_if(|held| held.is_unasked()) else { break queued };
            let now = Instant::now();
            match unasked.ask(now) {
                Reply::Now(answer) => *self.reservation = queued.answered(now, unasked, answer)?,
                Reply::Later(answer) => *self.asking = Some(Asking::new(AwaitedAnswer::new(answer), unasked, now)),
            }
        };
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
