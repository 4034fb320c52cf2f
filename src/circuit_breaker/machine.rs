//! One breaker's state: closed, open, half-open, and closed again by and by. Pure: it is told the time and a number by
//! chance, and answers with what to do.
//!
//! Whoever is let in gets an [`Admission`] stamped with the machine's generation, which changes whenever it opens, asks for
//! probes or closes. What comes back with an older stamp changes nothing: an answer to a question of before the outage says
//! nothing of now.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Reason, State,
    trip::{Evidence, Tracker, Traffic, Trip, may_still_answer},
};

/// After a probe has succeeded, for so many seconds, each second lets in twice as many as the one before.
const RAMP_SECONDS: u32 = 10;

/// Whoever comes while the probes are out, or while the ramp is full, comes again after this long or up to twice as long.
const SOON: Duration = Duration::from_millis(500);

/// A failure that is older than this is not worth the memory.
const MEMORY: Duration = Duration::from_secs(600);

/// Hints of the upstream's are believed up to here, as `RetryPolicy::MAX_HINT` has it.
const MAX_HINT: Duration = Duration::from_secs(300);

/// Spreads those who wait for the same moment.
const SPREAD: Duration = Duration::from_millis(200);

/// What holds for one breaker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) trip: Trip,
    pub(super) open: Duration,
    pub(super) max_open: Duration,
    pub(super) probes: u32,
    pub(super) lease: Duration,
}

/// Whoever was let in, and when that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Admission {
    pub(super) generation: u64,
    /// Known for some only: reading the clock costs more than all the rest.
    pub(super) began: Option<Instant>,
    pub(super) kind: Admitted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// While all was well: nothing is known of it.
    Unseen,
    /// One of those that are under way.
    Seen,
    /// A probe, by the number of its lease.
    Probe(u64),
}

/// A change of state, for those who watch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct StateChange {
    pub(super) from: State,
    pub(super) to: State,
    pub(super) reason: Reason,
    pub(super) open_for: Option<Duration>,
}

#[derive(Clone, Debug)]
pub(super) struct Machine {
    rules: Rules,
    generation: u64,
    phase: BreakerPhase,
    tracker: Tracker,
    latencies: Latencies,
    /// Calls of this generation that were seen to go in and not yet to come out.
    pending: u32,
    /// How often it has opened since it was last well.
    openings: u32,
    /// Requests in a second when it opened.
    rate: f64,
    /// The upstream has asked for quiet until then.
    not_before: Option<Instant>,
    last_failure: Option<Instant>,
    leases: u64,
    change: Option<StateChange>,
}

#[derive(Clone, Debug)]
enum BreakerPhase {
    Closed,
    Ramp(Ramp),
    Open { until: Instant },
    HalfOpen(Probes),
    Forced { open: bool },
}

#[derive(Clone, Debug)]
struct Ramp {
    since: Instant,
    second: u32,
    admitted: u64,
    failed: u32,
    succeeded: bool,
}

#[derive(Clone, Debug, Default)]
struct Probes {
    /// Number and end of each probe that is out.
    out: Vec<(u64, Instant)>,
    failed: u32,
}

