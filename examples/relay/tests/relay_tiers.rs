//! The relay and the service tiers: their times, their capacity, chains that name one, and the log.

#![cfg(unix)] // the relay is told to end by a signal
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_process;

use std::{sync::Arc, time::Duration};

use axum::{Json, Router, extract::Request as Received, response::IntoResponse};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::timeout};
use tower::ServiceExt;
use tower_gemini::client::Client;

use relay_process::{PATIENCE, Relay, checked};

const PRO: &str = "/v1beta/models/gemini-2.5-pro:generateContent";

/// An upstream that notes each path and body, and answers as it is told.
struct Upstream {
    uri: String,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Upstream {
    async fn new<F>(answer: F) -> Self
    where
        F: Fn(&str, &Value) -> (Duration, StatusCode) + Clone + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<_>>>::default();
        let noted = asked.clone();
        let app = Router::new().fallback(move |request: Received| {
            let (answer, noted) = (answer.clone(), noted.clone());
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                let (delay, status) = answer(&path, &body);
                noted.lock().push((path, body.clone()));
                tokio::time::sleep(delay).await;
                let content = json!({"parts": [{"text": "hello"}], "role": "model"});
                // Priority over its limit is served as standard.
                let served = if tier(&body) == "flex" { "flex" } else { "standard" };
                let usage = json!({"promptTokenCount": 1, "toolUsePromptTokenCount": 2, "candidatesTokenCount": 3, "thoughtsTokenCount": 4, "serviceTier": served});
                let answer = json!({"candidates": [{"content": content, "finishReason": "STOP"}], "usageMetadata": usage});
                let busy = json!({"error": {"code": status.as_u16(), "message": "The model is overloaded.", "status": "UNAVAILABLE"}});
                (status, Json(if status.is_success() { answer } else { busy })).into_response()
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { uri, asked }
    }

    fn settings(&self, more: &str) -> String {
        let fast = "[retry]\nbase_delay = \"1ms\"\nmax_delay = \"5ms\"\n";
        format!("upstream = {:?}\n[[keys]]\nkey = \"key-of-the-relay\"\n{fast}{more}", self.uri)
    }

    fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().clone()
    }
}

fn tier(body: &Value) -> &str {
    let named = [&body["serviceTier"], &body["service_tier"]];
    named.into_iter().find_map(Value::as_str).unwrap_or("standard")
}

/// The status, and the model that the header names.
fn said(answer: &Response<Bytes>) -> (StatusCode, &str) {
    (answer.status(), answer.headers()["x-gemini-model"].to_str().unwrap())
}

async fn ask(relay: &Relay, path: &str, body: &str) -> Response<Bytes> {
    let client: Client<Full<Bytes>> = Client::builder().base_url(relay.uri()).build().unwrap();
    let request = Request::post(path).body(Full::from(body.to_owned())).unwrap();
    let (head, body) = timeout(PATIENCE, client.oneshot(request)).await.expect("no answer").unwrap().into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

fn prompt(tier: &str) -> String {
    json!({"contents": [{"parts": [{"text": "hi"}]}], "serviceTier": tier}).to_string()
}

#[tokio::test]
async fn flex_has_times_of_its_own() {
    let upstream = Upstream::new(|_, _| (Duration::from_millis(1_500), StatusCode::OK)).await;
    let times = "[timeout]\ntotal = \"1s\"\nattempt = \"1s\"\nflex_total = \"25s\"\nflex_first_byte = \"20s\"\n";
    let relay = Relay::start(&upstream.settings(times)).await;
    assert_eq!(ask(&relay, PRO, &prompt("flex")).await.status(), StatusCode::OK);
    assert_eq!(upstream.asked().len(), 1, "one attempt");
    let began = tokio::time::Instant::now();
    assert_eq!(ask(&relay, PRO, &prompt("priority")).await.status(), StatusCode::GATEWAY_TIMEOUT);
    assert!(began.elapsed() < Duration::from_millis(1_500));
}

#[tokio::test]
async fn thirteen_503s_of_flex_move_no_other_call() {
    let upstream = Upstream::new(|path, body| {
        let is_down = tier(body) == "flex" && path.contains("pro");
        (Duration::ZERO, if is_down { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK })
    })
    .await;
    let settings = "[fallback]\n\"gemini-2.5-pro\" = [\"gemini-2.5-flash\"]\nsticky = \"10m\"\n\
                    [breaker]\nmode = \"consecutive\"\nopen = \"5m\"\nmax_open = \"10m\"\n";
    let relay = Relay::start(&upstream.settings(settings)).await;
    let down = || upstream.asked().iter().filter(|(path, body)| path == PRO && tier(body) == "flex").count();
    let calls = (0..13).map(|_| async { ask(&relay, PRO, &prompt("flex")).await });
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(said(&answer), (StatusCode::OK, "gemini-2.5-flash"));
    }
    let failed = down();
    assert!(failed >= 5, "{failed}");
    for name in ["standard", "priority"] {
        let answer = ask(&relay, PRO, &prompt(name)).await;
        assert_eq!(said(&answer), (StatusCode::OK, "gemini-2.5-pro"), "{name}");
    }
    assert_eq!(ask(&relay, PRO, &prompt("flex")).await.headers()["x-gemini-model"], "gemini-2.5-flash");
    assert_eq!(down(), failed, "flex is left alone");
}

#[tokio::test]
async fn a_chain_names_a_tier() {
    let upstream = Upstream::new(|path, body| {
        let is_down = path.contains("pro") && tier(body) != "priority";
        (Duration::ZERO, if is_down { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK })
    })
    .await;
    let settings = "[fallback]\n\"gemini-2.5-pro\" = [\"gemini-2.5-pro@priority\", \"gemini-2.5-flash\"]\n\
                    \"gemini-2.5-pro@flex\" = [\"gemini-2.5-flash\"]\n";
    let relay = Relay::start(&upstream.settings(settings)).await;
    let answer = ask(&relay, PRO, &prompt("standard")).await;
    assert_eq!(said(&answer), (StatusCode::OK, "gemini-2.5-pro"));
    let (path, body) = upstream.asked().pop().unwrap();
    assert_eq!((path.as_str(), tier(&body)), (PRO, "priority"));
    // Calls of flex have a chain of their own.
    let answer = ask(&relay, PRO, &prompt("flex")).await;
    assert_eq!(answer.headers()["x-gemini-model"], "gemini-2.5-flash");
    let (path, body) = upstream.asked().pop().unwrap();
    assert!(path.contains("gemini-2.5-flash:") && tier(&body) == "flex");
}

#[tokio::test]
async fn wrong_tiers_and_times_are_refused_with_their_place() {
    for (settings, place, says) in [
        ("[fallback]\n\"a-1\" = [\"a-1@prioritty\"]", "2:10", "\"prioritty\" is no service tier"),
        ("[fallback]\n\"a-1@flxe\" = [\"b-1\"]", "2:1", "is no service tier"),
        ("[fallback]\n\"a-1\" = [\"@flex\", \"b-1\"]", "2:10", "names a tier and no model"),
        ("[fallback]\n\"a-1\" = [\"b-1@flex\", \"b-1@flex\"]", "2:22", "twice"),
        ("[fallback]\n\"a-1@flex\" = [\"a-1\"]", "2:15", "is the model itself"),
        (
            "[timeout]\nflex_first_byte = \"20m\"",
            "2:19",
            "flex_first_byte is 20m, longer than flex_total, which is 16m",
        ),
        ("[timeout]\nflex_total = 900", "2:14", "without a unit"),
    ] {
        let (code, _, mistakes) = checked(&format!("upstream = \"emulator\"\n{settings}")).await;
        assert_eq!(code, Some(2), "{settings}");
        let line = place.split(':').next().unwrap().parse::<usize>().unwrap() + 1;
        let place = format!(":{line}:{}", place.split(':').nth(1).unwrap());
        assert!(mistakes.contains(&place) && mistakes.contains(says), "{settings}: {mistakes}");
    }
    for settings in ["[fallback]\n\"a-1\" = [\"a-1@flex\", \"b@001\"]", "[timeout]\ntotal = \"2h\"\nattempt = \"1h\""] {
        let (code, _, mistakes) = checked(&format!("upstream = \"emulator\"\n{settings}")).await;
        assert_eq!(code, Some(0), "{mistakes}");
    }
}

#[tokio::test]
async fn the_log_names_what_only_the_body_says() {
    let upstream = Upstream::new(|_, _| (Duration::ZERO, StatusCode::OK)).await;
    let relay = Relay::start_logging(&upstream.settings(""), &[("RELAY_LOG_FORMAT", "json")]).await;
    ask(&relay, PRO, &prompt("flex")).await;
    ask(&relay, PRO, &prompt("standard")).await;
    ask(&relay, PRO, &prompt("priority")).await;
    ask(&relay, "/v1beta/interactions", r#"{"model":"gemini-3.8-flash","input":"hi","service_tier":"priority"}"#).await;
    ask(&relay, "/v1beta/interactions", r#"{"agent":"deep-research","input":"hi"}"#).await;
    let log = relay.said().await;
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let calls: Vec<_> = lines.filter(|line| line["target"] == "relay::call").collect();
    let said: Vec<_> = calls.iter().map(|call| (call["model"].as_str().unwrap(), call["tier"].as_str())).collect();
    let served: Vec<_> = calls.iter().take(3).map(|call| call["served_tier"].as_str()).collect();
    assert_eq!(served, [Some("flex"), Some("standard"), Some("standard")], "{log}");
    // As the metrics count: the results of tools are input, and thoughts are output.
    let tokens = ["tokens_in", "tokens_out", "tokens_thought"].map(|name| calls[0][name].as_u64());
    assert_eq!(tokens, [Some(3), Some(7), Some(4)], "{log}");
    let right = [
        ("gemini-2.5-pro", Some("flex")),
        ("gemini-2.5-pro", None),
        ("gemini-2.5-pro", Some("priority")),
        ("gemini-3.8-flash", Some("priority")),
        ("agents/deep-research", None),
    ];
    assert_eq!(said, right, "{log}");
}
