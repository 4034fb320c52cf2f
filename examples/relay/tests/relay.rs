//! The relay as a process: its settings, its changes to requests and answers, and its end.

#![cfg(unix)] // it is told to end by a signal
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_process;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::Request as Received, response::IntoResponse};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tower::ServiceExt;
use tower_gemini::{
    client::{Client, ResponseBody},
    emulator::{Emulator, End, Trouble, When},
};

use relay_process::{PATIENCE, Relay, checked, refused, refused_at};

const GENERATE: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
const STREAM: &str = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse";
const PROMPT: &str = r#"{"contents": [{"parts": [{"text": "hello"}]}]}"#;

/// Returns settings for an upstream, with a key of the relay's own and next to no delay between attempts.
fn settings(upstream: &str) -> String {
    format!("upstream = {upstream:?}\n[[keys]]\nkey = \"key-of-the-relay\"\n[retry]\nbase_delay = \"1ms\"\n")
}

async fn send(relay: &Relay, request: Request<Full<Bytes>>) -> Response<ResponseBody> {
    let client: Client<Full<Bytes>> = Client::builder().base_url(relay.uri_of(request.uri().path())).build().unwrap();
    timeout(PATIENCE, client.oneshot(request)).await.expect("no answer").unwrap()
}

async fn post(relay: &Relay, path: &str, body: &'static str) -> (StatusCode, Value) {
    let response = send(relay, Request::post(path).body(Full::from(body)).unwrap()).await;
    let (head, body) = response.into_parts();
    let body = timeout(PATIENCE, body.collect()).await.expect("no end").unwrap().to_bytes();
    (head.status, serde_json::from_slice(&body).unwrap_or_else(|_| panic!("no JSON: {body:?}")))
}

fn answered(answer: &Value) -> &str {
    answer["candidates"][0]["content"]["parts"][0]["text"].as_str().unwrap()
}

// --- settings ---

#[tokio::test]
async fn the_documented_settings_are_accepted() {
    let documented = r#"
        upstream = "https://generativelanguage.googleapis.com"   # or "emulator"
        max_body = "32MiB"
        [[keys]]
        name = "a"
        key = "env:PATH"                    # a variable that is surely set
        project = "p1"
        [retry]
        max_attempts = 8                    # also: persistent = true
        base_delay = "500ms"
        max_delay = "20s"
        on_open = "wait"                    # or "fail"
        [timeout]
        total = "285s"
        attempt = "180s"
        first_event = "180s"
        idle = "60s"
        [breaker]
        enabled = true
        mode = "silence"                    # or "failure_rate", or "consecutive"
        open = "2s"
        max_open = "10s"
    "#;
    Relay::start(documented).await;
    Relay::start(&documented.replace("max_attempts = 8 ", "persistent = true").replace("wait", "fail")).await;
}

#[tokio::test]
async fn the_settings_of_the_readme_are_accepted() {
    let (_, settings) = include_str!("../README.md").split_once("## Settings").unwrap();
    let (_, settings) = settings.split_once("```toml\n").unwrap();
    let (settings, _) = settings.split_once("```").unwrap();
    // Variables that are surely set, and differ: no token is a key.
    let settings = settings.replace("env:GEMINI_API_KEY", "env:PATH").replace("env:RELAY_TOKEN", "env:CARGO_PKG_NAME");
    let settings = settings.replace("env:JOBS_TOKEN", "env:CARGO_MANIFEST_DIR");
    let settings = settings.replace("env:RELAY_OPERATOR_TOKEN", "token-of-the-operators");
    let (code, _, mistakes) = checked(&settings).await;
    assert_eq!(code, Some(0), "{mistakes}");
}

#[tokio::test]
async fn clocks_adapt_calls_wait_until_their_deadline_and_retries_are_many_unless_it_is_set_otherwise() {
    let (code, said, _) = checked("upstream = \"emulator\"").await;
    assert_eq!(code, Some(0));
    for words in ["idle 60s, for flex 900s, adaptive", "waits until the deadline", "20 attempts"] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    let others = "[timeout]\nadaptive = false\n[limits.default]\nmax_wait = \"60s\"\n[retry]\nmax_attempts = 8\n";
    let (code, said, _) = checked(&format!("upstream = \"emulator\"\n{others}")).await;
    assert_eq!(code, Some(0));
    for words in ["idle 60s, for flex 900s\n", "waits for up to 60s", "8 attempts"] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    refused_at("[timeout]\nadaptive = \"yes\"", "2:12", &["true or false"]).await;
}

