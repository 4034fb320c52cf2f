//! The metrics of a record, with the feature `metrics`.

use std::{cell::Cell, time::Duration};

use metrics::{Gauge, IntoF64, Label, SharedString};

use super::{
    super::{
        conventions,
        layer::Level,
        record::{RecordFacts, Summary},
    },
    models::ModelLabels,
    names,
};
use crate::{call::Call, context::TallyReport};

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
        let Summary { call, end, outcome, usage, duration, streamed, .. } = summary;
        let operation = fixed("gen_ai.operation.name", conventions::operation(call));
        let mut labels = vec![operation, fixed("gen_ai.provider.name", summary.facts.provider), self.model_asked(call)];
        let counted = [labels.clone(), vec![fixed("outcome", end.outcome())]].concat();
        metrics::counter!(names::CALLS, counted).increment(1);
        self.faults("call", summary);
        if let Some(reason) = outcome.gave_up() {
            let labels = vec![fixed("reason", reason.as_str()), self.model_asked(call)];
            metrics::counter!(names::RETRIES_REFUSED, labels).increment(1);
        }

        if let Some(model) = usage.model_version.as_deref().or(outcome.model()) {
            if end.error_type().is_none() {
                self.models.confirm(model);
            }
            labels.push(Label::new("gen_ai.response.model", self.models.label(model)));
        }
        if let Some((first, _)) = streamed {
            metrics::histogram!(names::FIRST_CHUNK, labels.clone()).record(*first);
        }
        for (kind, tokens) in
            [("input", conventions::input_tokens(usage)), ("output", conventions::output_tokens(usage))]
        {
            if let Some(tokens) = tokens {
                let labels = [labels.clone(), vec![fixed("gen_ai.token.type", kind)]].concat();
                metrics::histogram!(names::TOKENS, labels).record(tokens as f64);
            }
        }
        if let (Some((_, rest)), Some(tokens @ 2..)) = (streamed, conventions::output_tokens(usage))
            && end.error_type().is_none()
        {
            let each = rest.as_secs_f64() / (tokens - 1) as f64;
            metrics::histogram!(names::PER_TOKEN, labels.clone()).record(each);
        }
        labels.extend(end.error_type().map(|kind| fixed("error.type", kind)));
        metrics::histogram!(names::CALL_DURATION, labels).record(*duration);
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

    /// Returns the label of the model that was asked; an empty one for a call without a model.
    fn model_asked(&self, call: &Call) -> Label {
        let model = call.model().map_or(SharedString::const_str(""), |model| self.models.label(model));
        Label::new("gen_ai.request.model", model)
    }
}

fn fixed(name: &'static str, value: &'static str) -> Label {
    Label::from_static_parts(name, value)
}
