//! A reader that is slow, or never reads: all events of a stream that is cut arrive, the error event after them, and then
//! the break. On real sockets, because it is hyper's buffers and the kernel's that lose bytes.

mod support;

use std::{convert::Infallible, future::ready, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use http::Request;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use support::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tower::{Layer, service_fn};
use tower_gemini::{ErrorResponseLayer, error_response::StreamEnding};

const PATIENCE: Duration = Duration::from_secs(60);

/// The events of a stream that is cut in the middle of another.
struct Cut {
    events: usize,
    /// The bytes of text in each.
    size: usize,
}

impl Cut {
    fn event(&self, nth: usize) -> String {
        event(&format!("{nth} {}", "x".repeat(self.size)))
    }

    fn whole(&self) -> String {
        (0..self.events).map(|nth| self.event(nth)).collect()
    }

    fn body(&self) -> AnyBody {
        let half = "data: {\"candidates\":[{\"cont".to_owned();
        broken((0..self.events).map(|nth| self.event(nth)).chain([half]))
    }

    /// Asserts that these are all events and the error, and nothing else.
    fn assert_heard(&self, text: &str) {
        let whole = self.whole();
        let words = text.strip_prefix(&whole).unwrap_or_else(|| {
            panic!("{} of {} bytes, the last: {:?}", text.len(), whole.len(), &text[text.len().saturating_sub(200)..])
        });
        let words = words.strip_prefix("data: ").and_then(|words| words.strip_suffix("\n\n"));
        let words: serde_json::Value = serde_json::from_str(words.expect("no error event")).unwrap();
        assert_eq!(words["error"]["code"], 503);
    }
}

/// A server of one answer a connection, with a small buffer in front of it.
struct Server {
    address: SocketAddr,
    /// The ends of connections.
    ended: mpsc::UnboundedReceiver<Instant>,
}

impl Server {
    fn start(cut: &'static Cut, build: fn(&mut auto::Builder<TokioExecutor>)) -> Self {
        Self::ending(StreamEnding::default(), cut, build)
    }

    fn ending(ending: StreamEnding, cut: &'static Cut, build: fn(&mut auto::Builder<TokioExecutor>)) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(8 * 1024).unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let listener = socket.listen(64).unwrap();
        let address = listener.local_addr().unwrap();
        let (ends, ended) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let ends = ends.clone();
                let upstream =
                    service_fn(move |_: Request<hyper::body::Incoming>| ready(Ok::<_, Infallible>(sse(cut.body()))));
                let service = TowerToHyperService::new(ErrorResponseLayer::new().stream_ending(ending).layer(upstream));
                let mut builder = auto::Builder::new(TokioExecutor::new());
                build(&mut builder);
                let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
                tokio::spawn(connection.map(move |_| ends.send(Instant::now())));
            }
        });
        Self { address, ended }
    }

    async fn connect(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(8 * 1024).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// Asks over HTTP/1.
    async fn ask(&self) -> TcpStream {
        let mut stream = self.connect().await;
        let request = format!("POST {STREAM} HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{{}}");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }
}

/// The pace of a reader.
#[derive(Clone, Copy)]
struct Pace {
    /// The time in which it reads nothing.
    first: Duration,
    piece: usize,
    between: Duration,
}

const PACES: [Pace; 3] = [
    Pace { first: Duration::ZERO, piece: 64 * 1024, between: Duration::ZERO },
    Pace { first: Duration::from_millis(1500), piece: 16 * 1024, between: Duration::from_millis(2) },
    Pace { first: Duration::from_millis(300), piece: 8 * 1024, between: Duration::from_millis(1) },
];

/// Reads an answer over HTTP/1 up to the end of the connection. Returns its text, and whether it ended well.
async fn read_http1(mut stream: TcpStream, pace: Pace) -> (String, bool) {
    sleep(pace.first).await;
    let (mut read, mut piece) = (Vec::new(), vec![0; pace.piece]);
    loop {
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(length) => read.extend_from_slice(&piece[..length]),
        }
        if !pace.between.is_zero() {
            sleep(pace.between).await;
        }
    }
    let head = read.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    assert!(read.starts_with(b"HTTP/1.1 200"));
    let (mut chunks, mut text) = (&read[head..], Vec::new());
    while let Some(line) = chunks.windows(2).position(|window| window == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&chunks[..line]).unwrap(), 16).unwrap();
        if length == 0 {
            return (String::from_utf8(text).unwrap(), true);
        }
        let chunk = &chunks[line + 2..];
        let end = length.min(chunk.len());
        text.extend_from_slice(&chunk[..end]);
        chunks = chunk.get(length + 2..).unwrap_or_default();
    }
    (String::from_utf8(text).unwrap(), false)
}

