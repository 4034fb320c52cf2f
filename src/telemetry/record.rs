//! The record of one call or one attempt, from its beginning to the end of its answer's body.
//!
//! It exists only where a subscriber or a recorder is installed, and gathers what becomes known on the way. It ends
//! once: as its owner says, or, when it is dropped before that, as cancelled.

use std::{sync::Arc, time::Duration};

use http::{Request, Response};
use tokio::time::Instant;
use tracing::Span;

use super::{
    Conventions,
    conventions::{self, Activity, RecordEnd},
    interactions::{Creator, Interactions},
    layer::{Level, Shared},
    meter::RecordMeter,
    spans, usage,
};
use crate::{
    call::{Call, RequestDetails, ServiceTier},
    context::{BoxError, CallContext, CallRef, Error, Outcome, Retried, Tally, TallyReport, UsageReport},
    failure::Failure,
};

/// A record under way.
#[derive(Debug)]
pub(super) struct Record {
    facts: RecordFacts,
    span: Span,
    meter: Option<RecordMeter>,
    interactions: Interactions,
    tally: Tally,
    began: Instant,
    /// The call's time in queues before this record began.
    queued_before: Duration,
    first_chunk: Option<Instant>,
    last_chunk: Option<Instant>,
    outcome: Outcome,
    /// Set once the head of a good answer has come.
    was_answered: bool,
    has_ended: bool,
}

/// The facts of a call or an attempt that are known from the beginning.
#[derive(Debug)]
pub(super) struct RecordFacts {
    pub(super) level: Level,
    pub(super) conventions: Conventions,
    /// Set if the opt-in histograms of tokens are recorded.
    #[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "a span has no histograms"))]
    pub(super) token_histograms: bool,
    pub(super) call: Call,
    pub(super) activity: Activity,
    /// Set if the answer is kept by the upstream, so that it can be fetched by its id.
    is_kept: bool,
    pub(super) provider: &'static str,
    /// The model that the attempt before has asked, if it is another one.
    pub(super) fallen_from: Option<Arc<str>>,
    pub(super) retried: Option<Retried>,
}

impl RecordFacts {
    /// Returns whether the operation and the model stand in the body, so that only a layer inside knows them.
    pub(super) fn is_read_inside(&self) -> bool {
        self.level == Level::Call && self.call.speaks_in_body()
    }
}

/// A record at its end.
#[derive(Debug)]
pub(super) struct Summary<'a> {
    pub(super) facts: &'a RecordFacts,
    /// The call as the caller made it, from the path or from the body.
    pub(super) call: &'a Call,
    pub(super) end: RecordEnd<'a>,
    /// Set if an answer that had begun did not come to its end.
    pub(super) was_cut: bool,
    /// The service tier that was asked for, where the request's body was read.
    pub(super) tier: Option<ServiceTier>,
    /// The conversation of an interaction.
    pub(super) conversation: Option<Arc<str>>,
    /// The call whose tokens this answer is the first to have: that of an interaction in the background.
    #[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "a span of the past cannot be changed"))]
    pub(super) reported: Option<Creator>,
    pub(super) outcome: &'a Outcome,
    pub(super) usage: &'a UsageReport,
    #[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "a span has a clock of its own"))]
    pub(super) duration: Duration,
    /// The times of a stream: from the beginning to its first chunk, and from that to its last.
    pub(super) streamed: Option<(Duration, Duration)>,
    /// The time in queues since the record began.
    pub(super) queued: Duration,
    pub(super) tally: &'a TallyReport,
}

impl Record {
    /// Begins a record, if there is a subscriber or a recorder for it.
    #[inline]
    pub(super) fn begin<B>(level: Level, shared: &Shared, request: &mut Request<B>) -> Option<Box<Self>> {
        let span = spans::begin(level);
        let meter = shared.meters.begin(level);
        if span.is_disabled() && meter.is_none() {
            return None;
        }
        Some(Self::new(level, shared, span, meter, request))
    }

