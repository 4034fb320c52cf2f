//! From a request to a plan: Google's checks in Google's order, and the script of troubles between them.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::request::Parts;

use super::{
    Shared,
    answer::{self, Answer, EmbeddingShape},
    asked::{Asked, Prompt, page_token},
    credentials::{Credential, DEFAULT_PROJECT, Fingerprint},
    errors::{ApiError, Envelope, QuotaNames, pretty},
    journal::{Guard, Visit, cut},
    model::Model,
    openai,
    plan::{Content, EVENTS, JSON, Plan},
    quota::{Refusal as QuotaRefusal, Violation},
    script::Stage,
    trouble::{Kind, Place, Refusal, Trouble},
    when::Facts,
};
use crate::{
    call::{Call, Operation, Streaming, Surface},
    quota::{Dimension, Limits, Scope},
};

/// Decides what happens to a request. `body` is what was read of it, within the limit or just past it.
pub(super) fn judge(guard: &Guard, head: &Parts, body: &[u8], linger: Option<Duration>) -> Plan {
    let call = Call::new(&head.method, &head.uri).read_body(body);
    let shared = guard.shared();
    let envelope = match (call.surface(), call.streaming()) {
        (Surface::OpenAi, _) | (_, Streaming::Array) => Envelope::Array,
        _ => Envelope::Object,
    };
    let case = Case { guard, shared, head, call: &call, envelope, linger };
    match case.decide(body) {
        Ok(plan) => plan,
        Err(error) => case.refuse(&error, Duration::ZERO),
    }
}

/// One request on its way through the checks.
struct Case<'a> {
    guard: &'a Guard,
    shared: &'a Arc<Shared>,
    head: &'a Parts,
    call: &'a Call,
    envelope: Envelope,
    linger: Option<Duration>,
}

/// Who asks, once the key was accepted.
struct Caller<'a> {
    project: Arc<str>,
    key: Option<&'a str>,
}

const MINIMUM_DEADLINE: u64 = 10;

// === impl Case ===

