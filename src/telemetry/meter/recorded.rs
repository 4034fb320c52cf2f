//! The metrics of a record, with the feature `metrics`.

use std::{cell::Cell, time::Duration};

use metrics::{Gauge, IntoF64, Label, SharedString};

use super::{
    super::{
        Conventions,
        conventions::{self, Activity},
        interactions::Creator,
        layer::Level,
        record::{RecordFacts, Summary},
        usage,
    },
    models::ModelLabels,
    names,
};
use crate::{
    call::Call,
    context::{ByModality, TallyReport, UsageReport},
};

/// The source of a meter for each record.
#[derive(Clone, Debug, Default)]
pub(in crate::telemetry) struct Meters(ModelLabels);

/// The meter of one record.
#[derive(Debug)]
pub(in crate::telemetry) struct RecordMeter {
    models: ModelLabels,
    /// The number of calls or attempts under way, this one included until it is dropped.
    active: Gauge,
}

/// The number 1, which notices whether it is taken: a gauge without a recorder never asks for its value.
///
/// There is no other way to find out that no recorder is installed, except to make labels in vain.
struct RecorderProbe<'a> {
    taken: &'a Cell<bool>,
}

impl IntoF64 for RecorderProbe<'_> {
    fn into_f64(self) -> f64 {
        self.taken.set(true);
        1.0
    }
}

impl Meters {
    pub(in crate::telemetry) fn models(&self) -> &ModelLabels {
        &self.0
    }

    /// Begins a meter, if there is a recorder.
    #[inline]
    pub(in crate::telemetry) fn begin(&self, level: Level) -> Option<RecordMeter> {
        let active = match level {
            Level::Call => metrics::gauge!(names::CALLS_ACTIVE),
            Level::Attempt => metrics::gauge!(names::ATTEMPTS_ACTIVE),
        };
        let taken = Cell::new(false);
        active.increment(RecorderProbe { taken: &taken });
        taken.get().then(|| RecordMeter { models: self.0.clone(), active })
    }
}

impl Drop for RecordMeter {
    fn drop(&mut self) {
        self.active.decrement(1.0);
    }
}

impl RecordMeter {
    pub(in crate::telemetry) fn begun(&self, facts: &RecordFacts) {
        let model = || self.model_asked(&facts.call);
        if let Some(from) = &facts.fallen_from {
            let from = Label::new("tower_gemini.fallback.from", self.models.label(from));
            metrics::counter!(names::FALLBACKS, vec![from, model()]).increment(1);
        }
        if let Some(retried) = facts.retried {
            let labels = vec![fixed("error.type", retried.after.as_str()), model()];
            metrics::counter!(names::RETRIES, labels.clone()).increment(1);
            metrics::histogram!(names::RETRY_WAIT, labels).record(retried.waited);
        }
    }

    /// Notes that a good answer has come from `model`.
    pub(in crate::telemetry) fn confirm(&self, model: Option<&str>) {
        if let Some(model) = model {
            self.models.confirm(model);
        }
    }

    /// Records the overhead once the head of a call's answer has come, or an error in its place: the time that was
    /// spent neither upstream nor waiting was spent here.
    pub(in crate::telemetry) fn head_came(&self, elapsed: Duration, tally: &TallyReport) {
        if tally.attempts > 0 {
            let elsewhere = tally.upstream + tally.queued + tally.backed_off;
            metrics::histogram!(names::OVERHEAD).record(elapsed.saturating_sub(elsewhere));
        }
    }

    pub(in crate::telemetry) fn ended(&self, summary: &Summary<'_>) {
        match summary.facts.level {
            Level::Call => self.call_ended(summary),
            Level::Attempt => self.attempt_ended(summary),
        }
    }