    #[inline(never)]
    fn new<B>(
        level: Level,
        shared: &Shared,
        span: Span,
        meter: Option<RecordMeter>,
        request: &mut Request<B>,
    ) -> Box<Self> {
        let context = CallContext::of(request);
        let call = CallRef::of(request).to_call();
        let tally = context.and_then(CallContext::tally).cloned();
        let retried = context.and_then(CallContext::retried).filter(|_| level == Level::Attempt);
        let attempt = context.map_or(0, CallContext::attempt);
        let tally = tally.unwrap_or_else(|| {
            let tally = Tally::default();
            CallContext::update(request.extensions_mut(), |context| context.set_tally(tally.clone()));
            tally
        });
        let mut queued_before = Duration::ZERO;
        let mut before = None;
        tally.add(|report| {
            queued_before = report.queued;
            if level == Level::Attempt {
                report.attempts = report.attempts.saturating_add(1);
                before = std::mem::replace(&mut report.model, call.shared_quota_name());
                report.call.get_or_insert_with(|| call.clone());
            }
        });
        let fallen_from = before.filter(|before| call.quota_name().is_some_and(|name| *name != **before));
        let provider = conventions::provider(&call, request.uri());
        let activity = Activity::of(&call, request.method(), request.uri());
        let is_kept = conventions::is_kept(&call, request.uri());
        let Shared { conventions, token_histograms, .. } = *shared;
        let facts = RecordFacts {
            level,
            conventions,
            token_histograms,
            call,
            activity,
            is_kept,
            provider,
            fallen_from,
            retried,
        };
        spans::describe(&span, &facts, attempt, request);
        if let Some(meter) = &meter {
            meter.begun(&facts);
        }
        let began = Instant::now();
        let (first_chunk, last_chunk, outcome, was_answered, has_ended) = Default::default();
        let record = Self {
            facts,
            span,
            meter,
            interactions: shared.interactions.clone(),
            tally,
            began,
            queued_before,
            first_chunk,
            last_chunk,
            outcome,
            was_answered,
            has_ended,
        };
        record.into()
    }

    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// Takes the head of an answer. Returns the record if it goes on with the answer's body, which a failure's does
    /// not.
    pub(super) fn answered<R>(mut self: Box<Self>, response: &Response<R>) -> Option<Box<Self>> {
        self.outcome = Outcome::of_response(response);
        self.head_came();
        self.span.record("http.response.status_code", response.status().as_u16());
        if let Some(failure) = self.outcome.failure().cloned() {
            self.end(RecordEnd::Failed(&failure));
            return None;
        }
        self.was_answered = response.status().is_success();
        let generates = self.facts.call.pays_quota();
        if let Some(meter) = self.meter.as_ref().filter(|_| generates && self.was_answered) {
            let tally = self.tally.report();
            meter.confirm(asked(&self.facts, &tally).quota_name());
        }
        Some(self)
    }

    /// Ends the record of a call that had an error in place of an answer.
    pub(super) fn failed(mut self: Box<Self>, error: &BoxError) {
        self.outcome = Outcome::of_error(error);
        self.head_came();
        let failure = self.outcome.failure().cloned().unwrap_or_else(|| Failure::from_error(&**error));
        self.end(RecordEnd::Failed(&failure));
    }

    /// Takes the time of a chunk of the answer's body.
    pub(super) fn chunk(&mut self) {
        let now = Instant::now();
        self.first_chunk.get_or_insert(now);
        self.last_chunk = Some(now);
    }

    /// Ends the record with its body, in which the upstream may have sent an error.
    pub(super) fn ended(mut self: Box<Self>) {
        let failure = self.outcome.usage().and_then(|usage| usage.read(|report| report.failure.clone()));
        self.end(failure.as_ref().map_or(RecordEnd::Ok, RecordEnd::Failed));
    }

