//! The state of the server as an instance sees it: connected or away, and when it is looked at next.

use std::time::Duration;

use tokio::time::Instant;

use super::report::AwayReason;

/// The time after an outage for which takes have to fit into the share, too: others may still be away, and the server does not
/// know yet what they have taken.
pub(super) const RETURN: Duration = Duration::from_millis(1_500);

/// The time within which another outage means that the server is not well: more than one good answer is wanted then.
const UNSTEADY: Duration = Duration::from_secs(10);

/// The most good answers in a row that are wanted.
const MOST_WANTED: u32 = 3;

/// The state of the server.
#[derive(Clone, Debug)]
pub(super) struct Health {
    state: HealthState,
    /// The good answers in a row that end an outage.
    wanted: u32,
    good: u32,
    /// The time of the last return.
    back: Option<Instant>,
    /// The beginning, the end and the reason of the last time without the server.
    last: Option<(Instant, Instant, AwayReason)>,
    outages: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HealthState {
    Away { since: Instant, reason: AwayReason },
    Connected,
}

/// The way in which a question is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DecideBy {
    /// By the server.
    Server,
    /// By the server and the share, until that time: the others may not be back yet.
    Both(Instant),
    /// By the share, since that time.
    Share(Instant),
}

/// A change that a log has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HealthChange {
    Lost(AwayReason),
    Back(Duration),
}

impl Health {
    pub(super) fn new(now: Instant) -> Self {
        let state = HealthState::Away { since: now, reason: AwayReason::Starting };
        Self { state, wanted: 1, good: 0, back: None, last: None, outages: 0 }
    }

    /// Notes that the server has failed, and returns whether that is news.
    pub(super) fn failed(&mut self, now: Instant, reason: AwayReason) -> Option<HealthChange> {
        self.good = 0;
        match &mut self.state {
            HealthState::Away { reason: known, .. } => {
                // Starting is no reason any more; the first one of an outage says most.
                let is_first = *known == AwayReason::Starting;
                *known = if is_first { reason } else { *known };
                is_first.then_some(HealthChange::Lost(reason))
            }
            HealthState::Connected => {
                let is_again = self.back.is_some_and(|back| now.saturating_duration_since(back) < UNSTEADY);
                self.wanted = if is_again { (self.wanted + 1).min(MOST_WANTED) } else { 1 };
                self.state = HealthState::Away { since: now, reason };
                self.outages += 1;
                Some(HealthChange::Lost(reason))
            }
        }
    }

    /// Notes an answer that came in time, and returns whether the outage may end with it: the charges of the share have to be
    /// told first.
    pub(super) fn is_good_enough(&mut self) -> bool {
        self.good = self.good.saturating_add(1);
        self.good >= self.wanted
    }

    /// Ends the outage. `others_away`: other instances may not have noticed it yet. None is where an instance finds a server
    /// that was there before it.
    pub(super) fn returned(&mut self, now: Instant, others_away: bool) -> Option<HealthChange> {
        let HealthState::Away { since, reason } = self.state else { return None };
        self.last = Some((since, now, reason));
        (self.state, self.back) = (HealthState::Connected, others_away.then_some(now));
        Some(HealthChange::Back(now.saturating_duration_since(since)))
    }

    pub(super) fn decide_by(&self, now: Instant) -> DecideBy {
        match (self.state, self.back) {
            (HealthState::Away { since, .. }, _) => DecideBy::Share(since),
            (HealthState::Connected, Some(back)) if now < back + RETURN => DecideBy::Both(back + RETURN),
            _ => DecideBy::Server,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.state == HealthState::Connected
    }

    /// Returns the time of the outage and its reason.
    pub(super) fn away(&self) -> Option<(Instant, AwayReason)> {
        match self.state {
            HealthState::Away { since, reason } => Some((since, reason)),
            HealthState::Connected => None,
        }
    }

    /// Returns the beginning, the end and the reason of the last time without the server, the start included.
    pub(super) fn last_outage(&self) -> Option<(Instant, Instant, AwayReason)> {
        self.last
    }

    pub(super) fn outages(&self) -> u64 {
        self.outages
    }
}

/// Returns the time from one probe to the next, a fifth more or less at random: instances that were cut off together must not
/// come back together. `random` is from 0 to 1.
pub(super) fn probe_after(every: Duration, random: f64) -> Duration {
    every.mul_f64(0.8 + 0.4 * random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_error_is_enough_to_be_away_and_a_good_answer_to_be_back() {
        let now = Instant::now();
        let mut health = Health::new(now);
        assert_eq!(health.decide_by(now), DecideBy::Share(now));
        assert_eq!(health.failed(now, AwayReason::Unreachable), Some(HealthChange::Lost(AwayReason::Unreachable)));
        assert_eq!(health.failed(now, AwayReason::TimedOut), None);
        assert_eq!(health.away(), Some((now, AwayReason::Unreachable)));
        assert!(health.is_good_enough());
        assert_eq!(health.returned(now + SECOND, true), Some(HealthChange::Back(SECOND)));
        assert_eq!(health.returned(now + SECOND, true), None);
        assert_eq!(health.last_outage(), Some((now, now + SECOND, AwayReason::Unreachable)));
        assert_eq!(health.decide_by(now + SECOND), DecideBy::Both(now + SECOND + RETURN));
        assert_eq!(health.decide_by(now + SECOND + RETURN), DecideBy::Server);
        assert_eq!(
            health.failed(now + SECOND * 20, AwayReason::TimedOut),
            Some(HealthChange::Lost(AwayReason::TimedOut))
        );
        assert_eq!((health.decide_by(now + SECOND * 20), health.outages()), (DecideBy::Share(now + SECOND * 20), 1));
    }

    #[test]
    fn a_server_that_fails_again_and_again_has_to_answer_more_than_once() {
        let mut now = Instant::now();
        let mut health = Health::new(now);
        let mut wanted = Vec::new();
        for _ in 0..5 {
            let mut good = 1;
            while !health.is_good_enough() {
                good += 1;
            }
            wanted.push(good);
            health.returned(now, true);
            now += SECOND;
            health.failed(now, AwayReason::TimedOut);
        }
        assert_eq!(wanted, [1, 2, 3, 3, 3]);
        // A bad answer between good ones begins the count anew.
        assert!(!health.is_good_enough());
        health.failed(now, AwayReason::TimedOut);
        assert!(!health.is_good_enough() && !health.is_good_enough() && health.is_good_enough());
        health.returned(now, true);
        now += UNSTEADY;
        health.failed(now, AwayReason::TimedOut);
        assert!(health.is_good_enough());
    }

    #[test]
    fn a_server_that_was_there_before_decides_alone_at_once() {
        let now = Instant::now();
        let mut health = Health::new(now);
        assert!(health.is_good_enough() && health.returned(now, false).is_some());
        assert_eq!(health.decide_by(now), DecideBy::Server);
    }

    #[test]
    fn probes_are_a_fifth_apart_from_each_other() {
        let every = Duration::from_millis(250);
        assert_eq!(probe_after(every, 0.0), Duration::from_millis(200));
        assert_eq!(probe_after(every, 1.0), Duration::from_millis(300));
    }
}
