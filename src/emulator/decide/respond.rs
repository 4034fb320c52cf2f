//! The answer to a request that passed the checks, altered by the trouble that struck it.

use std::time::Duration;

use bytes::Bytes;

use super::exchange::{ApiCaller, Exchange};
use crate::{
    call::{Operation, Streaming, Surface},
    emulator::{
        script::{
            plan::{BodyPlan, EVENTS, JSON, ResponsePlan},
            trouble::{ErrorPlace, Trouble, TroubleKind},
        },
        state::models::EmulatedModel,
        wire::{
            answer::{GeneratedAnswer, response_id},
            errors::{ApiError, ErrorEnvelope},
            gemini,
            json::pretty,
            lists::{self, EmbeddingShape},
            openai,
            page::{PageRequest, page_token},
            prompt::Prompt,
            request::ApiRequest,
        },
    },
};

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
            (ApiRequest::Files(call), _) => return self.respond_to_files(call, caller, trouble),
            (ApiRequest::Count(prompt), _) => lists::token_count(prompt.tokens),
            (ApiRequest::Embed(texts), _) if is_open_ai => {
                openai::embeddings(texts, self.call.model().unwrap_or_default(), settings.seed)
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
            (ApiRequest::Generate(_) | ApiRequest::GetModel, None) => Bytes::new(),
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
        let answer = self.compose(prompt, model, trouble);
        match self.call.streaming() {
            Streaming::No => self.in_one_piece(&answer, trouble),
            Streaming::Sse | Streaming::Array => self.streamed(&answer, caller, model, trouble),
        }
    }

    fn compose(&self, prompt: &Prompt, model: &EmulatedModel, trouble: Option<&Trouble>) -> GeneratedAnswer {
        let settings = &self.shared.settings;
        let text = settings.reply.text(prompt, settings.seed);
        let mut answer = GeneratedAnswer::new(&text, settings.chunks, prompt, &model.name, &model.resolved);
        answer.id = response_id(settings.seed, self.guard.number());
        answer.created = self.shared.unix_seconds();
        if settings.thinking {
            answer.think(prompt.wants_thoughts);
        }
        if let Some(Trouble { kind: TroubleKind::Empty(empty), .. }) = trouble {
            answer.empty = Some(empty.clone());
        }
        answer
    }

    /// Plans an answer in one piece, which takes as long as its stream would.
    fn in_one_piece(&self, answer: &GeneratedAnswer, trouble: Option<&Trouble>) -> ResponsePlan {
        let settings = &self.shared.settings;
        let gaps = u32::try_from(answer.pieces.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let time = settings.first_token.saturating_add(settings.between_chunks.saturating_mul(gaps));
        let body = match self.call.surface() {
            Surface::OpenAi => openai::completion(answer),
            _ => gemini::response(answer),
        };
        self.whole(body, settings.before_headers.saturating_add(time), trouble)
    }

    fn streamed(
        &self,
        answer: &GeneratedAnswer,
        caller: &ApiCaller<'_>,
        model: &EmulatedModel,
        trouble: Option<&Trouble>,
    ) -> ResponsePlan {
        let settings = &self.shared.settings;
        let mut stream = match self.call.surface() {
            Surface::OpenAi => openai::frames(answer),
            _ => gemini::frames(answer, self.call.streaming()),
        };
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
                let error = self.api_error(error, *hint, Some(caller), Some(model));
                stream.break_after(*after);
                stream.frames.push(self.error_frame(&error, *place, stream.frames.is_empty()));
            }
            _ => {}
        }
        let mut body = BodyPlan::stream(stream.frames, first_token, settings.between_chunks);
        if let Some(how) = break_at_end {
            body = body.then_break(how);
        }
        let is_events = self.call.streaming() == Streaming::Sse;
        let content_type = if is_events { EVENTS } else { JSON };
        let after = settings.before_headers.saturating_add(trouble.map_or(Duration::ZERO, |trouble| trouble.delay));
        ResponsePlan::answer(after, content_type, body.shaped(trouble, is_events, self.linger))
    }

    /// Writes an error as the last frame of a stream.
    fn error_frame(&self, error: &ApiError, place: ErrorPlace, is_first: bool) -> Bytes {
        match (place, self.call.surface(), self.call.streaming()) {
            (ErrorPlace::RawTail { .. }, _, Streaming::Sse) => error.body(ErrorEnvelope::Object),
            (_, Surface::OpenAi, _) => openai::event(&error.line()),
            (_, _, Streaming::Array) if is_first => error.body(ErrorEnvelope::Array),
            (_, _, Streaming::Array) => format!(",\r\n{}\n]", pretty(&error.enveloped())).into(),
            _ => gemini::event(&error.line()),
        }
    }
}

fn embedding_shape(operation: Operation) -> EmbeddingShape {
    match operation {
        Operation::BatchEmbedContents => EmbeddingShape::Batch,
        Operation::Predict => EmbeddingShape::Predictions,
        _ => EmbeddingShape::One,
    }
}
