//! The two words that layers talk in.
//!
//! [`CallContext`] goes in with the request, as one extension. [`Outcome`] comes out: as one extension of the response, or
//! inside an [`Error`](crate::Error). Nothing else is said between layers, so that each of them also works alone. A room
//! that finds no `CallContext` reads the request itself, and adds one only when it has something to say.

#[allow(dead_code, reason = "the rooms take it up one by one")]
mod call_ref;
mod error;
mod outcome;
mod tally;
mod usage;

use std::{fmt, sync::Arc, time::Duration};

use http::{Extensions, HeaderName, Request};
use tokio::time::Instant;

#[allow(unused_imports, reason = "the rooms take it up one by one")]
pub(crate) use self::error::polled_again;
pub(crate) use self::{call_ref::CallRef, tally::Queueing};
pub use self::{
    error::{BoxError, ConfigError, Error},
    outcome::{GaveUp, Outcome, RetryAdvice},
    tally::{Tally, TallyReport},
    usage::{Usage, UsageReport},
};
use crate::{
    call::{Call, Shape},
    clock::FAR,
    failure::Kind,
    quota::TokenCost,
};

/// Says in an answer which model it is of, where a call has several to go to.
pub(crate) const MODEL_HEADER: HeaderName = HeaderName::from_static("x-gemini-model");

/// What goes in with the request.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::{CallContext, context::Deadline};
///
/// # tokio_test::block_on(async {
/// let mut request = http::Request::new(());
/// let deadline = Deadline::after(Duration::from_secs(20));
/// CallContext::update(request.extensions_mut(), |context| context.tighten_deadline(deadline));
/// assert_eq!(CallContext::of(&request).and_then(CallContext::deadline), Some(deadline));
/// # });
/// ```
#[derive(Clone, Debug, Default)]
pub struct CallContext {
    call: Option<Call>,
    deadline: Option<Deadline>,
    attempt: u32,
    failed_before: bool,
    models_left: u32,
    project: Option<Arc<str>>,
    may_move: bool,
    token_cost: Option<TokenCost>,
    tried: Vec<Tried>,
    choice: Option<Arc<dyn Choice>>,
    retried: Option<Retried>,
    tally: Option<Tally>,
}

impl CallContext {
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

    /// What earlier attempts at this model have found to be of no use for this call, the oldest first.
    pub fn tried(&self) -> &[Tried] {
        &self.tried
    }

    /// Says what earlier attempts have found to be of no use.
    pub fn set_tried(&mut self, tried: impl Into<Vec<Tried>>) {
        self.tried = tried.into();
    }

    /// Whether what was chosen for the call is still good. Whoever has had it wait asks before it goes on.
    pub fn choice_is_good(&self) -> bool {
        self.choice.as_ref().is_none_or(|choice| choice.is_good())
    }

    /// Says who knows whether what was chosen is still good.
    pub fn set_choice(&mut self, choice: Arc<dyn Choice>) {
        self.choice = Some(choice);
    }

    /// Why this is not the first attempt: what the one before has failed of, and the wait since.
    pub fn retried(&self) -> Option<Retried> {
        self.retried
    }

    /// Says why this is not the first attempt.
    pub fn set_retried(&mut self, retried: Retried) {
        self.retried = Some(retried);
    }

    /// Where the attempts of this call are added up, if anybody wants to know.
    pub fn tally(&self) -> Option<&Tally> {
        self.tally.as_ref()
    }

    /// Says where to add up the attempts of this call.
    pub fn set_tally(&mut self, tally: Tally) {
        self.tally = Some(tally);
    }

    /// The call goes to another model: what was said of the one before is forgotten, its attempts are not.
    pub(crate) fn turn_to(&mut self, call: Call, attempts: u32, models_left: u32) {
        let Self { deadline, project, tally, .. } = std::mem::take(self);
        *self = Self { call: Some(call), deadline, attempt: attempts, models_left, project, tally, ..Self::default() };
    }

    /// The plain facts of a call, from the context or from the request itself.
    pub(crate) fn shape<B>(request: &Request<B>) -> Shape {
        CallRef::of(request).shape()
    }
}

/// Something that was chosen for a call, and may turn out bad while the call waits: a key, which another call may find to be
/// revoked.
pub trait Choice: fmt::Debug + Send + Sync {
    /// Whether it may still be used.
    fn is_good(&self) -> bool;
}

/// What an attempt has used up for the rest of its call, unless a wait has cured it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tried {
    /// The key of that fingerprint: the upstream has refused it.
    Key(Arc<str>),
    /// That project: it has no quota left for this model, or its keys are refused together.
    Project(Arc<str>),
}

/// Why an attempt is made that is not the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retried {
    /// What the attempt before has failed of.
    pub after: Kind,
    /// How long ago that was, when this attempt began.
    pub waited: Duration,
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
