//! Quotas of minutes and days, as a pure state machine: its caller passes the time.

use std::{collections::VecDeque, time::Duration};

use crate::{
    emulator::wire::quota_names::ExceededLimit,
    quota::{Dimension, Limits},
};

/// The counting of a minute's quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum QuotaWindow {
    /// A sliding window: no more than the limit in any 60 seconds. Quota comes back 60 seconds after it was spent.
    #[default]
    Sliding,
    /// Fixed windows: no more than the limit in each minute since the emulator's start. All quota comes back at once.
    Fixed,
}

/// The quota that one project has spent on one model. Times are counted from the emulator's start.
#[derive(Debug)]
pub(crate) struct QuotaMeter {
    window: QuotaWindow,
    /// The quota spent within the last minute, oldest first, with one entry for each instant.
    spent: VecDeque<Spent>,
    requests: u64,
    tokens: u64,
    today: u64,
    day_ends: Duration,
}

#[derive(Debug)]
struct Spent {
    at: Duration,
    requests: u64,
    tokens: u64,
}

/// The limits that refuse a request, and the hint at when it may come again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QuotaRefusal {
    pub(crate) exceeded: Vec<ExceededLimit>,
    pub(crate) retry_in: Duration,
}

const MINUTE: Duration = Duration::from_secs(60);

/// The hint that Google gives to a request larger than the whole quota of a minute, however often it comes.
const POISON_HINT: Duration = Duration::from_secs(1);

// === impl QuotaMeter ===

impl QuotaMeter {
    pub(crate) fn new(window: QuotaWindow) -> Self {
        Self { window, spent: VecDeque::new(), requests: 0, tokens: 0, today: 0, day_ends: Duration::ZERO }
    }

    /// Spends `requests` requests and their tokens, or returns the limits that they would exceed. Refused requests cost
    /// nothing.
    ///
    /// `next_midnight` is called only when a new day has begun.
    pub(crate) fn take(
        &mut self,
        limits: &Limits,
        now: Duration,
        requests: u64,
        tokens: u64,
        next_midnight: impl FnOnce() -> Duration,
    ) -> Result<(), QuotaRefusal> {
        self.forget(now, next_midnight);
        let mut exceeded = Vec::new();
        let mut retry_in = Duration::ZERO;
        for dimension in [Dimension::RequestsPerDay, Dimension::RequestsPerMinute, Dimension::InputTokensPerMinute] {
            let Some(limit) = limits.get(dimension) else { continue };
            let (used, need) = match dimension {
                Dimension::RequestsPerDay => (self.today, requests),
                Dimension::RequestsPerMinute => (self.requests, requests),
                _ => (self.tokens, tokens),
            };
            if used.saturating_add(need) > limit {
                exceeded.push(ExceededLimit { dimension, limit });
                retry_in = retry_in.max(self.hint(dimension, limit, used, need, now));
            }
        }
        if !exceeded.is_empty() {
            return Err(QuotaRefusal { exceeded, retry_in });
        }
        self.spend(limits, now, requests, tokens);
        Ok(())
    }

    /// Returns whether nothing that was spent counts any more.
    pub(crate) fn is_idle(&self, now: Duration) -> bool {
        let minute_over = self.spent.back().is_none_or(|last| last.at + MINUTE <= now);
        minute_over && (self.today == 0 || self.day_ends <= now)
    }

    /// Returns the time of the last entry, to find the scope that has been idle for longest.
    pub(crate) fn last_spent(&self) -> Duration {
        self.spent.back().map_or(Duration::ZERO, |last| last.at)
    }

    fn forget(&mut self, now: Duration, next_midnight: impl FnOnce() -> Duration) {
        while self.spent.front().is_some_and(|first| first.at + MINUTE <= now) {
            if let Some(first) = self.spent.pop_front() {
                self.requests -= first.requests;
                self.tokens -= first.tokens;
            }
        }
        if self.day_ends <= now {
            self.today = 0;
            self.day_ends = next_midnight();
        }
    }

