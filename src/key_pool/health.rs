//! The state of a key. Pure: it is told the time.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{DisabledReason, KeyState};
use crate::{
    clock::TimeAnchor,
    failure::{Fault, Kind},
};

/// The number of refusals in a row that disables a key: good keys get some occasionally.
pub(super) const STRIKES: u32 = 3;

/// The longest time for which a call that tests a key is waited for: it may hang, or stand in a queue.
const LONGEST_TRIAL: Duration = Duration::from_secs(30);

/// The time after which a disabled key is first checked.
const FIRST_CHECK: Duration = Duration::from_secs(60);

/// The same for a key that Google has taken out of service.
const FIRST_CHECK_WHEN_BANNED: Duration = Duration::from_secs(300);

/// The longest time between two checks: it doubles each time, up to this.
const LAST_CHECK: Duration = Duration::from_secs(6 * 3_600);

/// The least time after which a key is checked that was disabled in another process: who has paid the bill may have
/// started the program anew for that.
const FIRST_CHECK_WHEN_RESTORED: Duration = Duration::from_secs(5);

/// The state of a key in a form that outlives the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct HealthMemory {
    strikes: u32,
    proven: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled: Option<DisabledMemory>,
}

/// The reason for which a key is disabled, `by_hand` or the name of a kind, and the seconds from 1970 to that time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DisabledMemory {
    reason: Box<str>,
    since: u64,
}

const BY_HAND: &str = "by_hand";

/// The state of a key.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// The refusals in a row.
    pub(super) strikes: u32,
    /// True once an answer has come with the key.
    pub(super) proven: bool,
    /// The call under way that tests the key, and since when.
    on_trial: Option<(TrialId, Instant)>,
    /// The number of trials so far.
    trials: u64,
    pub(super) disabled: Option<Disabled>,
}

/// The number of a trial: one that took too long does not end the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TrialId(u64);

/// The state of a key that is disabled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disabled {
    pub(super) reason: DisabledReason,
    pub(super) since: Instant,
    check: Option<Check>,
}

/// The next check of a disabled key.
#[derive(Clone, Copy, Debug)]
struct Check {
    at: Instant,
    interval: Duration,
}

/// The use that a call may make of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// The call may use the key.
    Free,
    /// The call may use the key, and tests it for the others.
    OnTrial,
    /// Another call tests the key; the call may share it if nothing else is left.
    Shared,
    /// Another call tests the key after a refusal.
    Busy,
    Disabled,
}

impl Disabled {
    /// Returns the state in the form that reports show.
    pub(super) fn state(&self, now: Instant) -> KeyState {
        KeyState::Disabled { reason: self.reason, since: now.saturating_duration_since(self.since) }
    }

    /// Returns the state in the form that is kept.
    pub(super) fn memory(&self, anchor: TimeAnchor) -> DisabledMemory {
        let reason = match self.reason {
            DisabledReason::ByHand => BY_HAND.into(),
            DisabledReason::Refused(kind) => kind.as_str().into(),
        };
        DisabledMemory { reason, since: anchor.seconds_at(self.since) }
    }

    /// Takes up the state of another process. The key is checked soon, as if it had been disabled now. `None`: for no reason
    /// that is known.
    pub(super) fn restored(memory: &DisabledMemory, anchor: TimeAnchor, now: Instant) -> Option<Self> {
        let DisabledMemory { reason, since } = memory;
        let since = anchor.time_of(*since).min(now);
        let is_reason = |kind: &&Kind| kind.fault() == Fault::Key && kind.as_str() == &**reason;
        let (reason, check) = match Kind::ALL.iter().find(is_reason) {
            _ if **reason == *BY_HAND => (DisabledReason::ByHand, None),
            Some(kind) => {
                let interval = first_check(*kind);
                let at = (since + interval).max(now + FIRST_CHECK_WHEN_RESTORED);
                (DisabledReason::Refused(*kind), Some(Check { at, interval }))
            }
            None => return None,
        };
        Some(Self { reason, since, check })
    }
}

impl Health {
    /// Returns the use that a call may make of the key.
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

    /// Returns whether a success would change nothing.
    pub(super) fn is_settled(&self) -> bool {
        self.proven && self.strikes == 0
    }

    /// Begins a trial.
    pub(super) fn begin_trial(&mut self, now: Instant) -> TrialId {
        self.trials += 1;
        let id = TrialId(self.trials);
        self.on_trial = Some((id, now));
        id
    }

