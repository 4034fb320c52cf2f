//! The metrics of a record, with the feature `metrics`.

use std::{cell::Cell, time::Duration};

use metrics::{Gauge, IntoF64, Key, Label, Metadata, SharedString};
use tokio::time::Instant;

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
    series::{RecentSeries, Series, SeriesLabels},
};
use crate::{
    call::Call,
    context::{ByModality, TallyReport, UsageReport},
};

/// The source of a meter for each record.
#[derive(Clone, Debug, Default)]
pub(in crate::telemetry) struct Meters {
    models: ModelLabels,
    series: RecentSeries,
}

/// The meter of one record.
#[derive(Debug)]
pub(in crate::telemetry) struct RecordMeter {
    from: Meters,
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
        &self.models
    }

    /// Begins a meter, if there is a recorder.
    #[inline]
    pub(in crate::telemetry) fn begin(&self, level: Level) -> Option<RecordMeter> {
        let active = level.gauge();
        let taken = Cell::new(false);
        active.increment(RecorderProbe { taken: &taken });
        taken.get().then(|| RecordMeter { from: self.clone(), active })
    }
}

impl Level {
    /// Looks up the number of records under way.
    fn gauge(self) -> Gauge {
        let key = match self {
            Self::Call => &CALLS_ACTIVE,
            Self::Attempt => &ATTEMPTS_ACTIVE,
        };
        metrics::with_recorder(|recorder| recorder.register_gauge(key, &METADATA))
    }
}

// The macros of `metrics` make the key of a name that is no literal anew for each call.
static CALLS_ACTIVE: Key = Key::from_static_name(names::CALLS_ACTIVE);
static ATTEMPTS_ACTIVE: Key = Key::from_static_name(names::ATTEMPTS_ACTIVE);
static OVERHEAD: Key = Key::from_static_name(names::OVERHEAD);
static METADATA: Metadata<'static> = Metadata::new(module_path!(), metrics::Level::INFO, Some(module_path!()));

impl Drop for RecordMeter {
    fn drop(&mut self) {
        self.active.decrement(1.0);
    }
}

impl RecordMeter {
    pub(in crate::telemetry) fn begun(&self, facts: &RecordFacts) {
        let model = || model(&self.model_asked(&facts.call));
        if let Some(from) = &facts.fallen_from {
            let from = Label::new("tower_gemini.fallback.from", self.from.models.label(from));
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
            self.from.models.confirm(model);
        }
    }

    /// Records the overhead once the head of a call's answer has come, or an error in its place: the time that was
    /// spent neither upstream nor waiting was spent here.
    pub(in crate::telemetry) fn head_came(&self, elapsed: Duration, tally: &TallyReport) {
        if tally.attempts > 0 {
            let elsewhere = tally.upstream + tally.queued + tally.backed_off;
            let overhead = metrics::with_recorder(|recorder| recorder.register_histogram(&OVERHEAD, &METADATA));
            overhead.record(elapsed.saturating_sub(elsewhere));
        }
    }

    pub(in crate::telemetry) fn ended(&self, summary: &Summary<'_>, now: Instant) {
        match summary.facts.level {
            Level::Call => self.call_ended(summary, now),
            Level::Attempt => self.attempt_ended(summary, now),
        }
    }

    fn call_ended(&self, summary: &Summary<'_>, now: Instant) {
        let Summary { facts, call, end, outcome, usage, .. } = summary;
        let asked = self.model_asked(call);
        self.faults("call", summary);
        if let Some(reason) = outcome.gave_up() {
            let labels = vec![fixed("reason", reason.as_str()), model(&asked)];
            metrics::counter!(names::RETRIES_REFUSED, labels).increment(1);
        }
        if let Some(creator) = &summary.reported {
            self.background_reported(creator, usage);
        }
        let answered = usage.model_version.as_deref().or(outcome.model()).map(|model| {
            // A name that is its own label is known, and needs no confirmation.
            if call.quota_name() == Some(model) && *asked == *model {
                return asked.clone();
            }
            if end.error_type().is_none() {
                self.from.models.confirm(model);
            }
            self.from.models.label(model)
        });
        let served = usage.service_tier.as_deref();
        let set = SeriesLabels {
            operation: conventions::operation(call, &facts.activity, facts.conventions),
            provider: facts.provider,
            asked,
            answered,
            outcome: end.outcome(),
            error: end.error_type(),
            tier_asked: summary.tier.unwrap_or_default().as_str(),
            tier_served: served.map_or("not_said", |served| conventions::tier(None, Some(served))),
        };
        let series = self.from.series.of(set.clone(), now);
        let record = CallRecord { summary, series: &series, set: &set };
        series.count(names::CALLS, "", 1, || with(set.call(), fixed("outcome", set.outcome)));
        if facts.activity == Activity::Inference {
            record.time_per_token();
        }
        match facts.conventions {
            Conventions::V0_1 => record.by_v0_1(),
            Conventions::V1_41 => record.by_v1_41(),
        }
    }

