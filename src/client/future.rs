//! The future of a request.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use hyper_util::client::legacy;
use pin_project_lite::pin_project;

use super::{InFlight, ResponseBody};
use crate::{body::GuardedBody, context::BoxError};

pin_project! {
    /// The future of [`Client`](super::Client).
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct ResponseFuture {
        #[pin]
        state: State,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State {
        Refused { error: Option<BoxError> },
        Sent { #[pin] response: legacy::ResponseFuture, in_flight: Option<InFlight> },
    }
}

impl ResponseFuture {
    pub(super) fn refused(error: BoxError) -> Self {
        Self { state: State::Refused { error: Some(error) } }
    }

    pub(super) fn sent(response: legacy::ResponseFuture, in_flight: InFlight) -> Self {
        Self { state: State::Sent { response, in_flight: Some(in_flight) } }
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<ResponseBody>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // A future that is polled after its end stays pending.
        match self.project().state.project() {
            StateProj::Refused { error } => error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
            StateProj::Sent { response, in_flight } => {
                let response = ready!(response.poll(cx));
                let Some(in_flight) = in_flight.take() else { return Poll::Pending };
                Poll::Ready(Ok(response?.map(|body| GuardedBody::new(body, in_flight))))
            }
        }
    }
}
