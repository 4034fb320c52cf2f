//! The future of a request to an unknown model that waits until the list of models has been fetched.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::Request;
use pin_project_lite::pin_project;
use tokio::{
    sync::futures::OwnedNotified,
    time::{Sleep, sleep_until},
};
use tower_service::Service;

use super::{refusal::polled_again, settings::Settings};
use crate::{context::BoxError, ready::Readied};

pin_project! {
    /// A request that waits for the list, and then for a ready service.
    pub(super) struct ListFuture<S, B> {
        // None once the wait is over.
        held: Option<(Readied<S>, Request<B>)>,
        settings: Arc<Settings>,
        #[pin]
        list: OwnedNotified,
        #[pin]
        give_up: Sleep,
        waits: bool,
    }
}

/// A request that can be checked again, and a service that is ready for it.
pub(super) struct ListedCall<S, B> {
    pub(super) inner: Readied<S>,
    pub(super) request: Request<B>,
    pub(super) settings: Arc<Settings>,
}

impl<S: Clone, B> ListFuture<S, B> {
    pub(super) fn new(
        mut inner: Readied<S>,
        request: Request<B>,
        settings: Arc<Settings>,
        list: OwnedNotified,
    ) -> Self {
        // The wait begins: release the readiness, so that other calls can use what it holds.
        inner.release();
        let give_up = sleep_until(settings.give_up(&request));
        Self { held: Some((inner, request)), settings, list, give_up, waits: true }
    }
}

impl<S, B> ListFuture<S, B>
where
    S: Service<Request<B>> + Clone,
    S::Error: Into<BoxError>,
{
    pub(super) fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<ListedCall<S, B>, BoxError>> {
        let this = self.project();
        let Some((inner, _)) = this.held else { return Poll::Ready(Err(polled_again())) };
        if *this.waits {
            if this.list.poll(cx).is_pending() {
                // Without a list in time, the upstream judges the model.
                ready!(this.give_up.poll(cx));
            }
            *this.waits = false;
        }
        let ready = ready!(inner.poll_ready(cx));
        let Some((inner, request)) = this.held.take() else { return Poll::Ready(Err(polled_again())) };
        ready.map_err(Into::into)?;
        Poll::Ready(Ok(ListedCall { inner, request, settings: this.settings.clone() }))
    }
}