#[tokio::test]
async fn with_the_emulator_nothing_else_is_needed() {
    let relay = Relay::start("upstream = \"emulator\"").await;
    let (status, answer) = post(&relay, GENERATE, PROMPT).await;
    assert_eq!((status, answered(&answer)), (StatusCode::OK, "You said: hello"));
}

#[tokio::test]
async fn a_wrong_setting_is_refused_with_its_line_and_what_would_be_right() {
    for (settings, place, says) in [
        // Names.
        ("upstrem = \"emulator\"", "1:1", &["did you mean upstream?", "upstream, max_body"][..]),
        ("\n[retry]\nmax_atempts = 8", "3:1", &["[retry]", "did you mean max_attempts?", "persistent, base_delay"]),
        ("total = \"5s\"", "1:1", &["belongs in [timeout]"]),
        ("[retry]\nupstream = \"emulator\"", "2:1", &["belongs above all sections"]),
        ("[zzz]", "1:2", &["not a setting of the top level", "keys, fallback, retry, timeout"]),
        ("[[keys]]\nkey = \"k\"\nheavy = 3", "3:1", &["[[keys]]", "name, key, project"]),
        // Types.
        ("listen = 8787", "1:10", &["is a whole number", "127.0.0.1:8787"]),
        ("retry = 3", "1:9", &["a section, [retry]"]),
        ("[keys]\nkey = \"k\"", "1:1", &["a list, [[keys]]"]),
        ("keys = [\"k\"]", "1:9", &["a list, [[keys]]"]),
        ("[retry]\nmax_attempts = \"8\"", "2:16", &["is a text", "whole number"]),
        ("[retry]\npersistent = \"yes\"", "2:14", &["true or false"]),
        ("[retry]\non_open = true", "2:11", &["\"wait\"", "\"fail\""]),
        // Values.
        ("listen = \"localhost\"", "1:10", &["not an address", "127.0.0.1:8787"]),
        ("upstream = \"generativelanguage.googleapis.com\"", "1:12", &["scheme is missing", "https://", "emulator"]),
        ("upstream = \"ftp://gemini\"", "1:12", &["ftp is not supported"]),
        ("max_body = \"32MB5\"", "1:12", &["not a unit", "32MiB"]),
        ("max_body = \"-1\"", "1:12", &["not a size", "32MiB"]),
        ("max_body = 0", "1:12", &["no request would fit"]),
        ("max_body = \"99999999999GiB\"", "1:12", &["more than memory can hold"]),
        ("[retry]\nmax_attempts = 0", "2:16", &["is 0", "from 1"]),
        ("[retry]\nmax_attempts = -3", "2:16", &["is -3", "from 1"]),
        ("[retry]\nmax_attempts = 99999999999", "2:16", &["too many"]),
        ("[retry]\nbase_delay = 500", "2:14", &["without a unit", "\"500ms\""]),
        ("[retry]\nbase_delay = \"30s\"\nmax_delay = \"20s\"", "3:13", &["less than base_delay"]),
        ("[retry]\nbase_delay = \"30s\"", "2:14", &["max_delay is 20s, less than base_delay"]),
        ("[retry]\non_open = \"explode\"", "2:11", &["explode", "\"wait\"", "\"fail\""]),
        ("[timeout]\nidle = \"0s\"", "2:8", &["no time at all"]),
        ("[timeout]\nidle = 0", "2:8", &["is 0", "\"500ms\""]),
        ("[timeout]\nidle = \"-5s\"", "2:8", &["negative"]),
        ("[timeout]\nidle = \"5 parsecs\"", "2:8", &["not a duration", "\"500ms\""]),
        ("[timeout]\nidle = 00:01:00", "2:8", &["a date or time", "\"500ms\""]),
        (
            "[timeout]\ntotal = \"60s\"\nattempt = \"61s\"",
            "3:11",
            &["attempt is 1m 1s, longer than total, which is 1m"],
        ),
        ("[timeout]\nfirst_event = \"5m\"", "2:15", &["first_event is 5m, longer than total, which is 4m 45s"]),
        // Keys.
        ("", "1:1", &["[[keys]]", "env:GEMINI_API_KEY", "emulator"]),
        ("[[keys]]\nname = \"a\"", "1:1", &["[[keys]] has no key", "env:GEMINI_API_KEY"]),
        ("[[keys]]\nkey = \"env:NO_SUCH_KEY\"", "2:7", &["NO_SUCH_KEY is not set", "export NO_SUCH_KEY"]),
        ("[[keys]]\nkey = \"\"", "2:7", &["the key is empty"]),
        // Syntax.
        ("listen = ", "1:10", &["string values must be quoted"]),
        ("[retry]\n[retry]", "2:2", &["duplicate key"]),
        ("max_body = \"1MB\"\nmax_body = \"1MB\"", "2:1", &["duplicate key"]),
    ] {
        refused_at(settings, place, says).await;
    }
}

