//! The service: readiness, and the call.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{future::ResponseFuture, settings::Settings};
use crate::{body::ReplayBody, context::BoxError};

/// The service of [`ReplayLayer`](super::ReplayLayer).
#[derive(Clone, Debug)]
pub struct Replay<S> {
    pub(super) inner: S,
    pub(super) settings: Settings,
    /// The model of the last call, if its name is not too long to be kept: most callers ask for the same one again.
    pub(super) model: Option<Arc<str>>,
}

crate::macros::accessors!(Replay);

impl<S, B, R> Service<Request<B>> for Replay<S>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ResponseFuture::new(&mut self.inner, request, &self.settings, &mut self.model)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use tower::{Layer, service_fn};

    use super::*;
    use crate::{bounded::MAX_NAME, replay::ReplayLayer};

    #[test]
    fn the_last_name_is_kept_unless_it_is_too_long() {
        let inner = service_fn(|_: Request<ReplayBody<Empty<Bytes>>>| async {
            Ok::<_, BoxError>(Response::new(Empty::<Bytes>::new()))
        });
        let mut replay = ReplayLayer::new().layer(inner);
        for (len, is_kept) in [(MAX_NAME, true), (MAX_NAME + 1, false), (1, true)] {
            let name = "m".repeat(len);
            let uri = format!("/v1beta/models/{name}:generateContent");
            drop(replay.call(Request::post(uri).body(Empty::new()).unwrap()));
            assert_eq!(replay.model.as_deref(), is_kept.then_some(&*name), "{len}");
        }
    }
}
