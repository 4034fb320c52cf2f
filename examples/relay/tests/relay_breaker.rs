//! `[breaker]` of the relay as a process: right and wrong settings, and an outage.

#![cfg(unix)] // as tests/relay.rs, with which it shares the process's harness
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_process;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header::RETRY_AFTER};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt;
use tower_gemini::{
    client::Client,
    emulator::{Emulator, Server, Trouble, When},
};

use relay_process::{PATIENCE, Relay, refused_at};

const FLASH: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
const PROMPT: &str = r#"{"contents": [{"parts": [{"text": "hello"}]}]}"#;

async fn pair(settings: &str) -> (Emulator, Server, Relay) {
    let emulator = Emulator::builder().key("key-of-the-relay", "p1").build();
    let server = emulator.serve().await.unwrap();
    let upstream = server.uri();
    let settings = format!("upstream = {upstream:?}\n[[keys]]\nkey = \"key-of-the-relay\"\n{settings}");
    (emulator, server, Relay::start(&settings).await)
}

/// Makes one call, and returns its answer and the time that it took.
async fn ask(client: &Client<Full<Bytes>>) -> (StatusCode, HeaderMap, Value, Duration) {
    let begun = Instant::now();
    let request = Request::post(FLASH).body(Full::from(PROMPT)).unwrap();
    let (head, body) =
        timeout(PATIENCE, client.clone().oneshot(request)).await.expect("no answer").unwrap().into_parts();
    let body = timeout(PATIENCE, body.collect()).await.expect("no end").unwrap().to_bytes();
    let body = serde_json::from_slice(&body).unwrap_or_else(|_| panic!("no JSON: {body:?}"));
    (head.status, head.headers, body, begun.elapsed())
}

#[tokio::test]
async fn a_wrong_setting_is_refused_with_its_line_and_what_would_be_right() {
    for (settings, place, says) in [
        ("[breaker]\nmod = \"silence\"", "2:1", &["[breaker]", "did you mean mode?"][..]),
        ("[breaker]\nmode = \"loud\"", "2:8", &["loud", "\"silence\"", "\"failure_rate\"", "\"consecutive\""]),
        ("[breaker]\nenabled = \"yes\"", "2:11", &["true or false"]),
        ("[breaker]\nopen = 2", "2:8", &["without a unit", "\"2s\""]),
        ("[breaker]\nopen = \"20s\"", "2:8", &["max_open is 10s, less than open, which is 20s"]),
        ("[breaker]\nopen = \"3s\"\nmax_open = \"1s\"", "3:12", &["max_open is 1s, less than open, which is 3s"]),
        ("max_open = \"1s\"", "1:1", &["belongs in [breaker]"]),
    ] {
        refused_at(&format!("{settings}\n"), place, says).await;
    }
}

#[tokio::test]
async fn where_there_is_none_each_call_goes_up() {
    let (emulator, _server, relay) = pair("[breaker]\nenabled = false\n[retry]\nmax_attempts = 1\n").await;
    emulator.trouble(When::always(), Trouble::overloaded());
    let client = Client::builder().base_url(relay.uri()).build().unwrap();
    for _ in 0..30 {
        assert_eq!(ask(&client).await.0, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(emulator.journal().len(), 30);
}

#[tokio::test]
async fn in_a_short_outage_callers_hear_of_it_at_once_and_the_upstream_is_left_alone() {
    let settings = "[breaker]\nmode = \"consecutive\"\nopen = \"400ms\"\nmax_open = \"2s\"\n";
    outage(settings, Duration::from_secs(2), Duration::from_secs(2)).await;
}

#[tokio::test]
#[ignore = "takes half a minute of real time; .ci/run runs it"]
async fn in_an_outage_callers_hear_of_it_at_once_and_the_upstream_is_left_alone() {
    outage("", Duration::from_secs(10), Duration::from_secs(10)).await;
}

/// Runs an outage in which every call fails until the breaker opens, and for `lasts` after that.
async fn outage(settings: &str, lasts: Duration, max_open: Duration) {
    let retry = "[retry]\non_open = \"fail\"\nmax_attempts = 2\nbase_delay = \"10ms\"\n";
    let (emulator, _server, relay) = pair(&format!("{settings}{retry}")).await;
    let client = Client::builder().base_url(relay.uri()).build().unwrap();
    assert_eq!(ask(&client).await.0, StatusCode::OK);
    emulator.trouble(When::always(), Trouble::overloaded());

    let begun = Instant::now();
    let refused = loop {
        let (status, headers, body, _) = ask(&client).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        if body["error"]["message"].as_str().unwrap().contains("circuit") {
            break (headers, body);
        }
        assert!(begun.elapsed() < PATIENCE, "it never opens");
        sleep(Duration::from_millis(100)).await;
    };
    let (headers, body) = refused;
    assert_eq!(body["error"]["status"], "UNAVAILABLE");
    assert!(headers[RETRY_AFTER].to_str().unwrap().parse::<u64>().unwrap() >= 1);

    let (opened, before) = (Instant::now(), emulator.journal().len());
    let mut at_once = 0;
    while opened.elapsed() < lasts {
        let (status, headers, _, took) = ask(&client).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        at_once += usize::from(headers.contains_key(RETRY_AFTER) && took < Duration::from_millis(500));
        sleep(Duration::from_millis(20)).await;
    }
    let seen = emulator.journal().len() - before;
    assert!((1..=6).contains(&seen), "the upstream has seen {seen}");
    assert!(at_once > 20, "{at_once}");

    emulator.clear_troubles();
    let healed = Instant::now();
    while ask(&client).await.0 != StatusCode::OK {
        // 3 s for the probe, on a loaded machine.
        assert!(healed.elapsed() < max_open + Duration::from_secs(3), "it never closes");
        sleep(Duration::from_millis(20)).await;
    }
}