#[tokio::test]
async fn all_mistakes_are_shown_at_once_and_no_key_is() {
    let wrong = "listen = 1\nmax_body = 0\n[[keys]]\nkey = \"AIza a secret\"\nnam = \"x\"\n[timeout]\ntotal = 5\n";
    let (code, said) = refused(wrong).await;
    let places: Vec<_> = said.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(code, Some(2));
    assert_eq!(places, ["relay.toml:1:10", "relay.toml:2:12", "relay.toml:4:7", "relay.toml:5:1", "relay.toml:7:9"]);
    assert!(!said.contains("AIza") && !said.contains("secret"), "{said}");
}

#[tokio::test]
async fn an_address_in_use_is_a_failure_that_says_so() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let (code, said) = refused(&format!("listen = \"{address}\"\nupstream = \"emulator\"")).await;
    assert_eq!(code, Some(1));
    assert!(said.contains(&format!("cannot listen on {address}")), "{said}");
}

// --- requests and answers on their way ---

/// Starts an upstream that records every request, and answers with `answer`.
async fn recorder<A>(answer: impl Fn() -> A + Clone + Send + Sync + 'static) -> (SocketAddr, Arc<Mutex<Vec<Received>>>)
where
    A: IntoResponse + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let arrived = Arc::new(Mutex::new(Vec::new()));
    let write = Arc::clone(&arrived);
    let app = Router::new().fallback(move |request: Received| {
        let (write, answer) = (Arc::clone(&write), answer.clone());
        async move {
            write.lock().push(request);
            answer()
        }
    });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (address, arrived)
}

#[tokio::test]
async fn the_callers_own_credentials_never_go_upstream() {
    let (upstream, arrived) = recorder(|| "{}").await;
    let relay = Relay::start(&settings(&format!("http://{upstream}"))).await;
    let secret = "secret-of-the-caller";
    for (path, goes_as) in [
        ("/v1beta/files", ("x-goog-api-key", "key-of-the-relay")),
        ("/v1beta/openai/models", ("authorization", "Bearer key-of-the-relay")),
    ] {
        let query = format!(
            "key={secret}&pageSize=2&access_token={secret}&%6Bey={secret}&KEY={secret}&oauth_token={secret}\
             &%24httpHeaders=Authorization:{secret}&monkey=1&key"
        );
        let request = Request::get(format!("{path}?{query}"))
            .header("authorization", format!("Bearer {secret}"))
            .header("x-goog-api-key", secret)
            .header("x-goog-api-key", format!("{secret}-2"))
            .header("cookie", format!("session={secret}"))
            .header("proxy-authorization", format!("Basic {secret}"))
            .header("x-goog-api-client", "genai-js/1.0");
        send(&relay, request.body(Full::default()).unwrap()).await;

        let arrived = arrived.lock().pop().unwrap();
        assert_eq!(arrived.uri().to_string(), format!("{path}?pageSize=2&monkey=1"));
        assert!(!format!("{:?}", arrived.headers()).contains(secret), "{:?}", arrived.headers());
        let names = ["authorization", "x-goog-api-key", "cookie", "proxy-authorization"];
        let credentials =
            names.iter().flat_map(|name| arrived.headers().get_all(*name).iter().map(move |v| (*name, v)));
        assert_eq!(credentials.collect::<Vec<_>>(), [(goes_as.0, &goes_as.1.parse().unwrap())]);
        assert_eq!(arrived.headers()["x-goog-api-client"], "genai-js/1.0", "the rest goes on");
    }
    send(&relay, Request::get(format!("/v1beta/files?key={secret}")).body(Full::default()).unwrap()).await;
    assert_eq!(arrived.lock().pop().unwrap().uri(), "/v1beta/files");
}

