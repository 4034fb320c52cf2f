//! The response body: passes the answer on, and learns which resources the project has made.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use memchr::memmem::Finder;
use pin_project_lite::pin_project;
use serde_json::Value;

use super::{
    answer_names::{Described, beginning, described},
    pool::Shared,
};
use crate::resource::TokenFinder;

/// The most bytes of an answer that are copied to be read: a resource that is created is described in a few lines.
const MAX_READ: usize = 64 * 1024;

/// Parts of events that may name a resource beside the one that the stream is about.
static MARKS: LazyLock<[Finder<'static>; 2]> = LazyLock::new(|| ["nvironment", "files/"].map(Finder::new));

pin_project! {
    /// The response body of [`KeyPoolService`](super::KeyPoolService): the inner one, untouched. Of an answer that may
    /// name a new resource, up to 64 KiB are copied as they pass, so that later calls that name it go to the same
    /// project.
    pub struct KeyPoolBody<R> {
        #[pin]
        body: R,
        lesson: Option<Lesson>,
    }
}

/// The part of an answer from which the pool learns.
pub(super) struct Lesson {
    teacher: Teacher,
    /// A search for the tokens with which the answer goes on. It copies nothing.
    tokens: TokenFinder,
    /// Set as long as there may be names of resources to learn.
    names: Option<Box<NameLesson>>,
}

/// The project that answers, and the pool that learns from it.
struct Teacher {
    shared: Arc<Shared>,
    project: Arc<str>,
}

/// The part that has passed of an answer that may name a new resource.
pub(super) struct NameLesson {
    /// The collection that was asked.
    collection: Option<&'static str>,
    /// True if the call has made what the answer is about.
    made: bool,
    /// Set if the answer is a stream of events.
    events: bool,
    /// True if an event has named what the stream is about.
    found: bool,
    read: Vec<u8>,
    /// The number of bytes that may still be copied.
    left: usize,
}

impl<R> KeyPoolBody<R> {
    #[inline]
    pub(super) fn plain(body: R) -> Self {
        Self { body, lesson: None }
    }

    pub(super) fn learning(body: R, lesson: Lesson) -> Self {
        Self { body, lesson: Some(lesson) }
    }
}

impl<R> fmt::Debug for KeyPoolBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPoolBody").field("learning", &self.lesson.is_some()).finish_non_exhaustive()
    }
}

impl<R: Body> Body for KeyPoolBody<R> {
    type Data = R::Data;
    type Error = R::Error;

    #[inline]
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        if let Some(lesson) = this.lesson {
            let goes_on = match &frame {
                Some(Ok(frame)) => frame.data_ref().is_none_or(|data| lesson.take(data)),
                Some(Err(_)) => false,
                None => true,
            };
            // A caller need not poll once more for the `None`.
            let is_over = frame.is_none() || this.body.is_end_stream();
            if goes_on && is_over {
                lesson.end();
            }
            if !goes_on || is_over {
                *this.lesson = None;
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// === impl Lesson ===

impl Lesson {
    /// Learns the tokens of an answer.
    pub(super) fn new(shared: Arc<Shared>, project: Arc<str>) -> Self {
        Self { teacher: Teacher { shared, project }, tokens: TokenFinder::new(), names: None }
    }

    /// Learns the resources that it describes, too.
    pub(super) fn with_names(self, names: NameLesson) -> Self {
        Self { names: Some(Box::new(names)), ..self }
    }

    /// Takes data as it passes. Returns whether there may be more to learn.
    #[inline(never)]
    fn take(&mut self, data: &impl Buf) -> bool {
        let (Self { teacher, tokens, names }, bytes) = (self, data.chunk());
        // Nobody copies what is in several parts; no known transport hands it out.
        if bytes.len() < data.remaining() {
            return false;
        }
        tokens.push(bytes, |token| teacher.shared.owners.lock().made(token, &teacher.project));
        if names.as_mut().is_some_and(|names| !names.push(bytes, teacher)) {
            *names = None;
        }
        true
    }

    /// Reads the rest.
    fn end(&mut self) {
        if let Some(mut names) = self.names.take() {
            names.end(&self.teacher);
        }
    }
}

impl NameLesson {
    pub(super) fn new(collection: Option<&'static str>, made: bool) -> Self {
        Self { collection, made, events: false, found: false, read: Vec::new(), left: MAX_READ }
    }

    /// Reads the answer as a stream of events.
    pub(super) fn with_events(mut self, events: bool) -> Self {
        self.events = events;
        self
    }

    /// Copies data as it passes. Returns whether there may be more to learn.
    fn push(&mut self, bytes: &[u8], teacher: &Teacher) -> bool {
        let fits = bytes.len().min(self.left);
        self.left -= fits;
        self.read.extend_from_slice(&bytes[..fits]);
        if self.events {
            self.read_events(teacher);
        }
        if fits < bytes.len() {
            self.cut(teacher);
        }
        fits == bytes.len()
    }

    /// Reads what there is of an answer that is too long: a picture may follow behind the name.
    fn cut(&self, teacher: &Teacher) {
        let text = if self.events { self.read.strip_prefix(b"data:") } else { Some(&*self.read) };
        if let Some(begun) = text.filter(|_| !self.found).and_then(beginning) {
            self.learn(&begun, teacher);
        }
    }

    /// Reads the rest.
    fn end(&mut self, teacher: &Teacher) {
        if self.events {
            self.read.push(b'\n');
            self.read_events(teacher);
        } else if let Ok(answer) = serde_json::from_slice(&self.read) {
            self.learn(&answer, teacher);
        }
    }

    /// Reads the complete events, and drops them.
    fn read_events(&mut self, teacher: &Teacher) {
        let Some(end) = memchr::memrchr(b'\n', &self.read) else { return };
        let mut found = self.found;
        for line in self.read[..end].split(|byte| *byte == b'\n') {
            let Some(data) = line.strip_prefix(b"data:") else { continue };
            // Once it is known what the stream is about, most events need no second look.
            if (!found || MARKS.iter().any(|mark| mark.find(data).is_some()))
                && let Ok(event) = serde_json::from_slice(data)
            {
                found |= self.learn(&event, teacher);
            }
        }
        self.found = found;
        self.read.drain(..=end);
    }

    /// Remembers the project as the owner of the resources in an answer. Returns whether the answer is about one.
    fn learn(&self, answer: &Value, teacher: &Teacher) -> bool {
        let all = described(answer, self.collection);
        let is_about_one = all.iter().any(|found| found.is_subject);
        let makes_public = self.made && matches!(self.collection, Some("agents" | "voices"));
        let mut owners = teacher.shared.owners.lock();
        for Described { resource, is_subject } in all {
            match is_subject {
                // Lists have Google's own agents and voices as well.
                _ if resource.may_be_public() && !makes_public => {}
                true if self.made => owners.made(resource, &teacher.project),
                _ => owners.seen(resource, &teacher.project),
            }
        }
        is_about_one
    }
}
