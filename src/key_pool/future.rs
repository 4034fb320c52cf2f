//! The future of a call: reports the upstream's answer to the pool.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{
    Response, Uri,
    header::{CONTENT_TYPE, LOCATION},
};
use http_body::Body;
use pin_project_lite::pin_project;

use super::{
    KeyPoolBody, NAME,
    affinity::Teaches,
    body::{Lesson, NameLesson},
    feedback::Reaction,
    service::Assigned,
};
use crate::{
    answer::media::is_event_stream,
    context::{BoxError, Error, Outcome, polled_again},
    resource::Resource,
};

pin_project! {
    /// The future of [`KeyPoolService`](super::KeyPoolService).
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Calling { #[pin] future: F, assigned: Option<Assigned> },
        Refused { error: Option<BoxError> },
    }
}

impl<F> ResponseFuture<F> {
    #[inline]
    pub(super) fn direct(future: F) -> Self {
        Self { state: State::Calling { future, assigned: None } }
    }

    #[inline]
    pub(super) fn calling(future: F, assigned: Assigned) -> Self {
        Self { state: State::Calling { future, assigned: Some(assigned) } }
    }

    pub(super) fn refused(error: BoxError) -> Self {
        Self { state: State::Refused { error: Some(error) } }
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ResponseFuture");
        match &self.state {
            State::Calling { assigned: Some(assigned), .. } => shown.field("key", &assigned.key.fingerprint),
            State::Calling { assigned: None, .. } => shown.field("key", &"none"),
            State::Refused { .. } => shown.field("refused", &true),
        };
        shown.finish_non_exhaustive()
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
    R: Body,
{
    type Output = Result<Response<KeyPoolBody<R>>, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            // The call is over with its result, and with it whatever it holds of the pool.
            StateProj::Calling { future, assigned } => match future.poll(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(mut response)) => {
                    let lesson = assigned.take().and_then(|assigned| answered(&mut response, &assigned));
                    let (head, body) = response.into_parts();
                    Poll::Ready(Ok(Response::from_parts(head, KeyPoolBody::new(body, lesson))))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(match assigned.take() {
                    Some(assigned) => failed(error.into(), &assigned),
                    None => error.into(),
                })),
            },
            StateProj::Refused { error } => Poll::Ready(Err(error.take().unwrap_or_else(|| polled_again(NAME)))),
        }
    }
}

/// Records an answer for its key, and adds the pool's part to the outcome. Returns the part from which the pool learns.
fn answered<R: Body>(response: &mut Response<R>, assigned: &Assigned) -> Option<Lesson> {
    let outcome = response.extensions().get::<Outcome>();
    let is_success = outcome.map_or(response.status().as_u16() < 400, |outcome| outcome.failure().is_none());
    if is_success {
        let has_outcome = outcome.is_some();
        if response.status().is_success() {
            assigned.succeeded();
        }
        if has_outcome {
            Outcome::update(response, |outcome| signed(outcome, assigned));
        }
    } else {
        let reaction = assigned.react(&Outcome::of_response(response));
        Outcome::update(response, |outcome| reaction.add_to(signed(outcome, assigned)));
    }
    match assigned.facts.teaches {
        Teaches::Nothing => None,
        _ if !response.status().is_success() => None,
        Teaches::Tokens => Some(Lesson::new(assigned.shared.clone(), assigned.key.project.name.clone())),
        Teaches::Names { made, collection } => lesson_of_names(response, assigned, made, collection),
    }
}

/// Records a failure without an answer for its key, and adds the pool's part to the outcome.
fn failed(error: BoxError, assigned: &Assigned) -> BoxError {
    let reaction = assigned.react(&Outcome::of_error(&error));
    Error::map(error, NAME, |outcome| reaction.add_to(signed(outcome, assigned)))
}

/// Adds the key and its project to an outcome.
fn signed(outcome: Outcome, assigned: &Assigned) -> Outcome {
    let bound = outcome.failure().filter(|_| assigned.facts.pinned.is_some()).cloned();
    let outcome = outcome.with_key(assigned.key.shown.clone(), assigned.key.project.name.clone());
    match bound {
        Some(failure) => outcome.with_failure(failure.into_bound()),
        None => outcome,
    }
}

impl Reaction {
    /// Adds the advice to an outcome.
    fn add_to(self, mut outcome: Outcome) -> Outcome {
        if let Some(tried) = self.tried {
            outcome = outcome.with_tried(tried);
        }
        if self.spares_key {
            outcome = outcome.with_key_spared();
        }
        match self.retry {
            Some(retry) => outcome.with_retry(retry),
            None => outcome,
        }
    }
}

fn lesson_of_names<R>(
    response: &Response<R>,
    assigned: &Assigned,
    made: bool,
    collection: Option<&'static str>,
) -> Option<Lesson> {
    let project = &assigned.key.project.name;
    let headers = response.headers();
    let address = headers.get("x-goog-upload-url").or_else(|| headers.get(LOCATION));
    let address = address.and_then(|address| address.to_str().ok()?.parse::<Uri>().ok());
    if let Some(upload) = address.as_ref().and_then(|address| Resource::in_query(address.query()?)) {
        assigned.shared.owners.lock().made(upload, project);
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|content_type| content_type.to_str().ok());
    let events = is_event_stream(headers);
    // The content of a file is not read.
    if !events && content_type.is_some_and(|content_type| !content_type.contains("json")) {
        return None;
    }
    let names = NameLesson::new(collection, made, events);
    Some(Lesson::new(assigned.shared.clone(), project.clone()).with_names(names))
}
