//! The service: checks a call before it is sent.

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
    await_list::ListFuture,
    await_read::ReadFuture,
    check::{self, Checked},
    counting::CountFuture,
    settings::Settings,
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
            Checked::Send(learner) => ResponseFuture::calling(self.inner.call(request), learner),
            Checked::Refuse(failure) => ResponseFuture::refused(failure),
            Checked::Count(question) => {
                let (inner, settings) = (Readied::take(&mut self.inner), settings.clone());
                ResponseFuture::counting(CountFuture::new(inner, request, settings, question))
            }
            Checked::AwaitList(list) => {
                let (inner, settings) = (Readied::take(&mut self.inner), settings.clone());
                ResponseFuture::awaiting_list(ListFuture::new(inner, request, settings, list))
            }
            Checked::Read(reading) => {
                let (inner, settings) = (Readied::take(&mut self.inner), settings.clone());
                ResponseFuture::reading(ReadFuture::new(inner, request, settings, reading, true))
            }
        }
    }
}
