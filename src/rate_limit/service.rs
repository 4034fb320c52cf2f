use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower_service::Service;

use super::{
    Amount, Limiter, RateLimitBody, ResponseFuture,
    queue::{Admission, ScopeQueue},
    refusal::{self, Allowed},
    reservation::Reservation,
    waiting::{Wait, Waiting},
    window::MARGIN,
};
use crate::{
    call::Call,
    context,
    context::BoxError,
    quota::{Scope, TokenCost},
    ready::Readied,
};

/// The service of [`RateLimitLayer`](super::RateLimitLayer).
#[derive(Clone, Debug)]
pub struct RateLimit<S> {
    pub(super) inner: S,
    pub(super) limiter: Option<Limiter>,
    /// Where the last call was admitted: most callers ask for the same scope again.
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
        match ask(limiter, &mut self.last, &request) {
            Answer::Free => ResponseFuture::calling(self.inner.call(request), None),
            Answer::Taken(reservation) => ResponseFuture::calling(self.inner.call(request), Some(reservation)),
            Answer::Wait(queue, wait) => {
                ResponseFuture::waiting(Waiting::new(Readied::take(&mut self.inner), request, queue, wait))
            }
            Answer::Refused(error) => ResponseFuture::refused(error),
        }
    }
}

/// What becomes of a call.
enum Answer {
    /// It pays nothing.
    Free,
    Taken(Reservation),
    Wait(Arc<ScopeQueue>, Wait),
    Refused(BoxError),
}

fn ask<B: Body>(limiter: &Limiter, last: &mut Option<Arc<ScopeQueue>>, request: &Request<B>) -> Answer {
    let context = context::CallContext::of(request);
    let read;
    let (pays, model) = match context.and_then(context::CallContext::call) {
        Some(call) => (call.pays_quota(), call.model()),
        None => {
            read = Call::borrowed(request.method(), request.uri());
            (read.0.pays_quota(), read.1.as_deref())
        }
    };
    if !pays {
        return Answer::Free;
    }
    let now = Instant::now();
    let project = context.and_then(context::CallContext::project).unwrap_or(limiter.default_project());
    let scope = (&**project, model.unwrap_or_default());
    let queue = queue(limiter, last, scope, now);
    let cost = context.and_then(context::CallContext::token_cost).unwrap_or_else(|| TokenCost::of(request.body()));
    let at = match queue.admit(now, cost) {
        Admission::Taken(charge) => return Answer::Taken(Reservation::new(queue.clone(), charge)),
        Admission::TooLarge(limit) => {
            return Answer::Refused(refusal::too_large(&Scope::new(scope.0, scope.1), cost.tokens, limit));
        }
        Admission::Later(at) => at,
    };
    match wait(limiter, request, scope, queue, cost, now, at) {
        Ok(wait) => Answer::Wait(queue.clone(), wait),
        Err(refusal) => Answer::Refused(refusal),
    }
}

/// How a call that has to wait until `at`, at least, may wait; or why it may not.
fn wait<B>(
    limiter: &Limiter,
    request: &Request<B>,
    scope: (&str, &str),
    queue: &ScopeQueue,
    cost: TokenCost,
    now: Instant,
    at: Instant,
) -> Result<Wait, BoxError> {
    if let Some(gate) = limiter.gate() {
        let scope = Scope::new(scope.0, scope.1);
        if let Some(closed) = gate.closed_for(&scope) {
            return Err(refusal::gate_closed(&scope, closed));
        }
    }
    let context = context::CallContext::of(request);
    let may_move = context.is_some_and(context::CallContext::may_move);
    let remaining = context.and_then(context::CallContext::deadline).map(|deadline| deadline.remaining(now));
    let needed = at.saturating_duration_since(now);
    let max_wait = limiter.max_wait(queue.scope().model());
    // The limiter's own margin is not held against the caller: a max_wait of a minute is a turn of the window.
    let allowed = if max_wait.is_zero() { max_wait } else { max_wait.saturating_add(MARGIN) };
    if let Some(remaining) = remaining.filter(|remaining| needed >= *remaining && *remaining <= allowed) {
        return Err(refusal::would_wait(queue, now, needed, Allowed::Deadline(remaining), may_move));
    }
    if needed > allowed || allowed.is_zero() {
        return Err(refusal::would_wait(queue, now, needed, Allowed::MaxWait(max_wait), may_move));
    }
    let allowed = remaining.map_or(allowed, |remaining| remaining.min(allowed));
    let give_up = context::Deadline::after(allowed).instant();
    let waiter = queue.join(now, Amount { requests: 1, tokens: cost.tokens }, may_move);
    Ok(Wait { waiter, since: now, give_up, may_move })
}

/// The queue for a project and a model, most of the time the same as the last one's.
fn queue<'a>(
    limiter: &Limiter,
    last: &'a mut Option<Arc<ScopeQueue>>,
    (project, model): (&str, &str),
    now: Instant,
) -> &'a Arc<ScopeQueue> {
    let known = last.take().filter(|last| last.scope().model() == model && last.scope().project() == project);
    last.insert(known.unwrap_or_else(|| limiter.queue(project, model, now)))
}
