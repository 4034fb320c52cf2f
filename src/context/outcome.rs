//! The outcome of a call, and the advice on retrying.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Response, StatusCode};

use super::{Tried, Usage};
use crate::{
    call::Call,
    context::{BoxError, Error},
    failure::{Failure, Fault},
};

/// The word that comes out with the response and with the error: what has become of the call.
///
/// ```
/// use tower_gemini::{Outcome, failure::Fault};
///
/// // No layer has written an outcome: it is read from the status.
/// let response = http::Response::builder().status(503).body(()).unwrap();
/// let outcome = Outcome::of(&Ok(response));
/// assert_eq!(outcome.failure().map(|failure| failure.fault()), Some(Fault::Model));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    failure: Option<Failure>,
    retry: Option<RetryAdvice>,
    gave_up: Option<GaveUp>,
    sent: bool,
    unkept: Option<Unkept>,
    committed: bool,
    attempts: u32,
    is_counted: bool,
    is_key_spared: bool,
    call: Option<Call>,
    model: Option<Arc<str>>,
    key: Option<Arc<str>>,
    project: Option<Arc<str>>,
    tried: Option<Tried>,
    usage: Option<Usage>,
}

impl Outcome {
    /// Returns the outcome of a call: the one that the layers inside wrote, else one made from the status and the
    /// headers, or from the error.
    pub fn of<R>(result: &Result<Response<R>, BoxError>) -> Self {
        match result {
            Ok(response) => Self::of_response(response),
            Err(error) => Self::of_error(error),
        }
    }

    /// Returns whether an answer is a failure, without a copy of its outcome.
    pub(crate) fn is_failure<R>(response: &Response<R>) -> bool {
        match response.extensions().get::<Self>() {
            Some(known) => known.failure.is_some(),
            None => response.status().is_client_error() || response.status().is_server_error(),
        }
    }

    pub(crate) fn of_response<R>(response: &Response<R>) -> Self {
        if let Some(known) = response.extensions().get::<Self>() {
            return known.clone();
        }
        Self::of_status(response.status(), response.headers())
    }

    /// Makes the outcome of an answer without one, by its status and headers.
    pub(crate) fn of_status(status: StatusCode, headers: &HeaderMap) -> Self {
        let failure =
            (status.is_client_error() || status.is_server_error()).then(|| Failure::from_status(status, headers));
        Self { failure, sent: true, ..Self::default() }
    }

    pub(crate) fn of_error(error: &BoxError) -> Self {
        match Error::find(&**error) {
            Some(known) => known.outcome().clone(),
            None => Self::default().with_failure(Failure::from_error(&**error)),
        }
    }

    /// Changes the outcome that a response carries, and makes one where there is none.
    pub(crate) fn update<R>(response: &mut Response<R>, change: impl FnOnce(Self) -> Self) {
        match response.extensions_mut().get_mut::<Self>() {
            Some(known) => *known = change(std::mem::take(known)),
            None => {
                let outcome = change(Self::of_response(response));
                response.extensions_mut().insert(outcome);
            }
        }
    }

    /// Returns the failure, if there was one. A 200 can be a failure too: an empty answer, a verdict on the content.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Sets the failure. The request counts as sent, unless the failure proves that it was not.
    #[must_use]
    pub fn with_failure(mut self, failure: Failure) -> Self {
        self.sent |= failure.fault() != Fault::Local && !failure.never_sent();
        self.failure = Some(failure);
        self
    }

    /// Returns the advice on retrying, where a layer gives one. `None`: the failure alone decides.
    pub fn retry(&self) -> Option<RetryAdvice> {
        self.retry
    }

