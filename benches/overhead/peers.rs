//! The peers: the settings that do the same as ours, and adaptors where a peer is no layer of tower's.
//!
//! recloser and failsafe wrap a future; a service of three lines asks them. A 5xx is a failure for all breakers and retries.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    io,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use http::{Request, Response};
use recloser::{AsyncRecloser, Recloser, RecloserFuture};
use seatbelt::{RecoveryInfo, ResilienceContext};
use tick::Clock;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, retry::Policy, timeout::TimeoutLayer};
use tower_governor::{GovernorLayer, governor::GovernorConfigBuilder, key_extractor::GlobalKeyExtractor};
use tower_resilience::{
    circuitbreaker::CircuitBreakerLayer,
    ratelimiter::RateLimiterLayer,
    retry::RetryLayer,
    timelimiter::{TimeLimiterError, TimeLimiterLayer},
};

use crate::{
    groups::{LIMIT, MINUTE, ROOM},
    upstream::{Frames, Sent, Upstream},
};

// === tower ===

/// The simplest policy for `tower::retry`: three tries, at once, on any 5xx.
#[derive(Clone)]
pub(crate) struct ThreeTries(pub(crate) u32);

impl<R, E> Policy<Sent, Response<R>, E> for ThreeTries {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Sent, result: &mut Result<Response<R>, E>) -> Option<Self::Future> {
        let failed = result.as_ref().is_ok_and(|response| response.status().is_server_error());
        self.0 -= u32::from(failed);
        (failed && self.0 > 0).then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Sent) -> Option<Sent> {
        Some(request.clone())
    }
}

/// The policy for `tower::retry` that never sends again, and so keeps no copy.
#[derive(Clone)]
pub(crate) struct Never;

impl<R, E> Policy<Sent, Response<R>, E> for Never {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Sent, _: &mut Result<Response<R>, E>) -> Option<Self::Future> {
        None
    }

    fn clone_request(&mut self, _: &Sent) -> Option<Sent> {
        None
    }
}

pub(crate) fn tower_timeout() -> TimeoutLayer {
    TimeoutLayer::new(LIMIT)
}

// === tower-resilience ===

pub(crate) fn time_limiter<S>(
    inner: S,
) -> impl Service<Sent, Response = S::Response, Error = TimeLimiterError<S::Error>, Future: Send> + Clone + Send
where
    S: Service<Sent, Response: Send, Error: Send, Future: Send> + Clone + Send + 'static,
{
    TimeLimiterLayer::builder().timeout_duration(LIMIT).build().layer(inner)
}

pub(crate) fn resilient_retry<E: 'static>() -> RetryLayer<Sent, Response<Frames>, E> {
    RetryLayer::builder()
        .max_attempts(3)
        .fixed_backoff(Duration::ZERO)
        .retry_on_response(|response: &Response<Frames>| response.status().is_server_error())
        .build()
}

/// Makes a limiter with a limit that no run reaches.
pub(crate) fn resilient_limiter() -> RateLimiterLayer {
    limited_to(ROOM as usize)
}

/// Makes a limiter that refuses all calls after the first, at once.
pub(crate) fn resilient_refusal() -> RateLimiterLayer {
    limited_to(1)
}

fn limited_to(calls: usize) -> RateLimiterLayer {
    let limiter = RateLimiterLayer::builder().limit_for_period(calls).refresh_period(MINUTE);
    limiter.timeout_duration(Duration::ZERO).build().expect("good settings")
}

/// Makes the four: retry, rate limit, circuit breaker, time limit.
pub(crate) fn resilient_four(upstream: Upstream) -> impl Service<Sent, Response = Response<Frames>> {
    let (breaker, _) = CircuitBreakerLayer::builder().build_with_handle().expect("good settings");
    ServiceBuilder::new()
        .layer(resilient_retry())
        .layer(resilient_limiter())
        .layer(breaker)
        .layer_fn(time_limiter)
        .service(upstream)
}

// === breakers that wrap a future ===

/// A circuit breaker of recloser's before a service: 100 calls, half of which may fail.
#[derive(Clone)]
pub(crate) struct Reclosed<S> {
    breaker: AsyncRecloser,
    inner: S,
}

impl<S> Reclosed<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { breaker: Recloser::custom().build().into(), inner }
    }

    /// Makes a service before another one that shares the breaker.
    pub(crate) fn beside(&self, inner: S) -> Self {
        Self { breaker: self.breaker.clone(), inner }
    }
}

impl<S: Service<Sent>> Service<Sent> for Reclosed<S> {
    type Response = S::Response;
    type Error = recloser::Error<S::Error>;
    type Future = RecloserFuture<S::Future, recloser::AnyError>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(recloser::Error::Inner)
    }

    fn call(&mut self, request: Sent) -> Self::Future {
        self.breaker.call(self.inner.call(request))
    }
}

