//! A streaming body under `RetryLayer`, without `ReplayLayer` between.

use axum::body::Body;
use http::{Request, Response};
use tower::{Layer, Service};
use tower_gemini::{BoxError, RetryLayer};

fn serve<S: Service<Request<Body>>>(_: S) {}

fn main() {
    let upstream = tower::service_fn(|_: Request<Body>| async { Ok::<_, BoxError>(Response::new(Body::empty())) });
    serve(RetryLayer::default().layer(upstream));
}
