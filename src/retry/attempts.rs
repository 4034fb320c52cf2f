//! The attempts of one call: what is known between them, and what becomes of each one's result.

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::{Request, Response};
use tokio::time::Instant;

use super::{
    decide::{Decision, History, Situation, decide, repeats_timeouts},
    policy::RetryPolicy,
    token_wait::TokenWait,
};
use crate::{
    body::{KeptRequest, Resend},
    call::Streaming,
    context::{BoxError, CallContext, CallRef, Deadline, Error, GaveUp, Outcome, RetryAdvice},
    failure::Failure,
};

/// A call under way. Not `Debug`: its request has keys in it.
pub(super) struct Attempts<B> {
    policy: Arc<RetryPolicy>,
    /// The request as it came, for the next attempt. `None`: it cannot be sent again.
    request: Option<KeptRequest<B>>,
    history: History,
}

/// The consequence of an attempt's result.
pub(super) enum Consequence<B, R> {
    /// The call is over.
    Done(Result<Response<R>, BoxError>),
    /// The request is sent again after `wait`. `failed`: the body of the failed answer, where there was one. `owes`: set
    /// if the attempt costs a token of the budget.
    Again { wait: Duration, request: Request<B>, failed: Option<R>, owes: Option<Box<LastFailure>> },
}

/// The failure that goes back if there is no token for a further attempt in time.
///
/// Of an answer, its head and body are not kept: they hold a connection, and whatever a layer inside frees with the
/// answer, and a call may wait for its token for an hour.
pub(super) struct LastFailure {
    failure: Failure,
    outcome: Outcome,
    error: Option<BoxError>,
}

/// The end of a failed call.
#[derive(Clone, Copy, Debug, Default)]
struct Ending {
    /// Why there is no further attempt. `None`: no attempt could change the result.
    reason: Option<GaveUp>,
    /// The wait that a further attempt would have needed, where the deadline comes before its end.
    needed: Option<Duration>,
}

impl<B: Resend> Attempts<B> {
    /// Begins a call and its first attempt, which it numbers in the request.
    #[inline]
    pub(super) fn begin(policy: &Arc<RetryPolicy>, request: &mut Request<B>) -> Self {
        let mut history = History::new(CallContext::of(request).map_or(0, CallContext::attempt));
        history.attempt_begins();
        let attempts = Self { request: KeptRequest::of(request), policy: policy.clone(), history };
        if let Some(context) = request.extensions_mut().get_mut::<CallContext>() {
            context.set_attempt(attempts.history.attempts());
            context.set_repeats_timeouts(attempts.has_next_after_timeout());
        }
        attempts
    }

    /// Begins a further attempt: writes into the request what the attempts before have shown.
    pub(super) fn begin_again(&mut self, request: &mut Request<B>) {
        self.history.attempt_begins();
        let history = &self.history;
        let retried = history.retried(Instant::now());
        let has_next = self.has_next_after_timeout();
        CallContext::update(request.extensions_mut(), |context| {
            context.set_attempt(history.attempts());
            context.set_failed_before(history.upstream_has_failed());
            context.set_timed_out(history.timed_out());
            context.set_repeats_timeouts(has_next);
            context.set_tried(history.tried());
            if let Some(retried) = retried {
                if let Some(tally) = context.tally() {
                    tally.add(|report| report.backed_off += retried.waited);
                }
                context.set_retried(retried);
            }
        });
    }

    /// Returns whether another attempt follows where a clock ends the present one, as far as that is known before.
    fn has_next_after_timeout(&self) -> bool {
        let Some(request) = &self.request else { return false };
        repeats_timeouts(&self.policy, &self.history, models_left(request)) && has_token(&self.policy, request)
    }

    /// Returns the instant at which the whole call has to be over.
    fn deadline(&self) -> Option<Deadline> {
        self.request.as_ref()?.context()?.deadline()
    }

    /// Takes note of a good answer, about which nothing is to be decided.
    #[inline]
    pub(super) fn succeeded<R>(&self, response: &mut Response<R>) {
        self.pay_back();
        let attempts = self.history.attempts();
        // A first answer that no other layer has marked stays unmarked, which costs nothing.
        if !Outcome::note_attempts(response, attempts) && !self.history.is_first() {
            Outcome::update(response, |outcome| outcome.with_attempts(attempts));
        }
    }

