//! `ErrorResponseLayer`: the answers to calls that fail before any content, as callers read them.

#[path = "support/answered.rs"]
mod answered;
mod support;

use answered::{Answered, header, send};
use bytes::Bytes;
use http::{
    HeaderValue, Request, Response,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
    response::Parts,
};
use http_body_util::Full;
use parking_lot::Mutex;
use serde_json::{Value, json};
use support::*;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::{
    CircuitBreakerLayer, ClassifyLayer, Error, ErrorResponseLayer, KeyPoolLayer, Outcome, RateLimitLayer, ReplayLayer,
    RetryLayer, TimeoutLayer,
    circuit_breaker::{CircuitBreakers, Trip},
    context::RetryAdvice,
    emulator::{Emulator, Trouble, When},
    error_response::OpenAiErrors,
    failure::{Failure, Kind, TimeoutKind},
    key_pool::{ApiKey, Key, KeyPool},
    quota::Limits,
    rate_limit::Limiter,
    replay::Oversize,
};

const SHOULD_RETRY: &str = "x-should-retry";

fn once(answer: Answer) -> Upstream {
    let answer = Mutex::new(Some(answer));
    Upstream::at_once(move |_| answer.lock().take().expect("asked once"))
}

async fn call<S>(service: S, uri: &str) -> (Parts, Bytes)
where
    S: Service<Request<Full<Bytes>>, Error = std::convert::Infallible>,
    S::Response: Into<Answered>,
{
    send(service, post(uri)).await
}

/// Answers a call by the layer and by the judgement next to the transport.
async fn answered(uri: &str, answer: Response<AnyBody>) -> (Parts, Bytes) {
    answered_by(ErrorResponseLayer::new(), uri, answer).await
}

async fn answered_by(layer: ErrorResponseLayer, uri: &str, answer: Response<AnyBody>) -> (Parts, Bytes) {
    call(ServiceBuilder::new().layer(layer).layer(ClassifyLayer::new()).service(once(Ok(answer))), uri).await
}

fn value(body: &Bytes) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {body:?}"))
}

fn untyped(body: &str) -> Response<AnyBody> {
    Response::new(full(body.to_owned()))
}

fn error_of(body: &Bytes) -> Value {
    match value(body) {
        Value::Array(list) => list[0]["error"].clone(),
        object => object["error"].clone(),
    }
}

fn detail<'a>(error: &'a Value, name: &str) -> Option<&'a Value> {
    let named = |detail: &&Value| detail["@type"] == format!("type.googleapis.com/google.rpc.{name}");
    error["details"].as_array()?.iter().find(named)
}

// === failed before any content ===

