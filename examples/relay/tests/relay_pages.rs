//! Pages in a browser call the relay from other origins: their preflights, the answers and errors that they may read, and
//! the pages that may not call.

#![cfg(unix)] // as tests/relay.rs, with which it shares the process's harness
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_process;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::time::timeout;
use tower::ServiceExt;
use tower_gemini::{
    client::Client,
    emulator::{Emulator, Server, Trouble, When},
};

use relay_process::{PATIENCE, Relay, checked, refused_at};

const GENERATE: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
const PROMPT: &str = r#"{"contents": [{"parts": [{"text": "hello"}]}]}"#;
const PAGE: &str = "https://app.example.com";
const TOKENS: &str = "client_tokens = [\"token\"]\n";
const PAGES: &str = "allowed_origins = [\"http://localhost:5173\", \"https://app.example.com\"]\n";

/// Starts a relay with these settings at the top level, before an emulator.
async fn emulated(top: &str) -> (Emulator, Server, Relay) {
    let emulator = Emulator::builder().key("key-of-the-relay", "p1").build();
    let server = emulator.serve().await.unwrap();
    let relay = Relay::start_logging(&settings(&server, top), &[]).await;
    (emulator, server, relay)
}

fn settings(server: &Server, top: &str) -> String {
    format!("upstream = {:?}\n{top}[[keys]]\nkey = \"key-of-the-relay\"\n[retry]\nmax_attempts = 1\n", server.uri())
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.get_all(name).iter();
        let first = all.next();
        assert!(all.next().is_none() || name == "vary", "{name} twice: {:?}", self.headers);
        first.map(|value| value.to_str().unwrap())
    }

    /// Returns the origin whose pages may read the answer.
    fn readable_by(&self) -> Option<&str> {
        self.header("access-control-allow-origin")
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    fn says(&self, words: &str) {
        let text = String::from_utf8_lossy(&self.body);
        assert!(text.contains(words), "no {words:?} in {text}");
    }
}

