//! The future of a call: judges the head of the answer, and holds the answer until its first content.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Response, response::Parts};
use http_body::Body;
use pin_project_lite::pin_project;

use super::{
    body::ClassifyBody,
    settings::Settings,
    watch::{Verdict, Watch},
};
use crate::{
    body::{Prefix, PrefixedBody},
    call::Shape,
    context::{BoxError, Error, Outcome, Usage, polled_again},
    failure::{Failure, drop_bad_retry_after},
};

/// The most bytes that are read of an error body, and held of an answer before its first content. Real error bodies of
/// tens of kilobytes exist (one line for each violation of a schema); none over 64 KiB was seen.
const CAP: usize = 64 * 1024;

pin_project! {
    /// The future of [`Classify`](super::Classify).
    pub struct ResponseFuture<F, R> {
        #[pin]
        state: State<F, R>,
        shape: Shape,
        settings: Settings,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, R> {
        Calling { #[pin] future: F },
        Reading { held: Option<Box<HeldResponse<R>>> },
    }
}

/// A response whose body is being read, and held meanwhile.
struct HeldResponse<R> {
    parts: Parts,
    prefix: Prefix,
    body: R,
    /// The watch of an answer. `None`: the body is an error's.
    watch: Option<Box<Watch>>,
}

impl<F, R> ResponseFuture<F, R> {
    pub(super) fn new(future: F, shape: Shape, settings: Settings) -> Self {
        Self { state: State::Calling { future }, shape, settings }
    }
}

impl<F, R> fmt::Debug for ResponseFuture<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl<F, R, E> Future for ResponseFuture<F, R>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
    R: Body<Data = Bytes> + Unpin,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<ClassifyBody<R>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        match this.state.as_mut().project() {
            StateProj::Calling { future } => {
                let response = match ready!(future.poll(cx)) {
                    Ok(response) => response,
                    Err(error) => return Poll::Ready(Err(classified(error.into(), this.settings.enabled))),
                };
                match judge_head(response, *this.shape, *this.settings) {
                    Head::Done(response) => Poll::Ready(Ok(response)),
                    Head::Held(mut held) => match held.poll_read(cx) {
                        Poll::Ready(end) => {
                            // The future inside has ended, and is not polled again.
                            this.state.set(State::Reading { held: None });
                            Poll::Ready(held.finish(end, *this.shape))
                        }
                        Poll::Pending => {
                            this.state.set(State::Reading { held: Some(held.into()) });
                            Poll::Pending
                        }
                    },
                }
            }
            StateProj::Reading { held } => {
                let Some(reading) = held else { return Poll::Ready(Err(polled_again(super::NAME))) };
                let end = ready!(reading.poll_read(cx));
                let held = *held.take().expect("just polled");
                Poll::Ready(held.finish(end, *this.shape))
            }
        }
    }
}

/// The verdict on a response's head.
#[allow(clippy::large_enum_variant, reason = "taken apart at once, and a box would cost each answer an allocation")]
enum Head<R> {
    /// The head decides, and the body is passed on.
    Done(Response<ClassifyBody<R>>),
    /// The body has to be read.
    Held(HeldResponse<R>),
}

/// Judges a response by its head.
fn judge_head<R: Body>(response: Response<R>, shape: Shape, settings: Settings) -> Head<R> {
    let (parts, body) = response.into_parts();
    if !settings.enabled {
        return Head::Done(unwatched(parts, PrefixedBody::untouched(body)));
    }
    if parts.status.is_client_error() || parts.status.is_server_error() {
        return Head::Held(HeldResponse { parts, prefix: Prefix::default(), body, watch: None });
    }
    let watch = parts.status.is_success().then(|| Watch::new(shape, &parts.headers, &body.size_hint())).flatten();
    let Some(watch) = watch else {
        let mut response = unwatched(parts, PrefixedBody::untouched(body));
        Outcome::update(&mut response, |outcome| outcome);
        return Head::Done(response);
    };
    if !settings.hold_answers || !watch.holds() {
        return Head::Done(watched(parts, PrefixedBody::untouched(body), watch, false, |outcome| outcome));
    }
    Head::Held(HeldResponse { parts, prefix: Prefix::default(), body, watch: Some(watch) })
}

