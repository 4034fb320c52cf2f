//! The relay with many keys, fallback models and files, as a process: the keys and models that are used and those that
//! are not used again, the answers that a caller sees, and that no key is ever seen.

#![cfg(unix)] // as tests/relay.rs, with which it shares the process's harness
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_process;

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::time::timeout;
use tower::ServiceExt;
use tower_gemini::{
    call::Operation,
    client::Client,
    emulator::{EmulatedModel, Emulator, EmulatorBuilder, Server, Trouble, Visit, When},
};

use relay_process::{PATIENCE, Relay, refused_at};

const FLASH: &str = "gemini-2.5-flash";
const PRO: &str = "gemini-2.5-pro";
const MINUTE: Duration = Duration::from_secs(60);

/// Callers that do not wait for midnight Pacific, however near it is.
const IMPATIENT: &str = "[timeout]\ntotal = \"5s\"\n";

/// Two keys of one project, one of which is nearly always chosen first at random, and one key of another project.
const KEYS: &str = r#"
    [[keys]]
    name = "a"
    key = "key-a-of-p1"
    project = "p1"
    weight = 1000
    [[keys]]
    name = "b"
    key = "key-b-of-p1"
    project = "p1"
    weight = 1000
    [[keys]]
    name = "c"
    key = "key-c-of-p2"
    project = "p2"
    [retry]
    base_delay = "1ms"
    max_delay = "5ms"
"#;

/// Starts an emulator that knows the keys, and a relay in front of it with these settings.
async fn pair(emulator: EmulatorBuilder, settings: &str) -> (Emulator, Server, Relay) {
    let emulator = emulator.key("key-a-of-p1", "p1").key("key-b-of-p1", "p1").key("key-c-of-p2", "p2").build();
    let server = emulator.serve().await.unwrap();
    let relay = Relay::start(&format!("upstream = {:?}\n{settings}", server.uri())).await;
    (emulator, server, relay)
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    fn error(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap_or_else(|| panic!("no error: {:?}", self.body)).to_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

async fn send(relay: &Relay, request: Request<Full<Bytes>>) -> Answer {
    let client: Client<Full<Bytes>> = Client::builder().base_url(relay.uri_of(request.uri().path())).build().unwrap();
    let response: Response<_> = timeout(PATIENCE, client.oneshot(request)).await.expect("no answer").unwrap();
    let (head, body) = response.into_parts();
    let body = timeout(PATIENCE, body.collect()).await.expect("no end").unwrap().to_bytes();
    Answer { status: head.status.as_u16(), headers: head.headers, body }
}

async fn ask(relay: &Relay, model: &str, text: &str) -> Answer {
    let body = json!({ "contents": [{ "parts": [{ "text": text }] }] });
    let request = Request::post(format!("/v1beta/models/{model}:generateContent"));
    send(relay, request.body(Full::from(body.to_string())).unwrap()).await
}

/// Makes calls one after the other, all of which must be answered.
async fn answers(relay: &Relay, model: &str, times: usize) {
    for _ in 0..times {
        let answer = ask(relay, model, "hello").await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
    }
}

fn asked<'a>(journal: &'a [Visit], project: &'a str, model: &'a str) -> Vec<&'a Visit> {
    let is_one = |visit: &&Visit| visit.project.as_deref() == Some(project) && visit.model.as_deref() == Some(model);
    journal.iter().filter(is_one).collect()
}

fn keys(visits: &[&Visit]) -> BTreeSet<String> {
    visits.iter().filter_map(|visit| visit.key.clone()).collect()
}

// --- settings ---

#[tokio::test]
async fn the_documented_keys_and_fallbacks_are_accepted() {
    let documented = r#"
        upstream = "emulator"
        default_project = "p1"
        [[keys]]
        name = "a"
        key = "env:PATH_OF_NOBODY"
        project = "p1"
        weight = 1
        [[keys]]
        key = "another-key"
        project = "p2"
        [fallback]
        "gemini-2.5-pro" = ["gemini-2.5-flash"]
        sticky = "30s"
        strip = false
        [fallback.larger]
        "gemma-3-27b-it" = ["gemini-2.5-flash"]
    "#;
    let settings = documented.replace("env:PATH_OF_NOBODY", "key-of-the-relay");
    let relay = Relay::start(&settings).await;
    answers(&relay, FLASH, 3).await;
    for fallback in
        ["", "\"a-1\" = [\"b-1\"]\n\"b-1\" = [\"a-1\"]", "sticky = \"0s\"\nstrip = true", "gemini-pro = [\"b\"]"]
    {
        Relay::start(&format!("upstream = \"emulator\"\n[fallback]\n{fallback}\n")).await;
    }
}

