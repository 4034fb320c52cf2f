//! What comes of a request once it has been judged: an error, an answer, or an answer that goes wrong.

use std::time::Duration;

use bytes::Bytes;

use super::{
    answer::{self, Answer},
    asked::{Asked, Prompt, page_token},
    credentials::DEFAULT_PROJECT,
    errors::{ApiError, Envelope, pretty},
    judge::{Caller, Case},
    lists::{self, EmbeddingShape},
    model::Model,
    openai,
    plan::{Content, EVENTS, JSON, Plan},
    quota::Violation,
    quota_names::QuotaNames,
    trouble::{Kind, Place, Refusal, Trouble},
};
use crate::{
    call::{Operation, Streaming, Surface},
    quota::Dimension,
};

impl Case<'_> {
    /// What goes wrong without any answer; `None` when there has to be one for it to go wrong with.
    pub(super) fn outright(
        &self,
        trouble: &Trouble,
        caller: Option<&Caller<'_>>,
        model: Option<&Model>,
    ) -> Option<Plan> {
        let after = self.shared.settings.before_headers.saturating_add(trouble.delay);
        match &trouble.kind {
            Kind::Hang => Some(Plan::Hang),
            Kind::Reset => Some(Plan::Reset { after }),
            Kind::Response(response) => Some(Plan::Answer {
                after,
                status: response.status,
                headers: response.headers.clone(),
                content: Content::whole(response.body.clone()).shaped(Some(trouble), false, self.linger),
            }),
            Kind::Refusal { refusal, hint, place } => {
                let moved = *place != Place::Status && self.call.streaming() != Streaming::No;
                (!moved).then(|| self.refuse(&self.api_error(refusal, *hint, caller, model), after))
            }
            Kind::None | Kind::SlowFirstToken(_) | Kind::Break { .. } | Kind::Verdict(_) => None,
        }
    }

    fn api_error(
        &self,
        refusal: &Refusal,
        hint: Option<Duration>,
        caller: Option<&Caller<'_>>,
        model: Option<&Model>,
    ) -> ApiError {
        let project = caller.map_or(DEFAULT_PROJECT, |caller| &*caller.project);
        let quota = |dimension, otherwise, retry_in| {
            let named = self.call.model().unwrap_or_default();
            let names = match model {
                Some(model) => self.quota_names(model),
                None => QuotaNames { model: named, embeds: false, paid: self.shared.settings.paid },
            };
            let limits = self.shared.settings.limits(project, model.map_or(named, |model| &model.name));
            let limit = if otherwise == 0 { 0 } else { limits.get(dimension).unwrap_or(otherwise) };
            ApiError::quota_exceeded(&[Violation { dimension, limit }], &names, retry_in)
        };
        let error = match refusal {
            Refusal::Overloaded => ApiError::overloaded(),
            Refusal::HighDemand => ApiError::high_demand(),
            Refusal::Internal => ApiError::internal(),
            Refusal::DeadlineExceeded => ApiError::deadline_exceeded(),
            Refusal::MinuteQuota(retry_in) => quota(Dimension::RequestsPerMinute, 10, *retry_in),
            Refusal::TokenQuota(retry_in) => quota(Dimension::InputTokensPerMinute, 250_000, *retry_in),
            Refusal::DayQuota => quota(Dimension::RequestsPerDay, 500, Duration::from_millis(5_250)),
            Refusal::ZeroQuota => quota(Dimension::RequestsPerMinute, 0, Duration::from_millis(38_863)),
            Refusal::BareQuota => ApiError::bare_quota(),
            Refusal::VertexCapacity => ApiError::vertex_capacity(),
            Refusal::InvalidKey => ApiError::invalid_key(),
            Refusal::ExpiredKey => ApiError::expired_key(),
            Refusal::SuspendedKey => {
                ApiError::suspended_key(caller.and_then(|caller| caller.key).unwrap_or_default(), project)
            }
            Refusal::LeakedKey => ApiError::leaked_key(),
            Refusal::ServiceDisabled => ApiError::service_disabled(project),
        };
        match hint {
            Some(hint) => error.with_retry_info(hint),
            None => error,
        }
    }

    pub(super) fn refuse(&self, error: &ApiError, after: Duration) -> Plan {
        let content_type = match (self.call.surface(), self.call.streaming()) {
            (Surface::OpenAi, _) | (_, Streaming::No | Streaming::Array) => JSON,
            (_, Streaming::Sse) => EVENTS,
        };
        Plan::error(after.max(self.shared.settings.before_headers), error, self.envelope, content_type)
    }

    // --- the answer ---

    pub(super) fn answer(
        &self,
        asked: &Asked,
        caller: &Caller<'_>,
        model: Option<&Model>,
        trouble: Option<&Trouble>,
    ) -> Plan {
        let settings = &self.shared.settings;
        let (surface, seed) = (self.call.surface(), settings.seed);
        let body = match (asked, model) {
            (Asked::Generate(prompt), Some(model)) => {
                return self.generate(prompt, caller, model, trouble);
            }
            (Asked::Count(prompt), _) => lists::token_count(prompt.tokens),
            (Asked::Embed(texts), _) if surface == Surface::OpenAi => {
                openai::embeddings(texts, self.call.model().unwrap_or_default(), seed)
            }
            (Asked::Embed(texts), _) => {
                let shape = match self.call.operation() {
                    Operation::BatchEmbedContents => EmbeddingShape::Batch,
                    Operation::Predict => EmbeddingShape::Predictions,
                    _ => EmbeddingShape::One,
                };
                lists::embeddings(texts, shape, seed)
            }
            (Asked::ListModels { .. }, _) if surface == Surface::OpenAi => openai::model_list(&settings.models),
            (Asked::ListModels { page_size, from }, _) => {
                let from = (*from).min(settings.models.len());
                let until = (from + page_size).min(settings.models.len());
                let next = (until < settings.models.len()).then(|| page_token(until));
                lists::model_list(&settings.models[from..until], next, surface)
            }
            (Asked::GetModel, Some(model)) if surface == Surface::OpenAi => openai::one_model(model),
            (Asked::GetModel, Some(model)) => lists::one_model(model, surface),
            (Asked::Errand(errand), _) => return self.run(errand, caller, trouble),
            (Asked::Generate(_) | Asked::GetModel, None) => Bytes::new(),
        };
        self.whole(body, settings.before_headers, trouble)
    }

    fn generate(&self, prompt: &Prompt, caller: &Caller<'_>, model: &Model, trouble: Option<&Trouble>) -> Plan {
        let settings = &self.shared.settings;
        let (surface, streaming) = (self.call.surface(), self.call.streaming());
        let mut answer = Answer::new(prompt, model, &settings.reply, settings.chunks, settings.seed);
        answer.id = answer::response_id(settings.seed, self.guard.number());
        answer.created = self.shared.unix_seconds();
        if settings.thinking {
            answer.think(prompt.wants_thoughts);
        }
        if let Some(Trouble { kind: Kind::Verdict(verdict), .. }) = trouble {
            answer.verdict = Some(verdict.clone());
        }
        if streaming == Streaming::No {
            let gaps = u32::try_from(answer.pieces.len().saturating_sub(1)).unwrap_or(u32::MAX);
            let time = settings.first_token.saturating_add(settings.between_chunks.saturating_mul(gaps));
            return self.whole(answer.whole(surface), settings.before_headers.saturating_add(time), trouble);
        }

        let mut frames = answer.frames(surface, streaming);
        let mut first_token = settings.first_token;
        let mut broken = None;
        match trouble.map(|trouble| &trouble.kind) {
            Some(Kind::SlowFirstToken(delay)) => first_token = first_token.saturating_add(*delay),
            Some(Kind::Break { after, how }) => {
                frames.frames.truncate((*after).min(frames.finish));
                broken = Some(*how);
            }
            Some(Kind::Refusal { refusal, hint, place: Place::RawTail { after } }) if streaming == Streaming::Sse => {
                let error = self.api_error(refusal, *hint, Some(caller), Some(model));
                frames.frames.truncate((*after).min(frames.finish));
                frames.frames.push(error.body(Envelope::Object));
            }
            Some(Kind::Refusal { refusal, hint, place: Place::Event { after } | Place::RawTail { after } }) => {
                let error = self.api_error(refusal, *hint, Some(caller), Some(model));
                frames.frames.truncate((*after).min(frames.finish));
                let is_first = frames.frames.is_empty();
                frames.frames.push(match (surface, streaming) {
                    (Surface::OpenAi, _) => openai::event(&error.line()),
                    (_, Streaming::Array) if is_first => error.body(Envelope::Array),
                    (_, Streaming::Array) => format!(",\r\n{}\n]", pretty(&error.enveloped())).into(),
                    _ => answer::event(&error.line()),
                });
            }
            _ => {}
        }
        let mut content = Content::stream(frames.frames, first_token, settings.between_chunks);
        if let Some(how) = broken {
            content = content.then_break(how);
        }
        let content_type = if streaming == Streaming::Sse { EVENTS } else { JSON };
        let after = settings.before_headers.saturating_add(trouble.map_or(Duration::ZERO, |trouble| trouble.delay));
        Plan::answer(after, content_type, content.shaped(trouble, streaming == Streaming::Sse, self.linger))
    }

    /// An answer in one piece, and what can go wrong with one.
    pub(super) fn whole(&self, body: Bytes, after: Duration, trouble: Option<&Trouble>) -> Plan {
        let mut content = Content::whole(body);
        let mut after = after.saturating_add(trouble.map_or(Duration::ZERO, |trouble| trouble.delay));
        match trouble.map(|trouble| &trouble.kind) {
            Some(Kind::SlowFirstToken(delay)) => after = after.saturating_add(*delay),
            Some(Kind::Break { after, how }) => content = content.broken(*after, *how),
            _ => {}
        }
        Plan::answer(after, JSON, content.shaped(trouble, false, self.linger))
    }
}
