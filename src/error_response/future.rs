//! The future of a call: turns an error into an answer, and an upstream's failure into one that an SDK can read.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING},
    response::Parts,
};
use http_body::Body;
use pin_project_lite::pin_project;
use serde_json::json;

use super::{
    ErrorResponseBody,
    answer::{Replacement, UpstreamFailure},
    heard::Heard,
    hints::{self, Hints},
    reading::{AnswerBody, HeldAnswer, Stop},
    render,
    settings::Settings,
};
use crate::{
    answer::media::{coding, is_event_stream},
    call::{Shape, Surface},
    clock,
    context::{BoxError, Outcome},
    failure::{Failure, Kind, drop_bad_retry_after},
};

pin_project! {
    /// The future of [`ErrorResponse`](super::ErrorResponse).
    pub struct ResponseFuture<F, R> {
        #[pin]
        inner: Option<F>,
        failed: Option<BoxError>,
        held: Option<Box<HeldAnswer<R>>>,
        shape: Shape,
        settings: Settings,
    }
}

impl<F, R> ResponseFuture<F, R> {
    pub(super) fn new(inner: F, shape: Shape, settings: Settings) -> Self {
        Self { inner: Some(inner), failed: None, held: None, shape, settings }
    }

    pub(super) fn failed(error: BoxError, shape: Shape, settings: Settings) -> Self {
        Self { inner: None, failed: Some(error), held: None, shape, settings }
    }
}

impl<F, R> fmt::Debug for ResponseFuture<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl<F, R, E> Future for ResponseFuture<F, R>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<ErrorResponseBody<R>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (shape, settings) = (*this.shape, &*this.settings);
        if this.held.is_none() {
            let result = match (this.inner.as_mut().as_pin_mut(), this.failed.take()) {
                (_, Some(error)) => Err(error),
                (Some(inner), None) => ready!(inner.poll(cx)).map_err(Into::into),
                (None, None) => return Poll::Pending,
            };
            match result {
                Err(error) => return Poll::Ready(Ok(rendered(&error, shape, settings))),
                Ok(response) => match Handling::of(&response, shape) {
                    Handling::Nothing => return Poll::Ready(Ok(passed_on(response, shape, settings))),
                    Handling::Mark => return Poll::Ready(Ok(marked(response, shape, settings))),
                    Handling::Replace => return Poll::Ready(Ok(replaced(response, shape, settings))),
                    Handling::Read => {
                        let (parts, body) = response.into_parts();
                        *this.held = Some(HeldAnswer::new(parts, body).into());
                    }
                },
            }
        }
        let Some(held) = this.held else { return Poll::Pending };
        loop {
            let stop = ready!(held.poll(cx));
            // A stream need not end with its error, nor a connection with its answer.
            if stop == Stop::Paused && Heard::new(&held.bytes()).error().is_none() {
                continue;
            }
            let Some(held) = this.held.take() else { return Poll::Pending };
            this.inner.set(None);
            return Poll::Ready(Ok(read(*held, stop, shape, settings)));
        }
    }
}

/// The thing to do about a response.
enum Handling {
    /// It is a good answer.
    Nothing,
    /// It is a failure whose body is passed on as it comes.
    Mark,
    /// Its body decides.
    Read,
    /// It is about the server's own credentials, whatever its body says.
    Replace,
}

impl Handling {
    fn of<R>(response: &Response<R>, shape: Shape) -> Self {
        let status = response.status();
        let refused = status.is_client_error() || status.is_server_error();
        let outcome = response.extensions().get::<Outcome>();
        let failure = outcome.and_then(Outcome::failure);
        if !refused && failure.is_none() {
            return Self::Nothing;
        }
        if outcome.is_some_and(Outcome::is_own_key_refused) {
            return Self::Replace;
        }
        // A verdict on the content is an answer: its own status is that of a success. On the stream of an interaction it is an
        // event, as Google documents it.
        let is_filtered = |failure: &Failure| {
            shape.surface == Surface::Interactions
                && failure.kind() == Kind::ContentBlocked
                && is_event_stream(response.headers())
        };
        let is_own = |failure: &Failure| failure.status().is_some_and(|own| own.is_success()) || is_filtered(failure);
        let is_verdict = || failure.is_some_and(is_own);
        // An answer without a word has a verdict too, and may have no reason for it.
        let is_empty = || failure.is_some_and(|failure| failure.code() == StatusCode::BAD_GATEWAY);
        // A path that is not the API's has no shape; and nobody looks into an encoded body to change it.
        if shape.surface == Surface::Other
            || coding(response.headers()).is_some()
            || !refused && is_verdict() && !is_empty()
        {
            return Self::Mark;
        }
        Self::Read
    }
}

