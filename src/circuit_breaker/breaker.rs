//! One breaker, shared by all calls of its scope.
//!
//! A breaker is *calm* while every call may pass and a success would change nothing: its upstream is healthy. One
//! atomic word beside the machine holds the machine's generation and whether it is calm, so that calls through a calm
//! breaker take no lock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::broadcast, time::Instant};

use super::{
    State, Target, Transition,
    machine::{Admission, Admitted, BreakerOpening, Machine, Rules, StateChange},
    observe::Entered,
    refusal,
    tracker::CountedFailure,
};
use crate::{
    failure::Failure,
    sync::{AtomicU64, Mutex},
};

/// The settings and the channel that all breakers of one handle share.
pub(super) struct Common {
    pub(super) rules: Rules,
    /// The failures that count, where the program has its own rule.
    pub(super) counts: Option<FailureFilter>,
    pub(super) transitions: broadcast::Sender<Transition>,
    /// The number of open breakers: while it is zero, the gate need not look for one.
    pub(super) open: AtomicUsize,
}

/// The failures that count, by a function of the program's.
#[derive(Clone)]
pub(super) struct FailureFilter(pub(super) Arc<dyn Fn(&Failure) -> bool + Send + Sync>);

/// A state machine behind a lock, and the word by which most calls need not take the lock.
pub(super) struct Breaker {
    calm: Calm,
    guarded: Mutex<Guarded>,
    scope: Target,
    common: Arc<Common>,
}

/// The machine's generation, shifted left by one, and whether it is calm. Every call reads it, and only a change of the
/// machine writes it, so it has a cache line of its own, with what is written as rarely.
#[repr(align(128))]
struct Calm(AtomicU64, Answers);

/// The signs of life that contradict another process which says that the upstream is down.
#[derive(Default)]
struct Answers {
    /// True if there was an answer since [`Breaker::age_answers`].
    lately: AtomicBool,
    /// True if there was one between the last two of these.
    before: AtomicBool,
}

struct Guarded {
    machine: Machine,
    /// The history, once there is one: most breakers never open.
    past: Option<Box<Past>>,
}

#[derive(Default)]
struct Past {
    /// The failure that refused calls get, made when the breaker opens, so that a refusal formats nothing.
    refusal: Option<Failure>,
    /// The number of times that it has entered each state.
    entered: Entered,
}

impl Breaker {
    pub(super) fn new(scope: Target, common: Arc<Common>) -> Self {
        let machine = Machine::new(common.rules);
        let calm = Calm(AtomicU64::new(word(&machine)), Answers::default());
        Self { calm, guarded: Mutex::new(Guarded { machine, past: None }), scope, common }
    }

    pub(super) fn scope(&self) -> &Target {
        &self.scope
    }

    /// Returns whether a failure is a sign of the upstream's health.
    pub(super) fn counts(&self, failure: &Failure) -> bool {
        match &self.common.counts {
            Some(FailureFilter(counts)) => counts(failure),
            None => failure.counts_against_upstream(),
        }
    }

    /// Admits a call. `timed`: the call is one of the sample that is timed while the breaker is calm.
    ///
    /// # Errors
    ///
    /// The refusal, with the time to wait as its hint.
    #[inline]
    pub(super) fn admit(&self, timed: bool) -> Result<Admission, Failure> {
        let word = self.calm.0.load(Ordering::Acquire);
        if is_calm(word) {
            return Ok(Admission { generation: word >> 1, began: timed.then(Instant::now), kind: Admitted::Unseen });
        }
        self.admit_by_machine()
    }

    #[cold]
    fn admit_by_machine(&self) -> Result<Admission, Failure> {
        let (now, roll) = (Instant::now(), fastrand::f64());
        self.change(|guarded| {
            let wait = match guarded.machine.admit(now, roll) {
                Ok(admission) => return Ok(admission),
                Err(wait) => wait,
            };
            let refusal =
                guarded.past.get_or_insert_default().refusal.get_or_insert_with(|| refusal::forced(&self.scope));
            Err(refusal.clone().with_hint(wait))
        })
    }

    /// Records a success.
    #[inline]
    pub(super) fn succeed(&self, admission: Admission) {
        // Written once in seconds: the line stays in the caches of all cores.
        if !self.calm.1.lately.load(Ordering::Relaxed) {
            self.calm.1.lately.store(true, Ordering::Relaxed);
        }
        // The call may have begun before the breaker was calm: what counts is that it is calm now, so that only the
        // time of a timed call changes anything.
        let calm = is_calm(self.calm.0.load(Ordering::Acquire));
        if !calm || admission.kind != Admitted::Unseen || admission.began.is_some() {
            self.succeed_by_machine(admission);
        }
    }

    #[cold]
    fn succeed_by_machine(&self, admission: Admission) {
        let now = Instant::now();
        self.change(|guarded| guarded.machine.succeed(admission, now));
    }

    /// Records a failure that counts.
    pub(super) fn fail(&self, admission: Admission, failure: CountedFailure) {
        let (now, roll) = (Instant::now(), fastrand::f64());
        self.change(|guarded| guarded.machine.fail(admission, failure, now, roll));
    }

