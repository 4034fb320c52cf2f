//! `TelemetryLayer` without a subscriber and a recorder. In a program of its own, because tracing decides for all threads
//! together whether a span is wanted.

use std::{convert::Infallible, future::Ready, task::Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service};
use tower_gemini::{CallContext, TelemetryLayer};

/// A service that answers at once, and asserts that nothing was added to the request.
#[derive(Clone)]
struct Upstream;

impl Service<Request<Full<Bytes>>> for Upstream {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        assert!(CallContext::of(&request).is_none());
        std::future::ready(Ok(Response::new(Full::from("{}"))))
    }
}

fn request() -> Request<Full<Bytes>> {
    Request::post("/v1beta/models/gemini-2.5-pro:generateContent").body(Full::from("{}")).unwrap()
}

#[test]
fn where_nobody_listens_nothing_is_said_added_or_allocated() {
    let mut service = TelemetryLayer::call().layer(TelemetryLayer::attempt().layer(Upstream));
    // The first call is for warmth: a callsite is registered when it is first met.
    service.call(request()).now_or_never().unwrap().unwrap();

    let (request, mut result) = (request(), None);
    let counted = allocation_counter::measure(|| result = service.call(request).now_or_never());
    assert_eq!(counted.count_total, 0);
    let response = result.unwrap().unwrap();
    assert!(response.extensions().is_empty());
    assert!(format!("{:?}", response.body()).contains("recorded: false"));
    assert_eq!(response.into_body().collect().now_or_never().unwrap().unwrap().to_bytes(), "{}");
}
