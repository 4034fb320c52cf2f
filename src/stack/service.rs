//! The service, and the type that its layers make together.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::{
    body::ReplayBody,
    caller_limit::{CallerLimit, CallerLimitBody},
    circuit_breaker::CircuitBreaker,
    classify::{Classify, ClassifyBody},
    context::BoxError,
    key_pool::{KeyPoolBody, KeyPoolService},
    model_fallback::ModelFallback,
    rate_limit::{RateLimit, RateLimitBody},
    replay::Replay,
    retry::Retry,
    telemetry::{Telemetry, TelemetryBody},
    timeout::{Timeout, TimeoutBody},
    token_precheck::TokenPrecheck,
};

/// The service of [`GeminiLayer`](super::GeminiLayer).
#[derive(Clone, Debug)]
pub struct Gemini<S> {
    pub(super) inner: CallStack<S>,
}

/// The layers that act once a call.
type CallStack<S> = Telemetry<Timeout<Replay<ModelFallback<TokenPrecheck<CallerLimit<Retry<AttemptStack<S>>>>>>>>;

/// The layers that act once an attempt.
type AttemptStack<S> = Telemetry<KeyPoolService<RateLimit<CircuitBreaker<Timeout<Classify<S>>>>>>;

/// The body of an answer through a [`GeminiLayer`](super::GeminiLayer).
pub type GeminiBody<R> = TelemetryBody<TimeoutBody<CallerLimitBody<AttemptBody<R>>>>;

type AttemptBody<R> = TelemetryBody<KeyPoolBody<RateLimitBody<TimeoutBody<ClassifyBody<R>>>>>;

impl<S, B, R> Service<Request<B>> for Gemini<S>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    R: Body<Data = Bytes> + Unpin,
    R::Error: Into<BoxError>,
{
    type Response = Response<GeminiBody<R>>;
    type Error = BoxError;
    type Future = <CallStack<S> as Service<Request<B>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.inner.call(request)
    }
}
