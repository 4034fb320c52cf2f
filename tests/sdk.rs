//! Unmodified SDKs through the relay, while the upstream answers 503 twice before each answer.
//!
//! `.ci/sdk-setup` installs them under `target/sdk`, where they are found. `TOWER_GEMINI_PYTHON`, `TOWER_GEMINI_NODE` and
//! `NODE_PATH` name others.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_process;

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{process::Command, time::timeout};
use tower_gemini::{
    call::Operation,
    emulator::{Emulator, Trouble, When},
};

use relay_process::{PATIENCE, Relay};

const OVERLOADED_TWICE: [u16; 3] = [503, 503, 200];

/// What a misspelt model costs: the relay asks for the list, and refuses the call itself.
const LIST: [u16; 1] = [200];

#[tokio::test]
#[ignore = "needs the SDKs, which .ci/run installs"]
async fn google_genai_for_python_sees_answers_only() {
    check(python(), "gemini.py", &google_genai()).await;
}

#[tokio::test]
#[ignore = "needs the SDKs, which .ci/run installs"]
async fn google_genai_for_javascript_sees_answers_only() {
    let mut node = Command::new(env::var_os("TOWER_GEMINI_NODE").unwrap_or_else(|| "node".into()));
    if env::var_os("NODE_PATH").is_none() {
        node.env("NODE_PATH", installed("node/node_modules"));
    }
    check(node, "gemini.mjs", &google_genai()).await;
}

#[tokio::test]
#[ignore = "needs the SDKs, which .ci/run installs"]
async fn openai_for_python_sees_answers_only() {
    let generate_stream_embed_list = OVERLOADED_TWICE.repeat(4);
    check(python(), "openai_compatible.py", &[&generate_stream_embed_list[..], &LIST].concat()).await;
}

/// Where `.ci/sdk-setup` puts things: `target/sdk`, seen from a test in `target/debug/deps`.
fn installed(path: &str) -> PathBuf {
    env::current_exe().unwrap().ancestors().nth(3).unwrap().join("sdk").join(path)
}

fn python() -> Command {
    let installed = installed("venv/bin/python");
    let found = if installed.exists() { installed.into() } else { "python3".into() };
    Command::new(env::var_os("TOWER_GEMINI_PYTHON").unwrap_or(found))
}

/// What both of Google's scripts get from the upstream: generate, stream, chat (in two turns), count tokens, embed, list
/// (on two pages), a file (in two steps, and its tokens, which only the upstream can count) with what is done to it, a
/// cached content likewise, and the list for a misspelt model, which is not sent.
fn google_genai() -> Vec<u16> {
    let [generate, stream, chat, count, embed, list] = [OVERLOADED_TWICE; 6];
    let [files, caches] = [[200; 7].as_slice(), &[200; 3]];
    [&generate[..], &stream, &chat, &[200], &count, &embed, &list, &[200], files, caches, &LIST].concat()
}

/// Runs a script against a relay, and holds what reached the upstream against `attempts`.
async fn check(mut process: Command, script: &str, attempts: &[u16]) {
    let mut emulator = Emulator::builder().key("key-of-the-relay", "p1");
    for prompt in ["please generate", "please stream", "please chat"] {
        emulator = emulator.trouble(When::first(2).prompt(prompt), Trouble::overloaded());
    }
    use Operation::{BatchEmbedContents, CountTokens, EmbedContent, ListModels};
    for operation in [CountTokens, EmbedContent, BatchEmbedContents, ListModels] {
        emulator = emulator.trouble(When::first(2).operation(operation), Trouble::overloaded());
    }
    let emulator = emulator.build();
    let server = emulator.serve().await.unwrap();
    let relay = Relay::start(&format!(
        "upstream = {:?}\n[[keys]]\nkey = \"key-of-the-relay\"\n[retry]\nbase_delay = \"5ms\"\n",
        server.uri()
    ))
    .await;

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(script);
    process.arg(&script).arg(relay.uri()).stdin(Stdio::null()).kill_on_drop(true);
    // Loopback is never behind a proxy, and no key but the script's own is looked for.
    process.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
    process.env_remove("GEMINI_API_KEY").env_remove("GOOGLE_API_KEY").env_remove("OPENAI_API_KEY");
    let output = timeout(PATIENCE, process.output()).await.expect("the script does not end");
    let output = output.unwrap_or_else(|error| panic!("{process:?} cannot be run: {error}"));
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(output.status.success(), "{}{}", said[0], said[1]);

    let journal = emulator.journal();
    let statuses: Vec<_> = journal.iter().map(|visit| visit.status.unwrap().as_u16()).collect();
    let paths: Vec<_> = journal.iter().map(|visit| &*visit.path).collect();
    assert_eq!(statuses, attempts, "{paths:#?}{}", said[0]);
    let ours = Emulator::fingerprint("key-of-the-relay");
    assert!(
        journal.iter().all(|visit| visit.key.as_ref() == Some(&ours)),
        "the caller's own key went on: {journal:#?}"
    );
    print!("{}", said[0]);
}
