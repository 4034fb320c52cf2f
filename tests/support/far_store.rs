//! A store that answers after a while, as one over a network does, and notes all that it is told.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::sleep;
use tower_gemini::quota::{Answer, Closing, Correction, MemoryStore, Question, QuotaStore, Reply, Scope, StoreCharge};

/// A store that answers after a while. The server takes halfway, and a question that is dropped gives back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Far {
    /// The server, for others who ask it.
    pub(crate) store: MemoryStore,
    way: Duration,
    questions: Arc<Mutex<Vec<(Scope, Question)>>>,
    /// Answers in place of the store's own, the next one first.
    scripted: Arc<Mutex<Vec<Answer>>>,
    corrections: Arc<Mutex<Vec<(Scope, StoreCharge, Correction)>>>,
    closings: Arc<Mutex<Vec<Closing>>>,
    openings: Arc<Mutex<Vec<Scope>>>,
}

impl Far {
    pub(crate) fn new(way: Duration) -> Self {
        Self { way, ..Self::default() }
    }

    /// Sets the next answers.
    pub(crate) fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        *self.scripted.lock() = answers.into_iter().collect();
    }

    /// Returns the number of questions so far.
    pub(crate) fn asked(&self) -> usize {
        self.questions.lock().len()
    }

    pub(crate) fn questions(&self) -> Vec<(Scope, Question)> {
        self.questions.lock().clone()
    }

    pub(crate) fn corrections(&self) -> Vec<(Scope, StoreCharge, Correction)> {
        self.corrections.lock().clone()
    }

    /// Returns the number of closings, and that of openings, so far.
    pub(crate) fn closed_and_opened(&self) -> (usize, usize) {
        (self.closings.lock().len(), self.openings.lock().len())
    }

    /// Returns the requests and tokens of a scope that count.
    pub(crate) fn sums(&self, scope: &Scope) -> (u64, u64) {
        let Reply::Now(Answer::Granted(probe)) = self.store.take(scope, Question::new(0, 0)) else { panic!() };
        (probe.requests, probe.tokens)
    }

    fn answer(&self, scope: &Scope, question: Question) -> Answer {
        let mut scripted = self.scripted.lock();
        if !scripted.is_empty() {
            return scripted.remove(0);
        }
        match self.store.take(scope, question) {
            Reply::Now(answer) => answer,
            reply => panic!("{reply:?}"),
        }
    }
}

/// A charge that nobody has been told of.
struct Untold(Far, Scope, Question, Option<StoreCharge>);

impl Drop for Untold {
    fn drop(&mut self) {
        if let Some(charge) = self.3 {
            self.0.store.correct(&self.1, charge, Correction::refund(self.2.requests, self.2.tokens));
        }
    }
}

impl QuotaStore for Far {
    fn take(&self, scope: &Scope, question: Question) -> Reply {
        self.questions.lock().push((scope.clone(), question));
        if self.way.is_zero() {
            return Reply::Now(self.answer(scope, question));
        }
        let (far, scope) = (self.clone(), scope.clone());
        Reply::Later(Box::pin(async move {
            sleep(far.way / 2).await;
            let answer = far.answer(&scope, question);
            let charge = match answer {
                Answer::Granted(grant) => Some(grant.charge),
                _ => None,
            };
            let mut untold = Untold(far.clone(), scope, question, charge);
            sleep(far.way / 2).await;
            untold.3 = None;
            answer
        }))
    }

    fn correct(&self, scope: &Scope, charge: StoreCharge, by: Correction) {
        self.corrections.lock().push((scope.clone(), charge, by));
        self.store.correct(scope, charge, by);
    }

    fn close(&self, scope: &Scope, closing: Closing) {
        self.closings.lock().push(closing);
        self.store.close(scope, closing);
    }

    fn open(&self, scope: &Scope) {
        self.openings.lock().push(scope.clone());
        self.store.open(scope);
    }
}
