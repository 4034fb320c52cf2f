//! `KeepAliveLayer`: what passes while a stream is silent, and what becomes of the call behind it.

mod support;

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response,
    header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, RETRY_AFTER},
};
use http_body::{Body, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use serde_json::Value;
use support::*;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneService};
use tower_gemini::{
    BoxError, ClassifyLayer, ErrorResponseLayer, KeepAliveLayer, Outcome, ReplayLayer, RetryLayer, RetryPolicy,
    error_response::StreamEnding, failure::Kind,
};

const EVERY: Duration = Duration::from_secs(15);

type Server = BoxCloneService<Request<Full<Bytes>>, Response<AnyBody>, BoxError>;

/// Wraps an upstream in this layer alone.
fn alone(upstream: Upstream) -> Server {
    let service = KeepAliveLayer::new(EVERY).layer(upstream);
    Server::new(ServiceExt::<Request<Full<Bytes>>>::map_response(service, |response| response.map(any)))
}

/// Wraps an upstream in the layers of a server.
fn server(upstream: Upstream) -> Server {
    let service = ServiceBuilder::new()
        .layer(KeepAliveLayer::new(EVERY))
        .layer(ErrorResponseLayer::new())
        .layer(ReplayLayer::new())
        .layer(RetryLayer::new(RetryPolicy::default().max_attempts(4)))
        .layer(ClassifyLayer::new())
        .service(upstream);
    Server::new(service.map_response(|response| response.map(any)).map_err(|never| match never {}))
}

/// Makes an upstream that answers after some seconds.
fn late(seconds: u64, answer: impl Fn() -> Answer + Send + Sync + 'static) -> Upstream {
    let answer = Arc::new(answer);
    Upstream::new(move |_, _| {
        let answer = answer.clone();
        async move {
            sleep(secs(seconds)).await;
            answer()
        }
    })
}

/// Makes an upstream whose answer has this body.
fn streaming(body: AnyBody) -> Upstream {
    let body = parking_lot::Mutex::new(Some(body));
    Upstream::at_once(move |_| Ok(sse(body.lock().take().expect("asked once"))))
}

/// Reads a body to its end, and notes the second at which each frame came.
async fn timed(body: AnyBody, began: Instant) -> (Vec<(u64, String)>, Option<BoxError>) {
    let mut body = std::pin::pin!(body);
    let mut frames = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                let data = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
                frames.push((began.elapsed().as_secs(), data));
            }
            Err(error) => return (frames, Some(error)),
        }
    }
    (frames, None)
}

/// Reads a body that breaks after its words, and returns all of its text.
async fn broken_text(body: AnyBody) -> String {
    let (frames, error) = frames(body).await;
    assert!(error.is_some(), "the connection must break after {frames:?}");
    String::from_utf8(frames.concat()).unwrap()
}

fn frame(at: u64, text: &str) -> (u64, String) {
    (at, text.to_owned())
}

/// Returns the error on a line that was opened early.
fn error_on_the_line(text: &str) -> Value {
    let line = text.strip_suffix("\n\n").unwrap_or_else(|| panic!("{text:?} does not end in a blank line"));
    let line = line.rsplit("\n\n").next().unwrap();
    let json = line.strip_prefix("data: ").unwrap_or_else(|| panic!("{line:?} is no data"));
    assert!(json.trim_start().starts_with("{\"error\":{") && !json.contains('\n'), "{json:?}");
    serde_json::from_str(json).unwrap()
}

// === before the head ===

#[tokio::test(start_paused = true)]
async fn the_next_events_line_is_opened_while_the_head_is_awaited() {
    let upstream = late(40, || Ok(sse(chunks([event("a"), last_event("b")]))));
    let began = Instant::now();
    let response = server(upstream).oneshot(post(STREAM)).await.unwrap();
    assert_eq!((began.elapsed().as_secs(), response.status()), (15, OK));
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-cache");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    assert!(!response.body().is_end_stream() && response.body().size_hint().upper().is_none());
    let (frames, error) = timed(response.into_body(), began).await;
    assert!(error.is_none(), "{error:?}");
    let event = event("a");
    let expected = [
        frame(15, "data: "),
        frame(30, " "),
        frame(40, event.strip_prefix("data: ").unwrap()),
        frame(40, &last_event("b")),
    ];
    assert_eq!(frames, expected);
}