#[tokio::test(start_paused = true)]
async fn an_error_in_a_200_gets_its_own_status_on_every_surface() {
    let list = format!("[{BUSY}]");
    let event = format!("data: {BUSY}\n\n");
    let tail = BUSY.replace(',', ",\n");
    let named = r#"{"error":{"code":"service_unavailable","message":"The model is overloaded."}}"#;
    let interaction = format!("event: error\ndata: {{\"event_type\":\"error\",{}\n\n", &named[1..]);
    let created = "event: interaction.created\ndata: {\"interaction\":{\"id\":\"v1_i\",\"status\":\"in_progress\"},\"event_type\":\"interaction.created\"}\n\n";
    let begun = format!("{created}{interaction}");
    let bare = format!("{created}{named}\n");
    let listed = format!("data: [{BUSY}]\n\n");
    let cases: [(&str, &str, &str); 15] = [
        (STREAM, "text/event-stream", &event),
        (STREAM, "text/event-stream", &format!(": hi\n\ndata: {{\"usageMetadata\":{{}}}}\n\n{event}")),
        (STREAM, "text/event-stream", &tail),
        (STREAM, "application/json", BUSY),
        (ARRAY, "application/json", &list),
        (ARRAY, "application/json", &format!("[{{\"usageMetadata\":{{}}}}\n,\n{BUSY}]")),
        (GENERATE, "application/json", BUSY),
        (GENERATE, "application/json", &list),
        (CHAT, "application/json", &list),
        (CHAT, "text/event-stream", &event),
        (CHAT, "text/event-stream", &listed),
        (INTERACTIONS, "application/json", named),
        (INTERACTIONS, "text/event-stream", &interaction),
        (INTERACTIONS, "text/event-stream", &begun),
        (INTERACTIONS, "text/event-stream", &bare),
    ];
    for (uri, content_type, body) in cases {
        for with_length in [false, true] {
            let mut answer = typed(200, content_type, full(body.to_owned()));
            if with_length {
                answer.headers_mut().insert(CONTENT_LENGTH, body.len().into());
            } else {
                answer = answer.map(|_| chunks(body.as_bytes().chunks(7)));
            }
            let (parts, said) = answered(uri, answer).await;
            assert_eq!(parts.status, 503, "{uri} {body}");
            assert_eq!(header(&parts, "content-type"), Some("application/json; charset=UTF-8"));
            assert!(header(&parts, "content-length").is_none_or(|length| length == said.len().to_string()));
            assert_eq!(value(&said).is_array(), uri == ARRAY, "{uri}");
            let error = error_of(&said);
            let code = if uri == INTERACTIONS { "service_unavailable".into() } else { json!(503) };
            assert_eq!(error["code"], code, "{uri} {said:?}");
            assert!(error["message"].as_str().unwrap().starts_with("The model is overloaded."), "{said:?}");
            // The layers outside still see what it was.
            assert!(parts.extensions.get::<Outcome>().unwrap().failure().is_some());
        }
    }
    // Without a type it is read by the call's own shape.
    for (uri, body) in [(STREAM, &event), (GENERATE, &BUSY.to_owned()), (ARRAY, &list)] {
        let (parts, said) = answered(uri, untyped(body)).await;
        assert_eq!((parts.status.as_u16(), error_of(&said)["code"].as_u64()), (503, Some(503)), "{uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_stays_open_behind_its_error_is_not_waited_for() {
    let (feed, body) = fed();
    feed.data(format!("data: {BUSY}\n\n"));
    let (parts, said) = answered(STREAM, sse(any(body))).await;
    assert_eq!((parts.status.as_u16(), error_of(&said)["status"].as_str()), (503, Some("UNAVAILABLE")));
    assert!(!feed.is_live(), "its connection is given up");
}

#[tokio::test(start_paused = true)]
async fn an_error_that_never_ends_is_not_waited_for_in_however_many_pieces_it_comes() {
    let refused = r#"{"error":{"code":400,"message":"no","status":"INVALID_ARGUMENT","details":[{"a":{}}]}}"#;
    for (error, code) in [(BUSY, 503), (refused, 400)] {
        for pieces in [vec![error], vec![&error[..9], &error[9..]], error.split_inclusive('}').collect()] {
            let (feed, body) = fed();
            let service = ErrorResponseLayer::new().layer(once(Ok(typed(code, "application/json", any(body)))));
            let answer = tokio::spawn(call(service, GENERATE));
            for piece in pieces {
                settle().await;
                assert!(!answer.is_finished(), "half an error is none");
                feed.data(piece.to_owned());
            }
            settle().await;
            assert!(answer.is_finished() && !feed.is_live(), "no time has passed");
            let (parts, said) = answer.await.unwrap();
            assert_eq!((parts.status.as_u16(), error_of(&said)["code"].as_u64()), (code, Some(code.into())));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_whose_rest_never_comes_is_answered_after_ten_seconds_with_what_came() {
    for (body, said) in [("{\"error\":{\"co", "JSON that is cut off"), ("", "without a body"), ("too many calls\n", "")]
    {
        let (feed, rest) = fed();
        feed.data(body);
        let service = ErrorResponseLayer::new().layer(once(Ok(typed(429, "text/plain", any(rest)))));
        let begun = tokio::time::Instant::now();
        let (parts, text) = call(service, GENERATE).await;
        assert_eq!((parts.status.as_u16(), begun.elapsed()), (429, secs(10)), "{body}");
        match said {
            "" => assert_eq!(text, body),
            _ => assert!(error_of(&text)["message"].as_str().unwrap().contains(said), "{text:?}"),
        }
        assert!(!feed.is_live());
    }
}

#[tokio::test(start_paused = true)]
async fn a_good_answer_is_never_replaced_whatever_was_judged() {
    let empty = || Failure::from_answer(None, None, false).unwrap();
    let long = "x".repeat(70_000);
    for text in ["hi", &long] {
        let value = format!(r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}]}}}}]}}"#);
        for body in [
            value.clone(),
            format!("[{value}]"),
            format!("data: {value}\n\n"),
            format!("data: {{}}\n\ndata: {value}\n\n"),
        ] {
            let answer = judged(json(200, body.clone()), empty());
            let (parts, said) = call(ErrorResponseLayer::new().layer(once(Ok(answer))), GENERATE).await;
            assert_eq!(parts.status, 200, "{}", said.len());
            assert!(said == body);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_the_judgement_has_missed_has_its_own_status_and_hints() {
    let empty = || Failure::from_answer(None, None, false).unwrap();
    let error = r#"{"error":{"code":429,"message":"no","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"7s"}]}}"#;
    for body in [error.to_owned(), format!("[{error}]"), format!("data: {error}\n\n")] {
        let answer = judged(json(200, body.clone()), empty());
        let (parts, said) = call(ErrorResponseLayer::new().layer(once(Ok(answer))), GENERATE).await;
        assert_eq!((parts.status.as_u16(), header(&parts, "retry-after")), (429, Some("7")), "{body}");
        let said = error_of(&said);
        assert_eq!((said["code"].as_u64(), said["status"].as_str()), (Some(429), Some("RESOURCE_EXHAUSTED")));
        let told = parts.extensions.get::<Outcome>().unwrap().failure().unwrap().code();
        assert_eq!(told, 429, "the log learns of it");
    }
    // One that is about the server's own key is the operator's.
    let refused = r#"{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com"}]}}"#;
    let upstream =
        Upstream::at_once(move |_| Ok(judged(json(200, refused), Failure::from_answer(None, None, false).unwrap())));
    let pooled =
        ServiceBuilder::new().layer(ErrorResponseLayer::new()).layer(KeyPoolLayer::new(pool(1))).service(upstream);
    let (parts, said) = call(pooled, GENERATE).await;
    assert_eq!(parts.status, 503);
    assert!(!said.windows(7).any(|part| part == b"API key"), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn an_error_in_a_200_of_more_than_is_read_has_its_status_and_passes() {
    let long = format!(
        r#"{{"error":{{"code":429,"status":"RESOURCE_EXHAUSTED","message":"slow down","details":["{}"]}}}}"#,
        "x".repeat(70_000)
    );
    let failure = Failure::from_event(br#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"slow down"}}"#);
    let answer = judged(json(200, long.clone()), failure);
    let (parts, said) = call(ErrorResponseLayer::new().layer(once(Ok(answer))), GENERATE).await;
    assert_eq!((parts.status.as_u16(), header(&parts, "retry-after")), (429, Some("30")));
    assert!(said == long);
    let (parts, said) = answered(GENERATE, json(200, long.clone())).await;
    assert_eq!((parts.status.as_u16(), said.len()), (429, long.len()));
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_is_told_with_the_status_that_it_came_with() {
    for code in [204, 205] {
        let (parts, said) = answered(GENERATE, status(code)).await;
        assert_eq!(parts.status, 502);
        assert_eq!(error_of(&said)["message"], format!("the upstream answered {code} with an empty body"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_errors_own_members_are_kept_and_an_odd_code_is_put_right() {
    let error = r#"{"error":{"code":429,"message":"Please retry in 32.1s.","status":"RESOURCE_EXHAUSTED","details":[
        {"@type":"type.googleapis.com/google.rpc.Help","links":[{"url":"https://ai.google.dev"}]},
        {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"32s"},
        {"@type":"x/other","kept":1}]}}"#;
    let (parts, said) = answered(STREAM, sse(full(format!("data: {}\n\n", error.replace('\n', ""))))).await;
    assert_eq!((parts.status.as_u16(), header(&parts, "retry-after")), (429, Some("33")));
    let said = error_of(&said);
    assert_eq!(said["details"], value(&Bytes::from(error))["error"]["details"]);
    assert_eq!(said["message"], "Please retry in 32.1s. Try again in 33 s.");

    for (code, status) in [("200", 500), ("0", 500), ("\"rate_limit_exceeded\"", 429), ("null", 500), ("14", 503)] {
        let body = format!(r#"{{"error":{{"code":{code},"message":"odd"}}}}"#);
        let (parts, said) = answered(GENERATE, json(200, body)).await;
        let error = error_of(&said);
        assert_eq!((parts.status.as_u16(), error["code"].as_u64()), (status, Some(status.into())), "{code}");
        assert!(error["status"].as_str().unwrap().bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'));
    }
    // A bare text is an error, too.
    let (parts, said) = answered(GENERATE, json(200, r#"{"error":{"message":"quota exceeded"}}"#)).await;
    assert!(parts.status.as_u16() >= 400 && error_of(&said)["code"] == parts.status.as_u16());
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_anything_is_a_502_that_says_what_came() {
    for (uri, content_type, body, what) in [
        (STREAM, "text/event-stream", "", "an empty stream"),
        (STREAM, "text/event-stream", ": ping\n\n", "an empty stream"),
        (STREAM, "text/event-stream", "data: {}\n\n", "a stream of empty events"),
        (STREAM, "text/event-stream", "data: {\"usageMetadata\":{\"totalTokenCount\":1}}\n\n", "without a reason"),
        (ARRAY, "application/json", "", "an empty stream"),
        (ARRAY, "application/json", "[]", "[]"),
        (GENERATE, "application/json", "", "an empty body"),
        (GENERATE, "application/json", " {} ", "{}"),
        (GENERATE, "application/json", "{\"candidates\":[]}", "without a reason"),
        (
            GENERATE,
            "application/json",
            r#"{"candidates":[{"content":{"parts":[{"text":"hm","thought":true}]}}]}"#,
            "without a reason",
        ),
        (CHAT, "application/json", "", "an empty body"),
        (CHAT, "text/event-stream", "", "a stream"),
    ] {
        let (parts, said) = answered(uri, typed(200, content_type, full(body.to_owned()))).await;
        let error = error_of(&said);
        assert_eq!((parts.status.as_u16(), error["code"].as_u64()), (502, Some(502)), "{uri} {body}");
        assert_eq!(error["status"], "UNAVAILABLE");
        let message = error["message"].as_str().unwrap();
        let expected = if uri == CHAT { "an empty" } else { what };
        assert!(message.starts_with("the upstream answered 200 with ") && message.contains(expected), "{message}");
    }
    // Cut off before its content, it was no answer either.
    let (parts, said) = answered(GENERATE, json(200, r#"{"candidates":[{"content":{"par"#)).await;
    assert_eq!((parts.status.as_u16(), error_of(&said)["code"].as_u64()), (503, Some(503)));
}

#[tokio::test(start_paused = true)]
async fn a_verdict_is_an_answer() {
    let finish = |reason: &str| format!(r#"{{"candidates":[{{"content":{{}},"finishReason":"{reason}"}}]}}"#);
    let blocked = r#"{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"}}"#;
    let failed = r#"{"id":"v1_i","object":"interaction","status":"failed","error":{"code":"internal","message":"no"}}"#;
    let completed = "event: interaction.completed\ndata: {\"interaction\":{\"id\":\"v1_i\",\"status\":\"failed\"},\"event_type\":\"interaction.completed\"}\n\n";
    for body in ["SAFETY", "MAX_TOKENS", "MALFORMED_FUNCTION_CALL", "MISSING_THOUGHT_SIGNATURE", "OTHER", "NO_IMAGE"]
        .map(finish)
        .into_iter()
        .chain([blocked.to_owned()])
    {
        let (parts, said) = answered(GENERATE, json(200, body.clone())).await;
        assert_eq!((parts.status.as_u16(), &said), (200, &Bytes::from(body.clone())));
        assert_eq!(header(&parts, "x-should-retry").or(header(&parts, "retry-after")), None);
        let event = format!("data: {body}\n\n");
        let (parts, said) = answered(STREAM, sse(full(event.clone()))).await;
        assert_eq!((parts.status.as_u16(), said), (200, Bytes::from(event)));
    }
    let (parts, said) = answered(INTERACTIONS, json(200, failed)).await;
    assert_eq!((parts.status.as_u16(), said), (200, Bytes::from(failed)));
    let (parts, said) = answered(INTERACTIONS, sse(full(completed))).await;
    assert_eq!((parts.status.as_u16(), said), (200, Bytes::from(completed)));
    let stopped = r#"{"choices":[{"message":{"role":"assistant"},"finish_reason":"length"}]}"#;
    let (parts, said) = answered(CHAT, json(200, stopped)).await;
    assert_eq!((parts.status.as_u16(), said), (200, Bytes::from(stopped)));
}

#[tokio::test(start_paused = true)]
async fn a_filters_event_on_an_interactions_stream_passes_however_its_type_is_written() {
    let event = "event: error\ndata: {\"error\":{\"code\":\"content_blocked\",\"message\":\"no\"},\"event_type\":\"error\"}\n\n";
    for content_type in ["text/event-stream", " Text/Event-Stream;charset=utf-8"] {
        let upstream = once(Ok(typed(200, content_type, full(event))));
        let service =
            ServiceBuilder::new().layer(ErrorResponseLayer::new()).layer(ClassifyLayer::new()).service(upstream);
        let response = service.oneshot(post(INTERACTIONS)).await.unwrap();
        assert_eq!(response.status(), 200, "{content_type}");
        assert_eq!(frames(response.into_body()).await.0.concat(), event.as_bytes(), "{content_type}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_stops_before_its_first_word_is_empty() {
    let bodies = [
        r#"{"candidates":[{"content":{},"finishReason":"STOP"}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"text":""}]},"finishReason":"STOP"}]}"#,
        r#"{"candidates":[{"finishReason":"FINISH_REASON_UNSPECIFIED"}],"usageMetadata":{"promptTokenCount":3}}"#,
    ];
    for body in bodies {
        for (uri, response) in [(GENERATE, json(200, body)), (STREAM, sse(full(format!("data: {body}\n\n"))))] {
            let (parts, said) = answered(uri, response).await;
            let message = error_of(&said)["message"].as_str().unwrap().to_owned();
            assert_eq!(parts.status, 502, "{uri} {body}");
            assert!(message.contains("without content and without a reason"), "{message}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_commit_the_status_stays() {
    let stream = event("a") + &format!("data: {BUSY}\n\n");
    let layers = ServiceBuilder::new().layer(ErrorResponseLayer::new()).layer(ClassifyLayer::new());
    let response = layers.service(once(Ok(sse(chunks([&stream]))))).oneshot(post(STREAM)).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key(RETRY_AFTER) && !response.headers().contains_key(SHOULD_RETRY));
    let (data, error) = frames(response.into_body()).await;
    assert_eq!(data.concat(), stream.as_bytes());
    assert!(error.is_some(), "its connection breaks");
}

#[tokio::test(start_paused = true)]
async fn a_key_in_an_error_that_was_a_200_is_masked() {
    let body = format!(r#"{{"error":{{"code":403,"message":"the key {KEY} of secret-of-mine"}}}}"#);
    let layer = ErrorResponseLayer::new().secret("secret-of-mine");
    let (parts, said) = answered_by(layer, GENERATE, json(200, body)).await;
    let message = error_of(&said)["message"].as_str().unwrap().to_owned();
    assert_eq!((parts.status.as_u16(), message), (403, format!("the key {} of {}", "*".repeat(39), "*".repeat(14))));
}

#[tokio::test(start_paused = true)]
async fn no_half_of_a_secret_is_left_where_a_text_is_cut() {
    const SECRET: &str = "secret-of-no-known-shape";
    for before in 260..320 {
        let page = format!("<html><p>{}{SECRET} and more</html>", "x".repeat(before));
        let layer = ErrorResponseLayer::new().secret(SECRET);
        let (_, said) = answered_by(layer, GENERATE, typed(502, "text/html", full(page))).await;
        assert!(!String::from_utf8_lossy(&said).contains("xsecr"), "{before}: {said:?}");
    }
}

// === errors that no SDK can read ===

const PAGE: &str = "<!DOCTYPE html><html><head><title>Error 502 (Server Error)!!1</title><style>*{margin:0}</style></head>\
                    <body><p>The server encountered a temporary error.</body></html>";

#[tokio::test(start_paused = true)]
async fn an_error_that_no_sdk_can_read_is_written_anew_with_its_status() {
    let cases: [(u16, Option<&str>, &str, &str); 11] = [
        (503, Some("application/json"), "", "the upstream answered 503 without a body"),
        (502, None, "", "the upstream answered 502 without a body"),
        (502, Some("application/json"), PAGE, "with a page: Error 502 (Server Error)!!1 The server encountered"),
        (
            502,
            Some("text/html; charset=utf-8"),
            PAGE,
            "with a page: Error 502 (Server Error)!!1 The server encountered",
        ),
        (
            500,
            Some("application/json"),
            r#"{"error":{"code":500,"message":"Internal err"#,
            "cannot be read: Internal err",
        ),
        (500, Some("application/json"), r#"{"detail":"no route"}"#, "cannot be read: no route"),
        (500, Some("application/json"), "[]", "with []"),
        (500, Some("application/json"), r#"{"a":1}"#, "with JSON that is no error"),
        (500, Some("application/json"), "upstream reset", "cannot be read: upstream reset"),
        (500, Some("application/json"), r#"{"error":"spelt out"}"#, "cannot be read: spelt out"),
        (404, Some("application/json"), "null", "the upstream answered 404 with an error that cannot be read: null"),
    ];
    for uri in [GENERATE, STREAM, ARRAY, CHAT, INTERACTIONS] {
        for (status, content_type, body, words) in cases {
            let mut answer = Response::builder().status(status).body(full(body.to_owned())).unwrap();
            if let Some(content_type) = content_type {
                answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            }
            answer.headers_mut().insert(CONTENT_LENGTH, body.len().into());
            let (parts, said) = answered(uri, answer).await;
            assert_eq!(parts.status, status, "{uri} {body}");
            assert_eq!(header(&parts, "content-type"), Some("application/json; charset=UTF-8"));
            assert_eq!(header(&parts, "content-length"), None);
            let error = error_of(&said);
            assert!(error["message"].as_str().unwrap().contains(words), "{uri} {error}");
            if uri == INTERACTIONS {
                assert!(error["code"].is_string());
            } else {
                assert_eq!(error["code"], status, "{uri} {error}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_can_be_read_goes_on_as_it_came() {
    let large = format!(r#"{{"error":{{"code":400,"message":"{}"}}}}"#, "x".repeat(70_000));
    let refused = r#"{ "error": {"code": 400, "message": "bad field", "status": "INVALID_ARGUMENT"} }"#;
    for (uri, content_type, body) in [
        (GENERATE, "application/json", refused),
        (ARRAY, "application/json", &format!("[{refused}]")),
        (GENERATE, "text/plain", "no healthy upstream"),
        (GENERATE, "application/json", &large),
        (INTERACTIONS, "application/json", r#"{"error":{"code":"invalid_request","message":"no"}}"#),
        ("/somewhere/else", "text/html", PAGE),
    ] {
        let mut answer = typed(400, content_type, full(body.to_owned()));
        answer.headers_mut().insert(CONTENT_LENGTH, body.len().into());
        let (parts, said) = answered(uri, answer).await;
        assert_eq!((parts.status.as_u16(), header(&parts, "content-type")), (400, Some(content_type)));
        assert!(said == body, "{uri} {said:?}");
        assert_eq!(header(&parts, "content-length"), Some(&*body.len().to_string()));
        // Nothing is said where no waiting helps.
        assert!(!parts.headers.contains_key(RETRY_AFTER) && !parts.headers.contains_key(SHOULD_RETRY));
    }
    // Nobody looks into what a proxy has compressed, to change it.
    let mut packed = typed(503, "application/json", full(&b"\x1f\x8b\x08\x00"[..]));
    packed.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    let (parts, said) = answered(GENERATE, packed).await;
    assert_eq!((header(&parts, "content-encoding"), &said[..]), (Some("gzip"), &b"\x1f\x8b\x08\x00"[..]));
    assert_eq!(header(&parts, "retry-after"), Some("10"));
}

// === the OpenAI-compatible surface ===

#[tokio::test(start_paused = true)]
async fn openais_clients_get_objects_with_message_type_and_code() {
    for (status, kind) in [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (503, "server_error"),
    ] {
        let body = format!(r#"[{{"error":{{"code":{status},"message":"no","status":"X","details":[{{"kept":1}}]}}}}]"#);
        let (parts, said) = answered(CHAT, json(status, body.clone())).await;
        let error = &value(&said)["error"];
        assert_eq!((parts.status.as_u16(), &error["code"], &error["type"]), (status, &json!(status), &json!(kind)));
        assert!(error["message"].as_str().unwrap().starts_with("no"));
        assert_eq!(
            (&error["param"], &error["status"], &error["details"][0]),
            (&Value::Null, &json!("X"), &json!({"kept": 1}))
        );

        let layer = ErrorResponseLayer::new().openai_errors(OpenAiErrors::GoogleLists);
        let (_, said) = answered_by(layer, CHAT, json(status, body.clone())).await;
        assert!(value(&said).is_array() && error_of(&said).get("type").is_none(), "{said:?}");
        if status < 429 {
            assert_eq!(said, body);
        }
    }
    // The layer's own errors are written in the same way.
    for (errors, is_list) in [(OpenAiErrors::Objects, false), (OpenAiErrors::GoogleLists, true)] {
        let layer = ErrorResponseLayer::new().openai_errors(errors);
        let refused = Error::refusal("room", Failure::local(Kind::CircuitOpen, "it is open").with_hint(secs(3)));
        let (_, said) = call(layer.layer(once(Err(refused.into()))), CHAT).await;
        assert_eq!(value(&said).is_array(), is_list);
        let error = error_of(&said);
        assert_eq!((&error["code"], &error["type"]), (&json!(503), &json!("server_error")));
        assert_eq!(error["message"], "it is open; try again in 3 s");
        assert!(detail(&error, "ErrorInfo").is_some());
    }
    // One that has a type is OpenAI's own.
    let own = r#"{"error":{"message":"no","type":"tokens","code":"rate_limit","param":null}}"#;
    let (_, said) = answered(CHAT, json(400, own)).await;
    assert_eq!(said, own);
}

#[tokio::test(start_paused = true)]
async fn the_last_event_of_an_openai_stream_has_a_type() {
    let delta = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    let service = ServiceBuilder::new()
        .layer(ErrorResponseLayer::new())
        .layer(ClassifyLayer::new())
        .service(once(Ok(sse(broken([delta])))));
    let (data, _) = frames(service.oneshot(post(CHAT)).await.unwrap().into_body()).await;
    let text = String::from_utf8(data.concat()).unwrap();
    let last = text.strip_prefix(delta).unwrap().strip_prefix("data: ").unwrap();
    let error = &serde_json::from_str::<Value>(last.trim()).unwrap()["error"];
    assert_eq!((&error["code"], &error["type"]), (&json!(503), &json!("server_error")));
}

// === when to come again ===

macro_rules! stack {
    ($upstream:expr) => {
        ServiceBuilder::new()
            .layer(ErrorResponseLayer::new())
            .layer(TimeoutLayer::total(secs(285)))
            .layer(ReplayLayer::new())
            .layer(RetryLayer::default())
            .layer(ClassifyLayer::new())
            .service($upstream)
    };
}

#[tokio::test(start_paused = true)]
async fn a_stack_that_has_spent_its_attempts_says_so_in_every_way() {
    for (uri, bodies) in [(GENERATE, BUSY.to_owned()), (STREAM, BUSY.to_owned()), (CHAT, format!("[{BUSY}]"))] {
        let body = bodies.clone();
        let upstream = Upstream::at_once(move |_| Ok(json(503, body.clone())));
        let (parts, said) = call(stack!(upstream.clone()), uri).await;
        assert!(upstream.calls() > 1);
        assert_eq!(parts.status, 503);
        assert_eq!((header(&parts, SHOULD_RETRY), header(&parts, "retry-after")), (Some("false"), Some("10")));
        let message = error_of(&said)["message"].as_str().unwrap().to_owned();
        assert_eq!(message, "The model is overloaded. Please try again later. Try again in 10 s.");
    }
    // Nobody has retried: the caller may.
    let (parts, _) = answered(GENERATE, busy()).await;
    assert_eq!((header(&parts, SHOULD_RETRY), header(&parts, "retry-after")), (None, Some("10")));
    // An error in a 200, too.
    let upstream = Upstream::at_once(|_| Ok(sse(full(format!("data: {BUSY}\n\n")))));
    let (parts, _) = call(stack!(upstream.clone()), STREAM).await;
    assert_eq!((parts.status.as_u16(), header(&parts, SHOULD_RETRY)), (503, Some("false")));
}

#[tokio::test(start_paused = true)]
async fn every_429_503_and_504_says_when_to_come_again() {
    for status in [429, 503, 504] {
        for body in ["", "{}", r#"{"error":{"code":1,"message":"no"}}"#, "<html><p>busy</html>"] {
            let (parts, said) = answered(GENERATE, json(status, body)).await;
            let after: u64 = header(&parts, "retry-after").expect(body).parse().unwrap();
            assert!((1..=60).contains(&after), "{after}");
            // Of a quota that nobody knows it is not said in words: LangChain would make seven requests of one.
            let message = error_of(&said)["message"].as_str().unwrap().to_ascii_lowercase();
            assert_eq!(message.contains(&format!("try again in {after} s")), status != 429, "{message}");
        }
    }
    for (kind, layer) in [(Kind::Timeout(TimeoutKind::Attempt), "timeout"), (Kind::Connect, "classify")] {
        let refused = Error::refusal(layer, Failure::local(kind, "no"));
        let (parts, _) = call(ErrorResponseLayer::new().layer(once(Err(refused.into()))), GENERATE).await;
        assert_eq!(header(&parts, "retry-after"), Some("10"), "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstreams_retry_after_is_put_into_the_form_that_all_clients_read() {
    for (said, expected) in [
        ("Mon, 21 Oct 2126 07:28:00 GMT", "60"),
        ("86400", "60"),
        ("0", "1"),
        ("7", "7"),
        ("in a while", "10"),
        ("-5", "10"),
        ("1.5", "10"),
    ] {
        let mut answer = json(503, r#"{"error":{"code":503,"message":"no","status":"UNAVAILABLE"}}"#);
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(said));
        answer.headers_mut().insert("retry-after-ms", HeaderValue::from_static("5"));
        let (parts, _) = answered(GENERATE, answer).await;
        assert_eq!(header(&parts, "retry-after"), Some(expected), "{said}");
        assert_eq!(header(&parts, "retry-after-ms"), None, "clients would believe it first");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_no_time_mends_tells_nobody_to_come_again() {
    for code in [400, 403, 404] {
        let mut answer = json(code, format!(r#"{{"error":{{"code":{code},"message":"no","status":"X"}}}}"#));
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("3600"));
        answer.headers_mut().insert("retry-after-ms", HeaderValue::from_static("5"));
        let (parts, _) = answered(GENERATE, answer).await;
        assert_eq!((header(&parts, "retry-after"), header(&parts, "retry-after-ms")), (None, None), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_known_wait_is_a_detail_of_the_upstreams_own_error_unless_there_is_one() {
    let minute = |details: &str| {
        format!(
            r#"{{"error":{{"code":429,"message":"Please retry in 21.5s.","status":"RESOURCE_EXHAUSTED"{details}}}}}"#
        )
    };
    let (parts, said) = answered(GENERATE, json(429, minute(""))).await;
    let error = error_of(&said);
    assert_eq!((header(&parts, "retry-after"), &error["details"][0]["retryDelay"]), (Some("22"), &json!("21.5s")));
    let own = r#","details":[{"kept":1},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"21s"}]"#;
    let (_, said) = answered(GENERATE, json(429, minute(own))).await;
    let expected: Value = serde_json::from_str(&format!("{{{}}}", &own[1..])).unwrap();
    assert_eq!(error_of(&said)["details"], expected["details"]);
}

#[tokio::test(start_paused = true)]
async fn a_days_quota_is_no_short_wait_in_any_words() {
    let day = r#"{"error":{"code":429,"message":"You exceeded your current quota.","status":"RESOURCE_EXHAUSTED","details":[{"violations":[{"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier","quotaValue":"20"}]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"5s"}]}}"#;
    let mut answer = json(429, day);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    let (parts, said) = answered(GENERATE, answer).await;
    assert_eq!((header(&parts, "retry-after"), header(&parts, SHOULD_RETRY)), (Some("60"), Some("false")));
    let error = error_of(&said);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(" UTC, midnight Pacific, about ") && !message.contains("try again in"), "{message}");
    assert_eq!(error["details"], value(&Bytes::from(day))["error"]["details"]);
    // Another project is free before the day ends.
    let failure = Failure::from_response(http::StatusCode::TOO_MANY_REQUESTS, &http::HeaderMap::new(), day.as_bytes());
    let mut answer = json(429, day);
    answer.extensions_mut().insert(Outcome::default().with_failure(failure).with_retry(RetryAdvice::After(secs(9))));
    let (parts, said) = call(ErrorResponseLayer::new().layer(once(Ok(answer))), GENERATE).await;
    assert_eq!((header(&parts, "retry-after"), header(&parts, SHOULD_RETRY)), (Some("9"), None));
    assert!(error_of(&said)["message"].as_str().unwrap().ends_with("Try again in 9 s."));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_a_layer_says_its_own_time() {
    // The limiter's window, outside and inside of retries.
    let limiter = || Limiter::builder().limits(Limits::new().requests_per_minute(1)).reject().build();
    let hello = || Upstream::at_once(|_| Ok(hello()));
    let alone = ServiceBuilder::new().layer(ErrorResponseLayer::new()).layer(RateLimitLayer::new(limiter()));
    let service = alone.layer(ClassifyLayer::new()).service(hello());
    assert_eq!(call(service.clone(), GENERATE).await.0.status, 200);
    tokio::time::advance(secs(20)).await;
    let (parts, said) = call(service, GENERATE).await;
    assert_eq!((parts.status.as_u16(), header(&parts, SHOULD_RETRY)), (429, None));
    let after: u64 = header(&parts, "retry-after").unwrap().parse().unwrap();
    assert!((35..=45).contains(&after), "{after}");
    let error = error_of(&said);
    assert!(error["message"].as_str().unwrap().ends_with(&format!("; try again in {after} s")), "{error}");
    assert!(error["message"].as_str().unwrap().contains("and nobody waits"), "{error}");

    let service = ServiceBuilder::new()
        .layer(ErrorResponseLayer::new())
        .layer(ReplayLayer::new())
        .layer(RetryLayer::default())
        .layer(RateLimitLayer::new(limiter()))
        .layer(ClassifyLayer::new())
        .service(hello());
    assert_eq!(call(service.clone(), GENERATE).await.0.status, 200);
    let (parts, _) = call(service, GENERATE).await;
    assert_eq!((parts.status.as_u16(), header(&parts, SHOULD_RETRY)), (429, Some("false")));

    // The breaker's remaining time.
    let service = ServiceBuilder::new()
        .layer(ErrorResponseLayer::new())
        .layer(CircuitBreakerLayer::new(CircuitBreakers::builder().trip(Trip::consecutive(2)).build().unwrap()))
        .layer(ClassifyLayer::new())
        .service(Upstream::at_once(|_| Ok(busy())));
    let mut refused = None;
    for _ in 0..200 {
        let (parts, said) = call(service.clone(), GENERATE).await;
        if error_of(&said)["message"].as_str().unwrap().contains("circuit") {
            refused = Some((parts, said));
            break;
        }
    }
    let (parts, said) = refused.expect("the circuit opens");
    let after = header(&parts, "retry-after").unwrap();
    assert!(error_of(&said)["message"].as_str().unwrap().ends_with(&format!("; try again in {after} s")));
    assert!(detail(&error_of(&said), "RetryInfo").is_some());
}

// === what callers are told of keys ===

fn pool(keys: usize) -> KeyPool {
    let key = |nth: usize| {
        Key::new(ApiKey::new(format!("AIza-{nth}")).unwrap()).project(format!("secret-project-{nth}")).name("first-key")
    };
    (0..keys).fold(KeyPool::builder(), |pool, nth| pool.key(key(nth))).build().unwrap()
}

macro_rules! pooled {
    ($pool:expr, $upstream:expr) => {
        ServiceBuilder::new()
            .layer(ErrorResponseLayer::new())
            .layer(ReplayLayer::new())
            .layer(RetryLayer::default())
            .layer(KeyPoolLayer::new($pool))
            .layer(ClassifyLayer::new())
            .service($upstream)
    };
}

fn refusal(code: u16, reason: &str, message: &str) -> String {
    let status = if code == 400 { "INVALID_ARGUMENT" } else { "PERMISSION_DENIED" };
    json!({"error": {"code": code, "message": message, "status": status, "details": [{
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "googleapis.com",
        "metadata": {"consumer": "projects/123456789012", "service": "generativelanguage.googleapis.com"},
    }]}})
    .to_string()
}

#[tokio::test(start_paused = true)]
async fn bad_keys_of_the_server_are_the_operators_trouble_from_the_first_call_on() {
    for (code, reason, message) in [
        (400, "API_KEY_INVALID", "API key not valid. Please pass a valid API key."),
        (403, "CONSUMER_SUSPENDED", "Consumer 'projects/123456789012' has been suspended."),
        (403, "SERVICE_DISABLED", "Generative Language API has not been used in project 123456789012 before."),
        (403, "API_KEY_SERVICE_BLOCKED", "Requests to this API are blocked."),
        (401, "ACCESS_TOKEN_EXPIRED", "Request had invalid authentication credentials."),
    ] {
        let body = refusal(code, reason, message);
        for (keys, uri) in [(1, GENERATE), (2, STREAM), (1, CHAT), (1, INTERACTIONS)] {
            let said = body.clone();
            let upstream = Upstream::at_once(move |_| Ok(json(code, said.clone())));
            let pool = pool(keys);
            for nth in 0..6 {
                let (parts, said) = call(pooled!(pool.clone(), upstream.clone()), uri).await;
                assert_eq!(parts.status, 503, "{reason} {uri} {nth}: {said:?}");
                assert_eq!(
                    (header(&parts, "retry-after"), header(&parts, SHOULD_RETRY)),
                    (Some(if uri == INTERACTIONS { "8" } else { "60" }), Some("false"))
                );
                let error = error_of(&said);
                let words = "the server's own credentials are refused upstream; its operator has to act";
                assert_eq!(error["message"], words);
                let code = if uri == INTERACTIONS { json!("unavailable") } else { json!(503) };
                assert_eq!(error["code"], code);
                let text = String::from_utf8_lossy(&said);
                for secret in ["123456789012", "secret-project", "first-key", "API key"] {
                    assert!(!text.contains(secret), "{text}");
                }
                // The outcome tells its readers the truth.
                let failure = parts.extensions.get::<Outcome>().unwrap().failure().unwrap().clone();
                assert!(failure.kind() != Kind::Unavailable && failure.kind() != Kind::Overloaded, "{failure}");
            }
        }
        // A caller's own key is the caller's own trouble.
        let (parts, said) = answered(GENERATE, json(code, body.clone())).await;
        assert_eq!((parts.status.as_u16(), &said[..]), (code, body.as_bytes()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_the_caller_may_have_caused_is_handed_on_without_the_project() {
    let body = refusal(
        403,
        "IAM_PERMISSION_DENIED",
        "You do not have permission to access the File x of projects/my-project-1 or it may not exist.",
    );
    let upstream = move || {
        let body = body.clone();
        Upstream::at_once(move |_| Ok(json(403, body.clone())))
    };
    let (parts, said) = call(pooled!(pool(1), upstream()), GENERATE).await;
    assert_eq!(parts.status, 403);
    let error = error_of(&said);
    assert_eq!(
        error["message"],
        "You do not have permission to access the File x of projects/[hidden] or it may not exist."
    );
    assert_eq!(detail(&error, "ErrorInfo").unwrap()["metadata"]["consumer"], "projects/[hidden]");
    // A caller that brings its own key knows its project.
    let alone = ServiceBuilder::new().layer(ErrorResponseLayer::new()).layer(ClassifyLayer::new()).service(upstream());
    let (_, said) = call(alone, GENERATE).await;
    assert!(said.windows(12).any(|part| part == b"my-project-1"));
}

#[tokio::test(start_paused = true)]
async fn no_layer_tells_a_caller_of_keys_or_projects() {
    // The pool, out of quota.
    let day = r#"{"error":{"code":429,"message":"You exceeded your current quota. consumer: 'project_number:123456789012'","status":"RESOURCE_EXHAUSTED","details":[{"violations":[{"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier","quotaValue":"20"}]}]}}"#;
    let pool_of_two = pool(2);
    for nth in 0..3 {
        let upstream = Upstream::at_once(move |_| Ok(json(429, day)));
        let (parts, said) = call(pooled!(pool_of_two.clone(), upstream), GENERATE).await;
        assert_eq!(parts.status, 429);
        let text = String::from_utf8_lossy(&said).into_owned();
        for secret in ["123456789012", "secret-project", "first-key", "AIza"] {
            assert!(!text.contains(secret), "{nth}: {text}");
        }
        let outcome = parts.extensions.get::<Outcome>().unwrap();
        if outcome.failure().unwrap().kind() == Kind::KeysExhausted {
            assert!(outcome.failure().unwrap().message().contains("secret-project-1"), "operators are told");
        }
    }
    // The limiter, behind the pool.
    let limiter = Limiter::builder().limits(Limits::new().requests_per_minute(1)).reject().build();
    let service = ServiceBuilder::new()
        .layer(ErrorResponseLayer::new())
        .layer(KeyPoolLayer::new(pool(1)))
        .layer(RateLimitLayer::new(limiter))
        .layer(ClassifyLayer::new())
        .service(Upstream::at_once(|_| Ok(hello())));
    call(service.clone(), GENERATE).await;
    let (parts, said) = call(service, GENERATE).await;
    let text = String::from_utf8_lossy(&said);
    assert!(parts.status == 429 && !text.contains("secret-project") && text.contains("gemini-2.5-pro"), "{text}");
    let failure = parts.extensions.get::<Outcome>().unwrap().failure().unwrap().clone();
    assert!(failure.message().contains("secret-project-0"), "{failure}");
}

// === messages ===

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_large_is_told_which_setting_to_raise() {
    let service = ServiceBuilder::new()
        .layer(ErrorResponseLayer::new())
        .layer(ReplayLayer::new().max_body(10).oversize(Oversize::Refuse))
        .service(Upstream::at_once(|_| Ok(hello())));
    let (parts, said) = call(service, GENERATE).await;
    assert_eq!(parts.status, 413);
    let message = error_of(&said)["message"].as_str().unwrap().to_owned();
    assert!(message.contains("larger than 10 bytes") && message.contains("max_body"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn the_emulators_troubles_are_readable_on_every_surface() {
    for trouble in [Trouble::empty_bad_gateway(), Trouble::html_bad_gateway(), Trouble::overloaded()] {
        for uri in [GENERATE, STREAM, ARRAY] {
            let upstream = Emulator::builder().keyless().trouble(When::always(), trouble.clone()).build();
            let service =
                ServiceBuilder::new().layer(ErrorResponseLayer::new()).layer(ClassifyLayer::new()).service(upstream);
            let (parts, said) = call(service, uri).await;
            assert_eq!(error_of(&said)["code"], parts.status.as_u16(), "{} {uri}", trouble.name());
        }
    }
}
