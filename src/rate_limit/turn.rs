//! A call's wait: its place in the queue, its turn, and the readiness that it regains before it goes.

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
    booking::Booking,
    desk::{self, Desk, Ticket},
    refusal,
};
use crate::{
    context::{Context as Said, Queueing},
    error::BoxError,
    ready::Readied,
};

/// How long a call may wait, and its place in the queue.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) ticket: Ticket,
    pub(super) since: Instant,
    pub(super) give_up: Instant,
    pub(super) may_move: bool,
}

pin_project! {
    #[project = TurnProj]
    /// A call that waits.
    pub(super) struct Turn<S, B> {
        #[pin]
        sleep: Option<Sleep>,
        waiting: Option<Waiting<S, B>>,
        // What has been set aside for it, once its turn has come.
        booking: Option<Booking>,
    }
}

struct Waiting<S, B> {
    inner: Readied<S>,
    request: Request<B>,
    place: Place,
    wait: Wait,
    // Adds up the wait, for whoever wants to know.
    _queueing: Option<Queueing>,
}

/// A place in a queue, left at the latest when it is dropped, which wakes the next.
pub(super) struct Place {
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

/// A call whose turn has come, and a service that is ready for it.
pub(super) struct Called<S, B> {
    pub(super) inner: Readied<S>,
    pub(super) request: Request<B>,
    pub(super) booking: Booking,
    /// To be left when the service has been called, and no sooner: the next one is handed on after this one.
    pub(super) place: Place,
}

impl<S: Clone, B> Turn<S, B> {
    pub(super) fn new(mut inner: Readied<S>, request: Request<B>, desk: Arc<Desk>, wait: Wait) -> Self {
        // A wait begins: whatever hangs on the readiness is free for others.
        inner.release();
        let place = Place { desk, ticket: Some(wait.ticket) };
        let _queueing = Said::of(&request).and_then(Said::tally).map(|tally| tally.queueing(wait.since));
        Self { sleep: None, waiting: Some(Waiting { inner, request, place, wait, _queueing }), booking: None }
    }
}

impl<S, B> Turn<S, B>
where
    S: Service<Request<B>> + Clone,
    S::Error: Into<BoxError>,
{
    /// Waits for the turn, then for the service. Once it has said anything, whoever asks again is told so.
    pub(super) fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Called<S, B>, BoxError>> {
        let mut this = self.project();
        let result = ready!(this.poll_called(cx));
        // Whatever is decided, nothing of a wait outlives it: who is done must not stand in a queue.
        this.sleep.set(None);
        *this.waiting = None;
        *this.booking = None;
        Poll::Ready(result)
    }
}

impl<S, B> TurnProj<'_, S, B>
where
    S: Service<Request<B>> + Clone,
    S::Error: Into<BoxError>,
{
    fn poll_called(&mut self, cx: &mut Context<'_>) -> Poll<Result<Called<S, B>, BoxError>> {
        let Some(waiting) = self.waiting else { return Poll::Ready(Err(refusal::polled_again())) };
        while self.booking.is_none() {
            let Wait { ticket, give_up, may_move, since } = waiting.wait;
            let now = Instant::now();
            let desk = &waiting.place.desk;
            let at = match desk.turn(ticket, now, cx.waker()) {
                desk::Turn::Taken(receipt) => {
                    *self.booking = Some(Booking::new(desk.clone(), receipt));
                    break;
                }
                desk::Turn::SentAway(until) => return Poll::Ready(Err(refusal::sent_away(desk, until - now))),
                desk::Turn::At(at) => Some(at),
                desk::Turn::NotYet => None,
            };
            if now >= give_up {
                return Poll::Ready(Err(refusal::waited_in_vain(desk, now, now - since, at, may_move)));
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
        let Poll::Ready(ready) = waiting.inner.poll_ready(cx) else {
            // Nobody behind it waits for an inner service that is not ready for this one.
            waiting.place.leave();
            return Poll::Pending;
        };
        ready.map_err(Into::into)?;
        if Said::of(&waiting.request).is_some_and(|said| !said.choice_is_good()) {
            return Poll::Ready(Err(refusal::choice_lost(&waiting.place.desk)));
        }
        let (Some(Waiting { inner, request, place, .. }), Some(mut booking)) =
            (self.waiting.take(), self.booking.take())
        else {
            return Poll::Ready(Err(refusal::polled_again()));
        };
        booking.send(Instant::now());
        Poll::Ready(Ok(Called { inner, request, booking, place }))
    }
}
