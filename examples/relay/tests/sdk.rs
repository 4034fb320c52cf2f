//! Unmodified SDKs through the relay: on a day on which the upstream answers 503 twice before each answer, where the
//! attempts are counted, and on a bad one, where everything goes wrong at once.
//!
//! `.ci/sdk-setup` installs the SDKs under `target/sdk`, where the tests look for them. `TOWER_GEMINI_PYTHON`,
//! `TOWER_GEMINI_OLDER_PYTHON`, `TOWER_GEMINI_NODE` and `NODE_PATH` name others.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_process;

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use http::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};
use tower_gemini::{
    call::Operation,
    emulator::{Emulator, EmulatorBuilder, Trouble, When},
};

use relay_process::{PATIENCE, Relay};

const OVERLOADED_TWICE: [u16; 3] = [503, 503, 200];

/// The attempts for a misspelt model: the relay fetches the list, and refuses the call itself.
const LIST: [u16; 1] = [200];

/// The attempts of a script that generates, streams, and misspells a model, for which the relay fetches the list.
const SMALL: [u16; 9] = [503, 503, 200, 503, 503, 200, 503, 503, 200];

/// The attempts of the SDK's asynchronous half in Python, which has an HTTP client of its own: a call and a stream.
const ASYNC: [u16; 2] = [200; 2];

// --- two failures before each answer ---

#[tokio::test]
#[ignore = "needs the SDKs, which .ci/run installs"]
async fn google_genai_for_python_sees_answers_only() {
    check(Sdk::google_genai_for_python(), &[&google_genai()[..], &ASYNC].concat()).await;
}

#[tokio::test]
#[ignore = "needs the SDKs, which .ci/run installs"]
async fn google_genai_for_javascript_sees_answers_only() {
    check(Sdk::google_genai_for_javascript(), &google_genai()).await;
}

#[tokio::test]
#[ignore = "needs the SDKs, which .ci/run installs"]
async fn openai_for_python_sees_answers_only() {
    let [generate, stream, chat, tools, embed, list] = [OVERLOADED_TWICE; 6];
    let again = [200];
    let attempts = [&generate[..], &stream, &chat, &again, &tools, &again, &again, &embed, &list, &LIST, &ASYNC];
    check(Sdk::openai_for_python(), &attempts.concat()).await;
}

#[tokio::test]
#[ignore = "needs the SDKs, which .ci/run installs"]
async fn langchain_for_python_sees_answers_only() {
    // The script does not list models, but for a misspelt one the relay does.
    let [generate, stream, chat, count, tools, embed, list] = [OVERLOADED_TWICE; 7];
    let again = [200];
    let attempts = [&generate[..], &stream, &chat, &again, &count, &tools, &again, &again, &embed, &list, &ASYNC];
    check(Sdk::langchain_for_python(), &attempts.concat()).await;
}

#[tokio::test]
#[ignore = "needs the SDKs, which .ci/run installs"]
async fn openai_for_javascript_sees_answers_only() {
    check(Sdk::node("openai.mjs"), &SMALL).await;
}

#[tokio::test]
#[ignore = "needs the SDKs, which .ci/run installs"]
async fn langchain_for_javascript_sees_answers_only() {
    check(Sdk::node("langchain.mjs"), &SMALL).await;
}

#[tokio::test]
#[ignore = "needs the SDKs, which .ci/run installs"]
async fn vercels_ai_sdk_sees_answers_only() {
    check(Sdk::node("ai.mjs"), &SMALL).await;
}

#[tokio::test]
#[ignore = "needs the SDKs, which .ci/run installs"]
async fn litellm_sees_answers_only() {
    check(Sdk::litellm(), &SMALL).await;
}

#[tokio::test]
#[ignore = "needs the SDKs, which .ci/run installs"]
async fn pydantic_ai_sees_answers_only() {
    check(Sdk::pydantic_ai(), &SMALL).await;
}

// --- uploads to a relay that wants a token ---

