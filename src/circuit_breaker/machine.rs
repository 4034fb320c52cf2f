//! The state machine of one breaker: closed, open, half-open, and gradually closed again. Pure: the caller passes the
//! time and a random number, and the machine decides.
//!
//! An admitted call gets an [`Admission`] with the machine's generation, which changes whenever the machine opens, asks
//! for probes or closes. An outcome of an older generation changes nothing: the answer to a call sent before the outage
//! says nothing of the present.

mod opening;

use std::time::Duration;

use tokio::time::Instant;

pub(super) use self::opening::BreakerOpening;
use super::{
    Reason, State,
    ramp::Ramp,
    tracker::{CountedFailure, Evidence, MINUTE, Tracker, Traffic, may_still_answer},
    trip::Trip,
};
use crate::service_times::Latencies;

/// The wait of a call that is refused while the probes are out or the ramp is full; up to twice as long, at random.
const SOON: Duration = Duration::from_millis(500);

/// The age from which a failure no longer keeps a breaker from being forgotten.
const MEMORY: Duration = Duration::from_secs(600);

/// The longest hint of the upstream that is obeyed, the same as `RetryPolicy::MAX_HINT`.
const MAX_HINT: Duration = Duration::from_secs(300);

/// The time over which callers that wait for the end of the same opening are spread.
const SPREAD: Duration = Duration::from_millis(200);

/// The most times that the open time is doubled.
const MOST_DOUBLINGS: u32 = 30;

/// The settings of a breaker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) trip: Trip,
    pub(super) open: Duration,
    pub(super) max_open: Duration,
    pub(super) probes: u32,
    pub(super) lease: Duration,
}

/// The stamp of an admitted call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Admission {
    pub(super) generation: u64,
    /// The time of admission, taken for some calls only: reading the clock costs more than all the rest.
    pub(super) began: Option<Instant>,
    pub(super) kind: Admitted,
}

/// The way in which a call was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// Admitted while the breaker was calm: the machine does not know of it.
    Unseen,
    /// Counted as pending.
    Seen,
    /// Admitted as a probe, by the number of its lease.
    Probe(u64),
}

/// A change of state, to be logged and sent to the subscribers.
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
    /// The number of counted calls of this generation in flight.
    pending: u32,
    /// The number of openings since the last complete recovery.
    openings: u32,
    /// The requests that failed before it last opened.
    failed: u32,
    /// True if it has opened because another process has.
    is_told: bool,
    /// The requests a second when it opened.
    rate: f64,
    /// The time until which the upstream has asked not to be called.
    not_before: Option<Instant>,
    last_failure: Option<Instant>,
    /// The longest time that a failure has taken since the last success of a closed breaker.
    longest_failure: Duration,
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