#[tokio::test]
async fn what_belongs_to_one_connection_stays_with_it_both_ways() {
    let (upstream, arrived) = recorder(|| {
        let headers = [("connection", "x-inside"), ("x-inside", "1"), ("keep-alive", "timeout=9"), ("x-outside", "2")];
        (headers, "{}")
    })
    .await;
    let relay = Relay::start(&settings(&format!("http://{upstream}"))).await;
    let request = Request::get("/v1beta/files")
        .header("connection", "keep-alive, X-Mine")
        .header("x-mine", "1")
        .header("keep-alive", "timeout=9")
        .header("te", "trailers")
        .header("proxy-connection", "keep-alive")
        .header("x-theirs", "2");
    let response = send(&relay, request.body(Full::default()).unwrap()).await;

    let arrived = arrived.lock().pop().unwrap();
    let has =
        |headers: &HeaderMap, names: &[&str]| names.iter().map(|name| headers.contains_key(*name)).collect::<Vec<_>>();
    assert_eq!(
        has(arrived.headers(), &["x-mine", "keep-alive", "te", "proxy-connection", "x-theirs"]),
        [false, false, false, false, true]
    );
    assert_eq!(has(response.headers(), &["x-inside", "keep-alive", "x-outside"]), [false, false, true]);
    assert_eq!(arrived.headers()["host"], upstream.to_string());
}

#[tokio::test]
async fn unknown_paths_pass_through() {
    let (upstream, arrived) =
        recorder(|| (StatusCode::IM_A_TEAPOT, [("x-kind", "earl grey")], "short and stout")).await;
    let relay = Relay::start(&settings(&format!("http://{upstream}/base"))).await;
    let request = Request::patch("/some/thing%20else?a=b&a=c").body(Full::from("as it is")).unwrap();
    let response = send(&relay, request).await;
    assert_eq!(
        (response.status(), &response.headers()["x-kind"]),
        (StatusCode::IM_A_TEAPOT, &"earl grey".parse().unwrap())
    );
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "short and stout");
    let arrived = arrived.lock().pop().unwrap();
    assert_eq!(
        (arrived.method().as_str(), arrived.uri().to_string().as_str()),
        ("PATCH", "/base/some/thing%20else?a=b&a=c")
    );
}

#[tokio::test]
async fn an_upload_goes_on_through_the_relay() {
    let session =
        "https://generativelanguage.googleapis.com/upload/v1beta/files?upload_id=42&key=AIza&upload_protocol=resumable";
    // The older protocol has the address in `Location`.
    for header in ["x-goog-upload-url", "location"] {
        let (upstream, _) = recorder(move || ([(header, session), ("x-goog-upload-status", "active")], "")).await;
        let relay = Relay::start(&settings(&format!("http://{upstream}"))).await;
        let start = || Request::post("/upload/v1beta/files").header("x-goog-upload-command", "start");
        let rest = "/upload/v1beta/files?upload_id=42&upload_protocol=resumable";

        let response = send(&relay, start().body(Full::default()).unwrap()).await;
        assert_eq!(response.headers()[header], format!("{}{rest}", relay.uri()));

        for (forwarded, scheme) in [
            ("https", "https"),
            ("HTTPS", "https"),
            ("https,http", "https"),
            (" https , http", "https"),
            ("http, https", "http"),
            ("httpsx", "http"),
        ] {
            let behind_proxies = start().header("x-forwarded-proto", forwarded);
            let response = send(&relay, behind_proxies.body(Full::default()).unwrap()).await;
            assert_eq!(response.headers()[header], format!("{scheme}://{}{rest}", relay.address()), "{forwarded}");
        }
    }
    // Other addresses are not handed on.
    let (upstream, _) = recorder(|| (StatusCode::FOUND, [("location", "https://elsewhere/x")], "")).await;
    let relay = Relay::start(&settings(&format!("http://{upstream}"))).await;
    let response = send(&relay, Request::get("/v1beta/x").body(Full::default()).unwrap()).await;
    assert_eq!((response.status(), response.headers().get("location")), (StatusCode::FOUND, None));
}

