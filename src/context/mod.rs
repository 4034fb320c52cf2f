//! The two words that layers talk in.
//!
//! [`CallContext`] goes in with the request, as one extension. [`Outcome`] comes out: as one extension of the response,
//! or inside an [`Error`]. Layers exchange nothing else, so that each of them also works alone. A room that finds no
//! `CallContext` reads the request itself, and adds one only to write something into it.

mod call_flag;
mod call_ref;
mod claimant;
mod deadline;
mod earlier;
mod error;
mod kept_headers;
mod large_body;
mod outcome;
mod progress;
mod short_text;
mod tally;
mod token_count;
mod usage;

use std::{fmt, sync::Arc};

use http::{Extensions, HeaderName, Request};

pub(crate) use self::{
    call_flag::CallFlag,
    call_ref::CallRef,
    earlier::Retried,
    error::polled_again,
    kept_headers::KeptHeaders,
    large_body::LargeBody,
    tally::{Queueing, Tally, TallyReport},
    token_count::{CountLater, TokenCount},
};
pub use self::{
    claimant::{Claimant, Headroom, Priority},
    deadline::Deadline,
    earlier::Tried,
    error::{BoxError, ConfigError, Error},
    outcome::{GaveUp, Outcome, RetryAdvice, Unkept},
    progress::CallProgress,
    short_text::ShortText,
    usage::{ByModality, Usage, UsageReport},
};
use self::{deadline::LaterDeadline, earlier::EarlierAttempts};
use crate::{
    call::{Call, Streaming},
    quota::TokenCost,
};

/// The header of an answer that names the model it is of, where a call has several to go to.
pub(crate) const MODEL_HEADER: HeaderName = HeaderName::from_static("x-gemini-model");

/// The word that goes in with the request: what the call is, and what the layers outside have decided about it.
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
    later: Option<LaterDeadline>,
    streams: Option<CallFlag>,
    attempt: u32,
    repeats_timeouts: bool,
    models_left: u32,
    caller: Option<Arc<str>>,
    priority: Priority,
    project: Option<Arc<str>>,
    may_move: bool,
    token_count: Option<TokenCount>,
    choice: Option<Arc<dyn Choice>>,
    tally: Option<Tally>,
    sent: Option<CallFlag>,
    large_body: Option<Arc<LargeBody>>,
    names_nothing: bool,
    kept_headers: Option<KeptHeaders>,
    /// In a box: most attempts are the first, and the context is copied where a request is kept.
    earlier: Option<Box<EarlierAttempts>>,
}

impl CallContext {
    /// Returns the context that came with a request, if any room has added one.
    pub fn of<B>(request: &Request<B>) -> Option<&Self> {
        request.extensions().get()
    }

    /// Changes the context, and makes one where there is none.
    pub fn update(extensions: &mut Extensions, change: impl FnOnce(&mut Self)) {
        change(extensions.get_or_insert_default());
    }

    /// Returns the call, as `ReplayLayer` has read it from URI and body.
    pub fn call(&self) -> Option<&Call> {
        self.call.as_ref()
    }

    /// Sets the call. If its service tier may keep it waiting, the deadline of such tiers comes into force; if it asks for
    /// a stream of events, a layer outside that waits to know it learns of it.
    pub fn set_call(&mut self, call: Call) {
        if let Some(streams) = self.streams.take()
            && call.streaming() == Streaming::Sse
        {
            streams.set();
        }
        if let Some(later) = self.later.take()
            && call.service_tier().may_wait()
        {
            later.holds.set();
            self.deadline = Some(later.deadline);
        }
        self.call = Some(call);
    }

    /// Returns whether the request's body has too many values to be read, so that nobody knows more of the call than its
    /// URI says. [`ReplayLayer::MAX_VALUES`](crate::ReplayLayer::MAX_VALUES) is the most.
    pub fn body_is_unread(&self) -> bool {
        matches!(self.large_body.as_deref(), Some(LargeBody::Unread))
    }

    /// Returns what was found in the request's body, if it is a large one.
    pub(crate) fn large_body(&self) -> Option<&LargeBody> {
        self.large_body.as_deref()
    }

    /// Sets what was found in the request's large body.
    pub(crate) fn set_large_body(&mut self, found: Option<LargeBody>) {
        self.large_body = found.map(Arc::new);
    }

