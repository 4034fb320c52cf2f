//! The service: decides whether a call goes, goes with a lower priority, or is refused.

use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower_service::Service;

use super::{
    CallerLimitBody, CallerLimits, ResponseFuture,
    accounts::CallerAdmission,
    refusal,
    reservation::{Bill, CallerReservation, OutputGuess},
};
use crate::{
    call::Operation,
    context::{BoxError, CallContext, CallRef, Priority},
    quota::{Certainty, TokenCost},
};

/// The service of [`CallerLimitLayer`](super::CallerLimitLayer).
#[derive(Clone, Debug)]
pub struct CallerLimit<S> {
    pub(super) inner: S,
    pub(super) limits: Option<CallerLimits>,
    pub(super) gives_back_unsent: bool,
}

crate::macros::accessors!(CallerLimit);

impl<S, B, R> Service<Request<B>> for CallerLimit<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    B: Body,
    R: Body,
{
    type Response = Response<CallerLimitBody<R>>;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let decision = self.limits.as_ref().and_then(|limits| decide(limits, &request));
        let (mut reservation, priority) = match decision {
            None => (None, None),
            Some(Ok(AdmittedCall { reservation, priority })) => (reservation, priority),
            Some(Err(error)) => return ResponseFuture::refused(error),
        };
        let to_watch = reservation.as_mut().filter(|_| self.gives_back_unsent);
        if priority.is_some() || to_watch.is_some() {
            CallContext::update(request.extensions_mut(), |context| {
                if let Some(priority) = priority {
                    context.set_priority(context.priority().max(priority));
                }
                if let Some(reservation) = to_watch {
                    reservation.lasts_if_sent(context.watch_for_sending());
                }
            });
        }
        ResponseFuture::calling(self.inner.call(request), reservation)
    }
}

/// A call that goes.
struct AdmittedCall {
    reservation: Option<CallerReservation>,
    /// The priority to which it is lowered.
    priority: Option<Priority>,
}

/// Decides on a call. `None`: it has no caller, or costs nothing.
fn decide<B: Body>(limits: &CallerLimits, request: &Request<B>) -> Option<Result<AdmittedCall, BoxError>> {
    let context = CallContext::of(request)?;
    let caller = context.caller()?;
    let call = CallRef::with(Some(context), request);
    let name = call.quota_name();
    // Work that begins here and is billed later: batches, long-running predictions, tuning.
    let is_job = call.operation() == Operation::Write && name.is_some();
    if !call.pays_quota() && !is_job {
        return None;
    }
    let settings = limits.settings();
    let quota = settings.quota(caller).clone();
    let model = name.unwrap_or_default();
    let priority = quota.priority_of(quota.of_model(model));
    if !quota.has_limits() {
        return Some(Ok(AdmittedCall { reservation: None, priority }));
    }
    let tokens = context.token_cost().unwrap_or_else(|| TokenCost::of(request.body()));
    let tier = call.shape().tier;
    let shared_model = if settings.prices.is_empty() { None } else { call.shared_quota_name(None) };
    let bill = Bill { model: shared_model, tier, guess: OutputGuess::of(call.shape()), settings };
    let now = Instant::now();
    let entry = limits.entry(caller, &bill.settings, now);
    let cost = bill.before(call.shape().requests.into(), tokens.tokens);
    let is_proven = tokens.certainty == Certainty::AtLeast;
    Some(match entry.admit(now, &quota, model, cost, is_proven) {
        CallerAdmission::Charged { charge, past } => {
            let priority = if past { Some(Priority::Batch) } else { priority };
            Ok(AdmittedCall { reservation: Some(CallerReservation::new(entry, charge, bill)), priority })
        }
        CallerAdmission::Refused { shortage, of_model } => {
            Err(refusal::refused(entry.caller(), of_model.then_some(model), shortage, now))
        }
    })
}
