//! A request that has to be counted before it is known whether it is too long: here, on a blocking thread where it is
//! large, and by the upstream where nothing here can decide.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes};
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{Sleep, sleep_until},
};
use tower_service::Service;

use super::{
    check::{Decision, Question},
    count::{Counting, besides},
    count_cache::ContentHash,
    count_tokens,
    layer::{AskUpstream, Settings},
    learn::Watch,
    refusal::{polled_again, refusal},
    verdict,
};
use crate::{body::Resend, context::BoxError, quota::TokenCost, ready::Readied, tokenizer::Count};

pin_project! {
    /// A request, and how far it has come.
    pub(super) struct Undecided<S, B, R, F> {
        // Gone when it has been decided.
        held: Option<(Readied<S>, Request<B>)>,
        settings: Arc<Settings>,
        question: Box<Question>,
        #[pin]
        step: Step<R, F>,
        #[pin]
        give_up: Option<Sleep>,
    }
}

pin_project! {
    #[project = StepProj]
    enum Step<R, F> {
        Begin,
        Counting { task: JoinHandle<Count> },
        /// The upstream shall count, as soon as the service is ready.
        Ask { content: ContentHash },
        Asking { #[pin] future: F, content: ContentHash },
        Reading { #[pin] body: R, read: Vec<u8>, frames: u32, content: ContentHash },
        /// It is sent, and costs that much.
        Send { cost: TokenCost },
    }
}

/// A request that may go, and a service that is ready for it.
pub(super) struct Decided<S, B> {
    pub(super) inner: Readied<S>,
    pub(super) request: Request<B>,
    pub(super) watch: Watch,
}

impl<S, B, R, F> Undecided<S, B, R, F> {
    pub(super) fn new(
        inner: Readied<S>,
        request: Request<B>,
        settings: Arc<Settings>,
        question: Box<Question>,
    ) -> Self {
        Self { held: Some((inner, request)), settings, question, step: Step::Begin, give_up: None }
    }
}

impl<S, B, R> Undecided<S, B, R, S::Future>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    B: Resend<Data = Bytes> + From<Bytes>,
    R: Body,
{
    pub(super) fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Decided<S, B>, BoxError>> {
        loop {
            let mut this = self.as_mut().project();
            let Some((inner, request)) = this.held.as_mut() else { return Poll::Ready(Err(polled_again())) };
            let next = match this.step.as_mut().project() {
                StepProj::Begin => match count(this.settings, this.question) {
                    Some(Counted::Here(count)) => self.as_mut().counted(count),
                    Some(Counted::There(task)) => {
                        // A wait begins: whatever hangs on the readiness is free for others.
                        inner.release();
                        Ok(Step::Counting { task })
                    }
                    None => self.as_mut().undecidable(),
                },
                StepProj::Counting { task } => match ready!(Pin::new(task).poll(cx)) {
                    Ok(count) => self.as_mut().counted(count),
                    // The counter has panicked, or the runtime is shutting down.
                    Err(_) => self.as_mut().undecidable(),
                },
                StepProj::Ask { content } => {
                    let content = *content;
                    match inner.poll_ready(cx) {
                        Poll::Pending => {
                            ready!(poll_give_up(this.give_up.as_mut(), cx));
                            self.as_mut().unanswered()
                        }
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                        Poll::Ready(Ok(())) => match count_tokens::request(request, this.question) {
                            Some(counts) => Ok(Step::Asking { future: inner.call(counts), content }),
                            None => self.as_mut().unanswered(),
                        },
                    }
                }
                StepProj::Asking { future, content } => match future.poll(cx) {
                    Poll::Ready(Ok(response)) if response.status().is_success() => {
                        Ok(Step::Reading { body: response.into_body(), read: Vec::new(), frames: 0, content: *content })
                    }
                    Poll::Ready(_) => self.as_mut().unanswered(),
                    Poll::Pending => {
                        ready!(poll_give_up(this.give_up.as_mut(), cx));
                        self.as_mut().unanswered()
                    }
                },
                StepProj::Reading { body, read, frames, content } => match body.poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        if let Ok(data) = frame.into_data() {
                            let room = count_tokens::MAX_ANSWER + 1 - read.len();
                            read.put(data.take(room));
                        }
                        *frames += 1;
                        if read.len() <= count_tokens::MAX_ANSWER && *frames <= count_tokens::MAX_FRAMES {
                            continue;
                        }
                        self.as_mut().unanswered()
                    }
                    Poll::Ready(None) => match count_tokens::answer(read) {
                        Some(tokens) => {
                            this.settings.asked.keep(*content, tokens);
                            self.as_mut().answered(tokens)
                        }
                        None => self.as_mut().unanswered(),
                    },
                    Poll::Ready(Some(Err(_))) => self.as_mut().unanswered(),
                    Poll::Pending => {
                        ready!(poll_give_up(this.give_up.as_mut(), cx));
                        self.as_mut().unanswered()
                    }
                },
                StepProj::Send { cost } => {
                    if let Err(error) = ready!(inner.poll_ready(cx)) {
                        return Poll::Ready(Err(error.into()));
                    }
                    let watch = this.question.publish(this.settings, request, *cost);
                    let Some((inner, request)) = this.held.take() else { return Poll::Ready(Err(polled_again())) };
                    return Poll::Ready(Ok(Decided { inner, request, watch }));
                }
            };
            match next {
                Ok(step) => self.as_mut().project().step.set(step),
                Err(error) => {
                    *self.as_mut().project().held = None;
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

type Next<R, F> = Result<Step<R, F>, BoxError>;

impl<S, B, R, F> Undecided<S, B, R, F> {
    /// The texts are counted here.
    fn counted(mut self: Pin<&mut Self>, count: Count) -> Next<R, F> {
        let this = self.as_mut().project();
        this.question.count = count;
        let always = this.settings.ask == AskUpstream::Always && this.question.can_be_asked();
        match this.question.decide(this.settings) {
            Decision::Fits(cost) if !always => Ok(Step::Send { cost }),
            Decision::TooLong(failure) => Err(refusal(failure)),
            Decision::Fits(_) | Decision::Unknown => self.undecidable(),
        }
    }

    /// Nothing here decides it.
    fn undecidable(mut self: Pin<&mut Self>) -> Next<R, F> {
        let mut this = self.as_mut().project();
        let question = this.question;
        if this.settings.ask == AskUpstream::Never || !question.can_be_asked() {
            return self.unanswered();
        }
        let content = this.settings.asked.hash(&question.model, &question.body);
        if let Some(tokens) = this.settings.asked.get(content) {
            return self.answered(tokens);
        }
        let Some((_, request)) = this.held else { return Err(polled_again()) };
        let give_up = this.settings.give_up(request);
        this.give_up.set(Some(sleep_until(give_up)));
        Ok(Step::Ask { content })
    }

    /// The upstream has counted it.
    fn answered(self: Pin<&mut Self>, tokens: u64) -> Next<R, F> {
        let this = self.project();
        match this.question.limit {
            Some(limit) if tokens > limit => {
                let failure = verdict::too_long(&this.question.model, tokens, limit, "as countTokens says");
                Err(refusal(failure))
            }
            _ => Ok(Step::Send { cost: TokenCost::at_least(tokens) }),
        }
    }

    /// Nobody can say.
    fn unanswered(self: Pin<&mut Self>) -> Next<R, F> {
        let this = self.project();
        match this.question.limit {
            Some(limit)
                if this.settings.fail_closed && matches!(this.question.decide(this.settings), Decision::Unknown) =>
            {
                Err(refusal(verdict::cannot_be_counted(&this.question.model, limit)))
            }
            _ => Ok(Step::Send { cost: this.question.cost(this.settings) }),
        }
    }
}

enum Counted {
    Here(Count),
    There(JoinHandle<Count>),
}

/// Counts here, if there is anybody to count: on a blocking thread, so that nobody else's call waits for it.
fn count(settings: &Settings, question: &Question) -> Option<Counted> {
    let counter = settings.counter.clone()?;
    if question.count.is_exact() {
        return Some(Counted::Here(question.count));
    }
    let (body, model, bounds) = (question.body.clone(), question.model.clone(), question.count);
    let (bytes, limit, besides) = (question.bytes, question.limit, besides(&question.findings));
    let count = move || {
        let mut counting = Counting::all(counter.counter(&model), bytes);
        if let (Some(limit), Some(besides)) = (limit, besides) {
            counting = counting.until(limit, besides);
        }
        super::check::counted(&body, counting, bounds)
    };
    Some(match Handle::try_current() {
        Ok(runtime) => Counted::There(runtime.spawn_blocking(count)),
        Err(_) => Counted::Here(count()),
    })
}

fn poll_give_up(give_up: Pin<&mut Option<Sleep>>, cx: &mut Context<'_>) -> Poll<()> {
    match give_up.as_pin_mut() {
        Some(sleep) => sleep.poll(cx),
        None => Poll::Pending,
    }
}