    /// Releases a call whose outcome says nothing of the upstream.
    #[inline]
    pub(super) fn release(&self, admission: Admission) {
        if admission.kind != Admitted::Unseen {
            let now = Instant::now();
            self.change(|guarded| guarded.machine.release(admission, now));
        }
    }

    /// Holds it open, or closed, until it is reset.
    pub(super) fn force(&self, open: bool) {
        self.change(|guarded| guarded.machine.force(open));
    }

    pub(super) fn reset(&self) {
        self.change(|guarded| guarded.machine.reset());
    }

    /// Opens because another process has, unless calls are answered here. Returns whether it has opened.
    pub(super) fn learn(&self, told: BreakerOpening, heeds_answers: bool) -> bool {
        if heeds_answers && (self.calm.1.lately.load(Ordering::Relaxed) || self.calm.1.before.load(Ordering::Relaxed)) {
            return false;
        }
        let now = Instant::now();
        self.change(|guarded| guarded.machine.learn(told, now))
    }

    /// Lets the answers so far count only until the next call of this.
    #[cfg(feature = "redis")]
    pub(super) fn age_answers(&self) {
        let Answers { lately, before } = &self.calm.1;
        let was = lately.load(Ordering::Relaxed);
        if was {
            lately.store(false, Ordering::Relaxed);
        }
        if before.load(Ordering::Relaxed) != was {
            before.store(was, Ordering::Relaxed);
        }
    }

    pub(super) fn opening(&self, now: Instant) -> Option<BreakerOpening> {
        self.guarded.lock().machine.opening(now)
    }

    pub(super) fn state(&self, now: Instant) -> State {
        self.guarded.lock().machine.state(now)
    }

    /// Returns its state, and how often it has entered each.
    pub(super) fn history(&self, now: Instant) -> (State, Entered) {
        let guarded = self.guarded.lock();
        (guarded.machine.state(now), guarded.past.as_ref().map(|past| past.entered).unwrap_or_default())
    }

    /// Returns the least time for which it still admits no call; `None` where it admits some.
    pub(super) fn closed_for(&self, now: Instant) -> Option<Duration> {
        self.guarded.lock().machine.closed_for(now)
    }

    pub(super) fn is_forgettable(&self, now: Instant) -> bool {
        self.guarded.lock().machine.is_forgettable(now)
    }

    /// Changes the machine. All changes go through here, so that the word follows the machine and subscribers are told.
    fn change<T>(&self, change: impl FnOnce(&mut Guarded) -> T) -> T {
        let mut guarded = self.guarded.lock();
        let result = change(&mut guarded);
        let changed = guarded.machine.take_change();
        if let Some(changed) = &changed {
            let past = guarded.past.get_or_insert_default();
            let times = &mut past.entered[changed.to as usize];
            *times = times.saturating_add(1);
            match changed.to {
                State::Open => past.refusal = Some(refusal::open(&self.scope, changed.reason)),
                State::ForcedOpen => past.refusal = Some(refusal::forced(&self.scope)),
                State::Closed | State::ForcedClosed => past.refusal = None,
                State::HalfOpen | State::Ramping => {}
            }
            match (is_shut(changed.from), is_shut(changed.to)) {
                (false, true) => drop(self.common.open.fetch_add(1, Ordering::AcqRel)),
                (true, false) => drop(self.common.open.fetch_sub(1, Ordering::AcqRel)),
                _ => {}
            }
        }
        self.calm.0.store(word(&guarded.machine), Ordering::Release);
        drop(guarded);
        // Outside of the lock: a subscriber may call the breaker.
        if let Some(changed) = changed {
            announce(&self.scope, changed, &self.common.transitions);
        }
        result
    }
}

fn word(machine: &Machine) -> u64 {
    machine.generation() << 1 | u64::from(machine.is_calm())
}

#[inline]
fn is_calm(word: u64) -> bool {
    word & 1 == 1
}

/// Returns whether a breaker in this state closes the gate.
fn is_shut(state: State) -> bool {
    matches!(state, State::Open | State::ForcedOpen)
}

/// Logs a change of state, and sends it to the subscribers.
fn announce(scope: &Target, change: StateChange, transitions: &broadcast::Sender<Transition>) {
    let StateChange { from, to, reason, open_for } = change;
    let transition = Transition { scope: scope.clone(), from, to, reason, open_for };
    let (model, endpoint) = (scope.model(), scope.endpoint());
    if is_shut(to) {
        tracing::warn!(model, endpoint, %from, %to, %reason, open_for_ms = open_for.map(|time| time.as_millis() as u64), "circuit breaker changed state");
    } else {
        tracing::info!(model, endpoint, %from, %to, %reason, "circuit breaker changed state");
    }
    // An error means that there are no subscribers.
    let _ = transitions.send(transition);
}

#[cfg(gemini_loom)]
pub(crate) mod proofs;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_small() {
        assert!(size_of::<Breaker>() < 1024, "{}", size_of::<Breaker>());
    }
}
