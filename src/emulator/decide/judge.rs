//! Google's checks in Google's order, with the script's troubles between them.

use std::time::Duration;

use http::request::Parts;

use super::exchange::{ApiCaller, Exchange};
use crate::{
    body::Extent,
    call::{Call, Operation, Streaming, Surface},
    emulator::{
        script::{plan::ResponsePlan, rules::Stage},
        state::{journal::Visit, models::EmulatedModel, quota::QuotaRefusal, visit_guard::VisitGuard},
        wire::{
            credentials::{KeyHash, RequestCredential},
            cut::cut,
            decisions::DecisionRequest,
            errors::ApiError,
            interaction_call::{Called, InteractionCall, InteractionPath},
            path::{publisher_model, version},
            request::ApiRequest,
            resource_call::ResourceCall,
            resource_path::ResourcePath,
        },
    },
    quota::{Limits, Scope},
};

/// Decides the response to a request. `body` is the request's body, or its beginning if it is larger than the limit.
pub(crate) fn judge(
    guard: &VisitGuard,
    head: &Parts,
    body: &[u8],
    extent: Extent,
    linger: Option<Duration>,
) -> ResponsePlan {
    let call = Call::new(&head.method, &head.uri).read_body(body);
    let shared = guard.shared();
    let request = parse(&call, head, body, extent, shared.settings.body_limit);
    let parsed = request.as_ref().and_then(|request| request.as_ref().ok());
    let called = parsed.and_then(ApiRequest::called);
    let streaming = match parsed {
        Some(ApiRequest::Interaction(interaction)) if interaction.streams() => Streaming::Sse,
        Some(ApiRequest::Interaction(_)) => Streaming::No,
        _ => call.streaming(),
    };
    let exchange = Exchange {
        guard,
        shared,
        head,
        call: &call,
        is_coded: is_coded(head.uri.path()),
        creates_interaction: matches!(parsed, Some(ApiRequest::Interaction(InteractionCall::Create(_)))),
        streaming,
        called: called.as_deref().or(call.model()),
        tier: parsed.and_then(ApiRequest::tier),
        is_grounded: parsed.and_then(ApiRequest::prompt).is_some_and(|prompt| prompt.is_grounded),
        linger,
    };
    let decided = exchange.decide(request, body.len());
    decided.unwrap_or_else(|error| exchange.refuse(&error, Duration::ZERO))
}

/// Parses the request. `None` is a path that the emulator does not serve.
fn parse(call: &Call, head: &Parts, body: &[u8], extent: Extent, limit: usize) -> Option<Result<ApiRequest, ApiError>> {
    match extent {
        Extent::Beginning => Some(Err(ApiError::payload_too_large(limit))),
        Extent::Whole => ApiRequest::read(call, head, body),
    }
}

/// Returns whether a path is one of the Interactions API, whose errors have a code in words.
fn is_coded(path: &str) -> bool {
    InteractionPath::parse(path).is_some()
        || DecisionRequest::is_at(path)
        || ResourcePath::parse(path).is_some_and(|path| path.collection.has_ids())
}

/// The shortest `X-Server-Timeout` that Google takes, in seconds.
const MINIMUM_DEADLINE: u64 = 10;

