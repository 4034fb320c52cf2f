//! Measures what one question costs a server of Redis or Valkey, beside the ways of others to count on one.
//!
//! # How it measures
//!
//! A server is started for it: `TOWER_GEMINI_REDIS_SERVER`, or the `redis-server` in `PATH`. The first table is the server's own
//! statistics: the time of an EVALSHA (`INFO commandstats`), asked one after the other over one connection, in rounds; a row is
//! the median of the rounds. It has no part of the network.
//!
//! The second table is what one core of a server carries, the network included: the processor time of the server's process
//! (`INFO cpu`) for each question of eight connections, so that another process on the same core changes little. Each connection
//! sends one question and waits for its reply, or sends 16 in one piece, as a connection does that many calls share.
//!
//! The peers count two dimensions in windows that are fixed, and do not say how long to wait:
//!
//! - Envoy's ratelimit: INCRBY and EXPIRE for each dimension, in one piece. (It reads both counts first, too, where there are two
//!   dimensions; left out here.)
//! - limitador: MGET for both, and then its script with INCRBY for each.
//! - redis-cell is a module, which is not installed here. It says of itself that a question takes a little less than two SETs.
//!
//! `cargo bench -p benches --bench store` prints both tables; with `-- --test`, each row runs for a moment.

#[path = "../tests/support/redis_server.rs"]
mod redis_server;

use std::thread::scope;

use redis_server::{RedisConnection, RedisReply, RedisServer, encode};

/// The script under test.
const SCRIPT: &str = include_str!("../src/redis_store/script.lua");

/// limitador's, shortened by nothing: `limitador/src/storage/redis/scripts.rs`.
const LIMITADOR: &str = "local c = redis.call('incrby', KEYS[1], ARGV[2]) \
    if c == tonumber(ARGV[2]) then redis.call('expire', KEYS[1], ARGV[1]) redis.call('sadd', KEYS[2], KEYS[1]) end \
    return c";

const UNLIMITED: u64 = 1 << 53;

const CONNECTIONS: usize = 8;

fn main() {
    let is_test = std::env::args().any(|argument| argument == "--test");
    let (rounds, calls) = if is_test { (1, 200) } else { (7, 20_000) };
    let server = RedisServer::start();
    let mut bench = Bench::new(&server);
    println!("{}, processor time of the server\n", bench.version());

    println!("| one question | µs of the server |\n|---|---|");
    let hash = bench.load("return 1");
    bench.row("a script that does nothing", rounds, calls, |_| vec![evalsha(&hash, "nothing", &[])]);
    let hash = bench.load(SCRIPT);
    let take = |key: &str, take: &[u8]| vec![evalsha(&hash, key, &[take])];
    bench.row("granted, new key", rounds, calls, |_| take("new", &Take::default().encode()));
    for key in ["full", "full-early", "full-all"] {
        bench.fill(&hash, key);
    }
    bench.row("granted, full window", rounds, calls, |_| take("full", &Take::default().encode()));
    // The slots of the bench's own time fall out meanwhile, so that the window is filled again for each round.
    let early = Take { max: [121 * 3, UNLIMITED, UNLIMITED], ..Take::default() };
    bench.row("refused, full window, the oldest slot decides", rounds, calls / 10, |bench| {
        bench.fill(&hash, "full-early");
        take("full-early", &early.encode())
    });
    let all = Take { requests: 121 * 3, max: [121 * 3, UNLIMITED, UNLIMITED] };
    bench.row("refused, full window, the newest slot decides", rounds, calls / 10, |bench| {
        bench.fill(&hash, "full-all");
        take("full-all", &all.encode())
    });

    println!(
        "\n| {CONNECTIONS} connections | one at a time: µs, a second | 16 in one piece: µs, a second |\n|---|---|---|"
    );
    let evalsha_ours = |nth: usize| evalsha(&hash, &format!("scope{nth}"), &[&Take::default().encode()]);
    let limitador = bench.load(LIMITADOR);
    let counters = |nth: usize| [format!("requests{nth}"), format!("tokens{nth}")];
    let envoy = |nth: usize| {
        counters(nth)
            .iter()
            .flat_map(|key| [encode(&["INCRBY", key, "1"]), encode(&["EXPIRE", key, "60"])].concat())
            .collect()
    };
    let of_limitador = |nth: usize| {
        let [requests, tokens] = counters(nth);
        let update = |key: &str| encode(&["EVALSHA", &limitador, "2", key, "limits", "60", "1"]);
        [encode(&["MGET", &requests, &tokens]), update(&requests), update(&tokens)].concat()
    };
    bench.load_row("tower-gemini, granted", calls, 1, &evalsha_ours);
    bench.load_row("Envoy's ratelimit, 2 dimensions", calls, 4, &envoy);
    bench.load_row("limitador, 2 dimensions", calls, 3, &of_limitador);
    bench.load_row("SET of a key", calls, 1, &|nth| encode(&["SET", &format!("key{nth}"), "1"]));
}

struct Bench<'a> {
    server: &'a RedisServer,
    connection: RedisConnection,
}

impl<'a> Bench<'a> {
    fn new(server: &'a RedisServer) -> Self {
        Self { server, connection: server.connect() }
    }