    /// Returns what follows from the result of an attempt that has failed.
    pub(super) fn follow<R>(&mut self, result: Result<Response<R>, BoxError>) -> Consequence<B, R> {
        let outcome = Outcome::of(&result);
        let Some(mut failure) = outcome.failure().cloned() else {
            self.pay_back();
            return Consequence::Done(self.finished(result, None));
        };
        self.history.suspect_content(&mut failure);
        if let Some(tried) = outcome.tried() {
            self.history.note_tried(tried);
        }
        match self.next(&failure, &outcome) {
            Ok((wait, request, owes)) => {
                self.history.note_failed(failure.kind(), Instant::now());
                let (failed, error) = match result {
                    Ok(response) => (Some(response.into_body()), None),
                    Err(error) => (None, Some(error)),
                };
                let owes = owes.then(|| Box::new(LastFailure { failure, outcome, error }));
                Consequence::Again { wait, request, failed, owes }
            }
            Err(ending) => Consequence::Done(self.finished(result, Some((failure, ending)))),
        }
    }

    /// Returns the wait before the next attempt, its request, and whether it owes a token; or why there is none.
    fn next(&mut self, failure: &Failure, outcome: &Outcome) -> Result<(Duration, Request<B>, bool), Ending> {
        let quick = self.quick();
        let deadline = self.deadline();
        let Self { policy, request, history } = self;
        let request = request.as_ref().ok_or(Ending::default())?;
        let models_left = models_left(request);
        let shape = request.call().shape();
        let situation = Situation {
            idempotency: shape.idempotency,
            repeatable_on_error: shape.repeatable_on_error,
            sent: outcome.was_sent(),
            models_left,
            remaining: deadline.map(|deadline| deadline.remaining(Instant::now())),
            quick,
        };
        match decide(policy, history, failure, advice_on(outcome), situation, fastrand::f64()) {
            Decision::GiveUp(reason) => Err(Ending { reason, needed: None }),
            Decision::TooLate(wait) => Err(Ending { reason: Some(GaveUp::Wait), needed: Some(wait) }),
            Decision::Again { wait, spends_budget } => {
                // The copy comes first: a token that was taken for none would be lost.
                let again = request.again().ok_or(Ending::default())?;
                let budget = policy.budget.as_ref().filter(|_| spends_budget);
                let has_paid = match budget {
                    // Another model can answer at once: a wait for a token here would use up the time that it needs.
                    Some(budget) if models_left > 0 => {
                        if !budget.try_take(&bucket_of(&request.call())) {
                            return Err(Ending { reason: Some(GaveUp::Budget), needed: None });
                        }
                        true
                    }
                    // No wait fills a budget of none.
                    Some(budget) if !budget.can_grow() => {
                        return Err(Ending { reason: Some(GaveUp::Budget), needed: None });
                    }
                    _ => false,
                };
                Ok((wait, again, budget.is_some() && !has_paid))
            }
        }
    }

    /// Returns the time of the quickest of the last answers to such a call, where it counts and is known.
    fn quick(&self) -> Option<Duration> {
        let (times, request, _) = (self.policy.times.as_ref()?, self.request.as_ref()?, self.deadline()?);
        let call = request.call();
        // A count of tokens and other questions to a model are answered in another time.
        let name = call.capacity_name().filter(|_| call.pays_quota())?;
        times.quick(&name, call.shape().streaming != Streaming::No)
    }

    /// Begins the wait for the token that the next attempt costs. `None`: it costs none.
    pub(super) fn wait_for_token(&self) -> Option<TokenWait> {
        let (budget, request) = (self.policy.budget.as_ref()?, self.request.as_ref()?);
        let now = Instant::now();
        let give_up = self.history.give_up_at(now, self.deadline(), self.quick());
        let caller = request.context().and_then(|context| context.caller().cloned());
        Some(TokenWait::new(budget.clone(), bucket_of(&request.call()).into(), caller, now, give_up))
    }

    /// Takes note of a wait for a token.
    pub(super) fn note_token_wait(&mut self, waited: Duration) {
        self.history.note_token_wait(waited);
    }

    /// Returns the result of a call for which there was no token in time: the last attempt's failure.
    pub(super) fn without_token<R>(&self, last: LastFailure) -> Result<Response<R>, BoxError> {
        let LastFailure { failure, outcome, error } = last;
        // The time was spent waiting, and not by the layers.
        let tally = self.request.as_ref().and_then(KeptRequest::context).and_then(CallContext::tally);
        if let Some((tally, retried)) = tally.zip(self.history.retried(Instant::now())) {
            tally.add(|report| report.backed_off += retried.waited);
        }
        let error = error.unwrap_or_else(|| {
            // The upstream's own failure, as it would have been without this layer, but for the body.
            Error::refusal(super::NAME, failure.clone()).map_outcome(|_| outcome).into()
        });
        let ending = Ending { reason: Some(GaveUp::Budget), needed: None };
        self.finished(Err(error), Some((failure, ending)))
    }

