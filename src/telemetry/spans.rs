//! The two spans and their attributes.

use http::Request;
use tracing::{Span, field::Empty};

use super::{
    Conventions,
    conventions::{self, Activity, shown},
    layer::Level,
    record::{RecordFacts, Summary},
};
use crate::{
    call::{Call, ServiceTier, Streaming},
    context::UsageReport,
    failure::Failure,
};

/// Begins a span; a disabled one if there is no subscriber for it.
#[inline]
pub(super) fn begin(level: Level) -> Span {
    match level {
        Level::Call => tracing::info_span!(
            target: "tower_gemini::telemetry",
            "gemini.call",
            otel.name = Empty,
            otel.kind = "client",
            otel.status_code = Empty,
            gen_ai.operation.name = Empty,
            gen_ai.provider.name = Empty,
            gen_ai.request.model = Empty,
            gen_ai.request.stream = Empty,
            gen_ai.request.reasoning.level = Empty,
            gen_ai.request.previous_response.id = Empty,
            gen_ai.agent.name = Empty,
            gen_ai.conversation.id = Empty,
            gen_ai.response.id = Empty,
            gen_ai.response.model = Empty,
            gen_ai.response.finish_reasons = Empty,
            gen_ai.response.time_to_first_chunk = Empty,
            gen_ai.usage.input_tokens = Empty,
            gen_ai.usage.output_tokens = Empty,
            gen_ai.usage.cache_read.input_tokens = Empty,
            gen_ai.usage.reasoning.output_tokens = Empty,
            gen_ai.usage.text.input_tokens = Empty,
            gen_ai.usage.image.input_tokens = Empty,
            gen_ai.usage.audio.input_tokens = Empty,
            gen_ai.usage.text.cache_read.input_tokens = Empty,
            gen_ai.usage.image.cache_read.input_tokens = Empty,
            gen_ai.usage.audio.cache_read.input_tokens = Empty,
            gen_ai.usage.text.output_tokens = Empty,
            gen_ai.usage.image.output_tokens = Empty,
            gen_ai.usage.audio.output_tokens = Empty,
            "error.type" = Empty,
            http.request.method = Empty,
            http.response.status_code = Empty,
            server.address = Empty,
            server.port = Empty,
            tower_gemini.request.service_tier = Empty,
            tower_gemini.response.service_tier = Empty,
            tower_gemini.outcome = Empty,
            tower_gemini.attempts = Empty,
            tower_gemini.queue.wait = Empty,
            tower_gemini.retry.wait = Empty,
            tower_gemini.retry.gave_up = Empty,
        ),
        Level::Attempt => tracing::info_span!(
            target: "tower_gemini::telemetry",
            "gemini.attempt",
            otel.name = Empty,
            otel.kind = "client",
            otel.status_code = Empty,
            gen_ai.provider.name = Empty,
            gen_ai.request.model = Empty,
            gen_ai.response.model = Empty,
            gen_ai.response.finish_reasons = Empty,
            "error.type" = Empty,
            http.request.method = Empty,
            http.request.resend_count = Empty,
            http.response.status_code = Empty,
            server.address = Empty,
            server.port = Empty,
            tower_gemini.outcome = Empty,
            tower_gemini.key = Empty,
            tower_gemini.project = Empty,
            tower_gemini.queue.wait = Empty,
            tower_gemini.retry.after = Empty,
            tower_gemini.retry.wait = Empty,
            tower_gemini.fallback.from = Empty,
        ),
    }
}

/// Records the attributes that are known before the call is made. Of the URI only the host: a path may hold any text,
/// and a query a key.
pub(super) fn describe<B>(span: &Span, facts: &RecordFacts, attempt: u32, request: &Request<B>) {
    if span.is_disabled() {
        return;
    }
    span.record("gen_ai.provider.name", facts.provider);
    span.record("http.request.method", request.method().as_str());
    if let Some(host) = request.uri().host() {
        span.record("server.address", &*shown(host));
        let is_tls = request.uri().scheme() != Some(&http::uri::Scheme::HTTP);
        span.record("server.port", request.uri().port_u16().unwrap_or(if is_tls { 443 } else { 80 }));
    }
    if !facts.is_read_inside() {
        name(span, facts, &facts.call);
    }
    if facts.level == Level::Call {
        return;
    }
    if attempt > 1 {
        span.record("http.request.resend_count", attempt - 1);
    }
    if let Some(retried) = facts.retried {
        span.record("tower_gemini.retry.after", retried.after.as_str());
        span.record("tower_gemini.retry.wait", retried.waited.as_secs_f64());
    }
    if let Some(model) = &facts.fallen_from {
        span.record("tower_gemini.fallback.from", &*shown(model));
    }
}

/// Records the operation and the model. Only once a span: an exporter may keep an attribute that is recorded twice
/// twice.
fn name(span: &Span, facts: &RecordFacts, call: &Call) {
    let RecordFacts { level, conventions, activity, .. } = facts;
    let operation = conventions::operation(call, activity, *conventions);
    let model = call.model().map(shown);
    let agent = call.agent().map(shown);
    let verb = if *level == Level::Call { operation } else { "attempt" };
    match model.as_ref().or(agent.as_ref()) {
        Some(name) => span.record("otel.name", [verb, " ", name].concat()),
        None => span.record("otel.name", verb),
    };
    span.record("gen_ai.request.model", model.as_deref());
    if *level == Level::Call {
        span.record("gen_ai.agent.name", agent.as_deref());
        span.record("gen_ai.operation.name", operation);
        let streams = call.streaming() != Streaming::No;
        // By v0.1.0, a call that does not stream says nothing of it.
        let is_said = streams || *conventions == Conventions::V1_41;
        span.record("gen_ai.request.stream", is_said.then_some(streams));
    }
}

