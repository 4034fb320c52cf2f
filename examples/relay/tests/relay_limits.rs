//! `[limits]` of the relay as a process: right and wrong settings, and the calls that wait and are refused, in their
//! order.

#![cfg(unix)] // as tests/relay.rs, with which it shares the process's harness
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_process;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};
use tower::ServiceExt;
use tower_gemini::{
    BoxError,
    call::Operation,
    client::{Client, ResponseBody},
    emulator::{Emulator, EmulatorBuilder, Server, Visit},
    quota::Limits,
};

use relay_process::{PATIENCE, Relay, refused, refused_at};

const FLASH: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
const PRO: &str = "/v1beta/models/gemini-2.5-pro:generateContent";
const COUNT: &str = "/v1beta/models/gemini-2.5-flash:countTokens";
const MINUTE: Duration = Duration::from_secs(60);

/// Starts an emulator that knows the relay's key, and a relay in front of it with these settings besides.
async fn pair(emulator: EmulatorBuilder, settings: &str) -> (Emulator, Server, Relay) {
    let emulator = emulator.key("key-of-the-relay", "p1").build();
    let server = emulator.serve().await.unwrap();
    let upstream = server.uri();
    let keys = "[[keys]]\nkey = \"key-of-the-relay\"\nproject = \"p1\"\n";
    let relay = Relay::start(&format!("upstream = {upstream:?}\n{keys}{settings}")).await;
    (emulator, server, relay)
}

fn client(relay: &Relay) -> Client<Full<Bytes>> {
    Client::builder().base_url(relay.uri()).build().unwrap()
}

fn prompt(path: &str, text: &str) -> Request<Full<Bytes>> {
    let body = json!({ "contents": [{ "parts": [{ "text": text }] }] });
    Request::post(path).body(Full::from(body.to_string())).unwrap()
}

/// Returns a call with a deadline of 10 s, which never waits for a minute's quota.
fn impatient(path: &str) -> Request<Full<Bytes>> {
    let mut request = prompt(path, "in a hurry");
    request.headers_mut().insert("x-server-timeout", 10.into());
    request
}

async fn send(client: Client<Full<Bytes>>, request: Request<Full<Bytes>>) -> Response<ResponseBody> {
    timeout(PATIENCE, client.oneshot(request)).await.expect("no answer").unwrap()
}

async fn json_of(response: Response<ResponseBody>) -> Value {
    let body = timeout(PATIENCE, response.into_body().collect()).await.expect("no end").unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap_or_else(|_| panic!("no JSON: {body:?}"))
}

async fn status(relay: &Relay, request: Request<Full<Bytes>>) -> StatusCode {
    send(client(relay), request).await.status()
}

/// Returns the message for a call that the relay, and not the upstream, refuses for its quota.
async fn refusal(relay: &Relay, request: Request<Full<Bytes>>) -> String {
    refusal_of("rate_limit", relay, request).await
}

async fn refusal_of(layer: &str, relay: &Relay, request: Request<Full<Bytes>>) -> String {
    let response = send(client(relay), request).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let answer = json_of(response).await;
    assert_eq!(answer["error"]["details"][0]["metadata"]["layer"], layer, "{answer}");
    answer["error"]["message"].as_str().unwrap().to_owned()
}

// --- settings ---

#[tokio::test]
async fn the_documented_limits_are_accepted() {
    let documented = r#"
        upstream = "emulator"
        [limits.default]
        rpm = 30
        tpm = 250000
        rpd = 1000
        pacing = "burst"
        max_wait = "60s"
        [limits."gemini-2.5-flash"]
        rpm = 10
        pacing = "smooth"
        burst = 2
    "#;
    Relay::start(documented).await;
    for limits in [
        "[limits]",
        "[limits.default]",
        "[limits.default]\nmax_wait = \"0s\"",
        "[limits.default]\npacing = \"smooth\"\n[limits.gemini-3-pro-preview]\nburst = 4",
        "[limits.\"tunedModels/mine\"]\nrpm = 1_000\nmax_wait = \"10m\"",
        "limits.default.rpm = 30",
    ] {
        Relay::start(&format!("upstream = \"emulator\"\n{limits}\n")).await;
    }
}

