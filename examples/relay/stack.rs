//! The place where the layers go.

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tower::{BoxError, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_gemini::{
    body::ReplayBody,
    circuit_breaker::CircuitBreakerLayer,
    classify::ClassifyLayer,
    emulator::Emulator,
    error_response::ErrorResponseLayer,
    key_pool::KeyPoolLayer,
    rate_limit::RateLimitLayer,
    replay::{Oversize, ReplayLayer},
    retry::{RetryLayer, RetryPolicy},
    telemetry::TelemetryLayer,
    timeout::TimeoutLayer,
    token_precheck::TokenPrecheckLayer,
};

use crate::{
    failures::Failures,
    settings::{Settings, Upstream},
    status::Board,
};

/// The relay: layers, outermost first, around the transport. Each one's module says why it stands where it does.
pub(crate) fn stack(settings: Settings) -> Result<Router, BoxError> {
    let transport = transport(&settings)?;
    let Settings { max_body, keys, retry, timeout, mut limits, breaker, precheck, fallback, .. } = settings;
    if let Some(breakers) = &breaker {
        // Nobody queues for a model that is down.
        limits = limits.gate(breakers.clone());
    }
    let limiter = limits.build();
    let pool = keys.pool(limiter.clone())?;
    let errors = keys.each().fold(ErrorResponseLayer::new(), |layer, (key, _)| layer.secret(key));

    // What the relay asks for itself pays no quota, and may find out that all is well again: no queue, no breaker.
    let own =
        transport.clone().map_request(|request: Request<Empty<Bytes>>| request.map(|_| ReplayBody::from(Bytes::new())));
    // Keys that were refused are tried again by and by.
    tokio::spawn(pool.upkeep(ServiceBuilder::new().layer(ClassifyLayer::new()).service(own.clone())));
    if let Some(models) = precheck.models() {
        let lists = ServiceBuilder::new()
            // Nobody waits for it for longer.
            .layer(TimeoutLayer::total(TokenPrecheckLayer::ASK_TIMEOUT))
            .layer(RetryLayer::new(RetryPolicy::default().max_attempts(3)))
            .layer(KeyPoolLayer::new(pool.clone()))
            .layer(ClassifyLayer::new())
            .service(own);
        // Asked for only when a caller names a model that nobody knows.
        tokio::spawn(models.refresh_on_demand(lists));
    }

    let (telemetry, failures) = (TelemetryLayer::call(), Failures::new(keys.each().map(|(key, _)| key)));
    let board = Board {
        limiter: limiter.clone(),
        breakers: breaker.clone(),
        keys: pool.clone(),
        chains: fallback.chains().cloned(),
        failures: failures.clone(),
    };
    let pages = board.router(telemetry.gauges())?;
    let service = ServiceBuilder::new()
        .layer(errors)
        .layer(failures)
        .layer(telemetry)
        .layer(TimeoutLayer::total(timeout.total))
        .layer(ReplayLayer::new().max_body(max_body).oversize(Oversize::Refuse))
        .layer(fallback)
        .layer(precheck)
        .layer(RetryLayer::new(retry))
        .layer(TelemetryLayer::attempt())
        .layer(KeyPoolLayer::new(pool))
        .layer(RateLimitLayer::new(limiter))
        .layer(breaker.map_or_else(CircuitBreakerLayer::disabled, CircuitBreakerLayer::new))
        .layer(TimeoutLayer::attempt(timeout.attempt).first_content(timeout.first_event).idle(timeout.idle))
        .layer(ClassifyLayer::new())
        .service(transport);
    Ok(pages.fallback_service(service))
}

/// What the innermost layer sends, and gets.
type Transport = BoxCloneSyncService<Request<ReplayBody<Body>>, Response<Body>, BoxError>;

fn transport(settings: &Settings) -> Result<Transport, BoxError> {
    match &settings.upstream {
        Upstream::Emulator => {
            let emulator =
                settings.keys.each().fold(Emulator::builder(), |emulator, (key, project)| emulator.key(key, project));
            Ok(boxed(emulator.build()))
        }
        Upstream::Address(client) => Ok(boxed(client.clone().build()?)),
    }
}

/// The emulator and the client differ in type only.
fn boxed<S, R>(service: S) -> Transport
where
    S: tower::Service<Request<ReplayBody<Body>>, Response = Response<R>, Error = BoxError, Future: Send>,
    S: Clone + Send + Sync + 'static,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    BoxCloneSyncService::new(service.map_response(|response: Response<R>| response.map(Body::new)))
}