#[tokio::test]
async fn a_wrong_key_or_fallback_is_refused_with_its_line_and_what_would_be_right() {
    let two = |second: &str| format!("[[keys]]\nname = \"a\"\nkey = \"k-1\"\n[[keys]]\n{second}");
    for (settings, place, says) in [
        // Keys.
        (two("key = \"k-1\""), "5:7", &["same as that of [[keys]] number 1 (\"a\")", "no more quota"][..]),
        (two("name = \"a\"\nkey = \"k-2\""), "5:8", &["another key is called \"a\""]),
        (two("key = \"k-2\"\nweight = 0"), "6:10", &["weight: is 0", "from 1"]),
        (two("key = \"k-2\"\nweight = \"2\""), "6:10", &["is a text", "from 1"]),
        (two("key = \"k-2\"\nweight = 99999999999"), "6:10", &["99999999999"]),
        (two("key = \"k-2\"\nwieght = 2"), "6:1", &["did you mean weight?"]),
        (two("key = \"\""), "5:7", &["the key is empty"]),
        (two("project = \"p\""), "4:1", &["[[keys]] has no key"]),
        (two("key = \"k-2\"\ndefault_project = \"p\""), "6:1", &["belongs above all sections"]),
        (
            format!("default_project = \"q\"\n{}", two("key = \"k-2\"\nproject = \"p\"")),
            "1:19",
            &["\"q\"", "\"default\", \"p\""],
        ),
        // Fallbacks.
        (
            "[fallback]\ngemini-2.5-pro = [\"gemini-2.5-flash\"]".to_owned(),
            "2:1",
            &["needs quotes: \"gemini-2.5-pro\""],
        ),
        ("[fallback]\n\"gemini-2.5-pro\" = []".to_owned(), "2:20", &["is empty", "[\"gemini-2.5-flash\"]"]),
        ("[fallback]\n\"a-1\" = \"b-1\"".to_owned(), "2:9", &["is a text here", "a list of models"]),
        ("[fallback]\n\"a-1\" = [\"b-1\", 2]".to_owned(), "2:17", &["whole number", "a list of models"]),
        ("[fallback]\n\"a-1\" = [\"b-1\", \"a-1\"]".to_owned(), "2:17", &["is the model itself"]),
        ("[fallback]\n\"a-1\" = [\"b-1\", \"b-1\"]".to_owned(), "2:17", &["twice"]),
        ("[fallback]\n\"a-1\" = [\"b-1\"]\n\"a-1\" = [\"c-1\"]".to_owned(), "3:1", &["duplicate key"]),
        ("[fallback]\n\"models/a-1\" = [\"b-1\"]".to_owned(), "2:1", &["without what stands before it: \"a-1\""]),
        ("[fallback]\n\"a-1\" = [\"tunedModels/t\"]".to_owned(), "2:10", &["one project's own"]),
        ("[fallback]\n\"a-1\" = [\"b 1\"]".to_owned(), "2:10", &["not a model's name"]),
        ("[fallback]\nstikcy = \"30s\"".to_owned(), "2:1", &["did you mean sticky?"]),
        ("[fallback]\nsticky = 30".to_owned(), "2:10", &["without a unit"]),
        ("[fallback]\nstrip = \"no\"".to_owned(), "2:9", &["true or false"]),
        ("[fallback]\nlarger = [\"a-1\"]".to_owned(), "2:10", &["a section"]),
        ("[fallback.largr]\n\"a-1\" = [\"b-1\"]".to_owned(), "1:11", &["did you mean larger?"]),
        ("[fallback.larger]\n\"a-1\" = [\"a-1\"]".to_owned(), "2:10", &["is the model itself"]),
    ] {
        refused_at(&settings, place, says).await;
    }
}

// --- quotas: another project answers, at once ---

#[tokio::test]
async fn a_minutes_quota_of_one_project_is_answered_by_another_at_once() {
    // A call that waited for it would outlast the test.
    let trouble =
        |emulator: EmulatorBuilder| emulator.trouble(When::always().project("p1"), Trouble::minute_quota(MINUTE));
    let (emulator, _server, relay) = pair(trouble(Emulator::builder()), KEYS).await;
    answers(&relay, FLASH, 12).await;
    let journal = emulator.journal();
    let refused: Vec<_> = asked(&journal, "p1", FLASH);
    assert_eq!(refused.len(), 1, "the other key of the project shares its quota: {refused:#?}");
    assert_eq!((asked(&journal, "p2", FLASH).len(), journal.len()), (12, 13));
    // Another model of the same project has a quota of its own.
    emulator.clear_troubles();
    answers(&relay, PRO, 12).await;
    assert!(!asked(&emulator.journal(), "p1", PRO).is_empty());
}

/// The refusal for a day's quota as it was seen: its hint is 0 s.
fn day_quota() -> Trouble {
    let quota = "GenerateRequestsPerDayPerProjectPerModel-FreeTier";
    let body = json!({ "error": {
        "code": 429, "status": "RESOURCE_EXHAUSTED",
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "details": [
            { "@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{
                "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
                "quotaId": quota, "quotaDimensions": { "model": FLASH, "location": "global" }, "quotaValue": "250",
            }] },
            { "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0s" },
        ],
    } });
    let response = Response::builder().status(429).header("content-type", "application/json; charset=UTF-8");
    Trouble::response(response.body(body.to_string()).unwrap())
}

