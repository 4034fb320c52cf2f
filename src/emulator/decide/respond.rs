//! The answer to a request that passed the checks, altered by the trouble that struck it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::exchange::{ApiCaller, Exchange};
use crate::{
    call::{Operation, ServiceTier, Streaming, Surface},
    emulator::{
        script::{
            plan::{BodyPlan, EVENTS, JSON, ResponsePlan},
            trouble::Trouble,
            trouble_kind::{ErrorPlace, TroubleKind},
        },
        state::{models::EmulatedModel, stored::ResourceKind},
        wire::{
            answer::{AnswerFrames, EmptyAnswer, GeneratedAnswer, response_id},
            cut::cut,
            errors::{ApiError, ErrorEnvelope},
            gemini, interactions,
            json::pretty,
            lists::{self, EmbeddingShape},
            openai,
            page::{PageRequest, page_token},
            prompt::{CONTINUATIONS, Prompt},
            request::ApiRequest,
        },
    },
};

const TIER: HeaderName = HeaderName::from_static("x-gemini-service-tier");
/// The bytes that are kept of a prompt, to go on with its answer.
pub(super) const KEPT_PROMPT: usize = 1_024;
const CONTINUATION_LIFE: Duration = Duration::from_secs(3600);

impl Exchange<'_> {
    /// Plans the answer to a request.
    pub(super) fn respond(
        &self,
        request: &ApiRequest,
        caller: &ApiCaller<'_>,
        model: Option<&EmulatedModel>,
        trouble: Option<&Trouble>,
    ) -> ResponsePlan {
        let settings = &self.shared.settings;
        let is_open_ai = self.call.surface() == Surface::OpenAi;
        let body = match (request, model) {
            (ApiRequest::Generate(prompt), Some(model)) => return self.generate(prompt, caller, model, trouble),
            (ApiRequest::Interaction(call), _) => return self.respond_to_interaction(call, caller, model, trouble),
            (ApiRequest::Decide(decision), Some(model)) => {
                let answer = self.compose(&decision.prompt, Some(model), trouble);
                let body = decision.answer(&answer, settings.seed);
                return self.in_one_piece(body, &answer, trouble);
            }
            (ApiRequest::Resource(call), _) => return self.respond_to_resource(call, caller, trouble),
            (ApiRequest::Count(prompt), _) => lists::token_count(prompt.tokens),
            (ApiRequest::Embed(texts), _) if is_open_ai => {
                openai::embeddings(texts, self.called.unwrap_or_default(), settings.seed)
            }
            (ApiRequest::Embed(texts), _) => {
                lists::embeddings(texts, embedding_shape(self.call.operation()), settings.seed)
            }
            (ApiRequest::ListModels(page), _) => self.list_models(*page),
            (ApiRequest::GetModel, Some(model)) => match self.call.surface() {
                Surface::OpenAi => openai::one_model(&model.name),
                Surface::Vertex => lists::one_publisher_model(&model.name),
                _ => lists::one_model(&model.listed()),
            },
            (ApiRequest::Generate(_) | ApiRequest::Decide(_) | ApiRequest::GetModel, None) => Bytes::new(),
        };
        self.whole(body, settings.before_headers, trouble)
    }

    /// Writes a page of the list of models; the OpenAI-compatible surface has all on one.
    fn list_models(&self, page: PageRequest) -> Bytes {
        let models = &self.shared.settings.models;
        let from = page.from.min(models.len());
        let until = (from + page.size).min(models.len());
        let next = (until < models.len()).then(|| page_token(until));
        match self.call.surface() {
            Surface::OpenAi => openai::model_list(models.iter().map(|model| &*model.name)),
            Surface::Vertex => lists::publisher_model_page(models[from..until].iter().map(|model| &*model.name), next),
            _ => lists::model_page(models[from..until].iter().map(EmulatedModel::listed).collect(), next),
        }
    }

    // --- generated answers ---

    fn generate(
        &self,
        prompt: &Prompt,
        caller: &ApiCaller<'_>,
        model: &EmulatedModel,
        trouble: Option<&Trouble>,
    ) -> ResponsePlan {
        let mut answer = self.compose(prompt, Some(model), trouble);
        self.promise_continuation(&mut answer, prompt.last_turn(), caller);
        let is_open_ai = self.call.surface() == Surface::OpenAi;
        match self.streaming {
            Streaming::No => {
                let body = if is_open_ai { openai::completion(&answer) } else { gemini::response(&answer) };
                self.in_one_piece(body, &answer, trouble)
            }
            Streaming::Sse | Streaming::Array => {
                let frames = match is_open_ai {
                    true => openai::frames(&answer),
                    false => gemini::frames(&answer, self.streaming),
                };
                self.streamed(frames, answer.tier, caller, Some(model), trouble)
            }
        }
    }

    /// Composes the answer to a prompt: of a model, or of the agent that was called.
    pub(super) fn compose(
        &self,
        prompt: &Prompt,
        model: Option<&EmulatedModel>,
        trouble: Option<&Trouble>,
    ) -> GeneratedAnswer {
        let settings = &self.shared.settings;
        let called = self.called.unwrap_or_default();
        let (name, resolved) = model.map_or((called, called), |model| (&*model.name, &*model.resolved));
        let text = self.reply_to(prompt);
        let mut answer = GeneratedAnswer::new(&text, settings.chunks, prompt, name, resolved);
        answer.id = response_id(settings.seed, self.guard.number());
        answer.created = self.shared.unix_seconds();
        answer.is_on_vertex = self.surface() == Surface::Vertex;
        if settings.thinking {
            answer.think(prompt.wants_thoughts);
        }
        match trouble.map(|trouble| &trouble.kind) {
            Some(TroubleKind::Empty(empty)) => answer.empty = Some(empty.clone()),
            Some(TroubleKind::Downgraded) => answer.tier = Some(ServiceTier::Standard),
            _ => {}
        }
        answer
    }

    /// Returns the text that answers a prompt: of one that goes on with an answer, the prompt of that answer.
    fn reply_to(&self, prompt: &Prompt) -> String {
        let settings = &self.shared.settings;
        let token = prompt.resources.iter().find(|name| name.starts_with(CONTINUATIONS));
        let first = token.and_then(|token| match &self.shared.state.lock().storage.named(token)?.kind {
            ResourceKind::Continuation { prompt } => Some(Prompt::of_text(prompt)),
            _ => None,
        });
        settings.reply.text(first.as_ref().unwrap_or(prompt), settings.seed)
    }

    /// Gives an answer that requires a continuation the token for it.
    pub(super) fn promise_continuation(&self, answer: &mut GeneratedAnswer, prompt: &str, caller: &ApiCaller<'_>) {
        if !matches!(answer.empty, Some(EmptyAnswer::Continuation(_))) {
            return;
        }
        let kind = ResourceKind::Continuation { prompt: cut(prompt, KEPT_PROMPT) };
        let (storage, now) = (&mut self.shared.state.lock().storage, self.shared.elapsed());
        // Its length makes the token base64 of whole bytes, which SDKs decode and write again.
        let token = storage.new_id(32);
        // A new token is not taken.
        let _ = storage.make(CONTINUATIONS, Some(token.clone()), &caller.project, kind, now, CONTINUATION_LIFE);
        answer.empty = Some(EmptyAnswer::Continuation(token));
    }

    /// Plans an answer in one piece, which takes as long as its stream would.
    pub(super) fn in_one_piece(
        &self,
        body: Bytes,
        answer: &GeneratedAnswer,
        trouble: Option<&Trouble>,
    ) -> ResponsePlan {
        let settings = &self.shared.settings;
        let after = settings.before_headers.saturating_add(self.generation_time(answer));
        self.whole(body, after, trouble).with_headers(tier_header(answer.tier))
    }

    /// Returns the time that an answer takes from its headers to its end.
    fn generation_time(&self, answer: &GeneratedAnswer) -> Duration {
        let settings = &self.shared.settings;
        let gaps = u32::try_from(answer.pieces.len().saturating_sub(1)).unwrap_or(u32::MAX);
        settings.first_token.saturating_add(settings.between_chunks.saturating_mul(gaps))
    }

    /// Plans an answer that is streamed in these frames.
    pub(super) fn streamed(
        &self,
        mut stream: AnswerFrames,
        tier: Option<ServiceTier>,
        caller: &ApiCaller<'_>,
        model: Option<&EmulatedModel>,
        trouble: Option<&Trouble>,
    ) -> ResponsePlan {
        let settings = &self.shared.settings;
        let mut first_token = settings.first_token;
        let mut break_at_end = None;
        match trouble.map(|trouble| &trouble.kind) {
            Some(TroubleKind::SlowFirstToken(delay)) => first_token = first_token.saturating_add(*delay),
            Some(TroubleKind::Break { after, how }) => {
                stream.break_after(*after);
                break_at_end = Some(*how);
            }
            Some(TroubleKind::Error {
                error,
                hint,
                place: place @ (ErrorPlace::Event { after } | ErrorPlace::RawTail { after }),
            }) => {
                let error = self.api_error(error, *hint, Some(caller), model);
                stream.break_after(*after);
                stream.frames.push(self.error_frame(&error, *place, stream.frames.is_empty()));
            }
            _ => {}
        }
        let mut body = BodyPlan::stream(stream.frames, first_token, settings.between_chunks);
        if let Some(how) = break_at_end {
            body = body.then_break(how);
        }
        let is_events = self.streaming == Streaming::Sse;
        let content_type = if is_events { EVENTS } else { JSON };
        let after = settings.before_headers.saturating_add(trouble.map_or(Duration::ZERO, |trouble| trouble.delay));
        let plan = ResponsePlan::answer(after, content_type, body.shaped(trouble, is_events, self.linger));
        plan.with_headers(tier_header(tier))
    }

    /// Writes an error as the last frame of a stream.
    fn error_frame(&self, error: &ApiError, place: ErrorPlace, is_first: bool) -> Bytes {
        match (place, self.call.surface(), self.streaming) {
            (ErrorPlace::RawTail { .. }, ..) if self.is_coded => bare_line(error),
            _ if self.is_coded => interactions::error_event(error),
            (ErrorPlace::RawTail { .. }, _, Streaming::Sse) => error.body(ErrorEnvelope::Object),
            (_, Surface::OpenAi, _) => openai::event(&error.line()),
            (_, _, Streaming::Array) if is_first => error.body(ErrorEnvelope::Array),
            (_, _, Streaming::Array) => format!(",\r\n{}\n]", pretty(&error.enveloped())).into(),
            _ => gemini::event(&error.line()),
        }
    }
}

/// Writes an error as a line by itself, without the `data:` of an event.
fn bare_line(error: &ApiError) -> Bytes {
    [&interactions::error(error)[..], b"\n"].concat().into()
}

/// Returns the header that names the tier of service, for a request that named one.
fn tier_header(tier: Option<ServiceTier>) -> HeaderMap {
    let header = tier.map(|tier| (TIER, HeaderValue::from_static(tier.as_str())));
    header.into_iter().collect()
}

fn embedding_shape(operation: Operation) -> EmbeddingShape {
    match operation {
        Operation::BatchEmbedContents => EmbeddingShape::Batch,
        Operation::Predict => EmbeddingShape::Predictions,
        _ => EmbeddingShape::One,
    }
}
