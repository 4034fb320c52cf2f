//! The plan of one response: decided once, and carried out by the future and the body.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{trouble::Trouble, trouble_kind::StreamBreak};
use crate::emulator::wire::errors::{ApiError, ErrorEnvelope};

/// The plan of a response.
#[derive(Debug)]
pub(crate) enum ResponsePlan {
    /// Sends the headers after the time `after`, and then the body.
    Answer { after: Duration, status: StatusCode, headers: HeaderMap, body: BodyPlan },
    /// Resets the connection after the time `after`.
    Reset { after: Duration },
    /// Never sends anything.
    Hang,
}

/// The plan of a body, step by step.
#[derive(Debug, Default)]
pub(crate) struct BodyPlan {
    pub(crate) steps: VecDeque<BodyStep>,
    /// The value of `Content-Length`, if there is one.
    pub(crate) length: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BodyStep {
    Bytes(Bytes),
    Pause(Duration),
    /// Comments at an interval, without end.
    Pings(Duration),
    /// Nothing more, without an end.
    Stall,
    Reset,
}

pub(crate) const JSON: &str = "application/json; charset=UTF-8";
pub(crate) const EVENTS: &str = "text/event-stream";

const PING: &[u8] = b": ping\r\n\r\n";

// === impl ResponsePlan ===

impl ResponsePlan {
    /// Plans a 200.
    pub(crate) fn answer(after: Duration, content_type: &'static str, body: BodyPlan) -> Self {
        Self::Answer { after, status: StatusCode::OK, headers: headers(content_type), body }
    }

    /// Returns the time until the response begins.
    pub(crate) fn after(&self) -> Duration {
        match self {
            Self::Answer { after, .. } | Self::Reset { after } => *after,
            Self::Hang => Duration::ZERO,
        }
    }

    /// Adds headers to an answer.
    pub(crate) fn with_headers(mut self, more: HeaderMap) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.extend(more);
        }
        self
    }

    /// Plans an error of the API.
    pub(crate) fn error(
        after: Duration,
        error: &ApiError,
        envelope: ErrorEnvelope,
        content_type: &'static str,
    ) -> Self {
        let body = BodyPlan::whole(error.body(envelope));
        Self::Answer { after, status: error.status_code(), headers: headers(content_type), body }
    }

    /// Plans the answer of Google's front end for a path that it does not know: a 404 without a body.
    pub(crate) fn unknown_path() -> Self {
        let headers = headers("text/html; charset=UTF-8");
        let body = BodyPlan::whole(Bytes::new());
        Self::Answer { after: Duration::ZERO, status: StatusCode::NOT_FOUND, headers, body }
    }
}

fn headers(content_type: &'static str) -> HeaderMap {
    HeaderMap::from_iter([
        (HeaderName::from_static("content-type"), HeaderValue::from_static(content_type)),
        (HeaderName::from_static("vary"), HeaderValue::from_static("Origin, X-Origin, Referer")),
        (HeaderName::from_static("server"), HeaderValue::from_static("scaffolding on HTTPServer2")),
    ])
}

// === impl BodyPlan ===

impl BodyPlan {
    /// Plans a body in one piece.
    pub(crate) fn whole(body: Bytes) -> Self {
        let length = Some(body.len() as u64);
        let steps = if body.is_empty() { VecDeque::new() } else { [BodyStep::Bytes(body)].into() };
        Self { steps, length }
    }

    /// Plans a stream: the first frame after the time `first`, the others `between` apart.
    pub(crate) fn stream(frames: impl IntoIterator<Item = Bytes>, first: Duration, between: Duration) -> Self {
        let mut steps = VecDeque::from([BodyStep::Pause(first)]);
        for (at, frame) in frames.into_iter().enumerate() {
            if at > 0 {
                steps.push_back(BodyStep::Pause(between));
            }
            steps.push_back(BodyStep::Bytes(frame));
        }
        Self { steps, length: None }
    }

    /// Ends the steps so far in a break.
    pub(crate) fn then_break(mut self, how: StreamBreak) -> Self {
        match how {
            StreamBreak::Stall => self.steps.push_back(BodyStep::Stall),
            StreamBreak::Reset => self.steps.push_back(BodyStep::Reset),
            StreamBreak::Cut => {}
        }
        self
    }

    /// Breaks a body in one piece: after half of it, or before all of it if `after` is 0 chunks.
    pub(crate) fn broken(mut self, after: usize, how: StreamBreak) -> Self {
        match self.steps.front_mut() {
            Some(BodyStep::Bytes(body)) if after > 0 => body.truncate(body.len() / 2),
            _ => self.steps.clear(),
        }
        if how == StreamBreak::Cut {
            self.length = None;
        }
        self.then_break(how)
    }

    /// Adds a trouble's comments and pieces, and a pause before a reset, in which earlier bytes are sent.
    pub(crate) fn shaped(mut self, trouble: Option<&Trouble>, is_events: bool, linger: Option<Duration>) -> Self {
        let pings = trouble.and_then(|trouble| trouble.pings).filter(|_| is_events);
        let pace = trouble.and_then(|trouble| trouble.pace);
        let mut steps = VecDeque::with_capacity(self.steps.len());
        for step in self.steps {
            match (step, pings) {
                (BodyStep::Pause(pause), _) if pause.is_zero() => {}
                (BodyStep::Pause(pause), Some(interval)) => ping_during(&mut steps, pause, interval),
                (BodyStep::Stall, Some(interval)) => steps.push_back(BodyStep::Pings(interval)),
                (BodyStep::Bytes(bytes), Some(_)) => {
                    steps.push_back(BodyStep::Bytes(Bytes::from_static(PING)));
                    push_paced(&mut steps, bytes, pace);
                }
                (BodyStep::Bytes(bytes), None) => push_paced(&mut steps, bytes, pace),
                (BodyStep::Reset, _) => {
                    steps.extend(linger.map(BodyStep::Pause));
                    steps.push_back(BodyStep::Reset);
                }
                (step, _) => steps.push_back(step),
            }
        }
        self.steps = steps;
        self
    }
}

/// Returns the comment that keeps a waiting stream alive.
pub(crate) fn ping() -> Bytes {
    Bytes::from_static(PING)
}

/// The largest number of comments planned for one pause; the rest of the pause passes without any.
const PLANNED_PINGS: u32 = 10_000;

fn ping_during(steps: &mut VecDeque<BodyStep>, mut pause: Duration, interval: Duration) {
    for _ in 0..PLANNED_PINGS {
        if pause <= interval {
            break;
        }
        steps.extend([BodyStep::Pause(interval), BodyStep::Bytes(ping())]);
        pause -= interval;
    }
    steps.push_back(BodyStep::Pause(pause));
}

fn push_paced(steps: &mut VecDeque<BodyStep>, mut bytes: Bytes, pace: Option<(usize, Duration)>) {
    let Some((size, interval)) = pace else { return steps.push_back(BodyStep::Bytes(bytes)) };
    while bytes.len() > size {
        steps.extend([BodyStep::Bytes(bytes.split_to(size)), BodyStep::Pause(interval)]);
    }
    steps.push_back(BodyStep::Bytes(bytes));
}
