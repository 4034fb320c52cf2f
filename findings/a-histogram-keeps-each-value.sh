#!/usr/bin/env bash
# A histogram with three buckets keeps each value in memory until somebody renders it.
#
# Guess: with fixed buckets a recorded value raises a counter, so that memory depends on the series alone.
# Is: 5 million values in one series take 80 MB, 16 bytes each, until the first rendering, which moves them into the buckets, some 80 ms for all
#   callers that look meanwhile; the memory is not given back to the system. With `run_upkeep` after each 100,000 it stays below 4 MB.
#   `install` with its own listener starts a task for that; `install_recorder` and `build_recorder` leave it to the caller.
# Version: metrics-exporter-prometheus 0.18.3, metrics 0.24.6, metrics-util 0.20.4.
# Matters: a program that serves /metrics by its own router grows by 16 MB for each million calls and histogram while nobody scrapes it, on a weekend
#   with a broken Prometheus for example. The relay calls `run_upkeep`; who puts a recorder of his own below TelemetryLayer has to, too.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
mkdir src
cat > Cargo.toml <<'EOF'
[package]
name = "found"
version = "0.0.0"
edition = "2021"
[dependencies]
metrics = "=0.24.6"
metrics-exporter-prometheus = { version = "=0.18.3", default-features = false }
metrics-util = "=0.20.4"
[workspace]
EOF
cat > src/main.rs <<'EOF'
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

const VALUES: u32 = 5_000_000;

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

fn main() {
    let keeps_up = std::env::args().len() > 1;
    let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Full("seconds".into()), &[0.1, 1.0, 10.0]).unwrap();
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    let before = resident();
    metrics::with_local_recorder(&recorder, || {
        for number in 0..VALUES {
            metrics::histogram!("seconds").record(f64::from(number % 20));
            if keeps_up && number % 100_000 == 0 {
                handle.run_upkeep();
            }
        }
    });
    let grown = resident().saturating_sub(before);
    let each = grown as f64 / f64::from(VALUES);
    let kept = if grown < 4_000_000 { "less than 4 MB" } else if (14.0..20.0).contains(&each) { "16 bytes a value, or a little more" } else { "else" };
    let counted = handle.render().contains(&format!("seconds_count {VALUES}"));
    let stays = resident().saturating_sub(before) * 2 > grown;
    println!("{}: {kept}; rendered: all counted {counted}, memory stays {stays}", if keeps_up { "with upkeep" } else { "nobody looks" });
}
EOF
cargo build --release --quiet
program="${CARGO_TARGET_DIR:-target}/release/found"
{ "$program"; "$program" upkeep; } | tee seen
diff seen - <<'EOF' && echo "as found"
nobody looks: 16 bytes a value, or a little more; rendered: all counted true, memory stays true
with upkeep: less than 4 MB; rendered: all counted true, memory stays true
EOF