#[tokio::test]
async fn the_upstream_sees_nothing_of_the_signature_of_an_upload() {
    const SESSION: &str = "/upload/v1beta/files?upload_id=42&upload_protocol=resumable";
    // The older protocol has the address in `Location`, and sends the parts with PUT.
    for (header, method) in [("x-goog-upload-url", "POST"), ("location", "PUT")] {
        let session = format!("https://generativelanguage.googleapis.com{SESSION}");
        let (upstream, arrived) = recorder(move || ([(header, session.clone())], "")).await;
        let relay =
            Relay::start(&format!("client_tokens = [\"token\"]\n{}", settings(&format!("http://{upstream}")))).await;
        let start = Request::post("/upload/v1beta/files").header("authorization", "Bearer token");
        let response =
            send(&relay, start.header("x-goog-upload-command", "start").body(Full::default()).unwrap()).await;
        let url = response.headers()[header].to_str().unwrap().to_owned();
        let signed = url.strip_prefix(&format!("{}{SESSION}&", relay.uri())).unwrap_or_else(|| panic!("{url}"));
        assert!(signed.starts_with("relay_signature=") && signed.len() > 64, "{url}");
        let path = url.strip_prefix(&relay.uri()).unwrap();
        for (path, token) in
            [(path.to_owned(), None), (path.to_owned(), Some("token")), (format!("{path}&key=token"), None)]
        {
            let part = Request::builder().method(method).uri(&path);
            let part = token.into_iter().fold(part, |part, token| part.header("x-goog-api-key", token));
            let response = send(&relay, part.body(Full::from("some notes")).unwrap()).await;
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert_eq!(arrived.lock().pop().unwrap().uri(), SESSION, "{path}");
        }
    }
}

// --- answers instead of errors, and clear errors ---

#[tokio::test]
async fn callers_see_an_answer_where_the_upstream_was_overloaded_twice() {
    let emulator =
        Emulator::builder().key("key-of-the-relay", "p").trouble(When::first(2), Trouble::overloaded()).build();
    let server = emulator.serve().await.unwrap();
    let relay = Relay::start(&settings(&server.uri())).await;
    let (status, answer) = post(&relay, GENERATE, PROMPT).await;
    assert_eq!((status, answered(&answer)), (StatusCode::OK, "You said: hello"));
    let seen: Vec<_> = emulator.journal().iter().map(|visit| visit.status.unwrap().as_u16()).collect();
    assert_eq!(seen, [503, 503, 200]);
}

#[tokio::test]
async fn max_attempts_is_obeyed_and_the_upstreams_own_error_comes_back() {
    for attempts in [2, 12] {
        let emulator = Emulator::builder().trouble(When::always(), Trouble::overloaded()).build();
        let server = emulator.serve().await.unwrap();
        let retry = format!("max_attempts = {attempts}\nmax_delay = \"2ms\"\n");
        let relay = Relay::start(&format!("{}{retry}", settings(&server.uri()))).await;
        let (status, answer) = post(&relay, GENERATE, PROMPT).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer["error"]["message"].as_str().unwrap().contains("overloaded"), "{answer}");
        assert_eq!(emulator.journal().len(), attempts);
    }
}

#[tokio::test]
async fn a_stream_is_handed_on_while_it_comes() {
    let emulator = Emulator::builder().trouble(When::always(), Trouble::stall(1)).build();
    let server = emulator.serve().await.unwrap();
    let relay = Relay::start(&settings(&server.uri())).await;
    let mut response = send(&relay, Request::post(STREAM).body(Full::from(PROMPT)).unwrap()).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let first = timeout(PATIENCE, response.frame()).await.expect("it was kept back").unwrap().unwrap();
    assert!(first.data_ref().unwrap().starts_with(b"data: {"), "{first:?}");

    drop(response);
    let gone = |visits: &[_]| matches!(visits, [visit] if { let visit: &tower_gemini::emulator::Visit = visit; visit.end == Some(End::DroppedInBody) });
    timeout(PATIENCE, emulator.wait_for(gone)).await.expect("the upstream was not let go");
}

#[tokio::test]
async fn malformed_json_gets_the_upstreams_own_verdict() {
    let emulator = Emulator::new();
    let server = emulator.serve().await.unwrap();
    let relay = Relay::start(&settings(&server.uri())).await;
    let (status, answer) = post(&relay, GENERATE, "{\"contents\": [").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(answer["error"]["message"].as_str().unwrap().starts_with("Invalid JSON payload received"), "{answer}");
    assert_eq!(emulator.journal().len(), 1);
}

