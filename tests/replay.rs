//! `ReplayLayer`: the bodies that it keeps, those that stream on, and the words that it writes.

mod support;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, SizeHint};
use http_body_util::{BodyExt, Full, StreamBody};
use support::*;
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, limit::ConcurrencyLimitLayer};
use tower_gemini::{
    BoxError, CallContext, ClassifyLayer, ErrorResponseLayer, ReplayLayer, RetryLayer,
    body::ReplayBody,
    call::{Idempotency, Operation, Streaming},
    failure::Kind,
    replay::Oversize,
};

/// The request that the inner service got.
#[derive(Debug)]
struct Seen {
    resendable: bool,
    hint: SizeHint,
    ended: bool,
    frames: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    error: Option<BoxError>,
    context: Option<CallContext>,
}

/// Sends a body through the layer, and returns what arrives.
async fn through<B>(layer: &ReplayLayer, request: Request<B>) -> (Result<Response<AnyBody>, BoxError>, Option<Seen>)
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<BoxError>,
{
    let seen = std::sync::Arc::new(parking_lot::Mutex::new(None));
    let place = seen.clone();
    let inner = tower::service_fn(move |request: Request<ReplayBody<B>>| {
        let place = place.clone();
        async move {
            let context = CallContext::of(&request).cloned();
            let mut body = request.into_body();
            let (resendable, hint, ended) = (body.is_resendable(), body.size_hint(), body.is_end_stream());
            let mut seen = Seen { resendable, hint, ended, frames: vec![], trailers: None, error: None, context };
            while let Some(frame) = body.frame().await {
                match frame {
                    Ok(frame) if frame.is_data() => seen.frames.extend(frame.into_data()),
                    Ok(frame) => seen.trailers = frame.into_trailers().ok(),
                    Err(error) => {
                        seen.error = Some(error);
                        break;
                    }
                }
            }
            *place.lock() = Some(seen);
            Ok::<_, BoxError>(hello())
        }
    });
    let result = layer.layer(inner).oneshot(request).await;
    let seen = seen.lock().take();
    (result, seen)
}