async fn http1_hears_all(cut: &'static Cut, pace: Pace, build: fn(&mut auto::Builder<TokioExecutor>)) {
    let server = Server::start(cut, build);
    let (text, ended_well) = timeout(PATIENCE, read_http1(server.ask().await, pace)).await.expect("no end");
    cut.assert_heard(&text);
    assert!(!ended_well);
}

/// More than twice what hyper buffers.
static LARGE: Cut = Cut { events: 800, size: 1024 };
/// All of it fits into the buffers of hyper and the kernel.
static SMALL: Cut = Cut { events: 30, size: 1024 };
static HUGE_EVENTS: Cut = Cut { events: 40, size: 50_000 };

#[tokio::test]
async fn a_slow_reader_over_http1_hears_all_events_the_error_and_the_break() {
    for (cut, pace) in
        [(&LARGE, PACES[0]), (&LARGE, PACES[1]), (&LARGE, PACES[2]), (&SMALL, PACES[1]), (&HUGE_EVENTS, PACES[1])]
    {
        http1_hears_all(cut, pace, |_| {}).await;
    }
}

#[tokio::test]
async fn a_slow_reader_over_http1_hears_all_as_long_as_it_reads_where_the_server_copies() {
    for pace in [PACES[0], PACES[2]] {
        http1_hears_all(&LARGE, pace, |builder| {
            builder.http1().writev(false);
        })
        .await;
    }
}

#[tokio::test]
async fn a_slow_reader_over_http1_hears_all_events_before_a_break_without_words() {
    let server = Server::ending(StreamEnding::Break, &LARGE, |_| {});
    let (text, ended_well) = timeout(PATIENCE, read_http1(server.ask().await, PACES[2])).await.expect("no end");
    assert!(text == LARGE.whole() && !ended_well, "{} of {} bytes", text.len(), LARGE.whole().len());
}

#[tokio::test]
async fn a_slow_reader_over_http2_hears_all_events_the_error_and_the_reset() {
    for (cut, pace, window) in [
        (&LARGE, PACES[0], 65_535),
        (&LARGE, PACES[1], 65_535),
        (&SMALL, PACES[1], 5_000),
        (&SMALL, PACES[2], 2_000),
        (&HUGE_EVENTS, PACES[1], 200_000),
    ] {
        let server = Server::start(cut, |builder| {
            builder.http2().max_send_buf_size(64 * 1024);
        });
        let (text, error) = timeout(PATIENCE, read_http2(&server, pace, window)).await.expect("no end");
        cut.assert_heard(&text);
        assert!(error.is_some_and(|error| error.is_reset()));
    }
}

/// Reads an answer over HTTP/2 with a window of that size. Returns its text and the error that ended it.
async fn read_http2(server: &Server, pace: Pace, window: u32) -> (String, Option<h2::Error>) {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(window.max(65_535));
    let (mut client, connection) = builder.handshake::<_, Bytes>(server.connect().await).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("http://h{STREAM}")).body(()).unwrap();
    let (response, mut send) = client.send_request(request, false).unwrap();
    send.send_data(Bytes::from_static(b"{}"), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    sleep(pace.first).await;
    let mut text = Vec::new();
    loop {
        match body.data().await {
            Some(Ok(data)) => {
                text.extend_from_slice(&data);
                if !pace.between.is_zero() {
                    sleep(pace.between).await;
                }
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            Some(Err(error)) => return (String::from_utf8(text).unwrap(), Some(error)),
            None => return (String::from_utf8(text).unwrap(), None),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_never_reads_is_given_up() {
    let mut server = Server::start(&LARGE, |_| {});
    let begin = Instant::now();
    let unread = server.ask().await;
    // The rest of the stream stays in the upstream while the reader does not read; only what is buffered waits.
    // A stream that has ended waits for its words alone.
    let mut small = Server::start(&SMALL, |_| {});
    let unread_too = small.ask().await;
    let ended = small.ended.recv().await.unwrap();
    assert!(
        ended - begin >= Duration::from_secs(29) && ended - begin <= Duration::from_secs(40),
        "{:?}",
        ended - begin
    );
    assert!(server.ended.try_recv().is_err(), "it is the server's to give up a reader in the middle of a stream");
    drop((unread, unread_too));
}