impl Exchange<'_> {
    fn decide(
        &self,
        request: Option<Result<ApiRequest, ApiError>>,
        body_bytes: usize,
    ) -> Result<ResponsePlan, ApiError> {
        let parsed = request.as_ref().and_then(|request| request.as_ref().ok());
        let text = parsed.map_or("", ApiRequest::text);
        let credential = RequestCredential::of(&self.head.headers, self.head.uri.query());
        self.record(body_bytes, text, parsed.map_or(0, ApiRequest::tokens), credential);

        let by_path = self.strike(Stage::Path, None, text);
        if let Some(plan) = by_path.as_ref().and_then(|trouble| self.unanswered(trouble, None, None)) {
            return Ok(plan);
        }
        let Some(request) = request else { return Ok(ResponsePlan::unknown_path()) };
        let caller = self.identify(request.as_ref().ok(), credential)?;
        self.guard.write(|visit| visit.project = Some(caller.project.to_string()));
        let request = request?;
        self.check_deadline()?;
        let model = self.find_model(&request)?;

        let of_key = self.strike(Stage::Key, Some(&caller), request.text());
        if let Some(plan) = of_key.and_then(|trouble| self.unanswered(&trouble, Some(&caller), model)) {
            return Ok(plan);
        }
        self.check_resources(&request, &caller)?;
        self.charge(&request, &caller, model)?;
        let trouble = by_path.or_else(|| self.strike(Stage::Answer, Some(&caller), request.text()));
        let unanswered = trouble.as_ref().and_then(|trouble| self.unanswered(trouble, Some(&caller), model));
        Ok(unanswered.unwrap_or_else(|| self.respond(&request, &caller, model, trouble.as_ref())))
    }

    /// Writes the request into the journal.
    fn record(&self, body: usize, text: &str, tokens: u64, credential: RequestCredential<'_>) {
        let prompt: String = text.chars().take(Visit::PROMPT_START).collect();
        self.guard.write(|visit| {
            visit.surface = self.call.surface();
            visit.streaming = self.streaming;
            visit.model = self.called.map(|model| cut(model, 128));
            visit.tier = self.tier;
            visit.body_bytes = body;
            visit.prompt = prompt;
            visit.input_tokens = tokens;
            visit.key = credential.secret().map(|key| KeyHash::of(key).to_string());
        });
    }

    // --- the checks ---

    fn check_deadline(&self) -> Result<(), ApiError> {
        let header = self.head.headers.get("x-server-timeout").and_then(|value| value.to_str().ok());
        match header.and_then(|value| value.trim().parse::<u64>().ok()) {
            Some(seconds) if seconds < MINIMUM_DEADLINE => Err(ApiError::deadline_too_short(seconds)),
            _ => Ok(()),
        }
    }

    /// Finds the model that a request is for; `None` if it is for none.
    fn find_model(&self, request: &ApiRequest) -> Result<Option<&EmulatedModel>, ApiError> {
        match request {
            ApiRequest::Resource(ResourceCall::CreateCache(cache)) => {
                self.find_model_for(&cache.model, "createCachedContent").map(Some)
            }
            // The models of an OpenAI batch stand in its file.
            ApiRequest::Resource(ResourceCall::CreateBatch(batch)) if !batch.model.is_empty() => {
                let method = if batch.embeds { "asyncBatchEmbedContent" } else { "batchGenerateContent" };
                self.find_model_for(&batch.model, method).map(Some)
            }
            ApiRequest::Interaction(InteractionCall::Create(new)) => match &new.called {
                Called::Model(_) => self.find_called_model().map(Some),
                Called::Agent(_) => Ok(None),
            },
            ApiRequest::Resource(ResourceCall::Predict { model, .. }) if !model.starts_with("veo-") => {
                self.find_model_for(model, "predictLongRunning").map(Some)
            }
            ApiRequest::ListModels(_) | ApiRequest::Resource(_) | ApiRequest::Interaction(_) => Ok(None),
            _ => self.find_called_model().map(Some),
        }
    }

    fn find_called_model(&self) -> Result<&EmulatedModel, ApiError> {
        let name = self.called.unwrap_or_default();
        let operation = self.call.operation();
        let method = method_name(operation);
        // Vertex predicts with the models that embed.
        let needed = if method == "predict" { "embedContent" } else { method };
        let is_read = operation == Operation::GetModel;
        let found = self.model(name).filter(|model| is_read || model.supports(needed));
        found.ok_or_else(|| {
            let path = self.head.uri.path();
            let resource = if name.contains('/') { name.to_owned() } else { format!("models/{name}") };
            let resource = cut(&resource, 256);
            match self.surface() {
                Surface::Vertex => ApiError::publisher_model_not_found(&cut(publisher_model(path), 512)),
                Surface::OpenAi => ApiError::model_not_found(&resource, "v1main", method),
                _ if is_read => ApiError::model_unknown(&resource, version(path)),
                _ => ApiError::model_not_found(&resource, version(path), method),
            }
        })
    }

    fn find_model_for(&self, name: &str, method: &str) -> Result<&EmulatedModel, ApiError> {
        self.model(name).filter(|model| model.supports(method)).ok_or_else(|| {
            let resource = cut(&format!("models/{name}"), 256);
            ApiError::model_not_found(&resource, version(self.head.uri.path()), method)
        })
    }

    fn model(&self, name: &str) -> Option<&EmulatedModel> {
        self.shared.settings.models.iter().find(|model| model.name == name)
    }

    /// Checks that the things that the request names exist and belong to the caller's project.
    fn check_resources(&self, request: &ApiRequest, caller: &ApiCaller<'_>) -> Result<(), ApiError> {
        let (now, state) = (self.shared.elapsed(), self.shared.state.lock());
        let is_missing = |name: &&String| state.storage.get(name, &caller.project, now).is_none() && !is_googles(name);
        let Some(missing) = request.resources().iter().find(is_missing) else { return Ok(()) };
        Err(match request {
            // Prompts get a 403 for a file of others, as seen; what is made of a file gets a 404.
            ApiRequest::Resource(_) => ApiError::not_found(),
            _ => ApiError::not_yours(missing),
        })
    }

    /// Spends the request's quota, and then checks its length: as observed, a request that is too long costs quota,
    /// too.
    fn charge(
        &self,
        request: &ApiRequest,
        caller: &ApiCaller<'_>,
        model: Option<&EmulatedModel>,
    ) -> Result<(), ApiError> {
        let requests = request.charge();
        let (name, resolved) = match model {
            Some(model) => (&*model.name, &*model.resolved),
            None => (self.called.unwrap_or_default(), self.called.unwrap_or_default()),
        };
        if requests == 0 {
            return Ok(());
        }
        let limits = self.shared.settings.limits(&caller.project, name);
        if limits != Limits::new() {
            let scope = Scope::new(caller.project.clone(), resolved);
            let spent = self.shared.spend(scope, &limits, requests, request.tokens());
            spent.map_err(|QuotaRefusal { exceeded, retry_in }| {
                ApiError::quota_exceeded(&exceeded, &self.quota_names(resolved), retry_in)
            })?;
        }
        let at_once = request.tokens_at_once();
        match model {
            Some(model) if at_once > model.input_token_limit => {
                Err(ApiError::too_many_tokens(at_once, model.input_token_limit))
            }
            _ => Ok(()),
        }
    }
}

/// Returns whether a name is one of the agents that Google offers to everybody.
fn is_googles(name: &str) -> bool {
    const AGENTS: [&str; 3] = ["agents/deep-research-", "agents/antigravity-", "agents/code-mender-"];
    AGENTS.iter().any(|agent| name.starts_with(agent))
}

/// Returns an operation's method, as paths and the lists of models name it.
fn method_name(operation: Operation) -> &'static str {
    match operation {
        Operation::CountTokens => "countTokens",
        Operation::EmbedContent => "embedContent",
        Operation::BatchEmbedContents => "batchEmbedContents",
        Operation::Predict => "predict",
        _ => "generateContent",
    }
}
