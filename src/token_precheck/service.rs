use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    ResponseFuture,
    await_list::Unlisted,
    check::{self, Checked},
    counting::Undecided,
    layer::Settings,
};
use crate::{body::Resend, context::BoxError, ready::Readied};

/// The service of [`TokenPrecheckLayer`](super::TokenPrecheckLayer).
#[derive(Clone, Debug)]
pub struct TokenPrecheck<S> {
    pub(super) inner: S,
    pub(super) settings: Option<Arc<Settings>>,
}

crate::macros::accessors!(TokenPrecheck);

impl<S, B, R> Service<Request<B>> for TokenPrecheck<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Resend<Data = Bytes> + From<Bytes>,
    R: Body,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, R, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Some(settings) = &self.settings else { return ResponseFuture::calling(self.inner.call(request), None) };
        match check::check(settings, &mut request, true) {
            Checked::Passes(watch) => ResponseFuture::calling(self.inner.call(request), watch),
            Checked::Refused(failure) => ResponseFuture::refused(failure),
            Checked::Undecided(question) => {
                let (inner, settings) = (Readied::take(&mut self.inner), settings.clone());
                ResponseFuture::undecided(Undecided::new(inner, request, settings, question))
            }
            Checked::Unlisted(listed) => {
                let (inner, settings) = (Readied::take(&mut self.inner), settings.clone());
                ResponseFuture::unlisted(Unlisted::new(inner, request, settings, listed))
            }
        }
    }
}
