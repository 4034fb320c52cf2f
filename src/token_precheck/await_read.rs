//! The future of a request whose large body is read on another thread.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::Request;
use tower_service::Service;

use super::{await_list::ListedCall, read::BodyFacts, refusal::polled_again, settings::Settings};
use crate::{context::BoxError, ready::Readied, request::readers::BodyRead};

/// A request whose body is being read, and then waits for a ready service.
pub(super) struct ReadFuture<S, B> {
    /// `None` once the wait is over.
    held: Option<(Readied<S>, Request<B>)>,
    settings: Arc<Settings>,
    reading: LargeRead,
    /// True if the request may wait for a list of models after that.
    pub(super) may_wait: bool,
}

/// The facts of a body, to come. Inside: `None` if it could not be read.
enum LargeRead {
    Running(BodyRead<BodyFacts>),
    Done(Option<Box<BodyFacts>>),
}

/// A call that may go on, and the facts of its body.
type ReadCall<S, B> = (ListedCall<S, B>, Option<BodyFacts>);

impl<S: Clone, B> ReadFuture<S, B> {
    pub(super) fn new(
        mut inner: Readied<S>,
        request: Request<B>,
        settings: Arc<Settings>,
        reading: BodyRead<BodyFacts>,
        may_wait: bool,
    ) -> Self {
        // The wait begins: release the readiness, so that other calls can use what it holds.
        inner.release();
        Self { held: Some((inner, request)), settings, reading: LargeRead::Running(reading), may_wait }
    }
}

impl<S, B> ReadFuture<S, B>
where
    S: Service<Request<B>> + Clone,
    S::Error: Into<BoxError>,
{
    /// Returns the call, and the facts of its body.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<ReadCall<S, B>, BoxError>> {
        if let LargeRead::Running(reading) = &mut self.reading {
            self.reading = LargeRead::Done(ready!(Pin::new(reading).poll(cx)).map(Box::new));
        }
        let Some((inner, _)) = &mut self.held else { return Poll::Ready(Err(polled_again())) };
        let ready = ready!(inner.poll_ready(cx));
        let Some((inner, request)) = self.held.take() else { return Poll::Ready(Err(polled_again())) };
        ready.map_err(Into::into)?;
        let facts = match &mut self.reading {
            LargeRead::Done(facts) => facts.take().map(|facts| *facts),
            LargeRead::Running(_) => None,
        };
        Poll::Ready(Ok((ListedCall { inner, request, settings: self.settings.clone() }, facts)))
    }
}