/// A circuit breaker of failsafe's before a service, with its defaults.
pub(crate) struct Failsafe<C, S> {
    breaker: C,
    inner: S,
}

impl<S> Failsafe<(), S> {
    pub(crate) fn around(inner: S) -> Failsafe<impl failsafe::futures::CircuitBreaker, S> {
        Failsafe { breaker: failsafe::Config::new().build(), inner }
    }
}

impl<C, S> Service<Sent> for Failsafe<C, S>
where
    C: failsafe::futures::CircuitBreaker,
    S: Service<Sent>,
{
    type Response = S::Response;
    type Error = failsafe::Error<S::Error>;
    type Future = failsafe::futures::ResponseFuture<S::Future, C::FailurePolicy, C::Instrument, failsafe::Any>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(failsafe::Error::Inner)
    }

    fn call(&mut self, request: Sent) -> Self::Future {
        self.breaker.call(self.inner.call(request))
    }
}

// === seatbelt ===

type Belted = ResilienceContext<Sent, Result<Response<Frames>, io::Error>>;

/// Gives a service an error that seatbelt can make, too.
fn with_io_error<S>(
    inner: S,
) -> impl Service<Sent, Response = Response<Frames>, Error = io::Error, Future: Send> + Clone + Send + Sync + 'static
where
    S: Service<Sent, Response = Response<Frames>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    inner.map_err(|never| match never {})
}

fn belt() -> Belted {
    ResilienceContext::new(Clock::new_tokio())
}

fn recovery(answer: &Result<Response<Frames>, io::Error>) -> RecoveryInfo {
    match answer {
        Ok(response) if !response.status().is_server_error() => RecoveryInfo::never(),
        _ => RecoveryInfo::retry(),
    }
}

/// Wraps a service in seatbelt's timeout.
pub(crate) fn belted_timeout<S>(inner: S) -> impl Service<Sent, Response = Response<Frames>>
where
    S: Service<Sent, Response = Response<Frames>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let layer = seatbelt::timeout::Timeout::layer("timeout", &belt());
    layer.timeout(LIMIT).timeout_error(|_| io::ErrorKind::TimedOut.into()).layer(with_io_error(inner))
}

/// Wraps the upstream in seatbelt's retry.
pub(crate) fn belted_retry(upstream: Upstream) -> impl Service<Sent, Response = Response<Frames>> {
    let layer = seatbelt::retry::Retry::layer("retry", &belt()).clone_input();
    layer.recovery_with(|answer, _| recovery(answer)).layer(with_io_error(upstream))
}

/// Wraps the upstream in seatbelt's circuit breaker.
pub(crate) fn belted_breaker(upstream: Upstream) -> impl Service<Sent, Response = Response<Frames>> {
    let layer = seatbelt::breaker::Breaker::layer("breaker", &belt()).recovery_with(|answer, _| recovery(answer));
    layer.rejected_input_error(|_, _| io::ErrorKind::NotConnected.into()).layer(with_io_error(upstream))
}

// === tower_governor ===

/// Makes a limiter of tower_governor's for all callers together, which refuses after the first call. Its answers have axum's body,
/// for which alone it can make a refusal.
pub(crate) fn governed(upstream: Upstream) -> impl Service<Sent, Response = Response<Body>, Error = Infallible> {
    let config =
        GovernorConfigBuilder::default().key_extractor(GlobalKeyExtractor).period(MINUTE).burst_size(1).finish();
    let layer = GovernorLayer::new(config.expect("good settings"));
    layer.layer(ServiceExt::<Sent>::map_response(upstream, |response: Response<Frames>| response.map(Body::new)))
}

/// A service that is cloned for each call, as axum's routers do.
pub(crate) struct Cloned<S>(pub(crate) S);

impl<S: Service<Sent> + Clone> Service<Sent> for Cloned<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Sent) -> S::Future {
        self.0.clone().call(request)
    }
}

/// A service that refuses at once, with nothing of a refusal: the control of those that say why.
#[derive(Clone)]
pub(crate) struct Refusing;

impl Service<Sent> for Refusing {
    type Response = Response<Frames>;
    type Error = ();
    type Future = Ready<Result<Response<Frames>, ()>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Sent) -> Self::Future {
        drop(request);
        ready(Err(()))
    }
}

/// The loop of a caller who sends again by hand.
#[derive(Clone)]
pub(crate) struct Twice(pub(crate) Upstream);

impl Service<Sent> for Twice {
    type Response = Response<Frames>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Frames>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Sent>::poll_ready(&mut self.0, cx)
    }

    fn call(&mut self, request: Sent) -> Self::Future {
        std::hint::black_box(self.0.call(Request::new(())).into_inner().is_ok());
        self.0.call(request)
    }
}
