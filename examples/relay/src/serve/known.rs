//! Callers that are known by their tokens: the models that each may use, and the urgency of its calls.

use std::{
    future::{Future, ready},
    pin::Pin,
    sync::{Arc, OnceLock},
};

use axum::{body::Body, extract::Request};
use http::{HeaderMap, HeaderName, Response, StatusCode};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_gemini::{
    CallContext,
    body::ReplayBody,
    call::{Call, Surface},
    context::Priority,
    replay::ReplayLayer,
};

use crate::{
    config::{CallerRules, Token},
    serve::refusal::refusal,
};

/// The header by which a caller says that a call is less urgent than its others.
const PRIORITY: HeaderName = HeaderName::from_static("x-gemini-priority");

/// The most bytes of such a wish that a refusal repeats.
const LONGEST_WISH: usize = 32;

/// A cell that tells the layers outside of all others who makes a call.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallerName(Arc<OnceLock<Arc<str>>>);

impl CallerName {
    pub(crate) fn get(&self) -> Option<&str> {
        self.0.get().map(|name| &**name)
    }
}

/// A caller that is known by its token.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) token: Token,
    pub(crate) rules: Arc<CallerRules>,
}

impl Known {
    /// Tells the layers outside who makes a call.
    pub(crate) fn sign(&self, request: &Request) {
        if let Some(cell) = request.extensions().get::<CallerName>() {
            let _ = cell.0.set(self.rules.name.clone()); // a call has one caller
        }
    }

    /// Refuses a call to a model that the caller may not use.
    fn check_model(&self, call: &Call, path: &str) -> Result<(), BoxError> {
        let Some(models) = &self.rules.models else { return Ok(()) };
        // The requests of such a batch, and their models, are in a file that nobody here reads.
        let is_hidden = call.surface() == Surface::OpenAi && path.trim_end_matches('/').ends_with("/batches");
        let name = &self.rules.name;
        let message = match call.quota_name() {
            _ if models.admit(call) && !is_hidden => return Ok(()),
            Some(model) if !is_hidden => {
                format!("{model} is not among the models that the caller {name} may use at this relay: {models}")
            }
            _ => format!("the call names no model, and the caller {name} may use only some at this relay: {models}"),
        };
        Err(refusal(StatusCode::FORBIDDEN, "PERMISSION_DENIED", &message))
    }
}

/// Sends a call on, unless its caller may not use its model.
pub(crate) async fn forward<S, R>(
    request: Request,
    known: Option<Known>,
    reader: ReplayLayer,
    inner: S,
) -> Result<Response<R>, BoxError>
where
    S: Service<Request, Response = Response<R>, Error = BoxError, Future: Send> + Clone + Send + 'static,
    R: Send + 'static,
{
    let Some(known) = known.filter(|known| known.rules.models.is_some()) else { return inner.oneshot(request).await };
    let call = Call::new(request.method(), request.uri());
    if call.speaks_in_body() {
        return read_and_forward(request, known, &reader, inner).await;
    }
    known.check_model(&call, request.uri().path())?;
    inner.oneshot(request).await
}

/// The future of an answer.
type Answer<R> = Pin<Box<dyn Future<Output = Result<Response<R>, BoxError>> + Send>>;

/// Reads a request's body, in which the model stands, and then decides whether the request is sent on.
fn read_and_forward<S, R>(request: Request, known: Known, reader: &ReplayLayer, inner: S) -> Answer<R>
where
    S: Service<Request, Response = Response<R>, Error = BoxError, Future: Send> + Clone + Send + 'static,
    R: Send + 'static,
{
    let checked = service_fn(move |request: http::Request<ReplayBody<Body>>| -> Answer<R> {
        let verdict = match CallContext::of(&request).and_then(CallContext::call) {
            Some(call) => known.check_model(call, request.uri().path()),
            None => known.check_model(&Call::new(request.method(), request.uri()), request.uri().path()),
        };
        match verdict {
            Ok(()) => Box::pin(inner.clone().oneshot(request.map(Body::new))),
            Err(refusal) => Box::pin(ready(Err(refusal))),
        }
    });
    Box::pin(reader.layer(checked).oneshot(request))
}

/// Writes into a request who makes the call, and how urgent it is: as its caller's calls are, or less where the header
/// says so.
pub(crate) fn mark(request: &mut Request, known: Option<&Known>) -> Result<(), BoxError> {
    let wish = wished_priority(request.headers_mut())?;
    let usual = known.map(|known| known.rules.priority).unwrap_or_default();
    let priority = wish.map_or(usual, |wish| wish.max(usual));
    CallContext::update(request.extensions_mut(), |context| {
        context.set_priority(priority);
        if let Some(known) = known {
            context.set_caller(known.rules.name.clone());
        }
    });
    Ok(())
}

/// Takes the wish for a priority out of a request's headers: it is the relay's own.
fn wished_priority(headers: &mut HeaderMap) -> Result<Option<Priority>, BoxError> {
    let Some(wish) = headers.remove(PRIORITY) else { return Ok(None) };
    let wish = wish.to_str().ok().filter(|wish| wish.len() <= LONGEST_WISH).unwrap_or("(no word)").trim();
    wish.parse().map(Some).map_err(|error| {
        refusal(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", &format!("the header {PRIORITY}: {error}"))
    })
}