    /// Ends a trial, if it is still the current one.
    pub(super) fn end_trial(&mut self, id: TrialId) {
        if self.on_trial.is_some_and(|(trial, _)| trial == id) {
            self.on_trial = None;
        }
    }

    /// Takes note that an answer has come with the key.
    pub(super) fn succeeded(&mut self) {
        self.proven = true;
        self.strikes = 0;
    }

    /// Takes note that the upstream has refused the key. Returns whether the key is disabled by that.
    pub(super) fn refused(&mut self, kind: Kind, at_once: bool, now: Instant) -> bool {
        if self.disabled.is_some() {
            return false;
        }
        self.strikes = self.strikes.saturating_add(1);
        if !at_once && self.strikes < STRIKES {
            return false;
        }
        let interval = first_check(kind);
        let check = Some(Check { at: now + interval, interval });
        self.disabled = Some(Disabled { reason: DisabledReason::Refused(kind), since: now, check });
        true
    }

    /// Disables the key until it is enabled: it is not checked.
    pub(super) fn disable_by_hand(&mut self, now: Instant) {
        self.disabled = Some(Disabled { reason: DisabledReason::ByHand, since: now, check: None });
    }

    /// Enables the key, and forgets its past.
    pub(super) fn enable(&mut self) {
        self.disabled = None;
        self.strikes = 0;
        self.proven = false;
    }

    /// Returns the state in the form that is kept. `None`: nothing is known of the key.
    pub(super) fn memory(&self, anchor: TimeAnchor) -> Option<HealthMemory> {
        let disabled = self.disabled.map(|disabled| disabled.memory(anchor));
        let memory = HealthMemory { strikes: self.strikes, proven: self.proven, disabled };
        (memory != HealthMemory::default()).then_some(memory)
    }

    /// Takes up the state of another process, unless this one knows the key already. A key that was disabled there is
    /// checked soon, as if it had been disabled now. Returns the reason if it is disabled by that.
    pub(super) fn restore(
        &mut self,
        memory: &HealthMemory,
        anchor: TimeAnchor,
        now: Instant,
    ) -> Option<DisabledReason> {
        if self.disabled.is_some() || self.strikes > 0 || self.proven {
            return None;
        }
        // More of them, and the key would be disabled.
        (self.strikes, self.proven) = (memory.strikes.min(STRIKES - 1), memory.proven);
        self.restore_disabled(memory, anchor, now)
    }

    fn restore_disabled(&mut self, memory: &HealthMemory, anchor: TimeAnchor, now: Instant) -> Option<DisabledReason> {
        let disabled = Disabled::restored(memory.disabled.as_ref()?, anchor, now)?;
        self.disabled = Some(disabled);
        self.strikes = memory.strikes.min(STRIKES);
        Some(disabled.reason)
    }

    /// Takes up that another process has disabled the key, whatever this one has seen before. One that is disabled already
    /// stays as it is, unless the other was told to by hand. `roll`: a random number, so that not all of them check it
    /// at once. Returns whether anything has changed.
    #[cfg(feature = "redis")]
    pub(super) fn learn(&mut self, mut told: Disabled, roll: f64) -> bool {
        let is_news = match self.disabled.map(|disabled| disabled.reason) {
            None => true,
            Some(DisabledReason::Refused(_)) => told.reason == DisabledReason::ByHand,
            Some(DisabledReason::ByHand) => false,
        };
        if is_news {
            if let Some(check) = &mut told.check {
                check.at += check.interval.mul_f64(roll / 2.0);
            }
            (self.disabled, self.strikes) = (Some(told), STRIKES);
        }
        is_news
    }

    /// Returns the time of its next check, if it is to be checked.
    pub(super) fn check_at(&self) -> Option<Instant> {
        Some(self.disabled?.check?.at)
    }

    /// Takes note of a check. Returns whether the key is enabled by that.
    pub(super) fn checked(&mut self, result: CheckResult, now: Instant) -> bool {
        let Some(check) = self.disabled.as_mut().and_then(|disabled| disabled.check.as_mut()) else { return false };
        match result {
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

/// Returns the time after which a key is first checked that was disabled for that.
fn first_check(kind: Kind) -> Duration {
    let banned = matches!(kind, Kind::KeyLeaked | Kind::KeySuspended | Kind::AccountBanned);
    if banned { FIRST_CHECK_WHEN_BANNED } else { FIRST_CHECK }
}

/// The result of a check of a disabled key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckResult {
    /// The upstream has answered.
    Good,
    /// The upstream has refused the key.
    Refused,
    /// Something else went wrong, which says nothing about the key.
    Unclear,
}

#[cfg(test)]
mod tests;
