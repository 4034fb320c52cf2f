//! The relay as its operators see it: health, admission, reloads, and the end.

#![cfg(unix)] // it is told what to do by signals
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_process;

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use axum::{Json, Router, extract::Request as Received, response::IntoResponse};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};
use tower::ServiceExt;
use tower_gemini::{
    BoxError,
    client::{Client, ResponseBody},
    emulator::{Emulator, End, Server, Trouble, Visit, When},
    key_pool::Fingerprint,
};

use relay_process::{PATIENCE, Relay, checked, ended_with, refused, refused_at};

const GENERATE: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
const STREAM: &str = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse";
const PROMPT: &str = r#"{"contents": [{"parts": [{"text": "hello"}]}]}"#;

/// Returns settings for an upstream, with `top` at the top level, a key of the relay's own and next to no delay between
/// attempts.
fn settings(upstream: &str, top: &str) -> String {
    let rest = "[[keys]]\nkey = \"key-of-the-relay\"\n[retry]\nbase_delay = \"1ms\"\nmax_delay = \"5ms\"\n";
    format!("upstream = {upstream:?}\n{top}\n{rest}")
}

fn client(relay: &Relay) -> Client<Full<Bytes>> {
    Client::builder().base_url(relay.uri()).build().unwrap()
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
}

async fn read(response: http::Response<ResponseBody>) -> Result<Answer, BoxError> {
    let (head, body) = response.into_parts();
    let body = timeout(PATIENCE, body.collect()).await.expect("no end")?.to_bytes();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
}

async fn send(relay: &Relay, request: Request<Full<Bytes>>) -> Answer {
    let client: Client<Full<Bytes>> = Client::builder().base_url(relay.uri_of(request.uri().path())).build().unwrap();
    let response = timeout(PATIENCE, client.oneshot(request)).await.expect("no answer").unwrap();
    read(response).await.unwrap()
}

fn prompt(path: &str) -> Request<Full<Bytes>> {
    Request::post(path).body(Full::from(PROMPT)).unwrap()
}

/// Returns a prompt of a caller that has this token.
fn prompt_of(token: &str) -> Request<Full<Bytes>> {
    let mut request = prompt(GENERATE);
    request.headers_mut().insert("x-goog-api-key", token.parse().unwrap());
    request
}

async fn get(relay: &Relay, path: &str) -> (u16, String) {
    let answer = send(relay, Request::get(path).body(Full::default()).unwrap()).await;
    (answer.status, String::from_utf8(answer.body.to_vec()).unwrap())
}

/// An upstream that answers once its gate is open.
struct Gated {
    address: SocketAddr,
    arrived: watch::Receiver<usize>,
    open: watch::Sender<bool>,
}

