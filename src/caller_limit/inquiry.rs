//! The questions of a call to a store that counts its caller's usage for other instances, too.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

use super::{
    account::CallerCost,
    accounts::PastLimits,
    dimension::{CallerAmount, CallerDimension},
    quota::{CallerQuota, PastLimit},
    refusal,
    reservation::CallerReservation,
    scopes::{CallerRefusal, CallerStoreCharge, LEAST},
};
use crate::{
    context::{BoxError, Priority},
    quota::{Answer, AwaitedAnswer, Limits, Question, QuotaStore, Reply},
};

/// One question: may the call go under the limits of its caller, or under those for its model?
#[derive(Clone, Copy, Debug)]
pub(super) struct CallerQuestion {
    pub(super) question: Question,
    /// The choice of what becomes of a call that the store refuses.
    past: PastLimit,
}

impl CallerQuestion {
    /// Returns the question for the limits of a quota that a store counts. `None`: it has none of them.
    fn of(quota: &CallerQuota, cost: CallerCost) -> Option<Self> {
        let limit = |dimension| match quota.get(dimension) {
            Some(CallerAmount::Count(limit)) => Some(limit),
            _ => None,
        };
        let requests = limit(CallerDimension::RequestsPerMinute);
        let tokens = limit(CallerDimension::InputTokensPerMinute);
        let day = limit(CallerDimension::RequestsPerDay);
        requests.or(tokens).or(day)?;
        let mut limits = Limits::new();
        limits = requests.map_or(limits, |limit| limits.requests_per_minute(limit));
        limits = tokens.map_or(limits, |limit| limits.input_tokens_per_minute(limit));
        limits = day.map_or(limits, |limit| limits.requests_per_day(limit));
        // Tokens that nobody limits need no correction either.
        let tokens = tokens.map_or(0, |limit| cost.input.min(limit));
        let question = Question::new(cost.requests.min(requests.unwrap_or(u64::MAX)), tokens).limits(limits);
        Some(Self { question, past: quota.choice() })
    }

    /// Returns the questions of a call, as far as it is not past these limits already: that for the limits of its caller,
    /// and that for those of its model.
    pub(super) fn all(quota: &CallerQuota, model: &str, cost: CallerCost, past: PastLimits) -> [Option<Self>; 2] {
        let of_caller = Some(quota).filter(|_| !past.of_caller);
        let of_model = quota.of_model(model).filter(|_| !past.of_model);
        [of_caller, of_model].map(|quota| quota.and_then(|quota| Self::of(quota, cost)))
    }
}

/// The longest time for which a call waits while the store learns what was charged before: that takes it a second.
const LEARNING: Duration = Duration::from_secs(2);

/// A call that asks the store. The second question is asked if the first has not refused the call. Dropped, it gives back
/// what the call was charged here and there.
pub(super) struct CallerInquiry {
    reservation: CallerReservation,
    store: Arc<dyn QuotaStore>,
    model: Box<str>,
    /// The priority to which the call is lowered.
    priority: Option<Priority>,
    questions: [Option<CallerQuestion>; 2],
    answer: Option<AwaitedAnswer>,
    /// The pause before a store is asked again that is learning, and the time at which the call gives up.
    pause: Option<Pin<Box<Sleep>>>,
    gives_up: Option<Instant>,
    deadline: Option<Instant>,
}

impl CallerInquiry {
    pub(super) fn new(
        reservation: CallerReservation,
        store: Arc<dyn QuotaStore>,
        model: &str,
        priority: Option<Priority>,
        questions: [Option<CallerQuestion>; 2],
        deadline: Option<Instant>,
    ) -> Self {
        let (reservation, model) = (reservation.held(), model.into());
        let (answer, pause, gives_up) = (None, None, None);
        Self { reservation, store, model, priority, questions, answer, pause, gives_up, deadline }
    }

    /// Asks until an answer takes time. Returns whether everything is answered.
    pub(super) fn ask(&mut self) -> Result<bool, BoxError> {
        while let Some((at, question)) = self.next() {
            if self.is_paused() {
                return Ok(false);
            }
            let (now, scopes) = (Instant::now(), self.reservation.scopes());
            let model = model_at(at, &self.model);
            if let Some(refusal) = scopes.refusal(model, question.question, now) {
                self.refused(at, question, refusal, now)?;
                continue;
            }
            let scope = scopes.scope(model);
            match self.store.take(&scope, question.question) {
                Reply::Now(answer) => self.answered(answer)?,
                Reply::Later(answer) => {
                    self.answer = Some(AwaitedAnswer::new(answer));
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Waits for the answers.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            if let Some(answering) = &mut self.answer {
                let answer = ready!(answering.poll(cx));
                self.answer = None;
                self.answered(answer)?;
            }
            if self.ask()? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Returns whether it waits for a store that is learning.
    pub(super) fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// Pauses for a store that is learning, unless that takes too long. Returns whether it does.
    fn pauses(&mut self, now: Instant, wait: Duration) -> bool {
        let (wait, gives_up) = (wait.max(LEAST), *self.gives_up.get_or_insert(now + LEARNING));
        let may = now + wait <= gives_up && self.deadline.is_none_or(|deadline| now + wait < deadline);
        if may {
            self.pause = Some(Box::pin(sleep(wait)));
        }
        may
    }

    /// Returns the reservation of a call that may go, and the priority to which it is lowered.
    pub(super) fn admitted(self) -> (CallerReservation, Option<Priority>) {
        (self.reservation.kept(), self.priority)
    }

    fn next(&self) -> Option<(usize, CallerQuestion)> {
        self.questions.iter().enumerate().find_map(|(at, question)| Some((at, (*question)?)))
    }

    /// Takes note of the answer to the next question.
    fn answered(&mut self, answer: Answer) -> Result<(), BoxError> {
        let Some((at, asked)) = self.next() else { return Ok(()) };
        let now = Instant::now();
        let (dimension, wait) = match answer {
            Answer::Granted(grant) => {
                self.questions[at] = None;
                let scope = self.reservation.scopes().scope(model_at(at, &self.model));
                self.reservation.charged(at, CallerStoreCharge::new(scope, grant.charge, asked.question));
                return Ok(());
            }
            Answer::Full { dimension: None, wait } if self.pauses(now, wait) => return Ok(()),
            Answer::Full { dimension, wait } => (dimension, wait),
            Answer::Closed(closing) => (None, closing.look),
        };
        let refusal = CallerRefusal::new(asked.question, dimension, now, wait);
        self.reservation.scopes().refused(model_at(at, &self.model), refusal, now);
        self.refused(at, asked, refusal, now)
    }

    /// Refuses the call, or lowers its priority, as its caller's quota says.
    fn refused(
        &mut self,
        at: usize,
        asked: CallerQuestion,
        refusal: CallerRefusal,
        now: Instant,
    ) -> Result<(), BoxError> {
        self.questions[at] = None;
        match asked.past {
            PastLimit::LowestPriority => {
                self.priority = Some(Priority::Batch);
                Ok(())
            }
            PastLimit::Refuse => {
                let model = Some(model_at(at, &self.model)).filter(|_| at > 0);
                Err(refusal::refused_by_store(self.reservation.caller(), model, asked.question, refusal, now))
            }
        }
    }
}

/// Returns the model whose limits are asked for: none with the first question, for the limits of the caller.
fn model_at(at: usize, model: &str) -> &str {
    if at == 0 { "" } else { model }
}
