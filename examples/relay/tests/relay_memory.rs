//! The memory for requests' bodies: stalled uploads of one caller cost nobody else its retry, and the relay says when
//! bodies find no room.

#![cfg(target_os = "linux")] // where all of 127.0.0.0/8 is this machine, and memory is read from /proc
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_process;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Json, Router, body::Body, extract::Request, http::StatusCode, response::IntoResponse};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use relay_process::{PATIENCE, Relay, checked, refused_at};

const PATH: &str = "/v1beta/models/gemini-2.5-flash:generateContent";

/// The one that stalls, and the one that behaves, where nobody brings a token.
const GREEDY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const MODEST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// The most bytes of a body in these tests.
const MAX_BODY: usize = 1 << 20;

/// The most bytes of all bodies that are kept.
const MAX_KEPT: usize = 16 << 20;

/// The number of uploads that would fill all of the memory, if they could.
const STALLED: usize = 17;

// --- the tests ---

#[tokio::test]
async fn stalled_uploads_of_one_address_leave_another_its_retry() {
    let relay = Relay::start(&settings(&Upstream::start().await)).await;
    let stalled = stall(&relay, GREEDY, "", STALLED).await;
    let kept = until(&relay, |kept| number(kept, "caller_share") >= STALLED as u64 / 2).await;
    assert!(number(&kept, "used_bytes") <= MAX_KEPT as u64 / 2, "{kept}");
    assert_eq!((&kept["callers"], &kept["largest_caller"]), (&1.into(), &"127.0.0.2".into()), "{kept}");

    assert_eq!(ask(&relay, MODEST, "", PATH, &prompt("retried", MAX_BODY / 2)).await, 200, "it lost its retry");

    // It is said, to people and to programs.
    let status = status(&relay).await;
    let said = status["wrong"].to_string();
    assert!(said.contains("found no room to be kept") && said.contains("by 127.0.0.2 alone"), "{status}");
    let metrics = get(&relay, "/metrics").await;
    for (metric, at_least) in [
        ("tower_gemini_kept_used_bytes{", 1.0),
        ("tower_gemini_kept_max_bytes{", MAX_KEPT as f64),
        ("tower_gemini_kept_bodies{", 1.0),
        ("tower_gemini_kept_callers{", 1.0),
        ("tower_gemini_kept_refused_total{reason=\"caller_share\"", 8.0),
    ] {
        let line = metrics.lines().find(|line| line.starts_with(metric));
        let line = line.unwrap_or_else(|| panic!("no {metric} in {metrics}"));
        let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(value >= at_least, "{line}");
    }

    drop(stalled);
    until(&relay, |kept| number(kept, "used_bytes") == 0 && number(kept, "callers") == 0).await;
}

#[tokio::test]
async fn a_caller_whose_body_is_read_for_its_model_is_counted_once() {
    let callers = "[[callers]]\nname = \"modest\"\ntoken = \"token-of-modest\"\nmodels = [\"gemini-2.5-flash\"]\n\
                   [[callers]]\nname = \"greedy\"\ntoken = \"token-of-greedy\"\n";
    let relay = Relay::start(&format!("{}{callers}", settings(&Upstream::start().await))).await;
    let stalled = stall(&relay, GREEDY, "token-of-greedy", STALLED).await;
    let kept = until(&relay, |kept| number(kept, "caller_share") >= STALLED as u64 / 2).await;
    assert_eq!(kept["largest_caller"], "greedy", "{kept}");
    let text = "x".repeat(MAX_BODY / 2);
    let chat = json!({ "model": "gemini-2.5-flash", "messages": [{ "role": "user", "content": text }] }).to_string();
    // From the address of the greedy one: its name counts.
    assert_eq!(ask(&relay, GREEDY, "token-of-modest", "/v1beta/openai/chat/completions", &chat).await, 200);
    drop(stalled);
    until(&relay, |kept| number(kept, "used_bytes") == 0).await;

    // Its share is twice its body, and less than two bodies.
    let tight = settings(&Upstream::start().await).replace("16MiB", "1280KiB");
    let relay = Relay::start(&format!("{tight}{callers}")).await;
    assert_eq!(ask(&relay, GREEDY, "token-of-modest", "/v1beta/openai/chat/completions", &chat).await, 200);
    assert_eq!(number(&status(&relay).await["kept"], "caller_share"), 0);
}

#[tokio::test]
async fn a_reload_changes_the_size_of_the_memory_and_forgets_no_body() {
    let settings = settings(&Upstream::start().await);
    let relay = Relay::start_logging(&settings, &[]).await;
    let _stalled = stall(&relay, GREEDY, "", 1).await;
    let used = |kept: &Value| number(kept, "used_bytes") > MAX_BODY as u64 / 2;
    until(&relay, used).await;
    relay.reload(&settings.replace("16MiB", "1MiB")).await;
    let kept = until(&relay, used).await;
    assert_eq!(kept["max_bytes"], 1 << 20, "{kept}");
    assert_eq!(ask(&relay, MODEST, "", PATH, &prompt("without room", MAX_BODY / 2)).await, 503);
    assert_eq!(number(&status(&relay).await["kept"], "no_room"), 1);
    relay.logged("a request's body found no room to be kept").await;
    relay.reload(&settings).await;
    assert_eq!(ask(&relay, MODEST, "", PATH, &prompt("with room", MAX_BODY / 2)).await, 200);
    // A cap of a caller's own holds besides its share.
    relay.reload(&format!("max_kept_per_caller = \"256KiB\"\n{settings}")).await;
    assert_eq!(ask(&relay, MODEST, "", PATH, &prompt("too much for one", MAX_BODY / 2)).await, 503);
    assert_eq!(ask(&relay, MODEST, "", PATH, &prompt("little", MAX_BODY / 8)).await, 200);
}