fn stream(sent: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Request<AnyBody> {
    post(GENERATE).map(|_| chunks(sent))
}

// === bodies that are kept ===

#[tokio::test(start_paused = true)]
async fn up_to_the_cap_a_body_is_kept_and_over_it_streams_byte_for_byte() {
    let layer = ReplayLayer::new().max_body(100);
    for (size, kept) in [(0, true), (1, true), (99, true), (100, true), (101, false), (1000, false)] {
        for chunk in [1, 7, 100, 1000] {
            let bytes: Vec<u8> = (0..size).map(|nth| nth as u8).collect();
            let (result, seen) = through(&layer, stream(bytes.chunks(chunk))).await;
            let seen = seen.unwrap();
            assert_eq!(seen.resendable, kept, "{size} by {chunk}");
            assert_eq!(seen.frames.concat(), bytes);
            let said = result.unwrap().extensions().get::<tower_gemini::Outcome>().cloned();
            assert_eq!(said.is_some_and(|outcome| outcome.request_was_streamed()), !kept, "{size} by {chunk}");
            if kept {
                // In one piece, of a known length.
                assert!(seen.frames.len() <= 1);
                assert_eq!(seen.hint.exact(), Some(size as u64));
                assert_eq!(seen.ended, size == 0);
            } else {
                assert!(seen.hint.lower() > 100 && seen.hint.upper().is_none());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_size_hint_is_not_believed_when_it_is_low_and_is_when_it_is_high() {
    let layer = ReplayLayer::new().max_body(10);
    for (hint, bytes, kept) in [(Some(0), 11, false), (Some(3), 11, false), (None, 11, false), (Some(10), 10, true)] {
        let (feed, body) = fed();
        let body = match hint {
            Some(exact) => body.with_hint(SizeHint::with_exact(exact)),
            None => body,
        };
        feed.data(vec![b'x'; bytes]);
        drop(feed);
        let (_, seen) = through(&layer, post(GENERATE).map(|_| any(body))).await;
        let seen = seen.unwrap();
        assert_eq!((seen.resendable, seen.frames.concat().len()), (kept, bytes), "{hint:?}");
    }
    // A body that announces too much is not collected: the inner service is called at once.
    let (feed, body) = fed();
    let body = any(body.with_hint(SizeHint::with_exact(11)));
    let upstream = tower::service_fn(|request: Request<ReplayBody<AnyBody>>| async move {
        assert!(!request.body().is_resendable());
        assert_eq!(request.body().size_hint().exact(), Some(11));
        Ok::<_, BoxError>(hello())
    });
    let mut call = task::spawn(layer.layer(upstream).oneshot(post(GENERATE).map(|_| body)));
    assert_ready!(call.poll()).unwrap();
    drop(feed);
}

#[tokio::test(start_paused = true)]
async fn trailers_are_kept_and_sent_again() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("7"));
    for body in [&b"body"[..], b""] {
        for (layer, kept) in [(ReplayLayer::new(), true), (ReplayLayer::new().max_body(3), body.is_empty())] {
            let (feed, request) = fed();
            if !body.is_empty() {
                feed.data(body);
            }
            feed.trailers(trailers.clone());
            drop(feed);
            let (_, seen) = through(&layer, post(GENERATE).map(|_| any(request))).await;
            let seen = seen.unwrap();
            assert_eq!((seen.resendable, seen.frames.concat()), (kept, body.to_vec()));
            assert_eq!(seen.trailers.as_ref(), Some(&trailers));
            assert!(!seen.ended);
        }
    }
    // And again for each copy.
    let upstream = Upstream::fails(2, || Ok(busy()));
    let service =
        ServiceBuilder::new().layer(ReplayLayer::new()).layer(RetryLayer::default()).service(upstream.clone());
    let body = Full::<Bytes>::from("body").with_trailers({
        let trailers = trailers.clone();
        async move { Some(Ok(trailers)) }
    });
    service.oneshot(post(GENERATE).map(|_| any(body))).await.unwrap();
    for asked in upstream.asked() {
        assert_eq!((&asked.body[..], asked.trailers.as_ref()), (&b"body"[..], Some(&trailers)));
    }
    assert_eq!(upstream.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_streaming_body_is_sent_again_and_again() {
    let upstream = Upstream::fails(3, || Ok(busy()));
    let service =
        ServiceBuilder::new().layer(ReplayLayer::new()).layer(RetryLayer::default()).service(upstream.clone());
    let body = StreamBody::new(futures_util::stream::iter(
        ["{\"contents\":", "[]", "}"].map(|chunk| Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from(chunk)))),
    ));
    let response = service.oneshot(post(GENERATE).map(|_| body)).await.unwrap();
    assert_eq!(response.status(), OK);
    let bodies: Vec<_> = upstream.asked().into_iter().map(|asked| asked.body).collect();
    assert_eq!(bodies, [r#"{"contents":[]}"#; 4]);
}

#[tokio::test(start_paused = true)]
async fn a_body_over_the_cap_is_never_sent_again_and_the_outcome_says_so() {
    let upstream = Upstream::fails(1, || Ok(busy()));
    let layers = ServiceBuilder::new().layer(ReplayLayer::new().max_body(4)).layer(RetryLayer::default());
    let response = layers.clone().service(upstream.clone()).oneshot(stream(["12345"])).await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(outcome(&response).request_was_streamed());
    assert_eq!(upstream.calls(), 1);
    assert_eq!(upstream.asked()[0].body, "12345");

    let upstream = Upstream::fails(1, || Err(reset().into()));
    let layers = layers.layer(ClassifyLayer::new());
    let error = layers.service(upstream.clone()).oneshot(stream(["12345"])).await.unwrap_err();
    assert!(find(&error).outcome().request_was_streamed());
    assert_eq!(find(&error).failure().kind(), Kind::Reset);
    assert_eq!(find(&error).layer(), "classify");
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn over_the_cap_it_can_be_refused_in_googles_shape() {
    let upstream = Upstream::at_once(|_| Ok(hello()));
    let service = ServiceBuilder::new()
        .layer(ErrorResponseLayer::new())
        .layer(ReplayLayer::new().max_body(4).oversize(Oversize::Refuse))
        .service(upstream.clone());
    let response = service.clone().oneshot(stream(["12345"])).await.unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let body: serde_json::Value = serde_json::from_slice(&read(response.into_body()).await).unwrap();
    assert_eq!(body["error"]["code"], 413);
    assert_eq!(body["error"]["details"][0]["metadata"]["layer"], "replay");
    assert!(body["error"]["message"].as_str().unwrap().contains("4 bytes"), "{body}");
    assert_eq!(upstream.calls(), 0);
    assert_eq!(service.oneshot(stream(["1234"])).await.unwrap().status(), OK);
}

#[tokio::test(start_paused = true)]
async fn an_upload_streams_on_where_others_are_refused() {
    let upstream = Upstream::at_once(|_| Ok(hello()));
    let service = ReplayLayer::new().max_body(4).oversize(Oversize::Refuse).layer(upstream.clone());
    let mut upload = stream(["123", "45", "6789"]);
    *upload.uri_mut() = "/upload/v1beta/files?upload_id=x".parse().unwrap();
    assert_eq!(service.oneshot(upload).await.unwrap().status(), OK);
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_is_the_callers_and_nothing_is_sent() {
    let upstream = Upstream::at_once(|_| Ok(hello()));
    let service = ReplayLayer::new().layer(upstream.clone());
    let error = service.oneshot(post(GENERATE).map(|_| broken(["{\"contents\""]))).await.unwrap_err();
    assert_eq!(find(&error).failure().kind(), Kind::RequestBody);
    assert!(find(&error).never_sent());
    assert!(source::<std::io::Error>(&error).is_some());
    assert_eq!(upstream.calls(), 0);

    // Past the cap the request is on its way already: the upstream's transport gets the error.
    let (_, seen) = through(&ReplayLayer::new().max_body(4), post(GENERATE).map(|_| broken(["12345"]))).await;
    let seen = seen.unwrap();
    assert_eq!(seen.frames, ["12345"]);
    assert!(source::<std::io::Error>(&seen.error.unwrap()).is_some());
}

#[tokio::test(start_paused = true)]
async fn what_finds_no_memory_is_still_refused_past_its_own_cap() {
    let layer = ReplayLayer::new().max_body(8).max_total(2).oversize(Oversize::Refuse);
    let (_, seen) = through(&layer, stream(["1234", "5678"])).await;
    let seen = seen.unwrap();
    assert_eq!((seen.frames.concat(), seen.error.is_none()), ("12345678".into(), true));
    let (_, seen) = through(&layer, stream(["1234", "5678", "9"])).await;
    let error = seen.unwrap().error.unwrap();
    assert_eq!(find(&error).failure().kind(), Kind::BodyTooLarge);
    // Without a refusal the whole body comes.
    let (_, seen) = through(&ReplayLayer::new().max_body(8).max_total(2), stream(["1234", "5678", "9"])).await;
    assert!(seen.unwrap().error.is_none());
}

// === memory ===

/// A service that keeps its requests until the test lets them go.
async fn keep(
    service: impl Service<Request<AnyBody>, Response = Response<AnyBody>, Error = BoxError>,
    sent: usize,
) -> bool {
    let mut service = service;
    let response = service.ready().await.unwrap().call(stream([vec![b'x'; sent]])).await.unwrap();
    !response.extensions().get::<tower_gemini::Outcome>().is_some_and(|outcome| outcome.request_was_streamed())
}

#[tokio::test(start_paused = true)]
async fn all_bodies_together_have_a_cap_too() {
    let held = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
    let place = held.clone();
    let inner = tower::service_fn(move |request: Request<ReplayBody<AnyBody>>| {
        place.lock().push(request);
        std::future::ready(Ok::<_, BoxError>(hello()))
    });
    let layer = ReplayLayer::new().max_total(100);
    // Clones of the layer, and all its services, share the cap.
    let (one, two) = (layer.layer(inner.clone()), layer.clone().layer(inner));
    assert!(keep(one.clone(), 60).await);
    assert!(keep(two.clone(), 40).await);
    assert!(!keep(one.clone(), 1).await, "full: it streams, and is not refused");
    assert!(keep(two.clone(), 0).await, "nothing needs no room");
    held.lock().remove(0);
    assert!(!keep(one.clone(), 61).await);
    assert!(keep(one.clone(), 60).await);
    // All clones of a body count once.
    {
        use tower_gemini::body::Resend;
        let request = held.lock().remove(0);
        let clone = request.body().try_clone().unwrap();
        drop(request);
        assert!(!keep(one.clone(), 1).await);
        drop(clone);
        assert!(keep(one.clone(), 1).await);
    }
    held.lock().clear();
    assert!(keep(two, 100).await);
}

#[tokio::test(start_paused = true)]
async fn memory_comes_back_whatever_becomes_of_the_call() {
    let layer = ReplayLayer::new().max_total(10);
    let fits = async || {
        let (_, seen) = through(&layer, stream(["0123456789"])).await;
        seen.unwrap().resendable
    };
    assert!(fits().await);
    // Broken off, refused, failed.
    let (result, _) = through(&layer, post(GENERATE).map(|_| broken(["01234"]))).await;
    assert!(result.is_err() && fits().await);
    let refusing = layer.clone().max_body(4).oversize(Oversize::Refuse);
    let (result, _) = through(&refusing, stream(["01234"])).await;
    assert!(result.is_err() && fits().await);
    let failing = Upstream::at_once(|_| Err(reset().into()));
    assert!(layer.layer(failing).oneshot(stream(["01234"])).await.is_err() && fits().await);
    // Dropped while it is collected, and while it is sent.
    let (feed, body) = fed();
    feed.data("01234");
    let mut call = task::spawn(layer.layer(Upstream::hangs()).oneshot(post(GENERATE).map(|_| any(body))));
    assert_pending!(call.poll());
    assert!(!fits().await);
    drop(call);
    assert!(!feed.is_live() && fits().await);
    let mut call = task::spawn(layer.layer(Upstream::hangs()).oneshot(stream(["01234"])));
    assert_pending!(call.poll());
    drop(call);
    assert!(fits().await);
}

#[tokio::test(start_paused = true)]
async fn what_streams_on_gives_its_room_back_as_soon_as_it_is_sent() {
    let layer = ReplayLayer::new().max_total(1000).max_body(800);
    let (feed, body) = fed();
    feed.data(vec![b'x'; 600]);
    feed.data(vec![b'x'; 600]);
    let inner = tower::service_fn(|request: Request<ReplayBody<AnyBody>>| async {
        Ok::<_, BoxError>(hello().map(|_| any(request.into_body())))
    });
    // The body itself comes back, to be read by hand.
    let mut streaming = layer.layer(inner).oneshot(post(GENERATE).map(|_| any(body))).await.unwrap().into_body();
    let fits = async || through(&layer, stream([[b'y'; 600]])).await.1.unwrap().resendable;
    assert!(!fits().await, "the first 600 bytes are held");
    streaming.frame().await.unwrap().unwrap();
    streaming.frame().await.unwrap().unwrap();
    assert!(fits().await, "and are gone");
    // It makes progress meanwhile.
    feed.data("the rest");
    assert_eq!(streaming.frame().await.unwrap().unwrap().into_data().unwrap(), "the rest");
}

#[tokio::test(start_paused = true)]
async fn a_body_of_tiny_chunks_costs_about_its_size() {
    // Each of them as a frame of its own would cost 32 bytes and an allocation.
    let (feed, body) = fed();
    for _ in 0..100_000 {
        feed.data("x");
        feed.data("");
    }
    drop(feed);
    let layer = ReplayLayer::new().max_body(99_999);
    let (_, seen) = through(&layer, post(GENERATE).map(|_| any(body))).await;
    let seen = seen.unwrap();
    assert_eq!(seen.frames.concat(), vec![b'x'; 100_000]);
    assert!(!seen.resendable && seen.frames.len() < 100_000 / 50, "kept in {} frames", seen.frames.len());
}

// === readiness ===

#[tokio::test(start_paused = true)]
async fn a_slow_upload_holds_no_permit() {
    let upstream = Upstream::at_once(|_| Ok(hello()));
    let limited = ServiceBuilder::new().layer(ConcurrencyLimitLayer::new(1)).service(Strict::new(upstream.clone(), 0));
    let service = ReplayLayer::new().layer(limited);
    let (feed, body) = fed();
    feed.data("{");
    let mut slow = task::spawn(service.clone().oneshot(post(GENERATE).map(|_| any(body))));
    assert_pending!(slow.poll());
    for _ in 0..3 {
        let mut quick = task::spawn(service.clone().oneshot(stream(["{}"])));
        assert_ready!(quick.poll(), "the upload holds the only permit").unwrap();
    }
    feed.data("}");
    drop(feed);
    assert_ready!(slow.poll()).unwrap();
    assert_eq!(upstream.asked().last().unwrap().body, "{}");
    assert_eq!(upstream.calls(), 4);
}

// === the call ===

#[tokio::test(start_paused = true)]
async fn it_says_what_the_call_is() {
    let call = async |uri: &str, body: &'static str| {
        let (_, seen) = through(&ReplayLayer::new(), post(uri).map(|_| full(body))).await;
        seen.unwrap().context.unwrap().call().cloned().unwrap()
    };
    let generate = call(STREAM, PROMPT).await;
    assert_eq!((generate.model(), generate.streaming()), (Some("gemini-2.5-pro"), Streaming::Sse));
    let chat = call(CHAT, r#"{"model":"gemini-2.5-flash","stream":true}"#).await;
    assert_eq!((chat.model(), chat.streaming()), (Some("gemini-2.5-flash"), Streaming::Sse));
    assert_eq!(call("/anything", "").await.idempotency(), Idempotency::Unsafe);
    // Malformed JSON is left to the upstream.
    assert_eq!(call(CHAT, "{\"model\":").await.model(), None);

    let request = Request::builder().method(Method::GET).uri("/v1beta/models").body(full("")).unwrap();
    let (_, seen) = through(&ReplayLayer::new(), request).await;
    let seen = seen.unwrap();
    assert!(seen.ended && seen.resendable);
    assert_eq!(seen.context.unwrap().call().unwrap().operation(), Operation::ListModels);
}

// === shares ===

/// Returns a request of a caller.
fn of_caller(caller: &'static str, bytes: usize) -> Request<AnyBody> {
    let mut request = stream([vec![b'x'; bytes]]);
    CallContext::update(request.extensions_mut(), |context| context.set_caller(caller));
    request
}

#[tokio::test(start_paused = true)]
async fn stalled_bodies_of_one_caller_take_no_retry_away_from_another() {
    let layer = ReplayLayer::new().max_body(32).max_total(512);
    let memory = layer.memory().clone();
    // Seventeen bodies that never end, one byte short of the largest.
    let mut stalled = Vec::new();
    for _ in 0..17 {
        let (feed, body) = fed();
        let mut request = post(GENERATE).map(|_| any(body));
        CallContext::update(request.extensions_mut(), |context| context.set_caller("greedy"));
        let mut call = task::spawn(layer.layer(Upstream::hangs()).oneshot(request));
        assert_pending!(call.poll());
        feed.data(vec![b'x'; 31]);
        assert_pending!(call.poll());
        stalled.push((feed, call));
    }
    let report = memory.snapshot();
    assert_eq!((report.used, report.bodies, report.callers), (8 * 31, 8, 1), "half of all, and the others stream");
    assert_eq!(report.unkept.caller_share, 9);
    assert_eq!(report.largest, Some((Some("greedy".into()), 8 * 31)));

    let upstream = Upstream::fails(1, || Ok(busy()));
    let retrying = ServiceBuilder::new().layer(layer.clone()).layer(RetryLayer::default()).service(upstream.clone());
    assert_eq!(retrying.oneshot(of_caller("modest", 32)).await.unwrap().status(), OK);
    assert_eq!(upstream.calls(), 2);
    drop(stalled);
    assert_eq!((memory.snapshot().used, memory.snapshot().callers), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_outcome_says_why_a_body_was_not_kept() {
    use tower_gemini::context::Unkept;
    let layer = ReplayLayer::new().max_body(60).max_total(100);
    let why = async |layer: &ReplayLayer, request| {
        let (response, _) = through(layer, request).await;
        response.unwrap().extensions().get::<tower_gemini::Outcome>().and_then(tower_gemini::Outcome::unkept)
    };
    assert_eq!(why(&layer, of_caller("a", 50)).await, None);
    assert_eq!(why(&layer, of_caller("a", 51)).await, Some(Unkept::CallerShare));
    assert_eq!(why(&layer, of_caller("a", 61)).await, Some(Unkept::TooLarge));
    layer.memory().resize(40, None);
    assert_eq!(why(&layer, of_caller("a", 41)).await, Some(Unkept::NoRoom));
    assert_eq!(why(&layer.clone().max_per_caller(5), of_caller("a", 6)).await, Some(Unkept::CallerShare));
    let unkept = layer.memory().snapshot().unkept;
    assert_eq!((unkept.too_large, unkept.no_room, unkept.caller_share), (1, 1, 1));
    // A body that is refused was not merely left unkept.
    let refusing = layer.clone().oversize(Oversize::Refuse);
    assert!(through(&refusing, of_caller("a", 61)).await.0.is_err());
    assert_eq!(layer.memory().snapshot().unkept.too_large, 1);
}
