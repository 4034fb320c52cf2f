//! What is known of a key and of its project's quota. Pure: it is told the time.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{DisabledReason, KeyState};
use crate::failure::Kind;

/// So many refusals in a row disable a key: good ones get them now and then.
pub(super) const STRIKES: u32 = 3;

/// A call that puts a key to the test is waited for so long: it may hang, or stand in a queue.
const LONGEST_TRIAL: Duration = Duration::from_secs(30);

/// A disabled key is looked at again after so long …
const FIRST_CHECK: Duration = Duration::from_secs(60);

/// … where Google has taken it out, after so long …
const FIRST_CHECK_WHEN_BANNED: Duration = Duration::from_secs(300);

/// … each time after twice as long, up to this.
const LAST_CHECK: Duration = Duration::from_secs(6 * 3_600);

/// A refusal that does not say for how long cools for so long …
const FIRST_COOLING: Duration = Duration::from_secs(1);

/// … each time for twice as long, up to this.
const LAST_COOLING: Duration = Duration::from_secs(60);

/// The most models of a project that are remembered to be out of quota. Only refusals add to them.
pub(super) const MAX_MODELS: usize = 1_024;

/// How a key stands.
#[derive(Debug, Default)]
pub(super) struct Health {
    pub(super) strikes: u32,
    /// An answer has come with it.
    pub(super) proven: bool,
    /// A call is under way that puts it to the test: which, and since when.
    on_trial: Option<(TrialId, Instant)>,
    trials: u64,
    pub(super) disabled: Option<Disabled>,
}

/// Which test of a key it is: one that took too long ends no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TrialId(u64);

#[derive(Clone, Copy, Debug)]
pub(super) struct Disabled {
    pub(super) reason: DisabledReason,
    pub(super) since: Instant,
    check: Option<Check>,
}

/// When it is looked at again.
#[derive(Clone, Copy, Debug)]
struct Check {
    at: Instant,
    interval: Duration,
}

/// Whether a call may use a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Like any other.
    Free,
    /// As the one call that puts it to the test.
    OnTrial,
    /// It is being put to the test; where nothing else is left it may be shared.
    Shared,
    /// It is being put to the test after a refusal.
    Busy,
    Disabled,
}

impl Disabled {
    /// Returns the same as a report shows it.
    pub(super) fn state(&self, now: Instant) -> KeyState {
        KeyState::Disabled { reason: self.reason, since: now.saturating_duration_since(self.since) }
    }
}

impl Health {
    pub(super) fn usable(&self, now: Instant) -> Use {
        let is_on_trial =
            || self.on_trial.is_some_and(|(_, since)| now.saturating_duration_since(since) < LONGEST_TRIAL);
        match self {
            Self { disabled: Some(_), .. } => Use::Disabled,
            Self { strikes: 0, proven: true, .. } => Use::Free,
            Self { .. } if !is_on_trial() => Use::OnTrial,
            Self { strikes: 0, .. } => Use::Shared,
            Self { .. } => Use::Busy,
        }
    }

    /// Whether a success would tell anything new.
    pub(super) fn is_settled(&self) -> bool {
        self.proven && self.strikes == 0
    }

    pub(super) fn begin_trial(&mut self, now: Instant) -> TrialId {
        self.trials += 1;
        let id = TrialId(self.trials);
        self.on_trial = Some((id, now));
        id
    }

    pub(super) fn end_trial(&mut self, id: TrialId) {
        if self.on_trial.is_some_and(|(trial, _)| trial == id) {
            self.on_trial = None;
        }
    }

    pub(super) fn succeeded(&mut self) {
        self.proven = true;
        self.strikes = 0;
    }

    /// The upstream has refused the key. True: it is disabled by that.
    pub(super) fn refused(&mut self, kind: Kind, at_once: bool, now: Instant) -> bool {
        if self.disabled.is_some() {
            return false;
        }
        self.strikes = self.strikes.saturating_add(1);
        if !at_once && self.strikes < STRIKES {
            return false;
        }
        let banned = matches!(kind, Kind::KeyLeaked | Kind::KeySuspended | Kind::AccountBanned);
        let interval = if banned { FIRST_CHECK_WHEN_BANNED } else { FIRST_CHECK };
        let check = Some(Check { at: now + interval, interval });
        self.disabled = Some(Disabled { reason: DisabledReason::Refused(kind), since: now, check });
        true
    }

