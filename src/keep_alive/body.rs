//! The body of a stream that is kept alive.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    future::{Plan, is_stream},
    stream::KeptStream,
    words::{FailedAnswer, Words},
};
use crate::{
    body::delivery::LastWords,
    context::{BoxError, Deadline, Error},
};

/// The most steps in a row that pass nothing on.
const MOST_STEPS: usize = 32;

pin_project! {
    /// The response body of [`KeepAlive`](super::KeepAlive): the answer's bytes, and the pieces that fill its silences.
    ///
    /// After an early head it drives the inner call on, and dropping it drops that call.
    pub struct KeepAliveBody<F, R> {
        #[pin]
        source: KeptSource<F, R>,
        watch: Option<SilenceWatch>,
        // Armed once, and not reset for each frame: when it fires too early, it is moved on.
        #[pin]
        sleep: Option<Sleep>,
    }
}

pin_project! {
    #[project = KeptSourceProj]
    enum KeptSource<F, R> {
        // The head is out, and the answer is not there.
        Waiting { call: Pin<Box<F>> },
        Answer { #[pin] body: R },
        // An answer that is no stream, after an early head.
        Failed { #[pin] body: R, answer: FailedAnswer },
        Ended,
    }
}

/// The watch over a stream's silences.
struct SilenceWatch {
    stream: KeptStream,
    every: Duration,
    /// The time at which the present silence has lasted for too long.
    due: Option<Instant>,
    /// Set while a piece is due as soon as there is a silence: the head went out early.
    at_once: bool,
    last: LastWords,
}

/// A step of the source.
enum SourceStep {
    /// The source is another one now.
    Turned,
    Frame(Frame<Bytes>),
    /// The stream ends in these words, and then breaks.
    Says(Words),
    Breaks(BoxError),
    End,
}

impl<F, R> KeepAliveBody<F, R> {
    /// Makes a body that is passed on as it is.
    pub(super) fn untouched(body: R) -> Self {
        Self { source: KeptSource::Answer { body }, watch: None, sleep: None }
    }

    /// Makes the body of a stream.
    pub(super) fn answer(body: R, plan: &Plan) -> Self {
        Self { source: KeptSource::Answer { body }, watch: Some(SilenceWatch::new(plan, false)), sleep: None }
    }

    /// Makes the body of a call that goes on behind it.
    pub(super) fn waiting(call: Pin<Box<F>>, plan: &Plan) -> Self {
        Self { source: KeptSource::Waiting { call }, watch: Some(SilenceWatch::new(plan, true)), sleep: None }
    }
}

impl SilenceWatch {
    fn new(plan: &Plan, at_once: bool) -> Self {
        let (stream, every) = (KeptStream::new(plan.dialect), plan.every);
        Self { stream, every, due: None, at_once, last: LastWords::default() }
    }

    /// Ends the stream in these words; after them it breaks.
    fn end_in(&mut self, words: Words) -> Bytes {
        let event = self.last.track(self.stream.last_event(&words.object));
        self.last.break_with(Error::refusal(super::NAME, words.failure).into());
        event
    }

    /// Waits for the end of the silence that there is now, and returns the piece to send.
    fn poll_silence(&mut self, cx: &mut Context<'_>, mut sleep: Pin<&mut Option<Sleep>>) -> Poll<Bytes> {
        if std::mem::take(&mut self.at_once)
            && let Some(piece) = self.stream.piece()
        {
            return Poll::Ready(piece);
        }
        while !self.stream.has_ended() {
            let due = *self.due.get_or_insert_with(|| Deadline::after(self.every).instant());
            let Some(mut timer) = sleep.as_mut().as_pin_mut() else {
                sleep.set(Some(sleep_until(due)));
                continue;
            };
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if timer.deadline() < due {
                timer.reset(due);
                continue;
            }
            self.due = None;
            if let Some(piece) = self.stream.piece() {
                return Poll::Ready(piece);
            }
        }
        Poll::Pending
    }
}

impl<F, R, E> KeptSource<F, R>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    /// Takes the next step.
    fn poll_step(mut self: Pin<&mut Self>, cx: &mut Context<'_>, watch: &SilenceWatch) -> Poll<SourceStep> {
        let dialect = watch.stream.dialect();
        let step = match self.as_mut().project() {
            KeptSourceProj::Waiting { call } => match ready!(call.as_mut().poll(cx)) {
                Ok(response) => {
                    let (parts, body) = response.into_parts();
                    if is_stream(&parts) {
                        self.set(Self::Answer { body });
                        SourceStep::Turned
                    } else {
                        let answer = FailedAnswer::new(parts);
                        match answer.is_unreadable() {
                            true => SourceStep::Says(answer.words(dialect)),
                            false => {
                                self.set(Self::Failed { body, answer });
                                SourceStep::Turned
                            }
                        }
                    }
                }
                Err(error) => SourceStep::Says(Words::of_error(&error.into(), dialect)),
            },
            KeptSourceProj::Answer { body } => match ready!(body.poll_frame(cx)) {
                Some(Ok(frame)) => SourceStep::Frame(frame),
                Some(Err(error)) => SourceStep::Breaks(error.into()),
                None => SourceStep::End,
            },
            KeptSourceProj::Failed { body, answer } => match ready!(body.poll_frame(cx)) {
                Some(Ok(frame)) if frame.data_ref().is_none_or(|data| answer.push(data)) => SourceStep::Turned,
                _ => SourceStep::Says(answer.words(dialect)),
            },
            KeptSourceProj::Ended => SourceStep::End,
        };
        if matches!(step, SourceStep::Says(_) | SourceStep::Breaks(_)) {
            self.set(Self::Ended);
        }
        Poll::Ready(step)
    }
}

impl<F, R, E> Body for KeepAliveBody<F, R>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        let Some(watch) = this.watch else {
            return match this.source.project() {
                KeptSourceProj::Answer { body } => body.poll_frame(cx).map_err(Into::into),
                _ => Poll::Ready(None),
            };
        };
        if let Some(error) = ready!(watch.last.poll(cx)) {
            *this.watch = None;
            return Poll::Ready(Some(Err(error)));
        }
        for steps in 0.. {
            // An upstream that always has something to drop must not keep other tasks from their turn.
            if steps == MOST_STEPS {
                cx.waker().wake_by_ref();
                break;
            }
            let Poll::Ready(step) = this.source.as_mut().poll_step(cx, watch) else { break };
            let words = match step {
                SourceStep::Frame(frame) => match frame.into_data() {
                    Ok(data) => {
                        let is_empty = data.is_empty();
                        let data = watch.stream.push(data);
                        if !data.is_empty() || is_empty {
                            (watch.due, watch.at_once) = (None, false);
                            return Poll::Ready(Some(Ok(Frame::data(data))));
                        }
                        continue;
                    }
                    Err(trailers) if watch.stream.open_line().is_none() => return Poll::Ready(Some(Ok(trailers))),
                    // Trailers are an end, too.
                    Err(_) => continue,
                },
                SourceStep::Turned => continue,
                SourceStep::Says(words) => words,
                SourceStep::Breaks(error) => {
                    *this.watch = None;
                    return Poll::Ready(Some(Err(error)));
                }
                SourceStep::End => match watch.stream.open_line() {
                    Some(line) => Words::of_end(line.raw(), watch.stream.dialect()),
                    None => return Poll::Ready(None),
                },
            };
            this.source.set(KeptSource::Ended);
            let event = watch.end_in(words);
            return Poll::Ready(Some(Ok(Frame::data(event))));
        }
        watch.poll_silence(cx, this.sleep).map(|piece| Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        let is_broken = |watch: &SilenceWatch| {
            watch.last.is_asked();
            watch.last.will_break()
        };
        let is_open = |watch: &SilenceWatch| watch.stream.open_line().is_some();
        match &self.source {
            KeptSource::Answer { body } => !self.watch.as_ref().is_some_and(is_open) && body.is_end_stream(),
            KeptSource::Ended => !self.watch.as_ref().is_some_and(is_broken),
            KeptSource::Waiting { .. } | KeptSource::Failed { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.source, &self.watch) {
            (KeptSource::Answer { body }, None) => body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

impl<F, R> fmt::Debug for KeepAliveBody<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let every = self.watch.as_ref().map(|watch| watch.every);
        f.debug_struct("KeepAliveBody").field("every", &every).finish_non_exhaustive()
    }
}
