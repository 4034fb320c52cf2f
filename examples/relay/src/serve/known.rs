//! Callers that are known by their tokens: the models that each may use, and the urgency of its calls.

use std::{future::Future, pin::Pin, sync::Arc};

use axum::{body::Body, extract::Request};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode};
use http_body::Body as _;
use tokio::{sync::Semaphore, task::spawn_blocking};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_gemini::{
    CallContext, ConfigError,
    body::ReplayBody,
    call::{Call, Operation, Surface},
    context::Priority,
    replay::ReplayLayer,
};

use crate::{
    config::{CallerRules, Token},
    serve::{
        path,
        refusal::{full, refusal},
    },
    show::CallNews,
};

/// The header by which a caller says that a call is less urgent than its others.
const PRIORITY: HeaderName = HeaderName::from_static("x-gemini-priority");

/// The most bytes of a body that are read where they are: a millisecond's work at most.
const INLINE: usize = 128 * 1024;

/// The turn to read a large body: more threads than one would take the cores of all other calls.
static READER: Semaphore = Semaphore::const_new(1);

/// The most bytes of such a wish that a refusal repeats.
const LONGEST_WISH: usize = 32;

/// The refusal of a call whose body cannot be read, because there is no memory for it.
const NO_ROOM: &str =
    "the relay has no memory left to read the call's body for its model, which not every caller may use";

/// A caller that is known by its token.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) token: Token,
    pub(crate) rules: Arc<CallerRules>,
}

impl Known {
    /// Tells the layers outside who makes a call.
    pub(crate) fn sign(&self, request: &Request) {
        if let Some(news) = request.extensions().get::<CallNews>() {
            news.set_caller(self.rules.name.clone());
        }
    }

    /// Refuses a call in whose path nobody can read what it uses, and so what of it the caller may have.
    fn check_path(&self, call: &Call, method: &Method, path: &str) -> Result<(), BoxError> {
        let Some(why) = path::unreadable(call, method, path) else { return Ok(()) };
        let name = &self.rules.name;
        let message = format!("the call cannot be judged: {why}, and the caller {name} has limits or only some models");
        Err(refusal(StatusCode::FORBIDDEN, "PERMISSION_DENIED", &message))
    }

    /// Refuses a call in whose body nobody has read what it uses, because it has too many values.
    fn check_read(&self, request: &http::Request<ReplayBody<Body>>) -> Result<(), BoxError> {
        if !CallContext::of(request).is_some_and(CallContext::body_is_unread) {
            return Ok(());
        }
        let (most, name) = (ReplayLayer::MAX_VALUES, &self.rules.name);
        let message = format!(
            "the request's body has more than {most} values, the most that are read here, and the caller {name} has limits \
             or only some models; send fewer in one request"
        );
        Err(refusal(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", &message))
    }

    /// Refuses to make something of a model that the caller may not use.
    fn check_made(&self, of: &[String]) -> Result<(), BoxError> {
        let Some(models) = &self.rules.models else { return Ok(()) };
        let name = &self.rules.name;
        let message = match of.iter().find(|model| !models.include(model)) {
            None if !of.is_empty() => return Ok(()),
            Some(model) => {
                format!("{model} is not among the models that the caller {name} may use at this relay: {models}")
            }
            None => format!("the call names no model, and the caller {name} may use only some at this relay: {models}"),
        };
        Err(refusal(StatusCode::FORBIDDEN, "PERMISSION_DENIED", &message))
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

/// Sends a call on, unless its caller may not use its model, or nobody can read which it uses.
pub(crate) async fn forward<S, R>(
    request: Request,
    known: Known,
    reader: ReplayLayer,
    inner: S,
) -> Result<Response<R>, BoxError>
where
    S: Service<Request, Response = Response<R>, Error = BoxError, Future: Send> + Clone + Send + 'static,
    R: Send + 'static,
{
    if !known.rules.is_bounded() {
        return inner.oneshot(request).await;
    }
    let call = Call::new(request.method(), request.uri());
    known.check_path(&call, request.method(), request.uri().path())?;
    let in_body = call.speaks_in_body() || path::makes_of_model(request.method(), request.uri().path());
    if !in_body {
        known.check_model(&call, request.uri().path())?;
    }
    if (in_body && known.rules.models.is_some()) || may_have_too_many_values(&call, &request) {
        return read_and_forward(request, known, &reader, inner).await;
    }
    inner.oneshot(request).await
}

/// Returns whether a body may be long enough to have more values than are read. A file is not read at all.
fn may_have_too_many_values(call: &Call, request: &Request) -> bool {
    let most = request.body().size_hint().upper();
    call.operation() != Operation::Upload && most.is_none_or(|bytes| bytes > ReplayLayer::MAX_VALUES as u64)
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
        let (known, inner) = (known.clone(), inner.clone());
        Box::pin(async move {
            known.check_read(&request)?;
            let is_upload = Call::new(request.method(), request.uri()).operation() == Operation::Upload;
            if request.body().bytes().is_none() && !is_upload {
                return Err(full(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", NO_ROOM));
            }
            let path = request.uri().path();
            match CallContext::of(&request).and_then(CallContext::call) {
                _ if path::makes_of_model(request.method(), path) => {
                    let body = request.body().bytes().cloned().unwrap_or_default();
                    known.check_made(&models_of(body).await)?;
                }
                Some(call) => known.check_model(call, path)?,
                None => known.check_model(&Call::new(request.method(), request.uri()), path)?,
            }
            inner.oneshot(request.map(once_more)).await
        })
    });
    Box::pin(reader.layer(checked).oneshot(request))
}

/// Sends a body on that has been read here. It is kept once and not twice: the layers inside keep it again, for retries.
/// They need no trailers.
pub(crate) fn once_more(body: ReplayBody<Body>) -> Body {
    match body.bytes() {
        Some(bytes) => Body::from(bytes.clone()),
        None => Body::new(body),
    }
}

/// Reads the models of which a body makes something, a large one on another thread.
async fn models_of(body: Bytes) -> Vec<String> {
    if body.len() <= INLINE {
        return path::models_of(&body);
    }
    let turn = READER.acquire().await;
    let read = spawn_blocking(move || {
        // It ends with the reading, which goes on where the call is dropped.
        let _turn = turn;
        path::models_of(&body)
    });
    // A reader that fails has read no model, and the call is refused.
    read.await.unwrap_or_default()
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

/// Takes the wishes for a priority out of a request's headers: they are the relay's own. Of several, the least urgent
/// counts.
fn wished_priority(headers: &mut HeaderMap) -> Result<Option<Priority>, BoxError> {
    let mut least: Option<Priority> = None;
    for wish in headers.get_all(PRIORITY) {
        let word = wish.to_str().ok().map(str::trim).filter(|wish| wish.len() <= LONGEST_WISH);
        let read = match word {
            Some(word) => word.parse().map_err(|error: ConfigError| error.to_string()),
            None => Err(format!("{} bytes that are no priority; it is interactive, normal or batch", wish.len())),
        };
        let wish: Priority = read.map_err(|mistake| {
            refusal(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", &format!("the header {PRIORITY}: {mistake}"))
        })?;
        least = Some(least.map_or(wish, |least| least.max(wish)));
    }
    headers.remove(PRIORITY);
    Ok(least)
}
