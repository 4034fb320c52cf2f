//! An account in a form that outlives the process.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Account, Blocks, Bound, DIMENSIONS};
use crate::{
    clock::TimeAnchor,
    quota::{PacificCalendar, window::WindowMemory},
    rate_limit::{blocks::BlocksMemory, bound::BoundMemory},
};

/// The time after which a limit that a refusal has named is not taken up any more: as long as anything is believed. Tiers
/// change, and within one process only another refusal corrects it.
const NAMED: Duration = Duration::from_secs(25 * 3_600);

/// The most requests of a day that are taken up: more was never counted.
const MOST: u64 = 1 << 48;

/// The usage of a scope and the lessons of its refusals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::rate_limit) struct AccountMemory {
    /// The date of the day in California, and its requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<(Box<str>, u64)>,
    /// The last minute, where a minute is limited.
    #[serde(skip_serializing_if = "WindowMemory::is_empty")]
    minute: WindowMemory,
    /// The seconds from 1970 to the last refusal that named a limit.
    named_at: u64,
    /// In the order of the dimensions.
    limits: [BoundMemory; 3],
    #[serde(skip_serializing_if = "BlocksMemory::is_empty")]
    blocks: BlocksMemory,
}

impl Account {
    /// Returns the usage and the lessons of refusals. `None`: there are none. The account has been caught up.
    pub(in crate::rate_limit) fn memory(
        &self,
        now: Instant,
        calendar: PacificCalendar,
        anchor: TimeAnchor,
    ) -> Option<AccountMemory> {
        let used = self.day.used.saturating_sub(self.day.held);
        let [requests, tokens, _] = &self.limits;
        let is_limited = requests.full().or(tokens.full()).is_some();
        let knows = self.limits.iter().any(Bound::knows_anything);
        let memory = AccountMemory {
            day: (used > 0).then(|| (calendar.date(now), used)),
            minute: if is_limited { self.window.memory(anchor) } else { WindowMemory::default() },
            named_at: if knows { anchor.seconds_at(self.named_at) } else { 0 },
            limits: DIMENSIONS.map(|dimension| self.limits[super::index(dimension)].memory(anchor)),
            blocks: self.blocks.as_ref().map(|blocks| blocks.memory(anchor, now)).unwrap_or_default(),
        };
        (memory != AccountMemory::default()).then_some(memory)
    }

