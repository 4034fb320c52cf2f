//! From a request to a plan: Google's checks in Google's order, and the script of troubles between them.

use std::{sync::Arc, time::Duration};

use http::request::Parts;

use super::{
    Shared,
    asked::Asked,
    credentials::{Credential, DEFAULT_PROJECT, Fingerprint},
    errand::Errand,
    errors::{ApiError, Envelope},
    journal::{Guard, Visit, cut},
    model::Model,
    plan::Plan,
    quota::Refusal,
    quota_names::QuotaNames,
    script::Stage,
    trouble::Trouble,
    when::Facts,
};
use crate::{
    call::{Call, Operation, Streaming, Surface},
    quota::{Limits, Scope},
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
pub(super) struct Case<'a> {
    pub(super) guard: &'a Guard,
    pub(super) shared: &'a Arc<Shared>,
    pub(super) head: &'a Parts,
    pub(super) call: &'a Call,
    pub(super) envelope: Envelope,
    pub(super) linger: Option<Duration>,
}

/// Who asks, once the key was accepted.
pub(super) struct Caller<'a> {
    pub(super) project: Arc<str>,
    pub(super) key: Option<&'a str>,
}

const MINIMUM_DEADLINE: u64 = 10;

// === impl Case ===

impl Case<'_> {
    fn decide(&self, body: &[u8]) -> Result<Plan, ApiError> {
        let too_large = body.len() > self.shared.settings.body_limit;
        let asked = match too_large {
            true => Some(Err(ApiError::payload_too_large(self.shared.settings.body_limit))),
            false => Asked::read(self.call, self.head, body),
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
        let caller = self.identify(&asked, credential)?;
        self.guard.write(|visit| visit.project = Some(caller.project.to_string()));
        let asked = asked?;
        self.check_deadline()?;
        let model = match &asked {
            Asked::Errand(errand) => self.find_model_of(errand)?,
            _ => self.find_model()?,
        };

        let bad_key = self.strike(Stage::Key, Some(&caller), asked.text());
        if let Some(plan) = bad_key.and_then(|trouble| self.outright(&trouble, Some(&caller), model)) {
            return Ok(plan);
        }
        self.find_things(&asked, &caller)?;
        if let Some(model) = model.filter(|_| self.call.pays_quota()) {
            self.pay(&caller, model, tokens)?;
            // As observed, what is too long has been paid for all the same.
            let at_once = asked.tokens_at_once();
            if at_once > model.input_token_limit {
                return Err(ApiError::too_many_tokens(at_once, model.input_token_limit));
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

    /// Who asks: the key says it, or the secret address of an upload.
    fn identify<'a>(
        &self,
        asked: &Result<Asked, ApiError>,
        credential: Credential<'a>,
    ) -> Result<Caller<'a>, ApiError> {
        if let (Ok(Asked::Errand(errand)), Credential::None) = (asked, credential) {
            let uploader = errand.upload_under_way().and_then(|id| self.shared.state.lock().storage.uploader(id));
            if let Some(project) = uploader {
                return Ok(Caller { project, key: None });
            }
        }
        self.authenticate(credential)
    }

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

    /// A cached content is made for one model.
    fn find_model_of(&self, errand: &Errand) -> Result<Option<&Model>, ApiError> {
        let Errand::Cache { model: name, .. } = errand else { return Ok(None) };
        let found = self.shared.settings.models.iter().find(|model| model.name == *name);
        found.map(Some).ok_or_else(|| {
            let resource = cut(&format!("models/{name}"), 256);
            ApiError::model_not_found(&resource, version(self.head.uri.path()), "createCachedContent")
        })
    }

    /// What a prompt names has to be there, and the project's own.
    fn find_things(&self, asked: &Asked, caller: &Caller<'_>) -> Result<(), ApiError> {
        let (now, state) = (self.shared.elapsed(), self.shared.state.lock());
        let missing = asked.things().iter().find(|name| state.storage.get(name, &caller.project, now).is_none());
        missing.map_or(Ok(()), |name| Err(ApiError::not_yours(name)))
    }

    fn pay(&self, caller: &Caller<'_>, model: &Model, tokens: u64) -> Result<(), ApiError> {
        let limits = self.shared.settings.limits(&caller.project, &model.name);
        if limits == Limits::new() {
            return Ok(());
        }
        let scope = Scope::new(caller.project.clone(), model.resolved.as_str());
        let taken = self.shared.take(scope, &limits, tokens);
        taken.map_err(|Refusal { violations, retry_in }| {
            ApiError::quota_exceeded(&violations, &self.quota_names(model), retry_in)
        })
    }

    pub(super) fn quota_names<'a>(&self, model: &'a Model) -> QuotaNames<'a> {
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
pub(super) fn version(path: &str) -> &str {
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
