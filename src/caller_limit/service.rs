//! The service: decides whether a call goes, goes with a lower priority, or is refused.

use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower_service::Service;

use super::{
    CallerLimitBody, CallerLimits, ResponseFuture,
    accounts::CallerAdmission,
    future::CallerAsking,
    inquiry::{CallerInquiry, CallerQuestion},
    refusal,
    reservation::{Bill, CallerReservation, OutputGuess},
};
use crate::{
    call::Operation,
    context::{BoxError, CallContext, CallRef, Priority},
    quota::{Certainty, TokenCost},
    ready::Readied,
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
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Body,
    R: Body,
{
    type Response = Response<CallerLimitBody<R>>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        match &self.limits {
            None => ResponseFuture::calling(self.inner.call(request), None),
            Some(limits) => limited(&mut self.inner, limits, self.gives_back_unsent, request),
        }
    }
}

/// Calls the service, if the caller's limits let the call go at once.
fn limited<S, B>(
    inner: &mut S,
    limits: &CallerLimits,
    gives_back_unsent: bool,
    mut request: Request<B>,
) -> ResponseFuture<S, B, S::Future>
where
    S: Service<Request<B>> + Clone,
    B: Body,
{
    match decide(limits, &request) {
        None => ResponseFuture::calling(inner.call(request), None),
        Some(CallerDecision::Goes(mut admitted)) => {
            admitted.prepare(&mut request, gives_back_unsent);
            ResponseFuture::calling(inner.call(request), admitted.reservation)
        }
        Some(CallerDecision::Asks(inquiry)) => {
            let inner = Readied::take(inner);
            ResponseFuture::asking(CallerAsking { inner, request, inquiry, gives_back_unsent })
        }
        Some(CallerDecision::Refused(error)) => ResponseFuture::refused(error),
    }
}

/// The decision on a call of a caller.
enum CallerDecision {
    Goes(AdmittedCall),
    /// It goes if the store admits it, which answers later.
    Asks(Box<CallerInquiry>),
    Refused(BoxError),
}

/// A call that goes.
pub(super) struct AdmittedCall {
    pub(super) reservation: Option<CallerReservation>,
    /// The priority to which it is lowered.
    pub(super) priority: Option<Priority>,
}

impl AdmittedCall {
    /// Writes into the request's context what the layers inside have to know.
    #[inline]
    pub(super) fn prepare<B>(&mut self, request: &mut Request<B>, gives_back_unsent: bool) {
        let to_watch = self.reservation.as_mut().filter(|_| gives_back_unsent);
        if self.priority.is_none() && to_watch.is_none() {
            return;
        }
        CallContext::update(request.extensions_mut(), |context| {
            if let Some(priority) = self.priority {
                context.set_priority(context.priority().max(priority));
            }
            if let Some(reservation) = to_watch {
                reservation.lasts_if_sent(context.watch_for_sending());
            }
        });
    }
}

/// Decides on a call. `None`: it has no caller, or costs nothing.
fn decide<B: Body>(limits: &CallerLimits, request: &Request<B>) -> Option<CallerDecision> {
    let context = CallContext::of(request)?;
    let caller = context.caller()?;
    let call = CallRef::with(Some(context), request);
    let name = call.quota_name();
    // Work that begins here and is billed later: batches, long-running predictions, tuning.
    let is_job = call.operation() == Operation::Write && name.is_some();
    if !call.pays_quota() && !is_job {
        return None;
    }
    let model = name.unwrap_or_default();
    let (priority, settings) = limits.rules(caller, model);
    let Some(settings) = settings else {
        return Some(CallerDecision::Goes(AdmittedCall { reservation: None, priority }));
    };
    let tier = call.shape().tier;
    let shared_model = if settings.prices.is_empty() { None } else { call.shared_quota_name(None) };
    let bill = Bill { model: shared_model, tier, guess: OutputGuess::of(call.shape()), settings };
    let now = Instant::now();
    let quota = bill.settings.quota(caller);
    let tokens = match context.token_count() {
        // Where only requests are limited nothing depends on the number until the answer says the real one.
        Some(count) => count.cost_if(|| quota.depends_on_tokens(model)),
        None => TokenCost::of(request.body()),
    };
    let entry = limits.entry(caller, &bill.settings, now);
    let cost = bill.before(call.shape().requests.into(), tokens.tokens);
    let is_proven = tokens.certainty == Certainty::AtLeast;
    let (charge, past) = match entry.admit(now, quota, model, cost, is_proven) {
        CallerAdmission::Charged { charge, past } => (charge, past),
        CallerAdmission::Refused { shortage, of_model } => {
            let error = refusal::refused(entry.caller(), of_model.then_some(model), shortage, now);
            return Some(CallerDecision::Refused(error));
        }
    };
    let priority = if past.any() { Some(Priority::Batch) } else { priority };
    let asked = bill.settings.store.clone().map(|store| (store, CallerQuestion::all(quota, model, cost, past)));
    let reservation = CallerReservation::new(entry, charge, bill);
    Some(match asked.filter(|(_, questions)| questions.iter().any(Option::is_some)) {
        Some((store, questions)) => {
            let deadline = context.claimant().deadline;
            ask(CallerInquiry::new(reservation, store, model, priority, questions, deadline))
        }
        None => CallerDecision::Goes(AdmittedCall { reservation: Some(reservation), priority }),
    })
}

/// Asks the store, and decides where it answers at once.
fn ask(mut inquiry: CallerInquiry) -> CallerDecision {
    match inquiry.ask() {
        Ok(true) => {
            let (reservation, priority) = inquiry.admitted();
            CallerDecision::Goes(AdmittedCall { reservation: Some(reservation), priority })
        }
        Ok(false) => CallerDecision::Asks(Box::new(inquiry)),
        Err(error) => CallerDecision::Refused(error),
    }
}
