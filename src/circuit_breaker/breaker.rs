//! One breaker, shared by all calls of its scope.
//!
//! On an ordinary day nobody takes its lock: one word beside the machine says in which generation it is and whether it is
//! calm, so that everybody may pass and a success would change nothing.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{sync::broadcast, time::Instant};

use super::{
    State, Target, Transition,
    machine::{Admission, Admitted, Change, Machine, Rules},
    observe::Entered,
    refusal,
};
use crate::{
    failure::Failure,
    sync::{AtomicU64, Mutex},
};

/// What all breakers of one handle share.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) rules: Rules,
    pub(super) transitions: broadcast::Sender<Transition>,
    /// How many are open: as long as none is, nobody need look.
    pub(super) open: AtomicUsize,
}

#[derive(Debug)]
pub(super) struct Breaker {
    calm: Calm,
    guarded: Mutex<Guarded>,
    scope: Target,
}

/// Read by every call and written only when something happens: alone in its cache line.
#[derive(Debug)]
#[repr(align(128))]
struct Calm(AtomicU64);

#[derive(Debug)]
struct Guarded {
    machine: Machine,
    /// Most breakers have none: they have never opened.
    past: Option<Box<Past>>,
}

#[derive(Debug, Default)]
struct Past {
    /// What whoever is not let in gets to hear. Made when it opens, so that saying it costs nothing.
    refusal: Option<Failure>,
    /// How often it has come to each state.
    entered: Entered,
}

impl Breaker {
    pub(super) fn new(scope: Target, rules: Rules) -> Self {
        let machine = Machine::new(rules);
        Self { calm: Calm(AtomicU64::new(word(&machine))), guarded: Mutex::new(Guarded { machine, past: None }), scope }
    }

    pub(super) fn scope(&self) -> &Target {
        &self.scope
    }

    /// Lets a call in, or says why not and how long it had better wait. `timed`: it is one of those whose time is taken
    /// while all is well.
    #[inline]
    pub(super) fn admit(&self, common: &Common, timed: bool) -> Result<Admission, Failure> {
        let word = self.calm.0.load(Ordering::Acquire);
        if is_calm(word) {
            return Ok(Admission { generation: word >> 1, began: timed.then(Instant::now), kind: Admitted::Unseen });
        }
        self.admit_watchfully(common)
    }

    #[cold]
    fn admit_watchfully(&self, common: &Common) -> Result<Admission, Failure> {
        let (now, roll) = (Instant::now(), fastrand::f64());
        self.change(common, |guarded| {
            let wait = match guarded.machine.admit(now, roll) {
                Ok(admission) => return Ok(admission),
                Err(wait) => wait,
            };
            let refusal =
                guarded.past.get_or_insert_default().refusal.get_or_insert_with(|| refusal::forced(&self.scope));
            Err(refusal.clone().with_hint(wait))
        })
    }

    #[inline]
    pub(super) fn succeed(&self, common: &Common, admission: Admission) {
        // Where it is calm by now, whatever the call began in, it has nothing to say but how long it took.
        let calm = is_calm(self.calm.0.load(Ordering::Acquire));
        if !calm || admission.kind != Admitted::Unseen || admission.began.is_some() {
            self.succeed_watchfully(common, admission);
        }
    }

    #[cold]
    fn succeed_watchfully(&self, common: &Common, admission: Admission) {
        let now = Instant::now();
        self.change(common, |guarded| guarded.machine.succeed(admission, now));
    }

    pub(super) fn fail(&self, common: &Common, admission: Admission, repeated: bool, hint: Option<Duration>) {
        let (now, roll) = (Instant::now(), fastrand::f64());
        self.change(common, |guarded| guarded.machine.fail(admission, repeated, hint, now, roll));
    }

    #[inline]
    pub(super) fn release(&self, common: &Common, admission: Admission) {
        if admission.kind != Admitted::Unseen {
            let now = Instant::now();
            self.change(common, |guarded| guarded.machine.release(admission, now));
        }
    }

    pub(super) fn force(&self, common: &Common, open: bool) {
        self.change(common, |guarded| guarded.machine.force(open));
    }

    pub(super) fn reset(&self, common: &Common) {
        self.change(common, |guarded| guarded.machine.reset());
    }

    pub(super) fn state(&self, now: Instant) -> State {
        self.guarded.lock().machine.state(now)
    }

    /// Its state, and how often it has come to each.
    pub(super) fn history(&self, now: Instant) -> (State, Entered) {
        let guarded = self.guarded.lock();
        (guarded.machine.state(now), guarded.past.as_ref().map(|past| past.entered).unwrap_or_default())
    }

    pub(super) fn closed_for(&self, now: Instant) -> Option<Duration> {
        self.guarded.lock().machine.closed_for(now)
    }

    pub(super) fn is_forgettable(&self, now: Instant) -> bool {
        self.guarded.lock().machine.is_forgettable(now)
    }

    /// Everything that may change the machine goes through here: the word follows it, and whoever watches is told.
    fn change<T>(&self, common: &Common, change: impl FnOnce(&mut Guarded) -> T) -> T {
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
                (false, true) => drop(common.open.fetch_add(1, Ordering::AcqRel)),
                (true, false) => drop(common.open.fetch_sub(1, Ordering::AcqRel)),
                _ => {}
            }
        }
        self.calm.0.store(word(&guarded.machine), Ordering::Release);
        drop(guarded);
        // Outside of the lock: whoever listens may ask back.
        if let Some(changed) = changed {
            announce(&self.scope, changed, &common.transitions);
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

/// Whether the gate has to be asked about it.
fn is_shut(state: State) -> bool {
    matches!(state, State::Open | State::ForcedOpen)
}

fn announce(scope: &Target, change: Change, transitions: &broadcast::Sender<Transition>) {
    let Change { from, to, reason, open_for } = change;
    let transition = Transition { scope: scope.clone(), from, to, reason, open_for };
    let (model, endpoint) = (scope.model(), scope.endpoint());
    if is_shut(to) {
        tracing::warn!(model, endpoint, %from, %to, %reason, open_for_ms = open_for.map(|time| time.as_millis() as u64), "circuit");
    } else {
        tracing::info!(model, endpoint, %from, %to, %reason, "circuit");
    }
    // Nobody may be listening.
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
