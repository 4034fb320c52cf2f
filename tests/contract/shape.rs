//! Law 1: the shape of a room.

use std::{
    fmt::Debug,
    future::{Ready, ready},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{Layer, Service, ServiceExt};
use tower_gemini::{BoxError, failure::Fault};

use crate::{
    contract::room::{Inward, Room, failure},
    support::{AnyBody, GENERATE, HELLO, PROMPT, Upstream, any, full, hello, post, reset, source},
};

/// The plainest service: `Clone`, `Debug`, and a future with both.
#[derive(Clone, Debug)]
pub(crate) struct Plain;

impl<B> Service<Request<B>> for Plain {
    type Response = Response<Full<Bytes>>;
    type Error = std::io::Error;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        ready(Ok(Response::new(Full::from(HELLO))))
    }
}

pub(crate) fn a_layer<L>(layer: L) -> L
where
    L: Layer<Plain> + Clone + Debug + Send + Sync + 'static,
{
    layer.clone()
}

pub(crate) fn a_service<S, Inward>(service: &S)
where
    S: Service<Request<Full<Bytes>>, Error: Into<BoxError>> + Clone + Debug + Send + Sync + 'static,
    S::Future: Debug,
    Plain: Service<Request<Inward>>,
{
    // `Debug` shows the inner service too.
    assert!(format!("{service:?}").contains("Plain"), "{service:?}");
}

pub(crate) async fn law_1_hands_the_request_on<B: Inward>(room: impl Room<B>) {
    #[derive(Clone, Debug, PartialEq)]
    struct Callers(u32);

    let upstream = Upstream::at_once(|_| Ok(hello()));
    let seen = upstream.clone();
    let inner = tower::service_fn(move |request: Request<B>| {
        assert_eq!(request.extensions().get(), Some(&Callers(7)));
        assert_eq!(request.version(), http::Version::HTTP_2);
        upstream.clone().oneshot(request)
    });
    let mut request = post("/v1beta/models/gemini-2.5-pro:generateContent?x=%20y");
    *request.version_mut() = http::Version::HTTP_2;
    request.headers_mut().insert("x-callers-own", HeaderValue::from_static("kept"));
    request.extensions_mut().insert(Callers(7));
    room.wrap(inner).oneshot(request).await.unwrap();

    let asked = &seen.asked()[0];
    assert_eq!(asked.method, http::Method::POST);
    assert_eq!(asked.uri, "/v1beta/models/gemini-2.5-pro:generateContent?x=%20y");
    assert_eq!(asked.headers["x-callers-own"], "kept");
    assert_eq!(asked.headers["content-type"], "application/json");
    assert_eq!(asked.body, PROMPT);
}

pub(crate) async fn law_1_hands_the_answer_on<B: Inward>(room: impl Room<B>) {
    #[derive(Clone, Debug, PartialEq)]
    struct Upstreams(u32);

    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let sent = trailers.clone();
    let upstream = Upstream::at_once(move |_| {
        let mut response = hello().map(|body| {
            let trailers = sent.clone();
            any(body.with_trailers(async move { Some(Ok(trailers)) }))
        });
        response.headers_mut().insert("x-upstreams-own", HeaderValue::from_static("kept"));
        response.extensions_mut().insert(Upstreams(7));
        *response.version_mut() = http::Version::HTTP_2;
        Ok(response)
    });
    let response = room.wrap(upstream.clone()).oneshot(post(GENERATE)).await.unwrap();
    assert_eq!((response.status(), response.version()), (http::StatusCode::OK, http::Version::HTTP_2));
    assert_eq!(response.headers()["x-upstreams-own"], "kept");
    // Nothing is added but the name of the model, by the room that knows it.
    let added = usize::from(response.headers().contains_key("x-gemini-model"));
    assert_eq!(response.headers().len(), 2 + added, "{:?}", response.headers());
    assert_eq!(response.extensions().get(), Some(&Upstreams(7)));
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers(), Some(&trailers));
    assert_eq!(body.to_bytes(), HELLO);
    assert_eq!(upstream.calls(), 1);
}

pub(crate) async fn law_1_takes_an_io_error<B: Inward>(room: impl Room<B>) {
    let inner = tower::service_fn(|_: Request<B>| async { Err::<Response<AnyBody>, _>(reset()) });
    let result = room.wrap(inner).oneshot(post(GENERATE)).await;
    assert_eq!(failure(&result).unwrap().fault(), Fault::Transport);
    match result {
        Err(error) => assert!(source::<std::io::Error>(&error).is_some(), "{error:?}"),
        Ok(response) => assert_eq!(response.status(), 503),
    }
}

pub(crate) async fn law_1_takes_an_error_that_is_none_of_std<B: Inward>(room: impl Room<B>) {
    /// An error that is not a `std::error::Error`, but can become one.
    struct Odd;

    impl From<Odd> for BoxError {
        fn from(_: Odd) -> Self {
            "an odd error".into()
        }
    }

    let inner = tower::service_fn(|_: Request<B>| async { Err::<Response<AnyBody>, _>(Odd) });
    let result = room.wrap(inner).oneshot(post(GENERATE)).await;
    let failure = failure(&result).unwrap();
    assert!(failure.message().contains("an odd error"), "{failure}");
}

pub(crate) async fn law_1_passes_a_redirect_and_an_upgrade_on<B: Inward>(room: impl Room<B>) {
    for status in [101, 204, 302, 304] {
        let upstream = Upstream::at_once(move |_| {
            let response = Response::builder().status(status).header("location", "/elsewhere");
            Ok(response.body(full("")).unwrap())
        });
        let response = room.wrap(upstream.clone()).oneshot(post("/v1beta/files")).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["location"], "/elsewhere");
        assert_eq!(upstream.calls(), 1);
    }
}
