//! A subscriber that keeps the events of a room.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use tracing::{
    Event, Metadata, Subscriber,
    field::Field,
    span::{Attributes, Id, Record},
};

/// The events of a room, each as one line: its level, and each field.
#[derive(Clone)]
pub(crate) struct Events {
    room: &'static str,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Events {
    /// Makes a subscriber for the room of that name.
    pub(crate) fn of(room: &'static str) -> Self {
        Self { room, lines: Arc::default() }
    }

    /// Returns the events so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }
}

impl Subscriber for Events {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().strip_prefix("tower_gemini::").is_some_and(|target| target.starts_with(self.room))
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = event.metadata().level().to_string();
        event.record(&mut |field: &Field, value: &dyn fmt::Debug| line.push_str(&format!(" {field}={value:?}")));
        self.lines.lock().push(line);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
