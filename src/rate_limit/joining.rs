//! The decision on a call that cannot go at once: it joins the queue, or is refused.

use std::time::Duration;

use http::Request;
use tokio::time::Instant;

use super::{
    Amount, Limiter,
    queue::ScopeQueue,
    refusal::{self, Allowed},
    turns::{HORIZON, Place, WaiterId},
    window::MARGIN,
};
use crate::{
    call::Streaming,
    context::{BoxError, CallContext, CallRef, Claimant, Deadline},
    quota::Scope,
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

/// Queues a call that cannot be admitted before `at`, unless the gate is closed, the wait is longer than it is allowed, or
/// no answer could come in time after it. One that has asked the store takes the place at which it came.
#[expect(clippy::too_many_arguments, reason = "the parts of one decision, each read once")]
pub(super) fn join<B>(
    limiter: &Limiter,
    request: &Request<B>,
    call: &CallRef<'_>,
    queue: &ScopeQueue,
    amount: Amount,
    claimant: Claimant<'_>,
    now: Instant,
    at: Instant,
    place: Option<Place>,
) -> Result<Wait, BoxError> {
    if let Some(gate) = limiter.gate() {
        // All tiers of a model share its quota, and each has a capacity of its own.
        let model = call.capacity_name().unwrap_or_default();
        let project = CallContext::of(request).and_then(CallContext::project).unwrap_or(limiter.default_project());
        let scope = Scope::new(project.clone(), &*model);
        if let Some(closed) = gate.closed_for(&scope) {
            return Err(refusal::gate_closed(&scope, closed));
        }
    }
    let context = CallContext::of(request);
    let may_move = context.is_some_and(CallContext::may_move);
    // The time of its quickest answers is no time to wait in.
    let remaining = claimant.deadline.map(|deadline| {
        let quick = limiter
            .service_times()
            .and_then(|times| times.quick(&call.capacity_name()?, call.shape().streaming != Streaming::No));
        deadline.saturating_duration_since(now).saturating_sub(quick.unwrap_or_default())
    });
    let needed = at.saturating_duration_since(now);
    let max_wait = match (limiter.max_wait(queue.scope().model()), remaining) {
        (Some(max_wait), _) => max_wait,
        (None, Some(_)) => Duration::MAX,
        (None, None) => HORIZON,
    };
    // The limiter's own margin is not held against the caller: a max_wait of 60 s is a whole turn of the window.
    let allowed = if max_wait.is_zero() { max_wait } else { max_wait.saturating_add(MARGIN) };
    if let Some(remaining) = remaining.filter(|remaining| needed >= *remaining && *remaining <= allowed) {
        return Err(refusal::would_wait(queue, now, needed, Allowed::Deadline(remaining), may_move));
    }
    if needed > allowed || allowed.is_zero() {
        return Err(refusal::would_wait(queue, now, needed, Allowed::MaxWait(max_wait), may_move));
    }
    let is_last_call = remaining.is_some_and(|remaining| remaining <= allowed);
    let allowed = remaining.map_or(allowed, |remaining| remaining.min(allowed));
    let give_up = Deadline::after(allowed).instant();
    let grounded = call.shape().grounded;
    let waiter = queue.join(now, amount, may_move, grounded, claimant, place);
    Ok(Wait { waiter, since: now, give_up, is_last_call, may_move, at: None })
}