#[tokio::test]
async fn a_days_quota_and_none_at_all_are_never_asked_for_again_and_other_models_are() {
    for trouble in [day_quota, Trouble::zero_quota] {
        let emulator = Emulator::builder().trouble(When::always().project("p1").model(FLASH), trouble());
        let (emulator, _server, relay) = pair(emulator, &format!("{KEYS}{IMPATIENT}")).await;
        answers(&relay, FLASH, 12).await;
        assert_eq!(asked(&emulator.journal(), "p1", FLASH).len(), 1);
        answers(&relay, PRO, 12).await;
        let journal = emulator.journal();
        let others = asked(&journal, "p1", PRO);
        assert!(!others.is_empty() && others.iter().all(|visit| visit.status == Some(StatusCode::OK)), "{others:#?}");

        // Once no project has any left, no call is sent.
        emulator.trouble(When::always().model(FLASH), trouble());
        ask(&relay, FLASH, "the last").await;
        let before = emulator.journal().len();
        for _ in 0..3 {
            let answer = ask(&relay, FLASH, "hello").await;
            assert_eq!(
                (answer.status, &*answer.json()["error"]["status"].to_string()),
                (429, "\"RESOURCE_EXHAUSTED\"")
            );
            let seconds: u64 = answer.header("retry-after").expect("it says when").parse().unwrap();
            assert!((1..=60).contains(&seconds), "no client waits until midnight Pacific: {seconds}");
        }
        assert_eq!(emulator.journal().len(), before);
        answers(&relay, PRO, 3).await;
    }
}

// --- bad keys, and callers' own mistakes ---

#[tokio::test]
async fn a_bad_key_is_used_three_times_at_most_and_callers_get_answers() {
    let bad = "[[keys]]\nname = \"bad\"\nkey = \"key-that-is-bad\"\nproject = \"p1\"\nweight = 1000\n";
    let good = KEYS.replace("weight = 1000", "weight = 1");
    let settings = format!("cache_affinity = false\n{bad}{good}");
    let (emulator, _server, relay) = pair(Emulator::builder(), &settings).await;
    let fingerprint = Emulator::fingerprint("key-that-is-bad");
    let of_the_bad_one = |emulator: &Emulator| emulator.count(|visit| visit.key.as_ref() == Some(&fingerprint));
    answers(&relay, FLASH, 30).await;
    let used = of_the_bad_one(&emulator);
    assert!((1..=3).contains(&used), "{used}");
    for answer in join_all((0..30).map(|_| ask(&relay, FLASH, "hello"))).await {
        assert_eq!(answer.status, 200, "{:?}", answer.body);
    }
    answers(&relay, PRO, 3).await;
    assert!(of_the_bad_one(&emulator) <= 3, "{}", of_the_bad_one(&emulator));
    let journal = emulator.journal();
    let good: Vec<_> = journal.iter().filter(|visit| visit.status == Some(StatusCode::OK)).collect();
    assert_eq!((good.len(), keys(&good).len()), (63, 3), "the good ones share the work");
}

#[tokio::test]
async fn only_bad_keys_is_an_error_that_says_so_without_a_key() {
    let emulator = Emulator::builder().key("a-good-key", "p").build();
    let server = emulator.serve().await.unwrap();
    let keys =
        "[[keys]]\nname = \"one\"\nkey = \"key-that-is-bad\"\n[retry]\nbase_delay = \"1ms\"\nmax_delay = \"5ms\"\n";
    let relay = Relay::start(&format!("upstream = {:?}\n{keys}", server.uri())).await;
    for _ in 0..5 {
        // From the first call on: no caller can do anything about it.
        let answer = ask(&relay, FLASH, "hello").await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("60")), "{:?}", answer.body);
        assert!(answer.error().contains("its operator has to act"), "{}", answer.error());
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        for secret in ["key-that-is-bad", "API key", "\"one", "one of"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    assert_eq!(emulator.journal().len(), 3);
}

#[tokio::test]
async fn a_callers_mistake_is_sent_once_and_counts_against_no_key() {
    let body =
        r#"{"error": {"code": 400, "message": "Please use a valid role: user, model.", "status": "INVALID_ARGUMENT"}}"#;
    let response = Response::builder().status(400).header("content-type", "application/json").body(body).unwrap();
    let emulator = Emulator::builder().trouble(When::prompt_contains("wrong"), Trouble::response(response));
    let settings = format!("cache_affinity = false\n{}", KEYS.replace("weight = 1000", "weight = 1"));
    let (emulator, _server, relay) = pair(emulator, &settings).await;
    for sent in 1..=12 {
        let answer = ask(&relay, FLASH, "wrong").await;
        assert_eq!((answer.status, &*answer.error()), (400, "Please use a valid role: user, model."));
        assert_eq!(emulator.journal().len(), sent);
    }
    answers(&relay, FLASH, 40).await;
    let journal = emulator.journal();
    assert_eq!((journal.len(), keys(&journal[12..].iter().collect::<Vec<_>>()).len()), (52, 3), "all keys go on");
}

