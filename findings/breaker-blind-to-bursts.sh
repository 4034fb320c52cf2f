#!/usr/bin/env bash
# failsafe weighs a result by the time since the last one: a burst of failures weighs nothing, one failure after a pause a lot.
#
# Guess: "at least 80 % of the calls in the window have to succeed, judged from 5 calls on" opens within a thousand failures in a row,
#   and stays closed at one failure after about a hundred successes.
# Is: the reverse. The rate is an average over time; a result counts for 1 - exp(-t/window), t being whole ms since the result
#   before it, and results of one ms count nothing. A thousand calls that fail together all pass. One that fails half a
#   second after the last success (window 2 s) opens the breaker at once.
# Version: failsafe 1.3.0.
# Matters: an overloaded model refuses many parallel calls in the same moment, which is just what this policy does not see; and a
#   quiet night opens it at the first failure of the morning.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"; mkdir src
cat > Cargo.toml <<'EOF'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"
[dependencies]
failsafe = { version = "=1.3.0", default-features = false }
EOF
cat > src/main.rs <<'EOF'
use failsafe::{backoff, failure_policy, CircuitBreaker, Config, Error};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Returns a breaker that has seen about a hundred successes in 2.3 s, the last of them just now.
fn healthy() -> impl CircuitBreaker {
    let backoff = backoff::constant(Duration::from_secs(60));
    let policy = failure_policy::success_rate_over_time_window(0.8, 5, Duration::from_secs(2), backoff);
    let breaker = Config::new().failure_policy(policy).build();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2_300) {
        let _ = breaker.call(|| Ok::<(), ()>(()));
        sleep(Duration::from_millis(20));
    }
    let _ = breaker.call(|| Ok::<(), ()>(()));
    breaker
}

fn fail(breaker: &impl CircuitBreaker) -> bool {
    matches!(breaker.call(|| Err::<(), ()>(())), Err(Error::Inner(())))
}

fn main() {
    let breaker = healthy();
    let start = Instant::now();
    let passed = (0..1_000).filter(|_| fail(&breaker)).count();
    println!("{passed} of 1,000 failures pass that come within {:?}", start.elapsed());
    assert_eq!(passed, 1_000);

    let breaker = healthy();
    sleep(Duration::from_millis(600));
    let passed = (0..1_000).filter(|_| fail(&breaker)).count();
    println!("{passed} of 1,000 passes after a pause of 0.6 s");
    assert_eq!(passed, 1);
    println!("failsafe 1.3.0: as expected");
}
EOF
cargo run --quiet