    fn call_ended(&self, summary: &Summary<'_>) {
        let Summary { facts, call, end, outcome, usage, .. } = summary;
        let operation = conventions::operation(call, &facts.activity, facts.conventions);
        let mut labels = vec![
            fixed("gen_ai.operation.name", operation),
            fixed("gen_ai.provider.name", facts.provider),
            self.model_asked(call),
        ];
        metrics::counter!(names::CALLS, with(&labels, fixed("outcome", end.outcome()))).increment(1);
        self.faults("call", summary);
        if let Some(reason) = outcome.gave_up() {
            let labels = vec![fixed("reason", reason.as_str()), self.model_asked(call)];
            metrics::counter!(names::RETRIES_REFUSED, labels).increment(1);
        }
        if let Some(creator) = &summary.reported {
            self.background_reported(creator, usage);
        }

        if let Some(model) = usage.model_version.as_deref().or(outcome.model()) {
            if end.error_type().is_none() {
                self.models.confirm(model);
            }
            labels.push(Label::new("gen_ai.response.model", self.models.label(model)));
        }
        if facts.activity == Activity::Inference {
            time_per_token(summary, &labels);
        }
        match facts.conventions {
            Conventions::V0_1 => {
                if facts.activity == Activity::Inference {
                    self.tier_served(summary);
                }
                by_v0_1(summary, labels);
            }
            Conventions::V1_41 => by_v1_41(summary, labels),
        }
    }

    /// Counts a call by the tier that it asked for and the one that the upstream says it has served it in.
    fn tier_served(&self, summary: &Summary<'_>) {
        let served =
            summary.usage.service_tier.as_deref().map_or("not_said", |tier| conventions::tier(None, Some(tier)));
        let labels = vec![
            fixed("tower_gemini.service_tier.asked", summary.tier.unwrap_or_default().as_str()),
            fixed("tower_gemini.service_tier", served),
            fixed("outcome", summary.end.outcome()),
            self.model_asked(summary.call),
        ];
        metrics::counter!(names::TIER_CALLS, labels).increment(1);
    }

    /// Counts the tokens of an interaction that was made in the background, for the call that made it.
    fn background_reported(&self, creator: &Creator, usage: &UsageReport) {
        let model = creator.model.as_deref().map_or(SharedString::const_str(""), |model| self.models.label(model));
        let labels = vec![
            fixed("gen_ai.operation.name", creator.operation),
            fixed("gen_ai.provider.name", creator.provider),
            Label::new("gen_ai.request.model", model),
        ];
        let input = usage.input_tokens().unwrap_or(0);
        metrics::counter!(names::BACKGROUND_INPUT, labels.clone()).increment(input);
        metrics::counter!(names::BACKGROUND_OUTPUT, labels).increment(usage.output_tokens().unwrap_or(0));
    }

    fn attempt_ended(&self, summary: &Summary<'_>) {
        let Summary { call, end, duration, queued, .. } = summary;
        let labels = vec![fixed("outcome", end.outcome()), self.model_asked(call)];
        metrics::counter!(names::ATTEMPTS, labels.clone()).increment(1);
        metrics::histogram!(names::ATTEMPT_DURATION, labels).record(*duration);
        self.faults("attempt", summary);
        if !queued.is_zero() {
            metrics::histogram!(names::QUEUE_WAIT, vec![self.model_asked(call)]).record(*queued);
        }
    }

    fn faults(&self, at: &'static str, summary: &Summary<'_>) {
        if let Some(failure) = summary.end.failure() {
            let fault = fixed("fault", failure.fault().as_str());
            let labels = vec![
                fixed("at", at),
                fault,
                fixed("error.type", failure.kind().as_str()),
                self.model_asked(summary.call),
            ];
            metrics::counter!(names::FAULTS, labels).increment(1);
        }
    }

    /// Returns the label of the model or agent that was asked; an empty one for a call without either.
    fn model_asked(&self, call: &Call) -> Label {
        let model = call.quota_name().map_or(SharedString::const_str(""), |name| self.models.label(name));
        Label::new("gen_ai.request.model", model)
    }
}

