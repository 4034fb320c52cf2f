//! The body of an answer: ends a stream that breaks in an error that an SDK can read.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    header::{CONTENT_LENGTH, CONTENT_TYPE},
    response::Parts,
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use pin_project_lite::pin_project;

use super::{framer::Framer, render};
use crate::{
    answer::{
        scan::Scanner,
        sse::{Listener, Splitter},
    },
    call::{Shape, Streaming, Surface},
    context::BoxError,
    redact::{Masker, SecretMasker, Secrets},
};

const EVENT_STREAM: &[u8] = b"text/event-stream";

pin_project! {
    /// The response body of [`ErrorResponse`](super::ErrorResponse): an error that this layer wrote, or the upstream's
    /// bytes.
    ///
    /// An upstream's stream that breaks ends in an error event of the surface's own shape. In the text of an error, API
    /// keys are overwritten byte for byte, so that its length stays the same.
    pub struct ErrorResponseBody<R> {
        #[pin]
        source: BodySource<R>,
    }
}

pin_project! {
    #[project = SourceProj]
    enum BodySource<R> {
        Rendered { #[pin] body: Full<Bytes> },
        Upstream {
            #[pin]
            body: R,
            follow: Follow,
            surface: Surface,
            broken: Option<BoxError>,
            last: Option<Box<Frame<Bytes>>>,
            ended: bool,
        },
    }
}

/// The watch over the upstream's bytes while they pass.
enum Follow {
    Nothing,
    /// Finds the ends of events, so that one more can follow.
    Events(Box<Splitter>),
    /// Finds the ends of an array's elements, so that one more can follow.
    Elements(Box<Scanner>),
    /// Overwrites keys, which the text of an error may repeat.
    Secrets(Box<SecretMasker>),
    /// Frames what the stream of an interaction says without a frame, and finds the ends of events. Of a failure, keys
    /// are overwritten first.
    Interaction(Box<Framer>, Option<Box<SecretMasker>>),
}

impl<R> ErrorResponseBody<R> {
    /// Makes the body of an error that this layer wrote.
    pub(super) fn rendered(body: Bytes) -> Self {
        Self { source: BodySource::Rendered { body: Full::new(body) } }
    }
}

impl<R: Body<Data = Bytes>> ErrorResponseBody<R> {
    /// Makes the body of an upstream's good answer.
    pub(super) fn upstream(body: R, shape: Shape, parts: &mut Parts, secrets: &Secrets) -> Self {
        let is_sse = || is_event_stream(parts);
        // A body of a known length has no room for another event.
        let follow = if is_interaction_stream(shape, parts) {
            // A line that gets a frame gets longer.
            parts.headers.remove(CONTENT_LENGTH);
            Follow::Interaction(Framer::new(secrets.clone()).into(), None)
        } else if body.size_hint().exact().is_some() {
            Follow::Nothing
        } else if is_sse() {
            Follow::Events(Splitter::new().into())
        } else if shape.streaming == Streaming::Array {
            Follow::Elements(Scanner::new().into())
        } else {
            Follow::Nothing
        };
        Self::following(body, shape, follow)
    }

    /// Makes the body of an upstream's failure, whose text may repeat keys.
    pub(super) fn failed(body: R, shape: Shape, parts: &mut Parts, secrets: Secrets) -> Self {
        let masker = Box::new(SecretMasker::new(secrets));
        let follow = if parts.status.is_success() && is_interaction_stream(shape, parts) {
            parts.headers.remove(CONTENT_LENGTH);
            Follow::Interaction(Framer::new(Secrets::default()).into(), Some(masker))
        } else {
            Follow::Secrets(masker)
        };
        Self::following(body, shape, follow)
    }

    fn following(body: R, shape: Shape, follow: Follow) -> Self {
        Self {
            source: BodySource::Upstream {
                body,
                follow,
                surface: shape.surface,
                broken: None,
                last: None,
                ended: false,
            },
        }
    }
}

fn is_event_stream(parts: &Parts) -> bool {
    let essence = parts.headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().get(..EVENT_STREAM.len()));
    essence.is_some_and(|essence| essence.eq_ignore_ascii_case(EVENT_STREAM))
}

fn is_interaction_stream(shape: Shape, parts: &Parts) -> bool {
    shape.surface == Surface::Interactions && is_event_stream(parts)
}

impl Follow {
    /// Takes the bytes that pass, and returns those to pass on.
    fn data(&mut self, data: Bytes) -> Bytes {
        match self {
            Self::Nothing => {}
            Self::Events(splitter) => splitter.push(&data, &mut Unheard),
            Self::Elements(scanner) => scanner.push(&data),
            Self::Secrets(masker) => return masked(masker, &data),
            Self::Interaction(framer, None) => return framer.push(data),
            Self::Interaction(framer, Some(masker)) => return framer.push(masked(masker, &data)),
        }
        data
    }

