//! The service: asks the breaker of a call for a permit.

use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::{CircuitBreakers, ResponseFuture, permit::Permit};
use crate::context::{BoxError, CallContext};

/// The service of [`CircuitBreakerLayer`](super::CircuitBreakerLayer).
#[derive(Debug)]
pub struct CircuitBreaker<S> {
    inner: S,
    breakers: Option<CircuitBreakers>,
    /// The number of calls so far, which chooses those that are timed. A clone begins at random, or clones that make
    /// one call each would time all of them or none.
    calls: u32,
}

/// One call in this many is timed while the breaker is calm.
const TIMED: u32 = 32;

crate::macros::accessors!(CircuitBreaker);

impl<S> CircuitBreaker<S> {
    pub(super) fn new(inner: S, breakers: Option<CircuitBreakers>) -> Self {
        Self { inner, breakers, calls: 0 }
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

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Some(breakers) = &self.breakers else { return ResponseFuture::calling(self.inner.call(request), None) };
        let (breaker, request) = breakers.breaker_of(request);
        self.calls = self.calls.wrapping_add(1);
        let admission = match breaker.admit(self.calls.is_multiple_of(TIMED)) {
            Ok(admission) => admission,
            Err(refusal) => return ResponseFuture::refused(refusal),
        };
        let repeated = CallContext::of(&request).is_some_and(CallContext::has_failed_before);
        // The permit is made before the call, which may panic.
        let permit = Permit::new(breaker, admission, repeated);
        ResponseFuture::calling(self.inner.call(request), Some(permit))
    }
}

impl<S: Clone> Clone for CircuitBreaker<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), breakers: self.breakers.clone(), calls: fastrand::u32(..) }
    }
}
