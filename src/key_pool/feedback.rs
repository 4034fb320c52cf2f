//! The consequences of an attempt: for its key, for its project, and for the rest of the call.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use tokio::time::Instant;

use super::{
    DisabledReason, Part,
    health::Health,
    key::Signer,
    marks::ProjectLooks,
    pool::log_disabled,
    registry::{ProjectRef, Query},
    service::Assigned,
};
use crate::{
    block::Claim,
    call::{Operation, Surface},
    clock,
    context::{Outcome, RetryAdvice, Tried},
    failure::{Failure, Fault, Kind},
    quota::until_pacific_midnight,
};

/// The advice that the pool adds to a failure.
#[derive(Debug, Default)]
pub(super) struct Reaction {
    pub(super) tried: Option<Tried>,
    pub(super) retry: Option<RetryAdvice>,
    /// Set if the failure is not blamed on the key.
    pub(super) spares_key: bool,
}

/// The part that a refusal is blamed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    /// The request: it asks for something that the key is not for. It says nothing about the key.
    Request,
    /// The key, perhaps: several such refusals in a row disable it.
    Strike,
    /// The key, which is of no use any more.
    Key,
    /// The key, and for this call the other keys of its project.
    Project,
    /// The project, which may not use this model without billing, or not any more; it may use others.
    Model,
    /// The project, which has no money left, for whatever model: its keys are good.
    Money,
}

impl Assigned {
    /// Takes note of an answer.
    #[inline]
    pub(super) fn succeeded(&self) {
        // A path outside of the API may be answered without a check of the key.
        if self.key.project.awaits_success() && self.facts.shape.surface != Surface::Other {
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
            let looks = self.looking.as_ref().map_or(ProjectLooks::default(), |looking| looking.looks);
            project.marks.succeeded(self.facts.needs(), looks, Instant::now());
            project.publish();
        }
    }

    /// Takes note of a failure. Returns the advice to add to it.
    #[inline(never)]
    pub(super) fn react(&self, outcome: &Outcome) -> Reaction {
        let Some(failure) = outcome.failure() else { return Reaction::default() };
        match failure.fault() {
            Fault::Key => self.key_refused(failure),
            Fault::Quota => self.quota_refused(failure),
            Fault::Local if failure.kind() == Kind::RateLimited && !outcome.was_sent() => self.limiter_refused(failure),
            _ => Reaction::default(),
        }
    }

    fn key_refused(&self, failure: &Failure) -> Reaction {
        let blame = self.blame(failure);
        let now = Instant::now();
        match blame {
            Blame::Request => {}
            Blame::Model => self.block(Part::Model, failure, now),
            Blame::Money => self.block(Part::Spending, failure, now),
            Blame::Strike | Blame::Key | Blame::Project => self.strike(failure.kind(), blame != Blame::Strike, now),
        }
        let spares_key = self.spares_key(blame, failure);
        if blame == Blame::Request && self.facts.pinned.is_some() && !self.facts.may_leave {
            return Reaction { spares_key, ..Reaction::default() };
        }
        let tried = match blame {
            Blame::Project | Blame::Model | Blame::Money => Tried::Project(self.key.project.name.clone()),
            _ => Tried::Key(self.key.shown.clone()),
        };
        Reaction { spares_key, ..self.redirect(tried, Duration::MAX, true) }
    }

    fn quota_refused(&self, failure: &Failure) -> Reaction {
        let part = match failure.kind() {
            Kind::QuotaSpend => Some(Part::Spending),
            Kind::ModelClosed => Some(Part::Closed).filter(|_| !self.facts.model.is_empty()),
            Kind::QuotaGrounding => Some(Part::Grounded).filter(|_| self.facts.shape.pays_quota()),
            _ => Some(Part::Model).filter(|_| self.facts.shape.pays_quota()),
        };
        if let Some(part) = part {
            self.block(part, failure, Instant::now());
        }
        let hint = failure.hint().map(|hint| hint.sufficient());
        let needed = hint.filter(|_| failure.same_key_may_help() && !is_days(failure.kind())).unwrap_or(Duration::MAX);
        // A resource is made elsewhere where the project has no money, and not for a minute's quota.
        self.redirect(Tried::Project(self.key.project.name.clone()), needed, part == Some(Part::Spending))
    }

