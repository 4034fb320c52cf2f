//! The way of a request from its connection to the stack in force, and of the answer back.

use std::{convert::Infallible, pin::Pin, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, header::CONTENT_LENGTH};
use http_body::Body as _;
use tower::{Layer, ServiceExt, service_fn};

use crate::serve::{current::Current, log, proxy, stack::Stack};

/// The future of an answer.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;

/// The pages of the relay's own at one listener, with their paths, by which they are told from calls to the API.
#[derive(Clone)]
pub(crate) struct OwnPages {
    pub(crate) router: Router,
    pub(crate) paths: Arc<[&'static str]>,
}

/// Answers a request of a caller: for one of the relay's own pages, or to the API.
pub(crate) fn answer(pages: &OwnPages, current: &Current, request: Request) -> Answer {
    if pages.paths.contains(&request.uri().path()) {
        let answer = pages.router.clone().oneshot(request);
        return Box::pin(async move { answer.await.into_response() });
    }
    let stack = current.stack();
    Box::pin(async move {
        let is_head = request.method() == Method::HEAD;
        let calls = &stack;
        // Outside of everything that answers, and of the log: a preflight is no call.
        let answer = calls.cors.pass(request, move |request| kept_alive(calls, request)).await;
        with_length(answer, is_head)
    })
}

/// Keeps a silent stream alive, where the settings say so. It is outside of the log, which has the true status of a call
/// whose head went out early.
async fn kept_alive(stack: &Arc<Stack>, request: Request) -> Response {
    let Some(layer) = stack.settings.server.keep_alive_layer() else { return logged(stack, request).await };
    let stack = stack.clone();
    let calls = service_fn(move |request| {
        let stack = stack.clone();
        async move { Ok::<_, Infallible>(logged(&stack, request).await) }
    });
    let Ok(answer) = Box::pin(layer.layer(calls).oneshot(request)).await;
    answer.map(Body::new)
}

/// Logs a call, and does the duties of a proxy around the stack.
async fn logged(stack: &Stack, request: Request) -> Response {
    let cleaned = async |request: Request| {
        // Inside of the log, for which the answer to a HEAD has ended with its head.
        let is_head = request.method() == Method::HEAD;
        let answer = proxy::pass(request, stack.known_keys(), |request| stack.answer(request)).await;
        with_length(answer, is_head)
    };
    log::line(request, cleaned).await
}

/// Says the length of an answer that is known to have one. The answer to a HEAD has no more than that.
fn with_length(mut answer: Response, is_head: bool) -> Response {
    if !answer.headers().contains_key(CONTENT_LENGTH)
        && let Some(length) = answer.body().size_hint().exact()
    {
        answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if is_head { answer.map(|_| Body::empty()) } else { answer }
}
