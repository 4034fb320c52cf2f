//! An upstream that ends each call as its prompt says: the emulator's answers, cut, emptied, or with an error in them.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{Request, Response, StatusCode, header::CONTENT_TYPE, request, response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use parking_lot::Mutex;
use tokio::{net::TcpListener, task::JoinHandle, time::sleep};
use tower::ServiceExt;
use tower_gemini::emulator::{Emulator, Reply, Trouble, When};

/// The relay's key.
pub(crate) const KEY: &str = "key-of-the-relay";

/// The text of a whole answer. A stream has a word in each event.
pub(crate) const TEXT: &str = "alpha beta gamma delta";

/// A silence that is longer than the relay's `keep_alive`.
const SILENCE: Duration = Duration::from_millis(1_300);

/// A time in which the bytes before it arrive.
const MOMENT: Duration = Duration::from_millis(30);

/// More than the relay holds of an event that has not ended.
const LONG: usize = 80 * 1024;

/// A running upstream. It ends when it is dropped.
pub(crate) struct Upstream {
    address: SocketAddr,
    requests: Requests,
    server: JoinHandle<()>,
}

/// The number of requests for each prompt.
type Requests = Arc<Mutex<HashMap<String, usize>>>;

/// A piece of an answer's body.
enum Piece {
    Bytes(Bytes),
    Silence(Duration),
    /// The connection breaks.
    Break,
}