    /// Returns the instant at which the whole call has to be over.
    pub fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    /// Sets a deadline, unless an earlier one is in force.
    pub fn tighten_deadline(&mut self, deadline: Deadline) {
        self.deadline = Some(self.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        if let Some(later) = &mut self.later {
            later.deadline = later.deadline.min(deadline);
        }
    }

    /// Sets a deadline for a call that is not read yet: `standard`, or `later` if it turns out to be of a tier that may
    /// keep it waiting. Returns the flag that is set then.
    pub(crate) fn tighten_deadline_by_tier(&mut self, standard: Deadline, later: Deadline) -> CallFlag {
        let holds = CallFlag::default();
        let later = self.deadline.map_or(later, |earlier| earlier.min(later));
        self.tighten_deadline(standard);
        self.later = Some(LaterDeadline { deadline: later, holds: holds.clone() });
        holds
    }

    /// Returns the flag that is set once the call, which nobody has read yet, turns out to ask for a stream of events. All
    /// layers that ask get the same one.
    pub(crate) fn watch_for_stream(&mut self) -> CallFlag {
        self.streams.get_or_insert_default().clone()
    }

    /// Returns the number of this attempt. The first is 1; 0 means that no layer counts.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Sets the number of this attempt.
    pub fn set_attempt(&mut self, attempt: u32) {
        self.attempt = attempt;
    }

    /// Returns whether an earlier attempt of this call, at this model, has failed in a way that counts against the
    /// upstream. A breaker counts a call once, however often it is sent.
    #[inline]
    pub(crate) fn has_failed_before(&self) -> bool {
        self.earlier.as_ref().is_some_and(|earlier| earlier.failed)
    }

    /// Sets whether an earlier attempt has failed in a way that counts against the upstream.
    pub(crate) fn set_failed_before(&mut self, failed: bool) {
        if let Some(earlier) = self.earlier_unless(!failed) {
            earlier.failed = failed;
        }
    }

    /// Returns how many earlier attempts of this call, at this model, an attempt's clock has ended.
    pub fn timed_out(&self) -> u32 {
        self.earlier.as_ref().map_or(0, |earlier| earlier.timed_out)
    }

    /// Sets how many earlier attempts an attempt's clock has ended.
    pub(crate) fn set_timed_out(&mut self, attempts: u32) {
        if let Some(earlier) = self.earlier_unless(attempts == 0) {
            earlier.timed_out = attempts;
        }
    }

    /// Returns whether a layer outside makes another attempt where the clock of this one ends it.
    pub fn repeats_timeouts(&self) -> bool {
        self.repeats_timeouts
    }

    /// Sets whether a layer outside makes another attempt where the clock of this one ends it. Only then may the clock be
    /// shorter than it is set.
    pub fn set_repeats_timeouts(&mut self, repeats: bool) {
        self.repeats_timeouts = repeats;
    }

    /// Returns the name of the caller, where a server has told one from another.
    pub fn caller(&self) -> Option<&Arc<str>> {
        self.caller.as_ref()
    }

    /// Sets the name of the caller. Calls without one count as those of one caller.
    pub fn set_caller(&mut self, caller: impl Into<Arc<str>>) {
        self.caller = Some(caller.into());
    }

    /// Returns the part of the call that decides on its turn in a queue.
    pub fn claimant(&self) -> Claimant<'_> {
        Claimant { caller: self.caller(), priority: self.priority(), deadline: self.deadline().map(Deadline::instant) }
    }

    /// Returns the priority of the call in a queue. Default: normal.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// Sets the priority of the call in a queue.
    pub fn set_priority(&mut self, priority: Priority) {
        self.priority = priority;
    }

    /// Returns how many other models may still be tried if this one fails. While there are any, fewer attempts are
    /// spent on this one.
    pub fn models_left(&self) -> u32 {
        self.models_left
    }

    /// Sets how many other models may still be tried.
    pub fn set_models_left(&mut self, models: u32) {
        self.models_left = models;
    }

    /// Returns the project whose quota pays, as the key pool has chosen it.
    pub fn project(&self) -> Option<&Arc<str>> {
        self.project.as_ref()
    }

    /// Sets the project whose quota pays.
    pub fn set_project(&mut self, project: impl Into<Arc<str>>) {
        self.project = Some(project.into());
    }

    /// Returns whether another project could take the call, so that it need not wait for this one.
    pub fn may_move(&self) -> bool {
        self.may_move
    }

    /// Sets whether another project could take the call.
    pub fn set_may_move(&mut self, may_move: bool) {
        self.may_move = may_move;
    }

    /// Returns the number of input tokens of the request, where a layer counts or estimates them. The first to ask may have
    /// to wait for the count: half a millisecond at most.
    pub fn token_cost(&self) -> Option<TokenCost> {
        self.token_count.as_ref().map(TokenCount::cost)
    }

    /// Returns the number of input tokens, or the way to it, for whoever may ask later.
    pub(crate) fn token_count(&self) -> Option<&TokenCount> {
        self.token_count.as_ref()
    }

    /// Sets the number of input tokens of the request.
    pub fn set_token_cost(&mut self, cost: TokenCost) {
        self.token_count = Some(TokenCount::Known(cost));
    }

