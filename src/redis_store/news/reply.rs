//! The replies of the server, as far as the news read them.

use std::fmt;

use redis::Value;

use super::register::EventId;

/// An event of the stream, with its text where it has one.
type ReadEvent<'a> = (EventId, Option<&'a [u8]>);

/// Returns the events of a reply, each with its text where it has one. `None`: it is no list of events.
pub(super) fn events(reply: &Value) -> Option<Vec<ReadEvent<'_>>> {
    let Value::Array(events) = reply else { return None };
    Some(events.iter().filter_map(event).collect())
}

fn event(event: &Value) -> Option<ReadEvent<'_>> {
    let Value::Array(parts) = event else { return None };
    let [id, fields] = parts.as_slice() else { return None };
    let text = match fields {
        Value::Array(fields) => match fields.as_slice() {
            [_, Value::BulkString(text), ..] => Some(text.as_slice()),
            _ => None,
        },
        _ => None,
    };
    Some((EventId::of(id)?, text))
}

/// Returns the code of a refusal, which is all that is said of it.
pub(super) fn refusal(reply: &Value) -> String {
    match reply {
        Value::ServerError(error) => error.code().to_owned(),
        _ => "an answer of another sort".to_owned(),
    }
}

impl EventId {
    /// Returns the id after this one.
    pub(super) fn next(self) -> Self {
        Self(self.0, self.1.saturating_add(1))
    }

    /// Reads the id in a reply.
    pub(super) fn of(reply: &Value) -> Option<Self> {
        let text = match reply {
            Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?,
            Value::SimpleString(text) => text,
            _ => return None,
        };
        let (time, number) = text.split_once('-')?;
        Some(Self(time.parse().ok()?, number.parse().ok()?))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// The events that could not be read.
#[derive(Default)]
pub(super) struct Ignored {
    pub(super) events: usize,
    pub(super) facts: usize,
    pub(super) why: Option<&'static str>,
}

impl Ignored {
    pub(super) fn add(&mut self, why: &'static str) {
        self.events += 1;
        self.why.get_or_insert(why);
    }
}