// --- fallback models ---

const FALLBACK: &str = "[fallback]\n\"gemini-2.5-pro\" = [\"gemini-2.5-flash\"]\n";

fn generated(emulator: &Emulator, model: &str) -> usize {
    emulator.count(|visit| visit.operation == Operation::GenerateContent && visit.model.as_deref() == Some(model))
}

#[tokio::test]
async fn where_pro_is_overloaded_for_everybody_flash_answers_and_says_so() {
    let overloaded = Emulator::builder().trouble(When::always().model(PRO), Trouble::overloaded());
    let (emulator, _server, relay) = pair(overloaded, &format!("{KEYS}{FALLBACK}")).await;
    let answer = ask(&relay, PRO, "hello").await;
    assert_eq!((answer.status, answer.header("x-gemini-model")), (200, Some(FLASH)));
    assert_eq!(answer.json()["modelVersion"], FLASH);
    let pro = generated(&emulator, PRO);
    assert!((1..=3).contains(&pro), "{pro} attempts, with another model to go to");

    // Calls stay with that model: the next ones do not even try the first.
    for _ in 0..3 {
        let answer = ask(&relay, PRO, "hello").await;
        assert_eq!((answer.status, answer.header("x-gemini-model")), (200, Some(FLASH)));
    }
    assert_eq!((generated(&emulator, PRO), generated(&emulator, FLASH)), (pro, 4));

    // The other dialects fall back, too.
    let chat = json!({ "model": PRO, "messages": [{ "role": "user", "content": "hello" }] }).to_string();
    let answer = send(&relay, Request::post("/v1beta/openai/chat/completions").body(Full::from(chat)).unwrap()).await;
    assert_eq!((answer.status, answer.header("x-gemini-model")), (200, Some(FLASH)));
    let stream = format!("/v1beta/models/{PRO}:streamGenerateContent?alt=sse");
    let body = json!({ "contents": [{ "parts": [{ "text": "hello" }] }] }).to_string();
    let answer = send(&relay, Request::post(stream).body(Full::from(body)).unwrap()).await;
    assert_eq!((answer.status, answer.header("x-gemini-model")), (200, Some(FLASH)));
    assert!(answer.body.starts_with(b"data: "));

    // A model without a fallback has no such header, and a call that stayed names its own model.
    assert_eq!(ask(&relay, FLASH, "hello").await.header("x-gemini-model"), None);
}

#[tokio::test]
async fn while_both_are_down_a_calls_attempts_stay_within_the_budget() {
    for max_attempts in [4, 8] {
        let overloaded = Emulator::builder().trouble(When::always(), Trouble::overloaded());
        let settings = KEYS.replace("[retry]", &format!("[retry]\nmax_attempts = {max_attempts}"));
        let (emulator, _server, relay) = pair(overloaded, &format!("{settings}{FALLBACK}")).await;
        let answer = ask(&relay, PRO, "hello").await;
        assert_eq!((answer.status, answer.header("x-gemini-model")), (503, Some(PRO)), "the first model's failure");
        assert!(answer.error().contains("overloaded"), "{}", answer.error());
        let (pro, flash) = (generated(&emulator, PRO), generated(&emulator, FLASH));
        assert!(pro >= 1 && flash >= 2 && pro + flash <= max_attempts, "{pro} and {flash}");
        assert_eq!(emulator.journal().len(), pro + flash);
    }
}

#[tokio::test]
async fn a_days_quota_of_all_projects_moves_the_call_to_the_next_model() {
    let spent = Emulator::builder().trouble(When::always().model(PRO), Trouble::day_quota());
    let (emulator, _server, relay) = pair(spent, &format!("{KEYS}{FALLBACK}{IMPATIENT}")).await;
    for _ in 0..3 {
        let answer = ask(&relay, PRO, "hello").await;
        assert_eq!((answer.status, answer.header("x-gemini-model")), (200, Some(FLASH)));
    }
    assert_eq!(generated(&emulator, PRO), 2, "each project once");
}

// --- files ---

/// Uploads a file as an SDK does: asks for the address, and sends the file there in two pieces.
async fn upload(relay: &Relay, text: &str) -> Value {
    upload_as(relay, text, "").await
}

