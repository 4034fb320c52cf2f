//! The wait for a token of the budget, after the backoff.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    bucket::{CallerName, TokenTurn},
    budget::{RetryBudget, TokenClaim, TokenPlace},
};

pin_project! {
    /// A call's wait for a token of its model. Dropping it leaves the line.
    pub(super) struct TokenWait {
        budget: RetryBudget,
        model: Arc<str>,
        caller: CallerName,
        since: Instant,
        // The time from which on a token can no longer help.
        give_up: Instant,
        place: Option<TokenPlace>,
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl TokenWait {
    pub(super) fn new(
        budget: RetryBudget,
        model: Arc<str>,
        caller: CallerName,
        since: Instant,
        give_up: Instant,
    ) -> Self {
        Self { budget, model, caller, since, give_up, place: None, sleep: None }
    }

    /// Returns the time since the wait began.
    pub(super) fn waited(&self) -> Duration {
        self.since.elapsed()
    }

    /// Waits for a token, and returns whether there was one in time.
    pub(super) fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        let mut this = self.project();
        let taken = loop {
            let now = Instant::now();
            let turn = match this.place {
                Some(place) => place.poll(now, cx.waker()),
                None => match this.budget.claim(this.model, this.caller, now) {
                    TokenClaim::Taken => break true,
                    TokenClaim::Full => break false,
                    TokenClaim::Waits(place) => this.place.insert(place).poll(now, cx.waker()),
                },
            };
            let until = match turn {
                TokenTurn::Taken(_) => break true,
                _ if now >= *this.give_up => break false,
                TokenTurn::At(at) => at.min(*this.give_up),
                TokenTurn::NotYet => *this.give_up,
            };
            match this.sleep.as_mut().as_pin_mut() {
                Some(timer) if timer.deadline() != until => timer.reset(until),
                Some(_) => {}
                None => this.sleep.set(Some(sleep_until(until))),
            }
            if let Some(timer) = this.sleep.as_mut().as_pin_mut() {
                ready!(timer.poll(cx));
            }
        };
        // Nothing of a wait outlives its end.
        *this.place = None;
        this.sleep.set(None);
        Poll::Ready(taken)
    }
}