    /// Counts the tokens of an interaction that was made in the background, for the call that made it.
    fn background_reported(&self, creator: &Creator, usage: &UsageReport) {
        let model = creator.model.as_deref().map_or(SharedString::const_str(""), |model| self.from.models.label(model));
        let labels = vec![
            fixed("gen_ai.operation.name", creator.operation),
            fixed("gen_ai.provider.name", creator.provider),
            Label::new("gen_ai.request.model", model),
        ];
        let input = usage.input_tokens().unwrap_or(0);
        metrics::counter!(names::BACKGROUND_INPUT, labels.clone()).increment(input);
        metrics::counter!(names::BACKGROUND_OUTPUT, labels).increment(usage.output_tokens().unwrap_or(0));
    }

    fn attempt_ended(&self, summary: &Summary<'_>, now: Instant) {
        let Summary { call, end, duration, queued, .. } = summary;
        let set = SeriesLabels { asked: self.model_asked(call), outcome: end.outcome(), ..SeriesLabels::default() };
        let series = self.from.series.of(set.clone(), now);
        let labels = || vec![fixed("outcome", set.outcome), model(&set.asked)];
        series.count(names::ATTEMPTS, "", 1, labels);
        series.record(names::ATTEMPT_DURATION, "", duration.as_secs_f64(), labels);
        self.faults("attempt", summary);
        if !queued.is_zero() {
            series.record(names::QUEUE_WAIT, "", queued.as_secs_f64(), || vec![model(&set.asked)]);
        }
    }

    fn faults(&self, at: &'static str, summary: &Summary<'_>) {
        if let Some(failure) = summary.end.failure() {
            let fault = fixed("fault", failure.fault().as_str());
            let labels = vec![
                fixed("at", at),
                fault,
                fixed("error.type", failure.kind().as_str()),
                model(&self.model_asked(summary.call)),
            ];
            metrics::counter!(names::FAULTS, labels).increment(1);
        }
    }

    /// Returns the value of the label of the model or agent that was asked; an empty one for a call without either.
    fn model_asked(&self, call: &Call) -> SharedString {
        call.quota_name().map_or(SharedString::const_str(""), |name| self.from.models.label(name))
    }
}

impl SeriesLabels {
    /// Returns the labels of a call, however it ends.
    fn call(&self) -> Vec<Label> {
        let mut labels = Vec::with_capacity(6);
        labels.extend([
            fixed("gen_ai.operation.name", self.operation),
            fixed("gen_ai.provider.name", self.provider),
            model(&self.asked),
        ]);
        labels
    }

    /// Returns the labels of a call and of the model that has answered it.
    fn answered(&self) -> Vec<Label> {
        let mut labels = self.call();
        labels.extend(self.answered.clone().map(|model| Label::new("gen_ai.response.model", model)));
        labels
    }

    /// Returns the same, with the tier that served, or else the one that was asked for.
    fn served(&self) -> Vec<Label> {
        let tier = if self.tier_served == "not_said" { self.tier_asked } else { self.tier_served };
        with(self.answered(), fixed("tower_gemini.service_tier", tier))
    }

    /// Returns the labels, with the kind of the failure if there was one.
    fn timed(&self, mut labels: Vec<Label>) -> Vec<Label> {
        labels.extend(self.error.map(|kind| fixed("error.type", kind)));
        labels
    }
}

/// The end of a call, and the series in which it is recorded.
struct CallRecord<'a> {
    summary: &'a Summary<'a>,
    series: &'a Series,
    set: &'a SeriesLabels,
}