#[tokio::test]
async fn a_body_over_the_limit_gets_413_in_googles_shape_and_is_not_sent() {
    let emulator = Emulator::new();
    let server = emulator.serve().await.unwrap();
    let relay = Relay::start(&format!("max_body = \"64KiB\"\n{}", settings(&server.uri()))).await;
    let fits = "x".repeat(64 * 1024);
    let request = Request::post(GENERATE).body(Full::from(fits)).unwrap();
    assert_eq!(send(&relay, request).await.status(), StatusCode::BAD_REQUEST, "the upstream's verdict on what fits");
    assert_eq!(emulator.journal().len(), 1);

    // A caller that writes all of it before it reads must not find a broken pipe.
    for framing in ["content-length: 8388608", "transfer-encoding: chunked"] {
        let mut caller = TcpStream::connect(relay.address()).await.unwrap();
        let head = format!("POST {GENERATE} HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n{framing}\r\n\r\n");
        caller.write_all(head.as_bytes()).await.unwrap();
        let chunked = framing.ends_with("chunked");
        for _ in 0..8 {
            let piece = "x".repeat(1 << 20);
            let piece = if chunked { format!("{:x}\r\n{piece}\r\n", piece.len()) } else { piece };
            timeout(PATIENCE, caller.write_all(piece.as_bytes())).await.expect("nobody reads it").unwrap();
        }
        if chunked {
            caller.write_all(b"0\r\n\r\n").await.unwrap();
        }
        let mut answer = String::new();
        timeout(PATIENCE, caller.read_to_string(&mut answer)).await.expect("no answer").unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 413 "), "{framing}: {head}");
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error"]["code"], json!(413), "{body}");
        assert!(body["error"]["message"].as_str().unwrap().contains("65536"), "{body}");
    }
    assert_eq!(emulator.journal().len(), 1, "nothing more was sent");
}

#[tokio::test]
async fn a_bad_header_is_400() {
    let emulator = Emulator::new();
    let server = emulator.serve().await.unwrap();
    let relay = Relay::start(&settings(&server.uri())).await;
    for header in ["x-server-timeout: soon", "bad name: 1", "content-length: many", "x-value: a\u{1}b"] {
        let mut caller = TcpStream::connect(relay.address()).await.unwrap();
        let request = format!("GET /v1beta/models HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n{header}\r\n\r\n");
        caller.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, caller.read_to_end(&mut answer)).await.expect("no answer").unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{header}: {}", String::from_utf8_lossy(&answer));
    }
    assert!(emulator.journal().is_empty());
}

#[tokio::test]
async fn an_unreachable_upstream_is_a_503_that_says_so() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let relay = Relay::start(&format!("{}max_attempts = 2\n", settings(&format!("http://{nobody}")))).await;
    let (status, answer) = post(&relay, GENERATE, PROMPT).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer["error"]["status"], "UNAVAILABLE");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("cannot be reached"), "{answer}");
}