/// A whole answer, of the surface that was asked.
struct Answer {
    parts: response::Parts,
    body: Bytes,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, requests) = (listener.local_addr().unwrap(), Requests::default());
        let shared = requests.clone();
        let server = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let requests = shared.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| respond(request, requests.clone()));
                    // The service's error is a connection that breaks without an answer.
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(connection), service)
                        .await;
                });
            }
        });
        Self { address, requests, server }
    }

    pub(crate) fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns how many requests had this prompt.
    pub(crate) fn requests(&self, prompt: &str) -> usize {
        self.requests.lock().get(prompt).copied().unwrap_or(0)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Returns the prompt of a cell, which names its ending.
pub(crate) fn prompt(client: &str, ending: &str, way: &str) -> String {
    format!("[[{client} {ending} {way}]]")
}

async fn respond(
    request: Request<Incoming>,
    requests: Requests,
) -> io::Result<Response<UnsyncBoxBody<Bytes, io::Error>>> {
    let broken = || io::Error::from(io::ErrorKind::ConnectionReset);
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let prompt =
        String::from_utf8_lossy(&body).split_once("[[").and_then(|(_, rest)| rest.split_once("]]")).map_or_else(
            // A list of models, or the like.
            || "- good -".to_owned(),
            |(prompt, _)| prompt.to_owned(),
        );
    *requests.lock().entry(format!("[[{prompt}]]")).or_default() += 1;
    let ending = prompt.split(' ').nth(1).unwrap_or("good").to_owned();
    let Some((parts, pieces)) = end(&ending, &parts, &body).await else { return Err(broken()) };
    let frames = stream::iter(pieces).filter_map(move |piece| async move {
        match piece {
            Piece::Bytes(bytes) => Some(Ok(Frame::data(bytes))),
            Piece::Silence(time) => {
                sleep(time).await;
                None
            }
            Piece::Break => Some(Err(broken())),
        }
    });
    Ok(Response::from_parts(parts, StreamBody::new(frames).boxed_unsync()))
}

/// Answers a request in a way. `None`: the connection breaks before it.
async fn end(ending: &str, request: &request::Parts, body: &Bytes) -> Option<(response::Parts, Vec<Piece>)> {
    let overloaded = Trouble::overloaded;
    let ask = |trouble| ask(request, body, trouble);
    let (quiet, ending) = match ending.strip_prefix("quiet-") {
        Some(ending) => (true, ending),
        None => (false, ending),
    };
    if quiet {
        // Before the head, as a model that thinks.
        sleep(SILENCE).await;
    }
    let (parts, mut pieces) = match ending {
        // A call that the relay should have refused is answered.
        "good" | "limit" | "open" => ask(Trouble::none()).await.whole(),
        // --- within a stream ---
        "cut" => ask(Trouble::none()).await.cut_after(2, |_| None),
        "half" => ask(Trouble::none()).await.cut_after(1, |next| Some(next.split_at(next.len() / 2).0.to_owned())),
        "half-long" => {
            let long =
                |next: &str| next.split_once("beta").map(|(begin, _)| format!("{begin}beta{}", "x".repeat(LONG)));
            ask(Trouble::none()).await.cut_after(1, long)
        }
        "short" => {
            let (parts, mut pieces) = ask(Trouble::none()).await.whole();
            pieces.truncate(2);
            (parts, pieces)
        }
        "told" => ask(overloaded().in_stream(2)).await.whole(),
        // --- before any content ---
        "reset" => return None,
        "early" => {
            let (parts, _) = ask(Trouble::none()).await.whole();
            (parts, vec![Piece::Silence(MOMENT), Piece::Break])
        }
        "empty" => ask(Trouble::none()).await.with(""),
        "braces" => ask(Trouble::none()).await.with("{}"),
        "first" => {
            let mut answer = ask(overloaded().in_stream(0)).await;
            answer.parts.status = StatusCode::OK;
            answer.whole()
        }
        "list" => {
            let answer = ask(overloaded()).await;
            let error = String::from_utf8_lossy(&answer.body).into_owned();
            let list = if error.trim_start().starts_with('[') { error } else { format!("[{error}]") };
            let mut answer = Answer { body: list.into(), ..answer };
            answer.parts.status = StatusCode::OK;
            answer.whole()
        }
        // --- refused ---
        "503" => ask(overloaded()).await.whole(),
        "503-empty" => ask(overloaded()).await.with(""),
        "503-html" => ask(overloaded()).await.with("<html><body>503 Service Unavailable</body></html>"),
        other => panic!("{other} is no ending"),
    };
    if quiet && pieces.len() > 1 {
        // Between events, and before the end.
        pieces.insert(1, Piece::Silence(SILENCE));
        let last = pieces.len() - usize::from(matches!(pieces.last(), Some(Piece::Break)));
        pieces.insert(last, Piece::Silence(SILENCE));
    }
    Some((parts, pieces))
}

/// Asks an emulator that has this trouble with each call.
async fn ask(request: &request::Parts, body: &Bytes, trouble: Trouble) -> Answer {
    let emulator = Emulator::builder()
        .key(KEY, "p1")
        .reply(Reply::Text(TEXT.to_owned()))
        .chunks(TEXT.split(' ').count())
        .trouble(When::always(), trouble)
        .build();
    let asked = Request::from_parts(request.clone(), Full::new(body.clone()));
    let (mut parts, body) = emulator.oneshot(asked).await.unwrap().into_parts();
    // The length may change.
    parts.headers.remove(http::header::CONTENT_LENGTH);
    Answer { parts, body: body.collect().await.unwrap().to_bytes() }
}

impl Answer {
    fn with(self, body: &'static str) -> (response::Parts, Vec<Piece>) {
        Self { body: body.into(), ..self }.whole()
    }

    /// Returns the whole answer; of a stream, event by event.
    fn whole(self) -> (response::Parts, Vec<Piece>) {
        let pieces = self.events().into_iter().map(|event| Piece::Bytes(event.into())).collect();
        (self.parts, pieces)
    }

    /// Ends a stream after some events with text, and after what there is of the next.
    fn cut_after(self, words: usize, next: fn(&str) -> Option<String>) -> (response::Parts, Vec<Piece>) {
        let mut events = self.events();
        let with_text: Vec<_> = (0..events.len())
            .filter(|at| TEXT.split(' ').any(|word| events[*at].contains(word)) && !events[*at].contains(TEXT))
            .collect();
        let next = next(&events[with_text[words]]);
        events.truncate(with_text[words]);
        events.extend(next);
        let sent = events.into_iter().map(|event| Piece::Bytes(event.into()));
        (self.parts, sent.chain([Piece::Silence(MOMENT), Piece::Break]).collect())
    }

    fn events(&self) -> Vec<String> {
        let body = String::from_utf8_lossy(&self.body).into_owned();
        if self.parts.headers.get(CONTENT_TYPE).is_none_or(|kind| !kind.as_bytes().starts_with(b"text/event-stream")) {
            return Vec::from([body]);
        }
        let end = if body.contains("\r\n\r\n") { "\r\n\r\n" } else { "\n\n" };
        body.split_inclusive(end).map(str::to_owned).collect()
    }
}
