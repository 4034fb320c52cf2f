//! Unmodified clients through the relay, and each way in which a call can end: the matrix of `clients/table.txt`.
//!
//! A failure has to be an error that the client's user notices, with its code where the client can carry one. No client
//! may take it for an answer, or show half an event. A second table counts the upstream's requests for one call.
//!
//! In the table, `ok` is the whole answer; a number or a word is the code that the user finds on the error that was
//! thrown, and `error` one without a code; `(503)` stands only among the events, and is not thrown; `error!` ends a
//! process of Node that does not handle rejections, besides being thrown. A user is misled by `LOST` (a failure that
//! seems to be an answer), `+HALF` (text of an event that was cut), `WRONG`, `FAILED`, `FORGOT` (a chat's history) and
//! `HANG`: these fail whatever the table says.
//!
//! `.ci/sdk-setup` installs the clients under `target/sdk`. One that is not installed is skipped, and named, unless it
//! is one of Google's or OpenAI's, or `TOWER_GEMINI_CLIENTS` is `all`. `TOWER_GEMINI_PYTHON`,
//! `TOWER_GEMINI_OLDER_PYTHON`, `TOWER_GEMINI_NODE` and `NODE_PATH` name other interpreters, and `TOWER_GEMINI_RELAY`
//! another relay to compare with.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "clients/process.rs"]
mod process;
mod relay_process;
#[path = "clients/table.rs"]
mod table;
#[path = "clients/upstream.rs"]
mod upstream;

use std::{env, time::Duration};

use futures_util::{StreamExt, future::join_all, stream};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use process::Script;
use relay_process::{Relay, checked};
use table::{Part, Table};
use upstream::{KEY, Upstream, prompt};

/// Those that take longest to be imported come first. Those on an older google-genai have an environment of their own.
const SCRIPTS: [Script; 12] = [
    Script::python("with_adk.py", "older", &["adk"]),
    Script::python("with_litellm.py", "venv", &["litellm"]),
    Script::python("with_llama_index.py", "older", &["llama-index"]),
    Script::python("with_genai.py", "venv", &["genai-py", "genai-py-async", "genai-py-interactions"]).required(),
    Script::python("with_langchain.py", "venv", &["langchain-google-genai"]),
    Script::python("with_pydantic_ai.py", "older", &["pydantic-ai"]),
    Script::node("with_genai.mjs", &["genai-js", "genai-js-interactions"]).required(),
    Script::node("with_genkit.mjs", &["genkit"]),
    Script::python("with_openai.py", "venv", &["openai-py"]).required(),
    Script::node("with_langchain.mjs", &["@langchain/google-genai", "@langchain/google"]),
    Script::node("with_ai.mjs", &["ai"]),
    Script::node("with_openai.mjs", &["openai-js"]).required(),
];

/// The rows of the table.
const CLIENTS: [&str; 16] = [
    "genai-py",
    "genai-py-async",
    "genai-js",
    "genai-py-interactions",
    "genai-js-interactions",
    "openai-py",
    "openai-js",
    "ai",
    "@langchain/google-genai",
    "@langchain/google",
    "langchain-google-genai",
    "genkit",
    "litellm",
    "pydantic-ai",
    "llama-index",
    "adk",
];

/// The clients whose chats have a history.
const CHATS: [&str; 3] = ["genai-py", "genai-py-async", "genai-js"];

/// The endings are those of `clients/upstream.rs`, and two of the relay's own: `limit` is its 429, and `open` the 503 of
/// its circuit breaker. Those that begin with `quiet-` are silent now and then, at a relay that has `keep_alive`.
const PARTS: [Part; 4] = [
    Part {
        way: "unary",
        title: "answers in one piece",
        endings: &[
            "good",
            "limit",
            "open",
            "503",
            "503-empty",
            "503-html",
            "reset",
            "early",
            "empty",
            "braces",
            "first",
            "list",
            "quiet-good",
            "quiet-503",
        ],
    },
    Part {
        way: "stream",
        title: "streams",
        endings: &[
            "good",
            "limit",
            "open",
            "503",
            "503-empty",
            "503-html",
            "reset",
            "early",
            "empty",
            "first",
            "list",
            "cut",
            "half",
            "half-long",
            "short",
            "told",
        ],
    },
    Part {
        way: "stream",
        title: "streams that are kept alive",
        endings: &[
            "quiet-good",
            "quiet-503",
            "quiet-503-empty",
            "quiet-early",
            "quiet-empty",
            "quiet-first",
            "quiet-cut",
            "quiet-half",
            "quiet-half-long",
            "quiet-short",
            "quiet-told",
        ],
    },
    Part { way: "chat", title: "chats that keep their history", endings: &["good", "quiet-good"] },
];