#[tokio::test]
async fn a_wrong_limit_is_refused_with_its_line_and_what_would_be_right() {
    for (settings, place, says) in [
        // Names.
        ("[limit.default]\nrpm = 30", "1:2", &["did you mean limits?"][..]),
        ("rpm = 30", "1:1", &["belongs in [limits.default]"]),
        ("[limits]\nrpm = 30", "2:1", &["[limits]", "belongs in [limits.default]"]),
        ("[retry]\nmax_wait = \"60s\"", "2:1", &["belongs in [limits.default]"]),
        ("[limits.default]\nrpmm = 30", "2:1", &["[limits.default]", "did you mean rpm?", "tpm, rpd, pacing, burst"]),
        (
            "[limits.\"gemini-2.5-flash\"]\nmaxwait = \"60s\"",
            "2:1",
            &["[limits.\"gemini-2.5-flash\"]", "did you mean max_wait?"],
        ),
        ("[limits.defualt]\nrpm = 30", "1:9", &["did you mean [limits.default]?"]),
        ("[limits.gemini-2.5-flash]\nrpm = 30", "1:18", &["needs quotes: [limits.\"gemini-2.5-flash\"]"]),
        (
            "[limits.\"models/gemini-2.5-pro\"]\nrpm = 5",
            "1:9",
            &["without what stands before", "[limits.\"gemini-2.5-pro\"]"],
        ),
        ("[limits.\"Gemini 2.5 Pro\"]\nrpm = 5", "1:9", &["not a model's name", "\"gemini-2.5-flash\""]),
        // Types.
        ("limits = 30", "1:10", &["a section, [limits]"]),
        ("[limits]\ndefault = 30", "2:11", &["default is a whole number here; it is a section, [limits.default]"]),
        ("[[limits.default]]\nrpm = 30", "1:1", &["default is a list here; it is a section, [limits.default]"]),
        ("[limits.default]\nrpm = \"30\"", "2:7", &["is a text", "whole number from 1"]),
        ("[limits.default]\ntpm = 1e6", "2:7", &["is a fraction", "whole number from 1"]),
        // Values.
        ("[limits.default]\nrpm = 0", "2:7", &["is 0", "no call would ever go", "take the line out"]),
        ("[limits.default]\ntpm = 0", "2:7", &["is 0", "no call would ever go"]),
        ("[limits.\"gemini-2.5-pro\"]\nrpd = 0", "2:7", &["is 0", "no call would ever go"]),
        ("[limits.default]\nrpd = -1", "2:7", &["is -1", "from 1"]),
        ("[limits.default]\ntpm = 99999999999999999999", "2:7", &["too large"]),
        ("[limits.default]\npacing = \"fast\"", "2:10", &["\"fast\"", "\"burst\"", "\"smooth\""]),
        ("[limits.default]\nburst = 5", "2:9", &["needs pacing = \"smooth\""]),
        ("[limits.default]\npacing = \"smooth\"\nburst = 0", "3:9", &["is 0", "from 1"]),
        ("[limits.default]\nrpm = 5\npacing = \"smooth\"\nburst = 6", "4:9", &["is 6, more than rpm, which is 5"]),
        (
            "[limits.default]\npacing = \"smooth\"\n[limits.m]\npacing = \"burst\"\nburst = 2",
            "5:9",
            &["needs pacing = \"smooth\""],
        ),
        ("[limits.default]\nmax_wait = 60", "2:12", &["without a unit", "\"60s\""]),
        ("[limits.default]\nmax_wait = 0", "2:12", &["without a unit", "\"0s\" if no call is to wait"]),
        ("[limits.default]\nmax_wait = \"-1s\"", "2:12", &["negative"]),
        ("[limits.default]\nmax_wait = \"soon\"", "2:12", &["not a duration", "\"20s\""]),
        // Syntax.
        ("[limits.default]\n[limits.default]", "2:9", &["duplicate key"]),
    ] {
        refused_at(settings, place, says).await;
    }
}

