use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Response, header::RETRY_AFTER};
use http_body::Body;
use pin_project_lite::pin_project;

use super::{ErrorResponseBody, render};
use crate::{call::Shape, context::Outcome, error::BoxError};

pin_project! {
    /// The future of [`ErrorResponse`](super::ErrorResponse).
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: Option<F>,
        failed: Option<BoxError>,
        shape: Shape,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: F, shape: Shape) -> Self {
        Self { inner: Some(inner), failed: None, shape }
    }

    pub(super) fn failed(error: BoxError, shape: Shape) -> Self {
        Self { inner: None, failed: Some(error), shape }
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
            Ok(response) => passed_on(response, *this.shape),
            Err(error) => render::response(&error, *this.shape).map(ErrorResponseBody::rendered),
        }))
    }
}

/// The upstream's own answer: its bytes, and when to come again if it failed.
fn passed_on<R: Body<Data = Bytes>>(mut response: Response<R>, shape: Shape) -> Response<ErrorResponseBody<R>> {
    let failed = response.status().is_client_error() || response.status().is_server_error();
    if failed
        && !response.headers().contains_key(RETRY_AFTER)
        && let Some(wait) = Outcome::of_response(&response).retry_after()
    {
        response.headers_mut().insert(RETRY_AFTER, render::whole_seconds(wait));
    }
    let (parts, body) = response.into_parts();
    let body = ErrorResponseBody::upstream(body, shape, &parts);
    Response::from_parts(parts, body)
}
