#!/usr/bin/env bash
# redis-rs spreads its reconnects by chance from one fixed seed: every process of a fleet comes back in the same millisecond.
#
# Guess: the ConnectionManager's backoff "with jitter" keeps the processes that lost one server apart, and a call without a server fails soon.
# Is: two processes make the same seven attempts, 0, 150, 541, 1155, 2451, 4321 and 9454 ms after the first, and so does the next call of each.
#   A call without a server is held for 9.45 s. The dice come back when any other crate in the build asks for backon's feature `std`.
# Version: redis 1.8.1 with backon 1.6.0, the manager's default settings.
# Matters: when Redis returns, all relays ask it at once, and until then each call waits longer than most callers do. A limiter in front of
#   Gemini needs its own time limit around each call, and its own dice around each attempt to connect.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"; mkdir src
cat > Cargo.toml <<'EOF'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"
[dependencies]
redis = { version = "=1.8.1", features = ["tokio-comp", "connection-manager"] }
backon = { version = "=1.6.0", default-features = false }
tokio = { version = "1", features = ["macros", "net", "rt", "time"] }
[features]
dice = ["backon/std"]
EOF
cat > src/main.rs <<'EOF'
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use std::{cell::RefCell, rc::Rc, time::Instant};

/// Calls twice through a manager whose server closes each connection; prints the times of the attempts, in milliseconds since the call.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = redis::Client::open(format!("redis://{}/", listener.local_addr().unwrap())).unwrap();
    let mut manager = ConnectionManager::new_lazy_with_config(client, ConnectionManagerConfig::new()).unwrap();
    let accepted = Rc::new(RefCell::new(Vec::new()));
    let seen = accepted.clone();
    let accepting = async move {
        loop {
            drop(listener.accept().await.unwrap());
            seen.borrow_mut().push(Instant::now());
        }
    };
    let calling = async {
        for _ in 0..2 {
            let (start, first) = (Instant::now(), accepted.borrow().len());
            redis::cmd("GET").arg("quota").query_async::<Option<i64>>(&mut manager).await.expect_err("there is no server");
            let times = accepted.borrow()[first..].iter().map(|at| at.duration_since(start).as_millis().to_string()).collect::<Vec<_>>();
            println!("{} {}", start.elapsed().as_millis(), times.join(" "));
        }
    };
    tokio::select! { _ = calling => {}, _ = accepting => {} }
}
EOF
cat > check.py <<'EOF'
import sys
found = [0, 150, 541, 1155, 2451, 4321, 9454]
def calls(name):
    lines = [[int(n) for n in line.split()] for line in open(name)]
    return [[times[0], [at - times[1] for at in times[1:8]]] for times in lines]
def near(a, b): return len(a) == len(b) and all(abs(x - y) < 150 for x, y in zip(a, b))
for name in ("one", "two"):
    for held, attempts in calls(name):
        print(f"process {name}: held for {held} ms, attempts {attempts}")
        assert near(attempts, found) and near([held], [9454])
dice = [attempts for name in ("three", "four") for _, attempts in calls(name)]
for attempts in dice: print("with backon's std:", attempts)
assert not any(near(a, found) for a in dice) and not near(dice[0], dice[2])
print("redis 1.8.1: as found")
EOF
cargo build --quiet && cp "${CARGO_TARGET_DIR:-target}/debug/finding" plain
cargo build --quiet --features dice && cp "${CARGO_TARGET_DIR:-target}/debug/finding" dice
./plain > one & ./plain > two & ./dice > three & ./dice > four & wait
python3 check.py
