//! Proofs of one breaker in every order in which threads can reach it: small programs for loom, which `tests/loom/run`
//! runs.
//!
//! The breaker stays open for no time at all here, so that no clock decides anything: a call after it has opened is a
//! probe.

#![allow(clippy::unwrap_used, reason = "a proof that fails panics")]

use std::sync::Arc;

use loom::{model::Builder, thread::spawn};

use super::*;
use crate::{circuit_breaker::Trip, proofs::Proof};

pub(crate) const PROOFS: &[Proof] = &[
    ("as many probes as are allowed, however many calls come at once", as_many_probes_as_are_allowed),
    ("a probe that is dropped gives its place to another", a_dropped_probe_gives_its_place_back),
    ("a success of before it opened closes nothing", a_stale_success_closes_nothing),
    ("a failure of before it closed opens nothing", a_stale_failure_opens_nothing),
    ("a success after a failure is counted, whatever the others do", a_success_after_a_failure_is_counted),
    ("once it has opened no call passes unseen", once_it_has_opened_no_call_passes_unseen),
];

#[derive(Clone)]
struct SharedBreaker(Arc<Breaker>);

impl SharedBreaker {
    /// Creates a breaker that opens after `failures` failures without a success, and that is calm: it has timed enough
    /// successes.
    fn new(failures: u32, probes: u32) -> Self {
        let nothing = Duration::ZERO;
        let trip = Trip::silence().minimum_requests(failures).at_least(nothing);
        let rules = Rules { trip, open: nothing, max_open: nothing, probes, lease: Duration::from_secs(3_600) };
        let (transitions, open) = (broadcast::channel(1).0, AtomicUsize::new(0));
        let common = Arc::new(Common { rules, counts: None, transitions, open });
        let one = Self(Arc::new(Breaker::new(Target::new("m", ""), common)));
        while !one.is_calm() {
            // In no time at all, or the silence would have to last for twice as long as this machine happened to take.
            let admission = one.admit().unwrap();
            one.0.change(|guarded| guarded.machine.succeed(admission, admission.began.unwrap()));
        }
        one
    }

    /// Creates a breaker that waits for its probes.
    fn open(probes: u32) -> Self {
        let one = Self::new(1, probes);
        one.fail(one.admit().unwrap());
        one
    }

    fn admit(&self) -> Option<Admission> {
        self.0.admit(false).ok()
    }

    fn succeed(&self, admission: Admission) {
        self.0.succeed(admission);
    }

    fn fail(&self, admission: Admission) {
        self.0.fail(admission, CountedFailure::default());
    }

    fn release(&self, admission: Admission) {
        self.0.release(admission);
    }

    fn is_calm(&self) -> bool {
        is_calm(self.0.calm.0.load(Ordering::Acquire))
    }

    /// Returns the final state, and checks that the word beside the machine agrees with the machine.
    fn ends(&self) -> State {
        let guarded = self.0.guarded.lock();
        assert_eq!(self.0.calm.0.load(Ordering::Acquire), word(&guarded.machine));
        guarded.machine.state(Instant::now())
    }
}

fn check(program: impl Fn() + Sync + Send + 'static) {
    Builder::new().check(program);
}

fn as_many_probes_as_are_allowed() {
    check(|| {
        let one = SharedBreaker::open(2);
        let threads: Vec<_> = (0..2)
            .map(|_| {
                spawn({
                    let one = one.clone();
                    move || one.admit()
                })
            })
            .collect();
        let here = one.admit();
        let admitted = threads.into_iter().filter_map(|thread| thread.join().unwrap()).chain(here).count();
        assert_eq!((admitted, one.ends()), (2, State::HalfOpen));
    });
}

fn a_dropped_probe_gives_its_place_back() {
    check(|| {
        let one = SharedBreaker::open(1);
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let one = one.clone();
                spawn(move || {
                    if let Some(probe) = one.admit() {
                        one.release(probe);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(one.admit().is_some() && one.admit().is_none());
    });
}

fn a_stale_success_closes_nothing() {
    check(|| {
        let one = SharedBreaker::new(1, 1);
        let (old, failing) = (one.admit().unwrap(), one.admit().unwrap());
        let other = spawn({
            let one = one.clone();
            move || one.succeed(old)
        });
        one.fail(failing);
        let probe = one.admit();
        other.join().unwrap();
        assert!(probe.is_some());
        assert_eq!(one.ends(), State::HalfOpen);
    });
}

fn a_stale_failure_opens_nothing() {
    check(|| {
        let one = SharedBreaker::new(1, 1);
        let (old, failing) = (one.admit().unwrap(), one.admit().unwrap());
        one.fail(failing);
        let probe = one.admit().unwrap();
        let other = spawn({
            let one = one.clone();
            move || one.fail(old)
        });
        one.succeed(probe);
        other.join().unwrap();
        assert_eq!(one.ends(), State::Ramping);
    });
}

fn a_success_after_a_failure_is_counted() {
    check(|| {
        let one = SharedBreaker::new(2, 1);
        let other = spawn({
            let one = one.clone();
            move || one.succeed(one.admit().unwrap())
        });
        one.fail(one.admit().unwrap());
        one.succeed(one.admit().unwrap());
        one.fail(one.admit().unwrap());
        other.join().unwrap();
        assert_eq!(one.ends(), State::Closed, "never two in a row");
    });
}

fn once_it_has_opened_no_call_passes_unseen() {
    check(|| {
        let one = SharedBreaker::new(1, 1);
        let failing = one.admit().unwrap();
        let other = spawn({
            let one = one.clone();
            move || one.admit().map(|admission| admission.kind)
        });
        one.fail(failing);
        let here = one.admit().map(|admission| admission.kind);
        let there = other.join().unwrap();
        let is_probe = |kind: Option<Admitted>| matches!(kind, Some(Admitted::Probe(_)));
        assert!(here != Some(Admitted::Unseen), "it has opened before this one came");
        assert!(!(is_probe(here) && is_probe(there)), "one place");
    });
}
