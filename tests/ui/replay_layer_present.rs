//! The same stack with `ReplayLayer`, and without it over a body in memory: both compile.

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Service, ServiceBuilder};
use tower_gemini::{BoxError, ErrorResponseLayer, ReplayLayer, RetryLayer, body::ReplayBody};

fn serve<B, S: Service<Request<B>>>(_: S) {}

fn stacks_compile() {
    let upstream =
        tower::service_fn(|_: Request<ReplayBody<Body>>| async { Ok::<_, BoxError>(Response::new(Body::empty())) });
    let layers = ServiceBuilder::new().layer(ReplayLayer::new()).layer(RetryLayer::default());
    serve::<Body, _>(layers.clone().service(upstream));

    let server = ServiceBuilder::new().layer(ErrorResponseLayer::new()).layer(layers).service(upstream);
    let _: Router = Router::new().route_service("/{*path}", server);

    let upstream =
        tower::service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, BoxError>(Response::new(Body::empty())) });
    serve::<Full<Bytes>, _>(ServiceBuilder::new().layer(RetryLayer::default()).service(upstream));
}
