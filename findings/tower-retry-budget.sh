#!/usr/bin/env bash
# tower's TpsBudget: its percentage is rounded, and its window depends on the rhythm of the calls.
#
# Guess: a budget of 60 % lets 600 retries pass for 1,000 calls, and one of 70 % lets 700 pass; with a ttl of 10 s and 10 retries
#   a second, the reserve of 100 is back 10 s after it was used up, whatever else happens.
# Is: everything above 50 % and up to 100 % is 100 %, 40 % is 50 %, 30 % is 33 %: a withdrawal costs 1/percent deposits, cut to a
#   whole number. The window moves by whole slots of a second, and starts anew at each look: asked every 1.000 s, the budget is full
#   again after 11 s, asked every 1.001 s after 6 s. Over ten minutes that is 9 or 17 retries a second, from the setting "10".
#   All 100 may pass in one moment.
# Version: tower 0.5.3.
# Matters: who moves from tower's budget to this crate's must not take the percentage over without a look; and a storm of retries
#   that a client's own budget allows may be nearly twice what its setting says.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"; mkdir src
cat > Cargo.toml <<'EOF'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"
[dependencies]
tower = { version = "=0.5.3", features = ["retry"] }
tokio = { version = "1", features = ["macros", "rt", "test-util", "time"] }
EOF
cat > src/main.rs <<'EOF'
use std::time::Duration;
use tower::retry::budget::{Budget, TpsBudget};

fn drain(budget: &TpsBudget) -> u32 {
    (0..1_000_000).take_while(|_| budget.withdraw()).count() as u32
}

/// Returns after how many ms the reserve is back, and how many retries pass in ten minutes, if one looks every `step` ms.
async fn rhythm(step: u64) -> (u64, u32) {
    let budget = TpsBudget::new(Duration::from_secs(10), 10, 0.2);
    let (mut back, mut sum, mut now) = (0, drain(&budget), 0);
    assert_eq!(sum, 100, "the reserve passes in one moment");
    while now < 600_000 {
        tokio::time::advance(Duration::from_millis(step)).await;
        now += step;
        let n = drain(&budget);
        if n > 0 && back == 0 {
            back = now;
        }
        sum += n;
    }
    (back, sum)
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() {
    for (percent, expected) in [(0.2, 200), (0.3, 333), (0.4, 500), (0.5, 500), (0.6, 1000), (0.7, 1000), (0.9, 1000)] {
        let budget = TpsBudget::new(Duration::from_secs(10), 0, percent);
        (0..1000).for_each(|_| budget.deposit());
        let n = drain(&budget);
        println!("{:.0} %: {n} retries for 1,000 calls", percent * 100.0);
        assert_eq!(n, expected);
    }
    for (step, expected) in [(1000, (11_000, 5_500)), (1001, (6_006, 10_000)), (2000, (12_000, 5_000)), (2001, (8_004, 7_500))] {
        let (back, sum) = rhythm(step).await;
        println!("asked every {step} ms: full again after {back} ms, {sum} retries in ten minutes");
        assert!(back == expected.0 && sum.abs_diff(expected.1) <= 100);
    }
    println!("tower 0.5.3: as expected");
}
EOF
cargo run --quiet
