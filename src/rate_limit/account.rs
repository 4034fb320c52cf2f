//! What one scope has used, may use, and why it may not use more: all dimensions in one place, so that they are taken
//! together or not at all. Pure: it is told the time.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{
    Amount,
    pacing::Pacer,
    window::{Position, Window},
};
use crate::quota::{Dimension, Limits, until_pacific_midnight};

/// The dimensions, in the order in which they are kept.
pub(super) const DIMENSIONS: [Dimension; 3] =
    [Dimension::RequestsPerMinute, Dimension::InputTokensPerMinute, Dimension::RequestsPerDay];

/// After a 429 below the limit the limit in force is what was used, less this much: others use the rest.
const LOWERED: f64 = 0.95;

/// So long a lowered limit stays as it is.
const HOLD: Duration = Duration::from_secs(300);

/// Then it grows by this part of the full limit a minute, until it is full or the next 429 comes. Slow, because each try
/// at too much costs a 429: one in about ten minutes.
const RECOVERY: f64 = 0.01;

/// Everything that is known of one scope.
#[derive(Debug)]
pub(super) struct Account {
    limits: [Bound; 3],
    window: Window,
    day: Day,
    blocked: Option<Instant>,
    pacer: Option<Pacer>,
}

/// The limit of one dimension.
#[derive(Clone, Copy, Debug, Default)]
struct Bound {
    configured: Option<u64>,
    /// As a 429 named it.
    learned: Option<u64>,
    /// Lower for the moment: somebody else uses the same quota.
    lowered: Option<Lowered>,
}

#[derive(Clone, Copy, Debug)]
struct Lowered {
    to: u64,
    at: Instant,
}

/// Requests since midnight Pacific.
#[derive(Clone, Copy, Debug)]
struct Day {
    used: u64,
    ends: Instant,
}

/// Wall time and the clock's time at one moment, so that wall time is read once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calendar {
    pub(super) wall: SystemTime,
    pub(super) at: Instant,
}

/// What was taken, to be corrected or given back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receipt {
    position: Position,
    amount: Amount,
    day_ends: Instant,
}

/// The answer to one question about all dimensions.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    Taken(Receipt),
    /// Not before then.
    Later(Instant),
}

impl Calendar {
    fn midnight_after(self, now: Instant) -> Instant {
        let wall = self.wall + now.saturating_duration_since(self.at);
        now + until_pacific_midnight(wall)
    }
}

impl Account {
    pub(super) fn new(limits: Limits, pacer: Option<Pacer>, calendar: Calendar, now: Instant) -> Self {
        let limits = DIMENSIONS.map(|dimension| Bound { configured: limits.get(dimension), ..Bound::default() });
        let day = Day { used: 0, ends: calendar.midnight_after(now) };
        Self { limits, window: Window::default(), day, blocked: None, pacer }
    }

    /// Takes all of it, or nothing and says when to ask again.
    pub(super) fn take(&mut self, now: Instant, amount: Amount, calendar: Calendar) -> Answer {
        self.catch_up(now, calendar);
        let mut at = self.open_at(now, amount);
        if at <= now {
            let limit = self.limit(Dimension::RequestsPerMinute, now);
            at = self.pacer.as_mut().map_or(now, |pacer| pacer.take(now, limit));
        }
        if at > now {
            return Answer::Later(at);
        }
        let amount = self.clamped(amount, now);
        self.day.used += amount.requests;
        let position = self.window.charge(now, amount);
        Answer::Taken(Receipt { position, amount, day_ends: self.day.ends })
    }

    /// Corrects what was taken: `tokens` is what it really cost.
    pub(super) fn settle(&mut self, receipt: Receipt, tokens: u64) {
        let after = Amount { tokens, ..receipt.amount };
        self.window.correct(receipt.position, receipt.amount, after);
    }

    /// Gives back what was taken: it never reached the upstream, or does not count there.
    pub(super) fn refund(&mut self, receipt: Receipt) {
        self.window.correct(receipt.position, receipt.amount, Amount::default());
        if receipt.day_ends == self.day.ends {
            self.day.used = self.day.used.saturating_sub(receipt.amount.requests);
        }
    }

    /// Charges what was taken anew: it is sent only now.
    pub(super) fn restamp(&mut self, now: Instant, receipt: Receipt) -> Receipt {
        self.window.correct(receipt.position, receipt.amount, Amount::default());
        self.window.expire(now);
        Receipt { position: self.window.charge(now, receipt.amount), ..receipt }
    }

    /// When the scope could take all of `ahead` and then `amount`: at the earliest, and about.
    pub(super) fn turn_at(&mut self, now: Instant, ahead: Amount, amount: Amount, calendar: Calendar) -> Instant {
        self.catch_up(now, calendar);
        let all = ahead.plus(amount);
        let limit = self.minute_limit(now);
        let mut at = self.open_at(now, amount).max(self.window.admitted_at(now, all, limit));
        if let Some(day) = self.limit(Dimension::RequestsPerDay, now)
            && self.day.used.saturating_add(all.requests) > day
        {
            at = at.max(self.day.ends);
        }
        if let Some(pacer) = &self.pacer {
            at = at.max(now + pacer.time_for(all.requests, self.limit(Dimension::RequestsPerMinute, now)));
        }
        at
    }

