//! What follows from how an attempt went: for its key, for its project, and for the rest of the call.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use tokio::time::Instant;

use super::{
    DisabledReason,
    health::{Block, Health},
    key::Signer,
    pool::warn_disabled,
    registry::ProjectRef,
    service::Assigned,
};
use crate::{
    call::{Operation, Surface},
    clock,
    context::{Outcome, RetryAdvice, Tried},
    failure::{Failure, Fault, Kind},
    quota::until_pacific_midnight,
};

/// What a project may not do without billing is asked of it again after so long.
const UNBILLED: Duration = Duration::from_secs(3_600);

/// What the pool says of a failure.
#[derive(Debug, Default)]
pub(super) struct Reaction {
    pub(super) tried: Option<Tried>,
    pub(super) retry: Option<RetryAdvice>,
}

/// What a refusal says of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    /// Of the key nothing: what was asked for is not for it.
    Request,
    /// It may be wrong: several in a row disable it.
    Strike,
    /// It is of no use any more.
    Key,
    /// Nor are those of the same project, for this call.
    Project,
    /// The project may not use this model without billing; its others it may.
    Model,
}

impl Assigned {
    /// An answer has come.
    #[inline]
    pub(super) fn succeeded(&self) {
        // What is none of the API's may answer without a look at the key.
        if self.key.project.is_noted() && self.facts.shape.surface != Surface::Other {
            self.note_success();
        }
    }

    #[inline(never)]
    fn note_success(&self) {
        let mut registry = self.shared.registry.lock();
        if let Some(entry) = registry.entry(&self.key) {
            entry.change(Health::succeeded);
        }
        if let Some(project) = registry.project(&self.key.project) {
            if self.facts.shape.pays_quota() {
                project.marks.succeeded(&self.facts.model, Instant::now());
            }
            project.note();
        }
    }

    /// It has failed.
    #[inline(never)]
    pub(super) fn react(&self, outcome: &Outcome) -> Reaction {
        let Some(failure) = outcome.failure() else { return Reaction::default() };
        match failure.fault() {
            Fault::Key => self.key_refused(failure),
            Fault::Quota => self.quota_refused(failure),
            Fault::Local if failure.kind() == Kind::RateLimited && !outcome.was_sent() => self.limited(failure),
            _ => Reaction::default(),
        }
    }

    fn key_refused(&self, failure: &Failure) -> Reaction {
        let blame = self.blame(failure);
        let now = Instant::now();
        match blame {
            Blame::Request => {}
            Blame::Model => self.block(Block::Exhausted(UNBILLED), now),
            Blame::Strike | Blame::Key | Blame::Project => self.strike(failure.kind(), blame != Blame::Strike, now),
        }
        if blame == Blame::Request && self.facts.pinned.is_some() {
            return Reaction::default();
        }
        let tried = match blame {
            Blame::Project | Blame::Model => Tried::Project(self.key.project.name.clone()),
            _ => Tried::Key(self.key.shown.clone()),
        };
        self.turn_away(tried, Duration::MAX)
    }

    fn quota_refused(&self, failure: &Failure) -> Reaction {
        let hint = failure.hint().map(|hint| hint.sufficient());
        if self.facts.shape.pays_quota() {
            self.block(block(failure.kind(), hint), Instant::now());
        }
        let day = matches!(failure.kind(), Kind::QuotaDay | Kind::QuotaZero);
        let needed = hint.filter(|_| !day).unwrap_or(Duration::MAX);
        self.turn_away(Tried::Project(self.key.project.name.clone()), needed)
    }

    /// Where else the call can go, after a refusal for which it would have to wait for `needed` here.
    fn turn_away(&self, tried: Tried, needed: Duration) -> Reaction {
        // Other keys of the one project may serve; its quota is the same for all.
        if self.facts.pinned.is_some() && matches!(tried, Tried::Project(_)) {
            return Reaction::default();
        }
        let retry = self.untried(&tried).and_then(|elsewhere| elsewhere.retry(needed));
        Reaction { tried: Some(tried), retry }
    }

    /// The limiter inside would have it wait too long, or has sent it away.
    fn limited(&self, failure: &Failure) -> Reaction {
        if self.facts.pinned.is_some() {
            return Reaction::default();
        }
        let needed = failure.hint().map_or(Duration::from_secs(1), |hint| hint.delay());
        let tried = Tried::Project(self.key.project.name.clone());
        if let Some(retry) = self.untried(&tried).and_then(|elsewhere| elsewhere.retry(needed)) {
            return Reaction { tried: Some(tried), retry: Some(retry) };
        }
        // Never at once: it would come back here. Others that were tried may have got better, if somebody knows.
        let others =
            self.elsewhere(&self.facts.tried).into_iter().filter(|elsewhere| !self.is_here(&elsewhere.project));
        let least = others.map(|elsewhere| elsewhere.wait).min().filter(|_| self.shared.headroom.is_some());
        Reaction { tried: None, retry: Some(RetryAdvice::After(least.map_or(needed, |least| least.min(needed)))) }
    }

