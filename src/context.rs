//! The two words that layers talk in.
//!
//! [`Context`] goes in with the request, as one extension. [`Outcome`] comes out: as one extension of the response, or
//! inside an [`Error`]. Nothing else is said between layers, so that each of them also works alone. A room
//! that finds no `Context` reads the request itself, and adds one only when it has something to say.

use std::{sync::Arc, time::Duration};

use http::{Extensions, Request, Response};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    body::scan::Findings,
    call::{Call, Shape},
    error::{BoxError, Error},
    failure::Failure,
    quota::TokenCost,
};

/// What goes in with the request.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::{Context, context::Deadline};
///
/// # tokio_test::block_on(async {
/// let mut request = http::Request::new(());
/// let deadline = Deadline::after(Duration::from_secs(20));
/// Context::update(request.extensions_mut(), |context| context.tighten_deadline(deadline));
/// assert_eq!(Context::of(&request).and_then(Context::deadline), Some(deadline));
/// # });
/// ```
#[derive(Clone, Debug, Default)]
pub struct Context {
    call: Option<Call>,
    deadline: Option<Deadline>,
    attempt: u32,
    failed_before: bool,
    models_left: u32,
    project: Option<Arc<str>>,
    may_move: bool,
    token_cost: Option<TokenCost>,
}

impl Context {
    /// The context that came with a request, if any room has had something to say.
    pub fn of<B>(request: &Request<B>) -> Option<&Self> {
        request.extensions().get()
    }

    /// Says something: changes the context, and makes one where there is none.
    pub fn update(extensions: &mut Extensions, change: impl FnOnce(&mut Self)) {
        change(extensions.get_or_insert_default());
    }

    /// What the call is, as `ReplayLayer` read it from URI and body.
    pub fn call(&self) -> Option<&Call> {
        self.call.as_ref()
    }

    /// Says what the call is.
    pub fn set_call(&mut self, call: Call) {
        self.call = Some(call);
    }

    /// When the whole call has to be over.
    pub fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    /// Sets a deadline, unless an earlier one is in force.
    pub fn tighten_deadline(&mut self, deadline: Deadline) {
        self.deadline = Some(self.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
    }

    /// Which attempt this is. The first is 1; 0 means that nobody counts.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Says which attempt this is.
    pub fn set_attempt(&mut self, attempt: u32) {
        self.attempt = attempt;
    }

    /// Whether an earlier attempt of this call, at this model, has failed in a way that counts against the upstream. A breaker
    /// counts a call once, however often it is sent.
    #[inline]
    pub fn has_failed_before(&self) -> bool {
        self.failed_before
    }

    /// Says that an earlier attempt has failed in a way that counts against the upstream.
    pub fn set_failed_before(&mut self, failed: bool) {
        self.failed_before = failed;
    }

    /// How many other models may still be tried if this one fails. While there are some, fewer attempts are spent here.
    pub fn models_left(&self) -> u32 {
        self.models_left
    }

    /// Says how many other models may still be tried.
    pub fn set_models_left(&mut self, models: u32) {
        self.models_left = models;
    }

    /// The project whose quota pays, as the key pool has chosen it.
    pub fn project(&self) -> Option<&Arc<str>> {
        self.project.as_ref()
    }

    /// Says whose quota pays.
    pub fn set_project(&mut self, project: impl Into<Arc<str>>) {
        self.project = Some(project.into());
    }

    /// Whether another project could take the call, so that nobody has to wait for this one.
    pub fn may_move(&self) -> bool {
        self.may_move
    }

    /// Says whether another project could take the call.
    pub fn set_may_move(&mut self, may_move: bool) {
        self.may_move = may_move;
    }

    /// How many input tokens the request costs, where somebody has counted or estimated them.
    pub fn token_cost(&self) -> Option<TokenCost> {
        self.token_cost
    }

    /// Says how many input tokens the request costs.
    pub fn set_token_cost(&mut self, cost: TokenCost) {
        self.token_cost = Some(cost);
    }

    /// The plain facts of a call, from the context or from the request itself.
    pub(crate) fn shape<B>(request: &Request<B>) -> Shape {
        match Self::of(request).and_then(Self::call) {
            Some(call) => call.shape(),
            None => Shape::new(request.method(), request.uri()),
        }
    }
}

/// The moment at which a call has to be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline at that instant.
    pub fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// The deadline that far from now; as good as never where the clock cannot count so far.
    pub fn after(duration: Duration) -> Self {
        let now = Instant::now();
        // What tokio's own timers take for "never".
        const FAR: Duration = Duration::from_secs(86_400 * 365 * 30);
        Self(now.checked_add(duration).unwrap_or(now + FAR))
    }

