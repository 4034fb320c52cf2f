//! `ClassifyLayer`: what it reads, when it hands an answer over, and that it changes no byte.

mod support;

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, RETRY_AFTER},
};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use proptest::prelude::{Just, Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};
use support::*;
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::{
    BoxError, ClassifyLayer, Error, ReplayLayer, RetryLayer,
    call::ServiceTier,
    classify::ClassifyBody,
    context::Usage,
    failure::{Fault, Kind},
};

type Classified = Result<Response<ClassifyBody<AnyBody>>, BoxError>;

async fn classified(request: Request<Full<Bytes>>, answer: Answer) -> Classified {
    let answer = parking_lot::Mutex::new(Some(answer));
    let upstream = Upstream::at_once(move |_| answer.lock().take().expect("asked once"));
    ClassifyLayer::new().layer(upstream).oneshot(request).await
}

async fn answered(uri: &str, answer: Response<AnyBody>) -> Response<ClassifyBody<AnyBody>> {
    classified(post(uri), Ok(answer)).await.unwrap()
}

fn kind<R>(response: &Response<R>) -> Option<Kind> {
    outcome(response).failure().map(|failure| failure.kind())
}

fn usage<R>(response: &Response<R>) -> Usage {
    outcome(response).usage().cloned().expect("a usage cell")
}

// === errors ===

