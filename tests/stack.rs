//! The layers in their order: over the emulator under a paused clock, and over real sockets from end to end.

mod support;

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use serde_json::Value;
use support::*;
use tokio::{
    net::TcpListener,
    sync::mpsc,
    time::{Instant, timeout},
};
use tower::{ServiceBuilder, ServiceExt, limit::ConcurrencyLimitLayer};
use tower_gemini::{
    ClassifyLayer, ErrorResponseLayer, ReplayLayer, RetryLayer, RetryPolicy, TimeoutLayer,
    client::Client,
    emulator::{Emulator, End, Trouble, When},
};

/// Makes a trouble anew for each case.
type Makes = fn() -> Trouble;

/// Stacks the layers in the order of `docs::ordering`.
macro_rules! gemini {
    ($upstream:expr) => {
        ServiceBuilder::new()
            .layer(ErrorResponseLayer::new())
            .layer(TimeoutLayer::total(secs(285)))
            .layer(ReplayLayer::new())
            .layer(RetryLayer::default())
            .layer(TimeoutLayer::attempt(secs(60)).first_content(secs(30)).idle(secs(10)))
            .layer(ClassifyLayer::new())
            .service($upstream)
    };
}

fn keyed(uri: &str) -> Request<Full<Bytes>> {
    let mut request = post(uri);
    request.headers_mut().insert("x-goog-api-key", "a-key".parse().unwrap());
    request
}

// === over the emulator, in process, under a paused clock ===

