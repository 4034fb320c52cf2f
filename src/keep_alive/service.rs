//! The service: finds out which calls may stream.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    KeepAliveBody, ResponseFuture,
    dialect::{self, Dialect},
    future::{Plan, Streams},
};
use crate::context::{BoxError, CallContext, CallRef};

/// The service of [`KeepAliveLayer`](super::KeepAliveLayer).
#[derive(Clone, Debug)]
pub struct KeepAlive<S> {
    pub(super) inner: S,
    pub(super) every: Option<Duration>,
}

crate::macros::accessors!(KeepAlive);

impl<S, B, R> Service<Request<B>> for KeepAlive<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Response = Response<KeepAliveBody<S::Future, R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Some(every) = self.every else { return ResponseFuture::plain(self.inner.call(request), None) };
        let call = CallRef::of(&request);
        let (shape, is_known) = (call.shape(), call.is_known());
        let Some(dialect) = Dialect::of(request.method(), shape) else {
            return ResponseFuture::plain(self.inner.call(request), None);
        };
        let streams = if dialect::asks_for_stream(shape, request.headers()) {
            Some(Streams::Yes)
        } else if is_known {
            // Only its answer may be another one than it asked for.
            None
        } else {
            // The wish to stream stands in the body, which is read inside.
            let mut flag = None;
            CallContext::update(request.extensions_mut(), |context| flag = Some(context.watch_for_stream()));
            flag.map(Streams::Once)
        };
        let (future, plan) = (self.inner.call(request), Plan { every, dialect });
        match streams {
            Some(streams) => ResponseFuture::movable(future, plan, streams),
            None => ResponseFuture::plain(future, Some(plan)),
        }
    }
}