/// The reason why reading stopped.
enum ReadEnd {
    Ended,
    Full,
    Decided(Verdict),
    Broken(BoxError),
}

impl<R> HeldResponse<R>
where
    R: Body<Data = Bytes> + Unpin,
    R::Error: Into<BoxError>,
{
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<ReadEnd> {
        loop {
            let data = match ready!(self.prefix.poll_read(cx, Pin::new(&mut self.body))) {
                Err(error) => return Poll::Ready(ReadEnd::Broken(error.into())),
                Ok(None) => return Poll::Ready(ReadEnd::Ended),
                Ok(Some(data)) => data,
            };
            if let Some(watch) = &mut self.watch {
                watch.push(data);
                let verdict = watch.verdict();
                if verdict != Verdict::Undecided {
                    return Poll::Ready(ReadEnd::Decided(verdict));
                }
            }
            if self.prefix.len() >= CAP {
                return Poll::Ready(ReadEnd::Full);
            }
        }
    }

    fn finish(self, end: ReadEnd, shape: Shape) -> Result<Response<ClassifyBody<R>>, BoxError> {
        let Self { mut parts, prefix, body, watch } = self;
        let Some(watch) = watch else {
            // The status is known, however much of the body could be read, and the body is passed on unchanged.
            let failure = Failure::from_response(parts.status, &parts.headers, &prefix.to_bytes());
            let failure = if shape.grounded { failure.of_grounded_call() } else { failure };
            drop_bad_retry_after(&mut parts.headers);
            let body = match end {
                ReadEnd::Broken(error) => ClassifyBody::broken(PrefixedBody::new(prefix, body), error),
                _ => ClassifyBody::plain(PrefixedBody::new(prefix, body)),
            };
            let mut response = Response::from_parts(parts, body);
            Outcome::update(&mut response, |_| Outcome::default().with_failure(failure).with_committed());
            return Ok(response);
        };
        let failure = match end {
            ReadEnd::Broken(error) => return Err(classified(error, true)),
            ReadEnd::Ended | ReadEnd::Decided(Verdict::Failed) => watch.judge_end(&prefix.to_bytes()),
            ReadEnd::Full | ReadEnd::Decided(_) => None,
        };
        let failure = if shape.grounded { failure.map(Failure::of_grounded_call) } else { failure };
        let failed = failure.is_some();
        Ok(watched(parts, PrefixedBody::new(prefix, body), watch, failed, |outcome| match failure {
            Some(failure) => outcome.with_failure(failure).with_committed(),
            None => outcome.with_committed(),
        }))
    }
}

/// Wraps a transport error in an [`Error`] that says what it means.
fn classified(error: BoxError, enabled: bool) -> BoxError {
    if !enabled || Error::find(&*error).is_some() {
        return error;
    }
    let failure = Failure::from_error(&*error);
    Error::caused(super::NAME, failure, error).into()
}

fn unwatched<R>(parts: Parts, body: PrefixedBody<R>) -> Response<ClassifyBody<R>> {
    Response::from_parts(parts, ClassifyBody::plain(body))
}

/// Makes a response that is followed to its end. `change` adds to its outcome.
fn watched<R>(
    parts: Parts,
    body: PrefixedBody<R>,
    watch: Box<Watch>,
    failed: bool,
    change: impl FnOnce(Outcome) -> Outcome,
) -> Response<ClassifyBody<R>> {
    let usage = Usage::default();
    // The error that ends a stream that was cut comes after its last byte.
    let open_ended = !failed && watch.is_open_ended();
    let body = ClassifyBody::watched(body, watch, usage.clone(), failed).open_ended(open_ended);
    let mut response = Response::from_parts(parts, body);
    Outcome::update(&mut response, |outcome| change(outcome.with_usage(usage)));
    response
}