#[tokio::test]
async fn errors_on_openais_surface_have_the_shape_that_is_set() {
    let chat = r#"{"model": "gemini-2.5-flash", "messages": [{"role": "user", "content": "hello"}]}"#;
    for (setting, is_list) in
        [("", false), ("openai_errors = \"objects\"\n", false), ("openai_errors = \"google\"\n", true)]
    {
        let emulator = Emulator::builder().key("key-of-the-relay", "p1").build();
        emulator.trouble(When::always(), Trouble::overloaded());
        let server = emulator.serve().await.unwrap();
        let relay = Relay::start(&format!("{setting}{}max_attempts = 1\n", settings(&server.uri()))).await;
        let (status, answer) = post(&relay, "/v1beta/openai/chat/completions", chat).await;
        assert_eq!((status, answer.is_array()), (StatusCode::SERVICE_UNAVAILABLE, is_list), "{setting}{answer}");
        let error = if is_list { &answer[0]["error"] } else { &answer["error"] };
        assert!(error["message"].as_str().is_some_and(|message| message.contains("overloaded")), "{answer}");
        // Google's own surface has one shape.
        let (_, answer) = post(&relay, GENERATE, PROMPT).await;
        assert_eq!(answer["error"]["status"], "UNAVAILABLE", "{answer}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_ends_as_it_is_set() {
    for (setting, says, breaks) in [
        ("", true, true),
        ("stream_ending = \"event_and_break\"\n", true, true),
        ("stream_ending = \"event\"\n", true, false),
        ("stream_ending = \"break\"\n", false, true),
    ] {
        let emulator = Emulator::builder().key("key-of-the-relay", "p1").build();
        emulator.trouble(When::always(), Trouble::cut(1));
        let server = emulator.serve().await.unwrap();
        let relay = Relay::start(&format!("{setting}{}", settings(&server.uri()))).await;
        let mut body = send(&relay, Request::post(STREAM).body(Full::from(PROMPT)).unwrap()).await.into_body();
        let (mut all, mut broke) = (String::new(), false);
        while let Some(frame) = timeout(PATIENCE, body.frame()).await.expect("no end") {
            match frame {
                Ok(frame) => all.push_str(&String::from_utf8_lossy(&frame.into_data().unwrap_or_default())),
                Err(_) => broke = true,
            }
        }
        assert!(all.contains("\"candidates\""), "{setting}{all}");
        assert_eq!((all.contains("\"error\""), broke), (says, breaks), "{setting}{all}");
    }
}

#[tokio::test]
async fn how_errors_are_told_is_shown_by_a_check_and_mistakes_have_their_place() {
    let google = "upstream = \"emulator\"\nopenai_errors = \"google\"\nstream_ending = \"event\"\n";
    let (code, said, _) = checked(google).await;
    let line = "errors          Google's lists on OpenAI's surface; a stream that breaks ends in an error event and a clean end";
    assert!(code == Some(0) && said.lines().any(|each| each == line), "{said}");
    let (_, said, _) = checked("upstream = \"emulator\"").await;
    assert!(!said.contains("\nerrors ") && !said.starts_with("errors "), "{said}");
    refused_at("openai_errors = \"openai\"", "1:17", &["\"openai\"", "\"objects\", \"google\""]).await;
    refused_at("stream_ending = true", "1:17", &["\"event_and_break\", \"event\", \"break\""]).await;
    refused_at("[timeout]\nstream_ending = \"event\"", "2:1", &["belongs above all sections"]).await;
}

#[tokio::test]
async fn a_hung_upstream_is_a_504_that_names_the_clock() {
    let emulator = Emulator::builder().trouble(When::always(), Trouble::hang()).build();
    let server = emulator.serve().await.unwrap();
    let timeouts = "max_attempts = 1\n[timeout]\nattempt = \"100ms\"\n";
    let relay = Relay::start(&format!("{}{timeouts}", settings(&server.uri()))).await;
    let (status, answer) = post(&relay, GENERATE, PROMPT).await;
    assert_eq!((status, &answer["error"]["status"]), (StatusCode::GATEWAY_TIMEOUT, &json!("DEADLINE_EXCEEDED")));
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("attempt") && message.contains("100ms"), "{message}");
}

// --- the end ---

#[tokio::test]
async fn told_to_end_it_finishes_what_is_in_flight() {
    let emulator = Emulator::builder().trouble(When::always(), Trouble::slow(Duration::from_millis(300))).build();
    let server = emulator.serve().await.unwrap();
    let mut relay = Relay::start(&settings(&server.uri())).await;
    let (answer, ()) = tokio::join!(post(&relay, GENERATE, PROMPT), async {
        emulator.wait_for(|visits| visits.len() == 1).await;
        relay.terminate().await;
        // Refused, or accepted by the system and never answered.
        while TcpStream::connect(relay.address()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    assert_eq!((answer.0, answered(&answer.1)), (StatusCode::OK, "You said: hello"));
    assert_eq!(relay.ended().await.code(), Some(0));
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_it_up_and_a_second_signal_ends_at_once() {
    let emulator = Emulator::builder().trouble(When::always(), Trouble::hang()).build();
    let server = emulator.serve().await.unwrap();
    let mut relay = Relay::start(&settings(&server.uri())).await;
    let _idle = TcpStream::connect(relay.address()).await.unwrap();
    relay.terminate().await;
    assert_eq!(relay.ended().await.code(), Some(0));

    let mut relay = Relay::start(&settings(&server.uri())).await;
    let client: Client<Full<Bytes>> = Client::builder().base_url(relay.uri()).build().unwrap();
    let hangs = tokio::spawn(client.oneshot(Request::post(GENERATE).body(Full::from(PROMPT)).unwrap()));
    timeout(PATIENCE, emulator.wait_for(|visits| !visits.is_empty())).await.unwrap();
    relay.terminate().await;
    // Two signals at once are one to the system.
    while TcpStream::connect(relay.address()).await.is_ok() {
        tokio::task::yield_now().await;
    }
    relay.terminate().await;
    assert_eq!(relay.ended().await.code(), Some(1));
    assert!(hangs.await.unwrap().is_err());
}