    /// Sets the count that is made when somebody asks for the number of input tokens.
    pub(crate) fn set_count_later(&mut self, count: Arc<dyn CountLater>) {
        self.token_count = Some(TokenCount::Later(count));
    }

    /// Returns the keys and projects that earlier attempts at this model have found to be of no use for this call, the
    /// oldest first.
    pub fn tried(&self) -> &[Tried] {
        self.earlier.as_ref().map_or(&[], |earlier| &earlier.tried)
    }

    /// Sets the keys and projects that earlier attempts have found to be of no use.
    pub fn set_tried(&mut self, tried: impl Into<Vec<Tried>>) {
        let tried = tried.into();
        if let Some(earlier) = self.earlier_unless(tried.is_empty()) {
            earlier.tried = tried;
        }
    }

    /// Returns whether what was chosen for the call is still good. A layer that has had the call wait asks before it
    /// goes on.
    pub(crate) fn choice_is_good(&self) -> bool {
        self.choice.as_ref().is_none_or(|choice| choice.is_good())
    }

    /// Sets what was chosen for the call.
    pub(crate) fn set_choice(&mut self, choice: Arc<dyn Choice>) {
        self.choice = Some(choice);
    }

    /// Returns why this attempt is made, if it is not the first.
    pub(crate) fn retried(&self) -> Option<Retried> {
        self.earlier.as_ref().and_then(|earlier| earlier.retried)
    }

    /// Sets why this attempt is made.
    pub(crate) fn set_retried(&mut self, retried: Retried) {
        self.earlier.get_or_insert_default().retried = Some(retried);
    }

    /// Returns the cell in which the attempts of this call are added up, if a layer wants to know.
    pub(crate) fn tally(&self) -> Option<&Tally> {
        self.tally.as_ref()
    }

    /// Sets the cell in which the attempts of this call are added up.
    pub(crate) fn set_tally(&mut self, tally: Tally) {
        self.tally = Some(tally);
    }

    /// Returns the flag that is set once an attempt of this call is handed to the transport. All layers that ask get the
    /// same one.
    pub(crate) fn watch_for_sending(&mut self) -> CallFlag {
        self.sent.get_or_insert_default().clone()
    }

    /// Notices that the call is handed to the transport.
    #[inline]
    pub(crate) fn is_sent_now(&self) {
        if let Some(sent) = &self.sent {
            sent.set();
        }
    }

    /// Returns whether a layer outside has found that the body names no resource.
    pub(crate) fn names_nothing(&self) -> bool {
        self.names_nothing
    }

    /// Sets whether the body is known to name no resource.
    pub(crate) fn set_names_nothing(&mut self, names_nothing: bool) {
        self.names_nothing = names_nothing;
    }

    /// Returns the copy of the headers that a layer outside has kept, for another that keeps the request.
    pub(crate) fn kept_headers(&self) -> Option<&KeptHeaders> {
        self.kept_headers.as_ref()
    }

    /// Sets the copy of the headers that a layer has kept.
    pub(crate) fn set_kept_headers(&mut self, headers: Option<KeptHeaders>) {
        self.kept_headers = headers;
    }

    /// Returns the place of what earlier attempts have found, and makes it unless it would hold nothing.
    fn earlier_unless(&mut self, holds_nothing: bool) -> Option<&mut EarlierAttempts> {
        if holds_nothing { self.earlier.as_deref_mut() } else { Some(self.earlier.get_or_insert_default()) }
    }

    /// Turns to another model: what was written about the one before is forgotten, its attempts are not.
    pub(crate) fn turn_to(&mut self, call: Call, attempts: u32, models_left: u32) {
        let Self { deadline, caller, priority, project, tally, sent, large_body, .. } = std::mem::take(self);
        let call = Some(call);
        *self = Self {
            call,
            deadline,
            attempt: attempts,
            models_left,
            caller,
            priority,
            project,
            tally,
            sent,
            large_body,
            ..Self::default()
        };
    }
}

/// Something that was chosen for a call and may turn out bad while the call waits: a key, which another call may find
/// to be revoked.
pub(crate) trait Choice: fmt::Debug + Send + Sync {
    /// Returns whether it may still be used.
    fn is_good(&self) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_attempts_that_have_found_nothing_need_no_memory() {
        let mut context = CallContext::default();
        let set_nothing = |context: &mut CallContext| {
            context.set_failed_before(false);
            context.set_timed_out(0);
            context.set_tried([]);
        };
        set_nothing(&mut context);
        assert!(context.earlier.is_none());
        context.set_failed_before(true);
        context.set_timed_out(2);
        context.set_tried([Tried::Project("p".into())]);
        assert!(context.has_failed_before() && (context.timed_out(), context.tried().len()) == (2, 1));
        set_nothing(&mut context);
        assert!(!context.has_failed_before() && (context.timed_out(), context.tried().len()) == (0, 0));
    }
}
