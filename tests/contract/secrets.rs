//! Law 9: nothing that is printed shows a key or a body.

use std::fmt::Debug;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower::{Layer, Service, ServiceExt};
use tower_gemini::{
    BoxError, ClassifyLayer, Error, ErrorResponseLayer, ReplayLayer, TelemetryLayer, TimeoutLayer,
    body::{GuardedBody, ReplayBody},
};

use crate::{
    contract::{
        room::{Inward, Room, failure},
        shape::Plain,
    },
    support::{AnyBody, GENERATE, KEY, Upstream, json, post, post_body},
};

fn secret_request() -> Request<Full<Bytes>> {
    let mut request = post_body(&format!("{GENERATE}?key={KEY}"), r#"{"contents":"whispered"}"#);
    request.headers_mut().insert("x-goog-api-key", KEY.parse().unwrap());
    request
}

fn assert_silent(thing: &impl Debug) {
    let shown = format!("{thing:?} {thing:#?}");
    assert!(!shown.contains("AIza"), "shows a key: {shown}");
    assert!(!shown.contains("whispered"), "shows a body: {shown}");
}

pub(crate) async fn debugged<L, S, R>(layer: L)
where
    L: Layer<Plain, Service = S>,
    S: Service<Request<Full<Bytes>>, Response = Response<R>> + Debug,
    S::Error: Into<BoxError>,
    S::Future: Debug,
    R: Body + Debug,
{
    let mut service = layer.layer(Plain);
    std::future::poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into).unwrap();
    let call = service.call(secret_request());
    assert_silent(&service);
    assert_silent(&call);
}

/// A foreign body whose `Debug` shows its bytes.
#[tokio::test(start_paused = true)]
async fn law_9_no_body_of_ours_shows_what_is_in_it() {
    type Body = Full<Bytes>;
    fn whisper() -> Result<Response<Body>, BoxError> {
        let text = r#"{"candidates":[{"content":{"parts":[{"text":"whispered"}]}}]}"#;
        Ok(Response::builder().header("content-type", "application/json").body(Full::from(text))?)
    }
    let inner = || tower::service_fn(|_: Request<Body>| async { whisper() });
    let bodies: [Box<dyn Debug>; 4] = [
        Box::new(ClassifyLayer::new().layer(inner()).oneshot(post(GENERATE)).await.unwrap().into_body()),
        Box::new(TimeoutLayer::disabled().layer(inner()).oneshot(post(GENERATE)).await.unwrap().into_body()),
        Box::new(ErrorResponseLayer::new().layer(inner()).oneshot(post(GENERATE)).await.unwrap().into_body()),
        Box::new(TelemetryLayer::call().layer(inner()).oneshot(post(GENERATE)).await.unwrap().into_body()),
    ];
    bodies.iter().for_each(assert_silent);
    assert_silent(&GuardedBody::new(whisper().unwrap().into_body(), ()));

    // The body is kept, and it is streamed on.
    for layer in [ReplayLayer::new(), ReplayLayer::new().max_body(4)] {
        let inner = tower::service_fn(|request: Request<ReplayBody<Body>>| async move {
            assert_silent(request.body());
            whisper()
        });
        layer.layer(inner).oneshot(post_body(GENERATE, "whispered")).await.unwrap();
    }
}

pub(crate) async fn displayed<B: Inward>(room: impl Room<B>) {
    // The error of a transport names the URL, as some do.
    let inner = tower::service_fn(|_: Request<B>| async {
        let error = format!("error sending request for url (https://host/v1beta/models/m:generateContent?key={KEY})");
        Err::<Response<AnyBody>, BoxError>(error.into())
    });
    let result = room.wrap(inner).oneshot(secret_request()).await;
    let failure_shown = format!("{0} {0:?}", failure(&result).unwrap());
    assert!(!failure_shown.contains("AIza"), "{failure_shown}");
    if let Some(error) = result.as_ref().err().and_then(|error| error.downcast_ref::<Error>()) {
        let shown = format!("{error} {error:?} {error:#?}");
        assert!(!shown.contains("AIza"), "{shown}");
        assert!(shown.contains("error sending request"), "{shown}");
    }

    // The upstream's error repeats the key.
    let upstream = Upstream::at_once(|_| {
        let message = format!("Permission denied: Consumer 'api_key:{KEY}' has been suspended.");
        let body = format!(r#"{{"error":{{"code":403,"message":"{message}","status":"PERMISSION_DENIED"}}}}"#);
        Ok(json(403, body))
    });
    let result = room.wrap(upstream).oneshot(post(GENERATE)).await;
    let shown = format!("{0} {0:?}", failure(&result).unwrap());
    assert!(!shown.contains("AIza"), "{shown}");
}
