use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::{Breakers, ResponseFuture, place::Place, ticket::Ticket};
use crate::{context, error::BoxError};

/// The service of [`CircuitBreakerLayer`](super::CircuitBreakerLayer).
#[derive(Debug)]
pub struct CircuitBreaker<S> {
    inner: S,
    breakers: Option<Breakers>,
    last: Last,
    /// Calls so far, to tell which are timed. A clone begins by chance, or those that make one call would all be the same.
    calls: u32,
}

/// One call in so many is timed while all is well.
const TIMED: u32 = 32;

/// Where the last call belonged.
#[derive(Debug, Default)]
enum Last {
    #[default]
    Nowhere,
    /// Known from the service that this is a clone of. A clone that makes one call only, as axum's do, needs no more.
    Shared(Arc<Place>),
    Own(Arc<Place>),
}

crate::macros::accessors!(CircuitBreaker);

impl<S> CircuitBreaker<S> {
    pub(super) fn new(inner: S, breakers: Option<Breakers>) -> Self {
        Self { inner, breakers, last: Last::Nowhere, calls: 0 }
    }
}

impl<S, B, R> Service<Request<B>> for CircuitBreaker<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Some(breakers) = &self.breakers else { return ResponseFuture::calling(self.inner.call(request), None) };
        let place = match self.last.take_in(&request) {
            Some(place) => place,
            None => {
                let (place, same) = Place::of(breakers, request);
                request = same;
                let place = Arc::new(place);
                self.last = Last::Own(place.clone());
                place
            }
        };
        self.calls = self.calls.wrapping_add(1);
        let admission = match place.breaker.admit(breakers.common(), self.calls.is_multiple_of(TIMED)) {
            Ok(admission) => admission,
            Err(refusal) => return ResponseFuture::refused(refusal),
        };
        let repeated = context::Context::of(&request).is_some_and(context::Context::has_failed_before);
        // Before the call: it may panic.
        let ticket = Ticket::new(place, admission, repeated);
        ResponseFuture::calling(self.inner.call(request), Some(ticket))
    }
}

impl Last {
    /// The place of the last call, if this one belongs there too.
    fn take_in<B>(&mut self, request: &Request<B>) -> Option<Arc<Place>> {
        match self {
            Self::Own(place) if place.takes(request) => Some(place.clone()),
            Self::Shared(place) if place.takes(request) => {
                let place = place.clone();
                *self = Self::Own(Arc::new(place.another()));
                Some(place)
            }
            _ => None,
        }
    }
}

impl<S: Clone> Clone for CircuitBreaker<S> {
    fn clone(&self) -> Self {
        let last = match &self.last {
            Last::Nowhere => Last::Nowhere,
            Last::Shared(place) | Last::Own(place) => Last::Shared(place.clone()),
        };
        Self { inner: self.inner.clone(), breakers: self.breakers.clone(), last, calls: fastrand::u32(..) }
    }
}