    fn version(&mut self) -> String {
        let info = self.connection.command(&["INFO", "server"]).text();
        let of = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let valkey = of("valkey_version:").map(|version| format!("Valkey {version}"));
        valkey.unwrap_or_else(|| format!("Redis {}", of("redis_version:").unwrap_or_default()))
    }

    fn load(&mut self, script: &str) -> String {
        self.connection.command(&["SCRIPT", "LOAD", script]).text()
    }

    /// Prints the median of the server's time of an EVALSHA, and the least and the most of all rounds.
    fn row(&mut self, name: &str, rounds: usize, calls: usize, commands: impl Fn(&mut Self) -> Vec<Vec<u8>>) {
        let mut times: Vec<f64> = (0..rounds)
            .map(|_| {
                let commands = commands(self);
                self.connection.command(&["CONFIG", "RESETSTAT"]);
                for command in commands.iter().cycle().take(calls) {
                    self.connection.send_bytes(command).expect("sent");
                    check(&self.connection.receive().expect("a reply"));
                }
                self.stat("commandstats", "cmdstat_evalsha:", "usec_per_call=")
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!("| {name} | {:.1} ({:.1} to {:.1}) |", times[rounds / 2], times[0], times[rounds - 1]);
    }

    /// Prints the processor time of a question of `replies` replies, asked over several connections at once.
    fn load_row(&mut self, name: &str, calls: usize, replies: usize, question: &(dyn Fn(usize) -> Vec<u8> + Sync)) {
        let cells = [1, 16].map(|pieces| {
            let mut costs: Vec<f64> = (0..3)
                .map(|_| {
                    let before = self.processor_micros();
                    scope(|scope| {
                        for nth in 0..CONNECTIONS {
                            let mut connection = self.server.connect();
                            let bytes = question(nth).repeat(pieces);
                            scope.spawn(move || {
                                for _ in 0..calls / CONNECTIONS / pieces {
                                    connection.send_bytes(&bytes).expect("sent");
                                    for _ in 0..replies * pieces {
                                        check(&connection.receive().expect("a reply"));
                                    }
                                }
                            });
                        }
                    });
                    let asked = calls / CONNECTIONS / pieces * CONNECTIONS * pieces;
                    (self.processor_micros() - before) / asked as f64
                })
                .collect();
            costs.sort_by(f64::total_cmp);
            format!("{:.1}, {:.0}", costs[1], 1e6 / costs[1])
        });
        println!("| {name} | {} | {} |", cells[0], cells[1]);
    }

    fn processor_micros(&mut self) -> f64 {
        (self.stat("cpu", "used_cpu_sys:", "") + self.stat("cpu", "used_cpu_user:", "")) * 1e6
    }

    fn stat(&mut self, section: &str, line: &str, field: &str) -> f64 {
        let info = self.connection.command(&["INFO", section]).text();
        let rest = info.split(line).nth(1).and_then(|rest| rest.lines().next()).expect("the statistic");
        let value = if field.is_empty() { rest } else { rest.split(field).nth(1).expect("the field") };
        value.split(',').next().and_then(|value| value.trim().parse().ok()).expect("a number")
    }

    /// Makes a key with three requests and 300 tokens in each of the last 121 slots.
    fn fill(&mut self, hash: &str, key: &str) {
        self.connection.command(&["DEL", key]);
        let RedisReply::Array(time) = self.connection.command(&["TIME"]) else { panic!("no time") };
        let slot = time[0].text().parse::<u64>().expect("a time") * 2;
        let mut tell = head(3);
        tell.push(0);
        tell.extend([0_u64.to_le_bytes(), 0_u64.to_le_bytes()].concat());
        tell.extend([121_u32.to_le_bytes(), 0_u32.to_le_bytes()].concat());
        for nth in 0..121 {
            tell.extend((slot - nth).to_le_bytes());
            tell.extend([3_u32.to_le_bytes(), 300_u32.to_le_bytes()].concat());
        }
        self.connection.send_bytes(&evalsha(hash, key, &[&tell])).expect("sent");
        check(&self.connection.receive().expect("a reply"));
    }
}

/// A question, packed as `src/redis_store/script/wire.rs` does it.
struct Take {
    requests: u64,
    max: [u64; 3],
}

impl Default for Take {
    fn default() -> Self {
        Self { requests: 1, max: [UNLIMITED - 1; 3] }
    }
}

impl Take {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = head(1);
        for amount in [self.requests, 100, 0, 0] {
            bytes.extend(u32::try_from(amount).expect("a small amount").to_le_bytes());
        }
        bytes.extend(self.max.map(u64::to_le_bytes).concat());
        bytes
    }
}

/// Returns the part that all operations have: no deadline, no known contents, fresh ones if need be, and a day.
fn head(operation: u8) -> Vec<u8> {
    let mut bytes = vec![operation];
    bytes.extend(UNLIMITED.to_le_bytes());
    bytes.extend([0_u32.to_le_bytes(), 7_u32.to_le_bytes()].concat());
    bytes.extend(4_000_000_000_u64.to_le_bytes());
    bytes.extend(0_u32.to_le_bytes());
    bytes
}

fn evalsha(hash: &str, key: &str, arguments: &[&[u8]]) -> Vec<u8> {
    encode(&[&[b"EVALSHA", hash.as_bytes(), b"1", key.as_bytes()], arguments].concat())
}

fn check(reply: &RedisReply) {
    assert!(!matches!(reply, RedisReply::Error(_)), "{reply:?}");
}