#[tokio::test(start_paused = true)]
async fn an_error_is_read_and_given_back() {
    let body = r#"{"error":{"code":429,"message":"You exceeded your current quota. Please retry in 2.5s.","status":"RESOURCE_EXHAUSTED",
        "details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"2s"}]}}"#;
    let response = answered(GENERATE, json(429, body)).await;
    let failure = outcome(&response).failure().cloned().unwrap();
    assert_eq!((failure.fault(), failure.has_error_body()), (Fault::Quota, true));
    assert_eq!(failure.hint().unwrap().delay(), Duration::from_millis(2500));
    assert!(outcome(&response).was_sent());
    assert_eq!(read(response.into_body()).await, body);
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_polled_after_its_end_says_so() {
    for status in [200, 429] {
        let upstream = Upstream::at_once(move |_| Ok(json(status, HELLO)));
        let mut future = Box::pin(ClassifyLayer::new().layer(upstream).call(post(STREAM)));
        assert_eq!(future.as_mut().await.unwrap().status(), status);
        let error = future.as_mut().await.unwrap_err().to_string();
        assert!(error.contains("polled after it had been ready"), "{status}: {error}");
    }
}

/// A day's quota, as a proxy compresses it.
fn gzipped() -> Vec<u8> {
    use std::io::Write;
    let body = r#"{"error":{"code":429,"message":"You exceeded your current quota.","status":"RESOURCE_EXHAUSTED","details":[
        {"violations":[{"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier","quotaValue":"250"}]},{"retryDelay":"5s"}]}}"#;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_compressed_error_is_read_and_comes_back_as_it_came() {
    let compressed = gzipped();
    for chunk in [1, 7, 10_000] {
        let sent: Vec<Bytes> = compressed.chunks(chunk).map(Bytes::copy_from_slice).collect();
        let mut answer = typed(429, "application/json", chunks(sent.clone()));
        answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let response = answered(GENERATE, answer).await;
        let failure = outcome(&response).failure().cloned().unwrap();
        assert_eq!((failure.kind(), failure.has_error_body(), failure.hint()), (Kind::QuotaDay, true, None));
        assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
        assert_eq!(frames(response.into_body()).await.0, sent);
    }
    // One that cannot be read is judged by its status.
    let mut answer = typed(503, "application/json", full(compressed.clone()));
    answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("br"));
    let response = answered(GENERATE, answer).await;
    let failure = outcome(&response).failure().cloned().unwrap();
    assert_eq!((failure.kind(), failure.has_error_body()), (Kind::Overloaded, false));
    assert_eq!(read(response.into_body()).await, compressed);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_nobody_can_read_is_not_handed_on() {
    for (value, stays) in [("soon", false), ("3", true), ("Mon, 21 Oct 2126 07:28:00 GMT", true)] {
        let mut answer = busy();
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(value));
        let response = answered(GENERATE, answer).await;
        assert_eq!(response.headers().contains_key(RETRY_AFTER), stays, "{value}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_any_size_comes_back_frame_by_frame() {
    const CAP: usize = 64 * 1024;
    for size in [0, BUSY.len(), CAP - 1, CAP, CAP + 1, 3 * CAP] {
        for chunk in [1000, CAP, 4 * CAP] {
            let body: Vec<u8> = BUSY.bytes().chain(std::iter::repeat(b' ')).take(size).collect();
            let sent: Vec<Bytes> = body.chunks(chunk).map(Bytes::copy_from_slice).collect();
            let response = answered(GENERATE, typed(503, "application/json", chunks(sent.clone()))).await;
            assert_eq!(outcome(&response).failure().unwrap().has_error_body(), size > 0);
            let (frames, error) = frames(response.into_body()).await;
            assert!(error.is_none());
            assert_eq!(frames, sent, "{size} bytes by {chunk}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_an_endless_error_only_the_beginning_is_awaited() {
    let (feed, body) = fed();
    feed.data(BUSY);
    let (sent, upstream) = (
        BUSY.len(),
        Upstream::at_once({
            let body = parking_lot::Mutex::new(Some(body));
            move |_| Ok(typed(503, "application/json", any(body.lock().take().unwrap())))
        }),
    );
    let mut call = task::spawn(ClassifyLayer::new().layer(upstream).oneshot(post(GENERATE)));
    assert_pending!(call.poll());
    feed.data(vec![b' '; 64 * 1024 - sent - 1]);
    assert_pending!(call.poll(), "one byte under the cap");
    feed.data(" ");
    let response = assert_ready!(call.poll()).unwrap();
    assert_eq!(kind(&response), Some(Kind::Overloaded));
    // The rest streams on.
    feed.data("rest");
    drop(feed);
    assert_eq!(read(response.into_body()).await.len(), 64 * 1024 + 4);
}

#[tokio::test(start_paused = true)]
async fn an_error_whose_body_breaks_is_judged_by_what_came() {
    let response = answered(GENERATE, typed(503, "application/json", broken([BUSY]))).await;
    assert_eq!(kind(&response), Some(Kind::Overloaded));
    assert!(!response.body().is_end_stream());
    let (data, error) = frames(response.into_body()).await;
    assert_eq!(data, [BUSY]);
    assert!(source::<std::io::Error>(&error.unwrap()).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_transport_error_says_what_it_means_and_stays_readable() {
    let error = classified(post(GENERATE), Err(reset().into())).await.unwrap_err();
    assert_eq!(find(&error).failure().kind(), Kind::Reset);
    assert_eq!(find(&error).layer(), "classify");
    assert!(source::<std::io::Error>(&error).is_some());
    let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    let error = classified(post(GENERATE), Err(refused.into())).await.unwrap_err();
    assert!(find(&error).never_sent());
    // An error that a layer inside has judged is not judged again.
    let inner: BoxError =
        Error::refusal("inner", tower_gemini::failure::Failure::local(Kind::CircuitOpen, "open")).into();
    let error = classified(post(GENERATE), Err(inner)).await.unwrap_err();
    assert_eq!(find(&error).layer(), "inner");
}

#[tokio::test(start_paused = true)]
async fn nothing_compressed_is_asked_for() {
    let upstream = Upstream::at_once(|_| Ok(hello()));
    let mut request = post(GENERATE);
    request.headers_mut().append(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    request.headers_mut().append(ACCEPT_ENCODING, HeaderValue::from_static("br"));
    ClassifyLayer::new().layer(upstream.clone()).oneshot(request.clone()).await.unwrap();
    ClassifyLayer::disabled().layer(upstream.clone()).oneshot(request).await.unwrap();
    let asked = upstream.asked();
    let values: Vec<_> = asked[0].headers.get_all(ACCEPT_ENCODING).iter().collect();
    assert_eq!(values, ["identity"]);
    assert_eq!(asked[1].headers.get_all(ACCEPT_ENCODING).iter().count(), 2);
}

#[tokio::test(start_paused = true)]
async fn disabled_it_says_and_changes_nothing() {
    let upstream = Upstream::at_once(|nth| match nth {
        0 => Ok(busy()),
        1 => Ok(sse(chunks([event("a")]))),
        _ => Err(reset().into()),
    });
    let service = ClassifyLayer::disabled().layer(upstream);
    let response = service.clone().oneshot(post(GENERATE)).await.unwrap();
    assert!(response.extensions().is_empty());
    assert_eq!(read(response.into_body()).await, BUSY);
    let response = service.clone().oneshot(post(STREAM)).await.unwrap();
    assert!(response.extensions().is_empty());
    assert_eq!(read(response.into_body()).await, event("a"));
    let error = service.oneshot(post(GENERATE)).await.unwrap_err();
    assert!(error.downcast_ref::<std::io::Error>().is_some());
}

// === before the commit ===

/// Answers of status 200 that have failed: the path, the content type, the body, and the failure.
fn failed_answers() -> Vec<(&'static str, &'static str, String, Kind)> {
    let error_event = format!("data: {BUSY}\r\n\r\n");
    let raw = "{\n  \"error\": {\n    \"code\": 503,\n    \"message\": \"The model is overloaded.\",\n    \"status\": \"UNAVAILABLE\"\n  }\n}\n";
    let empty = format!("data: {EMPTY}\r\n\r\n");
    let counted = "data: {\"usageMetadata\":{\"promptTokenCount\":3}}\r\n\r\n";
    let stream = |text: String, kind| (STREAM, "text/event-stream", text, kind);
    let malformed = r#"{"candidates":[{"finishReason":"MALFORMED_FUNCTION_CALL"}]}"#;
    let blocked = r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#;
    vec![
        stream(error_event.clone(), Kind::Overloaded),
        stream(format!(": ping\r\n\r\n{counted}{error_event}"), Kind::Overloaded),
        stream(raw.into(), Kind::Overloaded),
        stream(format!("{counted}{raw}"), Kind::Overloaded),
        stream(String::new(), Kind::EmptyResponse),
        stream(": ping\r\n\r\n".into(), Kind::EmptyResponse),
        stream(empty.clone(), Kind::EmptyResponse),
        stream(format!("data: {malformed}\r\n\r\n"), Kind::EmptyMalformedFunctionCall),
        stream(format!("data: {blocked}\r\n\r\n"), Kind::ContentBlocked),
        (ARRAY, "application/json", format!("[{BUSY}\n]"), Kind::Overloaded),
        (ARRAY, "application/json", "[]".into(), Kind::EmptyResponse),
        (ARRAY, "application/json", format!("[{EMPTY}]"), Kind::EmptyResponse),
        (GENERATE, "application/json", EMPTY.into(), Kind::EmptyResponse),
        (GENERATE, "application/json", "{}".into(), Kind::EmptyResponse),
        (GENERATE, "application/json", String::new(), Kind::EmptyResponse),
        (GENERATE, "application/json", malformed.into(), Kind::EmptyMalformedFunctionCall),
        (GENERATE, "application/json", blocked.into(), Kind::ContentBlocked),
        (GENERATE, "application/json", BUSY.into(), Kind::Overloaded),
        (CHAT, "text/event-stream", "data: [DONE]\n\n".into(), Kind::EmptyResponse),
        (CHAT, "application/json", format!("[{BUSY}]"), Kind::Overloaded),
        (
            INTERACTIONS,
            "application/json",
            r#"{"error":{"code":"rate_limit_exceeded","message":"slow down"}}"#.into(),
            Kind::QuotaMinute,
        ),
        // Thoughts are no answer, nor is a signature.
        (GENERATE, "application/json", THOUGHTS.into(), Kind::EmptyMalformedFunctionCall),
        (GENERATE, "application/json", THOUGHTS.replace("MALFORMED_FUNCTION_CALL", "STOP"), Kind::EmptyResponse),
        (GENERATE, "application/json", THOUGHTS.replace("MALFORMED_FUNCTION_CALL", "MAX_TOKENS"), Kind::OutputLimit),
        stream(format!("data: {SIGNED}\r\n\r\n"), Kind::EmptyMalformedFunctionCall),
        (
            CHAT,
            "application/json",
            r#"{"choices":[{"message":{"content":null,"reasoning_content":"hm"},"finish_reason":"function_call_filter: MALFORMED_FUNCTION_CALL"}]}"#.into(),
            Kind::EmptyMalformedFunctionCall,
        ),
        (GENERATE, "application/json", finished("ESCALATION"), Kind::ContentBlocked),
        (GENERATE, "application/json", finished("MODEL_ARMOR"), Kind::ContentBlocked),
        (GENERATE, "application/json", finished("PUP_LIMITED_DISABLED"), Kind::AccountLimited),
        (GENERATE, "application/json", finished("TOO_MANY_TOOL_CALLS"), Kind::InvalidRequest),
        (GENERATE, "application/json", finished("MISSING_THOUGHT_SIGNATURE"), Kind::InvalidRequest),
        (GENERATE, "application/json", finished("MALFORMED_RESPONSE"), Kind::EmptyResponse),
        (
            GENERATE,
            "application/json",
            r#"{"promptFeedback":{"blockReason":"BLOCKED_REASON_UNSPECIFIED"}}"#.into(),
            Kind::EmptyResponse,
        ),
        (GENERATE, "application/json", r#"{"promptFeedback":{"blockReason":"JAILBREAK"}}"#.into(), Kind::ContentBlocked),
        (INTERACTIONS, "application/json", r#"{"id":"v1_i","status":"failed"}"#.into(), Kind::ServerError),
        (INTERACTIONS, "application/json", r#"{"id":"v1_i","status":"cancelled"}"#.into(), Kind::Cancelled),
        (
            INTERACTIONS,
            "application/json",
            r#"{"status":"failed","errors":[{"code":"prohibited_content","message":"no"}],"steps":[]}"#.into(),
            Kind::ContentBlocked,
        ),
        (GENERATE, "text/plain", BUSY.into(), Kind::Overloaded),
        (STREAM, "application/octet-stream", error_event.clone(), Kind::Overloaded),
        (INTERACTIONS, "text/event-stream", created() + &completed("failed"), Kind::ServerError),
        (INTERACTIONS, "text/event-stream", created() + FILTERED + "\n", Kind::ContentBlocked),
        // Nothing but that it began.
        (INTERACTIONS, "text/event-stream", created(), Kind::StreamCut),
    ]
}

const RAW: &str = "/v1/projects/p/locations/l/publishers/google/models/m:streamRawPredict";

/// A thought, and then a call that cannot be used.
const THOUGHTS: &str = r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"hm","thought":true}]},"finishReason":"MALFORMED_FUNCTION_CALL"}]}"#;

/// The last chunk of a stream that has only thought.
const SIGNED: &str =
    r#"{"candidates":[{"content":{"parts":[{"thoughtSignature":"x"}]},"finishReason":"MALFORMED_FUNCTION_CALL"}]}"#;

/// An error that Google's content filter writes without a frame.
const FILTERED: &str = r#"{"error":{"code":"prohibited_content","message":"The prompt was blocked."}}"#;

fn finished(reason: &str) -> String {
    format!(r#"{{"candidates":[{{"finishReason":"{reason}"}}]}}"#)
}

fn created() -> String {
    let event = |name: &str, members: &str| format!("event: {name}\ndata: {{{members},\"event_type\":\"{name}\"}}\n\n");
    event("interaction.created", r#""interaction":{"id":"v1_i","status":"in_progress","model":"gemini-3.8-flash"}"#)
        + &event("interaction.status_update", r#""interaction_id":"v1_i","status":"in_progress""#)
}

fn said_by_an_interaction() -> String {
    created()
        + "event: step.start\ndata: {\"index\":0,\"step\":{\"type\":\"model_output\"},\"event_type\":\"step.start\"}\n\n"
        + "event: step.delta\ndata: {\"index\":0,\"delta\":{\"text\":\"hi\",\"type\":\"text\"},\"event_type\":\"step.delta\"}\n\n"
}

fn completed(status: &str) -> String {
    format!(
        "event: interaction.completed\ndata: {{\"interaction\":{{\"id\":\"v1_i\",\"status\":\"{status}\",\"model\":\"gemini-3.8-flash\",\"service_tier\":\"flex\",\
         \"usage\":{{\"total_input_tokens\":9,\"initial_input_tokens\":4,\"total_output_tokens\":2,\"total_thought_tokens\":3,\"total_cached_tokens\":1,\
         \"total_tool_use_tokens\":5,\"total_tokens\":19,\"input_tokens_by_modality\":[{{\"modality\":\"text\",\"tokens\":9}}]}}}},\
         \"event_type\":\"interaction.completed\"}}\n\n"
    )
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_fails_before_its_content_is_a_failure_and_keeps_its_bytes() {
    for (uri, content_type, text, expected) in failed_answers() {
        for size in [1, 7, 4096] {
            let sent: Vec<Bytes> = text.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
            let response = answered(uri, typed(200, content_type, chunks(sent.clone()))).await;
            assert_eq!(kind(&response), Some(expected), "{text:?} by {size}");
            let (data, error) = frames(response.into_body()).await;
            assert_eq!(data, sent, "{text:?}");
            // It has failed already: its early end is not another failure.
            assert!(error.is_none(), "{error:?} for {text:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_in_place_of_an_answer_is_asked_for_again_and_never_handed_over() {
    const PAGE: &str = "<html><body>Sign in to the network</body></html>";
    for (uri, content_type) in [(GENERATE, "text/html"), (STREAM, "application/json"), (CHAT, "text/plain")] {
        for (pages, status) in [(1, 200), (usize::MAX, 502)] {
            let upstream = Upstream::at_once(move |nth| match (nth < pages, uri) {
                (true, _) => Ok(typed(200, content_type, chunks([PAGE]))),
                (false, STREAM) => Ok(sse(chunks([last_event("a")]))),
                (false, _) => Ok(hello()),
            });
            let service = ServiceBuilder::new()
                .layer(tower_gemini::ErrorResponseLayer::new())
                .layer(ReplayLayer::new())
                .layer(RetryLayer::default())
                .layer(ClassifyLayer::new())
                .service(upstream.clone());
            let response = service.oneshot(post(uri)).await.unwrap();
            assert_eq!(response.status(), status, "{uri}");
            assert_eq!(upstream.asked().len(), 2, "{uri}");
            let text = String::from_utf8(frames(response.into_body()).await.0.concat()).unwrap();
            assert!(!text.contains("Sign in"), "{text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn trailers_are_not_read_as_if_they_were_the_last_frame_again() {
    // The frame ends inside a string: scanned twice, it would look like content.
    let (feed, body) = fed();
    feed.data("data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"");
    feed.trailers(HeaderMap::new());
    drop(feed);
    let response = answered(STREAM, sse(any(body))).await;
    assert_eq!(kind(&response), Some(Kind::EmptyResponse));
}

#[tokio::test(start_paused = true)]
async fn a_reset_before_the_content_is_an_error_and_after_it_a_broken_body() {
    let held = [": ping\r\n\r\n".to_owned(), "data: {\"candidates\":[{\"content\"".into()];
    for sent in [&held[..0], &held[..1], &held] {
        let error = classified(post(STREAM), Ok(sse(broken(sent)))).await.unwrap_err();
        assert_eq!(find(&error).failure().kind(), Kind::Reset);
        assert!(find(&error).outcome().was_sent());
    }
    let response = answered(STREAM, sse(broken([event("a")]))).await;
    assert_eq!(kind(&response), None);
    let usage = usage(&response);
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), event("a"));
    let error = body.frame().await.unwrap().unwrap_err();
    let failure = find(&error).failure();
    assert_eq!((failure.kind(), failure.is_after_commit()), (Kind::Reset, true));
    assert!(!failure.same_key_may_help());
    assert!(usage.report().failure.is_some_and(|failure| failure.kind() == Kind::Reset));
    assert!(body.frame().await.is_none());
    assert!(body.is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn the_first_content_hands_the_answer_over_at_once() {
    let cases = [
        (
            STREAM,
            "text/event-stream",
            vec![": ping\r\n\r\n", "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"h"],
        ),
        // Thoughts are content.
        (
            STREAM,
            "text/event-stream",
            vec!["data: {\"candidates\":[{\"content\":{\"parts\":[{\"thought\":true,\"text\":\"", "h"],
        ),
        (ARRAY, "application/json", vec!["[", "{\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{"]),
        // In one piece, it may be a thought until its part has ended.
        (GENERATE, "application/json", vec!["{\"candidates\": [{\"content\": {\"parts\": [{\"text\"", ": \"h", "\"}"]),
        (
            CHAT,
            "text/event-stream",
            vec![
                "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n",
                "data: {\"choices\":[{\"delta\":{\"content\":\"h",
            ],
        ),
        (CHAT, "text/event-stream", vec!["data: {\"choices\":[{\"delta\":{", "\"tool_calls\":[{"]),
        (
            INTERACTIONS,
            "text/event-stream",
            vec![
                "event: interaction.created\ndata: {\"interaction\":{\"id\":\"v1_i\",\"status\":\"in_progress\"}}\n\n",
                "data: {\"event_type\":\"interaction.status_update\",\"status\":\"in_progress\"}\n\n",
                "event: step.start\ndata: {\"index\":0,\"event_type\":\"step.start\"}\n\nevent: step",
                ".delta\ndata: {",
            ],
        ),
    ];
    for (uri, content_type, sent) in cases {
        let (feed, body) = fed();
        let body = parking_lot::Mutex::new(Some(body));
        let upstream = Upstream::at_once(move |_| Ok(typed(200, content_type, any(body.lock().take().unwrap()))));
        let mut call = task::spawn(ClassifyLayer::new().layer(upstream).oneshot(post(uri)));
        for (nth, chunk) in sent.iter().enumerate() {
            assert_pending!(call.poll(), "before chunk {nth} of {sent:?}");
            feed.data(*chunk);
        }
        let response = assert_ready!(call.poll(), "{sent:?}").unwrap();
        assert_eq!(kind(&response), None);
        let mut body = response.into_body();
        for chunk in sent {
            let frame = assert_ready!(task::spawn(body.frame()).poll()).unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), chunk);
        }
        assert_pending!(task::spawn(body.frame()).poll());
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_than_64_kib_are_held_for_a_first_content() {
    let (feed, body) = fed();
    let body = parking_lot::Mutex::new(Some(body));
    let upstream = Upstream::at_once(move |_| Ok(sse(any(body.lock().take().unwrap()))));
    let mut call = task::spawn(ClassifyLayer::new().layer(upstream).oneshot(post(STREAM)));
    let ping = format!(":{}\n", " ".repeat(1022));
    for _ in 0..63 {
        feed.data(ping.clone());
        assert_pending!(call.poll());
    }
    feed.data(ping.clone());
    let response = assert_ready!(call.poll()).unwrap();
    assert_eq!(kind(&response), None);
    drop(feed);
    // No content was seen in the held part, but the cut is found.
    let (data, error) = frames(response.into_body()).await;
    assert_eq!((data.len(), data[0].len()), (64, 1024));
    assert_eq!(find(&error.unwrap()).failure().kind(), Kind::StreamCut);
}

#[tokio::test(start_paused = true)]
async fn a_body_of_empty_frames_takes_no_memory() {
    let (feed, body) = fed();
    for _ in 0..10_000 {
        feed.data("");
    }
    feed.data(event("a"));
    feed.data(last_event("b"));
    drop(feed);
    let response = answered(STREAM, sse(any(body))).await;
    let (data, error) = frames(response.into_body()).await;
    assert!(error.is_none());
    assert!(data == [event("a"), last_event("b")], "{} frames", data.len());
}

#[tokio::test(start_paused = true)]
async fn held_back_or_not_is_a_setting() {
    let upstream = Upstream::at_once(|_| Ok(sse(chunks([format!("data: {BUSY}\r\n\r\n")]))));
    let service = ClassifyLayer::new().hold_answers(false).layer(upstream);
    let response = service.oneshot(post(STREAM)).await.unwrap();
    assert_eq!(kind(&response), None);
    let usage = usage(&response);
    assert_eq!(read(response.into_body()).await, format!("data: {BUSY}\r\n\r\n"));
    // It was not held, but it is reported.
    assert!(usage.report().failure.is_some_and(|failure| failure.fault() == Fault::Model));
}

#[tokio::test(start_paused = true)]
async fn only_generated_answers_are_held() {
    let held = |uri: &'static str, content_type: &'static str| {
        let (feed, body) = fed();
        let body = parking_lot::Mutex::new(Some(body));
        let upstream = Upstream::at_once(move |_| Ok(typed(200, content_type, any(body.lock().take().unwrap()))));
        let mut call = task::spawn(ClassifyLayer::new().layer(upstream).oneshot(post(uri)));
        let held = call.poll().is_pending();
        drop(feed);
        held
    };
    assert!(held(GENERATE, "application/json; charset=UTF-8"));
    assert!(held(GENERATE, "Application/JSON"));
    assert!(held(STREAM, "text/event-stream;charset=utf-8"));
    assert!(held(GENERATE, "text/html"), "its content decides");
    assert!(!held(GENERATE, "video/mp4"));
    assert!(!held("/v1beta/models/m:countTokens", "application/json"));
    assert!(!held("/v1beta/models/m:embedContent", "application/json"));
    assert!(!held("/v1beta/files", "application/json"));
    assert!(!held("/somewhere/else", "text/event-stream"));
}

// === after the commit ===

#[tokio::test(start_paused = true)]
async fn what_an_answer_costs_and_how_it_ends_is_known_once_it_has_passed() {
    let response = answered(GENERATE, hello()).await;
    let usage = usage(&response);
    read(response.into_body()).await;
    let report = usage.report();
    assert_eq!((report.prompt_tokens, report.candidates_tokens, report.total_tokens), (Some(2), Some(1), Some(3)));
    assert_eq!(report.model_version.as_deref(), Some("gemini-2.5-pro"));
    assert_eq!(report.finish_reason.as_deref(), Some("STOP"));
    assert!(report.ended && report.failure.is_none());

    let counted = |prompt: u32, text: &str| {
        format!(
            "data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"{text}\"}}]}}}}],\"usageMetadata\":{{\"promptTokenCount\":{prompt}}}}}\n\n"
        )
    };
    let response = answered(STREAM, sse(chunks([counted(1, "a"), counted(9, "b")]))).await;
    let usage = self::usage(&response);
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(usage.report().prompt_tokens, Some(1), "as far as it is known");
    body.frame().await.unwrap().unwrap();
    assert_eq!(usage.report().prompt_tokens, Some(9), "the last one counts");
    assert!(!usage.report().ended);
    drop(body);
    assert!(!usage.report().ended, "dropped before its end");
}

#[tokio::test(start_paused = true)]
async fn an_error_that_comes_later_is_forwarded_and_reported_wherever_it_is_cut() {
    let text = [event("a"), format!("data: {BUSY}\r\n\r\n")].concat();
    for at in event("a").len()..text.len() {
        let (before, after) = text.as_bytes().split_at(at);
        let response = answered(STREAM, sse(chunks([before, after]))).await;
        assert_eq!(kind(&response), None);
        let usage = usage(&response);
        let (data, error) = frames(response.into_body()).await;
        assert_eq!(data.concat(), text.as_bytes());
        assert!(error.is_none(), "the upstream has said it already");
        let failure = usage.report().failure.unwrap_or_else(|| panic!("not reported when cut at {at}"));
        assert_eq!((failure.kind(), failure.is_after_commit()), (Kind::Overloaded, true), "cut at {at}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_comes_later_is_reported_though_more_follows_it() {
    let delta = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    let text = format!("{delta}data: {BUSY}\n\ndata: [DONE]\n\n");
    let response = answered(CHAT, sse(chunks([text.clone()]))).await;
    let usage = usage(&response);
    let (data, error) = frames(response.into_body()).await;
    assert_eq!(data, [text]);
    assert!(error.is_none());
    assert_eq!(usage.report().failure.unwrap().kind(), Kind::Overloaded);
}

#[tokio::test(start_paused = true)]
async fn a_cut_answer_ends_in_an_error() {
    let cut: Vec<(&str, &str, String)> = vec![
        (STREAM, "text/event-stream", event("a") + "data: {\"error\":{\"code\":503,\"mess"),
        (STREAM, "text/event-stream", event("a")),
        (STREAM, "text/event-stream", event("a") + "data: {\"candid"),
        (ARRAY, "application/json", "[{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}]}".into()),
        (GENERATE, "application/json", HELLO[..HELLO.len() - 1].into()),
        (CHAT, "text/event-stream", "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n".into()),
        (INTERACTIONS, "text/event-stream", said_by_an_interaction()),
        (RAW, "text/event-stream", event("a")),
        ("/v1beta/models/m:generateContent", "text/event-stream", event("a")),
    ];
    for (uri, content_type, text) in cut {
        let response = answered(uri, typed(200, content_type, chunks([text.as_bytes()]))).await;
        assert_eq!(kind(&response), None);
        let usage = usage(&response);
        let (data, error) = frames(response.into_body()).await;
        assert_eq!(data, [text.as_bytes()]);
        let error = error.unwrap_or_else(|| panic!("not cut: {text}"));
        assert_eq!(find(&error).failure().kind(), Kind::StreamCut, "{text}");
        assert!(usage.report().ended && usage.report().failure.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_finished_answer_is_not_cut() {
    let array = format!("[{}]", HELLO);
    let finished: Vec<(&str, &str, String)> = vec![
        (STREAM, "text/event-stream", event("a") + &last_event("b")),
        // Usage after the finish, and no blank line at the end.
        (STREAM, "text/event-stream", last_event("b") + "data: {\"usageMetadata\":{\"totalTokenCount\":1}}"),
        (ARRAY, "application/json", array),
        (GENERATE, "application/json", HELLO.into()),
        (
            CHAT,
            "text/event-stream",
            "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\n".into(),
        ),
        (CHAT, "text/event-stream", "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: [DONE]\n\n".into()),
        (INTERACTIONS, "text/event-stream", said_by_an_interaction() + &completed("completed")),
        (INTERACTIONS, "text/event-stream", said_by_an_interaction() + "event: done\ndata: [DONE]\n\n"),
        (
            INTERACTIONS,
            "text/event-stream",
            "data: {\"event_type\":\"content.delta\"}\n\ndata: {\"event_type\":\"interaction.complete\"}\n\n".into(),
        ),
        (INTERACTIONS, "application/json", "{\"id\":\"v1_i\",\"status\":\"in_progress\"}".into()),
        (
            GENERATE,
            "application/json",
            "{\"candidates\":[{\"finishReason\":\"CONTINUATION\",\"continuationToken\":\"t\"}]}".into(),
        ),
        (RAW, "text/event-stream", "event: message_start\ndata: {\"type\":\"message_start\"}\n\n".into()),
        (GENERATE, "video/mp4", "what is no text".into()),
        (GENERATE, "text/plain", HELLO.into()),
        // Events that are typed as JSON.
        (STREAM, "application/json", event("a") + &last_event("b")),
        (CHAT, "application/json", "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: [DONE]\n\n".into()),
        ("/v1beta/models/m:countTokens", "application/json", "{\"totalTokens\":".into()),
    ];
    for (uri, content_type, text) in finished {
        for size in [1, text.len()] {
            let response = answered(uri, typed(200, content_type, chunks(text.as_bytes().chunks(size)))).await;
            assert_eq!(kind(&response), None);
            let (data, error) = frames(response.into_body()).await;
            assert_eq!(data.concat(), text.as_bytes());
            assert!(error.is_none(), "{error:?} for {text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_is_known_with_the_last_frame() {
    // A server that knows it writes no more chunk; `Full` says so.
    let response = answered(GENERATE, hello()).await;
    assert_eq!(response.body().size_hint().exact(), Some(HELLO.len() as u64));
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    assert!(body.is_end_stream());
    assert_eq!(body.size_hint().exact(), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_only_thought_is_noted_as_failed_at_its_end() {
    let thought = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hm\",\"thought\":true}]}}]}\n\n";
    let text = format!("{thought}data: {SIGNED}\n\n");
    for size in [1, 50, 4096] {
        let response = answered(STREAM, sse(chunks(text.as_bytes().chunks(size)))).await;
        assert_eq!(kind(&response), None, "the thought was handed over");
        let usage = usage(&response);
        let (data, error) = frames(response.into_body()).await;
        assert!(data.concat() == text.as_bytes() && error.is_none());
        let failure = usage.report().failure.expect("noted");
        assert_eq!((failure.kind(), failure.is_after_commit()), (Kind::EmptyMalformedFunctionCall, true));
        assert!(!failure.same_key_may_help());
    }
    // One that goes on after its thoughts, or may be continued, is a good answer.
    for end in [last_event("b"), format!("data: {}\n\n", finished("CONTINUATION"))] {
        let response = answered(STREAM, sse(chunks([format!("{thought}{end}")]))).await;
        let usage = usage(&response);
        read(response.into_body()).await;
        assert!(usage.report().failure.is_none(), "{end}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_thought_without_an_answer_is_asked_for_again_once_more() {
    for uri in [GENERATE, CHAT] {
        let upstream = Upstream::at_once(move |nth| match (nth, uri) {
            (0, CHAT) => Ok(json(
                200,
                r#"{"choices":[{"message":{"reasoning_content":"hm"},"finish_reason":"function_call_filter: MALFORMED_FUNCTION_CALL"}]}"#,
            )),
            (0, _) => Ok(json(200, THOUGHTS)),
            _ => Ok(hello()),
        });
        let service = ServiceBuilder::new()
            .layer(ReplayLayer::new())
            .layer(RetryLayer::default())
            .layer(ClassifyLayer::new())
            .service(upstream.clone());
        let response = service.oneshot(post(uri)).await.unwrap();
        assert_eq!((kind(&response), upstream.calls()), (None, 2));
        assert_eq!(read(response.into_body()).await, HELLO);
    }
}

#[tokio::test(start_paused = true)]
async fn usage_of_an_interaction_is_known_by_its_own_names() {
    let unary = r#"{"id":"v1_i","status":"completed","model":"gemini-3.8-flash","previous_interaction_id":"v1_h","service_tier":"flex",
        "steps":[{"type":"model_output","content":[{"type":"text","text":"hi"}]}],
        "usage":{"total_input_tokens":9,"initial_input_tokens":4,"total_output_tokens":2,"total_thought_tokens":3,"total_cached_tokens":1,
        "total_tool_use_tokens":5,"total_tokens":19,"input_tokens_by_modality":[{"modality":"text","tokens":9}]}}"#;
    let streamed = said_by_an_interaction() + &completed("completed");
    for (content_type, text) in [("application/json", unary.to_owned()), ("text/event-stream", streamed)] {
        let response = answered(INTERACTIONS, typed(200, content_type, chunks([text]))).await;
        let usage = usage(&response);
        read(response.into_body()).await;
        let report = usage.report();
        assert_eq!(
            (report.prompt_tokens, report.initial_prompt_tokens, report.input_tokens()),
            (Some(9), Some(4), Some(14))
        );
        assert_eq!((report.candidates_tokens, report.thoughts_tokens), (Some(2), Some(3)));
        assert_eq!((report.cached_tokens, report.tool_use_prompt_tokens), (Some(1), Some(5)));
        assert_eq!((report.total_tokens, report.input_by_modality.text), (Some(19), Some(9)));
        assert_eq!((report.response_id.as_deref(), report.served_tier()), (Some("v1_i"), Some(ServiceTier::Flex)));
        assert_eq!(report.model_version.as_deref(), Some("gemini-3.8-flash"));
        assert_eq!(report.finish_reason.as_deref(), Some("completed"));
        let previous = (content_type == "application/json").then_some("v1_h");
        assert_eq!(report.previous_interaction_id.as_deref(), previous);
        assert!(report.ended && report.failure.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn an_interaction_that_is_read_again_is_followed_and_its_failure_is_no_failure_to_read_it() {
    let unary = r#"{"id":"v1_i","status":"failed","usage":{"total_input_tokens":9,"total_tokens":19}}"#.to_owned();
    for (content_type, text) in
        [("text/event-stream", said_by_an_interaction() + &completed("failed")), ("application/json", unary)]
    {
        let mut request = post("/v1beta/interactions/v1_i?stream=true");
        *request.method_mut() = http::Method::GET;
        let response = classified(request, Ok(typed(200, content_type, chunks([text.clone()])))).await.unwrap();
        assert_eq!(kind(&response), None);
        let usage = usage(&response);
        assert_eq!(read(response.into_body()).await, text);
        // The tokens are those of the call that made it.
        let report = usage.report();
        assert_eq!((report.prompt_tokens, report.total_tokens), (Some(9), Some(19)));
        assert_eq!((report.finish_reason.as_deref(), report.ended), (Some("failed"), true));
        assert!(report.failure.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn an_interaction_in_the_background_is_handed_over_as_it_begins() {
    let (feed, body) = fed();
    let body = parking_lot::Mutex::new(Some(body));
    let upstream = Upstream::at_once(move |_| Ok(sse(any(body.lock().take().unwrap()))));
    // The body says so, and the layer that keeps it has read it.
    let service = ServiceBuilder::new().layer(ReplayLayer::new()).layer(ClassifyLayer::new()).service(upstream);
    let request = post_body(INTERACTIONS, r#"{"agent":"deep-research","input":"x","background":true,"stream":true}"#);
    let response = assert_ready!(task::spawn(service.oneshot(request)).poll()).unwrap();
    feed.data(created());
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), created());
    drop(feed);
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(find(&error).failure().kind(), Kind::StreamCut);
}

#[tokio::test(start_paused = true)]
async fn usage_of_embeddings_is_read_while_they_pass() {
    let text = r#"{"embeddings":[{"values":[0.1,-2e-3]}],"usageMetadata":{"promptTokenCount":40,"responseTokenCount":1,
        "promptTokensDetails":[{"modality":"TEXT","tokenCount":30},{"modality":"IMAGE","tokenCount":10}]}}"#;
    let mut answer = json(200, text);
    answer.headers_mut().insert("x-gemini-service-tier", HeaderValue::from_static("priority"));
    let response = answered("/v1beta/models/gemini-embedding-001:batchEmbedContents", answer).await;
    assert_eq!(kind(&response), None);
    let usage = usage(&response);
    assert_eq!(usage.report().served_tier(), Some(ServiceTier::Priority));
    assert_eq!(read(response.into_body()).await, text);
    let report = usage.report();
    assert_eq!((report.prompt_tokens, report.candidates_tokens), (Some(40), Some(1)));
    assert_eq!((report.input_by_modality.text, report.input_by_modality.image), (Some(30), Some(10)));
    // An empty answer to them is not one that could be asked for again.
    let response = answered("/v1beta/models/m:embedContent", json(200, "{}")).await;
    assert_eq!(kind(&response), None);
}

// === any transcript, cut anywhere ===

fn transcripts() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => "[a-zé\u{1F600}]{0,12}".prop_map(|text| event(&text)),
        2 => "[a-z]{0,12}".prop_map(|text| last_event(&text)),
        1 => Just(format!("data: {SIGNED}\n\n")),
        1 => Just(said_by_an_interaction()),
        1 => "(completed|failed|cancelled)".prop_map(|status| completed(&status)),
        1 => Just(format!("{FILTERED}\n")),
        1 => Just(format!("data: {BUSY}\n\n")),
        1 => Just(format!("data: {EMPTY}\n\n")),
        1 => Just(BUSY.replace(',', ",\n  ")),
        1 => Just("data: [DONE]\n\n".to_owned()),
        2 => ": [ -~]{0,20}(\n|\r\n|\r)",
        1 => "(id|event|retry|data)(: ?[ -~]{0,20})?(\n|\r\n|\r)",
        1 => "[ -~]{0,30}\n",
    ];
    let lines = proptest::collection::vec(line, 0..12).prop_map(|lines| lines.concat().into_bytes());
    prop_oneof![9 => lines, 1 => proptest::collection::vec(any_byte(), 0..200)]
}

fn any_byte() -> impl Strategy<Value = u8> {
    proptest::num::u8::ANY
}

proptest! {
    #[test]
    fn whatever_comes_goes_out_frame_by_frame(
        text in transcripts(),
        cuts in proptest::collection::vec(1usize..40, 1..40),
        (uri, content_type) in prop_oneof![
            Just((STREAM, "text/event-stream")),
            Just((CHAT, "text/event-stream")),
            Just((INTERACTIONS, "text/event-stream")),
            Just((ARRAY, "application/json")),
            Just((GENERATE, "application/json")),
        ],
        breaks in proptest::bool::ANY,
        hold in proptest::bool::ANY,
    ) {
        let mut sent = Vec::new();
        let mut rest = &text[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, after) = rest.split_at((*cut).min(rest.len()));
            sent.push(Bytes::copy_from_slice(chunk));
            rest = after;
        }
        let body = if breaks { broken(sent.clone()) } else { chunks(sent.clone()) };
        let body = parking_lot::Mutex::new(Some(body));
        let upstream = Upstream::at_once(move |_| Ok(typed(200, content_type, body.lock().take().unwrap())));
        let service = ClassifyLayer::new().hold_answers(hold).layer(upstream);
        // The whole body is there: nothing may be pending.
        let mut call = task::spawn(service.oneshot(post(uri)));
        match assert_ready!(call.poll()) {
            // It was held, and broke before its first content.
            Err(error) => prop_assert!(breaks && hold, "{error}"),
            Ok(response) => {
                let (data, error) = assert_ready!(task::spawn(frames(response.into_body())).poll());
                prop_assert_eq!(data, sent, "no byte is changed, and no frame");
                prop_assert!(error.is_some() || !breaks);
            }
        }
    }
}

// === over the emulator ===

#[tokio::test(start_paused = true)]
async fn the_emulators_interactions_are_whole_and_their_cost_is_known() {
    let emulator = tower_gemini::emulator::Emulator::builder().build();
    for (body, streams) in [
        (r#"{"model":"gemini-2.5-pro","input":"hi"}"#, false),
        (r#"{"model":"gemini-2.5-pro","input":"hi","stream":true}"#, true),
    ] {
        let service = ServiceBuilder::new()
            .layer(tower_gemini::ErrorResponseLayer::new())
            .layer(ReplayLayer::new())
            .layer(ClassifyLayer::new())
            .service(emulator.clone());
        let mut request = post_body(INTERACTIONS, body);
        request.headers_mut().insert("x-goog-api-key", HeaderValue::from_static("test-key"));
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(kind(&response), None);
        let usage = usage(&response);
        let text = read(response.into_body()).await;
        assert_eq!(text.starts_with(b"event: interaction.created"), streams);
        let report = usage.report();
        assert!(report.ended && report.failure.is_none(), "{report:?}");
        assert!(report.prompt_tokens.is_some() && report.response_id.is_some(), "{report:?}");
        assert_eq!(report.finish_reason.as_deref(), Some("completed"), "{}", String::from_utf8_lossy(&text));
    }
}

#[tokio::test(start_paused = true)]
async fn the_emulators_troubles_with_answers_are_told_from_good_ones() {
    use tower_gemini::emulator::{Emulator, Trouble, When};
    // One that is told to be stored is made, whatever becomes of it.
    const INTERACTION: &str = r#"{"model":"gemini-2.5-pro","input":"hi","store":true}"#;
    const STREAMED: &str = r#"{"model":"gemini-2.5-pro","input":"hi","stream":true}"#;
    type Case = (&'static str, &'static str, fn() -> Trouble, usize, Option<Kind>, Option<Kind>);
    // The path and body, the trouble, the attempts, the failure at the head, and the one that is noted.
    let cases: [Case; 8] = [
        (GENERATE, PROMPT, Trouble::thoughts_only, 2, None, None),
        (STREAM, PROMPT, Trouble::thoughts_only, 1, None, Some(Kind::EmptyMalformedFunctionCall)),
        (GENERATE, PROMPT, Trouble::continuation, 1, None, None),
        (GENERATE, PROMPT, || Trouble::blocked("ESCALATION"), 1, Some(Kind::ContentBlocked), None),
        (INTERACTIONS, INTERACTION, Trouble::failed, 1, Some(Kind::ServerError), None),
        (INTERACTIONS, INTERACTION, || Trouble::unfinished("incomplete"), 1, None, None),
        (INTERACTIONS, STREAMED, || Trouble::prohibited().as_raw_tail(0), 1, Some(Kind::ContentBlocked), None),
        (INTERACTIONS, STREAMED, || Trouble::cut(1), 1, Some(Kind::StreamCut), None),
    ];
    for (nth, (uri, body, trouble, attempts, at_head, noted)) in cases.into_iter().enumerate() {
        let emulator = Emulator::builder().trouble(When::first(1), trouble()).build();
        let service = ServiceBuilder::new()
            .layer(tower_gemini::ErrorResponseLayer::new())
            .layer(ReplayLayer::new())
            .layer(RetryLayer::default())
            .layer(ClassifyLayer::new())
            .service(emulator.clone());
        let mut request = post_body(uri, body);
        request.headers_mut().insert("x-goog-api-key", HeaderValue::from_static("test-key"));
        let response = service.oneshot(request).await.unwrap();
        let status = response.status();
        assert_eq!(kind(&response), at_head, "case {nth}");
        let usage = outcome(&response).usage().cloned();
        let (data, _) = frames(response.into_body()).await;
        let text = String::from_utf8(data.concat()).unwrap();
        assert_eq!(emulator.journal().len(), attempts, "case {nth}: {text}");
        let failure = usage.and_then(|usage| usage.report().failure);
        assert_eq!(failure.map(|failure| failure.kind()), noted, "case {nth}: {text}");
        // On the stream of an interaction, all that goes wrong is an event, unless nothing was handed over: that is a status.
        let is_told = text.contains("event: error\ndata: {\"error\":{\"code\":");
        assert_eq!(is_told, body == STREAMED && at_head != Some(Kind::StreamCut), "case {nth}: {text}");
        assert_eq!(status == 503, at_head == Some(Kind::StreamCut), "case {nth}: {text}");
    }
}