    /// Ends the record of a body that broke.
    pub(super) fn broke(mut self: Box<Self>, error: &BoxError) {
        let failure = match Error::find(&**error) {
            Some(error) => error.failure().clone(),
            None => Failure::from_error(&**error).into_after_commit(),
        };
        self.end(RecordEnd::Failed(&failure));
    }

    fn usage(&self) -> UsageReport {
        self.outcome.usage().map(crate::context::Usage::report).unwrap_or_default()
    }

    fn head_came(&self) {
        let elapsed = self.began.elapsed();
        match self.facts.level {
            Level::Attempt => self.tally.add(|report| {
                let queued = report.queued.saturating_sub(self.queued_before);
                report.upstream += elapsed.saturating_sub(queued);
            }),
            Level::Call => {
                if let Some(meter) = &self.meter {
                    meter.head_came(elapsed, &self.tally.report());
                }
            }
        }
    }

    fn end(&mut self, end: RecordEnd<'_>) {
        self.has_ended = true;
        let now = Instant::now();
        let (usage, tally) = (self.usage(), self.tally.report());
        let call = asked(&self.facts, &tally);
        let streams = call.streaming() != crate::call::Streaming::No;
        let chunks = self.first_chunk.zip(self.last_chunk).filter(|_| streams);
        let (conversation, reported) = self.interaction(call, &usage, &tally.details);
        let summary = Summary {
            facts: &self.facts,
            call,
            end,
            was_cut: self.was_answered && end.error_type().is_some(),
            tier: tally.call.as_ref().map(Call::service_tier),
            conversation,
            reported,
            outcome: &self.outcome,
            usage: &usage,
            duration: now - self.began,
            streamed: chunks.map(|(first, last)| (first - self.began, last - first)),
            queued: tally.queued.saturating_sub(self.queued_before),
            tally: &tally,
        };
        spans::end(&self.span, &summary);
        if let Some(meter) = &self.meter {
            meter.ended(&summary, now);
        }
    }

    /// Notes a new interaction, or looks up one that is fetched. Returns its conversation, and the call that has made
    /// it if this answer is the first to have its tokens.
    fn interaction(
        &self,
        call: &Call,
        usage: &UsageReport,
        details: &RequestDetails,
    ) -> (Option<Arc<str>>, Option<Creator>) {
        let Self { facts, interactions, .. } = self;
        if facts.level == Level::Attempt {
            return (None, None);
        }
        let has_tokens = usage.input_tokens().or(usage.output_tokens()).is_some();
        match (&facts.activity, &usage.response_id) {
            (Activity::Fetch { id }, _) => {
                let is_whole = has_tokens && !usage::is_under_way(usage);
                (interactions.conversation_of(id), is_whole.then(|| interactions.reported(id)).flatten())
            }
            (_, Some(id)) if facts.is_kept => {
                let creator = || Creator {
                    operation: conventions::operation(call, &facts.activity, facts.conventions),
                    provider: facts.provider,
                    model: call.shared_quota_name(),
                };
                let previous = details.previous_response.as_deref();
                let known = interactions.created(id, previous, (!has_tokens).then(creator));
                (named(details).or(known), None)
            }
            _ => (named(details), None),
        }
    }
}

/// Returns the conversation that the request itself names.
fn named(details: &RequestDetails) -> Option<Arc<str>> {
    details.conversation.as_deref().map(Into::into)
}

/// Returns the call that was asked for. If only the body says it, a layer inside has read it and put it into the tally.
fn asked<'a>(facts: &'a RecordFacts, tally: &'a TallyReport) -> &'a Call {
    let inside = tally.call.as_ref().filter(|_| facts.is_read_inside());
    inside.unwrap_or(&facts.call)
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let usage = self.usage();
        // A caller that stops reading after the finish reason has the whole answer.
        let is_complete = usage.ended || usage.finish_reason.is_some();
        match &usage.failure {
            Some(failure) => self.end(RecordEnd::Failed(failure)),
            None if is_complete => self.end(RecordEnd::Ok),
            None => self.end(RecordEnd::Cancelled),
        }
    }
}
