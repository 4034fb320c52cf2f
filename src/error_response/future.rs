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

use super::{ErrorResponseBody, render};
use crate::{
    call::Shape,
    context::{BoxError, Outcome},
    failure::drop_bad_retry_after,
    redact::Secrets,
};

pin_project! {
    /// The future of [`ErrorResponse`](super::ErrorResponse).
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: Option<F>,
        failed: Option<BoxError>,
        shape: Shape,
        secrets: Secrets,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: F, shape: Shape, secrets: Secrets) -> Self {
        Self { inner: Some(inner), failed: None, shape, secrets }
    }

    pub(super) fn failed(error: BoxError, shape: Shape, secrets: Secrets) -> Self {
        Self { inner: None, failed: Some(error), shape, secrets }
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
            Ok(response) => passed_on(response, *this.shape, this.secrets),
            Err(error) => render::response(&error, *this.shape).map(|body| {
                // Transports put whole addresses into their errors.
                ErrorResponseBody::rendered(this.secrets.mask(&body).map_or(body, Bytes::from))
            }),
        }))
    }
}

/// Passes the upstream's own answer on; if it failed, with `Retry-After` and without keys.
fn passed_on<R: Body<Data = Bytes>>(
    mut response: Response<R>,
    shape: Shape,
    secrets: &Secrets,
) -> Response<ErrorResponseBody<R>> {
    let status = response.status();
    // An answer that failed before its first content is a failure too, whatever its status.
    let is_judged_failed = || response.extensions().get::<Outcome>().is_some_and(|outcome| outcome.failure().is_some());
    let failed = status.is_client_error() || status.is_server_error() || is_judged_failed();
    if failed {
        drop_bad_retry_after(response.headers_mut());
        if !status.is_success()
            && !response.headers().contains_key(RETRY_AFTER)
            && let Some(wait) = Outcome::of_response(&response).retry_after()
        {
            response.headers_mut().insert(RETRY_AFTER, render::whole_seconds(wait));
        }
        for value in response.headers_mut().values_mut() {
            if let Some(masked) =
                secrets.mask(value.as_bytes()).and_then(|masked| HeaderValue::from_bytes(&masked).ok())
            {
                *value = masked;
            }
        }
    }
    let (mut parts, body) = response.into_parts();
    let body = match failed {
        true => ErrorResponseBody::failed(body, shape, &mut parts, secrets.clone()),
        false => ErrorResponseBody::upstream(body, shape, &mut parts, secrets),
    };
    Response::from_parts(parts, body)
}