impl Machine {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            generation: 0,
            phase: BreakerPhase::Closed,
            tracker: Tracker::new(rules.trip),
            latencies: Latencies::default(),
            pending: 0,
            openings: 0,
            rate: 0.0,
            not_before: None,
            last_failure: None,
            leases: 0,
            change: None,
        }
    }

    // === in ===

    /// Lets a call in, or says how long it had better wait.
    pub(super) fn admit(&mut self, now: Instant, roll: f64) -> Result<Admission, Duration> {
        self.end_ramp(now);
        if let BreakerPhase::Open { until } = self.phase {
            if now < until {
                return Err(until - now + SPREAD.mul_f64(roll));
            }
            self.enter(BreakerPhase::HalfOpen(Probes::default()), Reason::TimeForProbes);
        }
        let soon = SOON + SOON.mul_f64(roll);
        let kind = match &mut self.phase {
            BreakerPhase::Forced { open: true } => return Err(self.rules.max_open),
            BreakerPhase::Forced { open: false } => Admitted::Unseen,
            BreakerPhase::HalfOpen(probes) => {
                probes.out.retain(|(_, end)| now < *end);
                if probes.out.len() as u64 + u64::from(probes.failed) >= u64::from(self.rules.probes) {
                    return Err(soon);
                }
                self.leases += 1;
                let p95 = self.latencies.p95().unwrap_or_default();
                probes.out.push((self.leases, now + self.rules.lease.max(p95.saturating_mul(4))));
                Admitted::Probe(self.leases)
            }
            BreakerPhase::Ramp(ramp) => {
                // As many as callers wanted when it opened, and no fewer than the probes, which were let in at once.
                let first = self.rate.max(f64::from(self.rules.probes));
                if !ramp.take(now, first) {
                    return Err(soon);
                }
                Admitted::Seen
            }
            BreakerPhase::Closed | BreakerPhase::Open { .. } => Admitted::Seen,
        };
        if kind == Admitted::Seen {
            self.pending = self.pending.saturating_add(1);
        }
        Ok(Admission { generation: self.generation, began: Some(now), kind })
    }

    // === out ===

    /// It was answered.
    pub(super) fn succeed(&mut self, admission: Admission, now: Instant) {
        if !self.returns(admission, now, true) {
            return;
        }
        if let Some(began) = admission.began {
            self.latencies.add(now.saturating_duration_since(began));
        }
        self.not_before = None;
        match &mut self.phase {
            BreakerPhase::Closed => self.tracker.succeeded(admission.began, now),
            BreakerPhase::Ramp(ramp) => {
                ramp.succeeded = true;
                self.tracker.succeeded(admission.began, now);
                self.end_ramp(now);
            }
            BreakerPhase::HalfOpen(_) => self.enter(BreakerPhase::Ramp(Ramp::new(now)), Reason::ProbeSucceeded),
            BreakerPhase::Open { .. } | BreakerPhase::Forced { .. } => {}
        }
    }

    /// It failed in a way that counts. `repeated`: an earlier attempt of the same request has, too. `hint`: the wait that
    /// the upstream has asked for.
    pub(super) fn fail(
        &mut self,
        admission: Admission,
        repeated: bool,
        hint: Option<Duration>,
        now: Instant,
        roll: f64,
    ) {
        if !self.returns(admission, now, false) {
            return;
        }
        if let Some(hint) = hint {
            self.not_before = self.not_before.max(Some(now + hint.min(MAX_HINT)));
        }
        match &mut self.phase {
            BreakerPhase::Closed | BreakerPhase::Ramp(_) => {
                self.tracker.failed(now, repeated);
                self.last_failure = Some(now);
                if let Some(reason) = self.verdict(now) {
                    self.open(now, roll, reason);
                }
            }
            BreakerPhase::HalfOpen(probes) => {
                probes.failed += 1;
                if probes.failed >= self.rules.probes {
                    let failed = probes.failed;
                    self.open(now, roll, Reason::ProbesFailed { failed });
                }
            }
            BreakerPhase::Open { .. } | BreakerPhase::Forced { .. } => {}
        }
    }

    /// It came to nothing that says anything: it was dropped, it panicked, or it was somebody else's fault.
    pub(super) fn release(&mut self, admission: Admission, now: Instant) {
        self.returns(admission, now, false);
    }

    /// Whether what comes back may still change anything. A probe's answer does, however late it is: or nothing would ever
    /// close the breaker of a model whose answers take longer than a lease.
    fn returns(&mut self, admission: Admission, now: Instant, is_answer: bool) -> bool {
        if admission.generation != self.generation {
            return false;
        }
        match (admission.kind, &mut self.phase) {
            (Admitted::Unseen, _) => true,
            (Admitted::Seen, _) => {
                self.pending = self.pending.saturating_sub(1);
                true
            }
            (Admitted::Probe(number), BreakerPhase::HalfOpen(probes)) => {
                let at = probes.out.iter().position(|(probe, _)| *probe == number);
                let place = at.map(|at| probes.out.swap_remove(at));
                is_answer || place.is_some_and(|(_, end)| now < end)
            }
            (Admitted::Probe(_), _) => false,
        }
    }

    /// Why it has to open, if what has failed is enough for that.
    fn verdict(&mut self, now: Instant) -> Option<Reason> {
        let trip = self.rules.trip;
        if let BreakerPhase::Ramp(ramp) = &mut self.phase {
            ramp.failed = ramp.failed.saturating_add(1);
            // The probe was luck: it takes as many failures as ever, but nobody waits until they have lasted.
            let enough = ramp.failed >= trip.requests_needed() && !may_still_answer(self.pending, ramp.failed);
            if enough && !ramp.succeeded {
                let after = now.saturating_duration_since(ramp.since);
                return Some(Reason::Relapsed { failed: ramp.failed, after });
            }
        }
        let view = Traffic { p95: self.latencies.p95(), pending: self.pending };
        let Evidence { failed, requests, over } = self.tracker.verdict(trip, now, view)?;
        self.rate = f64::from(requests) / over.as_secs_f64().max(1.0);
        Some(Reason::Tripped { failed, requests, over })
    }

    // === what moves it ===

    fn open(&mut self, now: Instant, roll: f64, reason: Reason) {
        let Rules { open, max_open, .. } = self.rules;
        let doublings = self.openings.min(30);
        let ceiling = open.saturating_mul(2 << doublings).min(max_open);
        let wait = (ceiling / 2 + (ceiling / 2).mul_f64(roll)).max(open);
        let until = self.not_before.map_or(now + wait, |quiet| quiet.max(now + wait));
        self.openings = self.openings.saturating_add(1);
        self.enter(BreakerPhase::Open { until }, reason);
        if let Some(change) = &mut self.change {
            change.open_for = Some(until - now);
        }
    }

    /// Closes it for good once its time has passed. What is under way stays of interest.
    fn end_ramp(&mut self, now: Instant) {
        if matches!(&self.phase, BreakerPhase::Ramp(ramp) if ramp.is_over(now)) {
            self.phase = BreakerPhase::Closed;
            self.openings = 0;
            let (from, to) = (State::Ramping, State::Closed);
            self.change = Some(StateChange { from, to, reason: Reason::Recovered, open_for: None });
        }
    }

    /// Whatever is under way now belongs to the past.
    fn enter(&mut self, phase: BreakerPhase, reason: Reason) {
        let from = self.phase.state();
        self.phase = phase;
        self.generation += 1;
        self.pending = 0;
        self.tracker = Tracker::new(self.rules.trip);
        let to = self.phase.state();
        self.change = (from != to).then_some(StateChange { from, to, reason, open_for: None });
    }

    pub(super) fn force(&mut self, open: bool) {
        self.enter(BreakerPhase::Forced { open }, Reason::Forced);
    }

    /// As new; only how long successes take stays known.
    pub(super) fn reset(&mut self) {
        self.openings = 0;
        self.rate = 0.0;
        self.not_before = None;
        self.enter(BreakerPhase::Closed, Reason::Reset);
    }

    // === what is seen of it ===

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether everybody may pass and a success would change nothing, so that nobody need ask.
    pub(super) fn is_calm(&self) -> bool {
        match self.phase {
            BreakerPhase::Closed => self.tracker.is_blank() && self.latencies.are_enough(),
            BreakerPhase::Forced { open } => !open,
            _ => false,
        }
    }

    /// Whether next to nothing would be lost by forgetting it.
    pub(super) fn is_forgettable(&self, now: Instant) -> bool {
        let is_old = |at: Instant| now.saturating_duration_since(at) >= MEMORY;
        let remembers = !self.tracker.is_blank() && !self.last_failure.is_none_or(is_old);
        self.state(now) == State::Closed && self.pending == 0 && !remembers
    }

    /// As a call would find it.
    pub(super) fn state(&self, now: Instant) -> State {
        match &self.phase {
            BreakerPhase::Open { until } if now >= *until => State::HalfOpen,
            BreakerPhase::Ramp(ramp) if ramp.is_over(now) => State::Closed,
            phase => phase.state(),
        }
    }

    /// How long nobody is let in, at least.
    pub(super) fn closed_for(&self, now: Instant) -> Option<Duration> {
        match self.phase {
            BreakerPhase::Open { until } => until.checked_duration_since(now).filter(|left| !left.is_zero()),
            BreakerPhase::Forced { open: true } => Some(self.rules.max_open),
            _ => None,
        }
    }

    /// What has changed since this was last asked.
    pub(super) fn take_change(&mut self) -> Option<StateChange> {
        self.change.take()
    }
}