#[tokio::test(start_paused = true)]
async fn against_30_percent_503s_all_of_40_requests_are_answered() {
    // Fewer than one call in fifteen thousand fails eight times in a row, and none under these seeds.
    for seed in 0..10 {
        // All random numbers come from this seed, the jitter of the backoffs included.
        fastrand::seed(seed);
        let emulator = Emulator::builder().seed(seed).trouble(When::probability(0.3), Trouble::overloaded()).build();
        let service = gemini!(emulator.clone());
        let uris = [GENERATE, STREAM, ARRAY, "/v1beta/models/gemini-2.5-pro:countTokens"];
        let calls = (0..40).map(|nth| service.clone().oneshot(keyed(uris[nth % uris.len()])));
        for response in join_all(calls).await {
            let response = response.unwrap();
            assert_eq!(response.status(), OK, "seed {seed}: {} attempts", outcome(&response).attempts());
            let body = read(response.into_body()).await;
            assert!(!body.is_empty() && !body.windows(7).any(|bytes| bytes == b"\"error\""));
        }
        let refused = emulator.count(|visit| visit.status == Some(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(emulator.journal().len(), 40 + refused, "one answer each, and not one attempt more");
        assert!(refused > 3, "{refused}");
        assert!(emulator.journal().iter().all(|visit| visit.end == Some(End::Finished)));
        assert_eq!(emulator.in_flight(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn no_attempt_is_made_after_the_commit() {
    let troubles: [(&str, Makes); 4] = [
        ("reset", || Trouble::reset_after(1)),
        ("cut", || Trouble::cut(1)),
        ("error event", || Trouble::overloaded().in_stream(1)),
        ("raw tail", || Trouble::overloaded().as_raw_tail(1)),
    ];
    for (name, trouble) in troubles {
        let emulator = Emulator::builder().trouble(When::first(1), trouble()).build();
        let response = gemini!(emulator.clone()).oneshot(keyed(STREAM)).await.unwrap();
        let (data, error) = frames(response.into_body()).await;
        let text = String::from_utf8(data.concat()).unwrap();
        // The connection breaks after the words, whoever has said them.
        assert!(error.is_some(), "{name}");
        assert!(text.starts_with("data: {\"candidates\""), "{name}: {text}");
        // The caller learns of the error, from the upstream or from a layer.
        assert!(text.contains("\"error\""), "{name}: {text}");
        assert_eq!(emulator.journal().len(), 1, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn before_the_commit_whatever_goes_wrong_is_tried_again() {
    let troubles: [(&str, Makes); 12] = [
        ("503", Trouble::overloaded),
        ("500", Trouble::internal),
        ("504", Trouble::deadline_exceeded),
        ("429", || Trouble::minute_quota(secs(2))),
        ("429 without details", Trouble::bare_quota),
        ("Vertex", Trouble::vertex_capacity),
        ("reset", Trouble::reset),
        ("HTML", Trouble::html_bad_gateway),
        ("empty", Trouble::empty),
        ("hang", Trouble::hang),
        ("error event", || Trouble::overloaded().in_stream(0)),
        ("stall", || Trouble::stall(0)),
    ];
    for (name, trouble) in troubles {
        for uri in [GENERATE, STREAM, ARRAY] {
            let emulator = Emulator::builder().trouble(When::first(1), trouble()).build();
            let response = gemini!(emulator.clone()).oneshot(keyed(uri)).await.unwrap();
            assert_eq!(response.status(), OK, "{name} at {uri}");
            let (data, error) = frames(response.into_body()).await;
            assert!(error.is_none() && String::from_utf8(data.concat()).unwrap().contains("STOP"), "{name} at {uri}");
            assert_eq!(emulator.journal().len(), 2, "{name} at {uri}");
            assert_eq!(emulator.in_flight(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_would_not_change_is_not_tried_again() {
    let troubles: [(&str, u16, Makes); 6] = [
        ("a bad key", 400, Trouble::invalid_key),
        ("a suspended key", 403, Trouble::suspended_key),
        ("a day's quota", 429, Trouble::day_quota),
        ("a limit of zero", 429, Trouble::zero_quota),
        ("blocked", 200, || Trouble::blocked("SAFETY")),
        ("a blocked prompt", 200, || Trouble::prompt_blocked("PROHIBITED_CONTENT")),
    ];
    for (name, status, trouble) in troubles {
        let emulator = Emulator::builder().key(KEY, "p").trouble(When::always(), trouble()).build();
        let mut request = post(GENERATE);
        request.headers_mut().insert("x-goog-api-key", KEY.parse().unwrap());
        let began = Instant::now();
        let response = gemini!(emulator.clone()).oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{name}");
        let text = String::from_utf8(read(response.into_body()).await.to_vec()).unwrap();
        assert!(!text.contains("AIza"), "{name}: {text}");
        assert_eq!((emulator.journal().len(), began.elapsed()), (1, Duration::ZERO), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_429_with_a_hint_of_2_seconds_waits_at_least_2_and_at_most_4() {
    for _ in 0..20 {
        let emulator = Emulator::builder().trouble(When::first(1), Trouble::minute_quota(secs(2))).build();
        let response = gemini!(emulator.clone()).oneshot(keyed(GENERATE)).await.unwrap();
        assert_eq!(response.status(), OK);
        let visits = emulator.journal();
        let wait = visits[1].at - visits[0].ended_at.unwrap();
        assert!((secs(2)..=secs(4)).contains(&wait), "{wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_hangs_ends_on_time_with_its_clock_named_and_the_upstream_let_go() {
    // As many attempts as there is time for, up to eight: of the fifth of a minute each, the total clock is the end.
    let cases: [(_, _, Makes, _, _, _); 4] = [
        ("hung", GENERATE, Trouble::hang, "total", 60, 5),
        ("hung stream", STREAM, Trouble::hang, "first_content", 30, 8),
        ("slow first token", STREAM, || Trouble::slow_first_token(secs(100)), "first_content", 30, 8),
        ("pinging", STREAM, || Trouble::slow_first_token(secs(100)).pings(secs(1)), "first_content", 30, 8),
    ];
    for (name, uri, trouble, clock, limit, attempts) in cases {
        let emulator = Emulator::builder().trouble(When::always(), trouble()).build();
        let began = Instant::now();
        let response = gemini!(emulator.clone()).oneshot(keyed(uri)).await.unwrap();
        let took = began.elapsed();
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT, "{name}");
        let body: Value = serde_json::from_slice(&read(response.into_body()).await).unwrap();
        let error = &body["error"];
        assert_eq!((&error["code"], &error["status"]), (&504.into(), &"DEADLINE_EXCEEDED".into()));
        assert_eq!(error["details"][0]["metadata"]["clock"], clock, "{name}");
        // Between two attempts there are at most 2 s.
        let longest = (secs(limit * attempts) + secs(2 * (attempts - 1))).min(secs(285));
        assert!(took >= secs(limit * attempts).min(secs(285)) && took <= longest + millis(20), "{name}: {took:?}");
        let visits = emulator.journal();
        assert_eq!(visits.len() as u64, attempts, "{name}");
        for (nth, visit) in (1..).zip(visits) {
            let lasted = visit.ended_at.unwrap() - visit.at;
            let is_cut_short = clock == "total" && nth == attempts;
            assert!(is_cut_short || lasted >= secs(limit), "{name}: {lasted:?}");
            assert!(lasted <= secs(limit).mul_f64(1.1), "{name}: {lasted:?}");
            assert!(matches!(visit.end, Some(End::DroppedBeforeHeaders | End::DroppedInBody)), "{name}: {visit:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stalled_stream_ends_on_time_with_its_clock_named_and_the_upstream_let_go() {
    let emulator = Emulator::builder().trouble(When::always(), Trouble::stall(1)).build();
    let began = Instant::now();
    let response = gemini!(emulator.clone()).oneshot(keyed(STREAM)).await.unwrap();
    assert_eq!(response.status(), OK);
    let (data, error) = frames(response.into_body()).await;
    assert!(error.is_some());
    let last = String::from_utf8(data.last().unwrap().to_vec()).unwrap();
    let error: Value = serde_json::from_str(last.trim().strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(error["error"]["code"], 504);
    assert_eq!(error["error"]["details"][0]["metadata"]["clock"], "idle");
    let took = began.elapsed();
    assert!(took >= secs(10) && took <= secs(11), "{took:?}");
    assert_eq!((emulator.journal().len(), emulator.in_flight()), (1, 0));
    assert_eq!(emulator.journal()[0].end, Some(End::DroppedInBody));
}

#[tokio::test(start_paused = true)]
async fn the_total_bounds_all_attempts_together() {
    let emulator = Emulator::builder().trouble(When::always(), Trouble::overloaded()).build();
    let service = ServiceBuilder::new()
        .layer(ErrorResponseLayer::new())
        .layer(TimeoutLayer::total(secs(20)))
        .layer(ReplayLayer::new())
        .layer(RetryLayer::new(RetryPolicy::persistent()))
        .layer(TimeoutLayer::attempt(secs(60)))
        .layer(ClassifyLayer::new())
        .service(emulator.clone());
    let began = Instant::now();
    let response = service.oneshot(keyed(GENERATE)).await.unwrap();
    // The caller gets the upstream's answer and not a time-out, as soon as no further wait would fit.
    assert_eq!(response.status(), 503);
    assert!(began.elapsed() < secs(20));
    assert!(response.headers().contains_key("retry-after"));
    assert!(emulator.journal().len() > 2);
}

#[tokio::test(start_paused = true)]
async fn many_calls_over_few_permits_get_through_a_bad_day() {
    let emulator = Emulator::builder()
        .seed(3)
        .first_token(millis(200))
        .between_chunks(millis(50))
        .trouble(When::probability(0.1), Trouble::overloaded())
        .trouble(When::probability(0.05), Trouble::hang())
        .trouble(When::probability(0.1), Trouble::empty())
        .trouble(When::probability(0.1), Trouble::overloaded().in_stream(0))
        .build();
    let limited = ServiceBuilder::new().layer(ConcurrencyLimitLayer::new(3)).service(emulator.clone());
    let service = gemini!(limited);
    let calls = (0..60).map(|nth| {
        let service = service.clone();
        async move {
            let response = service.oneshot(keyed(if nth % 2 == 0 { GENERATE } else { STREAM })).await.unwrap();
            let status = response.status();
            frames(response.into_body()).await;
            status
        }
    });
    let answered = join_all(calls).await.into_iter().filter(|status| *status == OK).count();
    assert!(answered >= 58, "{answered} of 60");
    assert_eq!(emulator.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_leaves_nothing_upstream() {
    let troubles: [Makes; 4] =
        [Trouble::hang, || Trouble::stall(1), || Trouble::slow_first_token(secs(25)), Trouble::overloaded];
    for trouble in troubles {
        let emulator = Emulator::builder().trouble(When::always(), trouble()).build();
        let call = async {
            let response = gemini!(emulator.clone()).oneshot(keyed(STREAM)).await.unwrap();
            frames(response.into_body()).await
        };
        assert!(timeout(millis(300), call).await.is_err());
        assert_eq!(emulator.in_flight(), 0);
        let visits = emulator.journal().len();
        tokio::time::sleep(secs(1000)).await;
        assert_eq!(emulator.journal().len(), visits, "something goes on");
    }
}

// === over real sockets ===

/// A time that is long enough for a loaded machine; a passing test never waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A loopback upstream that hands each of its streams to the test.
async fn upstream() -> (SocketAddr, mpsc::UnboundedReceiver<Feed>) {
    let (sender, feeds) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let sender = sender.clone();
            let service = service_fn(move |_: Request<Incoming>| {
                let (feed, body) = fed();
                let _ = sender.send(feed);
                std::future::ready(Ok::<_, std::convert::Infallible>(sse(any(body))))
            });
            tokio::spawn(async move {
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (address, feeds)
}

/// Starts a server with the layers in front of an upstream.
async fn relay(upstream: SocketAddr, http2: bool) -> SocketAddr {
    let mut client = Client::builder().base_url(format!("http://{upstream}"));
    if http2 {
        client = client.http2_prior_knowledge();
    }
    let service = gemini!(client.build().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

async fn caller(relay: SocketAddr, http2: bool) -> Client<Full<Bytes>> {
    let client = Client::builder().base_url(format!("http://{relay}"));
    if http2 { client.http2_prior_knowledge() } else { client }.build().unwrap()
}

#[tokio::test]
async fn each_chunk_arrives_before_the_next_is_sent() {
    for http2 in [false, true] {
        let (address, mut feeds) = upstream().await;
        let client = caller(relay(address, http2).await, http2).await;
        let call = tokio::spawn(client.oneshot(keyed(STREAM)));
        let feed = timeout(PATIENCE, feeds.recv()).await.unwrap().unwrap();
        // The headers wait only for the first content.
        feed.data(event("0"));
        let response = timeout(PATIENCE, call).await.expect("the headers").unwrap().unwrap();
        let mut body = response.into_body();
        let mut late = Vec::new();
        for nth in 0..60 {
            let sent = if nth % 3 == 1 { ": ping\r\n\r\n".to_owned() } else { event(&nth.to_string()) };
            let began = Instant::now();
            if nth > 0 {
                feed.data(sent.clone());
            }
            // The next chunk is sent only after this one has come, whole and alone.
            let frame = timeout(PATIENCE, body.frame()).await.expect("the chunk").unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), sent, "chunk {nth}");
            late.push(began.elapsed());
        }
        // Nothing delays them systematically: no timer, no full buffer, no delayed acknowledgement. A busy machine may
        // delay some of them.
        late.sort_unstable();
        assert!(late[late.len() / 4] < millis(5), "a quarter took {:?} or more", late[late.len() / 4]);
        feed.data(last_event("end"));
        assert_eq!(
            timeout(PATIENCE, body.frame()).await.unwrap().unwrap().unwrap().into_data().unwrap(),
            last_event("end")
        );
        drop(feed);
        // HTTP/2 ends with an empty frame.
        let (rest, error) = timeout(PATIENCE, frames(body)).await.expect("the end");
        assert!(rest.concat().is_empty() && error.is_none());
    }
}

#[tokio::test]
async fn a_caller_who_hangs_up_ends_the_upstreams_stream() {
    for http2 in [false, true] {
        let (address, mut feeds) = upstream().await;
        let client = caller(relay(address, http2).await, http2).await;
        let call = tokio::spawn(client.oneshot(keyed(STREAM)));
        let feed = timeout(PATIENCE, feeds.recv()).await.unwrap().unwrap();
        feed.data(event("0"));
        let response = timeout(PATIENCE, call).await.unwrap().unwrap().unwrap();
        assert!(feed.is_live());
        drop(response);
        timeout(PATIENCE, feed.closed()).await.expect("the upstream hears of it");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_upstream_ends_in_an_error_event_and_breaks_for_the_caller() {
    for http2 in [false, true] {
        let (address, mut feeds) = upstream().await;
        let client = caller(relay(address, http2).await, http2).await;
        let call = tokio::spawn(client.oneshot(keyed(STREAM)));
        let feed = timeout(PATIENCE, feeds.recv()).await.unwrap().unwrap();
        feed.data(event("0"));
        let response = timeout(PATIENCE, call).await.unwrap().unwrap().unwrap();
        let mut body = response.into_body();
        timeout(PATIENCE, body.frame()).await.unwrap().unwrap().unwrap();
        feed.fail(reset());
        drop(feed);
        let (data, error) = timeout(PATIENCE, frames(body)).await.unwrap();
        assert!(error.is_some(), "the words have come, and then the connection has broken");
        let text = String::from_utf8(data.concat()).unwrap();
        let error: Value = serde_json::from_str(text.trim().strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(error["error"]["status"], "UNAVAILABLE", "{text}");
    }
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_is_a_503_that_says_so() {
    // A port on which no server listens any more.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client: Client<_> = Client::builder().base_url(format!("http://{gone}")).build().unwrap();
    let service = ServiceBuilder::new()
        .layer(ErrorResponseLayer::new())
        .layer(RetryLayer::new(RetryPolicy::default().max_attempts(2).base_delay(Duration::ZERO)))
        .layer(ClassifyLayer::new())
        .service(client);
    let response = timeout(PATIENCE, service.oneshot(keyed(GENERATE))).await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body: Value = serde_json::from_slice(&read(response.into_body()).await).unwrap();
    let info = &body["error"]["details"][0];
    assert_eq!((&info["reason"], &info["metadata"]["attempts"]), (&"CONNECT".into(), &"2".into()));
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("the upstream cannot be reached; ") && !message.contains("os error"), "{body}");
}

#[tokio::test]
async fn over_a_socket_the_emulators_resets_and_busy_answers_are_survived() {
    let emulator = Emulator::builder()
        .script(When::always(), [Trouble::overloaded(), Trouble::reset(), Trouble::overloaded().in_stream(0)])
        .build();
    let server = emulator.serve().await.unwrap();
    let client: Client<_> = Client::builder().base_url(server.uri()).build().unwrap();
    let service = ServiceBuilder::new()
        .layer(ReplayLayer::new())
        .layer(RetryLayer::new(RetryPolicy::default().base_delay(Duration::ZERO)))
        .layer(ClassifyLayer::new())
        .service(client);
    let response = timeout(PATIENCE, service.oneshot(keyed(STREAM))).await.unwrap().unwrap();
    assert_eq!(response.status(), OK);
    let text = String::from_utf8(read(response.into_body()).await.to_vec()).unwrap();
    assert!(text.contains("STOP"));
    assert_eq!(emulator.journal().len(), 4);
    let accepted = emulator.journal().into_iter().all(|visit| visit.headers["accept-encoding"] == "identity");
    assert!(accepted);
}
