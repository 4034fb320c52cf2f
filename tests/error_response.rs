//! `ErrorResponseLayer`: failures in Google's shape, and the last words of a stream that breaks.

mod support;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::RETRY_AFTER};
use http_body::{Body, SizeHint};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use support::*;
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::{
    BoxError, CallContext, ClassifyLayer, Error, ErrorResponseLayer, KeyPoolLayer, Outcome, RetryLayer, TimeoutLayer,
    call::Call,
    context::{Deadline, RetryAdvice},
    error_response::{ErrorResponseBody, StreamEnding},
    failure::{Failure, Kind, TimeoutKind},
    key_pool::{ApiKey, Key, KeyPool},
};

type Responded = Response<ErrorResponseBody<AnyBody>>;

async fn responded(request: Request<Full<Bytes>>, answer: Answer) -> Responded {
    let answer = parking_lot::Mutex::new(Some(answer));
    let upstream = Upstream::at_once(move |_| answer.lock().take().expect("asked once"));
    ErrorResponseLayer::new().layer(upstream).oneshot(request).await.unwrap()
}

async fn refused(uri: &str, error: impl Into<BoxError>) -> (http::response::Parts, Value) {
    let (parts, body) = responded(post(uri), Err(error.into())).await.into_parts();
    let body = read(body).await;
    (parts, serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {body:?}")))
}

fn refusal(kind: Kind) -> Error {
    Error::refusal("room", Failure::local(kind, "what happened, and what to do"))
}

/// Returns the detail of that type.
fn detail<'a>(error: &'a Value, name: &str) -> &'a Value {
    let details = error["details"].as_array().expect("details");
    let named = |detail: &&Value| detail["@type"] == format!("type.googleapis.com/google.rpc.{name}");
    details.iter().find(named).unwrap_or(&Value::Null)
}

#[tokio::test]
async fn the_end_of_an_error_is_known_with_its_last_byte() {
    // A server that knows the length does not poll once more.
    let body = r#"{"error":{"code":400,"message":"no","status":"INVALID_ARGUMENT"}}"#;
    let mut body = responded(post(GENERATE), Ok(json(400, body))).await.into_body();
    assert!(!body.is_end_stream());
    body.frame().await.unwrap().unwrap();
    assert!(body.is_end_stream());
}

// === errors become answers ===

#[tokio::test(start_paused = true)]
async fn each_failure_has_its_status_and_its_name() {
    let table = [
        (Kind::BadRequest, 400, "INVALID_ARGUMENT"),
        (Kind::RequestBody, 400, "INVALID_ARGUMENT"),
        (Kind::BodyTooLarge, 413, "INVALID_ARGUMENT"),
        (Kind::RateLimited, 429, "RESOURCE_EXHAUSTED"),
        (Kind::CircuitOpen, 503, "UNAVAILABLE"),
        (Kind::Connect, 503, "UNAVAILABLE"),
        (Kind::Reset, 503, "UNAVAILABLE"),
        (Kind::Timeout(TimeoutKind::Total), 504, "DEADLINE_EXCEEDED"),
        (Kind::Timeout(TimeoutKind::Attempt), 504, "DEADLINE_EXCEEDED"),
        (Kind::Timeout(TimeoutKind::FirstContent), 504, "DEADLINE_EXCEEDED"),
    ];
    for (kind, code, name) in table {
        let (parts, body) = refused(GENERATE, refusal(kind)).await;
        assert_eq!(parts.status, code, "{kind}");
        assert_eq!(parts.headers["content-type"], "application/json; charset=UTF-8");
        let error = &body["error"];
        assert_eq!((error["code"].as_u64(), error["status"].as_str()), (Some(code.into()), Some(name)), "{kind}");
        let message = error["message"].as_str().unwrap();
        let time = message.strip_prefix("what happened, and what to do").unwrap_or_else(|| panic!("{message}"));
        // Of a quota that nobody knows the time is not said in words.
        assert_eq!(time.starts_with("; try again in "), code > 429, "{kind}: {message}");
        let info = detail(error, "ErrorInfo");
        assert_eq!(info["domain"], "tower-gemini");
        assert_eq!(info["reason"], kind.as_str().to_ascii_uppercase());
        assert_eq!(info["metadata"]["layer"], "room");
        assert_eq!(info["metadata"]["fault"], kind.fault().as_str());
        // The outcome comes out with a rendered answer too.
        assert_eq!(parts.extensions.get::<Outcome>().unwrap().failure().unwrap().kind(), kind);
    }
}

#[tokio::test(start_paused = true)]
async fn the_envelope_is_that_of_the_callers_surface() {
    let (_, object) = refused(GENERATE, refusal(Kind::CircuitOpen)).await;
    assert_eq!(object["error"]["code"], 503);
    let (_, object) = refused(STREAM, refusal(Kind::CircuitOpen)).await;
    assert_eq!(object["error"]["code"], 503);
    let (parts, list) = refused(ARRAY, refusal(Kind::CircuitOpen)).await;
    assert_eq!(parts.status, 503);
    assert_eq!((list.as_array().unwrap().len(), &list[0]["error"]["code"]), (1, &503.into()));
    // OpenAI's clients read no lists.
    for uri in [CHAT, "/v1beta/openai/embeddings"] {
        let (parts, object) = refused(uri, refusal(Kind::CircuitOpen)).await;
        assert_eq!(parts.status, 503);
        assert_eq!(
            (&object["error"]["code"], &object["error"]["type"]),
            (&503.into(), &"server_error".into()),
            "{uri}"
        );
    }
    let (parts, body) = refused(INTERACTIONS, refusal(Kind::CircuitOpen)).await;
    assert_eq!((parts.status.as_u16(), &body["error"]["code"]), (503, &"unavailable".into()));
    assert!(body["error"]["message"].is_string() && body["error"].get("status").is_none());
    let (_, object) = refused("/elsewhere", refusal(Kind::CircuitOpen)).await;
    assert_eq!(object["error"]["code"], 503);
    // The call that a layer inside has read from the body counts.
    let mut request = post("/somewhere/else");
    let call = Call::new(&http::Method::POST, &CHAT.parse().unwrap());
    CallContext::update(request.extensions_mut(), |context| context.set_call(call));
    let body = read(responded(request, Err(refusal(Kind::CircuitOpen).into())).await.into_body()).await;
    assert!(serde_json::from_slice::<Value>(&body).unwrap()["error"]["type"].is_string());
}