/// Passes a good answer on.
fn passed_on<R: Body<Data = Bytes>>(
    response: Response<R>,
    shape: Shape,
    settings: &Settings,
) -> Response<ErrorResponseBody<R>> {
    let (mut parts, body) = response.into_parts();
    let body = ErrorResponseBody::upstream(AnswerBody::Unread { body }, shape, &mut parts, settings);
    Response::from_parts(parts, body)
}

/// Passes a failure on, with hints and without keys.
fn marked<R: Body<Data = Bytes>>(
    response: Response<R>,
    shape: Shape,
    settings: &Settings,
) -> Response<ErrorResponseBody<R>> {
    let outcome = Outcome::of_response(&response);
    let (parts, body) = response.into_parts();
    unchanged(parts, AnswerBody::Unread { body }, &outcome, shape, settings)
}

fn unchanged<R: Body<Data = Bytes>>(
    mut parts: Parts,
    body: AnswerBody<R>,
    outcome: &Outcome,
    shape: Shape,
    settings: &Settings,
) -> Response<ErrorResponseBody<R>> {
    hint(&mut parts, outcome, shape.surface);
    mask(&mut parts.headers, settings);
    let body = ErrorResponseBody::failed(body, shape, &mut parts, settings);
    Response::from_parts(parts, body)
}

/// Answers in place of a failure that is the operator's.
fn replaced<R: Body<Data = Bytes>>(
    response: Response<R>,
    shape: Shape,
    settings: &Settings,
) -> Response<ErrorResponseBody<R>> {
    let outcome = Outcome::of_response(&response);
    let (parts, body) = response.into_parts();
    let Some(failure) = outcome.failure().cloned() else {
        return unchanged(parts, AnswerBody::Unread { body }, &outcome, shape, settings);
    };
    let replacement = upstream_failure(&parts, &outcome, shape, settings).own_key_refused(failure);
    written(parts, replacement, &outcome, shape, settings)
}

/// Answers a failure of which the body was read.
fn read<R>(mut held: HeldAnswer<R>, stop: Stop, shape: Shape, settings: &Settings) -> Response<ErrorResponseBody<R>>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let mut outcome = outcome_of(&held.parts);
    // Before anything is cut off it: the half of a secret is not found.
    let body = masked(held.bytes(), settings);
    let heard = Heard::new(&body);
    let is_success = held.parts.status.is_success();
    if is_success {
        let found = heard.scan(&body);
        // Nothing is worse than to take a good answer away. An interaction that failed is handed on as it came, too.
        if !heard.is_interaction() && (found.answer || stop == Stop::TooLarge && found.content) {
            let (mut parts, body) = held.into_parts();
            let body = ErrorResponseBody::upstream(body, shape, &mut parts, settings);
            return Response::from_parts(parts, body);
        }
        if let Some(own) = own_failure(&heard, &outcome) {
            outcome = outcome.with_failure(own);
            held.parts.extensions.insert(outcome.clone());
        }
    }
    let upstream = upstream_failure(&held.parts, &outcome, shape, settings);
    let replacement = match outcome.failure() {
        Some(failure) if outcome.is_own_key_refused() => Some(upstream.own_key_refused(failure.clone())),
        _ if stop == Stop::TooLarge => None,
        _ => upstream.replacement(&heard, &body),
    };
    match replacement {
        Some(replacement) => written(held.into_parts().0, replacement, &outcome, shape, settings),
        None => {
            let (mut parts, rest) = held.into_parts();
            match stop {
                // It is all that can be said, and its end may never come.
                Stop::Paused | Stop::Late if !is_success => return whole(parts, body, &outcome, shape, settings),
                // The words pass, but clients believe the status alone.
                Stop::TooLarge if is_success && !heard.has_reason() && !heard.is_interaction() => {
                    parts.status = outcome.failure().map_or(parts.status, Failure::code);
                }
                _ => {}
            }
            unchanged(parts, rest, &outcome, shape, settings)
        }
    }
}

