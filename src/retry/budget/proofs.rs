//! Proofs of the line for tokens in every order in which threads can reach it: small programs for loom, which
//! `tests/loom/run` runs.
//!
//! Time stands still, so that no token grows back, and a waiter has no timer: one that can have a token has to be woken.
//! A lost wake-up leaves all threads asleep, which loom reports as a deadlock.

#![allow(clippy::unwrap_used, reason = "a proof that fails panics")]

use std::task::Wake;

use loom::{model::Builder, sync::Notify, thread::spawn};

use super::*;
use crate::proofs::Proof;

pub(crate) const PROOFS: &[Proof] = &[
    ("every token that is given back goes to a call that waits", every_token_goes_to_a_call_that_waits),
    ("a call that leaves the line for a token wakes the next", a_call_that_leaves_the_line_wakes_the_next),
    ("no token is taken twice, and none by a newcomer that others wait for", no_token_is_taken_twice),
];

const MODEL: &str = "m";

fn check(program: impl Fn(Instant) + Sync + Send + 'static) {
    let now = Instant::now();
    Builder::new().check(move || program(now));
}

/// Makes a budget of two tokens a model, and takes both.
fn dry(now: Instant) -> RetryBudget {
    let budget = RetryBudget::new(2);
    assert!(budget.try_take_at(MODEL, now) && budget.try_take_at(MODEL, now));
    budget
}

/// A waker that wakes a thread.
struct WakeThread(Notify);

impl Wake for WakeThread {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

/// A call that asks for a token, and its task.
struct TokenCaller {
    claim: TokenClaim,
    bell: Arc<WakeThread>,
}

impl TokenCaller {
    fn new(budget: &RetryBudget, now: Instant) -> Self {
        Self { claim: budget.claim(&MODEL.into(), &None, now), bell: Arc::new(WakeThread(Notify::new())) }
    }

    /// Polls once, and returns whether it has a token.
    fn poll(&mut self, now: Instant) -> bool {
        match &mut self.claim {
            TokenClaim::Taken => true,
            TokenClaim::Waits(place) => {
                matches!(place.poll(now, &Waker::from(self.bell.clone())), TokenTurn::Taken(_))
            }
            TokenClaim::Full => unreachable!("three threads fill no line"),
        }
    }

    /// Polls and sleeps until it has a token.
    fn wait(mut self, now: Instant) {
        while !self.poll(now) {
            self.bell.0.wait();
        }
    }
}

/// Checks that no call waits.
fn is_at_rest(budget: &RetryBudget) {
    assert!(budget.shared.buckets.lock().values().all(|bucket| !bucket.has_line()));
}

fn every_token_goes_to_a_call_that_waits() {
    check(|now| {
        let budget = dry(now);
        let waits = |budget: RetryBudget| spawn(move || TokenCaller::new(&budget, now).wait(now));
        let calls = [waits(budget.clone()), waits(budget.clone())];
        budget.deposit_at(MODEL, now);
        budget.deposit_at(MODEL, now);
        calls.into_iter().for_each(|call| call.join().unwrap());
        assert!(!budget.try_take_at(MODEL, now), "both are used");
        is_at_rest(&budget);
    });
}

fn a_call_that_leaves_the_line_wakes_the_next() {
    check(|now| {
        let budget = dry(now);
        let mut first = TokenCaller::new(&budget, now);
        let second = TokenCaller::new(&budget, now);
        let others = budget.clone();
        let leaves = spawn(move || {
            let has_token = first.poll(now);
            drop(first);
            if has_token {
                // Its retry succeeds.
                others.deposit_at(MODEL, now);
            }
        });
        let waits = spawn(move || second.wait(now));
        budget.deposit_at(MODEL, now);
        leaves.join().unwrap();
        waits.join().unwrap();
        is_at_rest(&budget);
    });
}

fn no_token_is_taken_twice() {
    check(|now| {
        let budget = dry(now);
        let waiter = TokenCaller::new(&budget, now);
        let newcomer = budget.clone();
        let newcomer = spawn(move || newcomer.try_take_at(MODEL, now));
        let waits = spawn(move || waiter.wait(now));
        budget.deposit_at(MODEL, now);
        waits.join().unwrap();
        // The token is the waiter's, whenever the newcomer has asked.
        assert!(!newcomer.join().unwrap());
        assert!(!budget.try_take_at(MODEL, now));
        is_at_rest(&budget);
    });
}