/// Uploads a file as google-genai for Python does: only the first request has the caller's token.
async fn upload_as(relay: &Relay, text: &str, token: &str) -> Value {
    let start = Request::post("/upload/v1beta/files")
        .header("x-goog-upload-protocol", "resumable")
        .header("x-goog-upload-command", "start")
        .header("x-goog-upload-header-content-length", text.len())
        .header("x-goog-upload-header-content-type", "text/plain");
    let start = if token.is_empty() { start } else { start.header("x-goog-api-key", token) };
    let started = send(relay, start.body(Full::from(r#"{"file": {}}"#)).unwrap()).await;
    assert_eq!(started.status, 200, "{:?}", started.body);
    for header in ["x-goog-upload-url", "x-goog-upload-control-url"] {
        let url = started.header(header).unwrap();
        assert!(url.starts_with(&format!("{}/upload/v1beta/files?upload_id=", relay.uri())), "{url}");
    }
    let path = started.header("x-goog-upload-url").unwrap().strip_prefix(&relay.uri()).unwrap().to_owned();
    let (head, tail) = text.split_at(text.len() / 2);
    for (offset, command, piece) in [(0, "upload", head), (head.len(), "upload, finalize", tail)] {
        let request =
            Request::post(&path).header("x-goog-upload-command", command).header("x-goog-upload-offset", offset);
        let answer = send(relay, request.body(Full::from(piece.to_owned())).unwrap()).await;
        assert_eq!(answer.status, 200, "{command}: {:?}", answer.body);
        if command.ends_with("finalize") {
            return answer.json()["file"].clone();
        }
    }
    unreachable!()
}

fn naming(files: &[&Value]) -> String {
    let part = |file: &&Value| json!({ "fileData": { "fileUri": file["uri"], "mimeType": file["mimeType"] } });
    let parts: Vec<_> = files.iter().map(part).chain([json!({ "text": "compare them" })]).collect();
    json!({ "contents": [{ "parts": parts }] }).to_string()
}

#[tokio::test]
async fn an_upload_goes_on_without_a_token_by_the_address_that_was_handed_out() {
    let keys = KEYS.replace("weight = 1000", "weight = 1");
    let settings = format!("client_tokens = [\"one\"]\ndefault_project = \"p2\"\n{keys}");
    let (emulator, _server, relay) = pair(Emulator::builder(), &settings).await;
    for _ in 0..6 {
        let file = upload_as(&relay, "some notes", "one").await;
        assert_eq!(file["sizeBytes"], "10", "{file}");
    }
    let journal = emulator.journal();
    assert!(journal.iter().all(|visit| visit.status == Some(StatusCode::OK)));
    for uri in ["/upload/v1beta/files?upload_id=invented", "/upload/v1beta/files", "/v1beta/files"] {
        let answer = send(&relay, Request::post(uri).body(Full::from("x")).unwrap()).await;
        assert_eq!(answer.status, 401, "{uri}: {:?}", answer.body);
        // An SDK sends a part three times unless it is told that the upload is over.
        let end = answer.header("x-goog-upload-status");
        assert_eq!(end, uri.contains("upload_id").then_some("final"), "{uri}");
    }
    assert_eq!(emulator.journal().len(), journal.len());
}

/// Begins an upload, and returns the path and query at which it goes on.
async fn begin_upload(relay: &Relay, token: &str) -> String {
    let start = Request::post("/upload/v1beta/files")
        .header("x-goog-upload-protocol", "resumable")
        .header("x-goog-upload-command", "start")
        .header("x-goog-upload-header-content-length", 10)
        .header("x-goog-upload-header-content-type", "text/plain")
        .header("x-goog-api-key", token);
    let started = send(relay, start.body(Full::from(r#"{"file": {}}"#)).unwrap()).await;
    assert_eq!(started.status, 200, "{:?}", started.body);
    let url = started.header("x-goog-upload-url").unwrap();
    url.strip_prefix(&relay.uri()).unwrap().to_owned()
}

/// Ends an upload of ten bytes, without a token unless there is one.
async fn end_upload(relay: &Relay, path: &str, token: &str) -> Answer {
    let part =
        Request::post(path).header("x-goog-upload-command", "upload, finalize").header("x-goog-upload-offset", 0);
    let part = if token.is_empty() { part } else { part.header("x-goog-api-key", token) };
    send(relay, part.body(Full::from("some notes")).unwrap()).await
}

#[tokio::test]
async fn the_address_of_an_upload_opens_that_upload_alone_and_any_relay_with_the_same_keys_knows_it() {
    let settings = format!("client_tokens = [\"one\", \"two\"]\n{KEYS}");
    let (emulator, server, relay) = pair(Emulator::builder(), &settings).await;
    let [first, second] = [begin_upload(&relay, "one").await, begin_upload(&relay, "two").await];
    let before = emulator.journal().len();
    let signature = |path: &str| path.split_once("&relay_signature=").unwrap().1.to_owned();
    let moved = second.replace(&signature(&second), &signature(&first));
    let elsewhere = first.replace("/v1beta/files", "/v1/files");
    let tampered = format!("{}AAAA", &first[..first.len() - 4]);
    let with = format!("/v1beta/models/{FLASH}:generateContent?relay_signature={}", signature(&first));
    for path in [&moved, &elsewhere, &tampered, &with, &first.replace("upload_id=", "upload_id=x")] {
        assert_eq!(end_upload(&relay, path, "").await.status, 401, "{path}");
    }
    for (method, command) in [("POST", "start"), ("DELETE", "upload"), ("GET", "query")] {
        let request = Request::builder().method(method).uri(&first).header("x-goog-upload-command", command);
        assert_eq!(send(&relay, request.body(Full::default()).unwrap()).await.status, 401, "{method} {command}");
    }
    // A wrong token is a mistake, not a missing one.
    assert_eq!(end_upload(&relay, &first, "three").await.status, 401);
    assert_eq!(emulator.journal().len(), before);

    // Another relay has the same keys, in another order.
    let other = Relay::start(&format!(
        "upstream = {:?}\nclient_tokens = [\"two\", \"one\"]\ndefault_project = \"p1\"\n[[keys]]\nkey = \"key-c-of-p2\"\nproject = \"p2\"\n\
         [[keys]]\nkey = \"key-b-of-p1\"\nproject = \"p1\"\n[[keys]]\nkey = \"key-a-of-p1\"\nproject = \"p1\"\n",
        server.uri()
    ))
    .await;
    assert_eq!(end_upload(&other, &first, "").await.status, 200);
    // A part may bring a token of its own.
    assert_eq!(end_upload(&relay, &second, "two").await.status, 200);
}

#[tokio::test]
async fn a_part_without_a_token_counts_as_a_call_of_the_caller_that_began_the_upload() {
    let settings = format!("client_tokens = [\"one\", \"two\"]\nmax_concurrent_per_caller = 1\n{KEYS}");
    let (emulator, _server, relay) = pair(Emulator::builder(), &settings).await;
    emulator.trouble(When::prompt_contains("wait"), Trouble::hang());
    let [of_one, of_two] = [begin_upload(&relay, "one").await, begin_upload(&relay, "two").await];
    let waiting = async {
        let call = Request::post(format!("/v1beta/models/{FLASH}:generateContent")).header("x-goog-api-key", "one");
        let prompt = r#"{"contents": [{"parts": [{"text": "wait"}]}]}"#;
        send(&relay, call.body(Full::from(prompt)).unwrap()).await
    };
    let parts = async {
        let arrived = |visits: &[Visit]| visits.iter().any(|visit| visit.operation == Operation::GenerateContent);
        timeout(PATIENCE, emulator.wait_for(arrived)).await.expect("no call");
        let refused = end_upload(&relay, &of_one, "").await;
        assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")), "{:?}", refused.body);
        assert_eq!(refused.header("x-goog-upload-status"), None, "it may come again");
        assert_eq!(end_upload(&relay, &of_two, "").await.status, 200);
    };
    tokio::select! {
        answer = waiting => panic!("it was answered: {:?}", answer.body),
        () = parts => {}
    }
    // The caller that waited has gone, and its place is free.
    let freed = async {
        while end_upload(&relay, &of_one, "").await.status == 429 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, freed).await.expect("it keeps its place");
}

#[tokio::test]
async fn an_upload_under_way_outlives_a_reload_of_keys_but_not_its_callers_token() {
    let emulator = Emulator::builder().key("key-a-of-p1", "p1").key("key-b-of-p1", "p1").build();
    let server = emulator.serve().await.unwrap();
    let settings = |token: &str, key: &str| {
        format!("upstream = {:?}\nclient_tokens = [{token}]\n[[keys]]\nkey = {key:?}\nproject = \"p1\"\n", server.uri())
    };
    let relay = Relay::start_logging(&settings("\"one\", \"two\"", "key-a-of-p1"), &[]).await;
    let mut paths = Vec::new();
    for token in ["one", "two", "two"] {
        paths.push(begin_upload(&relay, token).await);
    }
    relay.reload(&settings("\"two\"", "key-b-of-p1")).await;
    assert_eq!(end_upload(&relay, &paths[0], "").await.status, 401, "its caller is gone");
    assert_eq!(end_upload(&relay, &paths[1], "").await.status, 200);
    // A relay that has never known the key does not know its signature.
    let other = Relay::start(&settings("\"two\"", "key-b-of-p1")).await;
    assert_eq!(end_upload(&other, &paths[2], "").await.status, 401);
}

#[tokio::test]
async fn a_file_may_be_larger_than_a_prompt() {
    let (emulator, _server, relay) = pair(Emulator::builder(), &format!("max_body = \"1KiB\"\n{KEYS}")).await;
    let text = "x".repeat(1_000_000);
    let file = upload(&relay, &text).await;
    assert_eq!(file["sizeBytes"], "1000000", "{file}");
    let generate = Request::post(format!("/v1beta/models/{FLASH}:generateContent"));
    assert_eq!(send(&relay, generate.body(Full::from(text)).unwrap()).await.status, 413);
    assert!(emulator.journal().iter().all(|visit| visit.status == Some(StatusCode::OK)));
}

#[tokio::test]
async fn files_of_one_prompt_are_together_and_what_names_them_goes_to_their_project() {
    for (setting, home) in [("", "p1"), ("default_project = \"p2\"\n", "p2")] {
        let keys = KEYS.replace("weight = 1000", "weight = 1");
        let (emulator, _server, relay) =
            pair(Emulator::builder(), &format!("cache_affinity = false\n{setting}{keys}")).await;
        for _ in 0..4 {
            let (one, two) = (upload(&relay, "the first text").await, upload(&relay, "the second").await);
            let generate = Request::post(format!("/v1beta/models/{FLASH}:generateContent"));
            let answer = send(&relay, generate.body(Full::from(naming(&[&one, &two]))).unwrap()).await;
            assert_eq!(answer.status, 200, "{:?}", answer.body);
            for file in [&one, &two] {
                let path = format!("/v1beta/{}", file["name"].as_str().unwrap());
                for method in [Method::GET, Method::DELETE] {
                    let request = Request::builder().method(method).uri(&path).body(Full::default()).unwrap();
                    assert_eq!(send(&relay, request).await.status, 200);
                }
            }
        }
        let journal = emulator.journal();
        assert!(journal.iter().all(|visit| visit.status == Some(StatusCode::OK)), "{journal:#?}");
        let projects: BTreeSet<_> = journal.iter().filter_map(|visit| visit.project.as_deref()).collect();
        assert_eq!(projects, BTreeSet::from([home]), "all of it has to do with files");
        // Every project takes all other calls.
        answers(&relay, FLASH, 30).await;
        assert!(emulator.journal().iter().any(|visit| visit.project.as_deref() != Some(home)));
    }
}

#[tokio::test]
async fn a_file_that_the_relay_has_not_seen_made_is_looked_for_in_the_default_project() {
    let keys = KEYS.replace("weight = 1000", "weight = 1");
    let (emulator, server, relay) = pair(Emulator::builder(), &format!("default_project = \"p2\"\n{keys}")).await;
    let direct = Relay::start(&format!("upstream = {:?}\n[[keys]]\nkey = \"key-c-of-p2\"\n", server.uri())).await;
    let file = upload(&direct, "made elsewhere").await;
    let before = emulator.journal().len();
    for _ in 0..6 {
        let generate = Request::post(format!("/v1beta/models/{FLASH}:generateContent"));
        let answer = send(&relay, generate.body(Full::from(naming(&[&file]))).unwrap()).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
    }
    let journal = emulator.journal();
    assert!(journal[before..].iter().all(|visit| visit.project.as_deref() == Some("p2")), "{journal:#?}");
    // A file of another owner is the caller's fault: one attempt, and no key suffers.
    let before = journal.len();
    let generate = Request::post(format!("/v1beta/models/{PRO}:countTokens"));
    let nobodys =
        json!({ "uri": "https://generativelanguage.googleapis.com/v1beta/files/nobodys", "mimeType": "text/plain" });
    for _ in 0..5 {
        let count = Request::post(generate.uri_ref().unwrap().clone()).body(Full::from(naming(&[&nobodys]))).unwrap();
        let answer = send(&relay, count).await;
        assert_eq!(answer.status, 403);
        assert!(answer.error().contains("permission to access the File nobodys"), "{}", answer.error());
    }
    assert_eq!(emulator.journal().len(), before + 5);
    answers(&relay, FLASH, 20).await;
}

// --- with the other layers ---

#[tokio::test]
async fn limits_are_each_projects_own_and_nobody_waits_while_another_has_room() {
    let limits = "[limits.default]\nrpm = 2\n";
    let (emulator, _server, relay) = pair(Emulator::builder(), &format!("{KEYS}{limits}")).await;
    answers(&relay, FLASH, 4).await;
    let journal = emulator.journal();
    assert_eq!((asked(&journal, "p1", FLASH).len(), asked(&journal, "p2", FLASH).len()), (2, 2));
    // A caller that cannot wait for a minute is told how long the wait would be.
    let body = json!({ "contents": [{ "parts": [{ "text": "in a hurry" }] }] }).to_string();
    let request = Request::post(format!("/v1beta/models/{FLASH}:generateContent")).header("x-server-timeout", "10");
    let answer = send(&relay, request.body(Full::from(body)).unwrap()).await;
    let seconds: u64 = answer.header("retry-after").expect("it says when").parse().unwrap();
    assert_eq!((answer.status, (50..=60).contains(&seconds)), (429, true), "{seconds}");
    assert_eq!(emulator.journal().len(), 4);
}

#[tokio::test]
async fn a_misspelt_model_is_found_out_with_any_key_that_is_good() {
    let bad = "[[keys]]\nname = \"bad\"\nkey = \"key-that-is-bad\"\nproject = \"p3\"\nweight = 1000000\n";
    let (emulator, _server, relay) = pair(Emulator::builder(), &format!("{bad}{KEYS}")).await;
    let answer = ask(&relay, "gemini-2.5-flsh", "hello").await;
    assert_eq!(answer.status, 404);
    assert!(answer.error().contains("Did you mean gemini-2.5-flash?"), "{}", answer.error());
    assert!(emulator.journal().iter().all(|visit| visit.operation == Operation::ListModels));
}

#[tokio::test]
#[ignore = "takes a minute of real time; .ci/run runs it"]
async fn a_key_that_is_good_again_is_found_out_and_serves() {
    let emulator = Emulator::builder().trouble(When::always(), Trouble::expired_key());
    let one = "[[keys]]\nkey = \"key-a-of-p1\"\nproject = \"p1\"\n[retry]\nbase_delay = \"1ms\"\n";
    let (emulator, _server, relay) = pair(emulator, one).await;
    for _ in 0..5 {
        assert_ne!(ask(&relay, FLASH, "hello").await.status, 200);
    }
    assert_eq!(emulator.journal().len(), 3, "it is out");
    emulator.clear_troubles();
    assert_eq!(ask(&relay, FLASH, "hello").await.status, 503, "and stays out, whoever calls");
    let looked_at = |journal: &[Visit]| journal.iter().any(|visit| visit.operation == Operation::ListModels);
    timeout(Duration::from_secs(90), emulator.wait_for(looked_at)).await.expect("nobody looks at it");
    let back = async {
        while ask(&relay, FLASH, "hello").await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, back).await.expect("it does not come back");
    assert_eq!(emulator.journal().len(), 5, "one look, and one call");
}

#[tokio::test]
async fn a_heavier_key_takes_more_of_the_load() {
    let keys =
        KEYS.replace("weight = 1000", "weight = 1").replace("\"key-c-of-p2\"", "\"key-c-of-p2\"\nweight = 100000");
    let (emulator, _server, relay) = pair(Emulator::builder(), &keys).await;
    answers(&relay, FLASH, 20).await;
    assert!(asked(&emulator.journal(), "p2", FLASH).len() >= 18);
}

#[tokio::test]
async fn it_stays_on_a_fallback_for_as_long_as_it_is_told() {
    let overloaded = Emulator::builder().trouble(When::always().model(PRO), Trouble::overloaded());
    let (emulator, _server, relay) = pair(overloaded, &format!("{KEYS}{FALLBACK}sticky = \"0s\"\n")).await;
    let mut tried = 0;
    for _ in 0..3 {
        assert_eq!(ask(&relay, PRO, "hello").await.header("x-gemini-model"), Some(FLASH));
        let pro = generated(&emulator, PRO);
        assert!(pro > tried, "each call begins with the first model");
        tried = pro;
    }
}

#[tokio::test]
async fn what_is_too_long_for_one_model_goes_to_a_larger_one() {
    let small = EmulatedModel::new("small-1").input_token_limit(1_000);
    let emulator = Emulator::builder().default_models().model(small);
    let (emulator, _server, relay) =
        pair(emulator, &format!("{KEYS}[fallback.larger]\n\"small-1\" = [{FLASH:?}]\n")).await;
    let answer = ask(&relay, "small-1", "short").await;
    assert_eq!((answer.status, answer.header("x-gemini-model")), (200, Some("small-1")));
    let answer = ask(&relay, "small-1", &"a long story ".repeat(2_000)).await;
    assert_eq!((answer.status, answer.header("x-gemini-model")), (200, Some(FLASH)));
    assert_eq!(generated(&emulator, FLASH), 1);
}

#[tokio::test]
async fn what_the_next_model_rejects_is_taken_out_where_it_is_told_so() {
    const NEWER: &str = "gemini-3-pro-preview";
    let body = json!({
        "contents": [{ "parts": [{ "text": "hello" }] }],
        "generationConfig": { "thinkingConfig": { "thinkingLevel": "high" } },
    })
    .to_string();
    for (strip, status) in [(false, 503), (true, 200)] {
        let overloaded = Emulator::builder().trouble(When::always().model(NEWER), Trouble::overloaded());
        let models = overloaded.default_models().model(EmulatedModel::new(NEWER));
        let fallback = format!("[fallback]\n{NEWER:?} = [{FLASH:?}]\nstrip = {strip}\n");
        let (emulator, _server, relay) = pair(models, &format!("{KEYS}{fallback}")).await;
        let request = Request::post(format!("/v1beta/models/{NEWER}:generateContent"));
        assert_eq!(send(&relay, request.body(Full::from(body.clone())).unwrap()).await.status, status);
        assert_eq!(generated(&emulator, FLASH), usize::from(strip));
    }
}
