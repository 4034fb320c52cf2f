//! The place where the layers go.

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_gemini::{
    body::ReplayBody,
    circuit_breaker::CircuitBreakerLayer,
    classify::ClassifyLayer,
    emulator::Emulator,
    error_response::ErrorResponseLayer,
    rate_limit::RateLimitLayer,
    replay::{Oversize, ReplayLayer},
    retry::RetryLayer,
    timeout::TimeoutLayer,
};

use crate::{
    credentials::Credentials,
    settings::{Settings, Upstream},
};

/// The relay: layers, outermost first, around the transport. Each one's module says why it stands where it does.
pub(crate) fn stack(settings: Settings) -> Result<Router, BoxError> {
    let credentials = Credentials::new(&settings.key.header)?;
    let transport = transport(&settings)?;
    let Settings { max_body, retry, timeout, key, limits, breaker, precheck, .. } = settings;
    if let Some(models) = precheck.models() {
        let lists = lists(transport.clone(), credentials.clone());
        // Asked for only when a caller names a model that nobody knows.
        tokio::spawn(models.refresh_on_demand(lists));
    }
    let mut limits = limits.project(key.project.clone());
    if let Some(breakers) = &breaker {
        // Nobody queues for a model that is down.
        limits = limits.gate(breakers.clone());
    }
    let limiter = limits.build();
    let service = ServiceBuilder::new()
        .layer(ErrorResponseLayer::new().secret(&key.header))
        .layer(TimeoutLayer::total(timeout.total))
        .layer(ReplayLayer::new().max_body(max_body).oversize(Oversize::Refuse))
        .layer(precheck)
        .layer(RetryLayer::new(retry))
        .map_request(move |request| credentials.replace(request)) // the key pool's place, later
        .layer(RateLimitLayer::new(limiter))
        .layer(breaker.map_or_else(CircuitBreakerLayer::disabled, CircuitBreakerLayer::new))
        .layer(TimeoutLayer::attempt(timeout.attempt).first_content(timeout.first_event).idle(timeout.idle))
        .layer(ClassifyLayer::new())
        .service(transport);
    Ok(Router::new().fallback_service(service))
}

/// What the list of models is asked through: our key, the transport, and nothing that could fail over it.
fn lists(
    transport: Transport,
    credentials: Credentials,
) -> impl Service<Request<Empty<Bytes>>, Response = Response<Body>, Error = BoxError, Future: Send> + Clone + Send {
    transport.map_request(move |request: Request<Empty<Bytes>>| {
        credentials.replace(request.map(|_| ReplayBody::from(Bytes::new())))
    })
}

/// What the innermost layer sends, and gets.
type Transport = BoxCloneSyncService<Request<ReplayBody<Body>>, Response<Body>, BoxError>;

fn transport(settings: &Settings) -> Result<Transport, BoxError> {
    match &settings.upstream {
        Upstream::Emulator => {
            let key = settings.key.header.to_str()?;
            Ok(boxed(Emulator::builder().key(key, &settings.key.project).build()))
        }
        Upstream::Address(client) => Ok(boxed(client.clone().build()?)),
    }
}

/// The emulator and the client differ in type only.
fn boxed<S, R>(service: S) -> Transport
where
    S: Service<Request<ReplayBody<Body>>, Response = Response<R>, Error = BoxError, Future: Send>,
    S: Clone + Send + Sync + 'static,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    BoxCloneSyncService::new(service.map_response(|response: Response<R>| response.map(Body::new)))
}
