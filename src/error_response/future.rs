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
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRAILER, TRANSFER_ENCODING},
    response::Parts,
};
use http_body::Body;
use pin_project_lite::pin_project;

use super::{
    ErrorResponseBody,
    answer::{Replacement, UpstreamFailure},
    heard::Heard,
    hints::{self, Hints},
    reading::{AnswerBody, Reading, Stop},
    render,
    settings::Settings,
};
use crate::{
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
        reading: Option<Box<Reading<R>>>,
        shape: Shape,
        settings: Settings,
    }
}

impl<F, R> ResponseFuture<F, R> {
    pub(super) fn new(inner: F, shape: Shape, settings: Settings) -> Self {
        Self { inner: Some(inner), failed: None, reading: None, shape, settings }
    }

    pub(super) fn failed(error: BoxError, shape: Shape, settings: Settings) -> Self {
        Self { inner: None, failed: Some(error), reading: None, shape, settings }
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
        if this.reading.is_none() {
            let result = match (this.inner.as_mut().as_pin_mut(), this.failed.take()) {
                (_, Some(error)) => Err(error),
                (Some(inner), None) => ready!(inner.poll(cx)).map_err(Into::into),
                (None, None) => return Poll::Pending,
            };
            match result {
                Err(error) => return Poll::Ready(Ok(rendered(&error, shape, settings))),
                Ok(response) => match Duty::of(&response, shape) {
                    Duty::Nothing => return Poll::Ready(Ok(passed_on(response, shape, settings))),
                    Duty::Mark => return Poll::Ready(Ok(marked(response, shape, settings))),
                    Duty::Replace => return Poll::Ready(Ok(replaced(response, shape, settings))),
                    Duty::Read => {
                        let (parts, body) = response.into_parts();
                        *this.reading = Some(Reading::new(parts, body).into());
                    }
                },
            }
        }
        let Some(reading) = this.reading else { return Poll::Pending };
        loop {
            let stop = ready!(reading.poll(cx));
            // A stream need not end with its error, nor a connection with its answer.
            if matches!(stop, Stop::Paused) && Heard::new(&reading.bytes()).error().is_none() {
                continue;
            }
            let Some(reading) = this.reading.take() else { return Poll::Pending };
            this.inner.set(None);
            return Poll::Ready(Ok(read(*reading, stop, shape, settings)));
        }
    }
}

/// The thing to do about a response.
enum Duty {
    /// It is a good answer.
    Nothing,
    /// It is a failure whose body is passed on as it comes.
    Mark,
    /// Its body decides.
    Read,
    /// It is about the server's own credentials, whatever its body says.
    Replace,
}

impl Duty {
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
        if shape.surface == Surface::Other || is_encoded(response.headers()) || !refused && is_verdict() && !is_empty()
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
fn read<R>(reading: Reading<R>, stop: Stop, shape: Shape, settings: &Settings) -> Response<ErrorResponseBody<R>>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let outcome = outcome_of(&reading.parts);
    let replacement = match stop {
        Stop::TooLarge => None,
        Stop::Ended | Stop::Paused => {
            // Before anything is cut off it: the half of a secret is not found.
            let body = masked(reading.bytes(), settings);
            upstream_failure(&reading.parts, &outcome, shape, settings).replacement(&body)
        }
    };
    match replacement {
        Some(replacement) => written(reading.into_parts().0, replacement, &outcome, shape, settings),
        None => {
            let (parts, body) = reading.into_parts();
            unchanged(parts, body, &outcome, shape, settings)
        }
    }
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
    for name in [CONTENT_LENGTH, CONTENT_ENCODING, TRANSFER_ENCODING, TRAILER] {
        parts.headers.remove(name);
    }
    if replacement.is_json {
        render::set_type(&mut parts.headers);
    }
    hint(&mut parts, outcome, shape.surface);
    mask(&mut parts.headers, settings);
    Response::from_parts(parts, ErrorResponseBody::rendered(masked(replacement.body.into(), settings)))
}

/// Says in the headers when to come again, in place of the upstream's.
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

fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

fn is_encoded(headers: &HeaderMap) -> bool {
    let encoding = headers.get(CONTENT_ENCODING).map(|value| value.as_bytes().trim_ascii());
    encoding.is_some_and(|encoding| !encoding.is_empty() && !encoding.eq_ignore_ascii_case(b"identity"))
}