#[tokio::test]
async fn the_check_says_how_much_is_kept_and_what_does_not_fit() {
    let (code, said, _) = checked("upstream = \"emulator\"\n").await;
    assert_eq!(code, Some(0));
    let line = said.lines().find(|line| line.starts_with("kept bodies")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains(" in all, ") && line.contains("and of a caller up to "), "{line}");
    let (_, said, remarks) = checked("upstream = \"emulator\"\nmax_kept = \"40MiB\"\n").await;
    assert!(said.contains("kept bodies     up to 40 MiB in all, and of a caller up to 20 MiB\n"), "{said}");
    assert!(remarks.contains("a caller keeps at most 20 MiB") && remarks.contains("32 MiB (max_body)"), "{remarks}");
    refused_at("max_kept = \"0MiB\"\n", "1:12", &["max_kept: "]).await;
    refused_at("max_kept_per_caller = \"much\"\n", "1:23", &["max_kept_per_caller: "]).await;
}

// --- the relay ---

fn settings(upstream: &Upstream) -> String {
    format!(
        "upstream = \"http://{}\"\nmax_body = \"1MiB\"\nmax_kept = \"16MiB\"\n[[keys]]\nkey = \"key-of-the-relay\"\n\
         [retry]\nbase_delay = \"5ms\"\n",
        upstream.address
    )
}

async fn status(relay: &Relay) -> Value {
    serde_json::from_str(&get(relay, "/status").await).unwrap()
}

/// Waits until the memory is so, and returns its state.
async fn until(relay: &Relay, is_so: impl Fn(&Value) -> bool) -> Value {
    let mut kept = Value::Null;
    let waiting = async {
        loop {
            kept = status(relay).await["kept"].take();
            if is_so(&kept) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("it never comes so far: {kept}"));
    kept
}

fn number(kept: &Value, name: &str) -> u64 {
    kept[name].as_u64().unwrap_or_else(|| panic!("no {name} in {kept}"))
}

// --- callers ---

/// Begins uploads that lack one byte, and keeps them open. Each begins when the one before is kept or has found no room:
/// together they could all be refused, each for the sake of the others.
async fn stall(relay: &Relay, from: IpAddr, token: &str, uploads: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..uploads {
        let mut stream = connect(relay.address(), from).await;
        stream.write_all(head("POST", PATH, token, MAX_BODY).as_bytes()).await.unwrap();
        let body = vec![b' '; MAX_BODY - 1];
        timeout(PATIENCE, stream.write_all(&body)).await.expect("it does not read").unwrap();
        open.push(stream);
        let settled = |kept: &Value| {
            let stays = (number(kept, "used_bytes") as usize + MAX_BODY / 2) / MAX_BODY;
            stays + number(kept, "caller_share") as usize >= open.len()
        };
        until(relay, settled).await;
    }
    open
}

/// Makes a call, and returns the status of its answer.
async fn ask(relay: &Relay, from: IpAddr, token: &str, path: &str, body: &str) -> u16 {
    let mut stream = connect(relay.address(), from).await;
    stream.write_all(head("POST", path, token, body.len()).as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let answer = to_end(stream).await;
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
}

/// Reads one of the pages for operators.
async fn get(relay: &Relay, path: &str) -> String {
    let operators = relay.operator_uri().strip_prefix("http://").unwrap().parse().unwrap();
    let mut stream = connect(operators, MODEST).await;
    stream.write_all(head("GET", path, "", 0).as_bytes()).await.unwrap();
    let answer = to_end(stream).await;
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn head(method: &str, path: &str, token: &str, length: usize) -> String {
    let token = if token.is_empty() { String::new() } else { format!("x-goog-api-key: {token}\r\n") };
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         {token}content-length: {length}\r\n\r\n"
    )
}

async fn to_end(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("no answer").unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn connect(to: SocketAddr, from: IpAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

fn prompt(name: &str, padding: usize) -> String {
    json!({ "contents": [{ "parts": [{ "text": name }, { "text": "x".repeat(padding) }] }] }).to_string()
}

// --- the upstream ---

/// An upstream that fails the first time that a body comes, and answers the second time.
struct Upstream {
    address: SocketAddr,
}

impl Upstream {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let came = Arc::new(Mutex::new(HashMap::<Vec<u8>, usize>::new()));
        let app = Router::new().fallback(move |request: Request| {
            let came = came.clone();
            async move {
                let is_chat = request.uri().path().ends_with("/chat/completions");
                // A stalled upload comes as far as it has, and never ends.
                let Ok(body) = axum::body::to_bytes(Body::new(request.into_body()), usize::MAX).await else {
                    return StatusCode::BAD_REQUEST.into_response();
                };
                let times = {
                    let mut came = came.lock();
                    let times = came.entry(body.to_vec()).or_default();
                    *times += 1;
                    *times
                };
                let overloaded = json!({ "error": { "code": 503, "status": "UNAVAILABLE", "message": "overloaded" } });
                let content = json!({ "parts": [{ "text": "hello" }], "role": "model" });
                let answer = json!({ "candidates": [{ "content": content, "finishReason": "STOP", "index": 0 }] });
                let message = json!({ "role": "assistant", "content": "hello" });
                let chat = json!({ "choices": [{ "index": 0, "finish_reason": "stop", "message": message }] });
                match times {
                    1 => (StatusCode::SERVICE_UNAVAILABLE, Json(overloaded)).into_response(),
                    _ if is_chat => Json(chat).into_response(),
                    _ => Json(answer).into_response(),
                }
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address }
    }
}
