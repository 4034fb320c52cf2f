//! The usage of all callers in a form that outlives the process.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{CallerLimits, MAX_CALLERS};
use crate::{bounded::MAX_NAME, caller_limit::account::CallerAccountMemory, clock::TimeAnchor};

/// The usage of all callers in a form that outlives the process, from [`CallerLimits::memory`].
///
/// It is written with serde, in a format that describes itself, such as JSON. What a later version adds is missing in an older memory, and counts as
/// not used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CallerLimitsMemory {
    callers: Vec<CallerMemory>,
}

/// The usage of one caller, in all or of one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CallerMemory {
    caller: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<Box<str>>,
    #[serde(flatten)]
    account: CallerAccountMemory,
}

impl CallerLimits {
    /// Returns the usage of all callers, for [`restore`](Self::restore). Reads wall time. Those who share accounts for want
    /// of room are not in it.
    pub fn memory(&self) -> CallerLimitsMemory {
        let (now, anchor, calendar) = (Instant::now(), TimeAnchor::read(), self.shared.calendar);
        let entries = self.shared.shards.iter().flat_map(|shard| shard.lock().iter().cloned().collect::<Vec<_>>());
        let mut callers = Vec::new();
        for entry in entries {
            for (model, account) in entry.accounts.lock().iter_mut() {
                account.catch_up(now, calendar);
                callers.extend(account.memory(now, calendar, anchor).map(|account| CallerMemory {
                    caller: (**entry.caller()).into(),
                    model: model.map(Into::into),
                    account,
                }));
            }
        }
        callers.sort_unstable_by(|one, other| (&one.caller, &one.model).cmp(&(&other.caller, &other.model)));
        CallerLimitsMemory { callers }
    }

    /// Takes up what callers had used in another process: for a program that has just started. Reads wall time.
    ///
    /// The usage of a day counts only on the same day in California, and money of a month only in the same month. Usage is
    /// raised, never added: what is restored twice counts once.
    pub fn restore(&self, memory: &CallerLimitsMemory) {
        let (now, anchor, calendar) = (Instant::now(), TimeAnchor::read(), self.shared.calendar);
        let settings = self.settings();
        let is_read = |known: &&CallerMemory| {
            // No account is opened that no quota reads.
            let model = known.model.as_deref();
            known.caller.len() <= MAX_NAME
                && model.is_none_or(|model| settings.quota(&known.caller).of_model(model).is_some())
        };
        for known in memory.callers.iter().filter(is_read).take(MAX_CALLERS) {
            let entry = self.entry(&known.caller, &settings, now);
            // For want of room, it may be the entry of all others.
            if **entry.caller() == *known.caller {
                let mut accounts = entry.accounts.lock();
                accounts.account(known.model.as_deref(), now, calendar).restore(&known.account, now, calendar, anchor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        caller_limit::{
            CallerDimension, CallerQuota,
            account::{CallerAccount, CallerCost},
        },
        prices::Money,
        quota::PacificCalendar,
    };

    #[tokio::test(start_paused = true)]
    async fn a_caller_is_refused_after_a_restart_as_before_it() {
        let quota =
            CallerQuota::new().requests_per_minute(2).limits_for_model("m", CallerQuota::new().requests_per_day(1));
        let limits = || CallerLimits::builder().others(quota.clone()).build().unwrap();
        let before = limits();
        let (now, settings) = (Instant::now(), before.settings());
        let cost = CallerCost { requests: 1, ..CallerCost::default() };
        for _ in 0..2 {
            before.entry("app", &settings, now).admit(now, &quota, "m", cost, false);
            before.entry("app", &settings, now).admit(now, &quota, "other", cost, false);
        }
        let kept = serde_json::to_string(&before.memory()).unwrap();
        let after = limits();
        let memory: CallerLimitsMemory = serde_json::from_str(&kept).unwrap();
        after.restore(&memory);
        after.restore(&memory);
        let used = |limits: &CallerLimits| {
            let reports = limits.snapshot().into_iter();
            reports.map(|report| (report.caller, report.model, report.dimensions.map(|of| of.used))).collect::<Vec<_>>()
        };
        assert_eq!(used(&after), used(&before));
        // Without those limits, nothing is opened for the model.
        let free = CallerLimits::builder().others(CallerQuota::new().requests_per_minute(2)).build().unwrap();
        free.restore(&memory);
        assert_eq!(free.memory().callers.len(), 1);
    }

    proptest! {
        #[test]
        fn usage_counts_in_its_own_day_and_month_only(
            days in 0u64..40, used in prop::collection::vec((0u64..100_000, 1u64..1_000_000), 1..5),
        ) {
            // One o'clock in the morning in California, on 2026-11-21.
            let (morning, day) = (1_795_251_600, 86_400);
            let begin = |after: u64| {
                let now = Instant::now() + std::time::Duration::from_secs(after * 2);
                let wall = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(morning + after);
                let calendar = PacificCalendar::new(wall, now);
                (now, calendar, TimeAnchor::new(morning + after, now), CallerAccount::new(now, calendar))
            };
            let (now, calendar, anchor, mut before) = begin(0);
            for (tokens, micros) in used {
                let cost = CallerCost { requests: 1, input: tokens, output: 1, money: Money::micros(micros) };
                before.charge(now, calendar, cost);
            }
            let kept = before.memory(now, calendar, anchor).unwrap();
            let (now, calendar, anchor, mut after) = begin(days * day);
            after.restore(&kept, now, calendar, anchor);
            let restored = CallerDimension::ALL.map(|dimension| after.used(dimension));
            let all = CallerDimension::ALL.map(|dimension| before.used(dimension));
            let none = CallerDimension::ALL.map(|dimension| CallerAccount::new(now, calendar).used(dimension));
            let only_month = [none[0], none[1], none[2], none[3], none[4], all[5]];
            // November ends after the 30th.
            let expected = if days == 0 { all } else if days < 10 { only_month } else { none };
            prop_assert_eq!(restored, expected);
        }
    }
}