#[derive(Clone, Debug, Default)]
struct Probes {
    /// The lease's number and end of each probe in flight.
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
            failed: 0,
            is_told: false,
            rate: 0.0,
            not_before: None,
            last_failure: None,
            longest_failure: Duration::ZERO,
            leases: 0,
            change: None,
        }
    }

    // === admission ===

    /// Admits a call.
    ///
    /// # Errors
    ///
    /// The time after which the caller should try again.
    pub(super) fn admit(&mut self, now: Instant, roll: f64) -> Result<Admission, Duration> {
        self.end_ramp(now);
        if let BreakerPhase::Open { until } = self.phase {
            if now < until {
                return Err(until - now + SPREAD.mul_f64(roll));
            }
            self.enter(BreakerPhase::HalfOpen(Probes::default()), Reason::TimeForProbes);
        }
        let soon = SOON + SOON.mul_f64(roll);
        let most = self.probes();
        let kind = match &mut self.phase {
            BreakerPhase::Forced { open: true } => return Err(self.rules.max_open),
            BreakerPhase::Forced { open: false } => Admitted::Unseen,
            BreakerPhase::HalfOpen(probes) => {
                probes.out.retain(|(_, end)| now < *end);
                if probes.out.len() as u64 + u64::from(probes.failed) >= u64::from(most) {
                    return Err(soon);
                }
                self.leases += 1;
                let p95 = self.latencies.p95().unwrap_or_default();
                probes.out.push((self.leases, now + self.rules.lease.max(p95.saturating_mul(4))));
                Admitted::Probe(self.leases)
            }
            BreakerPhase::Ramp(ramp) => {
                // At first as many as came in a second when it opened, and no fewer than the probes, which were
                // admitted at once.
                let first = self.rate.max(f64::from(self.rules.probes));
                if !ramp.take(now, first, self.pending) {
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

    // === outcomes ===

    /// Records a success.
    pub(super) fn succeed(&mut self, admission: Admission, now: Instant) {
        if !self.take_back(admission, now, true) {
            return;
        }
        if let Some(began) = admission.began {
            self.latencies.add(now.saturating_duration_since(began));
        }
        self.not_before = None;
        match &mut self.phase {
            BreakerPhase::Closed => {
                self.longest_failure = Duration::ZERO;
                self.tracker.succeeded(admission.began, now);
            }
            BreakerPhase::Ramp(ramp) => {
                ramp.answers = ramp.answers.saturating_add(1);
                self.tracker.succeeded(admission.began, now);
                self.end_ramp(now);
            }
            BreakerPhase::HalfOpen(_) => {
                self.enter(BreakerPhase::Ramp(Ramp::new(now, self.longest_failure)), Reason::ProbeSucceeded);
            }
            BreakerPhase::Open { .. } | BreakerPhase::Forced { .. } => {}
        }
    }

    /// Records a failure that counts.
    pub(super) fn fail(&mut self, admission: Admission, failure: CountedFailure, now: Instant, roll: f64) {
        if !self.take_back(admission, now, false) {
            return;
        }
        if let Some(hint) = failure.hint {
            self.not_before = self.not_before.max(Some(now + hint.min(MAX_HINT)));
        }
        if let Some(began) = admission.began {
            self.longest_failure = self.longest_failure.max(now.saturating_duration_since(began));
        }
        let most = self.probes();
        match &mut self.phase {
            BreakerPhase::Closed | BreakerPhase::Ramp(_) => {
                self.tracker.failed(failure, admission.began, now);
                self.last_failure = Some(now);
                if let Some(reason) = self.verdict(now) {
                    self.open(now, roll, reason);
                }
            }
            BreakerPhase::HalfOpen(probes) => {
                probes.failed += 1;
                if probes.failed >= most {
                    let failed = probes.failed;
                    self.open(now, roll, Reason::ProbesFailed { failed });
                }
            }
            BreakerPhase::Open { .. } | BreakerPhase::Forced { .. } => {}
        }
    }

    /// Releases a call whose outcome says nothing of the upstream: it was dropped, it panicked, or it failed by the
    /// fault of another.
    pub(super) fn release(&mut self, admission: Admission, now: Instant) {
        self.take_back(admission, now, false);
    }

    /// Takes a call back, and returns whether its outcome may still change anything. A probe's answer may, however late
    /// it is: otherwise the breaker of a model whose answers take longer than a lease would never close.
    fn take_back(&mut self, admission: Admission, now: Instant, is_answer: bool) -> bool {
        if admission.generation != self.generation {
            return false;
        }
        match (admission.kind, &mut self.phase) {
            (Admitted::Unseen, _) => true,
            (Admitted::Seen, phase) => {
                self.pending = self.pending.saturating_sub(1);
                if let (BreakerPhase::Ramp(ramp), Some(began)) = (phase, admission.began) {
                    ramp.give_back(began, now);
                }
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

    /// Returns the reason to open, if enough has failed.
    fn verdict(&mut self, now: Instant) -> Option<Reason> {
        let trip = self.rules.trip;
        let view = Traffic { p95: self.latencies.p95(), pending: self.pending };
        if let BreakerPhase::Ramp(ramp) = &mut self.phase {
            ramp.failed = ramp.failed.saturating_add(1);
            // The probe's success was luck: it takes as many failures as ever, but they need not have lasted for any
            // time. Those in flight have the benefit of the doubt for no longer than in a silence.
            let after = now.saturating_duration_since(ramp.since);
            let doubted = MINUTE.max(view.p95.unwrap_or_default().saturating_mul(2));
            let may_answer = after < doubted && may_still_answer(view.pending, ramp.failed);
            if ramp.answers == 0 && ramp.failed >= trip.requests_needed() && !may_answer {
                return Some(Reason::Relapsed { failed: ramp.failed, after });
            }
        }
        let Evidence { failed, requests, over } = self.tracker.verdict(trip, now, view)?;
        self.rate = f64::from(requests) / over.as_secs_f64().max(1.0);
        Some(Reason::Tripped { failed, requests, over })
    }

    // === transitions ===

    fn open(&mut self, now: Instant, roll: f64, reason: Reason) {
        let Rules { open, max_open, .. } = self.rules;
        let doublings = self.openings.min(MOST_DOUBLINGS);
        let ceiling = open.saturating_mul(2 << doublings).min(max_open);
        let wait = (ceiling / 2 + (ceiling / 2).mul_f64(roll)).max(open);
        let until = self.not_before.map_or(now + wait, |quiet| quiet.max(now + wait));
        self.openings = self.openings.saturating_add(1);
        self.failed = match reason {
            Reason::Tripped { failed, .. } | Reason::ProbesFailed { failed } | Reason::Relapsed { failed, .. } => {
                failed
            }
            _ => 0,
        };
        self.is_told = false;
        self.enter(BreakerPhase::Open { until }, reason);
        if let Some(change) = &mut self.change {
            change.open_for = Some(until - now);
        }
    }

    /// Ends the ramp once it holds nobody back any more. The generation stays the same: the calls in flight still
    /// count.
    fn end_ramp(&mut self, now: Instant) {
        if matches!(&self.phase, BreakerPhase::Ramp(ramp) if ramp.is_over(now)) {
            self.phase = BreakerPhase::Closed;
            self.openings = 0;
            let (from, to) = (State::Ramping, State::Closed);
            self.change = Some(StateChange { from, to, reason: Reason::Recovered, open_for: None });
        }
    }

    /// Enters a phase with a new generation: the outcomes of the calls in flight no longer count.
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

    /// Makes it as new, apart from the times that successes take.
    pub(super) fn reset(&mut self) {
        self.openings = 0;
        self.is_told = false;
        self.rate = 0.0;
        self.not_before = None;
        self.longest_failure = Duration::ZERO;
        self.enter(BreakerPhase::Closed, Reason::Reset);
    }

    // === inspection ===

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns whether every call may pass and a success would change nothing, so that calls need not take the lock.
    pub(super) fn is_calm(&self) -> bool {
        match self.phase {
            BreakerPhase::Closed => self.tracker.ignores_successes() && self.latencies.are_enough(),
            BreakerPhase::Forced { open } => !open,
            _ => false,
        }
    }

    /// Returns whether forgetting it loses nothing of importance.
    pub(super) fn is_forgettable(&self, now: Instant) -> bool {
        let is_old = |at: Instant| now.saturating_duration_since(at) >= MEMORY;
        let remembers = !self.tracker.is_blank() && !self.last_failure.is_none_or(is_old);
        self.state(now) == State::Closed && self.pending == 0 && !remembers
    }

    /// Returns the state as a call would find it at `now`.
    pub(super) fn state(&self, now: Instant) -> State {
        match &self.phase {
            BreakerPhase::Open { until } if now >= *until => State::HalfOpen,
            BreakerPhase::Ramp(ramp) if ramp.is_over(now) => State::Closed,
            phase => phase.state(),
        }
    }

    /// Returns the least time for which no call is admitted; `None` where some are.
    pub(super) fn closed_for(&self, now: Instant) -> Option<Duration> {
        match self.phase {
            BreakerPhase::Open { until } => until.checked_duration_since(now).filter(|left| !left.is_zero()),
            BreakerPhase::Forced { open: true } => Some(self.rules.max_open),
            _ => None,
        }
    }

    /// Takes the change of state since the last call of this function.
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

#[cfg(test)]
mod tests;
