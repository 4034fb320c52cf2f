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
        lesson: Lesson,
    }
}

/// The part of an answer from which the pool learns.
pub(super) enum Lesson {
    /// There is nothing to learn.
    Over,
    /// The tokens with which a generated answer goes on.
    Tokens(TokenLesson),
    /// The resources that the answer describes.
    Names(Box<NameLesson>),
}

/// A search for tokens, which copies nothing.
pub(super) struct TokenLesson {
    shared: Arc<Shared>,
    project: Arc<str>,
    finder: TokenFinder,
}

/// The part that has passed of an answer that may name a new resource.
pub(super) struct NameLesson {
    shared: Arc<Shared>,
    project: Arc<str>,
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
        Self { body, lesson: Lesson::Over }
    }

    pub(super) fn learning(body: R, lesson: Lesson) -> Self {
        Self { body, lesson }
    }
}

impl<R> fmt::Debug for KeyPoolBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_learning = !matches!(self.lesson, Lesson::Over);
        f.debug_struct("KeyPoolBody").field("learning", &is_learning).finish_non_exhaustive()
    }
}

impl<R: Body> Body for KeyPoolBody<R> {
    type Data = R::Data;
    type Error = R::Error;

    #[inline]
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        if !matches!(this.lesson, Lesson::Over) {
            this.lesson.take(frame.as_ref().map(|frame| frame.as_ref().ok().map(Frame::data_ref)));
            // A caller need not poll once more for the `None`.
            if frame.is_some() && this.body.is_end_stream() {
                this.lesson.take(None::<Option<Option<&R::Data>>>);
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
    pub(super) fn tokens(shared: Arc<Shared>, project: Arc<str>) -> Self {
        Self::Tokens(TokenLesson { shared, project, finder: TokenFinder::new() })
    }

    /// Takes what has passed: the end, an error, a frame without data, or data.
    #[inline(never)]
    fn take(&mut self, frame: Option<Option<Option<&impl Buf>>>) {
        let goes_on = match (frame, &mut *self) {
            (_, Self::Over) | (Some(None), _) => false,
            (None, Self::Names(lesson)) => {
                lesson.end();
                false
            }
            (None, Self::Tokens(_)) => false,
            (Some(Some(None)), _) => true,
            // Nobody copies what is in several parts; no known transport hands it out.
            (Some(Some(Some(data))), _) if data.chunk().len() < data.remaining() => false,
            (Some(Some(Some(data))), Self::Names(lesson)) => lesson.push(data.chunk()),
            (Some(Some(Some(data))), Self::Tokens(lesson)) => {
                lesson.push(data.chunk());
                true
            }
        };
        if !goes_on {
            *self = Self::Over;
        }
    }
}

impl TokenLesson {
    fn push(&mut self, bytes: &[u8]) {
        let Self { shared, project, finder } = self;
        finder.push(bytes, |token| shared.owners.lock().made(token, project));
    }
}

impl NameLesson {
    pub(super) fn new(shared: Arc<Shared>, project: Arc<str>, collection: Option<&'static str>, made: bool) -> Self {
        Self { shared, project, collection, made, events: false, found: false, read: Vec::new(), left: MAX_READ }
    }

    /// Reads the answer as a stream of events.
    pub(super) fn with_events(mut self, events: bool) -> Self {
        self.events = events;
        self
    }

    /// Copies data as it passes. Returns whether there may be more to learn.
    fn push(&mut self, bytes: &[u8]) -> bool {
        let fits = bytes.len().min(self.left);
        self.left -= fits;
        self.read.extend_from_slice(&bytes[..fits]);
        if self.events {
            self.read_events();
        }
        if fits < bytes.len() {
            self.cut();
        }
        fits == bytes.len()
    }

    /// Reads what there is of an answer that is too long: a picture may follow behind the name.
    fn cut(&self) {
        let text = if self.events { self.read.strip_prefix(b"data:") } else { Some(&*self.read) };
        if let Some(begun) = text.filter(|_| !self.found).and_then(beginning) {
            self.learn(&begun);
        }
    }

    /// Reads the rest.
    fn end(&mut self) {
        if self.events {
            self.read.push(b'\n');
            self.read_events();
        } else if let Ok(answer) = serde_json::from_slice(&self.read) {
            self.learn(&answer);
        }
    }

    /// Reads the complete events, and drops them.
    fn read_events(&mut self) {
        let Some(end) = memchr::memrchr(b'\n', &self.read) else { return };
        let mut found = self.found;
        for line in self.read[..end].split(|byte| *byte == b'\n') {
            let Some(data) = line.strip_prefix(b"data:") else { continue };
            // Once it is known what the stream is about, most events need no second look.
            if (!found || MARKS.iter().any(|mark| mark.find(data).is_some()))
                && let Ok(event) = serde_json::from_slice(data)
            {
                found |= self.learn(&event);
            }
        }
        self.found = found;
        self.read.drain(..=end);
    }

    /// Remembers the project as the owner of the resources in an answer. Returns whether the answer is about one.
    fn learn(&self, answer: &Value) -> bool {
        let all = described(answer, self.collection);
        let is_about_one = all.iter().any(|found| found.is_subject);
        let makes_public = self.made && matches!(self.collection, Some("agents" | "voices"));
        let mut owners = self.shared.owners.lock();
        for Described { resource, is_subject } in all {
            match is_subject {
                // Lists have Google's own agents and voices as well.
                _ if resource.may_be_public() && !makes_public => {}
                true if self.made => owners.made(resource, &self.project),
                _ => owners.seen(resource, &self.project),
            }
        }
        is_about_one
    }
}
