//! `[precheck]` of the relay as a process: the calls that are refused before they are sent, and those that pass.

#![cfg(unix)] // as tests/relay.rs, with which it shares the process's harness
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_process;

use bytes::Bytes;
use http::{Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::time::timeout;
use tower::ServiceExt;
use tower_gemini::{
    call::Operation,
    client::Client,
    emulator::{EmulatedModel, Emulator, Server},
};

use relay_process::{PATIENCE, Relay, refused_at};

async fn pair(settings: &str) -> (Emulator, Server, Relay) {
    let small = EmulatedModel::new("small").input_token_limit(10_000);
    let emulator = Emulator::builder().key("key-of-the-relay", "p1").default_models().model(small).build();
    let server = emulator.serve().await.unwrap();
    let upstream = server.uri();
    let settings = format!("upstream = {upstream:?}\n[[keys]]\nkey = \"key-of-the-relay\"\n{settings}");
    (emulator, server, Relay::start(&settings).await)
}

async fn ask(relay: &Relay, model: &str, body: impl Into<Bytes>) -> (StatusCode, Value) {
    let client: Client<Full<Bytes>> = Client::builder().base_url(relay.uri()).build().unwrap();
    let (uri, body): (_, Bytes) = (format!("/v1beta/models/{model}:generateContent"), body.into());
    let request = Request::post(uri).header(CONTENT_TYPE, "application/json").body(Full::new(body)).unwrap();
    let (head, body) = timeout(PATIENCE, client.oneshot(request)).await.expect("no answer").unwrap().into_parts();
    let body = timeout(PATIENCE, body.collect()).await.expect("no end").unwrap().to_bytes();
    (head.status, serde_json::from_slice(&body).unwrap_or_else(|_| panic!("no JSON: {body:?}")))
}

/// Returns a prompt of this many bytes of prose, which has about one token for every five of them.
fn prose(bytes: usize) -> String {
    let line = "Every failure is somebody's fault, and each layer acts on one fault only. ";
    format!(r#"{{"contents":[{{"parts":[{{"text":"{}"}}]}}]}}"#, line.repeat(bytes / line.len()))
}

fn generated(emulator: &Emulator) -> usize {
    emulator.count(|visit| visit.operation == Operation::GenerateContent)
}

fn says<'a>(answer: &'a Value, status: &str) -> &'a str {
    assert_eq!(answer["error"]["status"], status, "{answer}");
    answer["error"]["message"].as_str().unwrap()
}

#[tokio::test]
async fn a_misspelt_model_is_404_with_the_right_name_and_the_upstream_is_not_called() {
    let (emulator, _server, relay) = pair("").await;
    // The very first call.
    let (status, answer) = ask(&relay, "gemini-2.5-flsh", prose(100)).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let message = says(&answer, "NOT_FOUND");
    assert!(message.contains("gemini-2.5-flsh") && message.contains("Did you mean gemini-2.5-flash?"), "{message}");
    assert_eq!(generated(&emulator), 0);
    assert_eq!(ask(&relay, "gemini-2.5-flash", prose(100)).await.0, StatusCode::OK);
    // The list was fetched once.
    assert_eq!(emulator.journal().len(), 2);
}

#[tokio::test]
async fn empty_contents_and_broken_json_are_400() {
    let (emulator, _server, relay) = pair("").await;
    let (status, answer) = ask(&relay, "gemini-2.5-flash", r#"{"contents":[]}"#).await;
    assert_eq!(
        (status, says(&answer, "INVALID_ARGUMENT").contains("contents is empty")),
        (StatusCode::BAD_REQUEST, true)
    );
    let (status, answer) = ask(&relay, "gemini-2.5-flash", "{\"contents\":\n[}").await;
    assert_eq!(
        (status, says(&answer, "INVALID_ARGUMENT").contains("line 2, column 2")),
        (StatusCode::BAD_REQUEST, true)
    );
    assert!(emulator.journal().is_empty());
}

#[tokio::test]
async fn what_is_too_long_is_400_with_both_numbers_and_what_fits_passes() {
    let (emulator, _server, relay) = pair("").await;
    let (status, answer) = ask(&relay, "gemini-2.5-flash", prose(7_500_000)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let message = says(&answer, "INVALID_ARGUMENT");
    assert!(message.starts_with("The input token count (") && message.contains("allowed (1048576)"), "{message}");
    assert_eq!(generated(&emulator), 0);
    // A model's own limit is in the list alone, which is fetched for a name that the relay does not know.
    let (status, answer) = ask(&relay, "small", prose(100_000)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(says(&answer, "INVALID_ARGUMENT").contains("allowed (10000)"), "{answer}");
    assert_eq!(generated(&emulator), 0);

    assert_eq!(ask(&relay, "gemini-2.5-flash", prose(3_000_000)).await.0, StatusCode::OK);
    assert_eq!(ask(&relay, "small", prose(30_000)).await.0, StatusCode::OK);
    let image = "A".repeat(20_000_000);
    let body = format!(
        r#"{{"contents":[{{"parts":[{{"text":"what is it?"}},{{"inlineData":{{"mimeType":"image/png","data":"{image}"}}}}]}}]}}"#
    );
    assert_eq!(ask(&relay, "gemini-2.5-flash", body).await.0, StatusCode::OK);
    assert_eq!(generated(&emulator), 3);
}

#[tokio::test]
async fn disabled_the_upstream_judges() {
    let (emulator, _server, relay) = pair("[precheck]\nenabled = false\n").await;
    assert_eq!(ask(&relay, "gemini-2.5-flsh", prose(100)).await.0, StatusCode::NOT_FOUND);
    assert_eq!(ask(&relay, "gemini-2.5-flash", "{").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(emulator.journal().len(), 2);
    let (emulator, _server, relay) = pair("[precheck]\non_unknown_model = \"forward\"\n").await;
    assert_eq!(ask(&relay, "gemini-2.5-flsh", prose(100)).await.0, StatusCode::NOT_FOUND);
    assert_eq!(generated(&emulator), 1);
}

#[tokio::test]
async fn the_output_limit_is_clamped_where_it_is_set_so() {
    let (emulator, _server, relay) = pair("[precheck]\nmax_output = \"refuse\"\ncount_tokens = \"never\"\n").await;
    let body = r#"{"contents":[{"parts":[{"text":"x"}]}],"generationConfig":{"maxOutputTokens":100000}}"#;
    let (status, answer) = ask(&relay, "gemini-2.5-flash", body).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(says(&answer, "INVALID_ARGUMENT").contains("1 to 65536"), "{answer}");
    assert!(emulator.journal().is_empty());
}

#[tokio::test]
async fn a_wrong_setting_is_refused_with_its_line_and_what_would_be_right() {
    for (settings, place, says) in [
        ("[precheck]\nenable = true", "2:1", &["[precheck]", "did you mean enabled?"][..]),
        ("[precheck]\non_unknown_model = \"guess\"", "2:20", &["guess", "\"refuse\"", "\"forward\""]),
        ("[precheck]\nmax_output = 5", "2:14", &["\"off\"", "\"warn\"", "\"clamp\"", "\"refuse\""]),
        ("[precheck]\ncount_tokens = \"often\"", "2:16", &["often", "\"near_limit\"", "\"never\"", "\"always\""]),
    ] {
        refused_at(&format!("{settings}\n"), place, says).await;
    }
}
