//! Pages in headless Chromium call the relay from another origin, with `fetch` and with Google's SDK.

#![cfg(unix)] // as tests/relay.rs, with which it shares the process's harness
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_page;
mod relay_process;

use std::{env, fs, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{Html, IntoResponse},
    routing::{get, post},
};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc},
    time::timeout,
};
use tower_gemini::emulator::{Emulator, Server, Trouble, When};

use relay_page::Page;
use relay_process::{PATIENCE, Relay};

/// The page. The SDK's build for browsers imports p-retry by its bare name, and calls it only where retries are wanted.
const PAGE: &str = r#"<!doctype html><meta charset="utf-8">
<script type="importmap">{"imports": {"@google/genai": "/sdk.mjs", "p-retry": "/no-retries.mjs"}}</script>
<script type="module">
const report = (body) => fetch('/report', { method: 'POST', body: JSON.stringify(body) });
const script = new URLSearchParams(location.search).get('script');
import(script).then(({ run }) => run()).then(report, (error) => report({ thrown: String(error?.stack ?? error) }));
</script>"#;

const NO_RETRIES: &str = "export default (call) => call(); export class AbortError extends Error {}";

/// A server of pages, and their reports.
struct Pages {
    address: SocketAddr,
    reports: mpsc::Receiver<Value>,
}

impl Pages {
    async fn serve() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, reports) = mpsc::channel(8);
        let script = |text: String| async { ([(CONTENT_TYPE, "text/javascript")], text).into_response() };
        let sdk = || async move {
            let sdk = fs::read_to_string(installed("node/node_modules/@google/genai/dist/web/index.mjs")).unwrap();
            ([(CONTENT_TYPE, "text/javascript")], sdk)
        };
        let app = Router::new()
            .route("/", get(async || Html(PAGE)))
            .route("/fetch.mjs", get(move || script(include_str!("browser/fetch.mjs").to_owned())))
            .route("/genai.mjs", get(move || script(include_str!("browser/genai.mjs").to_owned())))
            .route("/no-retries.mjs", get(move || script(NO_RETRIES.to_owned())))
            .route("/sdk.mjs", get(sdk))
            .route("/report", post(take))
            .with_state(Arc::new(Mutex::new(sender)));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, reports }
    }

    /// Opens the page at an origin of this server in a browser, and returns its report.
    async fn open(&mut self, origin: &str, script: &str, relay: &Relay, token: &str) -> Value {
        let url = format!("{origin}/?script=/{script}&relay={}&token={token}", relay.uri());
        let page = Page::open(&url).await;
        let report = timeout(4 * PATIENCE, self.reports.recv()).await;
        page.close().await;
        report.unwrap_or_else(|_| panic!("{url} reports nothing")).unwrap()
    }

    /// Returns two origins of the server.
    fn origins(&self) -> [String; 2] {
        ["127.0.0.1", "localhost"].map(|host| format!("http://{host}:{}", self.address.port()))
    }
}

async fn take(State(reports): State<Arc<Mutex<mpsc::Sender<Value>>>>, report: String) -> Json<()> {
    reports.lock().await.send(serde_json::from_str(&report).unwrap()).await.unwrap();
    Json(())
}

/// Returns the folder of `.ci/sdk-setup`: `target/sdk`, seen from a test in `target/debug/deps`.
fn installed(path: &str) -> PathBuf {
    env::current_exe().unwrap().ancestors().nth(3).unwrap().join("sdk").join(path)
}

/// Starts a relay with these settings at the top level, before an emulator that is overloaded for one prompt and stalls
/// at another.
async fn start(top: &str) -> (Emulator, Server, Relay) {
    let emulator = Emulator::builder()
        .key("key-of-the-relay", "p1")
        .trouble(When::prompt_contains("overload"), Trouble::overloaded().hint(Duration::from_secs(7)))
        .trouble(When::prompt_contains("then stall"), Trouble::stall(1))
        .build();
    let server = emulator.serve().await.unwrap();
    let relay = Relay::start(&format!(
        "upstream = {:?}\n{top}[[keys]]\nkey = \"key-of-the-relay\"\n[retry]\nmax_attempts = 1\n\
         [limits.\"gemini-2.5-pro\"]\nrpm = 1\nmax_wait = \"0s\"\n",
        server.uri()
    ))
    .await;
    (emulator, server, relay)
}

