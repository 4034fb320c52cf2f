//! The readiness that a room holds between `poll_ready` and `call`.
//!
//! `poll_ready` makes one service ready, and `call` has to use that very one: it may hold a permit. A room that waits
//! before it calls (it collects a body, it sleeps) must neither keep the permit while it waits, which starves others,
//! nor call a service that is not ready, which may panic. [`Readied`] keeps the two apart: it takes the ready service
//! out of the room, gives the readiness up when a wait begins, and regains it before the call.

use std::task::{Context, Poll};

use http::Request;
use tower_service::Service;

/// A service that was taken out of a room, and whether it is ready.
#[derive(Debug)]
pub(crate) struct Readied<S> {
    service: S,
    ready: bool,
}

impl<S: Clone> Readied<S> {
    /// Takes the service that `poll_ready` has made ready, and leaves a clone that is not.
    pub(crate) fn take(place: &mut S) -> Self {
        let clone = place.clone();
        Self { service: std::mem::replace(place, clone), ready: true }
    }

    /// Gives the readiness up before a wait, so that its permit is free for other calls.
    pub(crate) fn release(&mut self) {
        if std::mem::take(&mut self.ready) {
            self.service = self.service.clone();
        }
    }

    /// Gives up what a call has left of the readiness: a room inside that refuses a call leaves the readiness of its
    /// own inner service unused, and that has to be free for others while this room waits.
    pub(crate) fn renew(&mut self) {
        self.ready = false;
        self.service = self.service.clone();
    }

    /// Makes the service ready again, if it is not.
    pub(crate) fn poll_ready<B>(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>>
    where
        S: Service<Request<B>>,
    {
        if !self.ready {
            std::task::ready!(self.service.poll_ready(cx))?;
            self.ready = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Calls the service, which uses up its readiness. Call it only after [`Self::poll_ready`] has returned `Ready`.
    pub(crate) fn call<B>(&mut self, request: Request<B>) -> S::Future
    where
        S: Service<Request<B>>,
    {
        debug_assert!(self.ready, "called without readiness");
        self.ready = false;
        self.service.call(request)
    }
}