#[tokio::test]
async fn all_wrong_limits_are_shown_at_once() {
    let wrong = "upstream = \"emulator\"\n[limits]\nfoo = 1\n[limits.default]\nrpm = 0\npacing = 5\n\
                 [limits.gemini-2.5-pro]\nrpm = 1\n[limits.flash]\nrpd = 0\nburst = 1\n";
    let (code, said) = refused(wrong).await;
    let places: Vec<_> = said.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(code, Some(2));
    assert_eq!(
        places,
        [
            "relay.toml:3:7",
            "relay.toml:5:7",
            "relay.toml:6:10",
            "relay.toml:7:18",
            "relay.toml:10:7",
            "relay.toml:11:9"
        ]
    );
}

// --- refusals ---

#[tokio::test]
async fn what_does_not_fit_and_may_not_wait_is_429_in_googles_shape_with_the_wait_it_needs() {
    let settings = "[limits.default]\nrpm = 2\nmax_wait = \"1s\"\n[retry]\non_open = \"fail\"\n";
    let (emulator, _server, relay) = pair(Emulator::builder(), settings).await;
    for _ in 0..2 {
        assert_eq!(status(&relay, prompt(FLASH, "hello")).await, StatusCode::OK);
    }
    let begun = Instant::now();
    let response = send(client(&relay), prompt(FLASH, "one too many")).await;
    let took = begun.elapsed();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let retry_after: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    let answer = json_of(response).await;
    let error = &answer["error"];
    assert_eq!((&error["code"], &error["status"]), (&json!(429), &json!("RESOURCE_EXHAUSTED")));

    let retry_info = error["details"]
        .as_array()
        .unwrap()
        .iter()
        .find(|detail| detail["@type"] == "type.googleapis.com/google.rpc.RetryInfo");
    let delay = retry_info.expect("no RetryInfo")["retryDelay"].as_str().unwrap();
    let delay: f64 = delay.strip_suffix('s').unwrap().parse().unwrap();
    assert!(delay > 60.0 - PATIENCE.as_secs_f64() && delay < 60.6, "{delay}");
    // No client takes more than a minute.
    assert_eq!(retry_after as f64, delay.ceil().min(60.0), "{delay}");
    assert!(took.as_secs_f64() < delay, "it waited: {took:?}");

    let message = error["message"].as_str().unwrap();
    for words in [
        "2 of 2 requests a minute are used",
        "model gemini-2.5-flash",
        "1.0s are allowed",
        "raise max_wait",
        "add a project",
    ] {
        assert!(message.contains(words), "no {words:?} in {message}");
    }
    assert!(!message.contains("p1"), "the project's name is for the log and the status page: {message}");
    assert_eq!(emulator.journal().len(), 2, "what is refused is not sent");
}

#[tokio::test]
async fn a_wait_that_no_deadline_leaves_time_for_is_refused_at_once_whatever_on_open_says() {
    for on_open in ["wait", "fail"] {
        let settings =
            format!("[limits.default]\nrpm = 1\n[timeout]\ntotal = \"25s\"\n[retry]\non_open = {on_open:?}\n");
        let (emulator, _server, relay) = pair(Emulator::builder(), &settings).await;
        assert_eq!(status(&relay, prompt(FLASH, "hello")).await, StatusCode::OK);
        let message = refusal(&relay, prompt(FLASH, "no time")).await;
        assert!(message.contains("its deadline comes before"), "{message}");
        assert!(message.contains("1 of 1 requests a minute"), "{message}");
        assert_eq!(emulator.journal().len(), 1);
    }
}

#[tokio::test]
async fn who_would_wait_longer_than_max_wait_is_told_so_at_once_whatever_the_retries_wait_for() {
    for retry in ["", "[retry]\non_open = \"wait\"\n", "[retry]\non_open = \"fail\"\n"] {
        let settings = format!("[limits.default]\nrpm = 2\nmax_wait = \"1s\"\n{retry}");
        let (emulator, _server, relay) = pair(Emulator::builder(), &settings).await;
        for _ in 0..2 {
            assert_eq!(status(&relay, prompt(FLASH, "hello")).await, StatusCode::OK);
        }
        let begun = Instant::now();
        let message = refusal(&relay, prompt(FLASH, "too soon")).await;
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert!(message.contains("raise max_wait"), "{message}");
        assert_eq!(emulator.journal().len(), 2);
    }
}

