//! The relay and its callers: who each is, what it may use, what it has used, and whose turn it is.

#![cfg(unix)] // it is told what to do by signals
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_process;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Json, Router, extract::Request as Received};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::timeout};
use tower::ServiceExt;
use tower_gemini::{
    client::Client,
    emulator::{Emulator, Server, Trouble, When},
};

use relay_process::{PATIENCE, Relay, checked, refused_at};

const FLASH: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
const PRO: &str = "/v1beta/models/gemini-2.5-pro:generateContent";
const CHAT: &str = "/v1beta/openai/chat/completions";

const PROMPT: &str = r#"{"contents": [{"parts": [{"text": "hello"}]}]}"#;

/// Returns settings for an upstream, with a key of the relay's own.
fn settings(upstream: &str, callers: &str) -> String {
    format!("upstream = {upstream:?}\n[[keys]]\nkey = \"key-of-the-relay\"\n{callers}")
}

async fn emulated(callers: &str) -> (Emulator, Server, Relay) {
    let emulator = Emulator::builder().key("key-of-the-relay", "default").build();
    let server = emulator.serve().await.unwrap();
    let relay = Relay::start_logging(&settings(&server.uri(), callers), &[]).await;
    (emulator, server, relay)
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    json: Value,
}

impl Answer {
    fn message(&self) -> &str {
        self.json["error"]["message"].as_str().unwrap_or_else(|| panic!("no message: {}", self.json))
    }

    fn wait(&self) -> u64 {
        self.headers.get("retry-after").expect("no time").to_str().unwrap().parse().unwrap()
    }
}

fn call(token: &str, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(path).header("x-goog-api-key", token).body(Full::from(body.into())).unwrap()
}

async fn send(relay: &Relay, request: Request<Full<Bytes>>) -> Answer {
    let client: Client<Full<Bytes>> = Client::builder().base_url(relay.uri_of(request.uri().path())).build().unwrap();
    let (head, body) = timeout(PATIENCE, client.oneshot(request)).await.expect("no answer").unwrap().into_parts();
    let body = timeout(PATIENCE, body.collect()).await.expect("no end").unwrap().to_bytes();
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        json: serde_json::from_slice(&body).unwrap_or(Value::Null),
    }
}

async fn ask(relay: &Relay, token: &str, path: &str) -> Answer {
    send(relay, call(token, path, PROMPT)).await
}

async fn get(relay: &Relay, path: &str) -> Answer {
    send(relay, Request::get(path).body(Full::default()).unwrap()).await
}