    /// The instant itself.
    pub fn instant(self) -> Instant {
        self.0
    }

    /// What is left at `now`: zero once it has passed.
    pub fn remaining(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }
}

/// What comes out with the response and with the error.
///
/// ```
/// use tower_gemini::{Outcome, failure::Fault};
///
/// // No layer has said anything: the status speaks.
/// let response = http::Response::builder().status(503).body(()).unwrap();
/// let outcome = Outcome::of(&Ok(response));
/// assert_eq!(outcome.failure().map(|failure| failure.fault()), Some(Fault::Model));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    failure: Option<Failure>,
    retry: Option<Retry>,
    sent: bool,
    streamed_request: bool,
    committed: bool,
    attempts: u32,
    model: Option<Arc<str>>,
    usage: Option<Usage>,
}

impl Outcome {
    /// The outcome of a call: as the layers inside said it, else read from the status and headers or from the error.
    pub fn of<R>(result: &Result<Response<R>, BoxError>) -> Self {
        match result {
            Ok(response) => Self::of_response(response),
            Err(error) => Self::of_error(error),
        }
    }

    pub(crate) fn of_response<R>(response: &Response<R>) -> Self {
        if let Some(said) = response.extensions().get::<Self>() {
            return said.clone();
        }
        let status = response.status();
        let failure = (status.is_client_error() || status.is_server_error())
            .then(|| Failure::from_status(status, response.headers()));
        Self { failure, sent: true, ..Self::default() }
    }

    pub(crate) fn of_error(error: &BoxError) -> Self {
        match Error::find(&**error) {
            Some(said) => said.outcome().clone(),
            None => Self::default().with_failure(Failure::from_error(&**error)),
        }
    }

    /// Adds to what a response already says, and keeps it in the response.
    pub(crate) fn update<R>(response: &mut Response<R>, change: impl FnOnce(Self) -> Self) {
        match response.extensions_mut().get_mut::<Self>() {
            Some(said) => *said = change(std::mem::take(said)),
            None => {
                let outcome = change(Self::of_response(response));
                response.extensions_mut().insert(outcome);
            }
        }
    }

    /// What went wrong, if anything did. A 200 can be a failure too: an empty answer, a verdict on the content.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// The same with this failure. It counts as sent, unless the failure proves that it was not.
    #[must_use]
    pub fn with_failure(mut self, failure: Failure) -> Self {
        self.sent |= failure.fault() != crate::failure::Fault::Local && !failure.never_sent();
        self.failure = Some(failure);
        self
    }

    /// How to retry, where a layer knows better than the failure does. `None`: unsaid.
    pub fn retry(&self) -> Option<Retry> {
        self.retry
    }

    /// The same with this said of retrying.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }

    /// When it makes sense to come again: as a layer says, else as the failure's hint says.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.retry {
            Some(Retry::After(wait)) => Some(wait),
            _ => self.failure.as_ref()?.hint().map(|hint| hint.delay()),
        }
    }

    /// Whether anything was sent to the upstream.
    pub fn was_sent(&self) -> bool {
        self.sent
    }

    /// The same, said to have been sent or not.
    #[must_use]
    pub fn with_sent(mut self, sent: bool) -> Self {
        self.sent = sent;
        self
    }

    /// Whether the request's body was too large to keep, so that it streamed on and nothing could be sent again.
    pub fn request_was_streamed(&self) -> bool {
        self.streamed_request
    }

    /// The same, said to have had a request body that was not kept.
    #[must_use]
    pub fn with_streamed_request(mut self) -> Self {
        self.streamed_request = true;
        self
    }

    /// Whether a layer inside has held the answer to its first content, so that only silence is left to be feared.
    pub fn is_committed(&self) -> bool {
        self.committed
    }

    /// The same, said to have been held to its first content.
    #[must_use]
    pub fn with_committed(mut self) -> Self {
        self.committed = true;
        self
    }

    /// How many attempts were made at the upstream. 0: nobody counted.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The same with that many attempts.
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// The model that was asked, where a layer knows it.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The same with the model that was asked.
    #[must_use]
    pub fn with_model(mut self, model: impl Into<Arc<str>>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// What the answer costs and how it ends, known once its body has passed.
    pub fn usage(&self) -> Option<&Usage> {
        self.usage.as_ref()
    }

    /// The same with the cell in which usage is reported.
    #[must_use]
    pub fn with_usage(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }
}

/// How to retry. Only `RetryLayer` reads it, and it sleeps on `After` alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retry {
    /// At once: another key or project can take it now.
    Now,
    /// At once: a queue will hold it.
    Queued,
    /// Not before that much time has passed.
    After(Duration),
    /// Not at all.
    Never,
}

/// A cell that fills while the answer's body passes: token counts, the model that answered, how it ended.
///
/// All clones are the same cell. Read it when the body has ended, or earlier for what is known so far.
#[derive(Clone, Debug, Default)]
pub struct Usage(Arc<Mutex<UsageReport>>);

impl Usage {
    /// What is known now.
    pub fn report(&self) -> UsageReport {
        self.0.lock().clone()
    }

    /// The input tokens, as far as the upstream has said.
    pub(crate) fn prompt_tokens(&self) -> Option<u64> {
        self.0.lock().prompt_tokens
    }

    pub(crate) fn fill(&self, found: &Findings) {
        let mut report = self.0.lock();
        report.prompt_tokens = found.tokens.prompt;
        report.candidates_tokens = found.tokens.candidates;
        report.thoughts_tokens = found.tokens.thoughts;
        report.cached_tokens = found.tokens.cached;
        report.tool_use_prompt_tokens = found.tokens.tool_use_prompt;
        report.total_tokens = found.tokens.total;
        if report.model_version != found.model_version {
            report.model_version.clone_from(&found.model_version);
        }
        if report.finish_reason != found.finish_reason {
            report.finish_reason.clone_from(&found.finish_reason);
        }
        if report.block_reason != found.block_reason {
            report.block_reason.clone_from(&found.block_reason);
        }
    }

    pub(crate) fn fail(&self, failure: Failure) {
        self.0.lock().failure.get_or_insert(failure);
    }

    pub(crate) fn end(&self) {
        self.0.lock().ended = true;
    }
}

/// What a [`Usage`] cell holds. What the upstream did not say is `None`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct UsageReport {
    /// Input tokens, tools and cached content included.
    pub prompt_tokens: Option<u64>,
    /// Output tokens, without thoughts on Gemini's own surfaces.
    pub candidates_tokens: Option<u64>,
    /// Tokens spent on thinking.
    pub thoughts_tokens: Option<u64>,
    /// The part of the input that came from a cache.
    pub cached_tokens: Option<u64>,
    /// Input tokens of tool results.
    pub tool_use_prompt_tokens: Option<u64>,
    /// All of it.
    pub total_tokens: Option<u64>,
    /// The model that really answered; it may differ from the one asked for.
    pub model_version: Option<Box<str>>,
    /// Why the answer ended.
    pub finish_reason: Option<Box<str>>,
    /// Why the prompt was refused.
    pub block_reason: Option<Box<str>>,
    /// What went wrong after the answer had been handed over: nothing was sent again.
    pub failure: Option<Failure>,
    /// Whether the body has passed to its end. `false` after a drop: the counts may be short.
    pub ended: bool,
}