#[tokio::test(start_paused = true)]
async fn when_to_come_again_is_said_in_every_way() {
    let cases = [
        (Duration::from_millis(1500), "2", "1.5s"),
        (secs(3), "3", "3s"),
        // At once is no time: it would be refused again.
        (Duration::ZERO, "1", "0s"),
        (Duration::new(7, 1), "8", "7.000000001s"),
        // No client waits for longer than a minute; RetryInfo has the true time.
        (secs(100), "60", "100s"),
    ];
    for (wait, header, delay) in cases {
        let failure = Failure::local(Kind::RateLimited, "slow down").with_hint(wait);
        let (parts, body) = refused(GENERATE, Error::refusal("room", failure)).await;
        assert_eq!(parts.headers[RETRY_AFTER], header);
        assert_eq!(detail(&body["error"], "RetryInfo")["retryDelay"], delay);
        // SDKs and this crate itself would read it like this.
        let read = Failure::from_response(parts.status, &HeaderMap::new(), body.to_string().as_bytes());
        assert_eq!(read.hint().map(|hint| hint.delay()), Some(wait.max(secs(1))), "{delay}");
    }
    // A guess, since nobody knows, keeps callers from coming back at once; it is not passed off as true.
    let (parts, body) = refused(GENERATE, refusal(Kind::CircuitOpen)).await;
    assert_eq!(parts.headers[RETRY_AFTER], "10");
    assert_eq!(detail(&body["error"], "RetryInfo"), &Value::Null);
    // The wait that a retry would have needed is more exact than the failure's own hint.
    let error = refusal(Kind::CircuitOpen).map_outcome(|outcome| outcome.with_retry(RetryAdvice::After(secs(42))));
    let (parts, _) = refused(GENERATE, error).await;
    assert_eq!(parts.headers[RETRY_AFTER], "42");
    let error = refusal(Kind::CircuitOpen).map_outcome(|outcome| outcome.with_retry(RetryAdvice::After(Duration::MAX)));
    let (parts, _) = refused(GENERATE, error).await;
    assert!(parts.headers[RETRY_AFTER].to_str().unwrap().parse::<u64>().is_ok());
}

#[tokio::test(start_paused = true)]
async fn attempts_and_clocks_are_named() {
    let upstream = Upstream::hangs();
    let service = ServiceBuilder::new()
        .layer(ErrorResponseLayer::new())
        .layer(RetryLayer::default())
        .layer(TimeoutLayer::attempt(secs(20)))
        .layer(ClassifyLayer::new())
        .service(upstream.clone());
    let response = service.oneshot(post(GENERATE)).await.unwrap();
    // There is no deadline and no other model: the call is given all of its attempts.
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    let body: Value = serde_json::from_slice(&read(response.into_body()).await).unwrap();
    assert_eq!(body["error"]["status"], "DEADLINE_EXCEEDED");
    let metadata = &detail(&body["error"], "ErrorInfo")["metadata"];
    assert_eq!((&metadata["layer"], &metadata["clock"]), (&"timeout".into(), &"attempt".into()));
    assert_eq!((&metadata["attempts"], upstream.calls()), (&"8".into(), 8));
}

#[tokio::test(start_paused = true)]
async fn the_layer_that_refused_is_named_through_middleware_that_wraps_errors() {
    #[derive(Debug)]
    struct Wrapped(BoxError);
    impl std::fmt::Display for Wrapped {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("wrapped")
        }
    }
    impl std::error::Error for Wrapped {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&*self.0)
        }
    }
    let (parts, body) = refused(GENERATE, Wrapped(refusal(Kind::CircuitOpen).into())).await;
    assert_eq!(parts.status, 503);
    assert_eq!(detail(&body["error"], "ErrorInfo")["metadata"]["layer"], "room");
    // The same holds if a layer in between has something to add.
    let inner = tower::service_fn(|_: Request<Full<Bytes>>| async {
        Err::<Response<AnyBody>, _>(Wrapped(refusal(Kind::InvalidRequest).into()))
    });
    let service = ServiceBuilder::new().layer(ErrorResponseLayer::new()).layer(RetryLayer::default()).service(inner);
    let body = read(service.oneshot(post(GENERATE)).await.unwrap().into_body()).await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    let metadata = &detail(&body["error"], "ErrorInfo")["metadata"];
    assert_eq!((&metadata["layer"], &metadata["attempts"]), (&"room".into(), &"1".into()));
}

#[tokio::test(start_paused = true)]
async fn a_strangers_error_is_judged_and_shows_no_key() {
    let refused_connection = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    let (parts, body) = refused(GENERATE, refused_connection).await;
    assert_eq!((parts.status.as_u16(), &body["error"]["status"]), (503, &"UNAVAILABLE".into()));
    let (parts, body) = refused(GENERATE, format!("error sending request for url (https://h/?key={KEY})")).await;
    assert_eq!(parts.status, 503);
    assert!(!body.to_string().contains("AIza"), "{body}");
    assert!(!format!("{parts:?}").contains("AIza"));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_ready_is_an_answer_too() {
    #[derive(Clone)]
    struct Gone;
    impl Service<Request<Full<Bytes>>> for Gone {
        type Response = Response<AnyBody>;
        type Error = BoxError;
        type Future = std::future::Ready<Answer>;
        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), BoxError>> {
            let failure = Failure::local(Kind::CircuitOpen, "gone").with_hint(secs(9));
            std::task::Poll::Ready(Err(Error::refusal("gate", failure).into()))
        }
        fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
            unreachable!("it is not ready")
        }
    }
    let mut service = ErrorResponseLayer::new().layer(Gone);
    for uri in [GENERATE, CHAT] {
        let response = service.ready().await.unwrap().call(post(uri)).await.unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()[RETRY_AFTER]), (503, &HeaderValue::from(9)));
        let body = read(response.into_body()).await;
        assert!(String::from_utf8_lossy(&body).contains("\"layer\":\"gate\""));
    }
}

// === the upstream's own errors ===

