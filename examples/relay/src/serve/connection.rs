//! Serving one connection to its end, or refusing it.
//!
//! A connection ends when it has no call for `header_timeout`, whatever else comes on it: half of a head, PINGs, nothing.
//! It ends when no caller of its answers reads for `unread_timeout`, with a reset, so that the kernel forgets what waits.
//! When the relay is to end, it ends at once if it has no call under way.

use std::{
    convert::Infallible,
    future::pending,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use http::Request;
use http_body::Body as _;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::unconstrained,
    time::{Instant, sleep_until, timeout},
};

use crate::serve::{
    app::Answer,
    connection_body::{AnswerBody, RequestBody},
    connection_life::{Connection, Patience, Verdict},
    connections::{ConnectionPlace, Connections, Full},
    peer::Peer,
    watched_io::WatchedIo,
};

/// The time that a connection without calls has to end by itself: HTTP/2 asks the peer first, which takes a round trip.
const GOODBYE: Duration = Duration::from_millis(500);

/// The most bytes that are read from a connection in one step. A head that has come to that size and is not whole gets 431; the
/// last step may carry it to twice as much. hyper's 408 KiB are so much that a worker copies a body of 31 MiB in a few steps, in
/// which it does nothing else, and each piece of it is mapped and unmapped by the allocator.
const MOST_AT_ONCE: usize = 64 * 1_024;

/// The time in which a refused caller can read the refusal.
const REFUSAL: Duration = Duration::from_secs(1);

/// The beginning of what an HTTP/2 client says first. No method of HTTP/1.1 begins like this.
const HTTP2: &[u8; 3] = b"PRI";

/// Serves one connection to its end.
pub(crate) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    app: impl Fn(Request<Body>) -> Answer + Clone + Send + Sync + 'static,
    patience: Patience,
    place: ConnectionPlace,
) {
    let tally = place.tally();
    let life = Connection::new(tally.clone());
    let thrown_away = Arc::new(AtomicBool::new(false));
    let mut ends = place.ends();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // A builder that finds out the version by itself keeps one more buffer for each connection of HTTP/1.1.
    builder = tokio::select! {
        spoken = timeout(patience.idle, speaks_http2(&stream)) => match spoken {
            Ok(Some(true)) => builder.http2_only(),
            Ok(Some(false)) => builder.http1_only(),
            Ok(None) => builder,
            Err(_) => {
                tally.closed_idle();
                return;
            }
        },
        _ = ends.wait_for(|ends| *ends) => return,
    };
    let io = WatchedIo::new(stream, life.clone(), thrown_away.clone(), patience.unread);
    let (calls, peer) = (life.clone(), Peer::new(peer.ip(), patience.unread));
    let under_way = peer.under_way.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let call = calls.begin();
        let mut request = request.map(|body| match body.is_end_stream() {
            true => Body::new(body),
            false => Body::new(RequestBody { body, _call: call.request() }),
        });
        request.extensions_mut().insert(peer.clone());
        let answer = app(request);
        async move { Ok::<_, Infallible>(answer.await.map(|body| AnswerBody::new(body, call))) }
    });
    // A head that does not come is noticed here, as a connection without a call, so that no head needs a timer
    // of hyper's.
    builder.http1().header_read_timeout(None).max_buf_size(MOST_AT_ONCE);
    // Clients that read only while they are asked for more answer a PING as late as they read.
    let http2 = &mut builder.http2();
    http2.timer(TokioTimer::new()).keep_alive_interval(patience.idle).keep_alive_timeout(patience.unread);
    let connection = builder.serve_connection(TokioIo::new(io), service);
    tokio::pin!(connection);

    let look = sleep_until(Instant::now() + patience.idle.min(patience.unread));
    tokio::pin!(look);
    let (mut leaves, mut quiet_until) = (false, None);
    loop {
        let has_ended = tokio::select! {
            biased;
            // A connection is read before it ends, so that a call that has come in time is served. It does not share tokio's
            // budget of a poll with the clock and the end: a peer that never stops sending uses all of it up.
            //
            // Errors are peers that went away, or that wrote something other than HTTP and got an answer that says so.
            _ = connection.as_mut() => true,
            () = unconstrained(look.as_mut()) => false,
            _ = unconstrained(ends.wait_for(|ends| *ends)), if !leaves => false,
            () = async { if leaves { life.quiet().await } else { pending().await } } => false,
        };
        if has_ended {
            // It ends by itself when it is asked to.
            if !*ends.borrow() && life.judge(patience) == Verdict::Idle {
                tally.closed_idle();
            }
            return;
        }
        under_way.drop_unread();
        let now = Instant::now();
        let (mut next, goes) = match life.judge(patience) {
            Verdict::Stays(next) => (next, false),
            Verdict::PartlyUnread(next) => (next, true),
            Verdict::Idle => (now + GOODBYE, true),
            Verdict::Unread => {
                tally.closed_unread(patience.unread);
                thrown_away.store(true, Ordering::Release);
                return;
            }
        };
        if !leaves && (goes || *ends.borrow()) {
            leaves = true;
            connection.as_mut().graceful_shutdown();
        }
        if leaves {
            let is_quiet = life.is_quiet();
            match quiet_until {
                Some(until) if is_quiet && until <= now => {
                    if !*ends.borrow() {
                        tally.closed_idle();
                    }
                    return;
                }
                Some(until) if is_quiet => next = until,
                _ => quiet_until = is_quiet.then(|| now + GOODBYE),
            }
            next = quiet_until.map_or(next, |until| until.min(next));
        }
        look.as_mut().reset(next);
    }
}

/// Waits for the first bytes of a connection and tells whether they are HTTP/2's; `None` where too few came to tell.
async fn speaks_http2(stream: &TcpStream) -> Option<bool> {
    let mut first = [0; HTTP2.len()];
    let read = stream.peek(&mut first).await.ok()?;
    (read == HTTP2.len() || !HTTP2.starts_with(&first[..read])).then_some(first == *HTTP2)
}

/// Tells a caller that its connection is refused, and closes it: at once where many are refused already.
pub(crate) async fn refuse(mut stream: TcpStream, full: Full, connections: Connections) {
    let Some(_place) = connections.refusal() else { return };
    let (status, word) = full.status();
    let message = format!("{full}; try again later");
    let body = json!({ "error": { "code": status.as_u16(), "message": message, "status": word } }).to_string();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nretry-after: 1\r\nconnection: \
         close\r\n\r\n{body}",
        body.len()
    );
    let said = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // A socket that is closed before all was read is reset, and the caller might not see the answer.
        let mut rest = [0; 1_024];
        while stream.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _ = timeout(REFUSAL, said).await;
}
