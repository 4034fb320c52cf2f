//! What will happen to a request, decided once and carried out by the future and the body.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{
    errors::{ApiError, Envelope},
    trouble::{Break, Trouble},
};

#[derive(Debug)]
pub(super) enum Plan {
    /// After so long the headers, then the content.
    Answer {
        after: Duration,
        status: StatusCode,
        headers: HeaderMap,
        content: Content,
    },
    /// After so long the connection breaks.
    Reset {
        after: Duration,
    },
    Hang,
}

/// A body, step by step.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) steps: VecDeque<Step>,
    /// What `Content-Length` says.
    pub(super) length: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Bytes(Bytes),
    Pause(Duration),
    /// A comment an interval, for ever.
    Pings(Duration),
    Stall,
    Reset,
}

pub(super) const JSON: &str = "application/json; charset=UTF-8";
pub(super) const EVENTS: &str = "text/event-stream";

const PING: &[u8] = b": ping\r\n\r\n";

// === impl Plan ===

impl Plan {
    pub(super) fn answer(after: Duration, content_type: &'static str, content: Content) -> Self {
        Self::Answer { after, status: StatusCode::OK, headers: headers(content_type), content }
    }

    /// With these headers in addition.
    pub(super) fn with_headers(mut self, more: HeaderMap) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.extend(more);
        }
        self
    }

    pub(super) fn error(after: Duration, error: &ApiError, envelope: Envelope, content_type: &'static str) -> Self {
        let content = Content::whole(error.body(envelope));
        Self::Answer { after, status: error.status_code(), headers: headers(content_type), content }
    }

    /// Google's front end says nothing at all about a path that it does not know.
    pub(super) fn unknown_path() -> Self {
        let content = Content::whole(Bytes::new());
        Self::Answer {
            after: Duration::ZERO,
            status: StatusCode::NOT_FOUND,
            headers: headers("text/html; charset=UTF-8"),
            content,
        }
    }
}

fn headers(content_type: &'static str) -> HeaderMap {
    HeaderMap::from_iter([
        (HeaderName::from_static("content-type"), HeaderValue::from_static(content_type)),
        (HeaderName::from_static("vary"), HeaderValue::from_static("Origin, X-Origin, Referer")),
        (HeaderName::from_static("server"), HeaderValue::from_static("scaffolding on HTTPServer2")),
    ])
}

// === impl Content ===

impl Content {
    pub(super) fn whole(body: Bytes) -> Self {
        let length = Some(body.len() as u64);
        let steps = if body.is_empty() { VecDeque::new() } else { [Step::Bytes(body)].into() };
        Self { steps, length }
    }

    /// Frames one after another: the first after `first`, the others `between` apart.
    pub(super) fn stream(frames: impl IntoIterator<Item = Bytes>, first: Duration, between: Duration) -> Self {
        let mut steps = VecDeque::from([Step::Pause(first)]);
        for (at, frame) in frames.into_iter().enumerate() {
            if at > 0 {
                steps.push_back(Step::Pause(between));
            }
            steps.push_back(Step::Bytes(frame));
        }
        Self { steps, length: None }
    }

    pub(super) fn then_break(mut self, how: Break) -> Self {
        match how {
            Break::Stall => self.steps.push_back(Step::Stall),
            Break::Reset => self.steps.push_back(Step::Reset),
            Break::Cut => {}
        }
        self
    }

    /// Half of the only piece there is, or nothing of it, and then what goes wrong.
    pub(super) fn broken(mut self, after: usize, how: Break) -> Self {
        match self.steps.front_mut() {
            Some(Step::Bytes(body)) if after > 0 => body.truncate(body.len() / 2),
            _ => self.steps.clear(),
        }
        if how == Break::Cut {
            self.length = None;
        }
        self.then_break(how)
    }

    /// Comments while it waits, small pieces, and time for what was written before a reset to get out.
    pub(super) fn shaped(mut self, trouble: Option<&Trouble>, is_events: bool, linger: Option<Duration>) -> Self {
        let pings = trouble.and_then(|trouble| trouble.pings).filter(|_| is_events);
        let pace = trouble.and_then(|trouble| trouble.pace);
        let mut steps = VecDeque::with_capacity(self.steps.len());
        for step in self.steps {
            match (step, pings) {
                (Step::Pause(pause), _) if pause.is_zero() => {}
                (Step::Pause(pause), Some(interval)) => ping_during(&mut steps, pause, interval),
                (Step::Stall, Some(interval)) => steps.push_back(Step::Pings(interval)),
                (Step::Bytes(bytes), Some(_)) => {
                    steps.push_back(Step::Bytes(Bytes::from_static(PING)));
                    push_paced(&mut steps, bytes, pace);
                }
                (Step::Bytes(bytes), None) => push_paced(&mut steps, bytes, pace),
                (Step::Reset, _) => {
                    steps.extend(linger.map(Step::Pause));
                    steps.push_back(Step::Reset);
                }
                (step, _) => steps.push_back(step),
            }
        }
        self.steps = steps;
        self
    }
}

pub(super) fn ping() -> Bytes {
    Bytes::from_static(PING)
}

/// At most so many comments are planned ahead for one pause; what is left of it passes in silence.
const PLANNED_PINGS: u32 = 10_000;

fn ping_during(steps: &mut VecDeque<Step>, mut pause: Duration, interval: Duration) {
    for _ in 0..PLANNED_PINGS {
        if pause <= interval {
            break;
        }
        steps.extend([Step::Pause(interval), Step::Bytes(ping())]);
        pause -= interval;
    }
    steps.push_back(Step::Pause(pause));
}

fn push_paced(steps: &mut VecDeque<Step>, mut bytes: Bytes, pace: Option<(usize, Duration)>) {
    let Some((size, interval)) = pace else { return steps.push_back(Step::Bytes(bytes)) };
    while bytes.len() > size {
        steps.extend([Step::Bytes(bytes.split_to(size)), Step::Pause(interval)]);
    }
    steps.push_back(Step::Bytes(bytes));
}