#[tokio::test]
async fn each_model_has_a_count_of_its_own_and_what_its_table_leaves_out_is_the_defaults() {
    let settings = "[limits.default]\nrpm = 2\nrpd = 3\nmax_wait = \"0s\"\n[limits.\"gemini-2.5-pro\"]\nrpm = 9\n\
                    [retry]\non_open = \"fail\"\n";
    let (emulator, _server, relay) = pair(Emulator::builder(), settings).await;
    for path in [FLASH, PRO, FLASH, PRO, PRO] {
        assert_eq!(status(&relay, prompt(path, "hello")).await, StatusCode::OK);
    }
    let flash = refusal(&relay, prompt(FLASH, "hello")).await;
    assert!(flash.contains("2 of 2 requests a minute") && flash.contains("2 of 3 requests a day"), "{flash}");
    let pro = refusal(&relay, prompt(PRO, "hello")).await;
    assert!(pro.contains("3 of 9 requests a minute") && pro.contains("3 of 3 requests a day"), "{pro}");

    // The OpenAI-compatible surface names the model in its body, and spends the same quota.
    let body = r#"{"model": "gemini-2.5-flash", "messages": [{"role": "user", "content": "hello"}]}"#;
    let request = Request::post("/v1beta/openai/chat/completions").body(Full::from(body)).unwrap();
    assert_eq!(status(&relay, request).await, StatusCode::TOO_MANY_REQUESTS);

    assert_eq!(status(&relay, prompt(COUNT, "hello")).await, StatusCode::OK, "counting is free");
    assert_eq!(emulator.journal().len(), 6);
}

#[tokio::test]
async fn a_model_may_have_a_pace_and_a_patience_of_its_own() {
    let settings = "[limits.default]\nrpm = 2\nmax_wait = \"2s\"\n\
                    [limits.\"gemini-2.5-pro\"]\npacing = \"smooth\"\nmax_wait = \"3s\"\n[retry]\non_open = \"fail\"\n";
    let (emulator, _server, relay) = pair(Emulator::builder(), settings).await;
    for path in [FLASH, PRO, FLASH] {
        assert_eq!(status(&relay, prompt(path, "hello")).await, StatusCode::OK);
    }
    let flash = refusal(&relay, prompt(FLASH, "hello")).await;
    assert!(flash.contains("2 of 2 requests a minute") && flash.contains("2.0s are allowed"), "{flash}");
    let pro = refusal(&relay, prompt(PRO, "half a minute too early")).await;
    assert!(pro.contains("1 of 2 requests a minute") && pro.contains("3.0s are allowed"), "{pro}");
    assert_eq!(emulator.journal().len(), 3);
}

#[tokio::test]
async fn tokens_are_counted_too() {
    let settings = "[limits.default]\ntpm = 1000\nmax_wait = \"0s\"\n[retry]\non_open = \"fail\"\n";
    let (emulator, _server, relay) = pair(Emulator::builder(), settings).await;
    let long = "word ".repeat(700);
    assert_eq!(status(&relay, prompt(FLASH, &long)).await, StatusCode::OK);
    let message = refusal(&relay, prompt(FLASH, &long)).await;
    assert!(message.contains("875 of 1000 input tokens a minute"), "{message}");
    // A call that is larger than a whole minute's quota would never be admitted.
    let response = send(client(&relay), prompt(FLASH, &"word ".repeat(1_200))).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let answer = json_of(response).await.to_string();
    assert!(answer.contains("1201 input tokens or more, and the quota is 1000"), "{answer}");
    assert_eq!(emulator.journal().len(), 1);
}

#[tokio::test]
async fn without_limits_the_first_refusal_of_the_upstream_is_the_last() {
    let limits = Limits::new().requests_per_minute(2);
    let (emulator, _server, relay) = pair(Emulator::builder().limits(limits), "[retry]\nmax_attempts = 1\n").await;
    for expected in [200, 200, 429] {
        assert_eq!(status(&relay, impatient(FLASH)).await, expected);
    }
    assert_eq!(emulator.journal().len(), 3);
    // The limiter has learned the limit, but the pool comes first: it has no key left.
    let message = refusal_of("key_pool", &relay, impatient(FLASH)).await;
    assert!(message.contains("no quota for gemini-2.5-flash within") && !message.contains("p1"), "{message}");
    assert_eq!(status(&relay, impatient(PRO)).await, StatusCode::OK, "another model");
    assert_eq!(emulator.journal().len(), 4, "the refused one was not sent");
}

