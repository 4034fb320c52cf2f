//! Streams that are kept alive, as they are on the wire.

#![cfg(unix)] // the relay is told what to do by signals
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_process;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};

use relay_process::{PATIENCE, Relay, checked, refused_at};

const STREAM: &str = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse";
const CHAT: &str = "/v1beta/openai/chat/completions";
const PROMPT: &str = r#"{"contents": [{"parts": [{"text": "hello"}]}]}"#;
const FIRST: &str =
    "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"one\"}],\"role\":\"model\"}}]}\r\n\r\n";
const LAST: &str = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\" two\"}],\"role\":\"model\"},\"finishReason\":\"STOP\"}]}\r\n\r\n";
const BUSY: &str = r#"{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}"#;

/// The silence of an upstream, which is longer than that of the relay.
const SILENCE: Duration = Duration::from_millis(1_300);

/// Starts an upstream that is silent before each of its answers: so many times busy, and then a stream with a silence in
/// it.
async fn upstream(busy: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let left = Arc::new(Semaphore::new(busy));
    let app = Router::new().fallback(move |request: Request| {
        let left = left.clone();
        async move {
            let _ = request.into_body().collect().await;
            sleep(SILENCE).await;
            match left.try_acquire() {
                Ok(permit) => {
                    permit.forget();
                    (StatusCode::SERVICE_UNAVAILABLE, [("content-type", "application/json")], BUSY).into_response()
                }
                Err(_) => streaming(),
            }
        }
    });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

fn streaming() -> Response {
    let events = stream::iter([FIRST, LAST]).enumerate().then(|(nth, event)| async move {
        sleep(SILENCE * u32::try_from(nth).unwrap()).await;
        Ok::<_, std::io::Error>(Bytes::from(event))
    });
    ([("content-type", "text/event-stream")], Body::from_stream(events)).into_response()
}

/// Starts a relay before an upstream, and returns it with its log in JSON.
async fn relay(upstream: SocketAddr, more: &str) -> Relay {
    let settings = format!(
        "upstream = \"http://{upstream}\"\nkeep_alive = \"1s\"\n[[keys]]\nkey = \"key-of-the-relay\"\n[retry]\nbase_delay = \"1ms\"\nmax_delay = \"5ms\"\n{more}"
    );
    Relay::start_logging(&settings, &[("RELAY_LOG_FORMAT", "json")]).await
}

/// Sends a request over a socket of its own.
async fn sent(relay: &Relay, path: &str, body: &str) -> TcpStream {
    let mut socket = TcpStream::connect(relay.address()).await.unwrap();
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: relay\r\norigin: https://page.example\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    socket
}

/// The pieces of an answer, each with the time at which it came.
struct OnTheWire {
    pieces: Vec<(Duration, String)>,
    /// Set if the connection ended, and not the answer.
    broke: bool,
}

impl OnTheWire {
    /// Reads an answer to its end.
    async fn read(mut socket: TcpStream) -> Self {
        let began = Instant::now();
        let (mut pieces, mut all) = (Vec::new(), String::new());
        loop {
            let mut buffer = vec![0; 64 * 1024];
            let len = timeout(PATIENCE, socket.read(&mut buffer)).await.expect("it hangs").unwrap_or(0);
            let piece = String::from_utf8(buffer[..len].to_vec()).unwrap();
            if len == 0 {
                return Self { pieces, broke: true };
            }
            all.push_str(&piece);
            pieces.push((began.elapsed(), piece));
            if all.ends_with("\r\n0\r\n\r\n") {
                return Self { pieces, broke: false };
            }
        }
    }

    fn all(&self) -> String {
        self.pieces.iter().map(|(_, piece)| piece.as_str()).collect()
    }

    /// Returns the body, without the lines of its chunks.
    fn body(&self) -> String {
        let all = self.all();
        let (_, mut rest) = all.split_once("\r\n\r\n").unwrap();
        let mut body = String::new();
        while let Some((length, after)) = rest.split_once("\r\n") {
            let length = usize::from_str_radix(length, 16).unwrap();
            body.push_str(&after[..length]);
            rest = &after[length + 2..];
        }
        body
    }
}

/// Returns the line that the relay logs of its one call.
async fn logged(relay: &Relay) -> Value {
    let log = relay.logged("\"relay::call\"").await;
    let line = log.lines().find(|line| line.contains("\"relay::call\"")).unwrap().to_owned();
    serde_json::from_str(&line).unwrap()
}

#[tokio::test]
async fn a_stream_behind_retries_reaches_its_caller_whole() {
    let relay = relay(upstream(2).await, "").await;
    let wire = OnTheWire::read(sent(&relay, STREAM, PROMPT).await).await;
    let all = wire.all();
    assert!(all.starts_with("HTTP/1.1 200 OK\r\n"), "{all}");
    assert!(all.contains("content-type: text/event-stream\r\n") && all.contains("x-accel-buffering: no\r\n"), "{all}");
    // A page can read it.
    assert!(all.contains("access-control-allow-origin: "), "{all}");
    // The head and the first piece came after a second, while the upstream had not answered once.
    assert!(wire.pieces[0].0 < SILENCE + SILENCE, "{:?}", wire.pieces[0]);
    let body = wire.body();
    let (first, last) = body.split_once("\r\n\r\n").unwrap();
    for (line, event) in [(format!("{first}\r\n\r\n"), FIRST), (last.to_owned(), LAST)] {
        let (data, json) = line.split_at(line.find('{').unwrap());
        assert!(data.starts_with("data: ") && data.trim_end() == "data:", "{line}");
        assert_eq!(json, &event[6..]);
    }
    // Three silences before the head, of which the first second has passed without a piece of its own.
    assert!(first.starts_with("data:   {"), "{first}");
    assert!(!wire.broke);
    let line = logged(&relay).await;
    assert_eq!((&line["status"], &line["attempts"], &line["gone"]), (&200.into(), &3.into(), &false.into()), "{line}");
}

#[tokio::test]
async fn a_failure_after_the_first_piece_is_on_the_line_and_breaks_the_connection() {
    let relay = relay(upstream(9).await, "max_attempts = 2\n").await;
    let wire = OnTheWire::read(sent(&relay, STREAM, PROMPT).await).await;
    assert!(wire.broke && wire.all().starts_with("HTTP/1.1 200 OK\r\n"), "{}", wire.all());
    let body = wire.body();
    let json = body.strip_prefix("data: ").unwrap().trim();
    assert!(json.starts_with("{\"error\":{") && body.ends_with("}\n\n"), "{body:?}");
    let error: Value = serde_json::from_str(json).unwrap();
    assert_eq!((&error["error"]["code"], &error["error"]["status"]), (&503.into(), &"UNAVAILABLE".into()));
    // The operator sees the call as it was.
    let line = logged(&relay).await;
    assert_eq!((&line["status"], &line["attempts"], &line["gone"]), (&503.into(), &2.into(), &false.into()), "{line}");
}

#[tokio::test]
async fn a_failure_before_it_has_its_status() {
    let relay = relay("127.0.0.1:1".parse().unwrap(), "max_attempts = 1\n").await;
    let mut socket = sent(&relay, STREAM, PROMPT).await;
    let mut head = [0; 12];
    timeout(PATIENCE, socket.read_exact(&mut head)).await.unwrap().unwrap();
    assert_eq!(&head, b"HTTP/1.1 503");
}

#[tokio::test]
async fn a_chat_gets_comments_if_it_streams() {
    let relay = relay(upstream(0).await, "").await;
    let chat = r#"{"model":"gemini-2.5-flash","messages":[{"role":"user","content":"hi"}],"stream":true}"#;
    let wire = OnTheWire::read(sent(&relay, CHAT, chat).await).await;
    let body = wire.body();
    assert!(body.starts_with(": ping\n\ndata: {"), "{body}");
    assert_eq!(body.replace(": ping\n\n", ""), format!("{FIRST}{LAST}"));
}

#[tokio::test]
async fn a_caller_that_leaves_ends_the_call_behind_the_head() {
    let relay = relay(upstream(100).await, "max_attempts = 50\n").await;
    let mut socket = sent(&relay, STREAM, PROMPT).await;
    let mut head = [0; 12];
    timeout(PATIENCE, socket.read_exact(&mut head)).await.unwrap().unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    drop(socket);
    let line = logged(&relay).await;
    assert_eq!((&line["status"], &line["gone"]), (&Value::Null, &true.into()), "{line}");
}

#[tokio::test]
async fn its_setting_is_read_and_shown() {
    refused_at("keep_alive = \"500ms\"", "1:14", &["500ms is too often", "\"1s\" or more"]).await;
    refused_at("keep_alive = 15", "1:14", &["without a unit"]).await;
    let (code, said, remarks) = checked("upstream = \"emulator\"\nkeep_alive = \"2m\"").await;
    assert_eq!((code, said.lines().count()), (Some(0), 15), "{said}");
    assert!(said.starts_with("keep alive      a piece after each 120s of a stream's silence\n"), "{said}");
    assert!(remarks.contains("keep_alive is 2m") && remarks.contains("\"15s\""), "{remarks}");
}
