#!/usr/bin/env bash
# tower_governor rounds the wait down: its Retry-After is too short by up to a second, and mostly 0.
#
# Guess: Retry-After is rounded up, so that a client that waits that long gets in.
# Is: whole seconds, cut. At 10 requests a second every refusal says "retry-after: 0"; at one in 2.5 s a client that waits the 2 s
#   that it was told is refused again, then told 0, and asks as fast as it can. Obedient clients hammer.
# Version: tower_governor 0.8.0 with governor 0.10.4.
# Matters: in front of Gemini it makes well-behaved SDKs (openai, ai, @google/genai's interactions) spend all their attempts within the
#   wait that they were to keep. A hint of 0 has to be read as "soon, by your own backoff".
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"; mkdir src
cat > Cargo.toml <<'EOF'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"
[dependencies]
tower_governor = { version = "=0.8.0", features = ["axum"], default-features = false }
governor = "=0.10.4"
axum = { version = "0.8", default-features = false }
http = "1"
tower = { version = "0.5", features = ["util"] }
tokio = { version = "1", features = ["macros", "rt", "time"] }
EOF
cat > src/main.rs <<'EOF'
use axum::body::Body;
use http::{Request, Response};
use std::{sync::Arc, time::{Duration, Instant}};
use tower::{service_fn, Layer, Service, ServiceExt};
use tower_governor::{governor::GovernorConfigBuilder, key_extractor::GlobalKeyExtractor, GovernorLayer};

/// Sends until it gets in, always waiting as long as Retry-After says; returns the hints that it was given.
async fn obey(period: Duration) -> (Vec<String>, Duration) {
    let config = GovernorConfigBuilder::default().period(period).burst_size(1).key_extractor(GlobalKeyExtractor).finish();
    let layer = GovernorLayer::new(Arc::new(config.expect("a quota")));
    let mut service = layer.layer(service_fn(|_: Request<Body>| async { Ok::<_, std::convert::Infallible>(Response::new(Body::empty())) }));
    let mut hints = Vec::new();
    let mut start = None;
    loop {
        let answer = service.ready().await.unwrap().call(Request::new(Body::empty())).await.unwrap();
        match (answer.status().as_u16(), start) {
            (200, None) => start = Some(Instant::now()),
            (200, Some(start)) => return (hints, start.elapsed()),
            _ => {
                let hint = answer.headers()["retry-after"].to_str().unwrap().to_owned();
                tokio::time::sleep(Duration::from_secs(hint.parse().unwrap())).await;
                hints.push(hint);
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (hints, took) = obey(Duration::from_millis(100)).await;
    println!("one request in 100 ms: refused {} times within {took:?}, hints {:?} …", hints.len(), &hints[..3]);
    assert!(hints.len() > 20 && hints.iter().all(|h| h == "0"));
    let (hints, took) = obey(Duration::from_millis(2_500)).await;
    println!("one request in 2.5 s: refused {} times within {took:?}, hints {:?} …", hints.len(), &hints[..3]);
    assert!(hints.len() > 20 && hints[0] == "2" && hints[1..].iter().all(|h| h == "0"));
    println!("tower_governor 0.8.0: as expected");
}
EOF
cargo run --quiet