#[tokio::test(start_paused = true)]
async fn an_upstreams_error_stays_what_it_is_and_says_when_to_come_again() {
    let quota = r#"{"error":{"code":429,"message":"Please retry in 2.5s.","status":"RESOURCE_EXHAUSTED"}}"#;
    let service = ServiceBuilder::new()
        .layer(ErrorResponseLayer::new())
        .layer(ClassifyLayer::new())
        .service(Upstream::at_once(move |_| Ok(json(429, quota))));
    let response = service.oneshot(post(GENERATE)).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()[RETRY_AFTER]), (429, &HeaderValue::from(3)));
    let length = response.body().size_hint().exact();
    let body = read(response.into_body()).await;
    assert_eq!(length, Some(body.len() as u64));
    let mut body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(detail(&body["error"], "RetryInfo")["retryDelay"], "2.5s");
    assert_eq!(body["error"]["message"], "Please retry in 2.5s. Try again in 3 s.");
    body["error"]["message"] = "Please retry in 2.5s.".into();
    body["error"].as_object_mut().unwrap().remove("details");
    assert_eq!(body, serde_json::from_str::<Value>(quota).unwrap(), "all else is Google's");

    let mut own = status(503);
    own.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("Mon, 21 Oct 2126 07:28:00 GMT"));
    let response = responded(post(GENERATE), Ok(own)).await;
    assert_eq!(response.headers()[RETRY_AFTER], "60", "OpenAI's Python client would give up, and Node come at once");

    // A value that nobody can read is replaced by what is known, or by a guess.
    for (body, expected) in [(quota, Some("3")), ("{}", Some("30"))] {
        let upstream = Upstream::at_once(move |_| {
            let mut answer = json(429, body);
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("in a while"));
            Ok(answer)
        });
        let layers = ServiceBuilder::new().layer(ErrorResponseLayer::new()).layer(ClassifyLayer::new());
        let answer = layers.service(upstream).oneshot(post(GENERATE)).await.unwrap();
        assert_eq!(answer.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap()), expected);
        let mut answer = json(429, body);
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("-5"));
        assert_eq!(responded(post(GENERATE), Ok(answer)).await.headers()[RETRY_AFTER], "30");
    }

    for answer in [hello(), json(400, "{}")] {
        assert!(!responded(post(GENERATE), Ok(answer)).await.headers().contains_key(RETRY_AFTER));
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_that_the_deadline_had_no_room_for_is_said_to_the_caller() {
    let quota = r#"{"error":{"code":429,"message":"Please retry in 50s.","status":"RESOURCE_EXHAUSTED"}}"#;
    let service = ServiceBuilder::new()
        .layer(ErrorResponseLayer::new())
        .layer(RetryLayer::default())
        .layer(ClassifyLayer::new())
        .service(Upstream::at_once(move |_| Ok(json(429, quota))));
    let mut request = post(GENERATE);
    CallContext::update(request.extensions_mut(), |context| context.tighten_deadline(Deadline::after(secs(10))));
    let response = service.oneshot(request).await.unwrap();
    let after: u64 = response.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
    // The wait includes the second that may have been cut off, and the jitter.
    assert!((50..=52).contains(&after), "{after}");
    let body: Value = serde_json::from_slice(&read(response.into_body()).await).unwrap();
    assert_eq!(body["error"]["message"], format!("Please retry in 50s. Try again in {after} s."));
}

#[tokio::test(start_paused = true)]
async fn keys_in_an_error_are_masked_wherever_it_is_cut() {
    let text = format!(r#"{{"error":{{"message":"Consumer 'api_key:{KEY}' has been suspended. {KEY}","code":403}}}}"#);
    let masked = text.replace(KEY, &"*".repeat(KEY.len()));
    for status in [403, 500] {
        for size in (1..60).chain([text.len()]) {
            let (feed, body) = fed();
            text.as_bytes().chunks(size).for_each(|chunk| feed.data(Bytes::copy_from_slice(chunk)));
            drop(feed);
            let body = body.with_hint(SizeHint::with_exact(text.len() as u64));
            let answer = typed(status, "application/json", any(body));
            let mut body = responded(post(GENERATE), Ok(answer)).await.into_body();
            let mut came = Vec::new();
            loop {
                // The number of bytes still to come is known at any time.
                assert_eq!(body.size_hint().exact(), Some((text.len() - came.len()) as u64), "by {size}");
                let Some(frame) = body.frame().await else { break };
                came.extend_from_slice(&frame.unwrap().into_data().unwrap());
            }
            assert_eq!(String::from_utf8(came).unwrap(), masked, "by {size}");
            assert!(body.is_end_stream());
        }
    }
    // The masked half of a key that was cut goes out before the trailers.
    let (feed, body) = fed();
    feed.data("ends in AIza");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-trailer", HeaderValue::from_static("kept"));
    feed.trailers(trailers.clone());
    drop(feed);
    let response = responded(post(GENERATE), Ok(typed(500, "text/plain", any(body)))).await;
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers(), Some(&trailers));
    assert_eq!(body.to_bytes(), "ends in AIza");
    // A good answer is not searched for keys.
    let response = responded(post(GENERATE), Ok(json(200, KEY))).await;
    assert_eq!(read(response.into_body()).await, KEY);
}

#[tokio::test(start_paused = true)]
async fn the_servers_own_secret_is_masked_wherever_a_failure_repeats_it() {
    const SECRET: &str = "a-secret-of-no-known-shape";
    let hidden = "*".repeat(SECRET.len());
    let layer = ErrorResponseLayer::new().secret(SECRET);
    assert!(!format!("{layer:?}").contains(SECRET));
    let answer = |answer: Response<AnyBody>| {
        let answer = parking_lot::Mutex::new(Some(answer));
        layer.layer(Upstream::at_once(move |_| Ok(answer.lock().take().unwrap()))).oneshot(post(STREAM))
    };
    // The key is in the text, cut anywhere, and in a header.
    for size in 1..40 {
        let (feed, body) = fed();
        let text = format!("the key {SECRET} was {SECRET}");
        text.as_bytes().chunks(size).for_each(|chunk| feed.data(Bytes::copy_from_slice(chunk)));
        drop(feed);
        let mut failed = typed(400, "text/plain", any(body));
        failed.headers_mut().insert("x-echo", format!("key={SECRET}").parse().unwrap());
        let response = answer(failed).await.unwrap();
        assert_eq!(response.headers()["x-echo"], format!("key={hidden}"));
        assert_eq!(read(response.into_body()).await, format!("the key {hidden} was {hidden}"), "by {size}");
    }
    // The key is in a failure that came as a 200, before its first content: it gets its own status.
    let event = format!("data: {{\"error\":{{\"code\":400,\"message\":\"key {SECRET}\"}}}}\n\n");
    let mut failed = sse(full(event.clone()));
    let failure = Failure::from_event(event.as_bytes());
    failed.extensions_mut().insert(Outcome::default().with_failure(failure));
    let response = answer(failed).await.unwrap();
    assert_eq!(response.status(), 400);
    let body = read(response.into_body()).await;
    let body = String::from_utf8_lossy(&body);
    assert!(body.contains(&format!("key {hidden}")) && !body.contains(SECRET), "{body}");
    // The key is in the error of a transport.
    let upstream = Upstream::at_once(|_| Err(format!("cannot reach http://host/?key={SECRET}").into()));
    let response = layer.layer(upstream).oneshot(post(GENERATE)).await.unwrap();
    assert!(!String::from_utf8_lossy(&read(response.into_body()).await).contains(SECRET));
    // A good answer is not searched for keys.
    let response = answer(json(200, SECRET)).await.unwrap();
    assert_eq!(read(response.into_body()).await, SECRET);
}

#[tokio::test(start_paused = true)]
async fn what_came_before_a_break_can_be_sent_before_it_is_seen() {
    let (feed, body) = fed();
    feed.data("{\"a\":");
    feed.fail(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    let body = responded(post(GENERATE), Ok(typed(200, "application/json", any(body)))).await.into_body();
    let mut body = task::spawn(body);
    let poll = |body: &mut task::Spawn<ErrorResponseBody<AnyBody>>| body.enter(|cx, body| Body::poll_frame(body, cx));
    assert_ready!(poll(&mut body)).unwrap().unwrap();
    // A server flushes when nothing is ready, and is woken at once.
    assert_pending!(poll(&mut body));
    assert!(body.is_woken());
    assert!(assert_ready!(poll(&mut body)).unwrap().is_err());
    assert!(assert_ready!(poll(&mut body)).is_none());
}

#[tokio::test(start_paused = true)]
async fn an_error_that_breaks_off_is_told_whole() {
    let half = r#"{"error": {"code": 500, "message": "Internal err"#;
    let response = responded(post(GENERATE), Ok(typed(500, "application/json", broken([half])))).await;
    assert_eq!(response.status(), 500);
    let body: Value = serde_json::from_slice(&read(response.into_body()).await).unwrap();
    assert!(body["error"]["message"].as_str().unwrap().ends_with("that cannot be read: Internal err"), "{body}");
    // One that is too long to be held breaks off as it came.
    let half = format!("{half}{}", "x".repeat(70_000));
    let response = responded(post(GENERATE), Ok(typed(500, "application/json", broken([&half])))).await;
    let (data, error) = frames(response.into_body()).await;
    assert_eq!(data.concat(), half.as_bytes());
    assert!(error.is_some());
}

// === last words ===

macro_rules! stack {
    ($upstream:expr) => {
        ServiceBuilder::new()
            .layer(ErrorResponseLayer::new())
            .layer(TimeoutLayer::attempt(secs(20)).idle(secs(5)))
            .layer(ClassifyLayer::new())
            .service($upstream)
    };
}

/// Reads a stream that breaks, as a client does: its text, and its error.
async fn heard(uri: &str, content_type: &'static str, body: AnyBody) -> (String, Option<BoxError>) {
    let body = parking_lot::Mutex::new(Some(body));
    let upstream = Upstream::at_once(move |_| Ok(typed(200, content_type, body.lock().take().unwrap())));
    let response = stack!(upstream).oneshot(post(uri)).await.unwrap();
    assert_eq!(response.status(), OK);
    let (data, error) = frames(response.into_body()).await;
    (String::from_utf8(data.concat()).unwrap(), error)
}

/// Returns the text of a stream after the part that the upstream sent.
fn last_words<'a>(text: &'a str, sent: &str) -> &'a str {
    text.strip_prefix(sent).unwrap_or_else(|| panic!("changed: {text}"))
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_ends_in_an_error_event_and_in_an_error() {
    let whole = event("a");
    // The half of an event is dropped: an SDK would take it for one, and fail on its JSON.
    for half in ["", "data: {\"candidates\":[{", "data: {\"candi", "data: {}\n", "id: 7\n", "dat", "{\n  \"error\": {"]
    {
        for breaks in [false, true] {
            for size in [1, 4096] {
                let sent = format!("{whole}{half}");
                let sent = sent.as_bytes().chunks(size);
                let body = if breaks { broken(sent) } else { chunks(sent) };
                let (text, error) = heard(STREAM, "text/event-stream", body).await;
                let words = last_words(&text, &whole);
                let data =
                    words.strip_prefix("data: ").and_then(|words| words.strip_suffix("\n\n")).expect("one event");
                let words: Value = serde_json::from_str(data).unwrap();
                assert_eq!((&words["error"]["code"], &words["error"]["status"]), (&503.into(), &"UNAVAILABLE".into()));
                let reason = if breaks { "RESET" } else { "STREAM_CUT" };
                assert_eq!(detail(&words["error"], "ErrorInfo")["reason"], reason, "{half}");
                // Whoever does not read the words sees that the answer is not whole.
                assert_eq!(find(&error.unwrap()).failure().kind().as_str().to_ascii_uppercase(), reason);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_too_long_to_be_held_passes_as_it_comes_and_nothing_is_said_in_its_middle() {
    let long = format!("data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"{}", "x".repeat(100_000));
    let sent = event("a") + &long;
    let (text, error) = heard(STREAM, "text/event-stream", broken(sent.as_bytes().chunks(10_000))).await;
    assert!(text == sent && error.is_some());
    // Behind its end something can be said again.
    let sent = sent + "\"}]}}]}\n\n";
    let half = sent.clone() + "data: {";
    let (text, error) = heard(STREAM, "text/event-stream", broken(half.as_bytes().chunks(10_000))).await;
    assert!(last_words(&text, &sent).starts_with("data: {\"error\":{") && error.is_some());
}

/// Polls a body once.
fn poll(
    body: &mut std::pin::Pin<Box<ErrorResponseBody<AnyBody>>>,
) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
    task::spawn(body.frame()).poll()
}

#[tokio::test(start_paused = true)]
async fn the_connection_breaks_after_a_server_has_written_the_words() {
    let written_after = |wait: Duration, asks: bool| async move {
        let answer = sse(broken([event("a")]));
        let mut body = Box::pin(responded(post(STREAM), Ok(answer)).await.into_body());
        assert_ready!(poll(&mut body)).unwrap().unwrap();
        let words = assert_ready!(poll(&mut body)).unwrap().unwrap().into_data().unwrap();
        assert!(words.starts_with(b"data: {\"error\""));
        if asks {
            assert!(!Body::is_end_stream(&*body));
        }
        let begin = tokio::time::Instant::now();
        let writing = async move {
            tokio::time::sleep(wait).await;
            drop(words);
        };
        let breaking = async {
            assert!(body.frame().await.unwrap().is_err());
            begin.elapsed()
        };
        let ((), broke_after) = tokio::join!(writing, breaking);
        assert!(Body::is_end_stream(&*body) && body.frame().await.is_none());
        broke_after
    };
    for seconds in [0, 1, 20, 29] {
        let took = written_after(secs(seconds), true).await;
        assert!(took >= secs(seconds) && took <= secs(seconds) + millis(600), "{took:?}, {seconds} s");
    }
    // A reader that never takes the words is not waited for without end.
    let took = written_after(secs(3600), true).await;
    assert!(took <= secs(31), "{took:?}");
    // Nor is a program that keeps all frames until the end, as a collecting one does.
    let took = written_after(secs(3600), false).await;
    assert!(took <= millis(1100), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_held_of_a_stream_that_has_failed_while_its_last_words_are_on_their_way() {
    for (uri, sent, fails) in [
        (STREAM, event("a"), true),
        (STREAM, event("a") + "data: {\"can", false),
        (ARRAY, format!("[{HELLO}"), true),
        // Without words, the break waits as well.
        (GENERATE, "{".to_owned(), true),
    ] {
        let (feed, body) = fed();
        let place = std::sync::Arc::new(());
        let held = place.clone();
        let body = body.map_frame(move |frame| {
            let _ = &held;
            frame
        });
        let answer = match uri {
            STREAM => sse(any(body)),
            _ => typed(200, "application/json", any(body)),
        };
        feed.data(sent);
        let mut body = Box::pin(responded(post(uri), Ok(answer)).await.into_body());
        let first = assert_ready!(poll(&mut body)).unwrap().unwrap();
        assert_eq!(std::sync::Arc::strong_count(&place), 2);
        if fails {
            feed.fail(reset());
        }
        drop(feed);
        assert!(!Body::is_end_stream(&*body));
        let words = poll(&mut body);
        assert_eq!(words.is_ready(), uri != GENERATE);
        assert_eq!(std::sync::Arc::strong_count(&place), 1, "{uri}");
        assert!(!Body::is_end_stream(&*body) && poll(&mut body).is_pending());
        drop((first, words));
        assert!(body.frame().await.unwrap().is_err());
        assert!(Body::is_end_stream(&*body));
    }
}

#[tokio::test(start_paused = true)]
async fn the_ending_of_a_stream_is_a_setting() {
    let (a, half) = (event("a"), "data: {\"candi");
    let long = format!("data: {}", "x".repeat(100_000));
    let told = a.clone() + &format!("data: {BUSY}\n\n");
    for (ending, says, breaks) in [
        (StreamEnding::EventThenBreak, true, true),
        (StreamEnding::Event, true, false),
        (StreamEnding::Break, false, true),
    ] {
        let layer = ErrorResponseLayer::new().stream_ending(ending);
        let heard = async |uri: &str, body: AnyBody| {
            let content_type = if uri == ARRAY { "application/json" } else { "text/event-stream" };
            let body = parking_lot::Mutex::new(Some(body));
            let upstream = Upstream::at_once(move |_| Ok(typed(200, content_type, body.lock().take().unwrap())));
            let response = layer.layer(upstream).oneshot(post(uri)).await.unwrap();
            let (data, error) = frames(response.into_body()).await;
            (String::from_utf8(data.concat()).unwrap(), error.is_some())
        };
        let (text, broke) = heard(STREAM, broken([a.as_str(), half])).await;
        assert_eq!((last_words(&text, &a).starts_with("data: {\"error\":{"), broke), (says, breaks), "{ending:?}");
        assert!(says || text == a);
        // In the middle of a long event, nothing but a break can be noticed.
        let (text, broke) = heard(STREAM, broken([a.as_str(), &long, half])).await;
        assert!(text == format!("{a}{long}{half}") && broke, "{ending:?}");
        // The upstream's own error passes.
        let (text, broke) = heard(STREAM, chunks([&told])).await;
        assert_eq!((text == told, broke), (true, breaks), "{ending:?}");
        let (text, broke) = heard(STREAM, broken([told.as_str(), half])).await;
        assert_eq!((text == told, broke), (true, breaks), "{ending:?}: it is not said a second time");
        let (text, broke) = heard(ARRAY, broken([format!("[{HELLO}")])).await;
        assert_eq!((serde_json::from_str::<Value>(&text).is_ok(), broke), (says, breaks), "{ending:?}");
        // A good end stays one.
        assert_eq!(heard(STREAM, chunks([last_event("a")])).await, (last_event("a"), false));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stall_names_its_clock_in_the_last_event() {
    let (feed, body) = fed();
    feed.data(event("a"));
    let (text, error) = heard(STREAM, "text/event-stream", any(body)).await;
    assert!(error.is_some() && !feed.is_live());
    let data = last_words(&text, &event("a")).trim().strip_prefix("data: ").unwrap();
    let error: Value = serde_json::from_str(data).unwrap();
    assert_eq!((&error["error"]["code"], &error["error"]["status"]), (&504.into(), &"DEADLINE_EXCEEDED".into()));
    assert_eq!(detail(&error["error"], "ErrorInfo")["metadata"]["clock"], "idle");
}

#[tokio::test(start_paused = true)]
async fn each_surface_has_its_own_last_words() {
    let delta = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    let (text, _) = heard(CHAT, "text/event-stream", broken([delta])).await;
    assert!(last_words(&text, delta).starts_with("data: {\"error\":{"), "{text}");

    let started = "event: step.delta\ndata: {\"index\":0,\"event_type\":\"step.delta\"}\n\n";
    let (text, _) = heard(INTERACTIONS, "text/event-stream", broken([started])).await;
    let words = last_words(&text, started);
    let data = words.strip_prefix("event: error\ndata: ").unwrap_or_else(|| panic!("{words}")).trim();
    let error: Value = serde_json::from_str(data).unwrap();
    assert_eq!((&error["event_type"], &error["error"]["code"]), (&"error".into(), &"unavailable".into()));
}

/// Google's content filter ends the stream of an interaction with a bare line, which SDKs drop.
const FILTERED: &str = r#"{"error":{"code":"prohibited_content","message":"The prompt was blocked."}}"#;
const CREATED: &str =
    "event: interaction.created\ndata: {\"interaction\":{\"id\":\"v1_i\"},\"event_type\":\"interaction.created\"}\n\n";
const DELTA: &str =
    "event: step.delta\ndata: {\"index\":0,\"delta\":{\"text\":\"a\"},\"event_type\":\"step.delta\"}\n\n";

#[tokio::test(start_paused = true)]
async fn a_bare_error_of_an_interaction_gets_the_frame_that_sdks_read() {
    let framed = "event: error\ndata: {\"error\":{\"code\":\"prohibited_content\",\"message\":\"The prompt was blocked.\"},\"event_type\":\"error\"}\n\n";
    // Before any content, too: it is a verdict on the content, and no failure of the service.
    for before in [CREATED.to_owned(), format!("{CREATED}{DELTA}"), String::new()] {
        for size in [1, 30, 4096] {
            let text = format!("{before}{FILTERED}\n");
            let (text, error) = heard(INTERACTIONS, "text/event-stream", chunks(text.as_bytes().chunks(size))).await;
            assert_eq!(find(&error.unwrap()).failure().message(), "The prompt was blocked.");
            assert_eq!(text, format!("{before}{framed}\n"), "by {size}");
        }
    }
    // Elsewhere it gets a frame as well, because only some of the SDKs read it without one.
    let bare = BUSY.replace(',', ",\n");
    for size in [1, 30, 4096] {
        let text = format!("{}{bare}\n", event("a"));
        for body in [chunks(text.as_bytes().chunks(size)), broken(text.as_bytes().chunks(size))] {
            let (text, error) = heard(STREAM, "text/event-stream", body).await;
            assert_eq!(text, format!("{}data: {BUSY}\n\n", event("a")), "by {size}");
            assert!(error.is_some());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_makes_the_answer_longer_than_its_head_said() {
    let text = format!("{CREATED}{FILTERED}\n");
    let length = text.len();
    let upstream = Upstream::at_once(move |_| {
        let mut answer = sse(full(text.clone()));
        answer.headers_mut().insert(http::header::CONTENT_LENGTH, length.into());
        Ok(answer)
    });
    let response = stack!(upstream).oneshot(post(INTERACTIONS)).await.unwrap();
    assert!(!response.headers().contains_key(http::header::CONTENT_LENGTH));
    assert_eq!(http_body::Body::size_hint(response.body()).exact(), None);
    assert!(frames(response.into_body()).await.0.concat().len() > length);
}

#[tokio::test(start_paused = true)]
async fn an_error_that_gets_a_frame_shows_no_key() {
    let bare = FILTERED.replace("The prompt", &format!("The prompt of {KEY}"));
    for before in ["", DELTA] {
        let (text, _) = heard(INTERACTIONS, "text/event-stream", chunks([format!("{before}{bare}\n")])).await;
        assert!(!text.contains(KEY) && text.contains("The prompt of ***"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_interaction_that_is_cut_is_told() {
    let sent = format!("{CREATED}{DELTA}");
    let (text, _) = heard(INTERACTIONS, "text/event-stream", chunks([&sent])).await;
    let data = last_words(&text, &sent).strip_prefix("event: error\ndata: ").unwrap_or_else(|| panic!("{text}"));
    let error: Value = serde_json::from_str(data.trim()).unwrap();
    assert_eq!(error["event_type"], "error");
    assert!(error["error"]["message"].as_str().unwrap().contains("interaction.completed"), "{error}");
    // Before its first content, a status says it.
    let response = stack!(Upstream::at_once(|_| Ok(sse(chunks([CREATED]))))).oneshot(post(INTERACTIONS)).await.unwrap();
    assert_eq!(response.status(), 503);
    // The half of a bare line is none.
    let (text, _) = heard(INTERACTIONS, "text/event-stream", broken([DELTA, &FILTERED[..30]])).await;
    assert!(last_words(&text, DELTA).starts_with("event: error\ndata: {"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_array_that_breaks_ends_as_an_array_and_in_an_error() {
    let element = r#"{"candidates":[{"content":{"parts":[{"text":"a"}]}}]}"#;
    let whole = |sent: &str| format!("[{element}{sent}");
    for (sent, half) in [
        ("", ""),
        ("\n", ""),
        (",\r\n", ""),
        ("\n, ", ""),
        // The half of an element would make all of the array unreadable.
        (",\r\n", r#"{"candidates":[{"content":{"parts":[{"text":"}]"#),
        (",", "{"),
    ] {
        for size in [1, 4096] {
            let sent = whole(sent);
            let body = sent.clone() + half;
            let (text, error) = heard(ARRAY, "application/json", broken(body.as_bytes().chunks(size))).await;
            assert_eq!(find(&error.unwrap()).failure().kind(), Kind::Reset);
            assert!(text.starts_with(&sent));
            let list: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            assert_eq!((list.len(), &list[1]["error"]["code"]), (2, &503.into()));
        }
    }
    let half = r#"[{"candidates":[{"content":{"parts":[{"text":"a"#;
    let (text, error) = heard(ARRAY, "application/json", broken([half])).await;
    let list: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!((list.len(), &list[0]["error"]["code"]), (1, &503.into()));
    assert!(error.is_some());
    // Nothing can be said in the middle of an element that was too long to be held.
    let long = format!("[{element},{{\"candidates\":[{{\"content\":\"{}", "x".repeat(100_000));
    let (text, error) = heard(ARRAY, "application/json", broken([&long])).await;
    assert!(text == long && error.is_some());
    // Nor can it in an answer in one piece.
    let half = r#"{"candidates":[{"content":{"parts":[{"text":"a"},{"text":"b"#;
    let (text, error) = heard(GENERATE, "application/json", broken([half])).await;
    assert_eq!(text, half);
    assert!(error.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_array_that_is_closed_too_early_or_not_at_all_ends_in_an_error() {
    let no_reason = r#"{"candidates":[{"content":{"parts":[{"text":"a"}]}}]}"#;
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(100_000));
    for (sent, count) in [
        (format!("[{no_reason},{no_reason}]"), 2),
        (format!("[{no_reason}\n]\n"), 1),
        (format!("[{no_reason},{long}]\r\n"), 2),
        (format!("[{HELLO}"), 1),
        (format!("[{HELLO}\n,\n"), 1),
    ] {
        for size in [1, 7, 200_000] {
            if size == 1 && sent.len() > 10_000 {
                continue;
            }
            let (text, error) = heard(ARRAY, "application/json", chunks(sent.as_bytes().chunks(size))).await;
            assert_eq!(find(&error.unwrap()).failure().kind(), Kind::StreamCut);
            let list: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            assert_eq!((list.len(), &list[count]["error"]["code"]), (count + 1, &503.into()));
        }
    }
    // An error that the upstream has said is the last word, and what closes the array is not lost.
    let said = format!("[{no_reason},{BUSY}]\n");
    for (body, expected) in [(broken([&said]), said.as_str()), (chunks([&said]), &said)] {
        let (text, error) = heard(ARRAY, "application/json", body).await;
        assert_eq!((text.as_str(), error.is_some()), (expected, true));
    }
    let unclosed = format!("[{no_reason},{BUSY}");
    for half in ["", ",{\"a"] {
        let (text, error) = heard(ARRAY, "application/json", chunks([&unclosed, half])).await;
        assert_eq!(text.trim_end_matches(','), unclosed);
        assert_eq!(find(&error.unwrap()).failure().kind(), Kind::Overloaded);
    }
    // An answer that is no array is left alone.
    let objects = format!("{HELLO}\n{HELLO}\n");
    assert_eq!(heard(ARRAY, "application/json", chunks([&objects])).await.0, objects);
}

#[tokio::test(start_paused = true)]
async fn a_cut_that_only_this_layer_sees_is_in_the_report() {
    for (uri, sent) in
        [(STREAM, last_event("a") + "data: {\"can"), (ARRAY, format!("[{HELLO},{{\"a")), (ARRAY, format!("[{HELLO}"))]
    {
        let content_type = if uri == ARRAY { "application/json" } else { "text/event-stream" };
        let upstream = Upstream::at_once(move |_| Ok(typed(200, content_type, chunks([sent.clone()]))));
        let response = stack!(upstream).oneshot(post(uri)).await.unwrap();
        let usage = outcome(&response).usage().cloned().unwrap();
        let error = frames(response.into_body()).await.1.unwrap();
        let failure = usage.report().failure.expect("a failure");
        assert_eq!((failure.kind(), failure.is_after_commit()), (Kind::StreamCut, true));
        assert_eq!(failure.message(), find(&error).failure().message());
    }
}

#[tokio::test(start_paused = true)]
async fn the_servers_project_is_hidden_in_an_error_after_the_commit() {
    let error = r#"{"error":{"code":429,"details":[{"metadata":{"consumer":"projects/123456789"}}],"message":"of consumer project_number:123456789"}}"#;
    let hidden = error.replace("123456789", "[hidden]");
    for (uri, content_type, sent) in [
        (STREAM, "text/event-stream", format!("{}data: {error}\n\n", event("a"))),
        (CHAT, "text/event-stream", format!("data: {{\"choices\":[]}}\n\ndata: {error}\n\n")),
        (INTERACTIONS, "text/event-stream", format!("{DELTA}event: error\ndata: {error}\n\n")),
        (ARRAY, "application/json", format!("[{HELLO},\n{error}\n]")),
    ] {
        for (size, own_key) in [(1, true), (4096, true), (4096, false)] {
            let mut answer = typed(200, content_type, chunks(sent.as_bytes().chunks(size)));
            let outcome = Outcome::default();
            let outcome = if own_key { outcome.with_key("key", "project") } else { outcome };
            answer.extensions_mut().insert(outcome);
            let (data, broke) = frames(responded(post(uri), Ok(answer)).await.into_body()).await;
            let expected = if own_key { sent.replace(error, &hidden) } else { sent.clone() };
            assert_eq!(String::from_utf8(data.concat()).unwrap(), expected);
            assert!(broke.is_some());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_words_show_no_secret() {
    const SECRET: &str = "odd-secret-key";
    let layer = ErrorResponseLayer::new().secret(SECRET);
    let failure = Failure::from_event(br#"{"error":{"code":400,"message":"no"}}"#);
    for (uri, sent, failed) in
        [(STREAM, event("a"), false), (ARRAY, format!("[{HELLO}"), false), ("/elsewhere", String::new(), true)]
    {
        let (feed, body) = fed();
        feed.data(sent);
        feed.fail(format!("cannot read http://host/?key={SECRET}"));
        let body = parking_lot::Mutex::new(Some(body));
        let failure = failure.clone();
        let upstream = Upstream::at_once(move |_| {
            let mut answer = sse(any(body.lock().take().unwrap()));
            if uri == ARRAY {
                answer.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
            }
            if failed {
                answer.extensions_mut().insert(Outcome::default().with_failure(failure.clone()));
            }
            Ok(answer)
        });
        let response = layer.layer(upstream).oneshot(post(uri)).await.unwrap();
        let (data, broke) = frames(response.into_body()).await;
        let text = String::from_utf8(data.concat()).unwrap();
        assert!(text.contains("?key=****") && !text.contains(SECRET) && broke.is_some(), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_a_known_length_is_followed_and_its_length_is_not_said() {
    for fails in [false, true] {
        let (feed, body) = fed();
        feed.data(event("a") + "data: {\"candi");
        if fails {
            feed.fail(reset());
        }
        drop(feed);
        let mut answer = sse(any(body.with_hint(SizeHint::with_exact(1000))));
        answer.headers_mut().insert(http::header::CONTENT_LENGTH, 1000.into());
        let response = responded(post(STREAM), Ok(answer)).await;
        assert!(!response.headers().contains_key(http::header::CONTENT_LENGTH));
        assert_eq!(response.body().size_hint().exact(), None);
        let (data, error) = frames(response.into_body()).await;
        let text = String::from_utf8(data.concat()).unwrap();
        // That it ended in the middle of an event is seen without the layers inside, too.
        assert!(last_words(&text, &event("a")).starts_with("data: {\"error\":{") && error.is_some());
    }
    // The answer to a HEAD has a length and no body.
    let mut answer = sse(full(""));
    answer.headers_mut().insert(http::header::CONTENT_LENGTH, 1000.into());
    let response = responded(post(STREAM), Ok(answer)).await;
    assert_eq!(response.headers()[http::header::CONTENT_LENGTH], "1000");
    assert!(response.body().is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn no_stream_has_a_length_and_each_is_followed_by_what_it_is() {
    let array = format!("[{HELLO}");
    let whole = |uri: &str, content_type: Option<&'static str>, sent: &str| {
        let (feed, body) = fed();
        feed.data("");
        feed.data(sent.to_owned());
        let mut answer = Response::new(any(body.with_hint(SizeHint::with_exact(sent.len() as u64))));
        answer.headers_mut().insert(http::header::CONTENT_LENGTH, sent.len().into());
        if let Some(content_type) = content_type {
            answer.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
        }
        responded(post(uri), Ok(answer))
    };
    for uri in [STREAM, ARRAY] {
        for (content_type, sent, half) in [
            (Some("application/json"), array.as_str(), ",{\"a"),
            (Some("application/json"), &event("a"), "data: {\"can"),
            (Some("text/plain"), &event("a"), "data: {\"can"),
            (None, &(": ping\r\n".to_owned() + &event("a")), "event: x\ndata: {"),
            (None, &("\r\n ".to_owned() + &array), "\n,{"),
        ] {
            let response = whole(uri, content_type, &(sent.to_owned() + half)).await;
            assert!(!response.headers().contains_key(http::header::CONTENT_LENGTH));
            assert!(response.body().size_hint().exact().is_none() && !response.body().is_end_stream());
            let (data, error) = frames(response.into_body()).await;
            let text = String::from_utf8(data.concat()).unwrap();
            assert!(last_words(&text, sent).contains("{\"error\":{") && error.is_some(), "{text}");
        }
        // An answer that is neither passes as it came, and its break would be seen.
        for sent in ["{\"candidates\":[", "<html>", " \n", "x"] {
            let response = whole(uri, Some("application/json"), sent).await;
            assert!(!response.headers().contains_key(http::header::CONTENT_LENGTH));
            assert_eq!(response.body().size_hint().exact(), None);
            let (data, error) = frames(response.into_body()).await;
            assert_eq!((data.concat(), error.is_none()), (sent.as_bytes().to_vec(), true));
        }
    }
    // An answer in one piece keeps its length.
    let response = whole(GENERATE, Some("application/json"), HELLO).await;
    assert!(response.headers().contains_key(http::header::CONTENT_LENGTH));
    assert_eq!(response.body().size_hint().exact(), Some(HELLO.len() as u64));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_a_proxy_has_encoded_passes_untouched() {
    let bytes = [&[0x1f, 0x8b, 8][..], b"\n\ndata: {\"half"].concat();
    for encoding in ["gzip", "br"] {
        let mut answer = sse(broken([bytes.clone()]));
        answer.headers_mut().insert(http::header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        let (data, error) = frames(responded(post(STREAM), Ok(answer)).await.into_body()).await;
        assert!(data.concat() == bytes && error.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_the_upstream_says_itself_is_followed_by_a_break() {
    let error = r#"{"code":429,"message":"Quota exceeded.","status":"RESOURCE_EXHAUSTED"}"#;
    let readable = format!("data: {{\"error\":{error}}}\n\n");
    let delta = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    let named = "event: error\ndata: {\"event_type\":\"error\",\"error\":{\"code\":\"resource_exhausted\",\"message\":\"Quota exceeded.\"}}\n\n".to_owned();
    let gemini = event("a");
    for (uri, before, said, expected) in [
        (STREAM, gemini.as_str(), readable.clone(), &readable),
        // No SDK reads these.
        (STREAM, &gemini, format!("data: [{{\"error\":{error}}}]\n\n"), &readable),
        (STREAM, &gemini, format!("event: error\ndata: {{\"error\":{error}}}\n\n"), &readable),
        (STREAM, &gemini, format!("{{\n\"error\": {error}\n}}\n"), &readable),
        (STREAM, &gemini, readable.replace("429", "\"429\""), &readable),
        (CHAT, delta, readable.clone(), &readable),
        (CHAT, delta, format!("data: [{{\"error\":{error}}}]\n\n"), &readable),
        (INTERACTIONS, DELTA, named.clone(), &named),
    ] {
        for end in ["", "data: [DONE]\n\n"] {
            for size in [1, 25, 4096] {
                let sent = format!("{before}{said}{end}");
                let body = chunks(sent.as_bytes().chunks(size));
                let (text, broke) = heard(uri, "text/event-stream", body).await;
                if end.is_empty() || said.ends_with("\n\n") {
                    assert_eq!(text, format!("{before}{expected}{end}"), "by {size}");
                }
                let failure = find(&broke.expect("a clean end is taken for a whole answer")).failure().clone();
                assert_eq!((failure.message(), failure.is_after_commit()), ("Quota exceeded.", true), "{sent}");
            }
        }
    }
    let list = format!("[{HELLO},\n{{\"error\":{error}}}\n]\n");
    for size in [1, 4096] {
        let (text, broke) = heard(ARRAY, "application/json", chunks(list.as_bytes().chunks(size))).await;
        assert_eq!((text.as_str(), broke.is_some()), (list.as_str(), true));
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_upstreams_own_shows_no_key() {
    for said in ["data: {\"error\":{\"code\":400,\"message\":\"of KEY\"}}\n\n", "data: {\"error\":\"of KEY\"}\n\n"] {
        let sent = event("a") + &said.replace("KEY", KEY);
        let (text, _) = heard(STREAM, "text/event-stream", chunks([sent])).await;
        assert!(text.contains(&format!("of {}", "*".repeat(KEY.len()))), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_half_event_passes_at_no_end_and_a_whole_one_without_its_blank_line_at_a_good_one() {
    for (last, is_whole) in [
        ("data: {\"a\":1}", true),
        ("data: {\"a\":1}\n", true),
        ("data: [DONE]\n", true),
        (": ping", true),
        ("data: {\"a\":1", false),
        ("data: {\"a\":[", false),
    ] {
        let sent = last_event("a") + last;
        let (text, error) = heard(STREAM, "text/event-stream", chunks([&sent])).await;
        if is_whole {
            assert_eq!((text, error.is_none()), (sent, true));
        } else {
            assert!(last_words(&text, &last_event("a")).starts_with("data: {\"error\":{"), "{text}");
            assert_eq!(find(&error.unwrap()).failure().kind(), Kind::StreamCut);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_well_ends_as_it_came() {
    let whole = event("a") + &last_event("b");
    let (text, error) = heard(STREAM, "text/event-stream", chunks([&whole])).await;
    assert_eq!(text, whole);
    assert!(error.is_none());
    let array = format!("[{HELLO}\n,\r\n{HELLO}]");
    let (text, error) = heard(ARRAY, "application/json", chunks([&array])).await;
    assert_eq!(text, array);
    assert!(error.is_none());
}

#[tokio::test(start_paused = true)]
async fn no_event_waits_for_another() {
    let (feed, body) = fed();
    feed.data(event("a"));
    let body = parking_lot::Mutex::new(Some(any(body)));
    let upstream = Upstream::at_once(move |_| Ok(sse(body.lock().take().unwrap())));
    let mut body = Box::pin(stack!(upstream).oneshot(post(STREAM)).await.unwrap().into_body());
    assert_ready!(task::spawn(body.frame()).poll()).unwrap().unwrap();
    for text in [event("b"), ": ping\n".to_owned(), event("c") + &event("d"), ": ping\r\n\r\n".to_owned()] {
        assert_pending!(task::spawn(body.frame()).poll());
        feed.data(text.clone());
        assert_eq!(assert_ready!(task::spawn(body.frame()).poll()).unwrap().unwrap().into_data().unwrap(), text);
    }
    // The half of an event waits for its other half.
    let mut passed = Vec::new();
    for text in ["data: {\"can", "didates\":[]}\r", "\n\r", "\n"] {
        feed.data(text);
        while let std::task::Poll::Ready(frame) = task::spawn(body.frame()).poll() {
            passed.push(frame.unwrap().unwrap().into_data().unwrap());
        }
    }
    assert_eq!(passed, ["data: {\"candidates\":[]}\r\n\r", "\n"]);
}

/// Answers by `status` with a `Retry-After` of 12 s, as a proxy adds it, through the layers that would know better.
async fn with_a_proxys_wait(status: u16, body: &str, key_pool: bool) -> Option<String> {
    let body = body.to_owned();
    let upstream = Upstream::at_once(move |_| {
        let mut answer = json(status, body.clone());
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("12"));
        Ok(answer)
    });
    let key = Key::new(ApiKey::new("AIza-nobodys").unwrap());
    let pool = KeyPool::builder().key(key).build().unwrap();
    let (outer, inner) = (ServiceBuilder::new().layer(ErrorResponseLayer::new()), ClassifyLayer::new().layer(upstream));
    let (parts, ()) = match key_pool {
        true => {
            let answer = outer.layer(KeyPoolLayer::new(pool)).service(inner).oneshot(post(GENERATE)).await.unwrap();
            answer.map(drop).into_parts()
        }
        false => outer.service(inner).oneshot(post(GENERATE)).await.unwrap().map(drop).into_parts(),
    };
    assert_eq!(parts.status, status);
    parts.headers.get(RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_proxys_seconds_are_not_said_of_a_days_quota() {
    let quota = |id: &str| {
        format!(
            r#"{{"error":{{"code":429,"message":"You exceeded your current quota.","status":"RESOURCE_EXHAUSTED","details":[{{"violations":[{{"quotaId":"{id}","quotaValue":"20"}}]}}]}}}}"#
        )
    };
    let day = quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier");
    // No client waits for a day: the longest that all of them take is said.
    for with_pool in [true, false] {
        assert_eq!(with_a_proxys_wait(429, &day, with_pool).await.as_deref(), Some("60"));
    }
    // A minute's may well be over by then.
    let minute = quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier");
    for (status, body) in [(429, minute.as_str()), (429, "{}"), (503, "{}")] {
        assert_eq!(with_a_proxys_wait(status, body, false).await.as_deref(), Some("12"), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_time_to_come_again_is_said_where_none_would_help() {
    for kind in [Kind::ModelClosed, Kind::BadRequest, Kind::BodyTooLarge, Kind::KeyRestricted] {
        let failure = Failure::local(kind, "no").with_hint(secs(45_594));
        let (parts, body) = refused(GENERATE, Error::refusal("room", failure)).await;
        assert!(parts.status.is_client_error() && !parts.headers.contains_key(RETRY_AFTER), "{kind}");
        assert_eq!(detail(&body["error"], "RetryInfo"), &Value::Null, "{kind}");
    }
}

/// A body of these frames, which allocates nothing.
struct Ready(std::vec::IntoIter<Bytes>);

impl Body for Ready {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.next().map(|data| Ok(http_body::Frame::data(data))))
    }
}

#[tokio::test]
async fn frames_of_whole_events_cost_no_allocation() {
    let usage = Bytes::from_static(b"data: {\"usageMetadata\":{\"totalTokenCount\":3}}\n\n");
    let several = Bytes::from(event("a").repeat(5));
    let list: Vec<_> = (0..100).flat_map(|_| [Bytes::from(event("a")), several.clone(), usage.clone()]).collect();
    let frames = parking_lot::Mutex::new(Some(list.clone()));
    let upstream = tower::service_fn(move |_: Request<Full<Bytes>>| {
        let mut answer = Response::new(Ready(frames.lock().take().unwrap().into_iter()));
        answer.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
        std::future::ready(Ok::<_, std::convert::Infallible>(answer))
    });
    let response = ErrorResponseLayer::new().layer(upstream).oneshot(post(STREAM)).await.unwrap();
    let mut body = Box::pin(response.into_body());
    let mut passed = Vec::with_capacity(list.len());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let counted = allocation_counter::measure(|| {
        while let std::task::Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut context) {
            passed.extend(frame.into_data());
        }
    });
    assert_eq!((counted.count_total, passed), (0, list));
}
