//! Many streams at once through the relay: every piece arrives, in its order, and in its own stream; the relay's memory
//! does not grow; and when the upstream dies, each stream ends with an error that a caller can read.
//!
//! The full size is for `.ci/run`; it needs about 4,100 file descriptors a process.

#![cfg(target_os = "linux")] // where memory is read from /proc
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay_process;

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{future::join_all, stream::unfold};
use http::{Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    sync::{Barrier, watch},
    time::{Instant, interval, sleep, sleep_until, timeout},
};
use tower::ServiceExt;
use tower_gemini::client::{Client, ResponseBody};

use relay_process::{PATIENCE, Relay};

const STREAM: &str = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse";
const UNARY: &str = "/v1beta/models/gemini-2.5-flash:generateContent";

/// The text of each piece besides its number: if a layer kept pieces, the memory would show it.
const PADDING: usize = 4 * 1_024;

/// The number of streams, and their pace.
#[derive(Clone, Copy)]
struct Load {
    streams: usize,
    /// The time over which they begin, so that no listener's queue overflows.
    ramp: Duration,
    between_pieces: Duration,
    /// The number of pieces of each stream, in each of the waves. The first wave warms up.
    pieces: [usize; 3],
}

const SMALL: Load = Load {
    streams: 200,
    ramp: Duration::from_millis(200),
    between_pieces: Duration::from_millis(50),
    pieces: [5, 40, 40],
};

const FULL: Load = Load {
    streams: 2_000,
    ramp: Duration::from_secs(2),
    between_pieces: Duration::from_millis(500),
    pieces: [10, 40, 40],
};

// --- the tests ---

#[tokio::test]
async fn two_hundred_streams_arrive_whole_and_the_relay_does_not_grow() {
    whole_and_flat(SMALL).await;
}

#[tokio::test]
#[ignore = "takes a minute, in which nothing else should; .ci/run does"]
async fn two_thousand_streams_arrive_whole_and_the_relay_does_not_grow() {
    whole_and_flat(FULL).await;
}

#[tokio::test]
async fn two_hundred_streams_end_with_an_error_when_the_upstream_dies() {
    upstream_dies(SMALL).await;
}

#[tokio::test]
#[ignore = "takes some seconds, in which nothing else should; .ci/run does"]
async fn two_thousand_streams_end_with_an_error_when_the_upstream_dies() {
    upstream_dies(FULL).await;
}

async fn whole_and_flat(load: Load) {
    let upstream = Upstream::start(load, None).await;
    let relay = relay(&upstream).await;
    let client = client(&relay);
    let idle = resident(&relay);
    let mut peaks = Vec::new();
    for pieces in load.pieces {
        peaks.push(wave(&relay, &client, load, pieces).await);
    }
    let streamed = load.streams * load.pieces.iter().sum::<usize>() * PADDING / 1_024;
    let a_stream = (peaks[0].saturating_sub(idle)) / load.streams;
    println!(
        "{} streams at once, {streamed} KiB in all: {idle} KiB resident at rest, {peaks:?} KiB at most in each wave, {a_stream} KiB a stream",
        load.streams
    );
    // The first waves fill what the allocator keeps, and on a busy machine the buffers that are read late; a leak grows with
    // each wave. So the last one is measured against the one before. The allowance is a quarter of its pieces, all of which
    // would stay if any layer kept them.
    let allowance = load.streams * PADDING * load.pieces[2] / 1_024 / 4 + 2_048;
    let allowed = peaks[1].max(peaks[0]) + allowance;
    assert!(peaks[2] <= allowed, "it grew from wave to wave: {peaks:?} KiB, {allowed} allowed");
    assert!(a_stream <= MOST_A_STREAM, "{a_stream} KiB a stream");
}

/// KiB a stream: two connections with their buffers, the state of a call in the layers, and, with few streams, a share
/// of the program.
const MOST_A_STREAM: usize = 128;

