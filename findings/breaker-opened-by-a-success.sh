#!/usr/bin/env bash
# recloser decides one call late, so that a success opens it.
#
# Guess: with a buffer of 10 results and a rate of 50 %, ten failures open the breaker; the eleventh call is refused.
# Is: the tenth failure only fills the buffer. The call after it decides: it goes out, and if it succeeds, 9 failures of 10 results
#   open the breaker, on the answer that showed that the upstream was well again. Half-open, 5 probes are 6.
# Version: recloser 1.4.0.
# Matters: with the defaults (100 results) an alert on "open" fires after the recovery if a short outage ends there; and
#   "half_open_len(1)" is two real calls to a model that is down.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"; mkdir src
cat > Cargo.toml <<'EOF'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"
[dependencies]
recloser = "=1.4.0"
EOF
cat > src/main.rs <<'EOF'
use recloser::{Error, Recloser};
use std::{thread::sleep, time::Duration};

fn new() -> Recloser {
    Recloser::custom().error_rate(0.5).closed_len(10).half_open_len(5).open_wait(Duration::from_millis(200)).build()
}

fn fails(breaker: &Recloser) -> usize {
    (0..50).take_while(|_| !matches!(breaker.call(|| Err::<(), ()>(())), Err(Error::Rejected))).count()
}

fn main() {
    let breaker = new();
    let closed = fails(&breaker);
    sleep(Duration::from_millis(300));
    let half_open = fails(&breaker);
    println!("closed_len 10: {closed} failures pass; half_open_len 5: {half_open}");
    assert_eq!((closed, half_open), (11, 6));

    let breaker = new();
    for _ in 0..10 {
        let _ = breaker.call(|| Err::<(), ()>(()));
    }
    let success = breaker.call(|| Ok::<_, ()>(()));
    let next = breaker.call(|| Ok::<_, ()>(()));
    println!("ten failures, then {success:?}, then {next:?}");
    assert!(success.is_ok() && matches!(next, Err(Error::Rejected)));
    println!("recloser 1.4.0: as expected");
}
EOF
cargo run --quiet
