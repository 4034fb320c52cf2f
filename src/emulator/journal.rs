//! What was asked, what was answered, and how it ended.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use http::{HeaderMap, Method, StatusCode, Version, header, request::Parts};

use super::Shared;
use crate::call::{Call, Operation, Streaming, Surface};

/// One request, as the journal remembers it. Never a key: its fingerprint; never a body: its size, and the first
/// [`PROMPT_START`](Self::PROMPT_START) characters of the prompt.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Visit {
    /// Counted from 0, in the order of arrival.
    pub number: u64,
    /// When it came, since the emulator's start.
    pub at: Duration,
    /// HTTP/1.1 or HTTP/2, as it came in.
    pub version: Version,
    /// The connection it came by, counted from 0; `None` in process.
    pub connection: Option<u64>,
    /// The HTTP method.
    pub method: Method,
    /// The path, without the query, cut to 512 bytes.
    pub path: String,
    /// `accept`, `accept-encoding`, `content-length`, `content-type`, `host`, `user-agent`, `x-goog-api-client` and
    /// `x-server-timeout`, as they came. Credentials are never among them.
    pub headers: HeaderMap,
    /// The dialect.
    pub surface: Surface,
    /// What was asked for.
    pub operation: Operation,
    /// How the answer was to come.
    pub streaming: Streaming,
    /// The model that was asked for, cut to 128 bytes.
    pub model: Option<String>,
    /// The key's project, once the key was accepted.
    pub project: Option<String>,
    /// The key's fingerprint: [`Emulator::fingerprint`](super::Emulator::fingerprint) gives the same.
    pub key: Option<String>,
    /// The size of the request's body, as far as it was read.
    pub body_bytes: usize,
    /// How the prompt begins.
    pub prompt: String,
    /// The input tokens, by the emulator's estimate.
    pub input_tokens: u64,
    /// What was answered, once the headers went out.
    pub status: Option<StatusCode>,
    /// The trouble that struck, by its [name](super::Trouble::name).
    pub trouble: Option<&'static str>,
    /// Pieces of the answer's body that went out.
    pub chunks: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// When the first of them went out, since the emulator's start.
    pub first_chunk_at: Option<Duration>,
    /// How it ended; `None` while it is in flight.
    pub end: Option<End>,
    /// When it ended, since the emulator's start.
    pub ended_at: Option<Duration>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum End {
    /// The last byte of the answer went out.
    Finished,
    /// The peer went away, or dropped the call, before it had headers.
    DroppedBeforeHeaders,
    /// The peer went away, or dropped the body, before its end.
    DroppedInBody,
    /// The emulator reset the connection, because it was told to.
    Reset,
}

impl Visit {
    /// So many characters of a prompt are remembered.
    pub const PROMPT_START: usize = 120;

    /// Whether nothing has ended it yet.
    pub fn is_in_flight(&self) -> bool {
        self.end.is_none()
    }
}

/// The visits that are remembered, and the number of those in flight.
#[derive(Debug)]
pub(super) struct Journal {
    visits: VecDeque<Visit>,
    capacity: usize,
    next: u64,
    in_flight: usize,
}

const REMEMBERED: [header::HeaderName; 8] = [
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
    pub(super) fn new(capacity: usize) -> Self {
        Self { visits: VecDeque::new(), capacity: capacity.max(1), next: 0, in_flight: 0 }
    }

    pub(super) fn visits(&self) -> impl Iterator<Item = &Visit> {
        self.visits.iter()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The visit of that number, unless it has been forgotten.
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Visit> {
        let first = self.visits.front()?.number;
        self.visits.get_mut(usize::try_from(number.checked_sub(first)?).ok()?)
    }

    fn open(&mut self, head: &Parts, call: &Call, connection: Option<u64>, at: Duration) -> u64 {
        let number = self.next;
        self.next += 1;
        self.in_flight += 1;
        if self.visits.len() == self.capacity {
            self.visits.pop_front();
        }
        let known = REMEMBERED.into_iter().flat_map(|name| {
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

/// The text up to so many bytes, never within a character.
pub(super) fn cut(text: &str, bytes: usize) -> String {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}

/// Keeps one visit of the journal up to date, and closes it when it is dropped.
#[derive(Debug)]
pub(super) struct Guard {
    shared: Arc<Shared>,
    number: u64,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    BeforeHeaders,
    InBody,
    Ended,
}

// === impl Guard ===

impl Guard {
    pub(super) fn open(shared: Arc<Shared>, head: &Parts, call: &Call, connection: Option<u64>) -> Self {
        let at = shared.elapsed();
        let number = shared.state.lock().journal.open(head, call, connection, at);
        shared.changed();
        Self { shared, number, phase: Phase::BeforeHeaders }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn headers(&mut self, status: StatusCode) {
        self.phase = Phase::InBody;
        self.write(|visit| visit.status = Some(status));
    }

    pub(super) fn sent(&self, bytes: usize) {
        let now = self.shared.elapsed();
        self.write(|visit| {
            visit.chunks += 1;
            visit.bytes_sent += bytes as u64;
            visit.first_chunk_at.get_or_insert(now);
        });
    }

    pub(super) fn end(&mut self, end: End) {
        if self.phase == Phase::Ended {
            return;
        }
        self.phase = Phase::Ended;
        let now = self.shared.elapsed();
        {
            let mut state = self.shared.state.lock();
            state.journal.in_flight -= 1;
            if let Some(visit) = state.journal.get_mut(self.number) {
                visit.end = Some(end);
                visit.ended_at = Some(now);
            }
        }
        self.shared.changed();
    }

    /// Writes something down, and wakes whoever waits for it.
    pub(super) fn write(&self, write: impl FnOnce(&mut Visit)) {
        if let Some(visit) = self.shared.state.lock().journal.get_mut(self.number) {
            write(visit);
        }
        self.shared.changed();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end(match self.phase {
            Phase::BeforeHeaders => End::DroppedBeforeHeaders,
            _ => End::DroppedInBody,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_forgets_the_oldest() {
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

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("h\u{e9}llo", 2), "h");
        assert_eq!(cut("abc", 9), "abc");
    }
}
