//! The journal: each request, its answer, and its end.

use std::{collections::VecDeque, time::Duration};

use http::{HeaderMap, Method, StatusCode, Version, header, request::Parts};

use crate::{
    call::{Call, Operation, ServiceTier, Streaming, Surface},
    emulator::wire::cut::cut,
};

/// A request in the journal, with its answer. It holds the key's fingerprint, never the key; and the body's size with
/// the first [`PROMPT_START`](Self::PROMPT_START) characters of the prompt, never the body.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Visit {
    /// The number of the visit, counted from 0 in the order of arrival.
    pub number: u64,
    /// The time of arrival, since the emulator's start.
    pub at: Duration,
    /// The HTTP version of the request.
    pub version: Version,
    /// The connection of the request, counted from 0; `None` in process.
    pub connection: Option<u64>,
    /// The HTTP method.
    pub method: Method,
    /// The path, without the query, cut to 512 bytes.
    pub path: String,
    /// The headers `accept`, `accept-encoding`, `content-length`, `content-type`, `host`, `user-agent`,
    /// `x-goog-api-client` and `x-server-timeout`, as they came. Credentials are never among them.
    pub headers: HeaderMap,
    /// The surface of the API that was called.
    pub surface: Surface,
    /// The operation that was called.
    pub operation: Operation,
    /// The form in which the answer was requested: in one piece, as events, or as an array.
    pub streaming: Streaming,
    /// The model that was requested, cut to 128 bytes; or the agent, as `agents/NAME`.
    pub model: Option<String>,
    /// The tier of service that was asked for, if the request named one.
    pub tier: Option<ServiceTier>,
    /// The key's project, once the key was accepted.
    pub project: Option<String>,
    /// The key's fingerprint, as [`Emulator::fingerprint`](crate::emulator::Emulator::fingerprint) returns it.
    pub key: Option<String>,
    /// The bytes of the request's body, as far as it was read.
    pub body_bytes: usize,
    /// The beginning of the prompt.
    pub prompt: String,
    /// The number of input tokens, by the emulator's estimate.
    pub input_tokens: u64,
    /// The status of the answer, once its headers were sent.
    pub status: Option<StatusCode>,
    /// The [name](crate::emulator::Trouble::name) of the trouble that struck.
    pub trouble: Option<&'static str>,
    /// The number of pieces of the answer's body that were sent.
    pub chunks: u64,
    /// The bytes of the answer's body that were sent.
    pub bytes_sent: u64,
    /// The time at which the first piece was sent, since the emulator's start.
    pub first_chunk_at: Option<Duration>,
    /// The end of the request; `None` while it is in flight.
    pub end: Option<End>,
    /// The time of the end, since the emulator's start.
    pub ended_at: Option<Duration>,
}

/// The end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum End {
    /// The last byte of the answer was sent.
    Finished,
    /// The peer closed the connection, or dropped the call, before the headers were sent.
    DroppedBeforeHeaders,
    /// The peer closed the connection, or dropped the body, before the body's end.
    DroppedInBody,
    /// The emulator reset the connection, as its script demands.
    Reset,
}

impl Visit {
    /// The number of characters that are kept of a prompt.
    pub const PROMPT_START: usize = 120;

    /// Returns whether the request has not ended yet.
    pub fn is_in_flight(&self) -> bool {
        self.end.is_none()
    }
}

/// The latest visits, and the number of requests in flight.
#[derive(Debug)]
pub(crate) struct Journal {
    visits: VecDeque<Visit>,
    capacity: usize,
    next: u64,
    in_flight: usize,
}

const JOURNALED_HEADERS: [header::HeaderName; 8] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::HOST,
    header::USER_AGENT,
    header::HeaderName::from_static("x-goog-api-client"),
    header::HeaderName::from_static("x-server-timeout"),
];

// === impl Journal ===

impl Journal {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { visits: VecDeque::new(), capacity: capacity.max(1), next: 0, in_flight: 0 }
    }

    pub(crate) fn visits(&self) -> impl Iterator<Item = &Visit> {
        self.visits.iter()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns the visit with that number, unless the journal has dropped it.
    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut Visit> {
        let first = self.visits.front()?.number;
        self.visits.get_mut(usize::try_from(number.checked_sub(first)?).ok()?)
    }

    /// Notes the end of the visit with that number.
    pub(crate) fn close(&mut self, number: u64, end: End, at: Duration) {
        self.in_flight -= 1;
        if let Some(visit) = self.get_mut(number) {
            visit.end = Some(end);
            visit.ended_at = Some(at);
        }
    }

    /// Adds a visit, and returns its number.
    pub(crate) fn open(&mut self, head: &Parts, call: &Call, connection: Option<u64>, at: Duration) -> u64 {
        let number = self.next;
        self.next += 1;
        self.in_flight += 1;
        if self.visits.len() == self.capacity {
            self.visits.pop_front();
        }
        let known = JOURNALED_HEADERS.into_iter().flat_map(|name| {
            let values = head.headers.get_all(&name).iter().cloned().collect::<Vec<_>>();
            values.into_iter().map(move |value| (name.clone(), value))
        });
        self.visits.push_back(Visit {
            number,
            at,
            version: head.version,
            connection,
            method: head.method.clone(),
            path: cut(head.uri.path(), 512),
            headers: known.collect(),
            surface: call.surface(),
            operation: call.operation(),
            streaming: call.streaming(),
            model: call.model().map(|model| cut(model, 128)),
            tier: None,
            project: None,
            key: None,
            body_bytes: 0,
            prompt: String::new(),
            input_tokens: 0,
            status: None,
            trouble: None,
            chunks: 0,
            bytes_sent: 0,
            first_chunk_at: None,
            end: None,
            ended_at: None,
        });
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_drops_the_oldest() {
        let (head, ()) = http::Request::new(()).into_parts();
        let call = Call::new(&head.method, &head.uri);
        let mut journal = Journal::new(2);
        for at in 0..5 {
            journal.open(&head, &call, None, Duration::from_secs(at));
        }
        assert_eq!(journal.visits().map(|visit| visit.number).collect::<Vec<_>>(), [3, 4]);
        assert!(journal.get_mut(2).is_none());
        assert_eq!(journal.get_mut(4).unwrap().at, Duration::from_secs(4));
        assert_eq!(journal.in_flight(), 5);
    }
}
