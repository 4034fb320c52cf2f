//! The servers that are the bench's own: the upstream, and the proxy without layers.
//!
//! Each is this program again, started with its name, so that its CPU time and its memory are those of a process.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, Request, Response, Uri,
    header::{CONNECTION, CONTENT_TYPE, HOST, TRANSFER_ENCODING},
    uri::{Authority, Scheme},
};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Either, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::{net::TcpListener, time::Sleep};

/// The events of a stream.
pub(crate) const EVENTS: usize = 20;

/// The time between two events of a stream that takes its time.
const PACE: Duration = Duration::from_millis(5);

/// The path of a call with one answer.
pub(crate) const UNARY: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
/// The path of a stream whose events come as fast as they can be written.
pub(crate) const STREAM: &str = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse";
/// The path of a stream whose events come one after the other.
pub(crate) const PACED: &str = "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse";
/// The path of a call in OpenAI's form.
pub(crate) const CHAT: &str = "/v1beta/openai/chat/completions";

/// The word before the time at which an event was sent, in microseconds.
pub(crate) const STAMP: &str = "sent-at-";

/// Answers each call at once with 1 KiB, or with a stream of events, on one thread.
pub(crate) fn upstream() {
    let unary = Bytes::from(unary());
    let chat = Bytes::from(chat());
    let answer = move |request: Request<Incoming>| {
        let (unary, chat) = (unary.clone(), chat.clone());
        async move {
            let path = request.uri().path();
            let paced = path.contains("-pro:");
            let (content_type, body) = if path.ends_with("streamGenerateContent") {
                ("text/event-stream", Either::Right(Events::new(paced)))
            } else if path.ends_with("chat/completions") {
                ("application/json", Either::Left(Full::new(chat)))
            } else {
                ("application/json; charset=UTF-8", Either::Left(Full::new(unary)))
            };
            let mut body_of_request = request.into_body();
            while let Some(frame) = body_of_request.frame().await {
                frame?;
            }
            let response = Response::builder().header(CONTENT_TYPE, content_type);
            Ok::<_, hyper::Error>(response.body(body).expect("a good response"))
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = listen().await;
        loop {
            let (socket, _) = listener.accept().await.expect("a connection");
            let _ = socket.set_nodelay(true);
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(socket), service_fn(answer.clone()));
            tokio::spawn(served);
        }
    });
}

/// The events of a stream. Each is written by itself, as a model makes it: the body is pending after every event, for as long as
/// the other connections have something to do, or for the pace.
struct Events {
    sent: usize,
    rests: bool,
    pace: Option<Pin<Box<Sleep>>>,
}

impl Events {
    fn new(paced: bool) -> Self {
        Self { sent: 0, rests: false, pace: paced.then(|| Box::pin(tokio::time::sleep(PACE))) }
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if this.sent == EVENTS {
            return Poll::Ready(None);
        }
        if let Some(pace) = &mut this.pace {
            ready!(pace.as_mut().poll(cx));
            let next = pace.deadline() + PACE;
            pace.as_mut().reset(next);
        } else {
            this.rests = !this.rests;
            if this.rests {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        this.sent += 1;
        let ends = if this.sent == EVENTS { r#","finishReason":"STOP""# } else { "" };
        let event = format!(
            "data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"{STAMP}{:<26}\"}}],\"role\":\"model\"}}{ends},\"index\":0}}],\"modelVersion\":\"gemini-2.5-flash\"}}\r\n\r\n",
            micros()
        );
        Poll::Ready(Some(Ok(Frame::data(event.into()))))
    }
}

/// Returns the microseconds since 1970, which mean the same in all processes of a machine.
#[expect(clippy::disallowed_methods, reason = "a time that another process reads")]
pub(crate) fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_micros() as u64
}

/// Passes each call on and its answer back, on as many threads as the machine has cores: hyper's server, hyper-util's client, and
/// what a proxy has to do with headers. It is the floor of every relay on this stack.
pub(crate) fn floor(upstream: &str) {
    let authority: Authority = upstream.parse().expect("an address");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build::<_, Incoming>(connector);
        let client = Arc::new(client);
        let listener = listen().await;
        loop {
            let (socket, _) = listener.accept().await.expect("a connection");
            let _ = socket.set_nodelay(true);
            let (client, authority) = (client.clone(), authority.clone());
            let pass = move |mut request: Request<Incoming>| {
                let client = client.clone();
                let mut uri = std::mem::take(request.uri_mut()).into_parts();
                uri.scheme = Some(Scheme::HTTP);
                uri.authority = Some(authority.clone());
                *request.uri_mut() = Uri::from_parts(uri).expect("a good address");
                strip(request.headers_mut());
                async move {
                    let mut response = client.request(request).await?;
                    strip(response.headers_mut());
                    Ok::<_, hyper_util::client::legacy::Error>(response)
                }
            };
            let served =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(socket), service_fn(pass));
            tokio::spawn(served);
        }
    });
}

/// Removes the headers that belong to one connection.
fn strip(headers: &mut HeaderMap) {
    for name in [CONNECTION, HOST, TRANSFER_ENCODING, HeaderName::from_static("keep-alive")] {
        headers.remove(name);
    }
}

/// Listens on a free port, and prints it.
async fn listen() -> TcpListener {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
    println!("listening on http://{}", listener.local_addr().expect("an address"));
    listener
}

/// Returns an answer of 1 KiB.
fn unary() -> String {
    let frame = |text: &str| {
        format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}],"role":"model"}},"finishReason":"STOP","index":0}}],"usageMetadata":{{"promptTokenCount":212,"candidatesTokenCount":144,"totalTokenCount":356}},"modelVersion":"gemini-2.5-flash"}}"#
        )
    };
    frame(&"Half a line. ".repeat(100)[..1024 - frame("").len()])
}

/// Returns an answer of 1 KiB in OpenAI's form.
fn chat() -> String {
    let frame = |text: &str| {
        format!(
            r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1767225600,"model":"gemini-2.5-flash","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":212,"completion_tokens":144,"total_tokens":356}}}}"#
        )
    };
    frame(&"Half a line. ".repeat(100)[..1024 - frame("").len()])
}

/// Returns a request's body of 1 KiB.
pub(crate) fn question() -> String {
    let frame = |text: &str| format!(r#"{{"contents":[{{"parts":[{{"text":"{text}"}}],"role":"user"}}]}}"#);
    frame(&"Half a line. ".repeat(100)[..1024 - frame("").len()])
}

/// Returns a request's body of 1 KiB in OpenAI's form.
pub(crate) fn chat_question() -> String {
    let frame =
        |text: &str| format!(r#"{{"model":"gemini-2.5-flash","messages":[{{"role":"user","content":"{text}"}}]}}"#);
    frame(&"Half a line. ".repeat(100)[..1024 - frame("").len()])
}
