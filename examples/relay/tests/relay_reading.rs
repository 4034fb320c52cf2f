//! Bodies that take long to read, sent to the relay as a process: nobody else waits for them, and none slips past the
//! limits of its caller.
//!
//! `cargo test --release -p relay --test relay_reading` measures with bodies of 31 MiB, and wants every answer of
//! `/healthz` within 50 ms.

#![cfg(unix)] // as tests/relay.rs, with which it shares the process's harness
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_process;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use relay_process::{PATIENCE, Relay};

const IS_DEBUG: bool = cfg!(debug_assertions);

/// The bytes of a hostile body. A debug build reads more slowly.
const BYTES: usize = if IS_DEBUG { 6 << 20 } else { 31 << 20 };

/// The most that `/healthz` may take meanwhile. The bound of a debug build is generous.
///
/// The machine's other programs delay an answer too, and so does this one, whose callers and upstream have no cores of their
/// own; but not in each of three rounds.
const ROUNDS: usize = 3;
const MOST: Duration = Duration::from_millis(if IS_DEBUG { 400 } else { 50 });

const PATH: &str = "/v1beta/models/gemini-2.5-flash:generateContent";

/// Serves an upstream that takes any body unread, and answers each request. A parser would take time of its own.
async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                while let Some((_, body)) = message(&mut stream).await {
                    let text = format!(
                        r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{}"}}],"role":"model"}},"finishReason":"STOP"}}]}}"#,
                        body.len()
                    );
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                        text.len()
                    );
                    if stream.write_all(format!("{head}{text}").as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Reads a request or an answer with a length: its first line, and its body. `None`: the connection has ended.
async fn message(stream: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let (mut first, mut length, mut line) = (String::new(), 0, String::new());
    loop {
        line.clear();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let lower = line.trim_end().to_ascii_lowercase();
        if lower.is_empty() {
            break;
        }
        if first.is_empty() {
            first = line.trim_end().to_owned();
        }
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((first, body))
}

async fn relay(settings: &str) -> Relay {
    let upstream = upstream().await;
    // Of two projects, so that bodies are searched for the names of resources as well.
    Relay::start(&format!(
        "upstream = \"http://{upstream}\"\nmax_body = \"32MiB\"\n{settings}\n[[keys]]\nkey = \"key-one\"\nproject = \"p1\"\n\
         [[keys]]\nkey = \"key-two\"\nproject = \"p2\"\n"
    ))
    .await
}

/// Sends a body, and returns the first line and the text of the answer.
async fn post(address: SocketAddr, path: &str, token: &str, body: &[u8]) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\nx-goog-api-key: {token}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let answer = timeout(PATIENCE, message(&mut BufReader::new(stream))).await.expect("no answer").unwrap();
    (answer.0, String::from_utf8(answer.1).unwrap())
}

/// Returns the longest time that `/healthz` takes until the calls have ended.
async fn longest_while(address: SocketAddr, mut calls: JoinSet<()>) -> Duration {
    let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
    let mut longest = Duration::ZERO;
    let mut asked = 0;
    while !calls.is_empty() {
        let began = Instant::now();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: relay\r\n\r\n").await.unwrap();
        let (first, _) = message(&mut stream).await.unwrap();
        assert!(first.contains(" 200 "), "{first}");
        longest = longest.max(began.elapsed());
        asked += 1;
        sleep(Duration::from_millis(2)).await;
        while let Some(ended) = calls.try_join_next() {
            ended.unwrap();
        }
    }
    assert!(asked > 3, "{asked}");
    longest
}

/// Repeats a piece until the body is as long as wanted.
fn filled(start: &str, piece: &str, end: &str) -> Arc<[u8]> {
    format!("{start}{}{end}", piece.repeat((BYTES - start.len() - end.len()) / piece.len())).into_bytes().into()
}

fn tiny_values() -> Arc<[u8]> {
    filled(r#"{"model":"gemini-2.5-flash","contents":["#, "{},", "{}]}")
}

/// Sends a body by so many callers, each as often as `times`, and returns the longest time that `/healthz` took.
async fn called_by(callers: usize, relay: &Relay, path: &'static str, body: &Arc<[u8]>, times: usize) -> Duration {
    let address = relay.address();
    let mut calls = JoinSet::new();
    for _ in 0..callers {
        let body = body.clone();
        calls.spawn(async move {
            for _ in 0..times {
                post(address, path, "t", &body).await;
            }
        });
    }
    longest_while(address, calls).await
}

/// Sends a body by so many callers, and fails if `/healthz` takes too long in each of the rounds.
async fn nobody_waits(name: &str, callers: usize, relay: &Relay, path: &'static str, body: &Arc<[u8]>, times: usize) {
    let mut all = Vec::new();
    for _ in 0..ROUNDS {
        let longest = called_by(callers, relay, path, body, times).await;
        println!("{name}: healthz took {longest:?} at most");
        if longest < MOST {
            return;
        }
        all.push(longest);
    }
    panic!("{name}: {all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_waits_while_eight_callers_send_bodies_of_tiny_values() {
    nobody_waits("tiny values", 8, &relay("").await, PATH, &tiny_values(), 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_waits_for_a_body_however_it_is_made() {
    let relay = relay("").await;
    let chat = "/v1beta/openai/chat/completions";
    let start = r#"{"model":"gemini-2.5-flash","messages":[{"role":"user","content":"#;
    // At most just below the cap on values.
    let (callers, most) = if IS_DEBUG { (2, 300_000) } else { (8, 1_000_000) };
    let names = r#""uri":"files/a","#.repeat(most / 2);
    let vectors = "0.01234567,".repeat(most);
    for (name, path, body) in [
        ("values in a chat", chat, tiny_values()),
        ("escapes", chat, filled(&format!("{start}\""), "\\n", "\"}]}")),
        ("escaped quotes", PATH, filled("{\"contents\":[{\"parts\":[{\"text\":\"", "\\\"", "\"}]}]}")),
        ("letters", chat, filled(&format!("{start}\""), "é ", "\"}]}")),
        ("a number", PATH, filled("{\"contents\":", "1", "}")),
        ("white space", PATH, filled("{\"contents\":[", " ", "]}")),
        ("what is not closed", PATH, filled("{\"contents\":[", "[", "")),
        ("single quotes", PATH, filled("{\"contents\":['\"',", "{},", "{}]}")),
        ("names", PATH, format!("{{{names}\"contents\":[]}}").into_bytes().into()),
        ("vectors", PATH, format!("{{\"contents\":[{{\"parts\":[{vectors}1]}}]}}").into_bytes().into()),
    ] {
        nobody_waits(name, callers, &relay, path, &body, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_body_of_too_many_values_slips_past_no_limit_of_its_caller() {
    let callers = "[[callers]]\nname = \"choosy\"\ntokens = [\"token-of-the-choosy-caller\"]\nmodels = [\"gemini-2.5-flash\"]\n\
                   [[callers]]\nname = \"bounded\"\ntokens = [\"token-of-the-bounded-caller\"]\nrpm = 1000\n\
                   [[callers]]\nname = \"free\"\ntokens = [\"token-of-the-free-caller-x\"]\n";
    let relay = relay(callers).await;
    let (address, body) = (relay.address(), tiny_values());
    let (chat, cached) = ("/v1beta/openai/chat/completions", "/v1beta/cachedContents");
    for token in ["token-of-the-choosy-caller", "token-of-the-bounded-caller"] {
        for path in [PATH, chat, cached] {
            let (first, text) = post(address, path, token, &body).await;
            assert!(first.contains(" 400 ") && text.contains("more than 1048576 values"), "{path}: {first} {text}");
        }
    }
    let (first, text) = post(address, PATH, "token-of-the-free-caller-x", &body).await;
    assert!(first.contains(" 200 ") && text.contains(&body.len().to_string()), "{first} {text}");

    // Large ones that are real are read: 300,000 tokens to embed, and an image.
    let tokens = format!(r#"{{"model":"gemini-2.5-flash","input":[{}1]}}"#, "100000,".repeat(300_000));
    let image = format!(
        r#"{{"contents":[{{"parts":[{{"inlineData":{{"mimeType":"image/png","data":"{}"}}}}]}}]}}"#,
        "A".repeat(8 << 20)
    );
    for (path, body) in [("/v1beta/openai/embeddings", tokens), (PATH, image)] {
        for token in ["token-of-the-choosy-caller", "token-of-the-bounded-caller"] {
            let (first, text) = post(address, path, token, body.as_bytes()).await;
            assert!(first.contains(" 200 "), "{path}: {first} {text}");
        }
    }
    // Another model is still found in a large body.
    let other = format!(r#"{{"input":[{}1],"model":"gemini-embedding-001"}}"#, "100000,".repeat(300_000));
    let (first, _) = post(address, "/v1beta/openai/embeddings", "token-of-the-choosy-caller", other.as_bytes()).await;
    assert!(first.contains(" 403 "), "{first}");
}

#[tokio::test]
async fn a_head_of_64_kib_may_be_sent_and_one_of_128_is_too_large() {
    let relay = relay("").await;
    for (bytes, status) in [(60 << 10, " 200 "), (129 << 10, " 431 ")] {
        let mut stream = TcpStream::connect(relay.address()).await.unwrap();
        let head = format!("GET /healthz HTTP/1.1\r\nhost: relay\r\nx-long: {}\r\n\r\n", "x".repeat(bytes));
        stream.write_all(head.as_bytes()).await.unwrap();
        let (first, _) = timeout(PATIENCE, message(&mut BufReader::new(stream))).await.expect("no answer").unwrap();
        assert!(first.contains(status), "{bytes}: {first}");
    }
}
