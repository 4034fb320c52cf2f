//! The scopes of a caller in a store: their names, the refusals that still hold, and the charges of a call.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::account::CallerCost;
use crate::quota::{Correction, Dimension, Question, QuotaStore, Scope, StoreCharge};

/// The beginning of the projects under which callers are counted. No project's name has a control character.
const PREFIX: &str = "caller\u{1f}";

/// The project under which all callers without an account of their own are counted.
const OVERFLOW: &str = "callers\u{1f}";

/// The beginning of the projects of callers with long names.
const HASHED: &str = "caller#\u{1f}";

/// The longest name of a caller that is written out. Of longer ones stores would count no scope apart.
const LONGEST: usize = 256;

/// The longest time for which a refusal of the store's is believed without asking again: another call may give something
/// back. A caller in a loop does not ask the server more often for it.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// The least time.
pub(super) const LEAST: Duration = Duration::from_millis(2);

/// The scopes of one caller: that of all its calls, and one for each model with limits of its own.
#[derive(Debug)]
pub(super) struct CallerScopes {
    project: Arc<str>,
    /// The refusals that still hold, by the model; that of all calls has none.
    refusals: Mutex<Vec<(Box<str>, CallerRefusal)>>,
}

impl CallerScopes {
    /// Names the scopes of a caller; `None`: of all callers that share accounts.
    pub(super) fn new(caller: Option<&str>) -> Self {
        let project = match caller {
            None => OVERFLOW.into(),
            Some(caller) if caller.len() <= LONGEST => format!("{PREFIX}{caller}").into(),
            Some(caller) => {
                let hash: String = Sha256::digest(caller).iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{HASHED}{hash}").into()
            }
        };
        Self { project, refusals: Mutex::new(Vec::new()) }
    }

    /// Returns the scope of all calls, or that of a model.
    pub(super) fn scope(&self, model: &str) -> Scope {
        Scope::new(self.project.clone(), model)
    }

    /// Returns the refusal by which the store need not be asked.
    pub(super) fn refusal(&self, model: &str, question: Question, now: Instant) -> Option<CallerRefusal> {
        let refusals = self.refusals.lock();
        let (_, refusal) = refusals.iter().find(|(of, _)| **of == *model)?;
        Some(*refusal).filter(|refusal| now < refusal.again && refusal.concerns(question))
    }

    /// Takes note of a refusal.
    pub(super) fn refused(&self, model: &str, refusal: CallerRefusal, now: Instant) {
        let mut refusals = self.refusals.lock();
        refusals.retain(|(of, refusal)| now < refusal.again && **of != *model);
        refusals.push((model.into(), refusal));
    }

    /// Forgets a refusal: something was given back.
    fn gave_back(&self, model: &str) {
        self.refusals.lock().retain(|(of, _)| **of != *model);
    }
}

/// A refusal of the store's.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallerRefusal {
    refused: Question,
    pub(super) dimension: Option<Dimension>,
    /// The time at which the call would fit, if nothing else is charged.
    pub(super) until: Instant,
    /// The time from which on the store is asked again.
    again: Instant,
}

impl CallerRefusal {
    pub(super) fn new(refused: Question, dimension: Option<Dimension>, now: Instant, wait: Duration) -> Self {
        let wait = wait.max(LEAST);
        Self { refused, dimension, until: now + wait, again: now + wait.min(ASK_AGAIN) }
    }

    /// Returns whether it holds for a question as well: under the same limits, and for no less.
    fn concerns(&self, question: Question) -> bool {
        let refused = self.refused;
        question.limits == refused.limits
            && match self.dimension {
                Some(Dimension::RequestsPerMinute | Dimension::RequestsPerDay) => question.requests >= refused.requests,
                Some(Dimension::InputTokensPerMinute) => question.tokens >= refused.tokens,
                None => true,
            }
    }
}

/// The charge of a call in one scope of the store.
#[derive(Debug)]
pub(super) struct CallerStoreCharge {
    scope: Scope,
    charge: StoreCharge,
    asked: Question,
}

impl CallerStoreCharge {
    pub(super) fn new(scope: Scope, charge: StoreCharge, asked: Question) -> Self {
        Self { scope, charge, asked }
    }

    /// Corrects it to the real cost.
    pub(super) fn settle(&self, store: &dyn QuotaStore, scopes: &CallerScopes, cost: CallerCost) {
        let counts_tokens = self.asked.limits.get(Dimension::InputTokensPerMinute).is_some();
        let by = Correction {
            requests_back: self.asked.requests.saturating_sub(cost.requests),
            tokens_before: self.asked.tokens,
            tokens_after: if counts_tokens { cost.input } else { 0 },
        };
        if by.requests_back == 0 && by.tokens_before == by.tokens_after {
            return;
        }
        store.correct(&self.scope, self.charge, by);
        if by.requests_back > 0 || by.tokens_after < by.tokens_before {
            scopes.gave_back(self.scope.model());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::Limits;

    fn name(caller: &str) -> String {
        CallerScopes::new(Some(caller)).scope("").project().to_owned()
    }

    #[test]
    fn no_two_callers_have_one_scope_and_none_is_too_long_for_a_store() {
        let long = ["x".repeat(257), "x".repeat(258), "\u{1f}".repeat(9_000)];
        let mut names: Vec<_> = ["", "app", "\u{1f}app", "others"].into_iter().map(name).collect();
        names.extend(long.iter().map(|caller| name(caller)));
        names.push(CallerScopes::new(None).scope("").project().to_owned());
        assert!(names.iter().all(|name| name.len() <= PREFIX.len() + LONGEST && name.contains('\u{1f}')), "{names:?}");
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
        assert_eq!(name(&long[0]), name(&"x".repeat(257)), "it is the same in each process");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_holds_for_a_quarter_of_a_second_and_for_no_smaller_call() {
        let (scopes, now) = (CallerScopes::new(Some("app")), Instant::now());
        let question = |requests, limit| Question::new(requests, 0).limits(Limits::new().requests_per_minute(limit));
        let holds = |model: &str, asked, after| scopes.refusal(model, asked, now + after).is_some();
        let dimension = Some(Dimension::RequestsPerMinute);
        scopes.refused("", CallerRefusal::new(question(2, 5), dimension, now, Duration::from_secs(9)), now);
        let zero = Duration::ZERO;
        assert!(holds("", question(2, 5), zero) && holds("", question(3, 5), ASK_AGAIN - LEAST));
        assert!(!holds("", question(1, 5), zero), "it may fit");
        assert!(!holds("", question(2, 6), zero), "the limit was raised");
        assert!(!holds("m", question(2, 5), zero) && !holds("", question(2, 5), ASK_AGAIN));
        scopes.refused("m", CallerRefusal::new(question(1, 5), dimension, now, zero), now);
        assert!(holds("m", question(1, 5), zero) && !holds("m", question(1, 5), LEAST));
        scopes.gave_back("");
        assert!(!holds("", question(2, 5), zero) && holds("m", question(1, 5), zero));
        // A refusal that no longer holds takes no room.
        scopes.refused("", CallerRefusal::new(question(1, 5), None, now, zero), now + ASK_AGAIN);
        assert_eq!(scopes.refusals.lock().len(), 1);
    }
}
