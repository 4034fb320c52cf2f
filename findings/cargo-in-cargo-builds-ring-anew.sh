#!/usr/bin/env bash
# A program that cargo runs builds ring anew each time it calls cargo itself, and the next cargo of the shell does so again.
#
# Guess: `cargo build` in a program that `cargo run` has just built finds everything fresh: the same folder, profile and features.
# Is: ring's build script watches CARGO_MANIFEST_DIR, CARGO_PKG_NAME and parts of the version, which cargo hands to each program that it runs. Below
#   it they are the program's, in a shell there are none, so that the two take turns in throwing ring, and all that needs it, away. Without these
#   variables nothing is built.
# Version: ring 0.17.14, with the cargo that is installed (seen with 1.95).
# Matters: rustls is on ring in most clients of this API. A bench or test that builds its server, or tests of programs under `cargo test`, wait for C and assembler
#   each time, and say nothing of it with --quiet. This project's own benches leave these variables out.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
export CARGO_TARGET_DIR="$dir/target"
mkdir src
cat > Cargo.toml <<'EOF'
[package]
name = "outer"
version = "1.2.3"
edition = "2021"
[dependencies]
ring = "=0.17.14"
[workspace]
EOF
cat > src/main.rs <<'EOF'
use std::process::Command;
fn main() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--color", "never"]);
    if std::env::args().len() > 1 {
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            cargo.env_remove(name);
        }
    }
    let said = String::from_utf8(cargo.output().unwrap().stderr).unwrap();
    println!("{}", said.contains("Compiling ring"));
}
EOF
built() { cargo build --color never 2> said; if grep -q "Compiling ring" said; then echo true; else echo false; fi; }
cargo build --quiet
{ echo "from the shell, nothing changed: ring is built: $(built)"
  echo "below cargo run: $(cargo run --quiet)"
  echo "from the shell again: $(built)"
  echo "below cargo run again: $(cargo run --quiet)"
  echo "from the shell again: $(built)"
  echo "below cargo run, without those variables: $(cargo run --quiet -- without)"
  echo "from the shell at last: $(built)"; } | tee seen
diff seen - <<'EOF' && echo "as found"
from the shell, nothing changed: ring is built: false
below cargo run: true
from the shell again: true
below cargo run again: true
from the shell again: true
below cargo run, without those variables: false
from the shell at last: false
EOF