    /// Gives one retry back to the budget after a success.
    fn pay_back(&self) {
        if let Some(budget) = self.policy.budget.as_ref().filter(|budget| budget.is_in_use())
            && let Some(request) = &self.request
        {
            budget.deposit(&bucket_of(&request.call()));
        }
    }

    /// Returns the result of a call whose service never became ready for its next attempt.
    pub(super) fn unready<R>(&self, error: BoxError) -> Result<Response<R>, BoxError> {
        self.finished(Err(error), None)
    }
}

impl<B> Attempts<B> {
    /// Returns the number of attempts so far.
    pub(super) fn number(&self) -> u32 {
        self.history.attempts()
    }

    fn finished<R>(
        &self,
        result: Result<Response<R>, BoxError>,
        failure: Option<(Failure, Ending)>,
    ) -> Result<Response<R>, BoxError> {
        finished(result, self.history.attempts(), self.history.is_first(), failure)
    }
}

/// Begins a call that is sent once only: numbers its attempt in the request, and returns the number.
pub(super) fn begin_only<B>(request: &mut Request<B>) -> u32 {
    let Some(context) = request.extensions_mut().get_mut::<CallContext>() else { return 1 };
    let number = context.attempt().saturating_add(1);
    context.set_attempt(number);
    context.set_repeats_timeouts(false);
    number
}

/// Returns the result of a call that is sent once only: nothing is decided by it.
#[inline]
pub(super) fn of_only<R>(mut result: Result<Response<R>, BoxError>, number: u32) -> Result<Response<R>, BoxError> {
    if let Ok(response) = &mut result
        && response.extensions().get::<Outcome>().is_none_or(|outcome| outcome.failure().is_none())
    {
        // An answer that no other layer has marked stays unmarked.
        Outcome::note_attempts(response, number);
        return result;
    }
    let failure = Outcome::of(&result).failure().cloned();
    finished(result, number, true, failure.map(|failure| (failure, Ending::default())))
}

/// Writes into the result how many attempts it took, and why there is no further one. `is_first`: it is that of a first
/// attempt.
fn finished<R>(
    result: Result<Response<R>, BoxError>,
    attempts: u32,
    is_first: bool,
    failure: Option<(Failure, Ending)>,
) -> Result<Response<R>, BoxError> {
    let gave_up = failure.as_ref().is_some_and(|(_, ending)| ending.reason.is_some());
    let write = |outcome: Outcome| {
        let outcome = outcome.with_attempts(attempts);
        let Some((failure, Ending { reason, needed })) = failure else { return outcome };
        let mut outcome = outcome.with_failure(failure);
        if let Some(reason) = reason {
            outcome = outcome.with_gave_up(reason);
        }
        match needed {
            Some(needed) => outcome.with_retry(RetryAdvice::After(needed)),
            None => outcome,
        }
    };
    match result {
        Ok(mut response) => {
            // A first answer that no other layer has marked stays unmarked, which costs nothing.
            if gave_up || !is_first || response.extensions().get::<Outcome>().is_some() {
                Outcome::update(&mut response, write);
            }
            Ok(response)
        }
        Err(error) => Err(Error::map(error, super::NAME, write)),
    }
}

/// Returns the advice on retrying. A call that a layer inside has refused because it may not wait as long as it would
/// have to, does not wait here either: it can only go elsewhere at once.
fn advice_on(outcome: &Outcome) -> Option<RetryAdvice> {
    let advice = outcome.retry();
    let may_wait = outcome.was_sent() || outcome.gave_up() != Some(GaveUp::Wait);
    match advice {
        Some(RetryAdvice::Now | RetryAdvice::Queued) => advice,
        _ if may_wait => advice,
        _ => Some(RetryAdvice::Never),
    }
}

/// Returns how many other models may still be tried.
fn models_left<B: Resend>(request: &KeptRequest<B>) -> u32 {
    request.context().map_or(0, CallContext::models_left)
}

/// Returns whether the budget has a token for a further attempt of this call now.
fn has_token<B: Resend>(policy: &RetryPolicy, request: &KeptRequest<B>) -> bool {
    match &policy.budget {
        None => true,
        Some(budget) if !budget.is_in_use() => budget.can_grow(),
        Some(budget) => budget.has_token(&bucket_of(&request.call())),
    }
}

/// Names the bucket of a call: by its model, with the tier where it is not the standard one, because a tier that is full
/// must not spend the retries of another. All calls without a name share the bucket without one.
fn bucket_of<'a>(call: &'a CallRef<'_>) -> Cow<'a, str> {
    call.capacity_name().unwrap_or_default()
}