const MODEL: &str = "gemini-2.5-flash";
const LIMITED: &str = "gemini-2.5-flash-lite";
const BROKEN: &str = "gemini-2.5-pro";

/// Few attempts, and quick ones.
const QUICK: &str = r#"
    [retry]
    max_attempts = 2
    base_delay = "5ms"
    [breaker]
    enabled = false
"#;

/// A relay that refuses.
const GUARDED: &str = r#"
    [retry]
    max_attempts = 1
    on_open = "fail"
    [breaker]
    mode = "consecutive"
    open = "5m"
    max_open = "5m"
    [limits."gemini-2.5-flash-lite"]
    rpm = 1
    max_wait = "0s"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the clients, which .ci/run installs"]
async fn every_client_notices_every_failure() {
    let seen: Vec<_> = stream::iter(&SCRIPTS).map(matrix).buffer_unordered(4).collect().await;
    let seen = seen.into_iter().fold(Table::default(), |mut all, table| {
        all.extend(table);
        all
    });
    println!("{}", seen.print(&CLIENTS, &PARTS));
    let faults = seen.faults(&Table::read(include_str!("clients/table.txt"), &PARTS));
    assert!(faults.is_empty(), "{} cells are wrong:\n{}", faults.len(), faults.join("\n"));
}

/// Runs all cells of a script's clients.
async fn matrix(script: &Script) -> Table {
    let (mut table, began) = (Table::default(), Instant::now());
    let Some(ready) = script.start().await else { return table };
    let imported = began.elapsed();
    let upstream = Upstream::start().await;
    let (quick, guarded) = (relay(&upstream, "", QUICK).await, relay(&upstream, "", GUARDED).await);
    let alive = relay(&upstream, keep_alive().await, QUICK).await;
    // The limit's only call, and failures in a row. The limit holds for a minute: its cells are the first.
    raw_call(&guarded, LIMITED, "good").await;
    for _ in 0..5 {
        raw_call(&guarded, BROKEN, "503").await;
    }
    let mut cells = Vec::new();
    for (part, client) in PARTS.iter().flat_map(|part| script.clients.iter().map(move |client| (part, *client))) {
        for ending in part.endings.iter().filter(|_| part.way != "chat" || CHATS.contains(&client)) {
            let (relay, model) = match *ending {
                "limit" => (&guarded, LIMITED),
                "open" => (&guarded, BROKEN),
                quiet if quiet.starts_with("quiet-") => (&alive, MODEL),
                _ => (&quick, MODEL),
            };
            cells.push((client, *ending, part.way, call(relay, client, ending, part.way, model, false)));
        }
    }
    cells.sort_by_key(|(_, ending, ..)| *ending != "limit");
    let calls: Vec<_> = cells.iter().map(|(.., call)| call.clone()).collect();
    let (reports, stderr) = ready.run(&calls, Duration::from_secs(120)).await;
    println!("{}: imported after {imported:.1?}, done after {:.1?}", script.name, began.elapsed());
    for (client, ending, way, call) in cells {
        let report = reports.get(call["key"].as_str().unwrap());
        table.insert(client, ending, way, report);
        let requests = upstream.requests(call["key"].as_str().unwrap());
        let shown = report.map_or_else(|| stderr.clone(), Value::to_string);
        println!("{client} {ending} {way}, {requests} requests: {shown}");
    }
    table
}

/// Returns the setting that keeps streams alive. A relay to compare with may be too old to have it.
async fn keep_alive() -> &'static str {
    let setting = "keep_alive = \"1s\"";
    let is_other = env::var_os("TOWER_GEMINI_RELAY").is_some();
    let is_old = is_other && checked(&format!("upstream = \"emulator\"\n{setting}")).await.0 != Some(0);
    if is_old { "" } else { setting }
}

/// Returns a call as the scripts take it.
fn call(relay: &Relay, client: &str, ending: &str, way: &str, model: &str, retries: bool) -> Value {
    let prompt = prompt(client, ending, way);
    json!({ "key": prompt, "client": client, "way": way, "base": relay.uri(), "model": model, "prompt": prompt, "retries": retries })
}

