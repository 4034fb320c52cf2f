//! The response body: passes the answer on, and learns the names of the resources that it reports as created.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use serde_json::Value;

use super::pool::Shared;
use crate::resource::Resource;

/// The most bytes of an answer that are kept to be read: a resource that is created is described in a few lines.
const MAX_READ: usize = 64 * 1024;

/// The most names that are learned from one answer.
const MAX_NAMES: usize = 64;

pin_project! {
    /// The response body of [`KeyPoolService`](super::KeyPoolService): the inner one, untouched. Of an answer that may
    /// name a new resource, up to 64 KiB are copied as they pass, so that later calls that name it go to the same
    /// project.
    pub struct KeyPoolBody<R> {
        #[pin]
        body: R,
        learning: Option<Box<Learning>>,
    }
}

/// The part that has passed of an answer that may name a new resource.
pub(super) struct Learning {
    shared: Arc<Shared>,
    project: Arc<str>,
    read: Vec<u8>,
    /// True if the answer is a stream of events, of which the first one that names a resource is enough.
    events: bool,
}

impl<R> KeyPoolBody<R> {
    #[inline]
    pub(super) fn plain(body: R) -> Self {
        Self { body, learning: None }
    }

    pub(super) fn learning(body: R, learning: Learning) -> Self {
        Self { body, learning: Some(Box::new(learning)) }
    }
}

impl<R> fmt::Debug for KeyPoolBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPoolBody").field("learning", &self.learning.is_some()).finish_non_exhaustive()
    }
}

impl<R: Body> Body for KeyPoolBody<R> {
    type Data = R::Data;
    type Error = R::Error;

    #[inline]
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        let mut this = self.project();
        if this.learning.is_none() {
            return this.body.poll_frame(cx);
        }
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        let goes_on = match (&frame, this.learning.as_mut()) {
            (Some(Ok(frame)), Some(learning)) => frame.data_ref().is_none_or(|data| learning.take(data)),
            (Some(Err(_)), _) => false,
            _ => true,
        };
        if !goes_on {
            *this.learning = None;
        // A caller need not poll once more for the `None`.
        } else if (frame.is_none() || this.body.is_end_stream())
            && let Some(mut learning) = this.learning.take()
        {
            learning.end();
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

// === impl Learning ===

impl Learning {
    pub(super) fn new(shared: Arc<Shared>, project: Arc<str>, events: bool) -> Self {
        Self { shared, project, read: Vec::new(), events }
    }

    /// Copies data as it passes. Returns whether there may be more to learn.
    fn take(&mut self, data: &impl Buf) -> bool {
        let chunk = data.chunk();
        if chunk.len() < data.remaining() || self.read.len() + chunk.len() > MAX_READ {
            return false;
        }
        self.read.extend_from_slice(chunk);
        !(self.events && self.read_events())
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

    /// Reads the complete events, and drops them. Returns whether one of them named a resource.
    fn read_events(&mut self) -> bool {
        let Some(end) = memchr::memrchr(b'\n', &self.read) else { return false };
        let mut lines = self.read[..end].split(|byte| *byte == b'\n');
        let found = lines.any(|line| {
            let event = line.strip_prefix(b"data:").and_then(|data| serde_json::from_slice(data).ok());
            event.is_some_and(|event| self.learn(&event))
        });
        self.read.drain(..=end);
        found
    }

    /// Remembers the project as the owner of the resources in an answer. Returns whether there were any.
    fn learn(&self, answer: &Value) -> bool {
        let mut names = names(answer).take(MAX_NAMES).peekable();
        let found = names.peek().is_some();
        let mut owners = self.shared.owners.lock();
        names.for_each(|name| owners.learn(name, &self.project));
        found
    }
}

/// Finds the resources that an answer reports as created: a file, a cached content, a model, an operation and its
/// result, an interaction.
fn names(answer: &Value) -> impl Iterator<Item = Resource> {
    const NAMES: [&str; 6] = ["/name", "/file/name", "/metadata/tunedModel", "/response/name", "/batch/name", "/id"];
    let videos = answer.pointer("/response/generateVideoResponse/generatedSamples").and_then(Value::as_array);
    let videos = videos.into_iter().flatten().filter_map(|sample| sample.pointer("/video/uri")?.as_str());
    let named = NAMES.into_iter().filter_map(|path| answer.pointer(path)?.as_str());
    named
        .chain(videos)
        .filter_map(Resource::in_name)
        .chain(bare_id(answer))
        .chain(answer.get("interaction").and_then(bare_id))
}

/// Reads an id without its collection, which the answer names beside it.
fn bare_id(answer: &Value) -> Option<Resource> {
    let id = answer.get("id")?.as_str().filter(|id| !id.contains('/'))?;
    let collection = match answer.get("object").and_then(Value::as_str) {
        Some("file") => "files",
        Some("batch") => "batches",
        Some("interaction") | None => "interactions",
        Some(_) => return None,
    };
    Resource::in_name(&format!("{collection}/{id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_says_was_made() {
        let names = |text: &str| {
            let answer = serde_json::from_str(text).unwrap();
            names(&answer).map(|name| format!("{name:?}")).collect::<Vec<_>>()
        };
        for (text, expected) in [
            (r#"{"file": {"name": "files/a", "uri": "https://host/v1beta/files/a"}}"#, "files/a"),
            (r#"{"name": "cachedContents/c", "model": "models/m"}"#, "cachedContents/c"),
            (r#"{"name": "models/veo/operations/o"}"#, "operations/o"),
            (r#"{"name": "batches/b", "metadata": {"name": "batches/b"}}"#, "batches/b"),
            (r#"{"id": "v1_i", "object": "interaction"}"#, "interactions/v1_i"),
            (r#"{"event_type": "interaction.start", "interaction": {"id": "v1_i"}}"#, "interactions/v1_i"),
            (r#"{"id": "file-a", "object": "file"}"#, "files/file-a"),
            (
                r#"{"response": {"generateVideoResponse": {"generatedSamples": [{"video":
                    {"uri": "https://generativelanguage.googleapis.com/v1beta/files/v:download?alt=media"}}]}}}"#,
                "files/v",
            ),
        ] {
            assert_eq!(names(text), [format!("Resource({expected:?})")], "{text}");
        }
        for nothing in
            ["{}", "[]", "1", r#"{"name": "models/m"}"#, r#"{"id": "chatcmpl-1", "object": "chat.completion"}"#]
        {
            assert_eq!(names(nothing), Vec::<String>::new(), "{nothing}");
        }
        let tuned = names(r#"{"name": "tunedModels/t/operations/o", "metadata": {"tunedModel": "tunedModels/t"}}"#);
        assert_eq!(tuned, [r#"Resource("tunedModels/t")"#; 2]);
    }
}
