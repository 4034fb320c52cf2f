//! Google's checks in Google's order, with the script's troubles between them.

use std::time::Duration;

use http::request::Parts;

use super::exchange::{ApiCaller, Exchange};
use crate::{
    body::Extent,
    call::{Call, Operation, Surface},
    emulator::{
        script::{plan::ResponsePlan, rules::Stage},
        state::{journal::Visit, models::EmulatedModel, quota::QuotaRefusal, visit_guard::VisitGuard},
        wire::{
            credentials::{KeyHash, RequestCredential},
            cut::cut,
            errors::ApiError,
            files_call::FilesCall,
            path::{publisher_model, version},
            request::ApiRequest,
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
    let exchange = Exchange { guard, shared: guard.shared(), head, call: &call, linger };
    let decided = exchange.decide(body, extent);
    decided.unwrap_or_else(|error| exchange.refuse(&error, Duration::ZERO))
}

/// The shortest `X-Server-Timeout` that Google takes, in seconds.
const MINIMUM_DEADLINE: u64 = 10;

impl Exchange<'_> {
    fn decide(&self, body: &[u8], extent: Extent) -> Result<ResponsePlan, ApiError> {
        let request = self.parse(body, extent);
        let parsed = request.as_ref().and_then(|request| request.as_ref().ok());
        let text = parsed.map_or("", ApiRequest::text);
        let credential = RequestCredential::of(&self.head.headers, self.head.uri.query());
        self.record(body.len(), text, parsed.map_or(0, ApiRequest::tokens), credential);

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
        if let Some(model) = model.filter(|_| self.call.pays_quota()) {
            self.charge(&request, &caller, model)?;
        }
        let trouble = by_path.or_else(|| self.strike(Stage::Answer, Some(&caller), request.text()));
        let unanswered = trouble.as_ref().and_then(|trouble| self.unanswered(trouble, Some(&caller), model));
        Ok(unanswered.unwrap_or_else(|| self.respond(&request, &caller, model, trouble.as_ref())))
    }

    /// Parses the request. `None` is a path that the emulator does not serve.
    fn parse(&self, body: &[u8], extent: Extent) -> Option<Result<ApiRequest, ApiError>> {
        match extent {
            Extent::Beginning => Some(Err(ApiError::payload_too_large(self.shared.settings.body_limit))),
            Extent::Whole => ApiRequest::read(self.call, self.head, body),
        }
    }

    /// Writes the request into the journal.
    fn record(&self, body: usize, text: &str, tokens: u64, credential: RequestCredential<'_>) {
        let prompt: String = text.chars().take(Visit::PROMPT_START).collect();
        self.guard.write(|visit| {
            visit.surface = self.call.surface();
            visit.streaming = self.call.streaming();
            visit.model = self.call.model().map(|model| cut(model, 128));
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
            ApiRequest::ListModels(_) => Ok(None),
            ApiRequest::Files(FilesCall::CreateCache(cache)) => self.find_model_of_cache(&cache.model).map(Some),
            ApiRequest::Files(_) => Ok(None),
            _ => self.find_called_model().map(Some),
        }
    }

    fn find_called_model(&self) -> Result<&EmulatedModel, ApiError> {
        let name = self.call.model().unwrap_or_default();
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
            match self.call.surface() {
                Surface::Vertex => ApiError::publisher_model_not_found(&cut(publisher_model(path), 512)),
                Surface::OpenAi => ApiError::model_not_found(&resource, "v1main", method),
                _ if is_read => ApiError::model_unknown(&resource, version(path)),
                _ => ApiError::model_not_found(&resource, version(path), method),
            }
        })
    }

    fn find_model_of_cache(&self, name: &str) -> Result<&EmulatedModel, ApiError> {
        self.model(name).ok_or_else(|| {
            let resource = cut(&format!("models/{name}"), 256);
            ApiError::model_not_found(&resource, version(self.head.uri.path()), "createCachedContent")
        })
    }

    fn model(&self, name: &str) -> Option<&EmulatedModel> {
        self.shared.settings.models.iter().find(|model| model.name == name)
    }

    /// Checks that the files and cached contents in the prompt exist and belong to the caller's project.
    fn check_resources(&self, request: &ApiRequest, caller: &ApiCaller<'_>) -> Result<(), ApiError> {
        let (now, state) = (self.shared.elapsed(), self.shared.state.lock());
        let missing = request.resources().iter().find(|name| state.storage.get(name, &caller.project, now).is_none());
        missing.map_or(Ok(()), |name| Err(ApiError::not_yours(name)))
    }

    /// Spends the request's quota, and then checks its length: as observed, a request that is too long costs quota,
    /// too.
    fn charge(&self, request: &ApiRequest, caller: &ApiCaller<'_>, model: &EmulatedModel) -> Result<(), ApiError> {
        self.spend_quota(caller, model, request.tokens())?;
        let at_once = request.tokens_at_once();
        match at_once > model.input_token_limit {
            true => Err(ApiError::too_many_tokens(at_once, model.input_token_limit)),
            false => Ok(()),
        }
    }

    fn spend_quota(&self, caller: &ApiCaller<'_>, model: &EmulatedModel, tokens: u64) -> Result<(), ApiError> {
        let limits = self.shared.settings.limits(&caller.project, &model.name);
        if limits == Limits::new() {
            return Ok(());
        }
        let scope = Scope::new(caller.project.clone(), model.resolved.as_str());
        let spent = self.shared.spend(scope, &limits, tokens);
        spent.map_err(|QuotaRefusal { exceeded, retry_in }| {
            ApiError::quota_exceeded(&exceeded, &self.quota_names(model), retry_in)
        })
    }
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