    /// Advises the call to go to another key or project, if it waits less than `needed` there. `leaves`: for this reason
    /// a call may leave the project in which it would rather be.
    fn redirect(&self, tried: Tried, needed: Duration, leaves: bool) -> Reaction {
        let leaves = leaves && self.facts.may_leave;
        // Another key of the same project may serve, but all share its quota.
        if self.facts.pinned.is_some() && !leaves && matches!(tried, Tried::Project(_)) {
            return Reaction::default();
        }
        let retry = self.untried(&tried, leaves).and_then(|elsewhere| elsewhere.retry(needed));
        Reaction { tried: Some(tried), retry, ..Reaction::default() }
    }

    /// Advises a call that the limiter inside has refused.
    fn limiter_refused(&self, failure: &Failure) -> Reaction {
        if self.facts.pinned.is_some() {
            return Reaction::default();
        }
        // The hint of a refusal that lasts is the time of the next look, which is not this call's.
        let hint = failure.hint().map_or(Duration::from_secs(1), |hint| hint.delay());
        let needed = if failure.is_lasting() { Duration::MAX } else { hint };
        let tried = Tried::Project(self.key.project.name.clone());
        if let Some(retry) = self.untried(&tried, false).and_then(|elsewhere| elsewhere.retry(needed)) {
            return Reaction { tried: Some(tried), retry: Some(retry), ..Reaction::default() };
        }
        // Never at once: it would come back here. Projects that were tried may have recovered, if the limiter can tell.
        let others =
            self.elsewhere(&self.facts.tried, false).into_iter().filter(|elsewhere| !self.is_here(&elsewhere.project));
        let least = others.map(|elsewhere| elsewhere.wait).min().filter(|_| self.shared.headroom.is_some());
        let wait = least.map_or(needed, |least| least.min(needed));
        let retry = if wait == Duration::MAX { RetryAdvice::Never } else { RetryAdvice::After(wait) };
        Reaction { retry: Some(retry), ..Reaction::default() }
    }

    /// Finds the least wait among the projects that have not been tried, and those that have and return at a known
    /// time.
    fn untried(&self, also_tried: &Tried, leaves: bool) -> Option<Elsewhere> {
        let tried: Vec<Tried> = self.facts.tried.iter().chain([also_tried]).cloned().collect();
        let others =
            self.elsewhere(&tried, leaves).into_iter().filter(|elsewhere| !elsewhere.is_tried || elsewhere.cools);
        others.min_by_key(|elsewhere| elsewhere.wait)
    }

    /// Lists the projects that have a key for the call, each with its wait.
    fn elsewhere(&self, tried: &[Tried], leaves: bool) -> Vec<Elsewhere> {
        let query = self.facts.query(tried, &[]);
        let query = if leaves { Query { pinned: None, ..query } } else { query };
        let candidates = self.shared.registry.lock().all_candidates(&query, query.now, fastrand::usize(..));
        let elsewhere = candidates.into_iter().map(|candidate| Elsewhere {
            wait: self.shared.wait(&candidate.project, &self.facts).max(candidate.cooling),
            cools: !candidate.cooling.is_zero(),
            is_tried: candidate.rank.is_tried(),
            project: candidate.project,
        });
        elsewhere.collect()
    }

    fn is_here(&self, project: &Arc<ProjectRef>) -> bool {
        Arc::ptr_eq(project, &self.key.project)
    }

    fn strike(&self, kind: Kind, at_once: bool, now: Instant) {
        let mut registry = self.shared.registry.lock();
        let Some(entry) = registry.entry(&self.key) else { return };
        let is_disabled = entry.change(|health| health.refused(kind, at_once, now));
        if let Some(project) = registry.project(&self.key.project) {
            project.publish();
        }
        drop(registry);
        if is_disabled {
            log_disabled(&self.key, DisabledReason::Refused(kind));
            self.shared.disabled.notify_one();
        }
    }

    fn block(&self, part: Part, failure: &Failure, now: Instant) {
        let Some(claim) = Claim::of(failure) else { return };
        let midnight = now + until_pacific_midnight(clock::wall());
        let mut registry = self.shared.registry.lock();
        if let Some(project) = registry.project(&self.key.project) {
            // Its own look is over: other calls that are refused while one looks were sent before it.
            if let Some(looking) = &self.looking {
                project.marks.end_looks(&self.facts.model, looking.looks);
            }
            project.marks.block(part, &self.facts.model, claim, now, midnight);
            project.publish();
        }
    }