#[tokio::test]
#[ignore = "needs the SDKs, which .ci/run installs"]
async fn files_upload_with_client_tokens() {
    // A file of one part and one of two, by each of the SDK's ways; Python's script begins one more, which gets no part.
    const OF_BOTH_FILES: usize = 2 + 3;
    let python = Sdk { script: "upload.py", ..Sdk::google_genai_for_python() };
    for (sdk, requests) in [(python, 3 * OF_BOTH_FILES + 1), (Sdk::node("upload.mjs"), 2 * OF_BOTH_FILES)] {
        let emulator = Emulator::builder().key("key-of-the-relay", "p1").build();
        let server = emulator.serve().await.unwrap();
        let relay = Relay::start(&format!(
            "upstream = {:?}\nclient_tokens = [\"token-of-the-caller\"]\n[[keys]]\nkey = \"key-of-the-relay\"\n",
            server.uri()
        ))
        .await;
        print!("{}", sdk.run(&relay).await);
        let journal = emulator.journal();
        assert_eq!(journal.len(), requests, "{journal:#?}");
        assert!(journal.iter().all(|visit| visit.status == Some(StatusCode::OK)), "{journal:#?}");
    }
}

// --- everything at once ---

#[tokio::test]
#[ignore = "needs the SDKs, which .ci/run installs"]
async fn google_genai_for_python_has_a_good_day_on_a_bad_one() {
    bad_day(Sdk::google_genai_for_python()).await;
}

#[tokio::test]
#[ignore = "needs the SDKs, which .ci/run installs"]
async fn google_genai_for_javascript_has_a_good_day_on_a_bad_one() {
    bad_day(Sdk::google_genai_for_javascript()).await;
}

#[tokio::test]
#[ignore = "needs the SDKs, which .ci/run installs"]
async fn openai_for_python_has_a_good_day_on_a_bad_one() {
    bad_day(Sdk::openai_for_python()).await;
}

#[tokio::test]
#[ignore = "needs the SDKs, which .ci/run installs"]
async fn langchain_for_python_has_a_good_day_on_a_bad_one() {
    bad_day(Sdk::langchain_for_python()).await;
}

/// Returns the folder of `.ci/sdk-setup`: `target/sdk`, seen from a test in `target/debug/deps`.
fn installed(path: &str) -> PathBuf {
    env::current_exe().unwrap().ancestors().nth(3).unwrap().join("sdk").join(path)
}

/// A script, and the interpreter that runs it.
struct Sdk {
    interpreter: Command,
    script: &'static str,
    /// The answers that call a function, in one piece and as an event.
    calls: [Value; 2],
}

impl Sdk {
    fn google_genai_for_python() -> Self {
        Self { interpreter: python("TOWER_GEMINI_PYTHON", "venv"), script: "gemini.py", calls: calls_of_gemini() }
    }

    fn google_genai_for_javascript() -> Self {
        Self::node("gemini.mjs")
    }

    fn node(script: &'static str) -> Self {
        let mut node = Command::new(env::var_os("TOWER_GEMINI_NODE").unwrap_or_else(|| "node".into()));
        if env::var_os("NODE_PATH").is_none() {
            node.env("NODE_PATH", installed("node/node_modules"));
        }
        Self { interpreter: node, script, calls: calls_of_gemini() }
    }

    fn openai_for_python() -> Self {
        let interpreter = python("TOWER_GEMINI_PYTHON", "venv");
        Self { interpreter, script: "openai_compatible.py", calls: calls_of_openai() }
    }

    fn langchain_for_python() -> Self {
        let interpreter = python("TOWER_GEMINI_PYTHON", "venv");
        Self { interpreter, script: "langchain_gemini.py", calls: calls_of_gemini() }
    }

    fn litellm() -> Self {
        let mut interpreter = python("TOWER_GEMINI_PYTHON", "venv");
        // It would fetch its table of prices otherwise.
        interpreter.env("LITELLM_LOCAL_MODEL_COST_MAP", "True");
        Self { interpreter, script: "litellm_gemini.py", calls: calls_of_gemini() }
    }

    fn pydantic_ai() -> Self {
        let interpreter = python("TOWER_GEMINI_OLDER_PYTHON", "older");
        Self { interpreter, script: "pydantic_ai_gemini.py", calls: calls_of_gemini() }
    }

