//! The future of a call: turns an error into an answer.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Response, header::RETRY_AFTER};
use http_body::Body;
use pin_project_lite::pin_project;

use super::{ErrorResponseBody, render, settings::Settings};
use crate::{
    call::Shape,
    context::{BoxError, Outcome},
    failure::{Kind, drop_bad_retry_after},
};

pin_project! {
    /// The future of [`ErrorResponse`](super::ErrorResponse).
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: Option<F>,
        failed: Option<BoxError>,
        shape: Shape,
        settings: Settings,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: F, shape: Shape, settings: Settings) -> Self {
        Self { inner: Some(inner), failed: None, shape, settings }
    }

    pub(super) fn failed(error: BoxError, shape: Shape, settings: Settings) -> Self {
        Self { inner: None, failed: Some(error), shape, settings }
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<ErrorResponseBody<R>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = match (this.inner.as_pin_mut(), this.failed.take()) {
            (_, Some(error)) => Err(error),
            (Some(inner), None) => ready!(inner.poll(cx)).map_err(Into::into),
            (None, None) => return Poll::Pending,
        };
        Poll::Ready(Ok(match result {
            Ok(response) => passed_on(response, *this.shape, this.settings),
            Err(error) => render::response(&error, *this.shape).map(|body| {
                // Transports put whole addresses into their errors.
                ErrorResponseBody::rendered(this.settings.secrets.mask(&body).map_or(body, Bytes::from))
            }),
        }))
    }
}

/// Passes the upstream's own answer on; if it failed, with `Retry-After` and without keys.
fn passed_on<R: Body<Data = Bytes>>(
    mut response: Response<R>,
    shape: Shape,
    settings: &Settings,
) -> Response<ErrorResponseBody<R>> {
    let status = response.status();
    // An answer that failed before its first content is a failure too, whatever its status.
    let is_judged_failed = || response.extensions().get::<Outcome>().is_some_and(|outcome| outcome.failure().is_some());
    let failed = status.is_client_error() || status.is_server_error() || is_judged_failed();
    if failed {
        drop_bad_retry_after(response.headers_mut());
        if !status.is_success() {
            say_when(&mut response);
        }
        for value in response.headers_mut().values_mut() {
            if let Some(masked) =
                settings.secrets.mask(value.as_bytes()).and_then(|masked| HeaderValue::from_bytes(&masked).ok())
            {
                *value = masked;
            }
        }
    }
    let (mut parts, body) = response.into_parts();
    let body = match failed {
        true => ErrorResponseBody::failed(body, shape, &mut parts, settings),
        false => ErrorResponseBody::upstream(body, shape, &mut parts, settings),
    };
    Response::from_parts(parts, body)
}

/// Adds the time to come again, where it is known, and removes one that is not believed.
fn say_when<R>(response: &mut Response<R>) {
    let outcome = Outcome::of_response(response);
    // A day's quota does not come back in the seconds that a proxy, or a minute's quota beside it, asks for.
    let days = [Kind::QuotaDay, Kind::QuotaZero, Kind::QuotaGrounding];
    if outcome.failure().is_some_and(|failure| days.contains(&failure.kind()) && failure.hint().is_none()) {
        response.headers_mut().remove(RETRY_AFTER);
    }
    if !response.headers().contains_key(RETRY_AFTER)
        && render::passes_with_time(response.status())
        && let Some(wait) = outcome.retry_after()
    {
        response.headers_mut().insert(RETRY_AFTER, render::whole_seconds(wait));
    }
}
