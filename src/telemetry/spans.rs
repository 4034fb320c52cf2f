//! The two spans and their attributes.

use http::Request;
use tracing::{Span, field::Empty};

use super::{
    conventions::{self, shown},
    layer::Level,
    record::{RecordFacts, Summary},
};
use crate::call::{Call, Streaming};

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
            gen_ai.response.model = Empty,
            gen_ai.response.finish_reasons = Empty,
            gen_ai.response.time_to_first_chunk = Empty,
            gen_ai.usage.input_tokens = Empty,
            gen_ai.usage.output_tokens = Empty,
            gen_ai.usage.cache_read.input_tokens = Empty,
            gen_ai.usage.reasoning.output_tokens = Empty,
            "error.type" = Empty,
            http.request.method = Empty,
            http.response.status_code = Empty,
            server.address = Empty,
            server.port = Empty,
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
        name(span, facts.level, &facts.call);
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
fn name(span: &Span, level: Level, call: &Call) {
    let operation = conventions::operation(call);
    let model = call.model().map(shown);
    let verb = if level == Level::Call { operation } else { "attempt" };
    match &model {
        Some(model) => span.record("otel.name", format!("{verb} {model}")),
        None => span.record("otel.name", verb),
    };
    span.record("gen_ai.request.model", model.as_deref());
    if level == Level::Call {
        span.record("gen_ai.operation.name", operation);
        span.record("gen_ai.request.stream", call.streaming() != Streaming::No);
    }
}

/// Records the attributes that are known at the end.
pub(super) fn end(span: &Span, summary: &Summary<'_>) {
    if span.is_disabled() {
        return;
    }
    let Summary { facts, call, end, outcome, usage, streamed, queued, tally, .. } = summary;
    span.record("tower_gemini.outcome", end.outcome());
    span.record("error.type", end.error_type());
    if end.failure().is_some() {
        span.record("otel.status_code", "ERROR");
    }
    let answered = usage.model_version.as_deref().or(outcome.model());
    span.record("gen_ai.response.model", answered.map(shown).as_deref());
    if let Some(reason) = usage.finish_reason.as_deref().or(usage.block_reason.as_deref()) {
        // The conventions want a list; a field of a span cannot be one, so that the list is written as text.
        span.record("gen_ai.response.finish_reasons", format!("[{:?}]", shown(reason)));
    }
    if !queued.is_zero() {
        span.record("tower_gemini.queue.wait", queued.as_secs_f64());
    }
    match facts.level {
        Level::Call => {
            if facts.is_read_inside() {
                name(span, facts.level, call);
            }
            span.record("gen_ai.response.time_to_first_chunk", streamed.map(|(first, _)| first.as_secs_f64()));
            span.record("gen_ai.usage.input_tokens", conventions::input_tokens(usage));
            span.record("gen_ai.usage.output_tokens", conventions::output_tokens(usage));
            span.record("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens);
            span.record("gen_ai.usage.reasoning.output_tokens", usage.thoughts_tokens);
            let attempts = if outcome.attempts() > 0 { outcome.attempts() } else { tally.attempts };
            span.record("tower_gemini.attempts", attempts);
            if !tally.backed_off.is_zero() {
                span.record("tower_gemini.retry.wait", tally.backed_off.as_secs_f64());
            }
            span.record("tower_gemini.retry.gave_up", outcome.gave_up().map(crate::context::GaveUp::as_str));
        }
        Level::Attempt => {
            span.record("tower_gemini.key", outcome.key());
            span.record("tower_gemini.project", outcome.project());
        }
    }
}