/// Returns the failure that a good status's body tells of itself, where the judgement has found nothing but an answer
/// without content.
fn own_failure(heard: &Heard, outcome: &Outcome) -> Option<Failure> {
    let judged = outcome.failure()?;
    let is_vague = judged.kind() == Kind::StreamCut || judged.status().is_some_and(|status| status.is_success());
    let envelope = heard.error().filter(|envelope| is_vague && !Heard::tells_of_interaction(envelope))?;
    let error = json!({ "error": envelope.get("error") });
    Some(Failure::from_event(error.to_string().as_bytes()))
}

/// Answers an error.
fn rendered<R>(error: &BoxError, shape: Shape, settings: &Settings) -> Response<ErrorResponseBody<R>> {
    let rendered = render::response(error, shape, settings, clock::wall());
    // Transports put whole addresses into their errors.
    rendered.map(|body| ErrorResponseBody::rendered(masked(body, settings)))
}

/// Puts another answer in the place of an upstream's.
fn written<R>(
    mut parts: Parts,
    replacement: Replacement,
    outcome: &Outcome,
    shape: Shape,
    settings: &Settings,
) -> Response<ErrorResponseBody<R>> {
    parts.status = replacement.status;
    if replacement.is_json {
        render::set_type(&mut parts.headers);
    }
    whole(parts, masked(replacement.body, settings), outcome, shape, settings)
}

/// Answers with a body in one piece.
fn whole<R>(
    mut parts: Parts,
    body: Bytes,
    outcome: &Outcome,
    shape: Shape,
    settings: &Settings,
) -> Response<ErrorResponseBody<R>> {
    for name in [CONTENT_LENGTH, CONTENT_ENCODING, TRANSFER_ENCODING, TRAILER] {
        parts.headers.remove(name);
    }
    hint(&mut parts, outcome, shape.surface);
    mask(&mut parts.headers, settings);
    Response::from_parts(parts, ErrorResponseBody::rendered(body))
}

/// Says in the headers when to come again, in place of what an upstream says.
fn hint(parts: &mut Parts, outcome: &Outcome, surface: Surface) {
    drop_bad_retry_after(&mut parts.headers);
    if parts.status.is_client_error() || parts.status.is_server_error() {
        hints::remove(parts.status, &mut parts.headers);
        Hints::of(parts.status, outcome, surface, clock::wall()).write(&mut parts.headers);
    }
}

/// Overwrites keys in the text of a failure.
fn masked(body: Bytes, settings: &Settings) -> Bytes {
    settings.secrets.mask(&body).map_or(body, Bytes::from)
}

/// Overwrites keys in the headers of a failure.
fn mask(headers: &mut HeaderMap, settings: &Settings) {
    for value in headers.values_mut() {
        if let Some(masked) = settings.secrets.mask(value.as_bytes())
            && let Ok(masked) = HeaderValue::from_bytes(&masked)
        {
            *value = masked;
        }
    }
}

fn upstream_failure<'a>(
    parts: &'a Parts,
    outcome: &'a Outcome,
    shape: Shape,
    settings: &'a Settings,
) -> UpstreamFailure<'a> {
    let (status, headers) = (parts.status, &parts.headers);
    UpstreamFailure { status, headers, outcome, shape, settings, now: clock::wall() }
}

fn outcome_of(parts: &Parts) -> Outcome {
    match parts.extensions.get::<Outcome>() {
        Some(known) => known.clone(),
        None => Outcome::of_status(parts.status, &parts.headers),
    }
}
