//! The service: begins the record of a call.

use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    ResponseFuture, TelemetryBody,
    layer::{Level, Shared},
    record::Record,
};
use crate::context::BoxError;

/// The service of [`TelemetryLayer`](super::TelemetryLayer).
#[derive(Clone, Debug)]
pub struct Telemetry<S> {
    pub(super) inner: S,
    pub(super) level: Option<Level>,
    pub(super) shared: Shared,
}

crate::macros::accessors!(Telemetry);

impl<S, B, R> Service<Request<B>> for Telemetry<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body,
    R::Error: Into<BoxError>,
{
    type Response = Response<TelemetryBody<R>>;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let record = self.level.and_then(|level| Record::begin(level, &self.shared, &mut request));
        let Some(record) = record else { return ResponseFuture::new(self.inner.call(request), None) };
        let entered = record.span().enter();
        let future = self.inner.call(request);
        drop(entered);
        ResponseFuture::new(future, Some(record))
    }
}
