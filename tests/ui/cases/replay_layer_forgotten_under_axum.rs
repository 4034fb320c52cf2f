//! axum's own bound says it too.

use axum::{Router, body::Body};
use http::{Request, Response};
use tower::ServiceBuilder;
use tower_gemini::{BoxError, ErrorResponseLayer, RetryLayer};

fn main() {
    let upstream = tower::service_fn(|_: Request<Body>| async { Ok::<_, BoxError>(Response::new(Body::empty())) });
    let server = ServiceBuilder::new().layer(ErrorResponseLayer::new()).layer(RetryLayer::default()).service(upstream);
    let _: Router = Router::new().route_service("/{*path}", server);
}