    /// Sets the advice on retrying.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryAdvice) -> Self {
        self.retry = Some(retry);
        self
    }

    /// Returns the reason why a curable failure was not retried. `None`: no attempt could have cured it, or no layer
    /// retries.
    pub fn gave_up(&self) -> Option<GaveUp> {
        self.gave_up
    }

    /// Sets the reason for which the call was not tried again.
    #[must_use]
    pub(crate) fn with_gave_up(mut self, reason: GaveUp) -> Self {
        self.gave_up = Some(reason);
        self
    }

    /// Returns the time after which a retry makes sense: the layer's advice, else the failure's hint.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.retry {
            Some(RetryAdvice::After(wait)) => Some(wait),
            _ => self.failure.as_ref()?.hint().map(|hint| hint.delay()),
        }
    }

    /// Returns whether anything was sent to the upstream.
    pub fn was_sent(&self) -> bool {
        self.sent
    }

    /// Sets whether anything was sent to the upstream.
    #[must_use]
    pub fn with_sent(mut self, sent: bool) -> Self {
        self.sent = sent;
        self
    }

    /// Returns whether the request's body was not kept, so that it streamed on and could not be sent again.
    pub fn request_was_streamed(&self) -> bool {
        self.unkept.is_some()
    }

    /// Returns the reason why the request's body was not kept, if it was not.
    pub fn unkept(&self) -> Option<Unkept> {
        self.unkept
    }

    /// Marks the request's body as one that was not kept.
    #[must_use]
    pub(crate) fn with_unkept(mut self, why: Unkept) -> Self {
        self.unkept = Some(why);
        self
    }

    /// Returns whether a layer inside has held the answer to its first content, so that only silence is left to be
    /// feared.
    pub(crate) fn is_committed(&self) -> bool {
        self.committed
    }

    /// Marks the answer as one that was held to its first content.
    #[must_use]
    pub(crate) fn with_committed(mut self) -> Self {
        self.committed = true;
        self
    }

    /// Returns the number of attempts that were made at the upstream. 0 means that no layer counts.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Sets the number of attempts.
    #[must_use]
    pub(crate) fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self.is_counted = true;
        self
    }

    /// Notes the number of attempts in the outcome that a response carries. Returns whether it carries one.
    pub(crate) fn note_attempts<R>(response: &mut Response<R>, attempts: u32) -> bool {
        let Some(known) = response.extensions_mut().get_mut::<Self>() else { return false };
        (known.attempts, known.is_counted) = (attempts, true);
        true
    }

    /// Returns whether a layer that retries has had its say, also where it has made no attempt at the upstream.
    pub(crate) fn is_counted(&self) -> bool {
        self.is_counted
    }

    /// Marks a failure that the pool does not blame on its key: what the call asks for is not for this key.
    #[must_use]
    pub(crate) fn with_key_spared(mut self) -> Self {
        self.is_key_spared = true;
        self
    }

    /// Returns whether the upstream refuses the server's own key, so that its operator has to act and no caller.
    pub(crate) fn is_own_key_refused(&self) -> bool {
        self.key.is_some() && !self.is_key_spared && self.failure.as_ref().is_some_and(Failure::is_about_the_key)
    }

    /// Returns the call, as `ReplayLayer` has read it from URI and body: with the model and the service tier that the
    /// caller named.
    pub fn call(&self) -> Option<&Call> {
        self.call.as_ref()
    }

    /// Sets the call.
    #[must_use]
    pub(crate) fn with_call(mut self, call: Call) -> Self {
        self.call = Some(call);
        self
    }

    /// Returns the model that was asked, where a layer knows it.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Sets the model that was asked.
    #[must_use]
    pub fn with_model(mut self, model: impl Into<Arc<str>>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Returns the fingerprint of the key that was used last, where a layer has chosen one. Never the key.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Returns the project of that key.
    pub fn project(&self) -> Option<&str> {
        self.project.as_deref()
    }

    /// Sets the key that was used, by its fingerprint, and its project.
    #[must_use]
    pub fn with_key(mut self, fingerprint: impl Into<Arc<str>>, project: impl Into<Arc<str>>) -> Self {
        self.key = Some(fingerprint.into());
        self.project = Some(project.into());
        self
    }

    /// Returns the key or project that this attempt has used up for the rest of the call.
    pub fn tried(&self) -> Option<&Tried> {
        self.tried.as_ref()
    }

    /// Sets the key or project that this attempt has used up. The next attempt finds it in its
    /// [`CallContext`](crate::CallContext).
    #[must_use]
    pub(crate) fn with_tried(mut self, tried: Tried) -> Self {
        self.tried = Some(tried);
        self
    }

    /// Returns the cell in which token counts and the end of the answer are reported, once its body has passed.
    pub fn usage(&self) -> Option<&Usage> {
        self.usage.as_ref()
    }

    /// Sets the cell in which usage is reported.
    #[must_use]
    pub fn with_usage(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }
}

/// A layer's advice on retrying. Only `RetryLayer` reads it, and it sleeps on `After` alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryAdvice {
    /// A retry at once: another key or project can take the call now.
    Now,
    /// A retry at once: a queue will hold the call.
    Queued,
    /// A retry after this time, not before.
    After(Duration),
    /// No retry.
    Never,
}

/// The reason why a request's body was not kept, so that it could be sent only once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unkept {
    /// The body is larger than one that is kept.
    TooLarge,
    /// The memory for all bodies had no room.
    NoRoom,
    /// The caller's share of that memory had no room: it keeps no more than it leaves to others.
    CallerShare,
}

impl Unkept {
    /// Returns the name in logs and metrics: `too_large`, `no_room`, `caller_share`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::NoRoom => "no_room",
            Self::CallerShare => "caller_share",
        }
    }
}

/// The reason why there was no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GaveUp {
    /// All attempts that the policy allows were made.
    Attempts,
    /// The budget had no token for a retry in time.
    Budget,
    /// The wait would have been too long: past the deadline, or longer than the policy waits.
    Wait,
}

impl GaveUp {
    /// Returns the name in logs and metrics: `attempts`, `budget`, `wait`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Budget => "budget",
            Self::Wait => "wait",
        }
    }
}
