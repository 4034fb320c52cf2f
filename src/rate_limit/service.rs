//! The service: decides whether a call goes at once, waits or is refused.

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
    asking::{Asking, Direct},
    joining::{Wait, join},
    queue::{Outlook, QueueAdmission, ScopeQueue},
    refusal,
    reservation::Reservation,
    turns::HORIZON,
    waiting::{self, Waiting},
};
use crate::{
    context::{BoxError, CallContext, CallRef, Deadline, TokenCount},
    quota::{Answer, AwaitedAnswer, Reply, Scope, TokenCost},
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
            Disposition::Ask(queue, asking, direct) => {
                ResponseFuture::waiting(Waiting::asking(Readied::take(&mut self.inner), request, queue, asking, direct))
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
    /// The store is asked, which answers later.
    Ask(Arc<ScopeQueue>, Box<Asking>, Box<Direct>),
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
    let count = context.and_then(CallContext::token_count);
    let cost = match count {
        Some(count) if queue.limits_tokens() => Some(count.cost()),
        // The answer says the real number, and until then nothing depends on it.
        count => count.and_then(TokenCount::known),
    };
    let cost = cost.unwrap_or_else(|| TokenCost::of(request.body()));
    let may_move = || context.is_some_and(CallContext::may_move);
    let amount = Amount { requests: call.shape().requests.into(), tokens: cost.tokens };
    let claimant = waiting::claimant(request);
    let mut place = None;
    let at = match queue.admit(now, call.shape().requests, cost, call.shape().grounded, claimant) {
        QueueAdmission::Taken(charge) => return Disposition::Taken(Reservation::new(queue.clone(), charge)),
        QueueAdmission::TooLarge(dimension, limit) => {
            let scope = Scope::new(scope.0, scope.1);
            return Disposition::Refused(refusal::too_large(&scope, amount, dimension, limit));
        }
        QueueAdmission::Shut(shut) => return Disposition::Refused(refusal::blocked(queue, now, shut, may_move())),
        QueueAdmission::Later(at) => at,
        QueueAdmission::Ask(charge, question, asked_at) => {
            let mut held = Reservation::new(queue.clone(), charge);
            match queue.ask(question) {
                Reply::Now(Answer::Granted(grant)) => {
                    held.granted(now, None, grant);
                    held.send(now);
                    return Disposition::Taken(held);
                }
                Reply::Now(answer) => held.denied(now, None, answer),
                Reply::Later(answer) => {
                    let give_up = limiter.max_wait(scope.1).unwrap_or(HORIZON);
                    let give_up = Deadline::after(give_up).instant();
                    let direct = Direct { limiter: limiter.clone(), amount, place: asked_at, give_up };
                    return Disposition::Ask(
                        queue.clone(),
                        Asking::new(AwaitedAnswer::new(answer), held, now),
                        Box::new(direct),
                    );
                }
            }
            place = Some(asked_at);
            match queue.outlook(now, amount, call.shape().grounded, claimant) {
                Outlook::Shut(shut) => return Disposition::Refused(refusal::blocked(queue, now, shut, may_move())),
                Outlook::Later(at) => at,
            }
        }
    };
    match join(limiter, request, &call, queue, amount, claimant, now, at, place) {
        Ok(wait) => Disposition::Wait(queue.clone(), wait),
        Err(refusal) => Disposition::Refused(refusal),
    }
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