    pub(super) fn disable_by_hand(&mut self, now: Instant) {
        self.disabled = Some(Disabled { reason: DisabledReason::ByHand, since: now, check: None });
    }

    /// It serves again, and begins anew.
    pub(super) fn enable(&mut self) {
        self.disabled = None;
        self.strikes = 0;
        self.proven = false;
    }

    /// When it is to be looked at again, if ever.
    pub(super) fn check_at(&self) -> Option<Instant> {
        Some(self.disabled?.check?.at)
    }

    /// It was looked at. True: it serves again.
    pub(super) fn checked(&mut self, found: CheckResult, now: Instant) -> bool {
        let Some(check) = self.disabled.as_mut().and_then(|disabled| disabled.check.as_mut()) else { return false };
        match found {
            CheckResult::Good => {
                self.enable();
                self.succeeded();
                return true;
            }
            CheckResult::Refused => check.interval = (check.interval * 2).min(LAST_CHECK),
            CheckResult::Unclear => {}
        }
        check.at = now + check.interval;
        false
    }
}

/// What a look at a disabled key has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckResult {
    Good,
    Refused,
    /// Something else went wrong: it says nothing of the key.
    Unclear,
}

/// What a project has no quota for.
#[derive(Debug, Default)]
pub(super) struct Marks {
    models: HashMap<Arc<str>, Mark>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) until: Instant,
    /// A day's quota, or one that is zero.
    pub(super) exhausted: bool,
    /// For how long the last refusal that said nothing has cooled.
    step: Duration,
}

/// For how long a refusal is to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    Cooling(Duration),
    /// It does not say for how long.
    Unsaid,
    Exhausted(Duration),
}

impl Mark {
    /// Returns the same as a report shows it.
    pub(super) fn state(&self, now: Instant) -> KeyState {
        let left = self.until.saturating_duration_since(now);
        if self.exhausted { KeyState::Exhausted { left } } else { KeyState::Cooling { left } }
    }
}

impl Marks {
    pub(super) fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    pub(super) fn iter(&self, now: Instant) -> impl Iterator<Item = (&Arc<str>, Mark)> {
        self.models.iter().filter(move |(_, mark)| mark.until > now).map(|(model, mark)| (model, *mark))
    }

    /// Returns the mark of a model, if the model is out of quota.
    pub(super) fn get(&self, model: &str, now: Instant) -> Option<Mark> {
        if self.models.is_empty() {
            return None;
        }
        self.models.get(model).copied().filter(|mark| mark.until > now)
    }

    /// Returns for how long a model is out of quota; zero: it is not.
    pub(super) fn left(&self, model: &str, now: Instant) -> Duration {
        self.get(model, now).map_or(Duration::ZERO, |mark| mark.until - now)
    }

    /// The upstream has refused for want of quota. What was said before and lasts longer stays.
    pub(super) fn block(&mut self, model: &Arc<str>, block: Block, now: Instant) {
        if !self.models.contains_key(model) {
            self.make_room(now);
        }
        let fresh = Mark { until: now, exhausted: false, step: Duration::ZERO };
        let mark = self.models.entry(model.clone()).or_insert(fresh);
        let (wait, exhausted) = match block {
            Block::Cooling(wait) => (wait, false),
            Block::Exhausted(wait) => (wait, true),
            // Calls that are refused together are one event.
            Block::Unsaid if mark.until > now => return,
            Block::Unsaid => {
                mark.step = if mark.step.is_zero() { FIRST_COOLING } else { (mark.step * 2).min(LAST_COOLING) };
                (mark.step, false)
            }
        };
        let until = now.checked_add(wait).unwrap_or(mark.until);
        if until > mark.until || mark.until <= now {
            mark.until = until;
            mark.exhausted = exhausted;
        }
    }

    /// An answer has come: what has cooled is forgotten.
    pub(super) fn succeeded(&mut self, model: &str, now: Instant) {
        if self.models.get(model).is_some_and(|mark| mark.until <= now) {
            self.models.remove(model);
        }
    }

    /// Forgets what has cooled, or else what ends first.
    fn make_room(&mut self, now: Instant) {
        if self.models.len() < MAX_MODELS {
            return;
        }
        self.models.retain(|_, mark| mark.until > now);
        while self.models.len() >= MAX_MODELS {
            let Some(soonest) = self.models.iter().min_by_key(|(_, mark)| mark.until).map(|(model, _)| model.clone())
            else {
                return;
            };
            self.models.remove(&soonest);
        }
    }
}

#[cfg(test)]
mod tests;