    /// Where it would wait least, of the projects that have not been tried, and of those that have and are back at a known
    /// time.
    fn untried(&self, also_tried: &Tried) -> Option<Elsewhere> {
        let tried: Vec<Tried> = self.facts.tried.iter().chain([also_tried]).cloned().collect();
        let others = self.elsewhere(&tried).into_iter().filter(|elsewhere| !elsewhere.is_tried || elsewhere.cools);
        others.min_by_key(|elsewhere| elsewhere.wait)
    }

    /// How long it would wait in each project that has a key for it.
    fn elsewhere(&self, tried: &[Tried]) -> Vec<Elsewhere> {
        let query = self.facts.query(tried, &[]);
        let everybody = self.shared.registry.lock().everybody(&query, query.now, fastrand::usize(..));
        let everybody = everybody.into_iter().map(|candidate| Elsewhere {
            wait: self.shared.wait(&candidate.project, &self.facts).max(candidate.cooling),
            cools: !candidate.cooling.is_zero(),
            is_tried: candidate.rank.is_tried(),
            project: candidate.project,
        });
        everybody.collect()
    }

    fn is_here(&self, project: &Arc<ProjectRef>) -> bool {
        Arc::ptr_eq(project, &self.key.project)
    }

    fn strike(&self, kind: Kind, at_once: bool, now: Instant) {
        let mut registry = self.shared.registry.lock();
        let Some(entry) = registry.entry(&self.key) else { return };
        let is_disabled = entry.change(|health| health.refused(kind, at_once, now));
        if let Some(project) = registry.project(&self.key.project) {
            project.note();
        }
        drop(registry);
        if is_disabled {
            warn_disabled(&self.key, DisabledReason::Refused(kind));
            self.shared.disabled.notify_one();
        }
    }

    fn block(&self, block: Block, now: Instant) {
        let mut registry = self.shared.registry.lock();
        if let Some(project) = registry.project(&self.key.project) {
            project.marks.block(&self.facts.model, block, now);
            project.note();
        }
    }

    fn blame(&self, failure: &Failure) -> Blame {
        match failure.kind() {
            Kind::AuthKeyInvalid => Blame::Strike,
            Kind::KeyLeaked => Blame::Key,
            // A key may be good for some methods only, and some methods are only for those who pay.
            Kind::KeyRestricted | Kind::BillingRequired if !self.facts.shape.pays_quota() => Blame::Request,
            Kind::KeyRestricted => Blame::Key,
            // There the caller names the project in the path, and it is that one which is refused.
            _ if self.facts.shape.surface == Surface::Vertex && !self.is_token_refused(failure) => Blame::Request,
            // "Only accessible to billed users": whoever asks for such a model must not take the key from the others.
            Kind::BillingRequired if failure.code() == StatusCode::BAD_REQUEST && self.facts.shape.pays_quota() => {
                Blame::Model
            }
            Kind::ServiceDisabled
            | Kind::BillingRequired
            | Kind::ConsumerInvalid
            | Kind::AccountBanned
            | Kind::KeySuspended => Blame::Project,
            // A caller must not be able to take keys out by asking for what is not his.
            _ if self.facts.pinned.is_some() || !self.is_common() => Blame::Request,
            // Nor by naming a model or, in a body that nobody has looked into, a resource that is somebody else's. What Google
            // says of a key itself has kinds of its own.
            Kind::PermissionDenied => Blame::Request,
            // Nor a proxy on the way: it knows no keys.
            _ if !failure.has_error_body() => Blame::Request,
            _ => Blame::Strike,
        }
    }

    /// Whether it is the token itself that is no good: an API key is no token, and may be one where none is taken.
    fn is_token_refused(&self, failure: &Failure) -> bool {
        failure.kind() == Kind::AuthUnauthenticated && matches!(self.key.signer, Signer::Other(_))
    }

    /// Whether any good key may do what was asked for.
    fn is_common(&self) -> bool {
        use Operation::{ComputeTokens, CountTokens, GetModel, ListModels};
        let operation = self.facts.shape.operation;
        self.facts.shape.pays_quota() || matches!(operation, ComputeTokens | CountTokens | GetModel | ListModels)
    }
}

/// A project, and how long the call would wait there.
struct Elsewhere {
    project: Arc<ProjectRef>,
    wait: Duration,
    /// It is out of quota until then.
    cools: bool,
    is_tried: bool,
}

impl Elsewhere {
    /// How to go there, if that is sooner than here.
    fn retry(&self, needed: Duration) -> Option<RetryAdvice> {
        match self.wait {
            Duration::ZERO => Some(RetryAdvice::Now),
            wait if wait >= needed => None,
            wait if self.cools => Some(RetryAdvice::After(wait)),
            _ => Some(RetryAdvice::Queued),
        }
    }
}

fn block(kind: Kind, hint: Option<Duration>) -> Block {
    match kind {
        Kind::QuotaDay | Kind::QuotaZero => {
            let midnight = until_pacific_midnight(clock::wall());
            Block::Exhausted(hint.map_or(midnight, |hint| hint.max(midnight)))
        }
        // "In 0 s" says nothing: it would be asked again at once.
        _ => hint.filter(|hint| !hint.is_zero()).map_or(Block::Unsaid, Block::Cooling),
    }
}