async fn upstream_dies(load: Load) {
    let upstream = Upstream::start(load, None).await;
    let relay = relay(&upstream).await;
    let client = client(&relay);
    let (begun, mut all_begun) = watch::channel(0);
    let streams = (0..load.streams).map(|stream| {
        let (client, begun) = (client.clone(), begun.clone());
        tokio::spawn(async move {
            sleep(load.ramp * stream as u32 / load.streams as u32).await;
            let mut events = Events::of(&client, stream, usize::MAX).await;
            for piece in 0.. {
                let event = events.next().await.expect("it ended without a word");
                if event.get("error").is_some() {
                    return (piece, event, Instant::now());
                }
                assert_eq!(number(&event), (stream, piece));
                if piece == 1 {
                    begun.send_modify(|begun| *begun += 1);
                }
            }
            unreachable!("an endless stream ends with an error");
        })
    });
    let streams: Vec<_> = streams.collect();
    timeout(PATIENCE, all_begun.wait_for(|begun| *begun == load.streams)).await.expect("not all begin").unwrap();

    let (address, died) = (upstream.address, Instant::now());
    drop(upstream);
    let ends = timeout(PATIENCE, join_all(streams)).await.expect("a stream hangs");
    let mut longest = Duration::ZERO;
    for (pieces, event, at) in ends.into_iter().map(Result::unwrap) {
        assert!(pieces >= 2);
        let error = &event["error"];
        assert_eq!((&error["code"], &error["status"]), (&json!(503), &json!("UNAVAILABLE")), "{event}");
        assert_eq!(error["details"][0]["domain"], "tower-gemini", "{event}");
        longest = longest.max(at - died);
    }
    println!("{} streams ended with an error event, the last one {longest:?} after the upstream", load.streams);

    // The relay answers with errors while the upstream is gone, and with content as soon as it is back.
    assert_eq!(ask(&client).await, StatusCode::SERVICE_UNAVAILABLE);
    let _again = Upstream::start(load, Some(address)).await;
    let answered = async {
        while ask(&client).await != StatusCode::OK {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, answered).await.expect("it does not answer any more");
    wave(&relay, &client, load, 3).await;
}

/// Opens all streams, reads each to its end, and returns the most memory that the relay had meanwhile, in KiB.
async fn wave(relay: &Relay, client: &Client<Full<Bytes>>, load: Load, pieces: usize) -> usize {
    let begin = Instant::now();
    let streams = (0..load.streams).map(|stream| {
        let client = client.clone();
        tokio::spawn(async move {
            sleep_until(begin + load.ramp * stream as u32 / load.streams as u32).await;
            let mut events = Events::of(&client, stream, pieces).await;
            for piece in 0..pieces {
                let event = events.next().await.unwrap_or_else(|| panic!("{stream} ended before its piece {piece}"));
                assert_eq!(number(&event), (stream, piece), "not the piece that comes next");
                let finish = &event["candidates"][0]["finishReason"];
                assert_eq!(finish.as_str(), (piece + 1 == pieces).then_some("STOP"));
            }
            assert_eq!(events.next().await, None);
        })
    });
    let mut all = pin!(join_all(streams));
    let (mut most, mut ticks) = (0, interval(Duration::from_millis(100)));
    loop {
        tokio::select! {
            ended = &mut all => {
                ended.into_iter().for_each(Result::unwrap);
                return most;
            }
            _ = ticks.tick() => most = most.max(resident(relay)),
        }
    }
}

async fn relay(upstream: &Upstream) -> Relay {
    let upstream = format!("upstream = \"http://{}\"\n[[keys]]\nkey = \"key-of-the-relay\"\n", upstream.address);
    Relay::start(&format!("{upstream}[retry]\nmax_attempts = 2\nbase_delay = \"5ms\"\non_open = \"fail\"\n")).await
}

/// Returns the relay's memory in KiB.
fn resident(relay: &Relay) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", relay.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

// --- the caller ---

fn client(relay: &Relay) -> Client<Full<Bytes>> {
    Client::builder().base_url(relay.uri()).build().unwrap()
}

async fn ask(client: &Client<Full<Bytes>>) -> StatusCode {
    let request = Request::post(UNARY).body(Full::from(prompt(0, 1))).unwrap();
    let response = timeout(PATIENCE, client.clone().oneshot(request)).await.expect("no answer").unwrap();
    let status = response.status();
    timeout(PATIENCE, response.into_body().collect()).await.expect("no end").unwrap();
    status
}

fn prompt(stream: usize, pieces: usize) -> String {
    json!({ "contents": [{ "parts": [{ "text": format!("{stream} {pieces}") }] }] }).to_string()
}

/// Returns the numbers of the stream and of the piece that an event carries.
fn number(event: &Value) -> (usize, usize) {
    let text = event["candidates"][0]["content"]["parts"][0]["text"].as_str().unwrap_or_else(|| panic!("{event}"));
    let mut words = text.split(' ').map(|word| word.parse().unwrap());
    (words.next().unwrap(), words.next().unwrap())
}

/// The events of one stream.
struct Events {
    body: ResponseBody,
    unread: Vec<u8>,
}

impl Events {
    async fn of(client: &Client<Full<Bytes>>, stream: usize, pieces: usize) -> Self {
        let request = Request::post(STREAM).body(Full::from(prompt(stream, pieces))).unwrap();
        let response = timeout(PATIENCE, client.clone().oneshot(request)).await.expect("no headers").unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        Self { body: response.into_body(), unread: Vec::new() }
    }

    /// Returns the next event, or `None` at the end. A connection that breaks fails the test.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\n\n" || two == b"\n\r") {
                let event: Vec<u8> = self.unread.drain(..=end).collect();
                self.unread.drain(..self.unread.iter().take_while(|byte| b"\r\n".contains(byte)).count());
                let data = event.trim_ascii().strip_prefix(b"data: ").expect("no data");
                return Some(serde_json::from_slice(data).unwrap());
            }
            match timeout(PATIENCE, self.body.frame()).await.expect("it hangs") {
                Some(frame) => self.unread.extend(frame.unwrap().into_data().unwrap_or_default()),
                None if self.unread.is_empty() => return None,
                None => panic!("it broke off in {:?}", String::from_utf8_lossy(&self.unread)),
            }
        }
    }
}

