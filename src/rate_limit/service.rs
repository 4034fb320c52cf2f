//! The service: decides whether a call goes at once, waits or is refused.

use std::task::{Context, Poll};

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
    waiting::Waiting,
};
use crate::{
    context::{BoxError, CallContext, CallRef, Claimant, Deadline},
    quota::{Answer, AwaitedAnswer, Reply, Scope, TokenCost},
    ready::Readied,
    recent::Held,
};

/// The service of [`RateLimitLayer`](super::RateLimitLayer).
#[derive(Clone, Debug)]
pub struct RateLimit<S> {
    pub(super) inner: S,
    pub(super) limiter: Option<Limiter>,
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
        match &self.limiter {
            None => ResponseFuture::calling(self.inner.call(request), None),
            Some(limiter) => limited(&mut self.inner, limiter, request),
        }
    }
}

/// Calls the service, if the call may go at once.
fn limited<S, B>(inner: &mut S, limiter: &Limiter, request: Request<B>) -> ResponseFuture<S, B, S::Future>
where
    S: Service<Request<B>> + Clone,
    B: Body,
{
    match decide(limiter, &request) {
        Ok(reservation) => ResponseFuture::calling(inner.call(request), reservation),
        Err(detained) => detain(inner, request, detained),
    }
}

#[cold]
fn detain<S, B>(inner: &mut S, request: Request<B>, detained: Detained) -> ResponseFuture<S, B, S::Future>
where
    S: Service<Request<B>> + Clone,
{
    match detained {
        Detained::Waits(queue, wait) => {
            ResponseFuture::waiting(Waiting::new(Readied::take(inner), request, queue, wait))
        }
        Detained::Asks(queue, asking, direct) => {
            ResponseFuture::waiting(Waiting::asking(Readied::take(inner), request, queue, asking, direct))
        }
        Detained::Refused(error) => ResponseFuture::refused(error),
    }
}

/// The reason why a call does not go at once.
enum Detained {
    /// It waits in that queue.
    Waits(Held<ScopeQueue>, Wait),
    /// The store is asked, which answers later.
    Asks(Held<ScopeQueue>, Box<Asking>, Box<Direct>),
    Refused(BoxError),
}

/// Decides on a call: reserves its cost, queues it, or refuses it. A call that pays nothing goes without a reservation.
fn decide<B: Body>(limiter: &Limiter, request: &Request<B>) -> Result<Option<Reservation>, Detained> {
    let context = CallContext::of(request);
    let call = CallRef::with(context, request);
    if !call.pays_quota() {
        return Ok(None);
    }
    let now = Instant::now();
    let project = context.and_then(CallContext::project).unwrap_or(limiter.default_project());
    let scope = (&**project, call.quota_name().unwrap_or_default());
    let queue = limiter.queue(scope.0, scope.1, now);
    let cost = match context.and_then(CallContext::token_count) {
        // Without a limit of tokens nothing depends on the number until the answer says the real one.
        Some(count) => count.cost_if(|| queue.limits_tokens()),
        None => TokenCost::of(request.body()),
    };
    let may_move = || context.is_some_and(CallContext::may_move);
    let amount = Amount { requests: call.shape().requests.into(), tokens: cost.tokens };
    let claimant = context.map_or(Claimant::default(), CallContext::claimant);
    let mut place = None;
    let at = match queue.admit(now, call.shape().requests, cost, call.shape().grounded, claimant) {
        QueueAdmission::Taken(charge) => return Ok(Some(Reservation::new(queue, charge))),
        QueueAdmission::TooLarge(dimension, limit) => {
            let scope = Scope::new(scope.0, scope.1);
            return Err(Detained::Refused(refusal::too_large(&scope, amount, dimension, limit)));
        }
        QueueAdmission::Shut(shut) => return Err(Detained::Refused(refusal::blocked(&queue, now, shut, may_move()))),
        QueueAdmission::Later(at) => at,
        QueueAdmission::Ask(charge, question, asked_at) => {
            let mut held = Reservation::new(queue.clone(), charge);
            match queue.ask(question) {
                Reply::Now(Answer::Granted(grant)) => {
                    held.granted(now, None, grant);
                    held.send(now);
                    return Ok(Some(held));
                }
                Reply::Now(answer) => held.denied(now, None, answer),
                Reply::Later(answer) => {
                    let give_up = limiter.max_wait(scope.1).unwrap_or(HORIZON);
                    let give_up = Deadline::after(give_up).instant();
                    let direct = Direct { limiter: limiter.clone(), amount, place: asked_at, give_up };
                    return Err(Detained::Asks(
                        queue,
                        Asking::new(AwaitedAnswer::new(answer), held, now),
                        Box::new(direct),
                    ));
                }
            }
            place = Some(asked_at);
            match queue.outlook(now, amount, call.shape().grounded, claimant) {
                Outlook::Shut(shut) => return Err(Detained::Refused(refusal::blocked(&queue, now, shut, may_move()))),
                Outlook::Later(at) => at,
            }
        }
    };
    match join(limiter, request, &call, &queue, amount, claimant, now, at, place) {
        Ok(wait) => Err(Detained::Waits(queue, wait)),
        Err(refusal) => Err(Detained::Refused(refusal)),
    }
}