    /// Decides what a refusal is blamed on.
    fn blame(&self, failure: &Failure) -> Blame {
        match failure.kind() {
            Kind::AuthKeyInvalid => Blame::Strike,
            Kind::KeyLeaked => Blame::Key,
            // No money is left: for all models, and also for what is no model's.
            Kind::BillingRequired
                if self.facts.shape.surface != Surface::Vertex && matches!(failure.code().as_u16(), 402 | 429) =>
            {
                Blame::Money
            }
            // A key may be good for some methods only, and some methods are only for those who pay.
            Kind::KeyRestricted | Kind::BillingRequired if !self.facts.shape.pays_quota() => Blame::Request,
            Kind::KeyRestricted => Blame::Key,
            // On Vertex AI the caller names the project in the path, and that one is refused.
            _ if self.facts.shape.surface == Surface::Vertex && !self.is_token_refused(failure) => Blame::Request,
            // "Only accessible to billed users": a caller who asks for such a model must not take the key from the
            // others.
            Kind::BillingRequired if failure.code() == StatusCode::BAD_REQUEST && self.facts.shape.pays_quota() => {
                Blame::Model
            }
            // Other models, and calls that do not generate, may be left to the account.
            Kind::AccountLimited => Blame::Model,
            Kind::ServiceDisabled
            | Kind::BillingRequired
            | Kind::ConsumerInvalid
            | Kind::AccountBanned
            | Kind::KeySuspended => Blame::Project,
            // A caller must not be able to take keys out by asking for resources of others.
            _ if self.facts.pinned.is_some() || !self.is_common() => Blame::Request,
            // Nor by naming a model or, in a body that was not searched, a resource of others. Google's refusals of a
            // key itself have kinds of their own.
            Kind::PermissionDenied => Blame::Request,
            // A proxy on the way must not, either: it knows no keys.
            _ if !failure.has_error_body() => Blame::Request,
            _ => Blame::Strike,
        }
    }

    /// Returns whether the answer is the caller's. A bill is the operator's, unless the caller has asked for what is only
    /// for those who pay, or for a project of its own.
    fn spares_key(&self, blame: Blame, failure: &Failure) -> bool {
        match blame {
            Blame::Request | Blame::Model if failure.kind() == Kind::BillingRequired => {
                self.facts.shape.surface == Surface::Vertex || is_for_billed_users(failure.message())
            }
            Blame::Request | Blame::Model => true,
            Blame::Money | Blame::Strike | Blame::Key | Blame::Project => false,
        }
    }

    /// Returns whether the token itself is refused. An API key is not a token, and may be refused where only tokens are
    /// taken.
    fn is_token_refused(&self, failure: &Failure) -> bool {
        failure.kind() == Kind::AuthUnauthenticated && matches!(self.key.signer, Signer::Other(_))
    }

    /// Returns whether any good key may make this call.
    fn is_common(&self) -> bool {
        use Operation::{ComputeTokens, CountTokens, GetModel, ListModels};
        let operation = self.facts.shape.operation;
        self.facts.shape.pays_quota() || matches!(operation, ComputeTokens | CountTokens | GetModel | ListModels)
    }
}

/// A project, and the time for which the call would wait there.
struct Elsewhere {
    project: Arc<ProjectRef>,
    wait: Duration,
    /// True if it is out of quota for that time.
    cools: bool,
    is_tried: bool,
}

impl Elsewhere {
    /// Returns the advice to go there, if that is sooner than `needed`.
    fn retry(&self, needed: Duration) -> Option<RetryAdvice> {
        match self.wait {
            Duration::ZERO => Some(RetryAdvice::Now),
            wait if wait >= needed => None,
            wait if self.cools => Some(RetryAdvice::After(wait)),
            _ => Some(RetryAdvice::Queued),
        }
    }
}

/// Returns whether an upstream says that a model or method is only for those who pay, which no account lacks money for.
fn is_for_billed_users(message: &str) -> bool {
    message.to_ascii_lowercase().contains("billed users")
}

/// Returns whether a quota of this kind is not waited for.
fn is_days(kind: Kind) -> bool {
    matches!(kind, Kind::QuotaDay | Kind::QuotaZero)
}
