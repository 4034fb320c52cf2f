//! A question to the store that is answered later, and the call that has asked it before it joined the queue.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use super::{Amount, Limiter, reservation::Reservation, turns::Place};
use crate::quota::{Answer, AwaitedAnswer};

/// The longest time that an answer is waited for beyond the time that the call may wait in the queue. A store answers
/// within tens of milliseconds.
const GRACE: Duration = Duration::from_secs(1);

/// A question that is under way, and the amount that is held for it. Dropping it gives back both: the question takes
/// nothing any more, and the amount is refunded.
pub(super) struct Asking {
    answer: AwaitedAnswer,
    held: Reservation,
    since: Instant,
}

impl Asking {
    /// Boxed, so that no call which does not ask is larger for it.
    pub(super) fn new(answer: AwaitedAnswer, held: Reservation, since: Instant) -> Box<Self> {
        Box::new(Self { answer, held, since })
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        self.answer.poll(cx)
    }

    /// Returns the time at which a call gives up that may wait in the queue until `give_up`.
    pub(super) fn gives_up(&self, give_up: Instant) -> Instant {
        give_up.max(self.since + GRACE)
    }

    /// Returns the time at which it was asked.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn into_held(self) -> Reservation {
        self.held
    }
}

/// A call that asks before it has joined the queue: what joining needs.
pub(super) struct Direct {
    pub(super) limiter: Limiter,
    pub(super) amount: Amount,
    pub(super) place: Place,
    /// The time until which it could wait in the queue.
    pub(super) give_up: Instant,
}