    fn spend(&mut self, limits: &Limits, now: Duration, requests: u64, tokens: u64) {
        if limits.get(Dimension::RequestsPerDay).is_some() {
            self.today += requests;
        }
        let minute_matters = limits.get(Dimension::RequestsPerMinute).is_some()
            || (limits.get(Dimension::InputTokensPerMinute).is_some() && tokens > 0);
        if !minute_matters {
            return;
        }
        let at = match self.window {
            QuotaWindow::Sliding => now,
            QuotaWindow::Fixed => Duration::from_secs(now.as_secs() / MINUTE.as_secs() * MINUTE.as_secs()),
        };
        self.requests += requests;
        self.tokens += tokens;
        match self.spent.back_mut() {
            Some(last) if last.at == at => {
                last.requests += requests;
                last.tokens += tokens;
            }
            _ => self.spent.push_back(Spent { at, requests, tokens }),
        }
    }

    /// Returns the time until enough quota has come back. For a day's quota and a limit of 0 it is the rest of the
    /// minute, which is as useless as Google's hint.
    fn hint(&self, dimension: Dimension, limit: u64, used: u64, need: u64, now: Duration) -> Duration {
        if dimension == Dimension::RequestsPerDay || limit == 0 {
            return MINUTE - Duration::from_nanos((now.as_nanos() % MINUTE.as_nanos()) as u64);
        }
        if need > limit {
            return POISON_HINT;
        }
        let mut left = used;
        for spent in &self.spent {
            left -= match dimension {
                Dimension::RequestsPerMinute => spent.requests,
                _ => spent.tokens,
            };
            if left + need <= limit {
                return (spent.at + MINUTE).saturating_sub(now);
            }
        }
        MINUTE
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn take(meter: &mut QuotaMeter, limits: &Limits, now: Duration, tokens: u64) -> Result<(), QuotaRefusal> {
        meter.take(limits, now, 1, tokens, || now + DAY)
    }

    #[test]
    fn a_sliding_window_gives_back_what_is_a_minute_old() {
        let limits = Limits::new().requests_per_minute(2);
        let mut meter = QuotaMeter::new(QuotaWindow::Sliding);
        assert!(take(&mut meter, &limits, secs(10), 1).is_ok());
        assert!(take(&mut meter, &limits, secs(40), 1).is_ok());
        assert_eq!(take(&mut meter, &limits, secs(50), 1).unwrap_err().retry_in, secs(20));
        assert!(take(&mut meter, &limits, secs(70), 1).is_ok());
        assert_eq!(take(&mut meter, &limits, secs(71), 1).unwrap_err().retry_in, secs(29));
    }

    #[test]
    fn a_fixed_window_gives_everything_back_at_the_minute() {
        let limits = Limits::new().requests_per_minute(2);
        let mut meter = QuotaMeter::new(QuotaWindow::Fixed);
        assert!(take(&mut meter, &limits, secs(58), 1).is_ok());
        assert!(take(&mut meter, &limits, secs(59), 1).is_ok());
        assert_eq!(take(&mut meter, &limits, secs(59), 1).unwrap_err().retry_in, secs(1));
        assert!(take(&mut meter, &limits, secs(60), 1).is_ok());
    }

    #[test]
    fn a_request_larger_than_the_minute_is_told_one_second_for_ever() {
        let limits = Limits::new().input_tokens_per_minute(100);
        let mut meter = QuotaMeter::new(QuotaWindow::Sliding);
        let refusal = take(&mut meter, &limits, secs(0), 101).unwrap_err();
        assert_eq!(refusal.retry_in, secs(1));
        assert!(take(&mut meter, &limits, secs(0), 100).is_ok());
    }

    #[test]
    fn a_batch_spends_a_request_for_each_of_its_texts() {
        let limits = Limits::new().requests_per_minute(100).requests_per_day(250);
        let mut meter = QuotaMeter::new(QuotaWindow::Sliding);
        let mut batch = |at, requests| meter.take(&limits, secs(at), requests, 1, || DAY);
        assert!(batch(0, 40).is_ok() && batch(1, 40).is_ok());
        assert_eq!(batch(2, 40).unwrap_err().retry_in, secs(58));
        assert!(batch(2, 20).is_ok());
        assert_eq!(batch(100, 101).unwrap_err().retry_in, POISON_HINT, "it never fits");
        assert!(batch(100, 100).is_ok());
        assert_eq!(batch(200, 100).unwrap_err().exceeded[0].dimension, Dimension::RequestsPerDay);
    }

    #[test]
    fn a_limit_of_zero_refuses_always() {
        let limits = Limits::new().requests_per_minute(0).requests_per_day(0);
        let mut meter = QuotaMeter::new(QuotaWindow::Sliding);
        for minute in 0..5 {
            let refusal = take(&mut meter, &limits, secs(minute * 60 + 13), 1).unwrap_err();
            assert_eq!(refusal.exceeded.len(), 2);
            assert_eq!(refusal.retry_in, secs(47));
        }
    }

    #[test]
    fn a_day_begins_anew_at_midnight() {
        let limits = Limits::new().requests_per_day(1);
        let mut meter = QuotaMeter::new(QuotaWindow::Sliding);
        assert!(meter.take(&limits, secs(5), 1, 1, || secs(3600)).is_ok());
        assert!(meter.take(&limits, secs(3599), 1, 1, || unreachable!()).is_err());
        assert!(meter.take(&limits, secs(3600), 1, 1, || secs(3600) + DAY).is_ok());
        assert!(!meter.is_idle(secs(3700)));
        assert!(meter.is_idle(secs(3600) + DAY));
    }

    proptest! {
        /// Compares with a model that keeps every accepted request and counts them all again each time.
        #[test]
        fn windows_agree_with_the_plain_model(
            fixed: bool,
            rpm in proptest::option::of(0_u64..6),
            tpm in proptest::option::of(0_u64..60),
            rpd in proptest::option::of(0_u64..20),
            steps in proptest::collection::vec((0_u64..30_000, 0_u64..40), 1..80),
        ) {
            let mut limits = Limits::new();
            if let Some(rpm) = rpm { limits = limits.requests_per_minute(rpm); }
            if let Some(tpm) = tpm { limits = limits.input_tokens_per_minute(tpm); }
            if let Some(rpd) = rpd { limits = limits.requests_per_day(rpd); }
            let day = secs(600);
            let mut meter = QuotaMeter::new(if fixed { QuotaWindow::Fixed } else { QuotaWindow::Sliding });
            let mut accepted: Vec<(Duration, u64)> = Vec::new();
            let mut now = Duration::ZERO;
            for (pause, tokens) in steps {
                now += Duration::from_millis(pause);
                let counts = |then: Duration, now: Duration| match fixed {
                    true => then.as_secs() / 60 == now.as_secs() / 60,
                    false => then + MINUTE > now,
                };
                let fits = |accepted: &[(Duration, u64)], now: Duration| {
                    let recent = accepted.iter().filter(|(then, _)| counts(*then, now));
                    let today = accepted.iter().filter(|(then, _)| then.as_secs() / 600 == now.as_secs() / 600).count();
                    rpm.is_none_or(|limit| (recent.clone().count() as u64) < limit)
                        && tpm.is_none_or(|limit| recent.map(|(_, tokens)| tokens).sum::<u64>() + tokens <= limit)
                        && rpd.is_none_or(|limit| (today as u64) < limit)
                };
                let midnight = || day * (now.as_secs() / 600 + 1) as u32;
                match meter.take(&limits, now, 1, tokens, midnight) {
                    Ok(()) => {
                        prop_assert!(fits(&accepted, now));
                        accepted.push((now, tokens));
                    }
                    Err(refusal) => {
                        prop_assert!(!fits(&accepted, now));
                        let hopeless = refusal.exceeded.iter().any(|limit| match limit.dimension {
                            Dimension::RequestsPerDay => true,
                            Dimension::InputTokensPerMinute => limit.limit < tokens.max(1),
                            _ => limit.limit == 0,
                        });
                        // The hint is exact: not a moment too late, and never too early.
                        if !hopeless {
                            prop_assert!(fits(&accepted, now + refusal.retry_in) || rpd.is_some());
                            let before = now + refusal.retry_in - Duration::from_nanos(1);
                            prop_assert!(!fits(&accepted, before));
                        }
                    }
                }
            }
        }
    }
}
