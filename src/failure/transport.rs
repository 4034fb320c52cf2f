//! Judges transport errors: above all, whether the upstream can have got the request.
//!
//! That one bit decides whether a call that must not run twice may be sent again. A request counts as not sent only
//! where the protocol proves it: no connection was made; the server refused the stream (RFC 9113, 8.7); the server's
//! GOAWAY excluded it (h2 reports a remote GOAWAY only to the streams above the last one that the server will process);
//! or hyper gives the request back because the pooled connection had closed before it was written. Everything else may
//! have arrived.

use std::{error::Error as StdError, io};

use super::{Kind, TimeoutKind};

/// Returns the kind that the chain of sources shows. The most telling link wins, wherever it is.
pub(super) fn kind(error: &(dyn StdError + 'static)) -> Kind {
    let mut found = None;
    let mut link = Some(error);
    // Longer chains do not occur, but a chain could be circular.
    for _ in 0..32 {
        let Some(error) = link else { break };
        if let Some(kind) = of_link(error) {
            found = Some(found.map_or(kind, |known| more_telling(known, kind)));
        }
        link = source(error);
    }
    found.unwrap_or(Kind::Transport)
}

/// Returns the source. `io::Error::other(e).source()` skips `e` itself, although `e` tells the most.
fn source<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    carried.map(|carried| carried as &(dyn StdError + 'static)).or_else(|| error.source())
}

fn of_link(error: &(dyn StdError + 'static)) -> Option<Kind> {
    if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
        return error.is_connect().then_some(Kind::Connect);
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return of_hyper(error);
    }
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        return of_h2(error);
    }
    if error.is::<tokio::time::error::Elapsed>() {
        return Some(Kind::Timeout(TimeoutKind::Attempt));
    }
    if error.is::<http::Error>() {
        return Some(Kind::BadRequest);
    }
    of_io(error.downcast_ref::<io::Error>()?)
}

fn of_hyper(error: &hyper::Error) -> Option<Kind> {
    if error.is_canceled() {
        Some(Kind::NotSent)
    } else if error.is_user() {
        // Most often the request's own body failed, which is not the upstream's doing.
        Some(Kind::RequestBody)
    } else if error.is_incomplete_message() || error.is_closed() || error.is_body_write_aborted() || error.is_timeout()
    {
        Some(Kind::Reset)
    } else if error.is_parse() {
        Some(Kind::Transport)
    } else {
        None
    }
}

fn of_h2(error: &h2::Error) -> Option<Kind> {
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    if error.is_remote() && (refused || error.is_go_away()) {
        Some(Kind::NotSent)
    } else if error.is_reset() || error.is_go_away() {
        Some(Kind::Reset)
    } else {
        None
    }
}

fn of_io(error: &io::Error) -> Option<Kind> {
    use io::ErrorKind::*;
    match error.kind() {
        ConnectionRefused | HostUnreachable | NetworkUnreachable | AddrNotAvailable => Some(Kind::Connect),
        ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof | TimedOut | NotConnected | NetworkDown => {
            Some(Kind::Reset)
        }
        _ => None,
    }
}

/// Returns the more telling kind: a proof that nothing was sent goes first, the vague kinds last.
fn more_telling(known: Kind, new: Kind) -> Kind {
    let rank = |kind: Kind| match kind {
        Kind::Connect => 5,
        Kind::NotSent => 4,
        Kind::RequestBody | Kind::BadRequest => 3,
        Kind::Timeout(_) => 2,
        Kind::Reset => 1,
        _ => 0,
    };
    if rank(new) > rank(known) { new } else { known }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Wrapped(Box<dyn StdError + Send + Sync>);

    impl std::fmt::Display for Wrapped {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("wrapped")
        }
    }

    impl StdError for Wrapped {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&*self.0)
        }
    }

    fn of(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Kind {
        kind(&Wrapped(error.into()))
    }

    #[test]
    fn refused_streams_were_not_sent() {
        // h2 makes errors from reasons as if they were local; only the remote ones prove anything.
        assert_eq!(of(h2::Error::from(h2::Reason::REFUSED_STREAM)), Kind::Transport);
        assert_eq!(of(io::Error::from(io::ErrorKind::ConnectionRefused)), Kind::Connect);
        assert_eq!(of(io::Error::from(io::ErrorKind::ConnectionReset)), Kind::Reset);
        assert_eq!(of("something of the user's own"), Kind::Transport);
    }

    #[test]
    fn errors_inside_io_errors_are_seen() {
        let inner = io::Error::other(Wrapped(io::Error::from(io::ErrorKind::BrokenPipe).into()));
        assert_eq!(of(io::Error::other(inner)), Kind::Reset);
    }

    #[tokio::test(start_paused = true)]
    async fn an_elapsed_timer_is_the_attempts() {
        let elapsed = tokio::time::timeout(std::time::Duration::from_secs(1), std::future::pending::<()>()).await;
        assert_eq!(of(elapsed.unwrap_err()), Kind::Timeout(TimeoutKind::Attempt));
    }

    /// Returns the error of a client whose one request is answered by `answer`.
    async fn h2_answer(answer: impl FnOnce(h2::server::SendResponse<bytes::Bytes>) + Send + 'static) -> h2::Error {
        let (client, server) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(server).await.unwrap();
            let mut answer = Some(answer);
            while let Some(Ok((_, respond))) = connection.accept().await {
                answer.take().unwrap()(respond);
            }
        });
        let (sender, connection) = h2::client::handshake(client).await.unwrap();
        tokio::spawn(connection);
        let mut sender = sender.ready().await.unwrap();
        let (response, _) = sender.send_request(http::Request::new(()), true).unwrap();
        response.await.unwrap_err()
    }

    #[tokio::test]
    async fn a_stream_that_the_server_refuses_was_not_sent_and_one_that_it_resets_may_have_been() {
        assert_eq!(of(h2_answer(|mut respond| respond.send_reset(h2::Reason::REFUSED_STREAM)).await), Kind::NotSent);
        assert_eq!(of(h2_answer(|mut respond| respond.send_reset(h2::Reason::INTERNAL_ERROR)).await), Kind::Reset);
    }

    #[tokio::test]
    async fn a_stream_beyond_the_servers_goaway_was_not_sent() {
        let (client, server) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(server).await.unwrap();
            // Last stream 0: nothing was looked at.
            connection.abrupt_shutdown(h2::Reason::NO_ERROR);
            let _ = connection.accept().await;
        });
        let (sender, connection) = h2::client::handshake(client).await.unwrap();
        let mut sender = sender.ready().await.unwrap();
        let (response, _) = sender.send_request(http::Request::new(()), true).unwrap();
        tokio::spawn(connection);
        assert_eq!(of(response.await.unwrap_err()), Kind::NotSent);
    }

    #[test]
    fn a_bad_header_is_a_bad_request() {
        let error: http::Error = http::HeaderValue::from_bytes(b"\n").unwrap_err().into();
        assert_eq!(of(error), Kind::BadRequest);
    }
}