impl CallRecord<'_> {
    /// Records times and tokens in the names of v0.1.0.
    fn by_v0_1(&self) {
        let Self { summary, series, set } = self;
        let Summary { facts, usage, duration, streamed, .. } = summary;
        let seconds = duration.as_secs_f64();
        match facts.activity {
            Activity::Inference => {
                self.tier_served();
                self.count_tokens();
                if facts.token_histograms {
                    for (name, tokens) in
                        [(names::INPUT_OF_CALL, usage.input_tokens()), (names::OUTPUT_OF_CALL, usage.output_tokens())]
                    {
                        if let Some(tokens) = tokens {
                            series.record(name, "", tokens as f64, || set.served());
                        }
                    }
                }
                if let Some((first, _)) = streamed {
                    series.record(names::INFERENCE_FIRST_CHUNK, "", first.as_secs_f64(), || set.served());
                }
                series.record(names::INFERENCE_DURATION, "", seconds, || set.timed(set.served()));
            }
            Activity::Embeddings => {
                if let Some(tokens) = usage.input_tokens() {
                    series.record(names::EMBEDDINGS_INPUT, "", tokens as f64, || set.answered());
                }
                series.record(names::EMBEDDINGS_DURATION, "", seconds, || set.timed(set.answered()));
            }
            Activity::Fetch { .. } | Activity::Other => {
                series.record(names::CALL_DURATION, "", seconds, || set.timed(set.answered()));
            }
        }
    }

    /// Counts a call by the tier that it asked for and the one that the upstream says it has served it in.
    fn tier_served(&self) {
        let set = self.set;
        self.series.count(names::TIER_CALLS, "", 1, || {
            vec![
                fixed("tower_gemini.service_tier.asked", set.tier_asked),
                fixed("tower_gemini.service_tier", set.tier_served),
                fixed("outcome", set.outcome),
                model(&set.asked),
            ]
        });
    }

    /// Counts the tokens of a call, or zeros where the answer has no counts: by the conventions each call is counted, so
    /// that a series begins before its first token.
    fn count_tokens(&self) {
        let Self { summary: Summary { usage, .. }, series, set } = self;
        let count = |name: &'static str, tokens: Option<u64>, known: &ByModality| {
            for (modality, tokens) in usage::by_modality(tokens, known) {
                let labels = || with(set.served(), fixed("gen_ai.token.modality", modality));
                series.count(name, modality, tokens, labels);
            }
        };
        count(names::INPUT_TOKENS, usage.input_tokens(), &usage.input_by_modality);
        count(names::OUTPUT_TOKENS, usage.output_tokens(), &usage.output_by_modality);
        count(names::CACHED_TOKENS, usage.cached_tokens, &usage.cached_by_modality);
        count(names::REASONING_TOKENS, usage.thoughts_tokens, &ByModality::default());
    }

    /// Records times and tokens in the names of 1.41.
    fn by_v1_41(&self) {
        let Self { summary, series, set } = self;
        let Summary { facts, usage, duration, streamed, .. } = summary;
        if let Some((first, _)) = streamed {
            series.record(names::OLD_FIRST_CHUNK, "", first.as_secs_f64(), || set.answered());
        }
        for (kind, tokens) in [("input", usage.input_tokens()), ("output", usage.output_tokens())] {
            if let Some(tokens) = tokens.filter(|_| facts.activity.pays_tokens()) {
                let labels = || with(set.answered(), fixed("gen_ai.token.type", kind));
                series.record(names::OLD_TOKENS, kind, tokens as f64, labels);
            }
        }
        series.record(names::OLD_DURATION, "", duration.as_secs_f64(), || set.timed(set.answered()));
    }

    /// Records the time of a stream's output tokens after the first.
    fn time_per_token(&self) {
        let Self { summary: Summary { end, usage, streamed, .. }, series, set } = self;
        if let (Some((_, rest)), Some(tokens @ 2..)) = (streamed, usage.output_tokens())
            && end.error_type().is_none()
        {
            let each = rest.as_secs_f64() / (tokens - 1) as f64;
            series.record(names::PER_TOKEN, "", each, || set.answered());
        }
    }
}

/// Returns the labels and one more.
fn with(mut labels: Vec<Label>, more: Label) -> Vec<Label> {
    labels.push(more);
    labels
}

fn fixed(name: &'static str, value: &'static str) -> Label {
    Label::from_static_parts(name, value)
}

/// Returns the label of the model that was asked.
fn model(asked: &SharedString) -> Label {
    Label::new("gen_ai.request.model", asked.clone())
}
