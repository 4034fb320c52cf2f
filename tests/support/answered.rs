//! The answer of a server, as a client has it when it has come whole.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, response::Parts};
use http_body_util::Full;
use tower::{Service, ServiceExt};
use tower_gemini::BoxError;

use super::support::{AnyBody, any, read};

/// An answer of whatever body.
pub(crate) struct Answered(Parts, AnyBody);

impl<B> From<Response<B>> for Answered
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn from(response: Response<B>) -> Self {
        let (parts, body) = response.into_parts();
        Self(parts, any(body))
    }
}

/// Sends a request to a service that cannot fail, and reads its answer, which has to end well.
pub(crate) async fn send<S>(service: S, request: Request<Full<Bytes>>) -> (Parts, Bytes)
where
    S: Service<Request<Full<Bytes>>, Error = Infallible>,
    S::Response: Into<Answered>,
{
    let Answered(parts, body) = service.oneshot(request).await.unwrap_or_else(|never| match never {}).into();
    let body = read(body).await;
    (parts, body)
}

pub(crate) fn header<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    parts.headers.get(name).map(|value| value.to_str().unwrap())
}
