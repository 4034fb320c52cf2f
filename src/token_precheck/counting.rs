//! The future of a request that has to be counted before it is sent or refused.
//!
//! There are two counters: the local one, on a blocking thread where the request is large, and the upstream, for a
//! request that the local one cannot decide. [`Question`] decides the next step after each count; the future only takes
//! that step.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::{runtime::Handle, task::JoinHandle};
use tower_service::Service;

use super::{
    count::{Counting, besides},
    count_cache::ContentHash,
    learn::Learner,
    question::{NextStep, Question, counted},
    refusal::{polled_again, refusal},
    settings::Settings,
    upstream_count::UpstreamCount,
};
use crate::{
    body::Resend,
    context::BoxError,
    quota::TokenCost,
    ready::Readied,
    request::readers::{BodyRead, Readers},
    tokenizer::Count,
};

pin_project! {
    /// A request that is being counted.
    pub(super) struct CountFuture<S, B, R, F> {
        // None once the request was sent or refused.
        held: Option<(Readied<S>, Request<B>)>,
        settings: Arc<Settings>,
        question: Box<Question>,
        #[pin]
        state: State<R, F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<R, F> {
        Start,
        CountingLocally { task: JoinHandle<Count> },
        // The body is large, and another thread hashes it.
        Hashing { hash: BodyRead<ContentHash> },
        CountingUpstream { content: ContentHash, #[pin] count: UpstreamCount<R, F> },
        Sending { cost: TokenCost },
    }
}

/// A counted request, and a service that is ready for it.
pub(super) struct CountedCall<S, B> {
    pub(super) inner: Readied<S>,
    pub(super) request: Request<B>,
    pub(super) learner: Learner,
}

impl<S, B, R, F> CountFuture<S, B, R, F> {
    pub(super) fn new(
        inner: Readied<S>,
        request: Request<B>,
        settings: Arc<Settings>,
        question: Box<Question>,
    ) -> Self {
        Self { held: Some((inner, request)), settings, question, state: State::Start }
    }
}

impl<S, B, R> CountFuture<S, B, R, S::Future>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Resend<Data = Bytes> + From<Bytes>,
    R: Body,
{
    pub(super) fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<CountedCall<S, B>, BoxError>> {
        loop {
            let mut this = self.as_mut().project();
            let Some((inner, request)) = this.held.as_mut() else { return Poll::Ready(Err(polled_again())) };
            let step = match this.state.as_mut().project() {
                StateProj::Start => match LocalCount::start(this.settings, this.question) {
                    LocalCount::Done(count) => this.question.after_local_count(this.settings, Some(count)),
                    LocalCount::Impossible => this.question.after_local_count(this.settings, None),
                    LocalCount::Running(task) => {
                        // The wait begins: release the readiness, so that other calls can use what it holds.
                        inner.release();
                        this.state.set(State::CountingLocally { task });
                        continue;
                    }
                },
                StateProj::CountingLocally { task } => {
                    // An error means that the counter panicked, or that the runtime is shutting down.
                    let count = ready!(Pin::new(task).poll(cx)).ok();
                    this.question.after_local_count(this.settings, count)
                }
                StateProj::Hashing { hash } => {
                    let content = ready!(Pin::new(hash).poll(cx));
                    match content.map(|content| (content, this.settings.counts.get(content))) {
                        Some((content, None)) => {
                            let count = UpstreamCount::new(this.settings.give_up(request));
                            this.state.set(State::CountingUpstream { content, count });
                            continue;
                        }
                        known => {
                            this.question.after_upstream_count(this.settings, known.and_then(|(_, tokens)| tokens))
                        }
                    }
                }
                StateProj::CountingUpstream { content, count } => {
                    let tokens = ready!(count.poll(cx, inner, request, this.question))?;
                    if let Some(tokens) = tokens {
                        this.settings.counts.insert(*content, tokens);
                    }
                    this.question.after_upstream_count(this.settings, tokens)
                }
                StateProj::Sending { cost } => {
                    ready!(inner.poll_ready(cx)).map_err(Into::into)?;
                    let learner = this.question.publish(this.settings, request, *cost);
                    let held = this.held.take().ok_or_else(polled_again);
                    return Poll::Ready(held.map(|(inner, request)| CountedCall { inner, request, learner }));
                }
            };
            match enter(step, this.settings, this.question, request) {
                Ok(state) => {
                    if let State::Hashing { .. } = state {
                        inner.release();
                    }
                    this.state.set(state);
                }
                Err(error) => {
                    *this.held = None;
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

/// Returns the state that a step leads to, or the refusal.
fn enter<B, R, F>(
    step: NextStep,
    settings: &Settings,
    question: &Question,
    request: &Request<B>,
) -> Result<State<R, F>, BoxError> {
    match step {
        NextStep::Send(cost) => Ok(State::Sending { cost }),
        NextStep::Refuse(failure) => Err(refusal(failure)),
        NextStep::CountUpstream if Readers::are_needed(question.body.len()) => {
            let (counts, model, body) = (settings.counts.clone(), question.model.clone(), question.body.clone());
            let hash = settings.readers.read(move || counts.hash(&model, &body));
            Ok(State::Hashing { hash })
        }
        NextStep::CountUpstream => {
            let content = settings.counts.hash(&question.model, &question.body);
            match settings.counts.get(content) {
                Some(tokens) => {
                    let step = question.after_upstream_count(settings, Some(tokens));
                    enter(step, settings, question, request)
                }
                None => {
                    let count = UpstreamCount::new(settings.give_up(request));
                    Ok(State::CountingUpstream { content, count })
                }
            }
        }
    }
}

/// The local count, as far as it has come when it was started.
enum LocalCount {
    Done(Count),
    /// A blocking thread counts, so that no other call waits for it.
    Running(JoinHandle<Count>),
    /// There is no counter.
    Impossible,
}

impl LocalCount {
    /// Counts on a blocking thread, or inline where there is no tokio runtime.
    fn start(settings: &Settings, question: &Question) -> Self {
        let Some(counter) = settings.counter.clone() else { return Self::Impossible };
        if question.count.is_exact() {
            return Self::Done(question.count);
        }
        let (body, model, bounds) = (question.body.clone(), question.model.clone(), question.count);
        let (bytes, limit, besides) = (question.bytes, question.limit, besides(&question.findings));
        let count = move || {
            let mut counting = Counting::all(counter.counter(&model), bytes);
            if let (Some(limit), Some(besides)) = (limit, besides) {
                counting = counting.until(limit, besides);
            }
            counted(&body, counting, bounds)
        };
        match Handle::try_current() {
            Ok(runtime) => Self::Running(runtime.spawn_blocking(count)),
            Err(_) => Self::Done(count()),
        }
    }
}