// --- waits, and their order ---

const RPM: usize = 30;
const CALLS: usize = 45;

/// The time that the upstream takes for an answer. It is longer than the limiter's grain of 0.25 s: calls one after the
/// other have their turns one after the other, too, and far enough apart that nothing on the way can swap them.
const THINKS: Duration = Duration::from_millis(500);

#[tokio::test]
#[ignore = "takes a minute of real time; .ci/run runs it"]
async fn of_45_calls_at_30_a_minute_all_are_answered_in_order_of_arrival_and_no_minute_sees_more_than_30() {
    let upstream = Emulator::builder().limits(Limits::new().requests_per_minute(RPM as u64)).before_headers(THINKS);
    let settings = format!("[limits.default]\nrpm = {RPM}\nmax_wait = \"60s\"\n");
    let (emulator, _server, relay) = pair(upstream, &settings).await;
    // Opens the connections before the test counts. Counting tokens is free.
    answered((0..CALLS).map(|_| start(&relay, COUNT, 0)).collect()).await;

    // Two models at once, so that the test takes one minute, not two.
    tokio::join!(all_at_once(&emulator, &relay), one_by_one(&emulator, &relay));
}

/// Makes 45 calls: 30 go at once, and 15 a minute later.
async fn all_at_once(emulator: &Emulator, relay: &Relay) {
    answered((0..CALLS).map(|number| start(relay, FLASH, number)).collect()).await;
    seen(emulator, "gemini-2.5-flash");
}

/// Makes calls whose turns come in a known order: each call arrives after the one before.
async fn one_by_one(emulator: &Emulator, relay: &Relay) {
    const APART: usize = CALLS - RPM;
    for number in 0..APART {
        answered(vec![start(relay, PRO, number)]).await;
    }
    answered((APART..RPM).map(|number| start(relay, PRO, number)).collect()).await;
    let mut waiting = Vec::new();
    for number in RPM..CALLS {
        waiting.push(start(relay, PRO, number));
        // A refusal says how many calls wait: so this one has arrived before the next one is sent.
        let queued = format!(" {} calls wait", waiting.len());
        let arrived = async { while !refusal(relay, impatient(PRO)).await.contains(&queued) {} };
        timeout(PATIENCE, arrived).await.expect("a call was not queued");
    }
    answered(waiting).await;

    let order: Vec<_> = seen(emulator, "gemini-2.5-pro").iter().map(|visit| visit.prompt.clone()).collect();
    let arrival: Vec<_> = (RPM..CALLS).map(|number| format!("call {number}\n")).collect();
    assert_eq!(order[RPM..], arrival);
}

type Answer = JoinHandle<Result<Response<ResponseBody>, BoxError>>;

fn start(relay: &Relay, path: &str, number: usize) -> Answer {
    tokio::spawn(client(relay).oneshot(prompt(path, &format!("call {number}"))))
}

async fn answered(calls: Vec<Answer>) {
    for call in calls {
        let response = timeout(MINUTE + PATIENCE, call).await.expect("no answer").unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
}

/// Checks the calls that the upstream has seen for a model: none twice, none refused, and at most 30 in any minute.
fn seen(emulator: &Emulator, model: &str) -> Vec<Visit> {
    let mut visits = emulator.journal();
    visits.retain(|visit| visit.operation == Operation::GenerateContent && visit.model.as_deref() == Some(model));
    assert_eq!(visits.len(), CALLS);
    assert!(visits.iter().all(|visit| visit.status == Some(StatusCode::OK)), "{visits:#?}");
    for (earlier, later) in visits.iter().zip(&visits[RPM..]) {
        assert!(later.at - earlier.at >= MINUTE, "one more than {RPM} from {:?} to {:?}", earlier.at, later.at);
    }
    visits
}