async fn relay(upstream: &Upstream, more: &str, settings: &str) -> Relay {
    let uri = upstream.uri();
    let settings = format!("upstream = {uri:?}\n{more}\n[[keys]]\nkey = {KEY:?}\n{settings}");
    // Its log of a thousand failures is of no use.
    Relay::start_logging(&settings, &[("RUST_LOG", "error")]).await
}

/// Calls a model without a client.
async fn raw_call(relay: &Relay, model: &str, ending: &str) {
    let body = json!({ "contents": [{ "parts": [{ "text": prompt("-", ending, "unary") }] }] }).to_string();
    let mut connection = TcpStream::connect(relay.address()).await.unwrap();
    let head = format!(
        "POST /v1beta/models/{model}:generateContent HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    connection.read_to_end(&mut Vec::new()).await.unwrap();
}

// --- amplification ---

/// The clients that are quick with their own retries, and the most requests that the upstream may get for a call of
/// theirs: as many as the relay attempts.
const QUICK_CALLERS: [(&str, usize); 4] = [("genai-py", 20), ("genai-js", 20), ("openai-py", 20), ("openai-js", 20)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the clients, which .ci/run installs"]
async fn a_lasting_outage_is_not_multiplied_by_those_who_can_be_told() {
    let scripts = SCRIPTS.iter().filter(|script| script.clients.iter().any(|client| most(client).is_some()));
    let counts = join_all(scripts.map(|script| requests(script, |client| most(client).is_some()))).await;
    for (client, way, requests, said) in counts.into_iter().flatten() {
        println!("{client}, {way}: {requests} requests; {said}");
        assert!((1..=most(client).unwrap()).contains(&requests), "{client}, {way}: {requests} requests");
    }
}

/// The table of the upstream's requests for one call of each client, with the retries that are its default. It takes
/// two minutes, most of which the clients wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is a measurement; CONTRIBUTING.md says how to run it"]
async fn amplification() {
    let counts = stream::iter(&SCRIPTS).map(|script| requests(script, |_| true));
    let counts: Vec<_> = counts.buffer_unordered(SCRIPTS.len()).collect().await;
    let counts: Vec<_> = counts.into_iter().flatten().collect();
    println!("{:25}{:>8}{:>8}   error", "client", "unary", "stream");
    for client in CLIENTS {
        let of = |way| counts.iter().find(|(name, its, ..)| *name == client && *its == way);
        let shown = |way| of(way).map_or_else(|| "-".to_owned(), |(.., requests, _)| requests.to_string());
        let said = of("unary").map_or("", |(.., said)| said);
        println!("{client:25}{:>8}{:>8}   {said}", shown("unary"), shown("stream"));
    }
}

fn most(client: &str) -> Option<usize> {
    QUICK_CALLERS.iter().find(|(name, _)| *name == client).map(|(_, most)| *most)
}

/// Counts the requests for a call in each way, against an upstream that is overloaded for good, through a relay with its
/// own number of attempts.
async fn requests(script: &Script, counts: impl Fn(&str) -> bool) -> Vec<(&'static str, &'static str, usize, String)> {
    let Some(ready) = script.start().await else { return Vec::new() };
    let upstream = Upstream::start().await;
    let mut calls = Vec::new();
    for client in script.clients.iter().copied().filter(|client| counts(client)) {
        for way in ["unary", "stream"] {
            // A relay for each, so that its circuit breaker has seen nothing of the others.
            let relay = relay(&upstream, "", "[retry]\nbase_delay = \"5ms\"").await;
            let call = call(&relay, client, "503", way, MODEL, true);
            calls.push((client, way, call, relay));
        }
    }
    let cells: Vec<_> = calls.iter().map(|(_, _, call, _)| call.clone()).collect();
    let (reports, stderr) = ready.run(&cells, Duration::from_secs(300)).await;
    let counted = calls.into_iter().map(|(client, way, call, _)| {
        let key = call["key"].as_str().unwrap();
        let report = reports.get(key).unwrap_or_else(|| panic!("{client}, {way}: does not end; {stderr}"));
        assert!(report["thrown"] == true || report["told"] == true, "{client}, {way}: {report}");
        let said: String = report["words"].as_str().unwrap_or_default().replace('\n', " ").chars().take(150).collect();
        (client, way, upstream.requests(key), said)
    });
    counted.collect()
}