// --- the upstream ---

/// An upstream on a thread of its own that streams numbered pieces. A stream's second piece waits until all streams are
/// open, so that they are open at once. All connections break when it is dropped.
struct Upstream {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Upstream {
    async fn start(load: Load, address: Option<SocketAddr>) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        let all_open = Arc::new(Barrier::new(load.streams));
        let serving = async move {
            let listener = TcpListener::bind(address).await.unwrap();
            let address = listener.local_addr().unwrap();
            let app = Router::new().fallback(move |body| {
                let all_open = all_open.clone();
                async move { answer(body, load.between_pieces, all_open) }
            });
            tokio::spawn(async move { axum::serve(listener, app).await });
            address
        };
        let address = runtime.spawn(serving).await.unwrap();
        Self { address, runtime: Some(runtime) }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

fn answer(request: Bytes, between_pieces: Duration, all_open: Arc<Barrier>) -> Response {
    let request: Value = serde_json::from_slice(&request).unwrap();
    let text = request["contents"][0]["parts"][0]["text"].as_str().unwrap();
    let (stream, pieces) = text.split_once(' ').unwrap();
    let (stream, pieces): (usize, usize) = (stream.parse().unwrap(), pieces.parse().unwrap());
    let padding = "0".repeat(PADDING);
    let piece = move |piece: usize| {
        let finish = if piece + 1 == pieces { r#","finishReason":"STOP""# } else { "" };
        let text = format!("{stream} {piece} {padding}");
        format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}],"role":"model"}}{finish},"index":0}}]}}"#
        )
    };
    if pieces == 1 {
        return ([(CONTENT_TYPE, "application/json")], piece(0)).into_response();
    }
    let events = unfold((0, all_open), move |(next, all_open)| {
        let event = (next < pieces).then(|| format!("data: {}\r\n\r\n", piece(next)));
        async move {
            match next {
                0 => {}
                1 => {
                    all_open.wait().await;
                }
                _ => sleep(between_pieces).await,
            }
            Some((Ok::<_, Infallible>(event?), (next + 1, all_open)))
        }
    });
    ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}
