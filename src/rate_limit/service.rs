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
    booking::Booking,
    desk::{Admission, Desk},
    future::Wait,
};
use crate::{
    call::{Call, Shape},
    context,
    error::BoxError,
    failure::{Failure, Kind},
    quota::{Certainty, Dimension, Scope, TokenCost},
    ready::Readied,
};

/// The service of [`RateLimitLayer`](super::RateLimitLayer).
#[derive(Clone, Debug)]
pub struct RateLimit<S> {
    pub(super) inner: S,
    pub(super) limiter: Option<Limiter>,
    /// The scope that was asked for last: most callers ask for the same one again.
    pub(super) last: Option<Last>,
}

/// A scope that need not be looked up.
#[derive(Clone, Debug)]
pub(super) struct Last {
    project: Arc<str>,
    model: Box<str>,
    desk: Arc<Desk>,
}

/// Bytes of a request's body to a token, where nobody has counted: natural text has 0.33 tokens a byte in the median.
const BYTES_PER_TOKEN: u64 = 3;

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

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Some(limiter) = &self.limiter else { return ResponseFuture::calling(self.inner.call(request), None) };
        let context = context::Context::of(&request);
        let pays = match context.and_then(context::Context::call) {
            Some(call) => call.pays_quota(),
            None => Shape::new(request.method(), request.uri()).pays_quota(),
        };
        if !pays {
            return ResponseFuture::calling(self.inner.call(request), None);
        }
        let now = Instant::now();
        let desk = desk(limiter, &mut self.last, &request, now);
        let cost = context.and_then(context::Context::token_cost).unwrap_or_else(|| estimate(request.body()));
        let amount = Amount { requests: 1, tokens: cost.tokens };
        let at = match desk.admit(now, amount) {
            Admission::Taken(receipt) => {
                let mut booking = Booking::new(desk, receipt);
                booking.send();
                return ResponseFuture::calling(self.inner.call(request), Some(booking));
            }
            Admission::Later(at) => at,
        };
        match self.wait(&request, &desk, cost, now, at) {
            Ok(wait) => ResponseFuture::waiting(Readied::take(&mut self.inner), request, desk, wait),
            Err(refusal) => ResponseFuture::refused(refusal),
        }
    }
}

impl<S> RateLimit<S> {
    /// How a call that has to wait until `at` may wait, or why it may not.
    fn wait<B>(
        &self,
        request: &Request<B>,
        desk: &Desk,
        cost: TokenCost,
        now: Instant,
        at: Instant,
    ) -> Result<Wait, Box<Refusal>> {
        let context = context::Context::of(request);
        let may_move = context.is_some_and(context::Context::may_move);
        let scope = self.last.as_ref().map(|last| Scope::new(last.project.clone(), &*last.model));
        let refusal = |failure| Err(Box::new(Refusal { failure, may_move }));
        let tokens = Dimension::InputTokensPerMinute;
        if let Some(limit) = desk.read(now, |account, _| account.limit(tokens, now))
            && cost.certainty == Certainty::AtLeast
            && cost.tokens > limit
        {
            let message = format!(
                "the request has {} input tokens or more, and the quota is {limit} {tokens}{}: it would never be \
                 admitted; shorten it, or ask another model or project",
                cost.tokens,
                of(&scope),
            );
            return refusal(Failure::local(Kind::LargerThanQuota, message));
        }
        let limiter = self.limiter.as_ref();
        let closed =
            limiter.and_then(Limiter::gate).zip(scope.as_ref()).and_then(|(gate, scope)| gate.closed_for(scope));
        if let Some(closed) = closed {
            let message = format!("the circuit is open for another {closed:.1?}{}", of(&scope));
            return refusal(Failure::local(Kind::CircuitOpen, message).with_hint(closed));
        }
        let needed = at.saturating_duration_since(now);
        let allowed = limiter.map(|limiter| limiter.max_wait(scope.as_ref().map(Scope::model))).unwrap_or_default();
        let remaining = context.and_then(context::Context::deadline).map(|deadline| deadline.remaining(now));
        if needed > allowed || remaining.is_some_and(|remaining| needed >= remaining) {
            let (allowed, cure) = match remaining {
                Some(remaining) if remaining < allowed => (remaining, "its deadline comes before; allow it more time"),
                _ => (allowed, "raise max_wait"),
            };
            let used = desk.read(now, |account, waiting| super::describe(account, waiting, now));
            let message = format!(
                "waited 0 s of {needed:.1?} needed, {allowed:.1?} are allowed: {used}{}; {cure}, or add a project",
                of(&scope),
            );
            return refusal(Failure::local(Kind::RateLimited, message).with_hint(needed));
        }
        let amount = Amount { requests: 1, tokens: cost.tokens };
        let give_up = now + remaining.map_or(allowed, |remaining| remaining.min(allowed));
        Ok(Wait { ticket: desk.join(amount, may_move), give_up, may_move })
    }
}

/// Why a call may not wait.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) failure: Failure,
    pub(super) may_move: bool,
}

fn of(scope: &Option<Scope>) -> String {
    scope.as_ref().map(|scope| format!(" for {scope}")).unwrap_or_default()
}

/// The desk for this request, most of the time the same as the last one's.
fn desk<B>(limiter: &Limiter, last: &mut Option<Last>, request: &Request<B>, now: Instant) -> Arc<Desk> {
    let context = context::Context::of(request);
    let project = context.and_then(context::Context::project).unwrap_or(limiter.default_project());
    let known = context.and_then(context::Context::call).and_then(Call::model);
    let read;
    let model = match known {
        Some(model) => model,
        None => {
            read = Call::model_in(request.uri()).unwrap_or_default();
            &read
        }
    };
    if let Some(last) = last
        && *last.model == *model
        && (Arc::ptr_eq(&last.project, project) || last.project == *project)
    {
        return last.desk.clone();
    }
    let desk = limiter.desk(project, model, now);
    *last = Some(Last { project: project.clone(), model: model.into(), desk: desk.clone() });
    desk
}

/// What a request costs of which nobody has said it.
fn estimate(body: &impl Body) -> TokenCost {
    let hint = body.size_hint();
    TokenCost::estimate(hint.upper().unwrap_or(hint.lower()) / BYTES_PER_TOKEN)
}
