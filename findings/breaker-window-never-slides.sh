#!/usr/bin/env bash
# The sliding window of tower-resilience's circuit breaker does not slide.
#
# Guess: with the defaults (a count-based sliding window of 100 calls, half of which may fail) the breaker opens within 100 failures
#   after an outage begins, usually after 50.
# Is: calls are counted from the last change of state on. After 10,000 good calls, 10,000 failures pass before it opens; a breaker
#   that has been well for a month needs about a month's calls. It protects new processes only.
# Version: tower-resilience-circuitbreaker 0.13.0.
# Matters: a breaker that was tested on a fresh process and that never opens in production looks like an upstream that never failed.
#   The time-based window of the same crate does slide.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"; mkdir src
cat > Cargo.toml <<'EOF'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"
[dependencies]
tower-resilience-circuitbreaker = "=0.13.0"
tower = { version = "0.5", features = ["util"] }
tokio = { version = "1", features = ["macros", "rt", "time"] }
EOF
cat > src/main.rs <<'EOF'
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::{sync::Arc, time::Duration};
use tower::{service_fn, Layer, Service, ServiceExt};
use tower_resilience_circuitbreaker::CircuitBreakerLayer;

/// Returns how many failures reach the upstream, after `good` good calls.
async fn failures_after(good: usize) -> usize {
    let (down, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (is_down, count) = (down.clone(), seen.clone());
    let upstream = service_fn(move |()| {
        count.fetch_add(1, Relaxed);
        let result = if is_down.load(Relaxed) { Err("503") } else { Ok(()) };
        async move { result }
    });
    let mut breaker = CircuitBreakerLayer::builder().build().expect("the defaults").layer(upstream);
    for _ in 0..good {
        assert!(breaker.ready().await.is_ok() && breaker.call(()).await.is_ok());
    }
    down.store(true, Relaxed);
    for _ in 0..20_000 {
        let before = seen.load(Relaxed);
        let one = async { let _ = breaker.ready().await.map(|_| ()); breaker.call(()).await.is_ok() };
        let _ = tokio::time::timeout(Duration::from_millis(200), one).await;
        if seen.load(Relaxed) == before {
            break;
        }
    }
    seen.load(Relaxed) - good
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    for (good, expected) in [(0, 100), (100, 100), (1_000, 1_000), (10_000, 10_000)] {
        let failures = failures_after(good).await;
        println!("{good} good calls, then an outage: {failures} failures pass before it opens");
        assert_eq!(failures, expected);
    }
    println!("tower-resilience-circuitbreaker 0.13.0: as expected");
}
EOF
cargo run --quiet