async fn send(relay: &Relay, request: http::request::Builder, body: &'static str) -> Answer {
    let request = request.body(Full::from(body)).unwrap();
    let client: Client<Full<Bytes>> = Client::builder().base_url(relay.uri_of(request.uri().path())).build().unwrap();
    let answer = async {
        let (head, body) = client.oneshot(request).await.unwrap().into_parts();
        Answer { status: head.status.as_u16(), headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
    };
    timeout(PATIENCE, answer).await.expect("no answer")
}

fn preflight(path: &str, origin: &str) -> http::request::Builder {
    Request::options(path)
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type,x-goog-api-key,x-stainless-os")
}

/// Begins a call of a page.
fn call(path: &str, origin: &str, token: &str) -> http::request::Builder {
    let request = Request::post(path).header("origin", origin).header("sec-fetch-site", "cross-site");
    if token.is_empty() { request } else { request.header("x-goog-api-key", token) }
}

#[tokio::test]
async fn a_preflight_is_answered_without_a_token_and_without_the_upstream_and_is_no_call() {
    let (emulator, _server, relay) = emulated(&format!("{TOKENS}{PAGES}")).await;
    for path in [GENERATE, "/v1beta/models/gemini-2.5-flsh:generateContent", "/v1beta/openai/chat/completions", "/x"] {
        let answer = send(&relay, preflight(path, PAGE), "").await;
        assert_eq!((answer.status, answer.readable_by()), (200, Some(PAGE)), "{path}");
        assert_eq!(answer.header("access-control-allow-methods"), Some("POST"));
        let headers = answer.header("access-control-allow-headers").unwrap();
        assert_eq!(headers, "content-type,x-goog-api-key,x-stainless-os");
        assert!(answer.header("access-control-max-age").is_some());
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        assert!(answer.header("vary").unwrap().contains("origin"));
    }
    let private = preflight(GENERATE, PAGE).header("access-control-request-private-network", "true");
    let answer = send(&relay, private, "").await;
    assert_eq!(answer.header("access-control-allow-private-network"), Some("true"));

    assert!(emulator.journal().is_empty());
    let status = send(&relay, Request::get("/status"), "").await;
    assert_eq!(status.json()["failures"], Value::Array(Vec::new()));
    assert_eq!(status.readable_by(), None, "no page reads it");
    let metrics = send(&relay, Request::get("/metrics"), "").await;
    assert!(!String::from_utf8_lossy(&metrics.body).contains("tower_gemini_calls_total{"), "{:?}", metrics.body);
    let log = relay.said().await;
    assert!(!log.contains("relay::call"), "{log}");
}

#[tokio::test]
async fn a_page_may_read_answers_and_every_error_with_its_hints() {
    let top = format!("{TOKENS}{PAGES}max_body = \"64KiB\"\n");
    let limit = "[limits.\"gemini-2.5-pro\"]\nrpm = 1\nmax_wait = \"0s\"\n";
    let emulator = Emulator::builder().key("key-of-the-relay", "p1").build();
    let server = emulator.serve().await.unwrap();
    let relay = Relay::start(&format!("{}{limit}", settings(&server, &top))).await;
    emulator.trouble(When::prompt_contains("overload"), Trouble::overloaded());
    let pro = "/v1beta/models/gemini-2.5-pro:generateContent";
    let long: &str =
        Box::leak(format!(r#"{{"contents": [{{"parts": [{{"text": "{}"}}]}}]}}"#, "x".repeat(70_000)).into_boxed_str());
    let overload = r#"{"contents": [{"parts": [{"text": "overload"}]}]}"#;
    for (path, token, body, status) in [
        (GENERATE, "token", PROMPT, 200),
        ("/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", "token", PROMPT, 200),
        (pro, "token", PROMPT, 200),
        (pro, "token", PROMPT, 429),
        (GENERATE, "token", overload, 503),
        (GENERATE, "token", long, 413),
        (GENERATE, "", PROMPT, 401),
        (GENERATE, "wrong", PROMPT, 401),
        ("/v1beta/openai/chat/completions", "", "{}", 401),
        ("/v1beta/interactions", "", "{}", 401),
        ("/v1beta/models/gemini-2.5-flsh:generateContent", "token", PROMPT, 404),
        ("/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent", "token", "", 501),
        ("/no/such/thing", "token", "", 404),
    ] {
        let answer = send(&relay, call(path, PAGE, token), body).await;
        assert_eq!((answer.status, answer.readable_by()), (status, Some(PAGE)), "{path} {token:?}: {:?}", answer.body);
        let exposed = answer.header("access-control-expose-headers").unwrap().to_ascii_lowercase();
        for name in ["retry-after", "x-gemini-model", "x-should-retry", "x-goog-upload-url", "x-goog-upload-status"] {
            assert!(exposed.split(',').any(|each| each.trim() == name), "{name}: {exposed}");
        }
        assert!(answer.headers.get_all("vary").iter().any(|value| value == "origin"), "{:?}", answer.headers);
        if status == 401 {
            answer.says("this relay wants a token of its own");
        }
        assert!(status != 429 || answer.headers.contains_key("retry-after"), "{:?}", answer.headers);
    }
    // A request without an origin is nobody's page.
    let program = send(&relay, Request::post(GENERATE).header("x-goog-api-key", "token"), PROMPT).await;
    assert_eq!((program.status, program.readable_by()), (200, None));
}

#[tokio::test]
async fn a_page_of_an_origin_that_is_not_allowed_gets_nothing_that_it_can_read() {
    for top in
        [TOKENS.to_owned(), format!("{TOKENS}{PAGES}"), format!("{TOKENS}allowed_origins = []\n"), PAGES.to_owned()]
    {
        let (emulator, _server, relay) = emulated(&top).await;
        for stranger in
            ["https://evil.example", "https://app.example.com.evil.example", "http://app.example.com", "null"]
        {
            let answer = send(&relay, preflight(GENERATE, stranger), "").await;
            assert_eq!((answer.status, answer.readable_by()), (403, None), "{top} {stranger}");
            answer.says("allowed_origins");
            assert!(emulator.journal().is_empty());
            // A browser sends a body of plain text without a preflight.
            let answer = send(&relay, call(GENERATE, stranger, ""), PROMPT).await;
            let refusal = if top.contains("tokens") { 401 } else { 403 };
            assert_eq!((answer.status, answer.readable_by()), (refusal, None), "{top} {stranger}");
            assert!(emulator.journal().is_empty(), "it has cost quota");
        }
        // A browser does not say where a page is from if it does not trust the relay's address. With a token, nobody has to.
        let request =
            Request::post(GENERATE).header("origin", "https://evil.example").header("x-goog-api-key", "token");
        let answer = send(&relay, request, PROMPT).await;
        let status = if top.contains("tokens") { 200 } else { 403 };
        assert_eq!((answer.status, answer.readable_by()), (status, None), "{top}");
        for own in [relay.uri(), relay.uri().replace("http:", "https:")] {
            let request = Request::post(GENERATE).header("origin", own).header("x-goog-api-key", "token");
            assert_eq!(send(&relay, request, PROMPT).await.status, 200, "{top}");
        }
        // A page behind the same proxy as the relay is of its origin, whatever the relay's own address.
        let request =
            Request::post(GENERATE).header("origin", "https://same.example").header("sec-fetch-site", "same-origin");
        let answer = send(&relay, request.header("x-goog-api-key", "token"), PROMPT).await;
        assert_eq!(answer.status, 200, "{top}");
        let status = send(&relay, Request::get("/status"), "").await;
        assert_eq!(status.json()["failures"], Value::Array(Vec::new()), "strangers could fill it");
    }
}

#[tokio::test]
async fn without_tokens_every_page_may_call_until_the_settings_name_some() {
    let (emulator, server, relay) = emulated("").await;
    let private = || preflight(GENERATE, PAGE).header("access-control-request-private-network", "true");
    let answer = send(&relay, private(), "").await;
    assert_eq!((answer.status, answer.readable_by()), (200, Some(PAGE)));
    assert_eq!(answer.header("access-control-allow-private-network"), None, "nobody has decided it");
    assert_eq!(send(&relay, call(GENERATE, PAGE, ""), PROMPT).await.readable_by(), Some(PAGE));
    assert_eq!(emulator.journal().len(), 1);
    relay.reload(&settings(&server, "allowed_origins = [\"http://localhost:5173\"]\n")).await;
    assert_eq!(send(&relay, private(), "").await.status, 403);
    let answer = send(&relay, preflight(GENERATE, "http://localhost:5173"), "").await;
    assert_eq!((answer.status, answer.readable_by()), (200, Some("http://localhost:5173")));
    relay.reload(&settings(&server, &format!("{TOKENS}allowed_origins = [\"*\"]\n"))).await;
    let answer = send(&relay, private(), "").await;
    assert_eq!((answer.status, answer.readable_by()), (200, Some(PAGE)));
    assert_eq!(answer.header("access-control-allow-private-network"), Some("true"));
    let answer = send(&relay, call(GENERATE, PAGE, ""), PROMPT).await;
    assert_eq!((answer.status, answer.readable_by()), (401, Some(PAGE)));
}

#[tokio::test]
async fn what_the_upstream_says_of_pages_is_replaced_by_the_relays_own() {
    let of_upstream = [
        ("access-control-allow-origin", "https://of.the.upstream"),
        ("access-control-allow-credentials", "true"),
        ("access-control-expose-headers", "x-of-the-upstream"),
        ("access-control-allow-private-network", "true"),
    ];
    let (emulator, _server, relay) = emulated(PAGES).await;
    let answer =
        of_upstream.iter().fold(http::Response::builder(), |answer, (name, value)| answer.header(*name, *value));
    emulator.trouble(When::always(), Trouble::response(answer.status(400).body("{}").unwrap()));
    for (origin, readable_by) in [(PAGE, Some(PAGE)), ("https://evil.example", None)] {
        let request = Request::post(GENERATE).header("origin", origin).header("sec-fetch-site", "same-origin");
        let answer = send(&relay, request, PROMPT).await;
        assert_eq!((answer.status, answer.readable_by()), (400, readable_by));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        assert_eq!(answer.header("access-control-allow-private-network"), None);
        assert!(!answer.header("access-control-expose-headers").unwrap_or_default().contains("of-the-upstream"));
    }
    // An OPTIONS that is no preflight is a call as any other.
    let before = emulator.journal().len();
    let options = Request::builder().method(Method::OPTIONS).uri(GENERATE).header("origin", PAGE);
    let answer = send(&relay, options, "").await;
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    assert_eq!(emulator.journal().len(), before + 1);
}

#[tokio::test]
async fn an_origin_that_no_browser_would_send_is_a_mistake_with_the_right_one() {
    let settings = |origins: &str| format!("upstream = \"emulator\"\nallowed_origins = {origins}\n");
    for (origins, place, says) in [
        (r#"["https://a.example", "https://A.example/"]"#, "2:41", "write \"https://a.example\""),
        (r#"["localhost:3000"]"#, "2:20", "has no scheme"),
        (r#"["null"]"#, "2:20", "sandboxed"),
        (r#"["*", "https://a.example"]"#, "2:19", "alone"),
        (r#"["https://*.example.com"]"#, "2:20", "wildcard"),
        (r#""https://a.example""#, "2:19", "a list of origins"),
        ("[1]", "2:20", "a list of origins"),
    ] {
        refused_at(&settings(origins), place, &["allowed_origins: ", says]).await;
    }
    for (origins, says) in [
        ("[]", "of no other origin may call"),
        (r#"["*"]"#, "of every origin may call"),
        (r#"["https://a.example", "http://localhost:3000"]"#, "of https://a.example, http://localhost:3000 may call"),
    ] {
        let (code, said, mistakes) = checked(&settings(origins)).await;
        assert_eq!((code, said.lines().next()), (Some(0), Some(&*format!("pages           {says}"))), "{mistakes}");
    }
}