#[tokio::test(start_paused = true)]
async fn retries_go_on_behind_it() {
    let upstream = Upstream::new(|nth, _| async move {
        sleep(secs(12)).await;
        let mut busy = busy();
        busy.headers_mut().insert(RETRY_AFTER, 3.into());
        Ok(if nth < 2 { busy } else { sse(chunks([last_event("at last")])) })
    });
    let response = server(upstream.clone()).oneshot(post(STREAM)).await.unwrap();
    assert_eq!((response.status(), upstream.calls()), (OK, 1));
    let text = read(response.into_body()).await;
    assert_eq!(upstream.calls(), 3);
    let expected = last_event("at last").replacen("data: ", "data:  ", 1);
    assert_eq!(text, expected);
}

#[tokio::test(start_paused = true)]
async fn a_failure_within_the_first_silence_keeps_its_status() {
    let response = server(late(3, || Ok(json(400, BUSY.replace("503", "400"))))).oneshot(post(STREAM)).await.unwrap();
    assert_eq!(response.status(), 400);
    assert!(read(response.into_body()).await.starts_with(b"{\"error\""));
    let response = alone(late(14, || Ok(busy()))).oneshot(post(STREAM)).await.unwrap();
    assert_eq!(response.status(), 503);
    let error = alone(late(14, || Err(reset().into()))).oneshot(post(STREAM)).await.unwrap_err();
    assert!(source::<std::io::Error>(&error).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_later_failure_is_said_on_the_open_line_and_then_the_connection_breaks() {
    // The relay's own answer after all attempts, and an upstream's without any layer in between.
    for service in [server(late(20, || Ok(busy()))), alone(late(40, || Ok(busy())))] {
        let response = service.oneshot(post(STREAM)).await.unwrap();
        assert_eq!(response.status(), OK);
        let error = error_on_the_line(&broken_text(response.into_body()).await);
        assert_eq!((&error["error"]["code"], &error["error"]["status"]), (&503.into(), &"UNAVAILABLE".into()));
        assert!(error["error"]["message"].as_str().unwrap().contains("overloaded"), "{error}");
    }
    let list = || Ok(json(429, r#"[{"error":{"code":429,"message":"slowly","status":"RESOURCE_EXHAUSTED"}}]"#));
    let response = alone(late(40, list)).oneshot(post(STREAM)).await.unwrap();
    let error = error_on_the_line(&broken_text(response.into_body()).await);
    assert_eq!(error["error"]["code"], 429);
    // The service inside may fail without an answer.
    let response = alone(late(40, || Err(reset().into()))).oneshot(post(STREAM)).await.unwrap();
    let (frames, broke) = frames(response.into_body()).await;
    let error = error_on_the_line(std::str::from_utf8(&frames.concat()).unwrap());
    assert_eq!(error["error"]["code"], 503);
    assert_eq!(find(&broke.unwrap()).failure().kind(), Kind::Reset);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_noticed_while_its_body_is_still_awaited() {
    let (feed, body) = fed();
    let body = parking_lot::Mutex::new(Some(any(body)));
    let upstream = late(20, move || Ok(typed(503, "application/json", body.lock().take().unwrap())));
    let began = Instant::now();
    let response = alone(upstream).oneshot(post(STREAM)).await.unwrap();
    let feeding = async {
        sleep(secs(20)).await;
        feed.data(&BUSY.as_bytes()[..30]);
        sleep(secs(20)).await;
        feed.data(&BUSY.as_bytes()[30..]);
        drop(feed);
    };
    let ((frames, error), ()) = tokio::join!(timed(response.into_body(), began), feeding);
    assert!(error.is_some());
    let times: Vec<_> = frames.iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [15, 30, 45, 55], "{frames:?}");
    assert!(frames[3].1.starts_with("{\"error\":{\"code\":503"), "{frames:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_stream_is_an_error_once_the_head_is_out() {
    let gzipped = || {
        let mut response = sse(chunks([b"\x1f\x8b\x08"]));
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        Ok(response)
    };
    let answers: [(Upstream, u16); 5] = [
        (late(20, || Ok(hello())), 502),
        (late(20, || Ok(typed(502, "text/html", full("<html>Bad Gateway</html>")))), 502),
        (late(20, || Ok(status(204))), 502),
        (late(20, || Ok(typed(200, "application/json", broken(["{"])))), 502),
        (late(20, gzipped), 502),
    ];
    for (upstream, code) in answers {
        let response = alone(upstream).oneshot(post(STREAM)).await.unwrap();
        let error = error_on_the_line(&broken_text(response.into_body()).await);
        assert_eq!(error["error"]["code"], code);
    }
}

#[tokio::test(start_paused = true)]
async fn an_encoded_stream_is_named_at_once_behind_an_early_head() {
    let upstream = late(20, || {
        let (feed, body) = fed();
        feed.data(b"\x1f\x8b\x08".as_slice());
        std::mem::forget(feed);
        let mut response = sse(any(body));
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        Ok(response)
    });
    let began = Instant::now();
    let response = alone(upstream).oneshot(post(STREAM)).await.unwrap();
    let (frames, broke) = timed(response.into_body(), began).await;
    assert!(broke.is_some());
    let [(15, opening), (20, said)] = &*frames else { panic!("{frames:?}") };
    let error = error_on_the_line(&format!("{opening}{said}"));
    assert!(error["error"]["message"].as_str().unwrap().contains("an encoded stream (gzip)"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn layers_inside_learn_that_a_good_answer_was_no_stream() {
    let seen = Arc::new(parking_lot::Mutex::new(None));
    let noted = seen.clone();
    let service = ServiceBuilder::new()
        .layer(KeepAliveLayer::new(EVERY))
        .map_response(move |response: Response<_>| {
            *noted.lock() = response.extensions().get::<Outcome>().and_then(|outcome| outcome.usage().cloned());
            response
        })
        .layer(ClassifyLayer::new())
        .service(late(20, || Ok(hello())));
    let response = service.oneshot(post(STREAM)).await.unwrap();
    let error = error_on_the_line(&broken_text(any(response.into_body())).await);
    assert_eq!(error["error"]["code"], 502);
    let report = seen.lock().take().expect("it has a cell").report();
    let failure = report.failure.expect("the caller got an error");
    assert!(failure.code() == 502 && failure.message().contains("application/json"), "{failure:?}");
}

#[tokio::test(start_paused = true)]
async fn dropping_the_answer_cancels_the_call_behind_it() {
    for wrap in [alone, server] {
        let upstream = Upstream::hangs();
        let response = wrap(upstream.clone()).oneshot(post(STREAM)).await.unwrap();
        assert_eq!((response.status(), upstream.in_flight()), (OK, 1));
        drop(response);
        assert_eq!(upstream.in_flight(), 0);
        let call = wrap(upstream.clone()).oneshot(post(STREAM));
        assert!(tokio::time::timeout(secs(3), call).await.is_err());
        assert_eq!(upstream.in_flight(), 0);
    }
}

// === which calls ===

#[tokio::test(start_paused = true)]
async fn a_chat_is_known_to_stream_by_its_body() {
    let chunk = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}\n\n";
    let upstream = late(40, move || Ok(sse(chunks([chunk, "data: [DONE]\n\n"]))));
    let began = Instant::now();
    let request = post_body(CHAT, r#"{"model":"gemini-2.5-flash","messages":[],"stream":true}"#);
    let response = server(upstream).oneshot(request).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 15);
    let (frames, error) = timed(response.into_body(), began).await;
    assert!(error.is_none());
    let text: String = frames.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(text, format!(": ping\n\n: ping\n\n{chunk}data: [DONE]\n\n"));
}

#[tokio::test(start_paused = true)]
async fn answers_in_one_piece_are_left_alone() {
    let chat = r#"{"model":"gemini-2.5-flash","messages":[]}"#;
    for (uri, body) in [(GENERATE, PROMPT), (ARRAY, PROMPT), (CHAT, chat), (INTERACTIONS, chat), ("/v1beta/files", "")]
    {
        for (is_server, wrap) in [false, true].into_iter().zip([alone, server]) {
            let began = Instant::now();
            let response = wrap(late(100, || Ok(hello()))).oneshot(post_body(uri, body)).await.unwrap();
            assert_eq!(began.elapsed().as_secs(), 100, "{uri}");
            assert_eq!(response.headers()["content-type"], "application/json; charset=UTF-8");
            // An error may follow an array's last byte, behind `ErrorResponseLayer`.
            let length = (!is_server || uri != ARRAY).then_some(HELLO.len() as u64);
            assert_eq!(response.body().size_hint().exact(), length, "{uri}");
            assert_eq!(read(response.into_body()).await, HELLO);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_interaction_is_known_by_its_body_or_by_what_its_caller_takes() {
    let created = "event: interaction.created\ndata: {\"event_type\":\"interaction.created\"}\n\n";
    let completed = "event: interaction.completed\ndata: {\"event_type\":\"interaction.completed\"}\n\n";
    let upstream = || late(20, move || Ok(sse(chunks([created, completed]))));
    let mut accepting = post_body(INTERACTIONS, r#"{"model":"m","input":"hi","stream":true}"#);
    accepting.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    let reading = post_body(INTERACTIONS, r#"{"model":"m","input":"hi","stream":true}"#);
    for (service, request) in [(alone(upstream()), accepting), (server(upstream()), reading)] {
        let began = Instant::now();
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 15);
        assert_eq!(read(response.into_body()).await, format!(": ping\n\n{created}{completed}"));
    }
}

#[tokio::test(start_paused = true)]
async fn each_surface_hears_of_a_failure_in_its_own_event() {
    let chat = post_body(CHAT, r#"{"model":"gemini-2.5-flash","messages":[],"stream":true}"#);
    let response = server(late(20, || Ok(busy()))).oneshot(chat).await.unwrap();
    let text = broken_text(response.into_body()).await;
    let json = text.rsplit_once("data: ").unwrap().1;
    let error: Value = serde_json::from_str(json).unwrap();
    assert!(error["error"].is_object() && error["error"]["message"].is_string(), "{text}");
    assert!(text.starts_with(": ping\n\n") && json.ends_with("}\n\n"), "{text}");

    let interaction = post_body(INTERACTIONS, r#"{"model":"m","input":"hi","stream":true}"#);
    let response = server(late(20, || Ok(busy()))).oneshot(interaction).await.unwrap();
    let text = broken_text(response.into_body()).await;
    let json = text.rsplit_once("\n\nevent: error\ndata: ").unwrap().1;
    let error: Value = serde_json::from_str(json).unwrap();
    assert!(error["event_type"] == "error" && error["error"]["code"].is_string(), "{text}");
}

// === between events ===

#[tokio::test(start_paused = true)]
async fn silences_between_events_are_filled() {
    let (feed, body) = fed();
    let began = Instant::now();
    let response = server(streaming(any(body)));
    let feeding = async {
        feed.data(event("a"));
        sleep(secs(40)).await;
        feed.data(event("b"));
        sleep(secs(10)).await;
        feed.data(event("c"));
        sleep(secs(20)).await;
        feed.data(last_event("d"));
        sleep(secs(100)).await;
        feed.data("data: {\"usageMetadata\":{}}\n\n");
        drop(feed);
    };
    let reading = async {
        let response = response.oneshot(post(STREAM)).await.unwrap();
        timed(response.into_body(), began).await
    };
    let ((frames, error), ()) = tokio::join!(reading, feeding);
    assert!(error.is_none(), "{error:?}");
    let rest = |text: String| text.strip_prefix("data: ").unwrap().to_owned();
    let expected = [
        (0, event("a")),
        frame(15, "data: "),
        frame(30, " "),
        (40, rest(event("b"))),
        (50, event("c")),
        // A silence begins with the last event, not with the last piece.
        frame(65, "data: "),
        (70, rest(last_event("d"))),
        // The reason for the end has gone out: 100 s pass without a piece.
        frame(170, "data: {\"usageMetadata\":{}}\n\n"),
    ];
    assert_eq!(frames, expected);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_within_an_event() {
    let long = format!("data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"{}", "x".repeat(100_000));
    for (wrap, half) in [(alone as fn(Upstream) -> Server, event("a")[..20].to_owned()), (server, long)] {
        let (feed, body) = fed();
        feed.data(event("first"));
        feed.data(half.clone());
        let response = wrap(streaming(any(body))).oneshot(post(STREAM)).await.unwrap();
        let mut body = response.into_body();
        let mut text = String::new();
        while let Ok(frame) = tokio::time::timeout(secs(100), body.frame()).await {
            text.push_str(std::str::from_utf8(&frame.unwrap().unwrap().into_data().unwrap()).unwrap());
        }
        assert!(text == format!("{}{half}", event("first")), "{:.200}", text);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_after_the_last_event_of_a_chat() {
    let (feed, body) = fed();
    let done = "data: {\"choices\":[]}\n\ndata: [DONE]\n\n";
    feed.data(done);
    let response = alone(streaming(any(body))).oneshot(post(CHAT)).await.unwrap();
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), done);
    assert!(tokio::time::timeout(secs(100), body.frame()).await.is_err());
    drop(feed);
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_error_that_comes_with_good_events_is_the_last_word() {
    // The connection stays whole, so that nothing may be said behind the error either.
    let (feed, body) = fed();
    let service = ServiceBuilder::new()
        .layer(KeepAliveLayer::new(EVERY))
        .layer(ErrorResponseLayer::new().stream_ending(StreamEnding::Event))
        .service(streaming(any(body)));
    let text = format!("{}{}data: {{\"error\":{{\"code\":503}}}}\n\n", event("a"), event("b"));
    feed.data(text.clone());
    let feeding = async {
        sleep(secs(100)).await;
        drop(feed);
    };
    let reading = async {
        let response = service.oneshot(post(STREAM)).await.unwrap();
        timed(any(response.into_body()), Instant::now()).await
    };
    let ((frames, error), ()) = tokio::join!(reading, feeding);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(frames, [(0, text)]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_never_ends_well_on_an_open_line() {
    type Ending = fn(Feed);
    let endings: [(Ending, u16); 4] = [
        (drop, 502),
        (|feed| feed.data(": bye\n\n"), 502),
        (|feed| feed.trailers(http::HeaderMap::new()), 502),
        // A stream that breaks upstream may end in bare JSON.
        (|feed| feed.data("{\n  \"error\": {\n    \"code\": 429,\n    \"message\": \"m\"\n  }\n}\n"), 429),
    ];
    for (end, code) in endings {
        let (feed, body) = fed();
        let mut body = alone(streaming(any(body))).oneshot(post(STREAM)).await.unwrap().into_body();
        feed.data(event("a"));
        for expected in [&event("a"), "data: ", " "] {
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), expected);
        }
        end(feed);
        let text = broken_text(body).await;
        let error: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(error["error"]["code"], code);
        assert!(text.ends_with("}\n\n"), "{text:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_on_an_open_line_ends_in_the_error_there() {
    let (feed, body) = fed();
    feed.data(event("a"));
    let feeding = async {
        sleep(secs(20)).await;
        feed.fail(reset());
    };
    let reading = async {
        let response = server(streaming(any(body))).oneshot(post(STREAM)).await.unwrap();
        broken_text(response.into_body()).await
    };
    let (text, ()) = tokio::join!(reading, feeding);
    let rest = text.strip_prefix(&event("a")).unwrap();
    assert_eq!(error_on_the_line(rest)["error"]["code"], 503);
}

#[tokio::test(start_paused = true)]
async fn an_end_without_a_silence_before_it_stays_as_it_is() {
    for (uri, text) in
        [(STREAM, event("no reason")), (CHAT, "data: {}\n\n".to_owned()), (STREAM, "data: {\"half".into())]
    {
        let response = alone(streaming(chunks([&text]))).oneshot(post(uri)).await.unwrap();
        assert_eq!(read(response.into_body()).await, text);
    }
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-trailer", HeaderValue::from_static("kept"));
    let (feed, body) = fed();
    feed.data(last_event("a"));
    feed.trailers(trailers.clone());
    drop(feed);
    let response = alone(streaming(any(body))).oneshot(post(STREAM)).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().trailers(), Some(&trailers));
}

#[tokio::test(start_paused = true)]
async fn what_comes_before_the_next_events_data_has_no_place_on_the_open_line() {
    let (feed, body) = fed();
    let mut body = alone(streaming(any(body))).oneshot(post(STREAM)).await.unwrap().into_body();
    sleep(secs(1)).await;
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: ");
    // Comments are dropped, and the silence goes on in spite of them.
    let began = Instant::now();
    let commenting = async {
        for _ in 0..3 {
            sleep(secs(7)).await;
            feed.data(": ping\n\n");
        }
        feed.data("event: x\r\nid: 7\r\nda");
        feed.data("ta: {\"a\":\r\ndata: 1}\r\n\r\n");
    };
    let reading = async {
        let mut frames = Vec::new();
        while frames.len() < 2 {
            let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
            frames.push((began.elapsed().as_secs(), String::from_utf8(data.to_vec()).unwrap()));
        }
        frames
    };
    let (frames, ()) = tokio::join!(reading, commenting);
    assert_eq!(frames, [frame(15, " "), frame(21, "{\"a\":\nevent: x\nid: 7\ndata: 1}\r\n\r\n")]);
}

// === on the wire ===

#[tokio::test]
async fn a_slow_reader_over_http2_hears_the_error_before_the_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let socket = TcpStream::connect(address).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let answer = service_fn(|_: Request<hyper::body::Incoming>| async {
        sleep(millis(450)).await;
        Ok::<_, Infallible>(busy())
    });
    let service = TowerToHyperService::new(KeepAliveLayer::new(millis(100)).layer(answer));
    let builder = auto::Builder::new(TokioExecutor::new());
    tokio::spawn(builder.serve_connection(TokioIo::new(stream), service).into_owned());
    // The window has no room for the error, and opens while the server wants to break.
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(50);
    let (mut client, connection) = builder.handshake::<_, Bytes>(socket).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("http://h{STREAM}")).body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), OK);
    let (mut body, mut text) = (response.into_body(), Vec::new());
    let error = loop {
        match body.data().await.expect("it must not end well") {
            Ok(data) => {
                text.extend_from_slice(&data);
                sleep(millis(50)).await;
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            Err(error) => break error,
        }
    };
    assert!(error.is_reset(), "{error}");
    let text = String::from_utf8(text).unwrap();
    assert_eq!(error_on_the_line(&text)["error"]["code"], 503);
    assert!(text.starts_with("data:   "), "{text:?}");
}

// === costs ===

#[tokio::test(start_paused = true)]
async fn pieces_wait_for_a_reader() {
    let (feed, body) = fed();
    feed.data(event("a"));
    let response = alone(streaming(any(body))).oneshot(post(STREAM)).await.unwrap();
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    // Nobody reads: no time counts, and nothing is piled up.
    sleep(secs(1_000)).await;
    assert_pending!(task::spawn(body.frame()).poll());
    sleep(secs(1_000)).await;
    assert_eq!(assert_ready!(task::spawn(body.frame()).poll()).unwrap().unwrap().into_data().unwrap(), "data: ");
    assert_pending!(task::spawn(body.frame()).poll());
}

#[tokio::test(start_paused = true)]
async fn an_upstream_of_comments_does_not_keep_the_thread() {
    let (feed, body) = fed();
    let mut body = alone(streaming(any(body))).oneshot(post(STREAM)).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: ");
    for _ in 0..1_000 {
        feed.data(": ping\n\n");
    }
    let mut polls = 1;
    let mut next = task::spawn(body.frame());
    assert_pending!(next.poll());
    while next.is_woken() {
        settle().await;
        assert_pending!(next.poll());
        polls += 1;
        settle().await;
    }
    assert!((10..100).contains(&polls), "{polls}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_loses_the_length_that_it_had() {
    let text = last_event("a");
    let answer = {
        let text = text.clone();
        move || {
            let (feed, body) = fed();
            feed.data(text.clone());
            let mut response = sse(any(body.with_hint(SizeHint::with_exact(text.len() as u64))));
            response.headers_mut().insert(CONTENT_LENGTH, text.len().into());
            Ok(response)
        }
    };
    let response = alone(late(0, answer.clone())).oneshot(post(STREAM)).await.unwrap();
    assert!(!response.headers().contains_key(CONTENT_LENGTH) && response.body().size_hint().exact().is_none());
    let response = KeepAliveLayer::disabled().layer(late(0, answer)).oneshot(post(STREAM)).await.unwrap();
    assert!(response.headers().contains_key(CONTENT_LENGTH));
    assert_eq!(response.body().size_hint().exact(), Some(text.len() as u64));
}

#[tokio::test(start_paused = true)]
async fn without_a_time_nothing_is_sent() {
    for layer in [KeepAliveLayer::disabled(), KeepAliveLayer::new(Duration::ZERO)] {
        let began = Instant::now();
        let upstream = late(100, || Ok(sse(chunks([last_event("a")]))));
        let response = layer.layer(upstream).oneshot(post(STREAM)).await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 100);
        assert_eq!(read(response.into_body()).await, last_event("a"));
    }
    assert_eq!(KeepAliveLayer::disabled().to_string(), "left out");
    assert_eq!(KeepAliveLayer::new(EVERY).to_string(), "a piece after each 15s of a stream's silence");
}

#[tokio::test(start_paused = true)]
async fn keys_in_an_error_are_not_told() {
    let error = move || -> Answer { Err(format!("error sending request for url (https://host/?key={KEY})").into()) };
    let response = alone(late(20, error)).oneshot(post(STREAM)).await.unwrap();
    let (frames, broke) = frames(response.into_body()).await;
    let said = format!("{:?} {broke:?}", frames.concat());
    assert!(!said.contains("AIza") && said.contains("error sending request"), "{said}");
    let broke = broke.unwrap();
    let failure = find(&broke).failure();
    assert!(failure.is_after_commit() && !failure.message().contains("AIza"), "{failure:?}");
    assert!(failure.message().contains("error sending request"), "{failure:?}");
}
