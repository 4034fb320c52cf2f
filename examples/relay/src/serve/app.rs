//! The way of a request from its connection to the stack in force, and of the answer back.

use std::{convert::Infallible, pin::Pin, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, Version, header::CONTENT_LENGTH};
use tower::{Layer, ServiceExt, service_fn};

use crate::serve::{cors::Cors, current::Current, log::Line, proxy::WayBack, stack::Stack};

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
    if stack.settings.server.keep_alive_layer().is_none() && !Cors::concerns(&request) {
        // hyper asks for this future in the task of the connection, and polls one of HTTP/2 in the task of its stream. Judging a
        // call before that would keep the others of the connection waiting, and a panic would end them all.
        if request.version() == Version::HTTP_2 {
            return Box::pin(async move { logged(stack, request, Cors::to_program).await });
        }
        return Box::pin(logged(stack, request, Cors::to_program));
    }
    Box::pin(async move {
        let is_head = request.method() == Method::HEAD;
        let calls = &stack;
        // Outside of everything that answers, and of the log: a preflight is no call.
        let mut answer = calls.cors.pass(request, move |request| kept_alive(calls.clone(), request)).await;
        say_length(&mut answer, is_head);
        // The answer to a HEAD has no more than its length.
        if is_head { answer.map(|_| Body::empty()) } else { answer }
    })
}

/// Keeps a silent stream alive, where the settings say so. It is outside of the log, which has the true status of a call
/// whose head went out early.
async fn kept_alive(stack: Arc<Stack>, request: Request) -> Response {
    let call = |stack: Arc<Stack>, request| logged(stack, request, |answer| answer);
    let Some(layer) = stack.settings.server.keep_alive_layer() else { return call(stack, request).await };
    let calls = service_fn(move |request| {
        let answer = call(stack.clone(), request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let Ok(answer) = Box::pin(layer.layer(calls).oneshot(request)).await;
    answer.map(Body::new)
}

/// Logs a call, and does the duties of a proxy around the stack. At the end comes `last`.
///
/// The future is made of the request before it is first polled, so that it has no room for one.
fn logged(
    stack: Arc<Stack>,
    mut request: Request,
    last: impl FnOnce(Response) -> Response,
) -> impl Future<Output = Response> {
    let line = Line::begin(&mut request);
    // Inside of the log, for which the answer to a HEAD has ended with its head.
    let is_head = request.method() == Method::HEAD;
    let way_back = WayBack::of(&mut request);
    let mut answer = stack.call(request);
    async move {
        // By reference: a future that awaits another one by value has room for it twice.
        let Ok(mut answer) = (&mut answer).await;
        way_back.pass(&mut answer, stack.known_keys());
        say_length(&mut answer, is_head);
        last(if is_head { line.answered(answer.map(|_| Body::empty())) } else { line.answered(answer) })
    }
}

/// Says the length of an answer that is known to have one. An empty answer to a HEAD has none: its length would be that of
/// the answer to a GET.
fn say_length<R: http_body::Body>(answer: &mut http::Response<R>, is_head: bool) {
    if !answer.headers().contains_key(CONTENT_LENGTH)
        && let Some(length) = answer.body().size_hint().exact().filter(|length| !is_head || *length > 0)
    {
        answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, pipe};

    use crate::config::{Overrides, Source};

    use super::*;

    #[tokio::test]
    async fn a_call_of_http2_begins_in_the_task_of_its_stream() {
        let source = Source { file: None, overrides: Overrides::default() };
        let plan = source.read().expect("settings");
        let current = Current::new(source, plan).expect("a stack");
        let pages = OwnPages { router: Router::new(), paths: Arc::new([]) };
        for (version, has_begun) in [(Version::HTTP_11, true), (Version::HTTP_2, false)] {
            let (mut log, writer) = pipe().expect("a pipe");
            let lines = tracing_subscriber::fmt().with_writer(Arc::new(writer)).finish();
            let request = Request::get("http://relay/v1beta/models").version(version).body(Body::empty());
            // A call that has begun has its line, also without an answer.
            let ask = || drop(answer(&pages, &current, request.expect("a request")));
            tracing::subscriber::with_default(lines, ask);
            let mut text = String::new();
            log.read_to_string(&mut text).expect("text");
            assert_eq!(text.contains("relay::call"), has_begun, "{version:?}: {text}");
        }
    }
}