    /// Returns an emulator that calls a function once in one piece and once in a stream, and answers an interaction in
    /// two parts; it has no other trouble.
    fn answered_by(&self, emulator: EmulatorBuilder) -> Emulator {
        let [whole, event] = &self.calls;
        let answer = |content_type: &str, body: String| {
            Trouble::response(Response::builder().header("content-type", content_type).body(body).unwrap())
        };
        let asked = |streaming| When::first(1).prompt("how is the weather?").streaming(streaming);
        emulator
            // The SDK goes on by itself, without the prompt, at the project that has the beginning.
            .trouble(When::always().prompt("tell it in parts"), Trouble::continuation())
            .trouble(asked(false), answer("application/json; charset=UTF-8", whole.to_string()))
            .trouble(asked(true), answer("text/event-stream", format!("data: {event}\r\n\r\n")))
            .build()
    }

    /// Runs the script, which must succeed, and returns its output.
    async fn run(mut self, relay: &Relay) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(self.script);
        let process = &mut self.interpreter;
        process.arg(&script).arg(relay.uri()).stdin(Stdio::null()).kill_on_drop(true);
        // Loopback is never behind a proxy, the only key is the script's own, and no telemetry of the calls is sent.
        process.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1").env("LANGSMITH_TRACING", "false");
        process.env_remove("GEMINI_API_KEY").env_remove("GOOGLE_API_KEY").env_remove("OPENAI_API_KEY");
        process.env_remove("LANGCHAIN_TRACING_V2").env_remove("GOOGLE_GENAI_USE_VERTEXAI");
        // LiteLLM alone takes ten seconds to be imported, on an idle machine.
        let output = timeout(4 * PATIENCE, process.output()).await.expect("the script does not end");
        let output = output.unwrap_or_else(|error| panic!("{process:?} cannot be run: {error}"));
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        assert!(output.status.success(), "{}{}", said[0], said[1]);
        let [said, _] = said;
        said
    }
}

fn python(variable: &str, venv: &str) -> Command {
    let installed = installed(&format!("{venv}/bin/python"));
    let found = if installed.exists() { installed.into() } else { "python3".into() };
    Command::new(env::var_os(variable).unwrap_or(found))
}

fn calls_of_gemini() -> [Value; 2] {
    let call = json!({ "functionCall": { "name": "weather", "args": { "city": "Oslo" } } });
    let answer = json!({
        "candidates": [{ "content": { "parts": [call], "role": "model" }, "finishReason": "STOP", "index": 0 }],
        "usageMetadata": { "promptTokenCount": 40, "candidatesTokenCount": 5, "totalTokenCount": 45 },
        "modelVersion": "gemini-2.5-flash",
        "responseId": "a-function-call",
    });
    [answer.clone(), answer]
}

fn calls_of_openai() -> [Value; 2] {
    let function = json!({ "name": "weather", "arguments": "{\"city\":\"Oslo\"}" });
    let message = json!({
        "role": "assistant",
        "tool_calls": [{ "id": "function-call-1", "index": 0, "type": "function", "function": function }],
    });
    ["message", "delta"].map(|place| {
        json!({
            "choices": [{ "finish_reason": "tool_calls", "index": 0, place: message }],
            "created": 1_700_000_000,
            "id": "a-function-call",
            "model": "gemini-2.5-flash",
            "object": if place == "delta" { "chat.completion.chunk" } else { "chat.completion" },
        })
    })
}

/// The calls of both of Google's scripts that reach the upstream: generate, stream, chat (in two turns), a function
/// call in one piece (and the answer to its result) and in a stream, count tokens, embed, list (on two pages), a file
/// (in two steps, and its tokens, which only the upstream can count) and the calls about it, a cached content likewise,
/// interactions (made, read, continued, deleted, and continued in vain; a stream; and one in two parts), batches (one of its own requests:
/// made and read; one of a file: its upload, made, read, and its results; all listed, both deleted), and the list for a
/// misspelt model, which is not sent itself.
fn google_genai() -> Vec<u16> {
    let [generate, stream, chat, tools, count, embed, list, interact, stream_interaction] = [OVERLOADED_TWICE; 9];
    let (again, files, caches) = ([200], [200; 7], [200; 3]);
    let calls = [&generate[..], &stream, &chat, &again, &tools, &again, &again, &count, &embed, &list, &again].concat();
    let interactions = [&interact[..], &[200, 200, 200, 404], &stream_interaction, &[200, 200]].concat();
    let batches = [200; 10];
    [&calls[..], &files, &caches, &interactions, &batches, &LIST].concat()
}

/// The calls to the emulator that are not prompts, as a trouble has to name them.
const OTHERS: [Operation; 4] =
    [Operation::CountTokens, Operation::EmbedContent, Operation::BatchEmbedContents, Operation::ListModels];