async fn page(relay: &Relay, path: &str) -> String {
    let client: Client<Full<Bytes>> = Client::builder().base_url(relay.uri_of(path)).build().unwrap();
    let response = client.oneshot(Request::get(path).body(Full::default()).unwrap()).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

// --- settings ---

#[tokio::test]
async fn callers_are_described_by_a_check_without_their_tokens() {
    let callers = "
        client_tokens = [\"a-long-token-of-nobody\"]
        [[callers]]
        name = \"app\"
        token = \"a-long-token-of-app\"
        priority = \"interactive\"
        [[callers]]
        name = \"jobs@night\"
        tokens = [\"env:PATH_TOKEN_IN_TEST\", \"a-long-token-of-jobs\"]
        priority = \"batch\"
        models = [\"gemini-2.5-flash\", \"gemini-3*\", \"agents/deep-research-*\", \"tunedModels/*\"]
        rpm = 60
        tpm = 1_000_000
        rpd = 5000
        tpd = 20_000_000
        money_per_day = 2.5
        money_per_month = 50
        past = \"lowest\"
        [prices]
        \"gemini-2.5-flash\" = { input = 0.3, output = 2.5, cached = 0.075 }
        \"gemini-3*\" = { input = 2, output = 12, long = { above = 200_000, input = 4, output = 18, cached = 0.4 } }
    "
    .replace("env:PATH_TOKEN_IN_TEST", "another-token-of-jobs");
    let (code, said, mistakes) = checked(&format!("upstream = \"emulator\"\n{callers}")).await;
    assert_eq!((code, mistakes.as_str()), (Some(0), ""), "{said}");
    let line = said.lines().find(|line| line.starts_with("callers  ")).unwrap_or_else(|| panic!("{said}"));
    for words in [
        "app (interactive)",
        "jobs@night (batch, gemini-2.5-flash gemini-3* agents/deep-research-* tunedModels/*, 60 requests a minute",
        "20000000 tokens a day, $2.50 a day, $50.00 a month",
    ] {
        assert!(line.contains(words), "no {words:?} in {line}");
    }
    assert!(!said.contains("token-of"), "{said}");
}

#[tokio::test]
async fn wrong_callers_are_refused_in_their_place() {
    let caller = |more: &str| format!("[[callers]]\nname = \"a\"\ntoken = \"t\"\n{more}");
    let spends = |models: &str, prices: &str| {
        caller(&format!("models = [{models}]\nmoney_per_day = 1\n[prices]\n\"gemini-2.5-flash\" = {prices}"))
    };
    let good = "{ input = 1, output = 2 }";
    for (settings, place, says) in [
        // Names and tokens.
        ("[[callers]]\ntoken = \"t\"".to_owned(), "1:1", &["[[callers]] has no name", "name = \"jobs\""][..]),
        ("[[callers]]\nname = \"a\"".to_owned(), "1:1", &["has no token", "env:JOBS_TOKEN"]),
        ("[[callers]]\nname = \"a b\"\ntoken = \"t\"".to_owned(), "2:8", &["letters, digits and - _ . @"]),
        (format!("[[callers]]\nname = \"{}\"\ntoken = \"t\"", "x".repeat(65)), "2:8", &["65 characters", "64"]),
        ("[[callers]]\nname = \"token#1\"\ntoken = \"t\"".to_owned(), "2:8", &["letters, digits"]),
        (caller("tokens = [\"u\"]"), "4:10", &["there is token as well"]),
        ("[[callers]]\nname = \"a\"\ntokens = []".to_owned(), "3:10", &["is empty"]),
        ("[[callers]]\nname = \"a\"\ntokens = [\"t\", \"env:NO_SUCH\"]".to_owned(), "3:16", &["NO_SUCH is not set"]),
        ("[[callers]]\nname = \"a\"\ntokens = [\"t\", \"t\"]".to_owned(), "3:16", &["this caller, too", "once"]),
        (format!("{}[[callers]]\nname = \"b\"\ntoken = \"t\"", caller("")), "6:9", &["also that of a"]),
        (format!("client_tokens = [\"t\"]\n{}", caller("")), "4:9", &["one of client_tokens"]),
        ("client_tokens = [\"t\", \"t\"]".to_owned(), "1:23", &["one of client_tokens"]),
        (format!("{}[[callers]]\nname = \"a\"\ntoken = \"u\"", caller("")), "5:8", &["another caller", "\"a\""]),
        (caller("tokn = \"u\""), "4:1", &["[[callers]]", "did you mean token?"]),
        ("callers = [\"a\"]".to_owned(), "1:12", &["a list, [[callers]]"]),
        // A key is no token; it is not shown.
        (
            "[[callers]]\nname = \"a\"\ntoken = \"k-secret\"\n[[keys]]\nkey = \"k-secret\"".to_owned(),
            "3:9",
            &["also a key"],
        ),
        ("client_tokens = [\"k-secret\"]\n[[keys]]\nkey = \"k-secret\"".to_owned(), "1:18", &["of its own"]),
        // Priorities, models.
        (caller("priority = \"high\""), "4:12", &["\"interactive\", \"normal\", \"batch\""]),
        (caller("models = []"), "4:10", &["is empty"]),
        (caller("models = [\"*\"]"), "4:11", &["take the line out"]),
        (caller("models = [\"gemini-*-pro\"]"), "4:11", &["a * stands at the end"]),
        (
            caller("models = [\"models/gemini-2.5-pro\"]"),
            "4:11",
            &["without what stands before it", "\"gemini-2.5-pro\""],
        ),
        (caller("models = [\"gemini 2\"]"), "4:11", &["not a model's name"]),
        // Limits.
        (caller("rpm = 0"), "4:7", &["no call would ever go"]),
        (caller("tpd = -1"), "4:7", &["is -1"]),
        (caller("past = \"lowest\""), "4:8", &["no limit to go past"]),
        (caller("rpm = 1\npast = \"queue\""), "5:8", &["\"refuse\", \"lowest\""]),
        (caller("money_per_day = 1"), "4:17", &["needs [prices]"]),
        (caller("money_per_day = 0\n[prices]"), "4:17", &["no call would ever go"]),
        (caller("money_per_day = -2.5\n[prices]"), "4:17", &["-2.5", "dollars"]),
        (caller("money_per_month = \"5\"\n[prices]"), "4:19", &["is a text", "dollars"]),
        (spends("\"gemini-2.5-pro\"", good), "5:17", &["may use gemini-2.5-pro", "has no price"]),
        // Prices.
        (spends("\"gemini-2.5-flash\"", "{ input = 1 }"), "7:22", &["has no output", "dollars for a million"]),
        (spends("\"gemini-2.5-*\"", "{ input = 1, output = 1e3 }"), "7:44", &["1e3", "dollars"]),
        (spends("\"gemini-2.5-*\"", "{ input = 1, output = 2, cached = 2 }"), "7:56", &["more than input"]),
        (spends("\"gemini-2.5-*\"", "{ input = 1, output = 2, extra = 2 }"), "7:47", &["input, output, cached, long"]),
        (
            spends("\"gemini-2.5-*\"", "{ input = 1, output = 2, long = { input = 2, output = 3 } }"),
            "7:54",
            &["[prices.\"gemini-2.5-flash\".long] has no above", "200000"],
        ),
        ("[prices]\ngemini-2.5 = { input = 1, output = 2 }".to_owned(), "2:10", &["needs quotes", "\"gemini-2.5\""]),
        ("[prices.gemini-5]\ninput = 1".to_owned(), "1:1", &["[prices.\"gemini-5\"] has no output"]),
        ("[prices]\n\"gemini-2.5\" = 3".to_owned(), "2:16", &["a section"]),
    ] {
        refused_at(&settings, place, says).await;
    }
}

// --- limits ---

const TWO: &str = "
    [[callers]]
    name = \"heavy\"
    token = \"token-of-heavy\"
    rpm = 2
    [[callers]]
    name = \"light\"
    token = \"token-of-light\"
";

#[tokio::test]
async fn a_caller_that_has_used_its_minute_is_told_when_to_come_again_and_nobody_else_is_touched() {
    let (emulator, _server, relay) = emulated(TWO).await;
    for expected in [200, 200, 429] {
        let answer = ask(&relay, "token-of-heavy", FLASH).await;
        assert_eq!(answer.status, expected, "{}", answer.json);
        if expected == 429 {
            assert!((50..=61).contains(&answer.wait()), "{}", answer.wait());
            assert_eq!(answer.json["error"]["status"], "RESOURCE_EXHAUSTED", "{}", answer.json);
            assert!(answer.message().contains("you have used 2 of 2 requests a minute"), "{}", answer.json);
        }
    }
    assert_eq!(emulator.journal().len(), 2, "the third was not sent");
    for _ in 0..5 {
        assert_eq!(ask(&relay, "token-of-light", PRO).await.status, 200);
    }
    // A call that costs nothing stays free.
    let counts = call("token-of-heavy", "/v1beta/models/gemini-2.5-flash:countTokens", PROMPT);
    assert_eq!(send(&relay, counts).await.status, 200);

    // The page and the metrics say it, by name; no token is anywhere.
    let status = get(&relay, "/status").await.json;
    let heavy = &status["callers"][0];
    assert_eq!((&heavy["caller"], status["callers"].as_array().unwrap().len()), (&json!("heavy"), 1), "{status}");
    let limit = &heavy["limits"][0];
    assert_eq!((&limit["of"], &limit["used"], &limit["max"]), (&json!("requests a minute"), &json!(2.0), &json!(2.0)));
    assert!(limit["resets_in_s"].as_f64().unwrap() <= 60.3, "{limit}");
    let failure = &status["failures"][0];
    assert_eq!((&failure["kind"], status["wrong"][0]["level"].as_str()), (&json!("caller_limited"), Some("note")));
    assert!(failure["what_to_do"].as_str().unwrap().contains("[[callers]]"), "{failure}");
    let metrics = page(&relay, "/metrics").await;
    let used = metrics.lines().find(|line| line.starts_with("tower_gemini_caller_used{"));
    let used = used.unwrap_or_else(|| panic!("{metrics}"));
    assert!(used.contains("tower_gemini_caller=\"heavy\"") && used.ends_with(" 2"), "{used}");
    let said = relay.said().await;
    assert!(said.contains("caller=\"heavy\"") && said.contains("caller=\"light\""), "{said}");
    for text in [status.to_string(), metrics, said] {
        assert!(!text.contains("token-of-"), "{text}");
    }
}

#[tokio::test]
async fn money_is_counted_by_the_prices_and_ends_a_callers_day() {
    // A dollar a token.
    let (emulator, _server, relay) = emulated(
        "
        [[callers]]
        name = \"spender\"
        token = \"token-of-spender\"
        money_per_day = 8
        [prices]
        \"gemini-2.5-flash\" = { input = 1_000_000, output = 1_000_000 }
        ",
    )
    .await;
    let mut answers = Vec::new();
    while answers.last() != Some(&429) {
        assert!(answers.len() < 9, "it never ends: {answers:?}");
        let answer = ask(&relay, "token-of-spender", FLASH).await;
        if answer.status == 429 {
            assert!(answer.message().contains("of $8.00 a day"), "{}", answer.json);
            assert!(answer.wait() > 0);
        }
        answers.push(answer.status);
    }
    assert!(answers.len() >= 2, "the first call has its money: {answers:?}");
    assert_eq!(emulator.journal().len(), answers.len() - 1);
    let status = get(&relay, "/status").await.json;
    let limit = &status["callers"][0]["limits"][0];
    assert_eq!((&limit["of"], &limit["max"]), (&json!("money a day"), &json!(8.0)), "{status}");
    assert!(limit["used"].as_f64().unwrap() >= 2.0, "{limit}");
}

#[tokio::test]
async fn who_goes_past_its_limit_with_the_lowest_priority_is_answered() {
    let (emulator, _server, relay) = emulated(&TWO.replace("rpm = 2", "rpm = 2\npast = \"lowest\"")).await;
    for _ in 0..4 {
        assert_eq!(ask(&relay, "token-of-heavy", FLASH).await.status, 200);
    }
    assert_eq!(emulator.journal().len(), 4);
}

#[tokio::test]
async fn what_a_caller_has_used_stays_used_when_settings_change() {
    let (emulator, server, relay) = emulated(TWO).await;
    for expected in [200, 200, 429] {
        assert_eq!(ask(&relay, "token-of-heavy", FLASH).await.status, expected);
    }
    let reload = async |callers: &str| relay.reload(&settings(&server.uri(), callers)).await;
    // Somebody else comes, prices come, the upstream's key changes its project, the limit is raised by one.
    let third = "[[callers]]\nname = \"third\"\ntoken = \"token-of-third\"\nrpd = 1\n";
    reload(&format!("{third}{TWO}[prices]\n\"*\" = {{ input = 1, output = 1 }}\n")).await;
    assert_eq!(ask(&relay, "token-of-heavy", FLASH).await.status, 429);
    assert_eq!(ask(&relay, "token-of-third", FLASH).await.status, 200);
    assert_eq!(ask(&relay, "token-of-third", FLASH).await.status, 429);
    reload(&TWO.replace("rpm = 2", "rpm = 3")).await;
    for expected in [200, 429] {
        assert_eq!(ask(&relay, "token-of-heavy", FLASH).await.status, expected);
    }
    // A token that has left opens nothing, and a caller that has another one has used what it has used.
    reload(&TWO.replace("token-of-heavy", "new-token-of-heavy")).await;
    assert_eq!(ask(&relay, "token-of-heavy", FLASH).await.status, 401);
    assert_eq!(ask(&relay, "new-token-of-heavy", FLASH).await.status, 429);
    assert_eq!(emulator.journal().len(), 4);
}

// --- models ---

#[tokio::test]
async fn a_model_that_a_caller_may_not_use_is_403_in_the_words_of_its_surface() {
    let (emulator, _server, relay) = emulated(
        "
        [[callers]]
        name = \"flash-only\"
        tokens = [\"token-a\", \"token-b\"]
        models = [\"gemini-2.5-flash*\", \"gemini-embedding-001\"]
        ",
    )
    .await;
    let refused = |answer: &Answer, model: &str| {
        assert_eq!(answer.status, 403, "{}", answer.json);
        let message = answer.message().to_owned();
        assert!(message.contains(model) && message.contains("flash-only"), "{message}");
        assert!(answer.headers.get("retry-after").is_none());
    };
    let answer = ask(&relay, "token-b", PRO).await;
    refused(&answer, "gemini-2.5-pro");
    assert_eq!(answer.json["error"]["status"], "PERMISSION_DENIED");
    refused(&ask(&relay, "token-a", "/v1beta/models/gemini-2.5-pro:countTokens").await, "gemini-2.5-pro");
    refused(&ask(&relay, "token-a", "/v1beta/models/gemini-2.5-pro:batchGenerateContent").await, "gemini-2.5-pro");
    // OpenAI's surface and interactions have the model in their bodies.
    let chat = |model: &str| json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] }).to_string();
    let answer = send(&relay, call("token-a", CHAT, chat("gemini-2.5-pro"))).await;
    refused(&answer, "gemini-2.5-pro");
    assert_eq!((&answer.json["error"]["code"], answer.json["error"]["type"].is_string()), (&json!(403), true));
    let interaction = json!({ "model": "gemini-2.5-pro", "input": "hi" }).to_string();
    refused(&send(&relay, call("token-a", "/v1beta/interactions", interaction)).await, "gemini-2.5-pro");
    let agent = json!({ "agent": "deep-research-pro", "input": "hi", "background": true }).to_string();
    refused(&send(&relay, call("token-a", "/v1beta/interactions", agent)).await, "agents/deep-research-pro");
    // Nobody knows the model of these.
    refused(&send(&relay, call("token-a", CHAT, "{\"messages\": []}")).await, "names no model");
    let batch = json!({ "input_file_id": "files/a", "endpoint": "/v1/chat/completions" }).to_string();
    refused(&send(&relay, call("token-a", "/v1beta/openai/batches", batch)).await, "names no model");
    assert!(emulator.journal().is_empty(), "nothing was sent");

    for (path, body) in [
        (FLASH, PROMPT.to_owned()),
        ("/v1beta/models/gemini-2.5-flash-lite:generateContent", PROMPT.to_owned()),
        (CHAT, chat("gemini-2.5-flash")),
        ("/v1beta/interactions", json!({ "model": "gemini-2.5-flash", "input": "hi" }).to_string()),
    ] {
        let answer = send(&relay, call("token-a", path, body)).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.json);
    }
    // Lists are the same for everybody.
    let list = Request::get("/v1beta/models?key=token-a").body(Full::default()).unwrap();
    assert_eq!(send(&relay, list).await.status, 200);
    let pro = Request::get("/v1beta/models/gemini-2.5-pro?key=token-a").body(Full::default()).unwrap();
    assert_eq!(send(&relay, pro).await.status, 200);
}

/// A caller of one model, a caller with a limit, and one with neither.
const BOUNDED: &str = "
    [[callers]]
    name = \"flash-only\"
    token = \"token-of-flash\"
    models = [\"gemini-2.5-flash\"]
    [[callers]]
    name = \"limited\"
    token = \"token-of-limited\"
    rpm = 2
    [[callers]]
    name = \"free\"
    token = \"token-of-free\"
";

#[tokio::test]
async fn no_way_of_writing_a_path_goes_past_models_and_limits() {
    let (emulator, _server, relay) = emulated(BOUNDED).await;
    // An escape is what it stands for, to the relay and to the upstream.
    let escaped = "/v1beta/mod%65ls/gemini-2.5-pro:generateContent";
    assert_eq!(ask(&relay, "token-of-flash", escaped).await.status, 403);
    for expected in [200, 200, 429] {
        assert_eq!(ask(&relay, "token-of-limited", escaped).await.status, expected);
    }
    let flash = "/v1beta/mod%65ls/gemini%2D2.5-flash:generateContent";
    assert_eq!(ask(&relay, "token-of-flash", flash).await.status, 200);
    let sent: Vec<_> = emulator.journal().iter().map(|visit| visit.path.clone()).collect();
    assert_eq!(sent, [PRO, PRO, FLASH]);

    for (path, expected) in [
        ("/v1beta/models/gemini-2.5-flash/../gemini-2.5-pro:generateContent", 400),
        ("/v1beta/models/gemini-2.5-flash/%2e%2E/gemini-2.5-pro:generateContent", 400),
        ("/v1beta/models/gemini-2.5-flash:generateContent/..%2fgemini-2.5-pro:generateContent", 400),
        ("/v1beta/./models/gemini-2.5-pro:generateContent", 400),
        ("/V1BETA/models/gemini-2.5-pro:generateContent", 403),
        ("/v1beta/whatever/gemini-2.5-pro:generateContent", 403),
        ("/v1beta/files/gemini-2.5-pro:GENERATECONTENT", 403),
        ("/v1beta/models%2Fgemini-2.5-pro:generateContent", 403),
        ("/v1beta/models/gemini-2.5-flash/models/gemini-2.5-pro:generateContent", 403),
        ("/v1alpha/auth_tokens", 403),
        ("/v1beta/triggers", 403),
    ] {
        for token in ["token-of-flash", "token-of-limited"] {
            let answer = ask(&relay, token, path).await;
            assert_eq!(answer.status, expected, "{path}: {}", answer.json);
        }
        // Nothing is kept from a caller without models and limits, but dots: they lead elsewhere.
        let free = ask(&relay, "token-of-free", path).await;
        assert_eq!(free.status == 400 && free.message().contains("dots"), expected == 400, "{path}: {}", free.json);
        assert_ne!(free.status, 403, "{path}: {}", free.json);
    }
    assert!(ask(&relay, "token-of-limited", "/v1alpha/auth_tokens").await.message().contains("around"));

    // They are on the page, by the caller's name.
    let status = get(&relay, "/status").await.json;
    let failures = status["failures"].as_array().unwrap();
    let of = |caller: &str| failures.iter().find(|each| each["kind"] == "not_allowed" && each["caller"] == caller);
    let failure = of("flash-only").unwrap_or_else(|| panic!("{status}"));
    assert_eq!((&failure["fault"], &failure["code"]), (&json!("caller"), &json!(403)), "{failure}");
    assert!(of("limited").is_some(), "{status}");
}

#[tokio::test]
async fn nothing_is_made_of_a_model_that_the_caller_may_not_use() {
    let (emulator, _server, relay) = emulated(BOUNDED).await;
    let make = async |token: &str, path: &str, body: &str| send(&relay, call(token, path, body.to_owned())).await;
    let cache = |model: &str| json!({ "model": model, "contents": [{ "parts": [{ "text": "hi" }] }] }).to_string();
    let answer = make("token-of-flash", "/v1beta/cachedContents", &cache("models/gemini-2.5-pro")).await;
    assert_eq!(answer.status, 403, "{}", answer.json);
    assert!(answer.message().starts_with("gemini-2.5-pro is not among the models"), "{}", answer.json);
    let tuned =
        r#"{"tunedModelSource": {"baseModel": "models/gemini-2.5-pro"}, "baseModel": "models/gemini-2.5-flash"}"#;
    assert_eq!(make("token-of-flash", "/v1beta/tunedModels", tuned).await.status, 403);
    assert_eq!(make("token-of-flash", "/v1beta/cachedContents", "{}").await.status, 403);
    assert!(emulator.journal().is_empty());
    for (token, model) in [("token-of-flash", "models/gemini-2.5-flash"), ("token-of-limited", "models/gemini-2.5-pro")]
    {
        let answer = make(token, "/v1beta/cachedContents", &cache(model)).await;
        assert_ne!(answer.status, 403, "{}", answer.json);
    }
    assert_eq!(emulator.journal().len(), 2);
}

#[tokio::test]
async fn a_relay_that_loses_its_last_caller_says_that_it_is_open() {
    let (_emulator, server, relay) = emulated(TWO).await;
    let said = relay.reload(&settings(&server.uri(), TWO)).await;
    assert!(!said.contains("everybody may call"), "{said}");
    let said = relay.reload(&settings(&server.uri(), "")).await;
    let line = said.lines().find(|line| line.contains("everybody may call")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains("WARN"), "{line}");
    assert_eq!(ask(&relay, "a-guess", FLASH).await.status, 200);
}

#[tokio::test]
async fn the_failures_of_others_stay_on_the_page_while_a_caller_is_refused() {
    let (emulator, _server, relay) = emulated(&format!("{TWO}[retry]\nmax_attempts = 1\n")).await;
    emulator.trouble(When::nth(1), Trouble::internal());
    assert_eq!(ask(&relay, "token-of-light", FLASH).await.status, 500);
    for _ in 0..132 {
        ask(&relay, "token-of-heavy", FLASH).await;
    }
    let status = get(&relay, "/status").await.json;
    let failures = status["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 2, "{status}");
    let [refused, failed] = [&failures[0], &failures[1]];
    assert_eq!(
        [&refused["kind"], &refused["caller"], &refused["calls"], &refused["calls_in_5_min"]],
        [&json!("caller_limited"), &json!("heavy"), &json!(130), &json!(130)]
    );
    assert_eq!([&failed["caller"], &failed["calls"], &failed["code"]], [&json!("light"), &json!(1), &json!(500)]);
    let wrong: Vec<_> = status["wrong"].as_array().unwrap().iter().map(|each| each["what"].as_str().unwrap()).collect();
    assert!(wrong.iter().any(|what| what.starts_with("130 calls failed")), "{wrong:?}");
}

// --- priorities ---

/// An upstream that keeps the headers of what it gets.
async fn recorder() -> (SocketAddr, Arc<Mutex<Vec<HeaderMap>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::<Mutex<Vec<HeaderMap>>>::default();
    let keep = seen.clone();
    let app = Router::new().fallback(move |request: Received| {
        keep.lock().push(request.headers().clone());
        async {
            let content = json!({ "parts": [{ "text": "hi" }], "role": "model" });
            Json(json!({ "candidates": [{ "content": content, "finishReason": "STOP" }] }))
        }
    });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (address, seen)
}

fn with_priority(mut request: Request<Full<Bytes>>, priority: &str) -> Request<Full<Bytes>> {
    request.headers_mut().insert("x-gemini-priority", priority.parse().unwrap());
    request
}

#[tokio::test]
async fn the_wish_for_a_priority_stays_at_the_relay_and_has_to_be_one() {
    let (address, seen) = recorder().await;
    let relay = Relay::start(&settings(&format!("http://{address}"), TWO)).await;
    for wish in ["batch", "interactive", " normal "] {
        let call = with_priority(call("token-of-light", FLASH, PROMPT), wish);
        assert_eq!(send(&relay, call).await.status, 200, "{wish}");
    }
    assert!(seen.lock().iter().all(|headers| !headers.contains_key("x-gemini-priority")));
    let answer = send(&relay, with_priority(call("token-of-light", FLASH, PROMPT), "urgent")).await;
    assert_eq!((answer.status, &answer.json["error"]["status"]), (400, &json!("INVALID_ARGUMENT")));
    assert!(answer.message().contains("interactive, normal or batch"), "{}", answer.json);
    for garbled in ["batch".repeat(3_000), "b\u{e4}tch".to_owned()] {
        let mut request = call("token-of-light", FLASH, PROMPT);
        request.headers_mut().insert("x-gemini-priority", HeaderValue::from_bytes(garbled.as_bytes()).unwrap());
        let answer = send(&relay, request).await;
        assert_eq!(answer.status, 400);
        let right = format!("{} bytes that are no priority; it is interactive, normal or batch", garbled.len());
        assert!(answer.message().contains(&right), "{}", answer.json);
    }
    // Each of several has to be one.
    let mut twice = with_priority(call("token-of-light", FLASH, PROMPT), "batch");
    twice.headers_mut().append("x-gemini-priority", HeaderValue::from_static("urgent"));
    assert_eq!(send(&relay, twice).await.status, 400);
    assert_eq!(seen.lock().len(), 3);
    // A stranger is told nothing of that.
    assert_eq!(send(&relay, with_priority(call("a-guess", FLASH, PROMPT), "urgent")).await.status, 401);
}

#[tokio::test]
async fn who_is_in_a_hurry_goes_before_those_who_came_earlier_and_are_not() {
    const CALLERS: &str = "
        [[callers]]
        name = \"person\"
        token = \"token-of-person\"
        priority = \"interactive\"
        [[callers]]
        name = \"jobs\"
        token = \"token-of-jobs\"
        priority = \"batch\"
        [limits.default]
        rpm = 60
        pacing = \"smooth\"
    ";
    let (_emulator, _server, relay) = emulated(CALLERS).await;
    let ended = Mutex::new(Vec::new());
    let later = async |who: &'static str, request, after| {
        tokio::time::sleep(Duration::from_millis(after)).await;
        assert_eq!(send(&relay, request).await.status, 200);
        ended.lock().push(who);
    };
    // One goes each second. The first is served at once, and the others queue.
    let jobs = (0..5).map(|_| later("job", call("token-of-jobs", FLASH, PROMPT), 0));
    let (_, (), ()) = tokio::join!(
        join_all(jobs),
        later("person", call("token-of-person", FLASH, PROMPT), 300),
        later("slow person", with_priority(call("token-of-person", FLASH, PROMPT), "batch"), 300),
    );
    let ended = ended.into_inner();
    let place = |who| ended.iter().position(|ended| *ended == who).unwrap();
    assert!(place("person") <= 2 && place("person") < place("slow person"), "{ended:?}");
}

// --- caches ---

#[tokio::test]
async fn calls_that_begin_alike_go_to_one_project_unless_that_is_switched_off() {
    for (setting, alike) in [("", true), ("cache_affinity = false\n", false)] {
        let emulator = Emulator::builder().key("key-a", "p1").key("key-b", "p2").build();
        let server = emulator.serve().await.unwrap();
        let keys = "[[keys]]\nkey = \"key-a\"\nproject = \"p1\"\n[[keys]]\nkey = \"key-b\"\nproject = \"p2\"\n";
        let relay = Relay::start(&format!("upstream = {:?}\n{setting}{keys}", server.uri())).await;
        let say = |text: &str| json!({ "parts": [{ "text": text }] });
        let body = |turn: usize| json!({ "systemInstruction": say("be brief"), "contents": [say("hello"), say(&format!("turn {turn}"))] });
        for turn in 0..16 {
            assert_eq!(send(&relay, call("anybody", FLASH, body(turn).to_string())).await.status, 200);
        }
        let first = Emulator::fingerprint("key-a");
        let of_first = emulator.count(|visit| visit.key.as_ref() == Some(&first));
        assert_eq!([0, 16].contains(&of_first), alike, "{of_first} of 16 to the first");
    }
    for (settings, place, says) in [
        ("cache_affinity = true", "1:18", "or false"),
        ("cache_affinity = 2", "1:18", "without a unit"),
        ("session_header = \"a b\"", "1:18", "not a header's name"),
        ("session_header = \"X-Goog-Api-Key\"", "1:18", "a meaning of its own"),
        ("session_header = \"x-gemini-priority\"", "1:18", "a meaning of its own"),
        ("session_header = \"cookie\"", "1:18", "a meaning of its own"),
    ] {
        refused_at(settings, place, &[says]).await;
    }
}

// --- lifting ---

#[tokio::test]
async fn a_signal_lifts_what_is_parked_and_says_what_that_was() {
    // In the last minutes before midnight Pacific, a call that has the time for it waits until then.
    let (emulator, _server, relay) = emulated("[timeout]\ntotal = \"5s\"").await;
    assert!(relay.lift().await.contains("nothing is parked"));
    emulator.trouble(When::always().model("gemini-2.5-flash"), Trouble::zero_quota());
    while ask(&relay, "token", FLASH).await.status != 429 {}
    emulator.clear_troubles();
    let asked = emulator.journal().len();
    assert_eq!(ask(&relay, "token", FLASH).await.status, 429, "it is parked");
    assert_eq!(emulator.journal().len(), asked);
    let status = get(&relay, "/status").await.json;
    let parked = &status["keys"][0]["models"][0];
    assert_eq!((&parked["model"], &parked["part"]), (&json!("gemini-2.5-flash"), &json!("model")), "{status}");
    assert!(parked["back_in_s"].as_f64().unwrap() >= parked["asked_again_in_s"].as_f64().unwrap(), "{parked}");

    let parked = &status["models"][0]["limits"][0]["parked"][0];
    assert_eq!((&parked["part"], &parked["reason"]), (&json!("model"), &json!("quota_zero")), "{status}");
    assert!(parked["back_in_s"].as_f64().unwrap() >= parked["asked_again_in_s"].as_f64().unwrap(), "{parked}");

    let log = relay.lift().await;
    assert!(log.contains("lifted, asked again from now on") && log.contains("default, gemini-2.5-flash:"), "{log}");
    assert_eq!(ask(&relay, "token", FLASH).await.status, 200);
    assert_eq!(emulator.journal().len(), asked + 1);
    assert!(relay.lift().await.contains("nothing is parked"));
}