    /// Nobody gets anything before then.
    pub(super) fn block(&mut self, until: Instant) {
        self.blocked = Some(self.blocked.map_or(until, |blocked| blocked.max(until)));
    }

    /// The upstream refused for this dimension, and may have named its limit.
    ///
    /// A limit is learned where none is configured, and wins where it is lower. A refusal below the limit in force means
    /// that somebody else uses the same quota.
    pub(super) fn refused(&mut self, now: Instant, dimension: Dimension, named: Option<u64>) {
        self.window.expire(now);
        let used = self.used(dimension);
        let in_force = self.limit(dimension, now);
        let bound = &mut self.limits[index(dimension)];
        if let Some(named) = named.filter(|named| *named > 0) {
            bound.learned = Some(named);
        }
        let Some(full) = bound.full() else { return };
        if dimension == Dimension::RequestsPerDay {
            return;
        }
        let in_force = in_force.unwrap_or(full).min(full);
        if used < in_force {
            let to = ((used as f64 * LOWERED) as u64).clamp(1, full);
            bound.lowered = Some(Lowered { to, at: now });
        } else if let Some(lowered) = &mut bound.lowered {
            // All that is in force was used, and it was too much all the same.
            *lowered = Lowered { to: ((in_force as f64 * LOWERED) as u64).clamp(1, full), at: now };
        }
    }

    /// The limit in force, or none.
    pub(super) fn limit(&self, dimension: Dimension, now: Instant) -> Option<u64> {
        self.limits[index(dimension)].in_force(now)
    }

    /// What counts of a dimension at the moment.
    pub(super) fn used(&self, dimension: Dimension) -> u64 {
        match dimension {
            Dimension::RequestsPerMinute => self.window.used().requests,
            Dimension::InputTokensPerMinute => self.window.used().tokens,
            Dimension::RequestsPerDay => self.day.used,
        }
    }

    pub(super) fn learned(&self, dimension: Dimension) -> Option<u64> {
        self.limits[index(dimension)].learned
    }

    pub(super) fn blocked_until(&self, now: Instant) -> Option<Instant> {
        self.blocked.filter(|until| *until > now)
    }

    pub(super) fn midnight(&self) -> Instant {
        self.day.ends
    }

    /// Whether there is nothing to remember: forgetting it now changes no decision.
    pub(super) fn is_forgettable(&mut self, now: Instant, calendar: Calendar) -> bool {
        self.catch_up(now, calendar);
        let knows = |bound: &Bound| bound.learned.is_some() || bound.lowered.is_some();
        let counts_days = self.limits[2].full().is_some() && self.day.used > 0;
        self.window.is_empty() && self.blocked.is_none() && !counts_days && !self.limits.iter().any(knows)
    }

    /// Forgets what no longer counts.
    pub(super) fn catch_up(&mut self, now: Instant, calendar: Calendar) {
        self.window.expire(now);
        if self.day.ends <= now {
            self.day = Day { used: 0, ends: calendar.midnight_after(now) };
        }
        self.blocked = self.blocked_until(now);
    }

    /// When all dimensions have room, apart from the pacing.
    fn open_at(&self, now: Instant, amount: Amount) -> Instant {
        let blocked = self.blocked.unwrap_or(now);
        let window = self.window.fits_at(now, amount, self.minute_limit(now));
        let day = match self.limit(Dimension::RequestsPerDay, now) {
            Some(limit) if self.day.used.saturating_add(amount.requests) > limit => self.day.ends,
            _ => now,
        };
        // A limit of zero never opens: the day's end is when somebody may have changed it.
        let never = [Dimension::RequestsPerMinute, Dimension::InputTokensPerMinute]
            .iter()
            .any(|dimension| self.limit(*dimension, now) == Some(0));
        let never = if never { self.day.ends } else { now };
        blocked.max(window).max(day).max(never)
    }

    fn minute_limit(&self, now: Instant) -> Amount {
        Amount {
            requests: self.limit(Dimension::RequestsPerMinute, now).unwrap_or(u64::MAX),
            tokens: self.limit(Dimension::InputTokensPerMinute, now).unwrap_or(u64::MAX),
        }
    }

    /// An estimate over the limit counts as the limit, so that it passes once the window is empty.
    fn clamped(&self, amount: Amount, now: Instant) -> Amount {
        amount.min(self.minute_limit(now))
    }
}

impl Bound {
    fn full(&self) -> Option<u64> {
        match (self.configured, self.learned) {
            (Some(configured), Some(learned)) => Some(configured.min(learned)),
            (configured, learned) => configured.or(learned),
        }
    }

    fn in_force(&self, now: Instant) -> Option<u64> {
        let full = self.full()?;
        let Some(lowered) = self.lowered else { return Some(full) };
        let minutes = now.saturating_duration_since(lowered.at + HOLD).as_secs() / 60;
        let grown = (full as f64 * RECOVERY * minutes as f64) as u64;
        Some(lowered.to.saturating_add(grown).min(full))
    }
}

fn index(dimension: Dimension) -> usize {
    DIMENSIONS.iter().position(|known| *known == dimension).unwrap_or(0)
}