/// Records the attributes that are known at the end.
pub(super) fn end(span: &Span, summary: &Summary<'_>) {
    if span.is_disabled() {
        return;
    }
    let Summary { facts, end, outcome, usage, queued, .. } = summary;
    span.record("tower_gemini.outcome", end.outcome());
    span.record("error.type", end.error_type());
    if end.failure().is_some() {
        span.record("otel.status_code", "ERROR");
    }
    let answered = usage.model_version.as_deref().or(outcome.model());
    span.record("gen_ai.response.model", answered.map(shown).as_deref());
    if let Some(reason) = finish_reason(summary) {
        // The conventions want a list; a field of a span cannot be one, so that the list is written as text.
        span.record("gen_ai.response.finish_reasons", format!("[{:?}]", shown(reason)));
    }
    if !queued.is_zero() {
        span.record("tower_gemini.queue.wait", queued.as_secs_f64());
    }
    match facts.level {
        Level::Call => end_of_call(span, summary),
        Level::Attempt => {
            span.record("tower_gemini.key", outcome.key());
            span.record("tower_gemini.project", outcome.project());
        }
    }
}

fn end_of_call(span: &Span, summary: &Summary<'_>) {
    let Summary { facts, call, end, outcome, usage, streamed, tally, .. } = summary;
    if facts.is_read_inside() {
        name(span, facts, call);
    }
    span.record("gen_ai.conversation.id", summary.conversation.as_deref().map(shown).as_deref());
    span.record("gen_ai.response.id", usage.response_id.as_deref().map(shown).as_deref());
    if facts.conventions == Conventions::V0_1 {
        let previous = tally.details.previous_response.as_deref();
        span.record("gen_ai.request.previous_response.id", previous.map(shown).as_deref());
        let level = tally.details.reasoning_level.as_deref();
        span.record("gen_ai.request.reasoning.level", level.map(shown).as_deref());
    }
    if facts.activity.pays_tokens() {
        span.record("tower_gemini.request.service_tier", summary.tier.map(ServiceTier::as_str));
        span.record("tower_gemini.response.service_tier", usage.service_tier.as_deref().map(shown).as_deref());
    }
    span.record("gen_ai.response.time_to_first_chunk", streamed.map(|(first, _)| first.as_secs_f64()));
    if facts.activity.pays_tokens() {
        tokens(span, facts.conventions, usage);
    }
    let attempts = if outcome.attempts() > 0 { outcome.attempts() } else { tally.attempts };
    span.record("tower_gemini.attempts", attempts);
    if !tally.backed_off.is_zero() {
        span.record("tower_gemini.retry.wait", tally.backed_off.as_secs_f64());
    }
    span.record("tower_gemini.retry.gave_up", outcome.gave_up().map(crate::context::GaveUp::as_str));
    let has_event = facts.conventions == Conventions::V0_1 && facts.activity == Activity::Inference;
    if let Some(failure) = end.failure().filter(|_| has_event) {
        span.in_scope(|| exception(failure));
    }
}

/// Records the tokens: their counts, and by v0.1.0 the counts of each modality that has an attribute.
fn tokens(span: &Span, conventions: Conventions, usage: &UsageReport) {
    span.record("gen_ai.usage.input_tokens", usage.input_tokens());
    span.record("gen_ai.usage.output_tokens", usage.output_tokens());
    span.record("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens);
    span.record("gen_ai.usage.reasoning.output_tokens", usage.thoughts_tokens);
    if conventions == Conventions::V1_41 {
        return;
    }
    span.record("gen_ai.usage.text.input_tokens", usage.input_by_modality.text);
    span.record("gen_ai.usage.image.input_tokens", usage.input_by_modality.image);
    span.record("gen_ai.usage.audio.input_tokens", usage.input_by_modality.audio);
    span.record("gen_ai.usage.text.cache_read.input_tokens", usage.cached_by_modality.text);
    span.record("gen_ai.usage.image.cache_read.input_tokens", usage.cached_by_modality.image);
    span.record("gen_ai.usage.audio.cache_read.input_tokens", usage.cached_by_modality.audio);
    span.record("gen_ai.usage.text.output_tokens", usage.output_by_modality.text);
    span.record("gen_ai.usage.image.output_tokens", usage.output_by_modality.image);
    span.record("gen_ai.usage.audio.output_tokens", usage.output_by_modality.audio);
}

/// Returns the reason why the answer ended. By v0.1.0, one that had begun and did not come to its end has `error`.
fn finish_reason<'a>(summary: &'a Summary<'_>) -> Option<&'a str> {
    let Summary { facts, usage, was_cut, .. } = summary;
    let is_missed = *was_cut && facts.conventions == Conventions::V0_1 && facts.activity == Activity::Inference;
    let reason = usage.finish_reason.as_deref().or(usage.block_reason.as_deref());
    reason.or(is_missed.then_some("error"))
}

/// Reports a failed call as the conventions' event. The upstream's own words are left out: they may repeat the prompt. It
/// has no `message`, which an exporter would take for its name.
fn exception(failure: &Failure) {
    tracing::event!(
        name: "gen_ai.client.inference.exception",
        target: "tower_gemini::telemetry::exception",
        tracing::Level::WARN,
        { exception.message = failure.kind().advice().meaning, "exception.type" = failure.kind().as_str() }
    );
}
