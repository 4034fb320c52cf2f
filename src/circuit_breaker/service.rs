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

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        match &self.breakers {
            None => ResponseFuture::calling(self.inner.call(request), None),
            Some(breakers) => {
                self.calls = self.calls.wrapping_add(1);
                guarded(&mut self.inner, breakers, self.calls.is_multiple_of(TIMED), request)
            }
        }
    }
}

/// Calls the service, if the call's breaker lets it in.
fn guarded<S, B>(
    inner: &mut S,
    breakers: &CircuitBreakers,
    timed: bool,
    mut request: Request<B>,
) -> ResponseFuture<S::Future>
where
    S: Service<Request<B>>,
{
    let breaker = match breakers.breaker_of(&request) {
        Some(breaker) => breaker,
        None => {
            let named;
            (named, request) = breakers.named_breaker_of(request);
            named
        }
    };
    match breaker.admit(timed) {
        Ok(admission) => {
            let repeated = CallContext::of(&request).is_some_and(CallContext::has_failed_before);
            // The permit is made before the call, which may panic.
            let permit = Permit::new(breaker, admission, repeated);
            ResponseFuture::calling(inner.call(request), Some(permit))
        }
        Err(refusal) => ResponseFuture::refused(refusal),
    }
}

impl<S: Clone> Clone for CircuitBreaker<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), breakers: self.breakers.clone(), calls: fastrand::u32(..) }
    }
}
