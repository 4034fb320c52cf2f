//! A request to a model that nobody knows, while the list of models is being fetched.

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

use super::{layer::Settings, refusal::polled_again};
use crate::{context::BoxError, ready::Readied};

pin_project! {
    /// Waits for the list, and then until the service is ready again.
    pub(super) struct Unlisted<S, B> {
        // Gone when it is over.
        held: Option<(Readied<S>, Request<B>)>,
        settings: Arc<Settings>,
        #[pin]
        listed: OwnedNotified,
        #[pin]
        give_up: Sleep,
        waits: bool,
    }
}

/// The request, to be checked by what is known now, and a service that is ready for it.
pub(super) struct Listed<S, B> {
    pub(super) inner: Readied<S>,
    pub(super) request: Request<B>,
    pub(super) settings: Arc<Settings>,
}

impl<S: Clone, B> Unlisted<S, B> {
    pub(super) fn new(
        mut inner: Readied<S>,
        request: Request<B>,
        settings: Arc<Settings>,
        listed: OwnedNotified,
    ) -> Self {
        // A wait begins: whatever hangs on the readiness is free for others.
        inner.release();
        let give_up = sleep_until(settings.give_up(&request));
        Self { held: Some((inner, request)), settings, listed, give_up, waits: true }
    }
}

impl<S, B> Unlisted<S, B>
where
    S: Service<Request<B>> + Clone,
    S::Error: Into<BoxError>,
{
    pub(super) fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Listed<S, B>, BoxError>> {
        let this = self.project();
        let Some((inner, _)) = this.held else { return Poll::Ready(Err(polled_again())) };
        if *this.waits {
            if this.listed.poll(cx).is_pending() {
                // Nobody waits for a list for long: without one, the upstream judges.
                ready!(this.give_up.poll(cx));
            }
            *this.waits = false;
        }
        let ready = ready!(inner.poll_ready(cx));
        let Some((inner, request)) = this.held.take() else { return Poll::Ready(Err(polled_again())) };
        ready.map_err(Into::into)?;
        Poll::Ready(Ok(Listed { inner, request, settings: this.settings.clone() }))
    }
}