impl Gated {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (arrive, arrived) = watch::channel(0);
        let (open, gate) = watch::channel(false);
        let app = Router::new().fallback(move |request: Received| {
            let (arrive, mut gate) = (arrive.clone(), gate.clone());
            async move {
                let _ = request.into_body().collect().await;
                arrive.send_modify(|arrived| *arrived += 1);
                gate.wait_for(|open| *open).await.unwrap();
                let content = json!({ "parts": [{ "text": "late" }], "role": "model" });
                Json(json!({ "candidates": [{ "content": content, "finishReason": "STOP" }] })).into_response()
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, arrived, open }
    }

    fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    async fn arrived(&self, calls: usize) {
        let mut arrived = self.arrived.clone();
        timeout(PATIENCE, arrived.wait_for(|arrived| *arrived >= calls)).await.expect("nobody arrives").unwrap();
    }
}

async fn emulated(top: &str) -> (Emulator, Server, Relay) {
    let emulator = Emulator::builder().key("key-of-the-relay", "default").build();
    let server = emulator.serve().await.unwrap();
    let relay = Relay::start(&settings(&server.uri(), top)).await;
    (emulator, server, relay)
}

// --- settings ---

#[tokio::test]
async fn a_check_says_what_comes_of_the_settings_and_serves_nobody() {
    let (code, said, remarks) = checked(&settings("emulator", "[limits.default]\nmax_wait = \"10m\"")).await;
    assert_eq!((code, said.lines().count()), (Some(0), 14), "{said}");
    for layer in ["timeout", "retry", "key pool", "rate limit", "circuit breaker", "classify"] {
        assert!(said.lines().any(|line| line.starts_with(layer)), "no {layer} in {said}");
    }
    assert!(remarks.contains("max_wait is 10m"), "{remarks}");

    let (code, said, mistakes) = checked("upstream = \"emulator\"\nmax_body = 0").await;
    assert_eq!((code, said.as_str()), (Some(2), ""));
    assert!(mistakes.contains(":2:12: max_body"), "{mistakes}");
}

#[tokio::test]
async fn what_a_container_sets_holds_in_place_of_the_file() {
    let emulator = Emulator::builder().key("key-of-the-relay", "default").build();
    let server = emulator.serve().await.unwrap();
    let nobody = settings("http://127.0.0.1:1", "");
    let relay = Relay::start_logging(&nobody, &[("RELAY_UPSTREAM", &server.uri()), ("RELAY_LOG_FORMAT", "json")]).await;
    assert_eq!(send(&relay, prompt(GENERATE)).await.status, 200);
    let log = relay.logged("\"relay::call\"").await;
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let call = lines.iter().find(|line| line["target"] == "relay::call").unwrap();
    let said = ["level", "operation", "model", "status", "attempts", "gone"].map(|name| &call[name]);
    let right =
        [json!("INFO"), json!("GenerateContent"), json!("gemini-2.5-flash"), json!(200), json!(1), json!(false)];
    assert_eq!(said, right.each_ref(), "{call}");

    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = ended_with(&settings("emulator", ""), &[("RELAY_LISTEN", &address)]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains(&format!("cannot listen on {address}")), "{said}");

    for (name, value) in [("RELAY_LISTEN", "8787"), ("RELAY_UPSTREAM", "ftp://x"), ("RUST_LOG", "relay=loud")] {
        let (code, said) = ended_with(&settings("emulator", ""), &[(name, value)]).await;
        assert_eq!(code, Some(2), "{name}: {said}");
        assert!(said.contains(value), "{name}: {said}");
    }
}

#[tokio::test]
async fn wrong_settings_of_the_door_are_refused_in_their_place() {
    for (settings, place, says) in [
        ("client_tokens = \"x\"", "1:17", &["is a text", "a list of what callers bring"][..]),
        ("client_tokens = []", "1:17", &["nobody could call"]),
        ("client_tokens = [1]", "1:18", &["is a whole number"]),
        ("client_tokens = [\"env:NO_SUCH_TOKEN\"]", "1:18", &["NO_SUCH_TOKEN is not set", "the token itself"]),
        ("max_concurrent = 0", "1:18", &["no call would ever go"]),
        ("max_concurrent_per_caller = -1", "1:29", &["is -1"]),
        ("max_queued = 5", "1:14", &["max_concurrent is not set"]),
        ("header_timeout = \"0s\"", "1:18", &["no time at all"]),
        ("body_timeout = 5", "1:16", &["without a unit"]),
        ("drain = \"-1s\"", "1:9", &["negative"]),
        ("lame_duk = \"1s\"", "1:1", &["did you mean lame_duck?"]),
        ("[timeout]\ndrain = \"1s\"", "2:1", &["belongs above all sections"]),
    ] {
        refused_at(settings, place, says).await;
    }
}

// --- health ---

#[tokio::test]
async fn it_is_alive_and_ready_without_a_token_until_every_key_is_refused() {
    let (emulator, _server, relay) = emulated("client_tokens = [\"a-token\"]").await;
    assert_eq!(get(&relay, "/healthz").await, (200, "alive\n".to_owned()));
    assert_eq!(get(&relay, "/readyz").await, (200, "ready\n".to_owned()));
    assert!(emulator.journal().is_empty(), "health goes to nobody else");

    emulator.trouble(When::always(), Trouble::suspended_key());
    while get(&relay, "/readyz").await.0 == 200 {
        assert_ne!(send(&relay, prompt_of("a-token")).await.status, 200);
    }
    assert_eq!(get(&relay, "/readyz").await, (503, "not ready: the upstream refuses every key\n".to_owned()));
    assert_eq!(get(&relay, "/healthz").await.0, 200);
}

#[tokio::test]
async fn a_lame_duck_says_that_it_is_not_ready_and_serves_all_the_same() {
    let (_emulator, _server, mut relay) = emulated("lame_duck = \"1h\"").await;
    relay.terminate().await;
    while get(&relay, "/readyz").await.0 != 503 {
        tokio::task::yield_now().await; // until the signal has arrived
    }
    assert_eq!(get(&relay, "/healthz").await.0, 200);
    assert_eq!(send(&relay, prompt(GENERATE)).await.status, 200);
    relay.terminate().await;
    relay.ended().await;
}

// --- admission ---

#[tokio::test]
async fn a_token_is_taken_wherever_sdks_put_keys_and_nothing_goes_without() {
    let (emulator, _server, relay) = emulated("client_tokens = [\"other\", \"to+ken/1\"]").await;
    let with = |header: &str, value: &str, query: &str| {
        let request = Request::post(format!("{GENERATE}{query}")).header(header, value);
        request.body(Full::from(PROMPT)).unwrap()
    };
    for (header, value, query, status) in [
        ("x-goog-api-key", "to+ken/1", "", 200),
        ("authorization", "Bearer to+ken/1", "", 200),
        ("authorization", "bearer other", "", 200),
        ("x-other", "", "?key=to%2Bken%2f1", 200),
        ("x-other", "", "?alt=json&key=other", 200),
        ("x-goog-api-key", "", "", 401),
        ("x-goog-api-key", "to+ken/", "", 401),
        ("x-goog-api-key", "to+ken/11", "", 401),
        ("x-goog-api-key", "TO+KEN/1", "", 401),
        ("x-goog-api-key", "key-of-the-relay", "", 401),
        ("authorization", "Basic other", "", 401),
        ("x-other", "other", "?monkey=other", 401),
    ] {
        let before = emulator.journal().len();
        let answer = send(&relay, with(header, value, query)).await;
        assert_eq!(answer.status, status, "{header}: {value} {query}: {:?}", answer.body);
        assert_eq!(emulator.journal().len() - before, usize::from(status == 200), "{header}: {value} {query}");
    }

    let answer = send(&relay, prompt(GENERATE)).await.json();
    assert_eq!((&answer["error"]["code"], &answer["error"]["status"]), (&json!(401), &json!("UNAUTHENTICATED")));
    assert!(answer["error"]["message"].as_str().unwrap().contains("none came with the request"), "{answer}");
    // On that surface, errors are as OpenAI's clients read them.
    let answer = send(&relay, prompt("/v1beta/openai/chat/completions")).await;
    let error = &answer.json()["error"];
    assert_eq!((answer.status, &error["code"], &error["type"]), (401, &json!(401), &json!("authentication_error")));
}

#[tokio::test]
async fn nobody_takes_more_places_than_one_caller_may() {
    let gated = Gated::new().await;
    let top = "client_tokens = [\"one\", \"two\"]\nmax_concurrent_per_caller = 2";
    let relay = Relay::start(&settings(&gated.uri(), top)).await;
    let (refused, others) = (
        async {
            gated.arrived(2).await;
            let refused = send(&relay, prompt_of("one")).await;
            gated.open.send_replace(true);
            refused
        },
        async {
            gated.arrived(2).await;
            send(&relay, prompt_of("two")).await.status
        },
    );
    let (first, second, refused, other) =
        tokio::join!(send(&relay, prompt_of("one")), send(&relay, prompt_of("one")), refused, others);
    assert_eq!((first.status, second.status, other), (200, 200, 200));
    assert_eq!((refused.status, refused.headers.get("retry-after").unwrap().as_bytes()), (429, &b"1"[..]));
    let error = &refused.json()["error"];
    let message = error["message"].as_str().unwrap().to_lowercase();
    assert_eq!(error["status"], "RESOURCE_EXHAUSTED", "{error}");
    assert_eq!((message.matches("try again").count(), message.contains("try again in 1 s")), (1, true), "{message}");
    // The places are free again.
    let again = join_all([(); 2].map(|()| send(&relay, prompt_of("one")))).await;
    assert!(again.iter().all(|answer| answer.status == 200));
}

#[tokio::test]
async fn all_tokens_of_a_caller_with_a_name_take_the_places_of_one() {
    let gated = Gated::new().await;
    let callers = "[[callers]]\nname = \"app\"\ntokens = [\"one\", \"two\"]\n";
    let relay = Relay::start(&format!("{}{callers}", settings(&gated.uri(), "max_concurrent_per_caller = 1"))).await;
    let refused = async {
        gated.arrived(1).await;
        let refused = send(&relay, prompt_of("two")).await.status;
        gated.open.send_replace(true);
        refused
    };
    let (first, refused) = tokio::join!(send(&relay, prompt_of("one")), refused);
    assert_eq!((first.status, refused), (200, 429));
    assert_eq!(send(&relay, prompt_of("two")).await.status, 200);
}

#[tokio::test]
async fn without_tokens_an_address_is_a_caller_and_one_who_goes_away_leaves_its_place() {
    let gated = Gated::new().await;
    let relay = Relay::start(&settings(&gated.uri(), "max_concurrent_per_caller = 1")).await;
    let gone = tokio::spawn(client(&relay).oneshot(prompt(GENERATE)));
    gated.arrived(1).await;
    assert_eq!(send(&relay, prompt(GENERATE)).await.status, 429);
    gone.abort();
    gated.open.send_replace(true);
    while send(&relay, prompt(GENERATE)).await.status != 200 {
        tokio::task::yield_now().await; // until the relay has noticed
    }
}

/// Asks for a stream, and reads it up to its first error. The connection stays open as long as the body is kept.
async fn read_to_error(relay: &Relay) -> ResponseBody {
    let response = timeout(PATIENCE, client(relay).oneshot(prompt(STREAM))).await.expect("no answer").unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    loop {
        let frame = timeout(PATIENCE, body.frame()).await.expect("no error").expect("an end").unwrap();
        if String::from_utf8_lossy(frame.data_ref().unwrap()).contains("\"error\"") {
            return body;
        }
    }
}

#[tokio::test]
async fn who_reads_that_a_stream_has_failed_may_call_again_at_once() {
    for trouble in [Trouble::cut(1), Trouble::reset_after(1)] {
        let (emulator, _server, relay) = emulated("max_concurrent_per_caller = 1").await;
        emulator.trouble(When::always().path(":streamGenerateContent"), trouble);
        let _open = read_to_error(&relay).await;
        assert_eq!(send(&relay, prompt(GENERATE)).await.status, 200);
    }
}

#[tokio::test]
async fn a_full_relay_lets_some_wait_and_sends_the_rest_away() {
    let gated = Gated::new().await;
    let relay = Relay::start(&settings(&gated.uri(), "max_concurrent = 1\nmax_queued = 1")).await;
    let call = || Box::pin(send(&relay, prompt(GENERATE)));
    let inside = call();
    let (inside, outside) = tokio::join!(inside, async {
        gated.arrived(1).await;
        // One of them waits, and it is not known which.
        let (refused, waiting) = match futures_util::future::select(call(), call()).await {
            futures_util::future::Either::Left(both) | futures_util::future::Either::Right(both) => both,
        };
        let seen = *gated.arrived.borrow();
        gated.open.send_replace(true);
        (refused, waiting.await, seen)
    });
    let (refused, waited, seen) = outside;
    assert_eq!((inside.status, refused.status, waited.status, seen), (200, 503, 200, 1));
    assert_eq!(refused.headers.get("retry-after").unwrap(), "1");
    assert_eq!(refused.json()["error"]["status"], "UNAVAILABLE", "{:?}", refused.body);
}

#[tokio::test]
async fn what_the_door_refuses_is_not_shown_as_a_fault_of_the_upstreams() {
    let gated = Gated::new().await;
    let top = "client_tokens = [\"one\"]\nmax_concurrent_per_caller = 1";
    let relay = Relay::start(&settings(&gated.uri(), top)).await;
    let status = async || serde_json::from_str::<Value>(&get(&relay, "/status").await.1).unwrap();
    // Strangers could fill the list, and drive out the failures that matter.
    assert_eq!(send(&relay, prompt(GENERATE)).await.status, 401);
    let seen = status().await;
    assert_eq!((&seen["wrong"], &seen["failures"]), (&json!([]), &json!([])));

    let (first, refused) = tokio::join!(send(&relay, prompt_of("one")), async {
        gated.arrived(1).await;
        let refused = send(&relay, prompt_of("one")).await;
        gated.open.send_replace(true);
        refused
    });
    assert_eq!((first.status, refused.status), (200, 429));
    let seen = status().await;
    let failed = &seen["failures"][0];
    assert_eq!(
        (&failed["fault"], &failed["kind"], &failed["code"]),
        (&json!("caller"), &json!("caller_full"), &json!(429))
    );
    assert!(failed["what_to_do"].as_str().unwrap().contains("max_concurrent_per_caller"), "{failed}");
    assert_eq!(seen["wrong"][0]["level"], "note", "{seen}");
}

/// Shorter than any time-out that is a default.
const SOON: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_head_that_never_ends_is_not_waited_for() {
    let (emulator, _server, relay) = emulated("header_timeout = \"100ms\"").await;
    for start in ["", "P", "PRI * HTTP/2.0\r\n", "GET /v1beta/models HTTP/1.1\r\nhost: relay\r\nx-slow: "] {
        let mut caller = TcpStream::connect(relay.address()).await.unwrap();
        caller.write_all(start.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A reset is an end, too.
        let _ = timeout(SOON, caller.read_to_end(&mut answer)).await.unwrap_or_else(|_| panic!("{start:?} is held"));
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{start:?}");
    }
    assert!(emulator.journal().is_empty());
    assert_eq!(send(&relay, prompt(GENERATE)).await.status, 200);
}

#[tokio::test]
async fn a_body_that_never_ends_is_not_waited_for() {
    let (emulator, _server, relay) = emulated("body_timeout = \"200ms\"").await;
    let head = format!("POST {GENERATE} HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n");
    let mut caller = TcpStream::connect(relay.address()).await.unwrap();
    caller.write_all(format!("{head}content-length: 100\r\n\r\n{{\"contents\"").as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = timeout(SOON, caller.read(&mut answer)).await.expect("it is held").unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("DEADLINE_EXCEEDED") && answer.contains("200ms"), "{answer}");
    assert!(emulator.journal().is_empty());
}

#[tokio::test]
async fn an_answer_that_nobody_reads_leaves_its_place() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}", listener.local_addr().unwrap());
    let content = json!({ "parts": [{ "text": "more ".repeat(10_000) }], "role": "model" });
    let event = Bytes::from(format!("data: {}\r\n\r\n", json!({ "candidates": [{ "content": content }] })));
    let app = Router::new().fallback(move |request: Received| {
        let event = event.clone();
        async move {
            if request.uri().path().ends_with(":streamGenerateContent") {
                let endless = futures_util::stream::repeat_with(move || Ok::<_, BoxError>(event.clone()));
                return ([("content-type", "text/event-stream")], axum::body::Body::from_stream(endless))
                    .into_response();
            }
            Json(json!({ "candidates": [{ "content": { "parts": [{ "text": "short" }] }, "finishReason": "STOP" }] }))
                .into_response()
        }
    });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let top = "max_concurrent_per_caller = 1\nunread_timeout = \"300ms\"";
    let relay = Relay::start(&settings(&upstream, top)).await;
    let mut caller = TcpStream::connect(relay.address()).await.unwrap();
    let head = format!(
        "POST {STREAM} HTTP/1.1\r\nhost: relay\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        PROMPT.len()
    );
    caller.write_all(format!("{head}{PROMPT}").as_bytes()).await.unwrap();
    caller.readable().await.unwrap();
    // The caller's place is taken for now, and free later, though the caller has not gone.
    assert_eq!(send(&relay, prompt(GENERATE)).await.status, 429);
    let freed = async {
        while send(&relay, prompt(GENERATE)).await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, freed).await.expect("it keeps its place");
    // The answer does not end as if it were complete: the connection is reset.
    let mut rest = Vec::new();
    let end = timeout(SOON, caller.read_to_end(&mut rest)).await.expect("it has no end");
    assert_eq!(end.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn the_live_api_is_refused_with_what_to_do_instead() {
    let (emulator, _server, relay) = emulated("").await;
    let live = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent";
    for (path, upgrade) in [
        (live, true),
        (live, false),
        ("/v1beta/models", true),
        (
            "/ws/google.ai.generativelanguage.v1alpha.GenerativeService.BidiGenerateContentConstrained?access_token=x",
            false,
        ),
        ("/ws/google.ai.generativelanguage.v1alpha.GenerativeService.BidiGenerateMusic?key=x", false),
        ("/ws/google.cloud.aiplatform.v1beta1.LlmBidiService/BidiGenerateContent", false),
        ("/v1beta/models/gemini-2.5-flash:bidiGenerateContent", false),
        ("/v1/interactions/live", false),
        ("/v1beta/interactions/live/", true),
        ("/gemini/v1/interactions/live?key=x", false),
    ] {
        let request = Request::get(path);
        let request =
            if upgrade { request.header("connection", "Upgrade").header("upgrade", "WebSocket") } else { request };
        let answer = send(&relay, request.body(Full::default()).unwrap()).await;
        // The errors of interactions have no status.
        let status = if path.contains("interactions") { Value::Null } else { json!("UNIMPLEMENTED") };
        assert_eq!((answer.status, &answer.json()["error"]["status"]), (501, &status), "{path}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("Live API") && message.contains("streamGenerateContent"), "{message}");
        for name in ["BidiGenerateContent", "Constrained", "BidiGenerateMusic", "interactions/live"] {
            assert!(message.contains(name), "no {name} in {message}");
        }
    }
    for path in ["/v1beta/interactions/alive", "/v1beta/interactions/live/more"] {
        let answer = send(&relay, Request::get(path).body(Full::default()).unwrap()).await;
        assert_ne!(answer.status, 501, "{path}");
    }
    let before = emulator.journal().len();
    // Any other upgrade is not the relay's business.
    let other = Request::get("/v1beta/models").header("connection", "upgrade").header("upgrade", "h2c");
    assert_eq!(send(&relay, other.body(Full::default()).unwrap()).await.status, 200);
    assert_eq!(emulator.journal().len(), before + 1);
}

// --- the log ---

#[tokio::test]
async fn a_call_is_one_line_that_has_no_secret() {
    let emulator = Emulator::builder().key("key-of-the-relay", "default").build();
    let server = emulator.serve().await.unwrap();
    let relay = Relay::start_logging(&settings(&server.uri(), "client_tokens = [\"token-of-a-caller\"]"), &[]).await;
    let (misplaced, long) = ("AIzaSyA-0123456789_abcdefghijklmnopqrst", "x".repeat(5_000));
    let invented = [misplaced, &long].map(|model| format!("/v1beta/models/{model}:generateContent"));
    for path in [GENERATE.to_owned(), format!("{GENERATE}?key=token-of-a-caller")].into_iter().chain(invented) {
        send(&relay, prompt(&path)).await;
    }
    let log = relay.said().await;
    let calls: Vec<_> = log.lines().filter(|line| line.contains("relay::call")).collect();
    assert_eq!(calls.len(), 4, "{log}");
    // The place of a model's name can have anything in it.
    assert!(!log.contains(misplaced) && calls.iter().all(|line| line.len() < 1_000), "{log}");
    assert!(calls[0].contains("status=401") && calls[1].contains("status=200"), "{log}");
    let key = Fingerprint::of("key-of-the-relay").to_string();
    assert!(calls[1].contains(&key) && calls[1].contains("attempts=1"), "no {key}: {log}");
    for secret in ["key-of-the-relay", "token-of-a-caller", "hello"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}

#[tokio::test]
async fn only_a_caller_that_leaves_before_the_end_is_gone() {
    let overloaded = Trouble::overloaded().in_stream(1);
    for (trouble, gone) in
        [(Trouble::cut(1), false), (Trouble::reset_after(1), false), (overloaded, false), (Trouble::stall(1), true)]
    {
        let emulator = Emulator::builder().key("key-of-the-relay", "default").build();
        let server = emulator.serve().await.unwrap();
        let relay = Relay::start_logging(&settings(&server.uri(), ""), &[]).await;
        let name = trouble.name();
        emulator.trouble(When::always().path(":streamGenerateContent"), trouble);
        if gone {
            let response = timeout(PATIENCE, client(&relay).oneshot(prompt(STREAM))).await.unwrap().unwrap();
            let mut body = response.into_body();
            timeout(PATIENCE, body.frame()).await.unwrap().unwrap().unwrap();
        } else {
            // Google's SDKs close the connection on reading the error.
            drop(read_to_error(&relay).await);
        }
        let line = relay.logged("gone=").await;
        assert!(line.contains(&format!("gone={gone}")), "{name}: {line}");
        assert_eq!(line.contains("failure="), !gone, "{name}: {line}");
    }
}

#[tokio::test]
async fn a_caller_that_asks_for_a_head_has_all_of_a_refusal_without_its_body() {
    let relay = Relay::start_logging("upstream = \"emulator\"\nclient_tokens = [\"token\"]\n", &[]).await;
    let request = Request::head("/v1beta/models").body(Full::default()).unwrap();
    assert_eq!(send(&relay, request).await.status, 401);
    let line = relay.logged("gone=").await;
    assert!(line.contains("gone=false") && line.contains("status=401"), "{line}");
}

// --- reloads ---

#[tokio::test]
async fn wrong_settings_are_complained_of_and_the_old_ones_stay() {
    let emulator = Emulator::builder().key("key-of-the-relay", "default").build();
    let server = emulator.serve().await.unwrap();
    let right = settings(&server.uri(), "client_tokens = [\"old\"]");
    let relay = Relay::start_logging(&right, &[]).await;
    for (wrong, what) in [
        ("upstream = \"emulator\"\nmax_body = 0".to_owned(), ":4:12: max_body: "),
        (right.replace("old", "new") + "max_attempts = \"x\"\n", "max_attempts: is a text"),
        ("[".to_owned(), ":3:2: "),
    ] {
        let said = relay.reload(&wrong).await;
        assert!(said.contains(what) && said.contains("the old ones stay"), "{said}");
        assert_eq!(send(&relay, prompt_of("old")).await.status, 200);
        assert_eq!(send(&relay, prompt_of("new")).await.status, 401);
    }
    let said = relay.reload(&right.replace("old", "new")).await;
    assert!(said.contains("hold for new calls from now on"), "{said}");
    assert_eq!(send(&relay, prompt_of("old")).await.status, 401);
    assert_eq!(send(&relay, prompt_of("new")).await.status, 200);
}

#[tokio::test]
async fn the_names_of_metrics_stay_until_a_restart() {
    let relay = Relay::start_logging("upstream = \"emulator\"\n", &[]).await;
    let said = relay.reload("upstream = \"emulator\"\n[telemetry]\nconventions = \"1.41\"\n").await;
    assert!(said.contains("[telemetry] cannot change") && said.contains("needs a restart"), "{said}");
    assert_eq!(send(&relay, prompt_of("nobody")).await.status, 200);
    let (_, metrics) = get(&relay, "/metrics").await;
    assert!(metrics.contains("gen_ai_client_inference_") && !metrics.contains("gen_ai_client_operation_"), "{metrics}");
    // A wrong name is refused with the right ones.
    let said = relay.reload("upstream = \"emulator\"\n[telemetry]\nconventions = \"1.42\"\n").await;
    assert!(said.contains("conventions: ") && said.contains("v0.1.0") && said.contains("1.41"), "{said}");
}

#[tokio::test]
async fn a_failed_call_is_one_line_in_the_log_and_an_event_where_it_is_asked_for() {
    let event = "tower_gemini::telemetry::exception";
    for (level, expected) in [("info", false), ("info,tower_gemini::telemetry::exception=warn", true)] {
        let relay = Relay::start_logging("upstream = \"emulator\"\n", &[("RUST_LOG", level)]).await;
        let (status, _) = get(&relay, "/v1beta/models/nobody-knows-it").await;
        assert_eq!(status, 404);
        let nobody = GENERATE.replace("gemini-2.5-flash", "nobody-knows-it");
        assert_eq!(send(&relay, prompt(&nobody)).await.status, 404);
        let said = relay.logged("GenerateContent").await;
        assert_eq!(said.contains(event), expected, "{said}");
    }
}

#[tokio::test]
async fn a_call_has_a_line_in_the_log_where_one_is_wanted() {
    for (level, expected) in [
        ("warn", false),
        ("info,relay::call=warn", false),
        ("warn,relay::call=info", true),
        ("warn,relay::call[{status}]=info", true),
        ("warn,relay::call[{strange}]=info", false),
    ] {
        let relay = Relay::start_logging("upstream = \"emulator\"\n", &[("RUST_LOG", level)]).await;
        assert_eq!(send(&relay, prompt(GENERATE)).await.status, 200);
        let said = relay.said().await;
        assert_eq!(said.contains("GenerateContent"), expected, "{level}: {said}");
    }
}

const TWO_KEYS: &str = "[[keys]]\nkey = \"key-a\"\nproject = \"p1\"\nweight = 1000\n\
                        [[keys]]\nkey = \"key-b\"\nproject = \"p2\"\n";

fn asked_with(emulator: &Emulator, key: &str) -> usize {
    let key = Emulator::fingerprint(key);
    emulator.count(|visit| visit.key.as_ref() == Some(&key))
}

#[tokio::test]
async fn what_was_learned_stays_and_keys_come_and_go() {
    let emulator = Emulator::builder().key("key-a", "p1").key("key-b", "p2").key("key-c", "p3").build();
    emulator.trouble(When::always().project("p1"), Trouble::day_quota());
    let server = emulator.serve().await.unwrap();
    let rest = "[retry]\nbase_delay = \"1ms\"\nmax_delay = \"5ms\"\n";
    let first = format!("upstream = {:?}\n{TWO_KEYS}{rest}", server.uri());
    let relay = Relay::start_logging(&first, &[]).await;
    let answers = async |times: usize| {
        for _ in 0..times {
            assert_eq!(send(&relay, prompt(GENERATE)).await.status, 200);
        }
    };
    answers(20).await;
    assert_eq!(asked_with(&emulator, "key-a"), 1, "the day's quota of p1 is used up");

    // Sections without keys, two of which have handles that ask each other.
    for changed in
        ["[breaker]\nmode = \"consecutive\"\n", "[limits.default]\nrpm = 5000\n", "[timeout]\nidle = \"20s\"\n"]
    {
        relay.reload(&format!("{first}{changed}")).await;
        answers(20).await;
        assert_eq!(asked_with(&emulator, "key-a"), 1, "{changed}");
    }

    let third = "[[keys]]\nkey = \"key-c\"\nproject = \"p3\"\n";
    relay.reload(&format!("upstream = {:?}\n{TWO_KEYS}{third}{rest}", server.uri())).await;
    emulator.trouble(When::always().project("p2"), Trouble::day_quota());
    answers(20).await;
    assert!(asked_with(&emulator, "key-c") >= 19);
    assert_eq!(asked_with(&emulator, "key-a"), 1);

    // A key that was removed is not used; one that changed its project is tried again.
    emulator.clear_troubles();
    let asked = asked_with(&emulator, "key-c");
    relay.reload(&format!("{}{rest}", first.replace("p2", "p9").replace(rest, ""))).await;
    answers(5).await;
    assert_eq!((asked_with(&emulator, "key-a"), asked_with(&emulator, "key-c")), (1, asked));
}

#[tokio::test]
async fn counts_and_circuits_stay_where_their_own_section_does() {
    let emulator = Emulator::builder().key("key-of-the-relay", "default").build();
    emulator.trouble(When::always().model("gemini-2.5-pro"), Trouble::overloaded());
    let server = emulator.serve().await.unwrap();
    let start = format!("{}on_open = \"fail\"\nmax_attempts = 1\n", settings(&server.uri(), ""));
    let (limits, circuits) = (
        "[limits.default]\nrpm = 12\nmax_wait = \"0s\"\n",
        "[breaker]\nmode = \"consecutive\"\nopen = \"1h\"\nmax_open = \"1h\"\n",
    );
    let relay = Relay::start_logging(&format!("{start}{limits}{circuits}"), &[]).await;
    let pro = GENERATE.replace("flash", "pro");
    let calls = async |path: &str, times: usize| {
        let mut seen = Vec::new();
        for _ in 0..times {
            seen.push(send(&relay, prompt(path)).await.status);
        }
        seen
    };
    assert_eq!(calls(GENERATE, 13).await[11..], [200, 429]);
    assert_eq!(calls(&pro, 6).await, [503; 6]);
    let asked = emulator.journal().len();
    assert_eq!(asked, 12 + 5, "the sixth found an open circuit");

    for changed in ["[timeout]\nidle = \"20s\"\n", "[precheck]\ncount_tokens = \"never\"\n", "max_delay = \"9ms\"\n"] {
        let start = if changed.starts_with('[') {
            start.clone() + changed
        } else {
            start.replace("max_delay = \"5ms\"\n", changed)
        };
        relay.reload(&format!("{start}{limits}{circuits}")).await;
        assert_eq!((calls(GENERATE, 1).await, calls(&pro, 1).await), (vec![429], vec![503]), "{changed}");
    }
    assert_eq!(emulator.journal().len(), asked, "nothing was forgotten");

    // First other breakers with the same limits, then the other way round.
    relay.reload(&format!("{start}{limits}[breaker]\nenabled = false\n")).await;
    assert_eq!((calls(GENERATE, 1).await, calls(&pro, 1).await), (vec![429], vec![503]));
    assert_eq!(emulator.journal().len(), asked + 1, "there is no circuit any more");
    relay.reload(&format!("{start}[limits.default]\nrpm = 500\n{circuits}")).await;
    assert_eq!(calls(GENERATE, 1).await, [200]);
}

#[tokio::test]
async fn another_upstream_is_asked_from_then_on_and_where_it_listens_stays() {
    let (one, other) = (Emulator::builder(), Emulator::builder());
    let (one, other) =
        (one.key("key-of-the-relay", "default").build(), other.key("key-of-the-relay", "default").build());
    let (at_one, at_other) = (one.serve().await.unwrap(), other.serve().await.unwrap());
    let relay = Relay::start_logging(&settings(&at_one.uri(), ""), &[]).await;
    assert_eq!(send(&relay, prompt(GENERATE)).await.status, 200);
    let said = relay.reload_file(&format!("listen = \"127.0.0.1:1\"\n{}", settings(&at_other.uri(), ""))).await;
    assert!(said.contains("listen cannot change"), "{said}");
    assert_eq!(send(&relay, prompt(GENERATE)).await.status, 200);
    assert_eq!((one.journal().len(), other.journal().len()), (1, 1));
    let said = relay.reload(&settings(&at_other.uri(), "")).await;
    assert!(!said.contains("listen cannot change"), "{said}");
}

#[tokio::test]
async fn what_is_shown_goes_on_when_another_upstream_is_asked() {
    let first = Emulator::builder().key("key-of-the-relay", "default").build();
    let before = first.serve().await.unwrap();
    let relay = Relay::start_logging(&settings(&before.uri(), ""), &[]).await;
    first.trouble(When::always(), Trouble::internal());
    assert_eq!(send(&relay, prompt(GENERATE)).await.status, 500);
    let second = Emulator::builder().key("key-of-the-relay", "p1").build();
    let server = second.serve().await.unwrap();
    relay.reload(&settings(&server.uri(), "")).await;
    assert_eq!(send(&relay, prompt(GENERATE)).await.status, 200);
    let status: Value = serde_json::from_str(&get(&relay, "/status").await.1).unwrap();
    assert_eq!(status["failures"][0]["code"], 500, "{status}");
    // A gauge knows the model that has just answered.
    let (_, metrics) = get(&relay, "/metrics").await;
    let known = metrics
        .lines()
        .any(|line| line.starts_with("tower_gemini_breaker_state") && line.contains("\"gemini-2.5-flash\""));
    assert!(known, "{metrics}");
}

#[tokio::test]
async fn calls_under_way_end_as_they_began_when_settings_change() {
    let gated = Gated::new().await;
    let relay = Relay::start_logging(&settings(&gated.uri(), "client_tokens = [\"old\"]"), &[]).await;
    let (answer, ()) = tokio::join!(send(&relay, prompt_of("old")), async {
        gated.arrived(1).await;
        relay.reload("upstream = \"emulator\"\nclient_tokens = [\"new\"]\n").await;
        gated.open.send_replace(true);
    });
    assert_eq!(answer.status, 200);
    assert!(String::from_utf8_lossy(&answer.body).contains("late"), "{:?}", answer.body);
}

#[tokio::test]
async fn no_call_is_lost_while_settings_change() {
    let emulator = Emulator::builder().key("key-a", "p1").key("key-b", "p2").build();
    let server = emulator.serve().await.unwrap();
    let start = format!("upstream = {:?}\n", server.uri());
    let variants = [
        format!("{start}{TWO_KEYS}"),
        format!(
            "{start}max_concurrent = 64\n[[keys]]\nkey = \"key-b\"\nproject = \"p2\"\n[breaker]\nenabled = false\n"
        ),
        format!("{start}[[keys]]\nkey = \"key-b\"\nproject = \"p7\"\n"),
        format!("{start}{TWO_KEYS}[limits.default]\nrpm = 100000\n[precheck]\nenabled = false\n"),
    ];
    const CALLERS: usize = 8;
    let relay = Relay::start_logging(&variants[0], &[]).await;
    let (done, over) = watch::channel(false);
    let callers = (0..CALLERS).map(|_| {
        let (client, over) = (client(&relay), over.clone());
        async move {
            for path in [GENERATE, STREAM].into_iter().cycle() {
                if *over.borrow() {
                    return;
                }
                let response =
                    timeout(PATIENCE, client.clone().oneshot(prompt(path))).await.expect("no answer").unwrap();
                let answer = read(response).await.unwrap();
                assert_eq!(answer.status, 200, "{:?}", answer.body);
                assert!(String::from_utf8_lossy(&answer.body).contains("STOP"), "{:?}", answer.body);
            }
        }
    });
    tokio::join!(join_all(callers), async {
        for variant in variants.iter().cycle().skip(1).take(24) {
            let said = relay.reload(variant).await;
            assert!(said.contains("hold for new calls from now on"), "{said}");
            // A reload takes less time than a call, so that without calls in between this would be one change.
            let calls = emulator.journal().len() + CALLERS;
            emulator.wait_for(|visits: &[Visit]| visits.len() >= calls).await;
        }
        done.send_replace(true);
    });
    assert_eq!(emulator.count(|visit| visit.end != Some(End::Finished)), 0);
}

// --- the end ---

#[tokio::test]
async fn no_call_is_lost_when_it_ends_under_load() {
    let emulator =
        Emulator::builder().key("key-of-the-relay", "default").between_chunks(Duration::from_millis(20)).build();
    let server = emulator.serve().await.unwrap();
    let mut relay = Relay::start(&settings(&server.uri(), "")).await;
    let callers = (0..16).map(|number| {
        let client = client(&relay);
        async move {
            let (mut whole, mut broken) = (0, 0);
            loop {
                let path = if number % 2 == 0 { GENERATE } else { STREAM };
                // Without a connection, the call has not been accepted.
                let response = timeout(PATIENCE, client.clone().oneshot(prompt(path))).await.expect("no answer");
                let Ok(response) = response else { return (whole, broken) };
                match read(response).await {
                    Ok(answer) if answer.status == 200 && String::from_utf8_lossy(&answer.body).contains("STOP") => {
                        whole += 1
                    }
                    _ => broken += 1,
                }
            }
        }
    });
    let (calls, ()) = tokio::join!(join_all(callers), async {
        emulator.wait_for(|visits: &[Visit]| visits.len() >= 40).await;
        relay.terminate().await;
    });
    assert_eq!(relay.ended().await.code(), Some(0));
    let (whole, broken) = calls.iter().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    assert_eq!((whole, broken), (emulator.journal().len(), 0), "what was asked of the upstream was answered");
    assert!(whole >= 40);
}

#[tokio::test]
async fn what_outlasts_the_drain_is_broken_off() {
    let gated = Gated::new().await;
    let mut relay = Relay::start_logging(&settings(&gated.uri(), "drain = \"50ms\""), &[]).await;
    let hangs = tokio::spawn(client(&relay).oneshot(prompt(GENERATE)));
    gated.arrived(1).await;
    relay.terminate().await;
    let ended = timeout(SOON, relay.ended()).await.expect("it waits for longer than it was told");
    assert_eq!(ended.code(), Some(1));
    assert!(relay.logged("broken off").await.contains("50ms"));
    assert!(hangs.await.unwrap().is_err());
}

// --- two listeners ---

#[tokio::test]
async fn operators_have_a_listener_of_their_own_and_callers_see_health_only() {
    let emulator = Emulator::builder().key("key-of-the-relay", "p1").build();
    let server = emulator.serve().await.unwrap();
    let relay = Relay::start(&settings(&server.uri(), "")).await;
    let ask = async |at: String, path: &str| {
        let client: Client<Full<Bytes>> = Client::builder().base_url(at).build().unwrap();
        let request = Request::get(path).body(Full::default()).unwrap();
        read(timeout(PATIENCE, client.oneshot(request)).await.expect("no answer").unwrap()).await.unwrap()
    };
    for path in ["/", "/status", "/metrics"] {
        assert_eq!(ask(relay.operator_uri(), path).await.status, 200, "{path}");
        let answer = ask(relay.uri(), path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(String::from_utf8_lossy(&answer.body).contains("operator_listen"), "{answer:?}", answer = answer.body);
    }
    for path in ["/healthz", "/readyz"] {
        for at in [relay.uri(), relay.operator_uri()] {
            assert_eq!(ask(at, path).await.status, 200, "{path}");
        }
    }
    assert_eq!(ask(relay.operator_uri(), "/v1beta/models").await.status, 404, "it has no calls");
    assert!(emulator.journal().is_empty());
    let taken = relay.operator_uri().replace("http://", "");
    let (code, said) =
        refused(&format!("listen = \"127.0.0.1:0\"\noperator_listen = {taken:?}\nupstream = \"emulator\"\n")).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("operator_listen: cannot listen on {taken}")), "{said}");
    refused_at("operator_listen = true", "1:19", &["is true", "127.0.0.1:8788"]).await;
    refused_at("operator_listen = \"localhost\"", "1:19", &["not an address"]).await;
}
