//! Measures the delay of the events of a stream, with `ErrorResponseLayer`, which holds each event until it is whole, and
//! without it.
//!
//! # How it measures
//!
//! Two servers of hyper's answer one stream each over HTTP/1 on a loopback socket, on one thread; one of them has the layer.
//! The upstream of both is a body that is fed by hand. An event of 1 KiB is fed to the one, and the clock runs from its last
//! byte until a reader at the other end of the socket has that byte; then the same is done with the other. So the two take
//! turns with each event, and what else the machine does meets both alike. The order changes with each turn.
//!
//! Events come as one frame each, as two (the JSON, and then the blank line), and eight in a frame.
//!
//! `cargo bench -p benches --bench chunk_delay` prints p50 and p99 of both, and their ratio; with `-- --test` it makes a few
//! turns only, whose ratio says little.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tower::{Layer, Service};
use tower_gemini::{BoxError, ClassifyLayer, ErrorResponseLayer};

/// The turns that are not counted.
const WARM: usize = 2_000;
const TURNS: usize = 20_000;

const STREAM: &str = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse";

fn main() {
    let is_test = std::env::args().any(|arg| arg == "--test");
    let (warm, turns) = if is_test { (20, 200) } else { (WARM, TURNS) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    println!(
        "\n{:<26} {:>12} {:>12} {:>7} {:>12} {:>12} {:>7}",
        "events of 1 KiB", "p50 without", "with", "ratio", "p99 without", "with", "ratio"
    );
    for (name, frames) in [
        ("a frame each", vec![Bytes::from(event())]),
        ("two frames each", vec![Bytes::from(event().trim_end().to_owned()), Bytes::from_static(b"\n\n")]),
        ("eight in a frame", vec![Bytes::from(event().repeat(8))]),
    ] {
        let [mut without, mut with] = runtime.block_on(delays(&frames, warm, turns));
        let [p50, p99] = [50, 99].map(|percent| [at(&mut without, percent), at(&mut with, percent)]);
        let ratio = |[without, with]: [Duration; 2]| with.as_secs_f64() / without.as_secs_f64();
        let columns = [p50, p99].map(|pair| format!("{:>12.1?} {:>12.1?} {:>7.3}", pair[0], pair[1], ratio(pair)));
        println!("{name:<26} {} {}", columns[0], columns[1]);
    }
}

fn event() -> String {
    let frame = |text: &str| {
        format!(
            r#"data: {{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}],"role":"model"}},"index":0}}],"modelVersion":"gemini-2.5-flash"}}"#
        ) + "\n\n"
    };
    let text = "x".repeat(1024 - frame("").len());
    frame(&text)
}

fn at(delays: &mut [Duration], percent: usize) -> Duration {
    delays.sort_unstable();
    delays[(delays.len() * percent / 100).min(delays.len() - 1)]
}

/// Returns the delays without the layer, and with it.
async fn delays(frames: &[Bytes], warm: usize, turns: usize) -> [Vec<Duration>; 2] {
    let mut without = Stream::open(|upstream| upstream).await;
    let mut with = Stream::open(|upstream| ErrorResponseLayer::new().layer(upstream)).await;
    let mut delays = [Vec::with_capacity(turns), Vec::with_capacity(turns)];
    for turn in 0..warm + turns {
        let mut found = [Duration::ZERO; 2];
        for nth in [turn % 2, (turn + 1) % 2] {
            let stream = if nth == 0 { &mut without } else { &mut with };
            found[nth] = stream.delay(frames).await;
        }
        if turn >= warm {
            delays.iter_mut().zip(found).for_each(|(delays, found)| delays.push(found));
        }
    }
    delays
}

/// A stream from its upstream to its reader.
struct Stream {
    upstream: UnboundedSender<Bytes>,
    reader: TcpStream,
    buffer: Vec<u8>,
}

impl Stream {
    async fn open<S, R>(stack: impl FnOnce(Classified) -> S) -> Self
    where
        S: Service<Request<hyper::body::Incoming>, Response = Response<R>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let (upstream, frames) = unbounded_channel();
        let service = stack(ClassifyLayer::new().layer(Source(Arc::new(Mutex::new(Some(Fed(frames)))))));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut reader = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let (accepted, _) = listener.accept().await.expect("a connection");
        accepted.set_nodelay(true).expect("a socket");
        let builder = auto::Builder::new(TokioExecutor::new());
        let connection = builder.serve_connection(TokioIo::new(accepted), TowerToHyperService::new(service));
        tokio::spawn(connection.into_owned().map(drop));
        let request = format!("POST {STREAM} HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{{}}");
        reader.write_all(request.as_bytes()).await.expect("a write");
        Self { upstream, reader, buffer: vec![0; 64 * 1024] }
    }

    /// Feeds the frames, and returns the time from the last of them to the arrival of its last byte.
    async fn delay(&mut self, frames: &[Bytes]) -> Duration {
        let (last, first) = frames.split_last().expect("a frame");
        for frame in first {
            self.upstream.send(frame.clone()).expect("a server");
            // The server takes it, as it would if the rest came later.
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
        }
        let awaited: isize = frames.iter().map(|frame| line_feeds(frame)).sum();
        let begin = now();
        self.upstream.send(last.clone()).expect("a server");
        let mut come = 0;
        while come < awaited {
            let length = self.reader.read(&mut self.buffer).await.expect("a read");
            assert!(length > 0, "the stream ended");
            come += line_feeds(&self.buffer[..length]);
        }
        begin.elapsed()
    }
}

/// Counts the line feeds of events: those of HTTP's chunks come behind a CR.
fn line_feeds(bytes: &[u8]) -> isize {
    bytes.iter().map(|byte| isize::from(*byte == b'\n') - isize::from(*byte == b'\r')).sum()
}

/// An upstream of one stream.
#[derive(Clone)]
struct Source(Arc<Mutex<Option<Fed>>>);

type Classified = tower_gemini::classify::Classify<Source>;

impl<B> Service<Request<B>> for Source {
    type Response = Response<Fed>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Fed>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        let body = self.0.lock().take().expect("one call");
        let response = Response::builder().header(CONTENT_TYPE, "text/event-stream").body(body);
        ready(Ok(response.expect("a good response")))
    }
}

/// A body that is fed by hand.
struct Fed(UnboundedReceiver<Bytes>);

impl Body for Fed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}

#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
fn now() -> Instant {
    Instant::now()
}
