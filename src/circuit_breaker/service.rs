use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use parking_lot::RwLock;
use tower_service::Service;

use super::{CircuitBreakers, ResponseFuture, lookup::CachedBreaker, permit::Permit};
use crate::{context, context::BoxError};

/// The service of [`CircuitBreakerLayer`](super::CircuitBreakerLayer).
#[derive(Debug)]
pub struct CircuitBreaker<S> {
    inner: S,
    breakers: Option<CircuitBreakers>,
    own: Own,
    recent: Recent,
    /// Calls so far, to tell which are timed. A clone begins by chance, or those that make one call would all be the same.
    calls: u32,
}

/// One call in so many is timed while all is well.
const TIMED: u32 = 32;

/// A cached that only this clone counts its calls at.
#[derive(Debug, Default)]
enum Own {
    #[default]
    NeverCalled,
    /// A clone that makes one call only, as axum's do, needs none.
    CalledOnce,
    Cached(Arc<CachedBreaker>),
}

/// Places that clones of one service have asked for, so that a fresh clone need not read what another has read.
#[derive(Clone, Debug, Default)]
struct Recent(Arc<RwLock<Vec<Arc<CachedBreaker>>>>);

crate::macros::accessors!(CircuitBreaker);

impl<S> CircuitBreaker<S> {
    pub(super) fn new(inner: S, breakers: Option<CircuitBreakers>) -> Self {
        Self { inner, breakers, own: Own::default(), recent: Recent::default(), calls: 0 }
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
        let cached = match self.own.find(&self.recent, &request) {
            Some(cached) => cached,
            None => {
                let (cached, same) = CachedBreaker::of(breakers, request);
                request = same;
                self.recent.keep(cached)
            }
        };
        self.calls = self.calls.wrapping_add(1);
        let admission = match cached.breaker.admit(breakers.common(), self.calls.is_multiple_of(TIMED)) {
            Ok(admission) => admission,
            Err(refusal) => return ResponseFuture::refused(refusal),
        };
        let repeated = context::CallContext::of(&request).is_some_and(context::CallContext::has_failed_before);
        // Before the call: it may panic.
        let permit = Permit::new(cached, admission, repeated);
        ResponseFuture::calling(self.inner.call(request), Some(permit))
    }
}

impl Own {
    /// Where the request belongs, if that is known from another one.
    fn find<B>(&mut self, recent: &Recent, request: &Request<B>) -> Option<Arc<CachedBreaker>> {
        if let Self::Cached(cached) = self
            && cached.takes(request)
        {
            return Some(cached.clone());
        }
        let cached = recent.0.read().iter().find(|cached| cached.takes(request)).cloned()?;
        match self {
            Self::NeverCalled => *self = Self::CalledOnce,
            Self::CalledOnce => *self = Self::Cached(Arc::new(cached.another())),
            Self::Cached(_) => {}
        }
        Some(cached)
    }
}

impl Recent {
    const KEPT: usize = 16;

    fn keep(&self, cached: CachedBreaker) -> Arc<CachedBreaker> {
        let cached = Arc::new(cached);
        if cached.is_known_by_its_requests() {
            let mut cacheds = self.0.write();
            if cacheds.len() >= Self::KEPT {
                cacheds.remove(0);
            }
            cacheds.push(cached.clone());
        }
        cached
    }
}

impl<S: Clone> Clone for CircuitBreaker<S> {
    fn clone(&self) -> Self {
        let Self { inner, breakers, recent, .. } = self;
        let (inner, breakers, recent) = (inner.clone(), breakers.clone(), recent.clone());
        Self { inner, breakers, own: Own::default(), recent, calls: fastrand::u32(..) }
    }
}