fn text(answer: &Value) -> &str {
    answer["body"]["candidates"][0]["content"]["parts"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

fn seconds(answer: &Value) -> u64 {
    answer["retryAfter"].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no hint: {answer}"))
}

#[tokio::test]
#[ignore = "needs Chromium; .ci/run runs it"]
async fn a_page_of_another_origin_reads_answers_streams_and_errors_with_their_hints() {
    let mut pages = Pages::serve().await;
    let [page, other] = pages.origins();
    // Without tokens, every page may call; with them, those that are named.
    for (top, token) in
        [(String::new(), ""), (format!("client_tokens = [\"token\"]\nallowed_origins = [{page:?}]\n"), "token")]
    {
        let (emulator, _server, relay) = start(&top).await;
        let seen = pages.open(&page, "fetch.mjs", &relay, token).await;
        assert_eq!((&seen["answer"]["status"], text(&seen["answer"])), (&200.into(), "You said: hello"), "{seen}");
        assert!(seen["first"].as_str().unwrap_or_default().starts_with("data: {"), "{seen}");
        assert_eq!(seen["stream"], "You said: stream this", "{seen}");
        let overloaded = &seen["overloaded"];
        assert_eq!((&overloaded["status"], seconds(overloaded)), (&503.into(), 7), "{seen}");
        assert!(overloaded["body"]["error"]["message"].as_str().unwrap().contains("overloaded"), "{seen}");
        let [once, twice] = [&seen["limited"][0], &seen["limited"][1]];
        assert_eq!((&once["status"], &twice["status"]), (&200.into(), &429.into()), "{seen}");
        assert!((1..=61).contains(&seconds(twice)), "{seen}");
        if !token.is_empty() {
            assert_eq!(seen["stranger"]["status"], 401, "{seen}");
            let message = seen["stranger"]["body"]["error"]["message"].as_str().unwrap();
            assert!(message.contains("token"), "{message}");

            // A page of another origin, with the same token, reads nothing and spends nothing.
            let before = emulator.journal().len();
            let seen = pages.open(&other, "fetch.mjs", &relay, token).await;
            for call in ["answer", "first", "stream", "overloaded", "stranger"] {
                assert!(
                    seen[call]["failed"].as_str().is_some_and(|error| error.contains("TypeError")),
                    "{call}: {seen}"
                );
            }
            assert_eq!(emulator.journal().len(), before, "{:#?}", emulator.journal());
        }
    }
}

#[tokio::test]
#[ignore = "needs Chromium; .ci/run runs it"]
async fn a_page_that_may_not_call_spends_nothing_of_a_relay_without_tokens() {
    let mut pages = Pages::serve().await;
    let [page, other] = pages.origins();
    let (emulator, _server, relay) = start(&format!("allowed_origins = [{page:?}]\n")).await;
    let seen = pages.open(&other, "fetch.mjs", &relay, "").await;
    assert!(seen["answer"]["failed"].is_string(), "{seen}");
    assert!(emulator.journal().is_empty(), "{:#?}", emulator.journal());
    let seen = pages.open(&page, "fetch.mjs", &relay, "").await;
    assert_eq!(text(&seen["answer"]), "You said: hello", "{seen}");
}

#[tokio::test]
#[ignore = "needs Chromium and Google's SDK; .ci/run runs it"]
async fn googles_sdk_in_a_page_answers_streams_fails_and_uploads() {
    let mut pages = Pages::serve().await;
    let [page, _] = pages.origins();
    let (emulator, _server, relay) =
        start(&format!("client_tokens = [\"token\"]\nallowed_origins = [{page:?}]\n")).await;
    let seen = pages.open(&page, "genai.mjs", &relay, "token").await;
    assert_eq!(
        (&seen["answer"], &seen["stream"]),
        (&"You said: hello".into(), &"You said: stream this".into()),
        "{seen}"
    );
    assert_eq!(seen["overloaded"]["status"], 503, "{seen}");
    assert!(seen["overloaded"]["message"].as_str().unwrap().contains("overloaded"), "{seen}");
    assert_eq!(
        (&seen["kept"]["size"], &seen["kept"]["state"]),
        (&((8 << 20) + 100).into(), &"ACTIVE".into()),
        "{seen}"
    );
    // An answer, a stream, a failure; the beginning of an upload, and its two parts.
    assert_eq!(emulator.journal().len(), 6, "{:#?}", emulator.journal());
}