impl BreakerPhase {
    fn state(&self) -> State {
        match self {
            Self::Closed => State::Closed,
            Self::Ramp(_) => State::Ramping,
            Self::Open { .. } => State::Open,
            Self::HalfOpen(_) => State::HalfOpen,
            Self::Forced { open: true } => State::ForcedOpen,
            Self::Forced { open: false } => State::ForcedClosed,
        }
    }
}

impl Ramp {
    fn new(since: Instant) -> Self {
        Self { since, second: 0, admitted: 0, failed: 0, succeeded: false }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since).as_secs() >= u64::from(RAMP_SECONDS)
    }

    /// Takes one of this second's places, of which the first second has `first`.
    fn take(&mut self, now: Instant, first: f64) -> bool {
        let second = now.saturating_duration_since(self.since).as_secs().min(u64::from(RAMP_SECONDS)) as u32;
        if self.second != second {
            (self.second, self.admitted) = (second, 0);
        }
        let has_room = (self.admitted as f64) < first * f64::from(1 << second);
        self.admitted += u64::from(has_room);
        has_room
    }
}

/// How long the last successes took: a sample of them.
#[derive(Clone, Debug)]
struct Latencies {
    millis: [u32; Self::KEPT],
    known: usize,
    next: usize,
}

impl Latencies {
    const KEPT: usize = 64;
    /// Until so many are known, each success is timed.
    const ENOUGH: usize = 16;

    fn add(&mut self, latency: Duration) {
        self.millis[self.next] = latency.as_millis().try_into().unwrap_or(u32::MAX);
        self.known = self.known.max(self.next + 1);
        self.next = (self.next + 1) % Self::KEPT;
    }

    fn are_enough(&self) -> bool {
        self.known >= Self::ENOUGH
    }

    fn p95(&self) -> Option<Duration> {
        let mut sorted = self.millis;
        let sorted = &mut sorted[..self.known];
        sorted.sort_unstable();
        let at = (self.known * 95).div_ceil(100).checked_sub(1)?;
        Some(Duration::from_millis(sorted[at].into()))
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self { millis: [0; Self::KEPT], known: 0, next: 0 }
    }
}

#[cfg(test)]
mod tests;
