//! The relay between raw sockets: the headers that stay on one side, and heads that an HTTP library would not write.

#![cfg(unix)] // as tests/relay.rs, with which it shares the process's harness
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_process;

use std::{net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use relay_process::{PATIENCE, Relay};

const KEY: &str = "key-of-the-relay";
const FILES: &str = "/v1beta/files";

/// An upstream that answers each request with the same bytes, and keeps the heads of the requests.
struct Upstream {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Upstream {
    /// Starts an upstream whose connections end after an answer.
    async fn closing(answer: impl Into<String>) -> Self {
        Self::start(answer.into(), false).await
    }

    /// Starts an upstream whose connections stay open.
    async fn staying(answer: impl Into<String>) -> Self {
        Self::start(answer.into(), true).await
    }

    async fn start(answer: String, stays: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let keep = heads.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (keep, answer) = (keep.clone(), answer.clone());
                tokio::spawn(async move {
                    while let Some(head) = read_request(&mut stream).await {
                        keep.lock().push(head);
                        let _ = stream.write_all(answer.as_bytes()).await;
                        if !stays {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, heads }
    }

    fn settings(&self, more: &str) -> String {
        let retry = "[retry]\nbase_delay = \"1ms\"\nmax_delay = \"2ms\"\nmax_attempts = 2\n";
        format!("upstream = \"http://{}\"\n{more}[[keys]]\nkey = {KEY:?}\n{retry}", self.address)
    }

    async fn relay(&self) -> Relay {
        Relay::start(&self.settings("")).await
    }
}

/// Reads a request, and returns its head in small letters.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|end| end == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if read.len() >= end + 4 + length.map_or(0, |length| length.parse().unwrap()) {
                return Some(head);
            }
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
}

/// Sends bytes to the relay, and returns everything that comes back.
async fn send(relay: &Relay, request: &str) -> Answer {
    let mut stream = TcpStream::connect(relay.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("no end").unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{request:?}: {answer:?}"));
    let status = head.strip_prefix("HTTP/1.").and_then(|head| head.get(2..5)).unwrap_or_else(|| panic!("{head:?}"));
    Answer { status: status.parse().unwrap(), head: head.to_lowercase(), body: body.to_owned() }
}

async fn get(relay: &Relay, path: &str) -> Answer {
    send(relay, &format!("GET {path} HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n")).await
}

#[derive(Debug)]
struct Answer {
    status: u16,
    /// In small letters.
    head: String,
    /// As it came, with the sizes of its chunks.
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

// --- the headers of each side ---

#[tokio::test]
async fn an_upload_goes_on_through_a_gateway_whose_path_is_there_once() {
    let session = |base: &str| format!("http://gate{base}/upload/v1beta/files?upload_id=u1&upload_protocol=resumable");
    // It says that it closes, so that the relay does not send the next request over a connection that is about to end.
    let ends = "content-length: 0\r\nconnection: close\r\n\r\n";
    let answer = format!("HTTP/1.1 200 OK\r\nx-goog-upload-url: {}\r\n{ends}", session("/gate/a"));
    let upstream = Upstream::closing(answer).await;
    let settings =
        upstream.settings("").replacen(&upstream.address.to_string(), &format!("{}/gate/a/", upstream.address), 1);
    let relay = Relay::start(&settings).await;
    let post =
        |path: &str| format!("POST {path} HTTP/1.1\r\nhost: relay\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let begun = send(&relay, &post("/upload/v1beta/files")).await;
    let address = begun.header("x-goog-upload-url").unwrap_or_else(|| panic!("{begun:?}"));
    assert_eq!(address, session("").replace("//gate", "//relay"));
    send(&relay, &post(address.strip_prefix("http://relay").unwrap())).await;
    let lines: Vec<_> = upstream.heads.lock().iter().map(|head| head.lines().next().unwrap().to_owned()).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("post /gate/a/upload/v1beta/files http"), "{lines:?}");
    assert!(lines[1].starts_with("post /gate/a/upload/v1beta/files?upload_id=u1&"), "{lines:?}");
}

#[tokio::test]
async fn the_way_of_a_call_and_its_browser_stay_on_the_callers_side() {
    const STAY: [&str; 40] = [
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "X-Forwarded-User",
        "X-Forwarded-Client-Cert",
        "X-Original-Forwarded-For",
        "X-Original-Url",
        "X-Rewrite-Url",
        "Forwarded",
        "Via",
        "X-Real-IP",
        "X-Client-IP",
        "X-Cluster-Client-IP",
        "CF-Connecting-IP",
        "CF-Ray",
        "True-Client-IP",
        "Fastly-Client-IP",
        "Fly-Client-IP",
        "CDN-Loop",
        "X-Envoy-External-Address",
        "X-Azure-ClientIP",
        "X-Amzn-Trace-Id",
        "X-Goog-IAP-JWT-Assertion",
        "X-Goog-Authenticated-User-Email",
        "X-Auth-Request-Email",
        "Client-Cert",
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "Cookie",
        "Cookie2",
        "Referer",
        "Sec-Fetch-Site",
        "Sec-CH-UA-Platform",
        "Access-Control-Request-Headers",
        "X-Requested-With",
        "Upgrade-Insecure-Requests",
        "Max-Forwards",
        "Early-Data",
    ];
    let upstream = Upstream::closing("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    let relay = upstream.relay().await;
    let all: String = STAY.iter().map(|name| format!("{name}: of-the-caller\r\n")).collect();
    let request = format!(
        "POST {FILES}?$httpMethod=DELETE&a=b&%24httpmethod=of-the-caller HTTP/1.1\r\nHost: relay\r\n{all}\
         Origin: http://of-the-caller\r\nX-Goog-Api-Client: genai-js/1.0\r\nX-Theirs: 2\r\nContent-Type: application/json\r\n\
         Traceparent: 00-1-2-3\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
    );
    let answer = send(&relay, &request).await;

    assert_eq!(answer.status, 200, "{answer:?}");
    let head = upstream.heads.lock().pop().unwrap();
    assert!(!head.contains("of-the-caller"), "{head}");
    assert!(head.starts_with(&format!("post {FILES}?a=b http/1.1")), "{head}");
    for name in STAY.iter().chain(&["Origin"]) {
        assert!(!head.contains(&format!("\n{}: ", name.to_lowercase())), "{name} in {head}");
    }
    for passes in ["x-goog-api-client: genai-js/1.0", "x-theirs: 2", "content-type: application/json", "traceparent: "]
    {
        assert!(head.contains(passes), "no {passes} in {head}");
    }
}

#[tokio::test]
async fn an_origin_is_judged_before_it_is_taken_out() {
    let upstream = Upstream::closing("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    let relay = Relay::start(&upstream.settings("allowed_origins = [\"http://right.example\"]\n")).await;
    for (origin, status) in [("http://right.example", 200), ("http://wrong.example", 403)] {
        let request = format!(
            "POST {FILES} HTTP/1.1\r\nhost: relay\r\norigin: {origin}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"
        );
        assert_eq!(send(&relay, &request).await.status, status, "{origin}");
    }
    let heads = upstream.heads.lock();
    assert!(heads.len() == 1 && !heads[0].contains("origin"), "{heads:?}");
}

#[tokio::test]
async fn an_upstreams_word_on_its_own_address_is_not_handed_on() {
    const STAY: [&str; 21] = [
        "Location: https://elsewhere.example/x",
        "Content-Location: https://elsewhere.example/x",
        "Refresh: 0; url=https://elsewhere.example/x",
        "Link: <https://elsewhere.example/x>; rel=next",
        "Set-Cookie: a=b",
        "Set-Cookie2: a=b",
        "Alt-Svc: h3=\":443\"",
        "Strict-Transport-Security: max-age=31536000",
        "Public-Key-Pins: a",
        "Clear-Site-Data: \"*\"",
        "NEL: {}",
        "Report-To: {}",
        "Reporting-Endpoints: a=\"https://elsewhere.example\"",
        "Expect-CT: max-age=1",
        "Cross-Origin-Resource-Policy: same-origin",
        "Accept-CH: DPR",
        "Origin-Agent-Cluster: ?1",
        "Timing-Allow-Origin: *",
        "Access-Control-Allow-Origin: *",
        "Authentication-Info: a",
        "Service-Worker-Allowed: /",
    ];
    let all: String = STAY.iter().map(|line| format!("{line}\r\n")).collect();
    for (status, body) in [("200 OK", "{}"), ("302 Found", "{}"), ("308 Resume Incomplete", "")] {
        let rest =
            format!("X-Outside: 2\r\nServer-Timing: gfet4t7; dur=1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let upstream = Upstream::closing(format!("HTTP/1.1 {status}\r\n{all}{rest}")).await;
        let answer = get(&upstream.relay().await, FILES).await;
        assert!(status.starts_with(&answer.status.to_string()), "{answer:?}");
        for line in STAY {
            let name = line.split(':').next().unwrap().to_lowercase();
            assert_eq!(answer.header(&name), None, "{answer:?}");
        }
        assert_eq!((answer.header("x-outside"), answer.header("server-timing")), (Some("2"), Some("gfet4t7; dur=1")));
    }
}

#[tokio::test]
async fn no_header_with_a_key_of_the_relays_is_handed_on() {
    for with_key in [
        "x-debug: key-of-the-relay",
        "x-debug: seen <key-of-the-relay>",
        "x-debug: https://h/?key=%6bey-of%2Dthe-relay",
        "x-debug: https%3A%2F%2Fh%2F%3Fkey%3Dkey%252Dof%252Dthe%252Drelay",
        "x-goog-upload-url: https://h/upload/v1beta/files?upload_id=1&%6bey=key-of-the-relay",
        "x-key-of-the-relay: 1",
        "server: key-of-the-relay",
    ] {
        let rest = "x-outside: 2\r\ncontent-length: 2\r\n\r\n{}";
        let upstream = Upstream::closing(format!("HTTP/1.1 200 OK\r\n{with_key}\r\n{rest}")).await;
        let answer = get(&upstream.relay().await, FILES).await;
        assert_eq!((answer.status, answer.header("x-outside")), (200, Some("2")), "{answer:?}");
        let name = with_key.split(':').next().unwrap();
        assert_eq!(answer.header(name), None, "{answer:?}");
        assert!(!answer.head.contains(KEY), "{answer:?}");
    }
}

#[tokio::test]
async fn an_uploads_address_comes_through_without_the_key() {
    for name in ["x-goog-upload-url", "location"] {
        let url = format!("https://h.example/upload/v1beta/files?upload_id=1&key={KEY}&upload_protocol=resumable");
        let upstream =
            Upstream::closing(format!("HTTP/1.1 200 OK\r\n{name}: {url}\r\ncontent-length: 0\r\n\r\n")).await;
        let answer = get(&upstream.relay().await, FILES).await;
        let right = "http://relay/upload/v1beta/files?upload_id=1&upload_protocol=resumable";
        assert_eq!(answer.header(name), Some(right), "{answer:?}");
    }
}

// --- heads of answers ---

#[tokio::test]
async fn the_coding_of_an_answer_counts_and_not_its_length() {
    for length in [3, 500] {
        for framing in [
            format!("content-length: {length}\r\ntransfer-encoding: chunked"),
            format!("transfer-encoding: chunked\r\ncontent-length: {length}"),
        ] {
            let chunks = "8\r\n{\"a\": 1}\r\n0\r\n\r\n";
            let upstream = Upstream::staying(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{chunks}")).await;
            let answer = get(&upstream.relay().await, FILES).await;
            assert_eq!((answer.status, answer.header("content-length")), (200, None), "{framing}: {answer:?}");
            assert_eq!(answer.body, chunks, "{framing}");
        }
    }
}

#[tokio::test]
async fn a_length_that_is_said_several_times_is_said_once() {
    for length in ["content-length: 2\r\ncontent-length: 2", "content-length: 2, 2"] {
        let upstream = Upstream::staying(format!("HTTP/1.1 200 OK\r\n{length}\r\n\r\n{{}}")).await;
        let answer = get(&upstream.relay().await, FILES).await;
        assert_eq!((answer.status, &*answer.body), (200, "{}"), "{length}: {answer:?}");
        assert_eq!(answer.head.matches("content-length: 2").count(), 1, "{answer:?}");
        assert!(!answer.head.contains("2, 2"), "{answer:?}");
    }
    for length in ["content-length: 2\r\ncontent-length: 3", "content-length: many"] {
        let upstream = Upstream::closing(format!("HTTP/1.1 200 OK\r\n{length}\r\n\r\n{{}}")).await;
        assert_eq!(get(&upstream.relay().await, FILES).await.status, 503, "{length}");
    }
}

#[tokio::test]
async fn a_switch_of_protocols_is_an_upstream_that_is_broken() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nraw";
    let upstream = Upstream::staying(switch).await;
    let answer = get(&upstream.relay().await, FILES).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.contains("\"error\"") && !answer.body.contains("raw"), "{answer:?}");
    assert_eq!(upstream.heads.lock().len(), 2, "it is tried again");
}

#[tokio::test]
async fn informational_answers_are_passed_over() {
    let early = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nset-cookie: a=b\r\n\r\n";
    let upstream = Upstream::staying(format!("{early}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{{}}")).await;
    let answer = get(&upstream.relay().await, FILES).await;
    assert_eq!((answer.status, &*answer.body, answer.header("set-cookie")), (200, "{}", None), "{answer:?}");
}

#[tokio::test]
async fn an_answer_that_has_no_content_comes_without_it() {
    for (status, framing, rest) in [
        (205, "content-length: 5\r\n", "extra"),
        (205, "transfer-encoding: chunked\r\n", "5\r\nextra\r\n0\r\n\r\n"),
        (205, "", "extra"),
        (204, "content-length: 5\r\n", "extra"),
        (204, "transfer-encoding: chunked\r\n", "5\r\nextra\r\n0\r\n\r\n"),
    ] {
        let kind = "content-type: text/plain\r\n";
        let upstream = Upstream::closing(format!("HTTP/1.1 {status} Done\r\n{kind}{framing}\r\n{rest}")).await;
        let answer = get(&upstream.relay().await, FILES).await;
        assert_eq!((answer.status, &*answer.body), (status, ""), "{framing}: {answer:?}");
        let length = if status == 205 { Some("0") } else { None };
        assert_eq!((answer.header("content-length"), answer.header("transfer-encoding")), (length, None), "{answer:?}");
    }
}

#[tokio::test]
async fn bytes_behind_an_answer_are_no_other_calls_answer() {
    let evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    for status in ["204 No Content\r\ncontent-length: 42", "205 Reset Content\r\ncontent-length: 0"] {
        let upstream = Upstream::staying(format!("HTTP/1.1 {status}\r\n\r\n{evil}")).await;
        let relay = upstream.relay().await;
        for _ in 0..20 {
            let answer = get(&relay, FILES).await;
            assert!(status.starts_with(&answer.status.to_string()) && answer.body.is_empty(), "{answer:?}");
        }
    }
}

// --- heads of requests ---

#[tokio::test]
async fn a_method_that_the_api_has_not_is_405_in_the_callers_own_shape() {
    let upstream = Upstream::closing("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    let relay = upstream.relay().await;
    let tokens = Relay::start(&upstream.settings("client_tokens = [\"a-token-of-some-length\"]\n")).await;
    for relay in [&relay, &tokens] {
        for method in ["TRACE", "TRACK", "PROPFIND", "MKCOL", "PURGE", "get", "QUERY", "X"] {
            let answer = send(
                relay,
                &format!("{method} {FILES} HTTP/1.1\r\nhost: relay\r\nx-secret: mine\r\nconnection: close\r\n\r\n"),
            )
            .await;
            assert_eq!(answer.status, 405, "{method}: {answer:?}");
            assert_eq!(answer.header("allow"), Some("get, head, post, put, patch, delete, options"), "{answer:?}");
            assert!(
                answer.body.starts_with("{\"error\":{\"code\":405,") && !answer.body.contains("mine"),
                "{answer:?}"
            );
        }
    }
    for target in ["upstream.example:443", "relay:80"] {
        let answer =
            send(&relay, &format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\nconnection: close\r\n\r\n")).await;
        assert_eq!(answer.status, 405, "{answer:?}");
    }
    let interaction = "TRACE /v1beta/interactions HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n";
    let answer = send(&relay, interaction).await;
    assert!(answer.status == 405 && !answer.body.contains("\"status\""), "{answer:?}");
    assert!(upstream.heads.lock().is_empty());
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let length = if ["POST", "PUT", "PATCH"].contains(&method) { "content-length: 0\r\n" } else { "" };
        let request = format!("{method} {FILES} HTTP/1.1\r\nhost: relay\r\n{length}connection: close\r\n\r\n");
        assert_eq!(send(&relay, &request).await.status, 200, "{method}");
    }
}

#[tokio::test]
async fn an_answer_to_a_head_has_the_length_that_a_get_would_have_or_none() {
    let upstreams = [("", None), ("content-length: 2\r\n", Some("2")), ("transfer-encoding: chunked\r\n", None)];
    for (length, expected) in upstreams {
        let upstream = Upstream::closing(format!("HTTP/1.1 200 OK\r\n{length}connection: close\r\n\r\n")).await;
        for more in ["", "keep_alive = \"15s\"\n"] {
            let relay = Relay::start(&upstream.settings(more)).await;
            for of_page in ["", "origin: http://page\r\n"] {
                let head = format!("HEAD {FILES} HTTP/1.1\r\nhost: relay\r\n{of_page}connection: close\r\n\r\n");
                let answer = send(&relay, &head).await;
                let seen = (answer.status, answer.header("content-length"), &*answer.body);
                assert_eq!(seen, (200, expected, ""), "{length:?} {more:?} {of_page:?}: {answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_request_has_one_host() {
    let upstream = Upstream::closing("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    let relay = upstream.relay().await;
    for path in [FILES, "/v1beta/openai/models", "/healthz", "/readyz"] {
        for (version, hosts, status) in [
            ("1.1", "", 400),
            ("1.1", "host: relay\r\nhost: relay\r\n", 400),
            ("1.1", "host: relay\r\nx-a: b\r\nHost: other\r\n", 400),
            ("1.1", "host:\r\n", 400),
            ("1.1", "host: relay, other\r\n", 400),
            ("1.1", "host: user@relay\r\n", 400),
            ("1.1", "host: relay/x\r\n", 400),
            ("1.0", "host: relay\r\nhost: other\r\n", 400),
            ("1.0", "", 200),
            ("1.1", "host: relay\r\n", 200),
            ("1.1", "host: [::1]:8787\r\n", 200),
        ] {
            let answer = send(&relay, &format!("GET {path} HTTP/{version}\r\n{hosts}connection: close\r\n\r\n")).await;
            assert_eq!(answer.status, status, "{path} {version} {hosts:?}: {answer:?}");
        }
    }
    assert!(upstream.heads.lock().iter().all(|head| head.contains(&format!("host: {}", upstream.address))));
}