/// Runs a script against a relay, and compares the calls that reached the upstream with `attempts`.
async fn check(sdk: Sdk, attempts: &[u16]) {
    let mut emulator = Emulator::builder().key("key-of-the-relay", "p1");
    let interactions = ["please interact", "please stream an interaction"];
    for prompt in
        ["please generate", "please stream", "please chat", "how is the weather?"].into_iter().chain(interactions)
    {
        emulator = emulator.trouble(When::first(2).prompt(prompt), Trouble::overloaded());
    }
    for operation in OTHERS {
        emulator = emulator.trouble(When::first(2).operation(operation), Trouble::overloaded());
    }
    let emulator = sdk.answered_by(emulator);
    let server = emulator.serve().await.unwrap();
    let relay = Relay::start(&format!(
        "upstream = {:?}\n[[keys]]\nkey = \"key-of-the-relay\"\n[retry]\nbase_delay = \"5ms\"\n",
        server.uri()
    ))
    .await;
    let said = sdk.run(&relay).await;

    let journal = emulator.journal();
    let statuses: Vec<_> = journal.iter().map(|visit| visit.status.unwrap().as_u16()).collect();
    let paths: Vec<_> = journal.iter().map(|visit| &*visit.path).collect();
    assert_eq!(statuses, attempts, "{paths:#?}{said}");
    let ours = Emulator::fingerprint("key-of-the-relay");
    assert!(
        journal.iter().all(|visit| visit.key.as_ref() == Some(&ours)),
        "the caller's own key went on: {journal:#?}"
    );
    print!("{said}");
}

/// A day on which three attempts of ten fail, one of two projects runs out of its minute's quota again and again, and
/// the key that is used first is bad. The script sees none of it.
async fn bad_day(sdk: Sdk) {
    let (bad, keys) = ("key-that-is-bad", ["key-of-p1", "key-of-p2"]);
    let mut emulator = Emulator::builder().key(keys[0], "p1").key(keys[1], "p2");
    // Only calls that are bound to the project wait for it, as those about a file are.
    let spent = Trouble::minute_quota(Duration::from_secs(2));
    for when in [When::first(1), When::every(4)] {
        emulator = emulator.trouble(when.project("p1"), spent.clone());
    }
    for when in [When::first(2), When::probability(0.3)] {
        emulator = emulator.trouble(when, Trouble::overloaded());
    }
    // Calls that make a file or a cached content are left out: they may not be sent twice.
    for operation in OTHERS.into_iter().chain([Operation::Read]) {
        emulator = emulator.trouble(When::probability(0.3).operation(operation), Trouble::high_demand());
    }
    let emulator = sdk.answered_by(emulator);
    let server = emulator.serve().await.unwrap();
    let relay = Relay::start(&format!(
        r#"
        upstream = {:?}
        default_project = "p1"
        [[keys]]
        name = "bad"
        key = {bad:?}
        project = "p1"
        weight = 1000
        [[keys]]
        name = "one"
        key = {:?}
        project = "p1"
        [[keys]]
        name = "two"
        key = {:?}
        project = "p2"
        [retry]
        # So many that chance alone fails no call.
        max_attempts = 30
        base_delay = "5ms"
        max_delay = "50ms"
        "#,
        server.uri(),
        keys[0],
        keys[1],
    ))
    .await;
    let said = sdk.run(&relay).await;

    // The day was bad, and both keys were used.
    let journal = emulator.journal();
    let seen = |status: StatusCode| journal.iter().filter(|visit| visit.status == Some(status)).count();
    let [overloaded, spent] = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].map(seen);
    assert!(overloaded >= 2 && spent >= 1, "{overloaded} of 503, {spent} of 429: {journal:#?}");
    let used = |key| journal.iter().filter(|visit| visit.key == Some(Emulator::fingerprint(key))).count();
    assert!((1..=3).contains(&used(bad)), "{}: {journal:#?}", used(bad));
    assert!(keys.map(used).iter().all(|used| *used > 0), "{journal:#?}");
    assert_eq!(used(bad) + used(keys[0]) + used(keys[1]), journal.len(), "a caller's own key went on: {journal:#?}");
    print!("{said}");
    println!("{} attempts: {overloaded} of 503, {spent} of 429, {} with a bad key", journal.len(), used(bad));
}
