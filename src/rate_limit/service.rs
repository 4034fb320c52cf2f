//! The service: decides whether a call goes at once, waits or is refused.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower_service::Service;

use super::{
    Amount, Limiter, RateLimitBody, ResponseFuture,
    queue::{QueueAdmission, ScopeQueue},
    refusal::{self, Allowed},
    reservation::Reservation,
    turns::HORIZON,
    waiting::{self, Wait, Waiting},
    window::MARGIN,
};
use crate::{
    call::Streaming,
    context::{BoxError, CallContext, CallRef, Claimant, Deadline},
    quota::{Scope, TokenCost},
    ready::Readied,
};

/// The service of [`RateLimitLayer`](super::RateLimitLayer).
#[derive(Clone, Debug)]
pub struct RateLimit<S> {
    pub(super) inner: S,
    pub(super) limiter: Option<Limiter>,
    /// The queue of the last call's scope: most callers call the same scope again.
    pub(super) last: Option<Arc<ScopeQueue>>,
}

crate::macros::accessors!(RateLimit);

impl<S, B, R> Service<Request<B>> for RateLimit<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Body,
    R: Body,
{
    type Response = Response<RateLimitBody<R>>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Some(limiter) = &self.limiter else { return ResponseFuture::calling(self.inner.call(request), None) };
        match decide(limiter, &mut self.last, &request) {
            Disposition::Free => ResponseFuture::calling(self.inner.call(request), None),
            Disposition::Taken(reservation) => ResponseFuture::calling(self.inner.call(request), Some(reservation)),
            Disposition::Wait(queue, wait) => {
                ResponseFuture::waiting(Waiting::new(Readied::take(&mut self.inner), request, queue, wait))
            }
            Disposition::Refused(error) => ResponseFuture::refused(error),
        }
    }
}

/// The decision on a call.
enum Disposition {
    /// It goes at once and pays nothing.
    Free,
    /// It goes at once, with its reservation.
    Taken(Reservation),
    /// It waits in that queue.
    Wait(Arc<ScopeQueue>, Wait),
    Refused(BoxError),
}

/// Decides on a call: reserves its cost, queues it, or refuses it.
fn decide<B: Body>(limiter: &Limiter, last: &mut Option<Arc<ScopeQueue>>, request: &Request<B>) -> Disposition {
    let context = CallContext::of(request);
    let call = CallRef::with(context, request);
    if !call.pays_quota() {
        return Disposition::Free;
    }
    let now = Instant::now();
    let project = context.and_then(CallContext::project).unwrap_or(limiter.default_project());
    let scope = (&**project, call.quota_name().unwrap_or_default());
    let queue = queue_of(limiter, last, scope, now);
    let cost = context.and_then(CallContext::token_cost).unwrap_or_else(|| TokenCost::of(request.body()));
    let may_move = || context.is_some_and(CallContext::may_move);
    let amount = Amount { requests: call.shape().requests.into(), tokens: cost.tokens };
    let claimant = waiting::claimant(request);
    let at = match queue.admit(now, call.shape().requests, cost, call.shape().grounded, claimant) {
        QueueAdmission::Taken(charge) => return Disposition::Taken(Reservation::new(queue.clone(), charge)),
        QueueAdmission::TooLarge(dimension, limit) => {
            let scope = Scope::new(scope.0, scope.1);
            return Disposition::Refused(refusal::too_large(&scope, amount, dimension, limit));
        }
        QueueAdmission::Shut(shut) => return Disposition::Refused(refusal::blocked(queue, now, shut, may_move())),
        QueueAdmission::Later(at) => at,
    };
    match join(limiter, request, &call, queue, amount, claimant, now, at) {
        Ok(wait) => Disposition::Wait(queue.clone(), wait),
        Err(refusal) => Disposition::Refused(refusal),
    }
}

/// Queues a call that cannot be admitted before `at`, unless the gate is closed, the wait is longer than it is allowed, or
/// no answer could come in time after it.
#[expect(clippy::too_many_arguments, reason = "the parts of one decision, each read once")]
fn join<B>(
    limiter: &Limiter,
    request: &Request<B>,
    call: &CallRef<'_>,
    queue: &ScopeQueue,
    amount: Amount,
    claimant: Claimant<'_>,
    now: Instant,
    at: Instant,
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
    let waiter = queue.join(now, amount, may_move, call.shape().grounded, claimant);
    Ok(Wait { waiter, since: now, give_up, is_last_call, may_move, at: None })
}

/// Returns the queue of a project and a model, which is mostly that of the last call.
fn queue_of<'a>(
    limiter: &Limiter,
    last: &'a mut Option<Arc<ScopeQueue>>,
    (project, model): (&str, &str),
    now: Instant,
) -> &'a Arc<ScopeQueue> {
    let known = last.take().filter(|last| last.scope().model() == model && last.scope().project() == project);
    last.insert(known.unwrap_or_else(|| limiter.queue(project, model, now)))
}