/// Records times and tokens in the names of v0.1.0.
fn by_v0_1(summary: &Summary<'_>, mut labels: Vec<Label>) {
    let Summary { facts, end, usage, duration, streamed, .. } = summary;
    if facts.activity == Activity::Inference {
        let tier = conventions::tier(summary.tier, usage.service_tier.as_deref());
        labels.push(fixed("tower_gemini.service_tier", tier));
    }
    let timed = |labels: Vec<Label>| match end.error_type() {
        Some(kind) => with(&labels, fixed("error.type", kind)),
        None => labels,
    };
    match facts.activity {
        Activity::Inference => {
            count_tokens(usage, &labels);
            if facts.token_histograms {
                for (name, tokens) in
                    [(names::INPUT_OF_CALL, usage.input_tokens()), (names::OUTPUT_OF_CALL, usage.output_tokens())]
                {
                    if let Some(tokens) = tokens {
                        metrics::histogram!(name, labels.clone()).record(tokens as f64);
                    }
                }
            }
            if let Some((first, _)) = streamed {
                metrics::histogram!(names::INFERENCE_FIRST_CHUNK, labels.clone()).record(*first);
            }
            metrics::histogram!(names::INFERENCE_DURATION, timed(labels)).record(*duration);
        }
        Activity::Embeddings => {
            if let Some(tokens) = usage.input_tokens() {
                metrics::histogram!(names::EMBEDDINGS_INPUT, labels.clone()).record(tokens as f64);
            }
            metrics::histogram!(names::EMBEDDINGS_DURATION, timed(labels)).record(*duration);
        }
        Activity::Fetch { .. } | Activity::Other => {
            metrics::histogram!(names::CALL_DURATION, timed(labels)).record(*duration);
        }
    }
}

/// Counts the tokens of a call, or zeros where the answer has no counts: by the conventions each call is counted, so
/// that a series begins before its first token.
fn count_tokens(usage: &UsageReport, labels: &[Label]) {
    let count = |name: &'static str, tokens: Option<u64>, known: &ByModality| {
        for (modality, tokens) in usage::by_modality(tokens, known) {
            metrics::counter!(name, with(labels, fixed("gen_ai.token.modality", modality))).increment(tokens);
        }
    };
    count(names::INPUT_TOKENS, usage.input_tokens(), &usage.input_by_modality);
    count(names::OUTPUT_TOKENS, usage.output_tokens(), &usage.output_by_modality);
    count(names::CACHED_TOKENS, usage.cached_tokens, &usage.cached_by_modality);
    count(names::REASONING_TOKENS, usage.thoughts_tokens, &ByModality::default());
}

/// Records times and tokens in the names of 1.41.
fn by_v1_41(summary: &Summary<'_>, mut labels: Vec<Label>) {
    let Summary { facts, end, usage, duration, streamed, .. } = summary;
    if let Some((first, _)) = streamed {
        metrics::histogram!(names::OLD_FIRST_CHUNK, labels.clone()).record(*first);
    }
    for (kind, tokens) in [("input", usage.input_tokens()), ("output", usage.output_tokens())] {
        if let Some(tokens) = tokens.filter(|_| facts.activity.pays_tokens()) {
            metrics::histogram!(names::OLD_TOKENS, with(&labels, fixed("gen_ai.token.type", kind)))
                .record(tokens as f64);
        }
    }
    labels.extend(end.error_type().map(|kind| fixed("error.type", kind)));
    metrics::histogram!(names::OLD_DURATION, labels).record(*duration);
}

/// Records the time of a stream's output tokens after the first.
fn time_per_token(summary: &Summary<'_>, labels: &[Label]) {
    let Summary { end, usage, streamed, .. } = summary;
    if let (Some((_, rest)), Some(tokens @ 2..)) = (streamed, usage.output_tokens())
        && end.error_type().is_none()
    {
        let each = rest.as_secs_f64() / (tokens - 1) as f64;
        metrics::histogram!(names::PER_TOKEN, labels.to_vec()).record(each);
    }
}

/// Returns the labels and one more.
fn with(labels: &[Label], more: Label) -> Vec<Label> {
    let mut all = Vec::with_capacity(labels.len() + 1);
    all.extend_from_slice(labels);
    all.push(more);
    all
}

fn fixed(name: &'static str, value: &'static str) -> Label {
    Label::from_static_parts(name, value)
}