impl Case<'_> {
    fn decide(&self, body: &[u8]) -> Result<Plan, ApiError> {
        let too_large = body.len() > self.shared.settings.body_limit;
        let asked = match too_large {
            true => Some(Err(ApiError::payload_too_large(self.shared.settings.body_limit))),
            false => Asked::read(self.call, self.head.uri.query(), body),
        };
        let (text, tokens) = match &asked {
            Some(Ok(asked)) => (asked.text(), asked.tokens()),
            _ => ("", 0),
        };
        let credential = Credential::of(&self.head.headers, self.head.uri.query());
        self.note(body.len(), text, tokens, credential);

        let at_the_door = self.strike(Stage::Door, None, text);
        if let Some(plan) = at_the_door.as_ref().and_then(|trouble| self.outright(trouble, None, None)) {
            return Ok(plan);
        }
        let Some(asked) = asked else { return Ok(Plan::unknown_path()) };
        let caller = self.authenticate(credential)?;
        self.guard.write(|visit| visit.project = Some(caller.project.to_string()));
        let asked = asked?;
        self.check_deadline()?;
        let model = self.find_model()?;

        if let Some(trouble) = self.strike(Stage::Key, Some(&caller), asked.text()) {
            if let Some(plan) = self.outright(&trouble, Some(&caller), model) {
                return Ok(plan);
            }
        }
        if let Some(model) = model.filter(|_| self.call.pays_quota()) {
            self.pay(&caller, model, tokens)?;
            // As observed, what is too long has been paid for all the same.
            if tokens > model.input_token_limit {
                return Err(ApiError::too_many_tokens(tokens, model.input_token_limit));
            }
        }
        let trouble = at_the_door.or_else(|| self.strike(Stage::Answer, Some(&caller), asked.text()));
        if let Some(plan) = trouble.as_ref().and_then(|trouble| self.outright(trouble, Some(&caller), model)) {
            return Ok(plan);
        }
        Ok(self.answer(&asked, &caller, model, trouble.as_ref()))
    }

    fn note(&self, body: usize, text: &str, tokens: u64, credential: Credential<'_>) {
        let prompt: String = text.chars().take(Visit::PROMPT_START).collect();
        self.guard.write(|visit| {
            visit.surface = self.call.surface();
            visit.streaming = self.call.streaming();
            visit.model = self.call.model().map(|model| cut(model, 128));
            visit.body_bytes = body;
            visit.prompt = prompt;
            visit.input_tokens = tokens;
            visit.key = credential.secret().map(|key| Fingerprint::of(key).to_string());
        });
    }

    // --- the checks ---

    fn authenticate<'a>(&self, credential: Credential<'a>) -> Result<Caller<'a>, ApiError> {
        let settings = &self.shared.settings;
        let surface = self.call.surface();
        let project = match (surface, credential) {
            (_, Credential::Many) => return Err(ApiError::many_credentials()),
            (_, Credential::None) if settings.keyless => Some(DEFAULT_PROJECT.into()),
            (Surface::OpenAi, Credential::None | Credential::Unreadable) => {
                return Err(ApiError::missing_authorization());
            }
            (Surface::Vertex, Credential::None) => {
                return Err(ApiError::missing_credential(self.service(), self.rpc()));
            }
            (_, Credential::None) => return Err(ApiError::unregistered_caller()),
            (_, Credential::Unreadable) => return Err(ApiError::unsupported_token(self.service(), self.rpc())),
            (_, Credential::Key(key)) => settings.keys.project(key),
            (Surface::OpenAi, Credential::Bearer(key)) => settings.keys.project(key),
            (Surface::Vertex, Credential::Bearer(token)) => match settings.keys.project(token) {
                None => return Err(ApiError::unsupported_token(self.service(), self.rpc())),
                project => project,
            },
            // With keys to compare to, a token on this surface is a key in the wrong place.
            (_, Credential::Bearer(_)) if settings.has_keys() => {
                return Err(ApiError::unsupported_token(self.service(), self.rpc()));
            }
            (_, Credential::Bearer(token)) => settings.keys.project(token),
        };
        // On Vertex the path says who pays.
        let in_path = segment_after(self.head.uri.path(), "projects").filter(|_| surface == Surface::Vertex);
        let project = project.map(|project| in_path.map_or(project, |named| cut(named, 128).into()));
        let project = project.ok_or_else(ApiError::invalid_key)?;
        Ok(Caller { project, key: credential.secret() })
    }

    fn check_deadline(&self) -> Result<(), ApiError> {
        let header = self.head.headers.get("x-server-timeout").and_then(|value| value.to_str().ok());
        match header.and_then(|value| value.trim().parse::<u64>().ok()) {
            Some(seconds) if seconds < MINIMUM_DEADLINE => Err(ApiError::deadline_too_short(seconds)),
            _ => Ok(()),
        }
    }

    /// The model that is asked, if the call is to one.
    fn find_model(&self) -> Result<Option<&Model>, ApiError> {
        if self.call.operation() == Operation::ListModels {
            return Ok(None);
        }
        let name = self.call.model().unwrap_or_default();
        let method = match self.call.operation() {
            Operation::CountTokens => "countTokens",
            Operation::EmbedContent => "embedContent",
            Operation::BatchEmbedContents => "batchEmbedContents",
            Operation::Predict => "predict",
            _ => "generateContent",
        };
        // Vertex predicts with the models that embed.
        let needed = if method == "predict" { "embedContent" } else { method };
        let is_read = self.call.operation() == Operation::GetModel;
        let found = self.shared.settings.models.iter().find(|model| model.name == name);
        if let Some(model) = found.filter(|model| is_read || model.supports(needed)) {
            return Ok(Some(model));
        }
        let path = self.head.uri.path();
        let resource = if name.contains('/') { name.to_owned() } else { format!("models/{name}") };
        let resource = cut(&resource, 256);
        Err(match self.call.surface() {
            Surface::Vertex => ApiError::publisher_model_not_found(&cut(publisher_model(path), 512)),
            Surface::OpenAi => ApiError::model_not_found(&resource, "v1main", method),
            _ if is_read => ApiError::model_unknown(&resource, version(path)),
            _ => ApiError::model_not_found(&resource, version(path), method),
        })
    }

    fn pay(&self, caller: &Caller<'_>, model: &Model, tokens: u64) -> Result<(), ApiError> {
        let limits = self.shared.settings.limits(&caller.project, &model.name);
        if limits == Limits::new() {
            return Ok(());
        }
        let scope = Scope::new(caller.project.clone(), model.resolved.as_str());
        let taken = self.shared.take(scope, &limits, tokens);
        taken.map_err(|QuotaRefusal { violations, retry_in }| {
            ApiError::quota_exceeded(&violations, &self.quota_names(model), retry_in)
        })
    }

    fn quota_names<'a>(&self, model: &'a Model) -> QuotaNames<'a> {
        let embeds = matches!(self.call.operation(), Operation::EmbedContent | Operation::BatchEmbedContents);
        QuotaNames { model: &model.resolved, embeds, paid: self.shared.settings.paid }
    }

    // --- troubles ---

    fn strike(&self, stage: Stage, caller: Option<&Caller<'_>>, text: &str) -> Option<Trouble> {
        let credential = Credential::of(&self.head.headers, self.head.uri.query());
        let now = self.shared.elapsed();
        let mut state = self.shared.state.lock();
        let facts = Facts {
            now,
            path: self.head.uri.path(),
            operation: self.call.operation(),
            streaming: self.call.streaming() != Streaming::No,
            model: self.call.model(),
            project: caller.map(|caller| &*caller.project),
            key: credential.secret().map(Fingerprint::of),
            prompt: text,
            in_flight: state.journal.in_flight(),
        };
        let super::State { script, rng, .. } = &mut *state;
        let struck = script.strike(stage, &facts, rng)?;
        drop(state);
        let name = Some(struck.name()).filter(|name| *name != "none");
        self.guard.write(|visit| visit.trouble = name);
        Some(struck)
    }

    /// What goes wrong without any answer; `None` when there has to be one for it to go wrong with.
    fn outright(&self, trouble: &Trouble, caller: Option<&Caller<'_>>, model: Option<&Model>) -> Option<Plan> {
        let after = self.shared.settings.headers + trouble.delay;
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

    fn refuse(&self, error: &ApiError, after: Duration) -> Plan {
        let content_type = match (self.call.surface(), self.call.streaming()) {
            (Surface::OpenAi, _) | (_, Streaming::No | Streaming::Array) => JSON,
            (_, Streaming::Sse) => EVENTS,
        };
        Plan::error(after.max(self.shared.settings.headers), error, self.envelope, content_type)
    }

    // --- the answer ---

    fn answer(&self, asked: &Asked, caller: &Caller<'_>, model: Option<&Model>, trouble: Option<&Trouble>) -> Plan {
        let settings = &self.shared.settings;
        let (surface, seed) = (self.call.surface(), settings.seed);
        let body = match (asked, model) {
            (Asked::Generate(prompt), Some(model)) => {
                return self.generate(prompt, caller, model, trouble);
            }
            (Asked::Count(prompt), _) => answer::token_count(prompt.tokens),
            (Asked::Embed(texts), _) if surface == Surface::OpenAi => {
                openai::embeddings(texts, self.call.model().unwrap_or_default(), seed)
            }
            (Asked::Embed(texts), _) => {
                let shape = match self.call.operation() {
                    Operation::BatchEmbedContents => EmbeddingShape::Batch,
                    Operation::Predict => EmbeddingShape::Predictions,
                    _ => EmbeddingShape::One,
                };
                answer::embeddings(texts, shape, seed)
            }
            (Asked::ListModels { .. }, _) if surface == Surface::OpenAi => openai::model_list(&settings.models),
            (Asked::ListModels { page_size, from }, _) => {
                let from = (*from).min(settings.models.len());
                let until = (from + page_size).min(settings.models.len());
                let next = (until < settings.models.len()).then(|| page_token(until));
                answer::model_list(&settings.models[from..until], next, surface)
            }
            (Asked::GetModel, Some(model)) if surface == Surface::OpenAi => openai::one_model(model),
            (Asked::GetModel, Some(model)) => answer::one_model(model, surface),
            (Asked::Generate(_) | Asked::GetModel, None) => Bytes::new(),
        };
        self.whole(body, settings.headers, trouble)
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
            let time = settings.first_token + settings.between_chunks.saturating_mul(gaps);
            return self.whole(answer.whole(surface), settings.headers + time, trouble);
        }

        let mut frames = answer.frames(surface, streaming);
        let mut first_token = settings.first_token;
        let mut broken = None;
        match trouble.map(|trouble| &trouble.kind) {
            Some(Kind::SlowFirstToken(delay)) => first_token += *delay,
            Some(Kind::Break { after, how }) => {
                frames.frames.truncate((*after).min(frames.finish));
                broken = Some(*how);
            }
            Some(Kind::Refusal { refusal, hint, place: Place::Event { after } }) => {
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
            Some(Kind::Refusal { refusal, hint, place: Place::RawTail { after } }) => {
                let error = self.api_error(refusal, *hint, Some(caller), Some(model));
                frames.frames.truncate((*after).min(frames.finish));
                frames.frames.push(error.body(Envelope::Object));
            }
            _ => {}
        }
        let mut content = Content::stream(frames.frames, first_token, settings.between_chunks);
        if let Some(how) = broken {
            content = content.then_break(how);
        }
        let content_type = if streaming == Streaming::Sse { EVENTS } else { JSON };
        let after = settings.headers + trouble.map_or(Duration::ZERO, |trouble| trouble.delay);
        Plan::answer(after, content_type, content.shaped(trouble, streaming == Streaming::Sse, self.linger))
    }

    /// An answer in one piece, and what can go wrong with one.
    fn whole(&self, body: Bytes, after: Duration, trouble: Option<&Trouble>) -> Plan {
        let mut content = Content::whole(body);
        let mut after = after + trouble.map_or(Duration::ZERO, |trouble| trouble.delay);
        match trouble.map(|trouble| &trouble.kind) {
            Some(Kind::SlowFirstToken(delay)) => after += *delay,
            Some(Kind::Break { how, .. }) => content = content.broken_in_half(*how),
            _ => {}
        }
        Plan::answer(after, JSON, content.shaped(trouble, false, self.linger))
    }

    // --- names ---

    fn service(&self) -> &'static str {
        match self.call.surface() {
            Surface::Vertex => "aiplatform.googleapis.com",
            _ => "generativelanguage.googleapis.com",
        }
    }

    /// The gRPC method behind the path.
    fn rpc(&self) -> String {
        let path = self.head.uri.path();
        let action = path.rsplit(':').next().filter(|action| !action.contains('/')).unwrap_or("listModels");
        let action = cut(action, 64);
        let mut letters = action.chars();
        let method: String =
            letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect();
        match self.call.surface() {
            Surface::Vertex => format!("google.cloud.aiplatform.{}.PredictionService.{method}", version(path)),
            _ => format!("google.ai.generativelanguage.{}.GenerativeService.{method}", version(path)),
        }
    }
}

/// The path's version segment.
fn version(path: &str) -> &str {
    let is_version = |segment: &&str| {
        segment.strip_prefix('v').is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    };
    path.split('/').find(is_version).unwrap_or("v1beta")
}

fn segment_after<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    path.split('/').skip_while(|segment| *segment != name).nth(1).filter(|segment| !segment.is_empty())
}

/// `projects/…/models/{model}`, as it stands between the version and the method.
fn publisher_model(path: &str) -> &str {
    let resource = path.split_once(version(path)).map_or(path, |(_, resource)| resource);
    resource.split(':').next().unwrap_or(resource).trim_matches('/')
}