    /// Takes up the usage and the lessons of another process. The usage of a day that is over counts no more; that of the
    /// same day is raised to it, so that nothing counts twice.
    pub(in crate::rate_limit) fn restore(
        &mut self,
        memory: &AccountMemory,
        now: Instant,
        calendar: PacificCalendar,
        anchor: TimeAnchor,
    ) {
        self.catch_up(now, calendar);
        if let Some((_, used)) = memory.day.as_ref().filter(|(date, _)| *date == calendar.date(now)) {
            self.day.used = self.day.used.max((*used).min(MOST));
        }
        self.window.restore(&memory.minute, anchor, now);
        let named_at = anchor.time_of(memory.named_at).min(now);
        let is_believed = now < named_at + NAMED;
        for (bound, memory) in self.limits.iter_mut().zip(&memory.limits) {
            bound.restore(memory, is_believed, anchor, now);
        }
        if is_believed {
            self.named_at = named_at;
        }
        if self.blocks.is_none() {
            self.blocks = Blocks::restored(&memory.blocks, anchor, now).map(Box::new);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        block::Claim,
        quota::{Dimension, Limits, window::Amount},
    };

    /// One o'clock in the morning in California, on 2026-11-21.
    const MORNING: u64 = 1_795_251_600;

    /// A process: its clock, its calendar and its account.
    struct Process {
        account: Account,
        calendar: PacificCalendar,
        anchor: TimeAnchor,
        began: Instant,
    }

    impl Process {
        /// Begins so many seconds after the morning.
        fn begin(after: u64, limits: Limits) -> Self {
            let began = Instant::now() + Duration::from_secs(1 << 20) + Duration::from_secs(after * 3);
            let wall = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(MORNING + after);
            let calendar = PacificCalendar::new(wall, began);
            let anchor = TimeAnchor::new(MORNING + after, began);
            Self { account: Account::new(limits, None, calendar, began), calendar, anchor, began }
        }

        fn memory(&mut self, at: u64) -> Option<AccountMemory> {
            let now = self.began + Duration::from_secs(at);
            self.account.catch_up(now, self.calendar);
            self.account.memory(now, self.calendar, self.anchor)
        }

        fn restore(&mut self, memory: &AccountMemory) {
            self.account.restore(memory, self.began, self.calendar, self.anchor);
        }

        /// Returns whether a call is taken at a second, or else the seconds until it is tried again.
        fn take(&mut self, at: u64, grounded: bool) -> Result<(), u64> {
            let now = self.began + Duration::from_secs(at);
            let amount = Amount { requests: 1, tokens: 10 };
            let taken = self.account.take(now, amount, grounded, self.calendar);
            taken.map(|_| ()).map_err(|at| (at - now).as_secs())
        }
    }

    fn limits() -> Limits {
        Limits::new().requests_per_day(40)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take,
        Block(bool),
        Refused(u64),
    }

    fn steps(most: usize) -> impl Strategy<Value = Vec<(u64, Step)>> {
        let step = prop_oneof![
            6 => Just(Step::Take),
            1 => any::<bool>().prop_map(Step::Block),
            1 => (1u64..60).prop_map(Step::Refused),
        ];
        prop::collection::vec((0u64..2_000, step), 0..most)
    }

    proptest! {
        #[test]
        fn a_restored_account_decides_as_the_old_one_would_have(before in steps(40), after in steps(40), down in 61u64..9_000) {
            let mut old = Process::begin(0, limits());
            let mut at = 0;
            let run = |process: &mut Process, at: u64, step: &Step| {
                let now = process.began + Duration::from_secs(at);
                process.account.catch_up(now, process.calendar);
                match step {
                    Step::Take => process.take(at, false),
                    Step::Block(grounded) => {
                        process.account.block(Claim::day(), *grounded, now);
                        process.take(at, *grounded)
                    }
                    Step::Refused(named) => {
                        process.account.refused(now, Dimension::RequestsPerDay, Some(*named), None);
                        process.take(at, false)
                    }
                }
            };
            for (wait, step) in &before {
                at += wait;
                // A look that is under way ends with its process.
                let _ = run(&mut old, at, step);
            }
            let kept = old.memory(at).unwrap_or_default();
            let stopped = at + down;
            let mut new = Process::begin(stopped, limits());
            new.restore(&kept);
            // The minute is over, and the look of the old process too.
            old.account.catch_up(old.began + Duration::from_secs(stopped), old.calendar);
            let mut at = 0;
            for (wait, step) in &after {
                at += wait;
                let (one, other) = (run(&mut old, stopped + at, step), run(&mut new, at, step));
                prop_assert_eq!(one, other, "{:?} at {}: {:?}", step, at, kept);
                let used = |process: &Process| process.account.used(Dimension::RequestsPerDay);
                prop_assert_eq!(used(&old), used(&new));
            }
            prop_assert_eq!(old.memory(stopped + at).map(|memory| memory.day), new.memory(at).map(|memory| memory.day));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_count_of_yesterday_is_dropped_and_that_of_today_holds() {
        let mut old = Process::begin(0, limits());
        for at in 0..40 {
            assert_eq!(old.take(at, false), Ok(()));
        }
        let kept = old.memory(40).unwrap();
        let mut today = Process::begin(100, limits());
        today.restore(&kept);
        assert!(today.take(0, false).is_err());
        // 23 h later it is tomorrow in California.
        let mut tomorrow = Process::begin(23 * 3_600, limits());
        tomorrow.restore(&kept);
        assert_eq!((tomorrow.take(0, false), tomorrow.account.used(Dimension::RequestsPerDay)), (Ok(()), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_within_a_minute_does_not_overrun_the_minutes_limit() {
        let minute = || Limits::new().requests_per_minute(5);
        let mut old = Process::begin(0, minute());
        for at in [10, 20, 21, 22, 30] {
            assert_eq!(old.take(at, false), Ok(()));
        }
        let kept = old.memory(31).unwrap();
        let mut new = Process::begin(33, minute());
        new.restore(&kept);
        assert!(new.take(0, false).is_err());
        // The first of them is a minute old, and a piece of 5 s at most.
        assert_eq!(new.take(10 + 60 - 33 + 6, false), Ok(()));
        assert!(new.take(10 + 60 - 33 + 6, false).is_err());
        // Without a limit, nobody asks for a minute.
        let mut free = Process::begin(0, Limits::new());
        assert_eq!(free.take(1, false), Ok(()));
        assert!(free.memory(2).unwrap().minute.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_was_named_holds_for_25_hours_over_restarts() {
        let mut old = Process::begin(0, Limits::new());
        let (now, minute) = (old.began, Dimension::RequestsPerMinute);
        old.account.refused(now, minute, Some(7), None);
        let mut kept = old.memory(0).unwrap();
        for (after, expected) in [(24 * 3_600, Some(7)), (26 * 3_600, None)] {
            let mut new = Process::begin(after, Limits::new());
            new.restore(&kept);
            assert_eq!(new.account.limit(minute, new.began), expected, "{after}");
            // A restart makes it no younger.
            kept = new.memory(0).unwrap_or_default();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_that_says_nothing_is_not_kept_and_a_broken_count_breaks_nothing() {
        assert_eq!(Process::begin(0, limits()).memory(5), None);
        let mut new = Process::begin(0, limits());
        let date = new.calendar.date(new.began);
        let kept = AccountMemory { day: Some((date, u64::MAX)), named_at: u64::MAX, ..AccountMemory::default() };
        new.restore(&kept);
        assert!(new.take(0, false).is_err());
        assert_eq!(new.take(24 * 3_600, false), Ok(()));
    }
}