    /// Returns the bytes that are held back, once the body has ended.
    fn end(&mut self) -> Option<Bytes> {
        match self {
            Self::Secrets(masker) => {
                let mut rest = Vec::new();
                masker.finish(&mut rest);
                (!rest.is_empty()).then(|| rest.into())
            }
            Self::Interaction(framer, masker) => {
                let mut rest = Vec::new();
                if let Some(masker) = masker {
                    masker.finish(&mut rest);
                }
                let rest = framer.push(rest.into());
                match framer.finish() {
                    Some(held) => Some([rest, held].concat().into()),
                    None => (!rest.is_empty()).then_some(rest),
                }
            }
            _ => None,
        }
    }

    /// Writes the error as the stream's last words, if the stream can take them.
    fn last_words(&mut self, error: &BoxError, surface: Surface) -> Option<Bytes> {
        // An event that was cut in the middle must not run into it.
        let apart = |is_between_events| if is_between_events { "" } else { "\n\n" };
        match self {
            Self::Events(splitter) => {
                Some(format!("{}{}", apart(splitter.is_between_events()), render::event(error, surface)).into())
            }
            Self::Interaction(..) => {
                let rest = self.end().unwrap_or_default();
                let Self::Interaction(framer, _) = self else { return None };
                let event = format!("{}{}", apart(framer.is_between_events()), render::event(error, surface));
                Some([&rest, event.as_bytes()].concat().into())
            }
            Self::Elements(scanner) => {
                let comma = scanner.needs_comma()?;
                let element = render::element(error, surface);
                Some(format!("{}{element}\n]\n", if comma { ",\n" } else { "" }).into())
            }
            Self::Nothing | Self::Secrets(_) => None,
        }
    }
}

fn masked(masker: &mut SecretMasker, data: &[u8]) -> Bytes {
    let mut masked = Vec::with_capacity(data.len() + Masker::MOST_HELD);
    masker.push(data, &mut masked);
    masked.into()
}

/// A listener that takes nothing: only the ends of events matter.
pub(super) struct Unheard;

impl Listener for Unheard {
    fn data(&mut self, _: &[u8]) {}
    fn raw(&mut self, _: &[u8]) {}
    fn dispatch(&mut self) {}
}

impl<R> fmt::Debug for ErrorResponseBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorResponseBody").finish_non_exhaustive()
    }
}

impl<R> Body for ErrorResponseBody<R>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let (mut body, follow, surface, broken, last, ended) = match self.project().source.project() {
            SourceProj::Rendered { body } => return body.poll_frame(cx).map_err(|never| match never {}),
            SourceProj::Upstream { body, follow, surface, broken, last, ended } => {
                (body, follow, *surface, broken, last, ended)
            }
        };
        if let Some(error) = broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if *ended {
            return Poll::Ready(last.take().map(|last| Ok(*last)));
        }
        let polled = loop {
            match ready!(body.as_mut().poll_frame(cx)).transpose() {
                Ok(Some(frame)) if frame.is_data() => {
                    let frame = frame.map_data(|data| follow.data(data));
                    // All of it may be held back.
                    let is_held = frame.data_ref().is_some_and(Bytes::is_empty);
                    if !(is_held && matches!(follow, Follow::Interaction(..))) {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                }
                polled => break polled.transpose(),
            }
        };
        let frame = match polled {
            Some(Ok(trailers)) => {
                *ended = true;
                // The bytes held back are data, and go before trailers.
                match follow.end() {
                    Some(rest) => {
                        *last = Some(trailers.into());
                        Some(Ok(Frame::data(rest)))
                    }
                    None => Some(Ok(trailers)),
                }
            }
            Some(Err(error)) => {
                *ended = true;
                let error = error.into();
                match follow.last_words(&error, surface) {
                    Some(words) => Some(Ok(Frame::data(words))),
                    // A server that meets the error in the same poll as the bytes before it drops them unsent.
                    None => {
                        *broken = Some(error);
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
            }
            None => {
                *ended = true;
                follow.end().map(|rest| Ok(Frame::data(rest)))
            }
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            BodySource::Rendered { body } => body.is_end_stream(),
            BodySource::Upstream { body, follow: Follow::Nothing, broken: None, ended, .. } => {
                *ended || body.is_end_stream()
            }
            // A server that knows the length does not poll for the end.
            BodySource::Upstream { body, follow: Follow::Secrets(masker), broken: None, last: None, .. }
                if masker.held() == 0 && body.is_end_stream() =>
            {
                true
            }
            // Bytes may be held back until the end.
            BodySource::Upstream { ended, last, broken, .. } => *ended && last.is_none() && broken.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            BodySource::Rendered { body } => body.size_hint(),
            // Nobody knows yet what will get a frame.
            BodySource::Upstream { follow: Follow::Interaction(..), .. } => SizeHint::new(),
            BodySource::Upstream { body, follow: Follow::Secrets(masker), .. } => {
                let (inner, held) = (body.size_hint(), masker.held() as u64);
                let mut hint = SizeHint::new();
                if let Some(upper) = inner.upper() {
                    hint.set_upper(upper.saturating_add(held));
                }
                hint.set_lower(inner.lower().saturating_add(held));
                hint
            }
            BodySource::Upstream { body, .. } => body.size_hint(),
        }
    }
}
