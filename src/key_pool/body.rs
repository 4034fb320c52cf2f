//! The response body: passes the answer on, and learns which resources the project has made.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::pool::Shared;
use crate::resource::{AnswerReader, Described, TokenFinder};

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
    reader: AnswerReader,
    /// True if the call has made what the answer is about.
    made: bool,
    /// True if Google's own agents and voices cannot be among what the answer is about.
    makes_public: bool,
}

impl<R> KeyPoolBody<R> {
    #[inline]
    pub(super) fn new(body: R, lesson: Option<Lesson>) -> Self {
        Self { body, lesson }
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
    pub(super) fn new(collection: Option<&'static str>, made: bool, events: bool) -> Self {
        let makes_public = made && matches!(collection, Some("agents" | "voices"));
        Self { reader: AnswerReader::new(collection, events), made, makes_public }
    }

    /// Reads data as it passes. Returns whether there may be more to learn.
    fn push(&mut self, bytes: &[u8], teacher: &Teacher) -> bool {
        let Self { reader, made, makes_public } = self;
        reader.push(bytes, |found| teacher.learn(found, *made, *makes_public))
    }

    /// Reads the rest.
    fn end(&mut self, teacher: &Teacher) {
        let Self { reader, made, makes_public } = self;
        reader.end(|found| teacher.learn(found, *made, *makes_public));
    }
}

impl Teacher {
    /// Remembers the project as the owner of a resource in an answer.
    fn learn(&self, found: Described, made: bool, makes_public: bool) {
        let Described { resource, is_subject, .. } = found;
        let mut owners = self.shared.owners.lock();
        match is_subject {
            // Lists have Google's own agents and voices as well.
            _ if resource.may_be_public() && !makes_public => {}
            true if made => owners.made(resource, &self.project),
            _ => owners.seen(resource, &self.project),
        }
    }
}
