//! The rounds: every contestant has its turn in each of them.

use std::{collections::BTreeMap, path::Path, time::Duration};

use crate::{
    contestants::{BEFORE, Contestant, DIRECT, FLOOR, NGINX, RELAY},
    open_loop::{Load, percentile},
    process::Memory,
    servers::{CHAT, PACED, STREAM, UNARY, chat_question, question},
    wrk::{Flood, flood, script},
};

/// The lengths of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    rounds: usize,
    /// Seconds of wrk, for each contestant and way to call.
    flood: u64,
    /// The time of each fixed rate.
    load: Duration,
}

impl Plan {
    pub(crate) const FULL: Self = Self { rounds: 5, flood: 3, load: Duration::from_secs(3) };
    pub(crate) const TEST: Self = Self { rounds: 1, flood: 1, load: Duration::from_millis(300) };
}

/// What is measured: the names of the table's lines.
pub(crate) const UNARY_CALLS: &str = "unary, calls/s";
pub(crate) const UNARY_CPU: &str = "unary, CPU a call, µs";
pub(crate) const STREAMS: &str = "streams of 20 events, calls/s";
pub(crate) const STREAMS_CPU: &str = "streams, CPU a call, µs";
pub(crate) const CHATS: &str = "OpenAI's form, calls/s";
pub(crate) const CHATS_CPU: &str = "OpenAI's form, CPU a call, µs";
pub(crate) const SLOW_P50: &str = "100 calls/s on 4 connections, p50, µs";
pub(crate) const SLOW_P99: &str = "– p99, µs";
pub(crate) const FAST_P50: &str = "1,000 calls/s on 16 connections, p50, µs";
pub(crate) const FAST_P99: &str = "– p99, µs ";
pub(crate) const FIRST_P50: &str = "stream, to its first event after 5 ms, p50, µs";
pub(crate) const FIRST_P99: &str = "stream, to its first event after 5 ms, p99, µs";
pub(crate) const EVENT_P50: &str = "event of a stream, delay, p50, µs";
pub(crate) const EVENT_P99: &str = "event of a stream, delay, p99, µs";
pub(crate) const IDLE: &str = "memory, idle, MiB";
pub(crate) const IDLE_OWN: &str = "– of it allocated";
pub(crate) const LOADED: &str = "memory, 64 connections, MiB";
pub(crate) const LOADED_OWN: &str = "– of it allocated ";

pub(crate) const LINES: [&str; 18] = [
    UNARY_CALLS,
    UNARY_CPU,
    STREAMS,
    STREAMS_CPU,
    CHATS,
    CHATS_CPU,
    SLOW_P50,
    SLOW_P99,
    FAST_P50,
    FAST_P99,
    FIRST_P50,
    FIRST_P99,
    EVENT_P50,
    EVENT_P99,
    IDLE,
    IDLE_OWN,
    LOADED,
    LOADED_OWN,
];

/// The figures of all rounds, by line and contestant.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) names: Vec<String>,
    figures: BTreeMap<(&'static str, String), Vec<f64>>,
}

impl Results {
    fn add(&mut self, line: &'static str, name: &str, figure: f64) {
        self.figures.entry((line, name.to_owned())).or_default().push(figure);
    }

    fn add_flood(&mut self, [calls, cpu]: [&'static str; 2], name: &str, flood: &Flood) {
        self.add(calls, name, flood.calls_a_second);
        self.add(cpu, name, flood.cpu);
    }

    fn add_memory(&mut self, [resident, own]: [&'static str; 2], name: &str, memory: Memory) {
        self.add(resident, name, memory.resident);
        self.add(own, name, memory.own);
    }

    fn rounds(&self, line: &'static str, name: &str) -> Option<&[f64]> {
        self.figures.get(&(line, name.to_owned())).map(|rounds| &**rounds)
    }

    /// Returns the median of the rounds.
    pub(crate) fn median(&self, line: &'static str, name: &str) -> Option<f64> {
        self.rounds(line, name).map(|rounds| percentile(rounds, 50))
    }

    /// Returns the median of what the one has of the other in each round.
    pub(crate) fn ratio(&self, line: &'static str, name: &str, to: &str) -> Option<f64> {
        self.paired(line, name, to, |this, other| this / other)
    }

    /// Returns the median of what the one has more than the other in each round.
    pub(crate) fn added(&self, line: &'static str, name: &str, to: &str) -> Option<f64> {
        self.paired(line, name, to, |this, other| this - other)
    }

    fn paired(&self, line: &'static str, name: &str, to: &str, of: impl Fn(f64, f64) -> f64) -> Option<f64> {
        let (this, other) = (self.rounds(line, name)?, self.rounds(line, to)?);
        let all: Vec<_> = this.iter().zip(other).map(|(this, other)| of(*this, *other)).collect();
        Some(percentile(&all, 50))
    }
}

/// Measures all of them in turns.
pub(crate) fn measure(all: &[Contestant], folder: &Path, plan: Plan) -> Result<Results, String> {
    let [unary, chat] = ["unary.lua", "chat.lua"].map(|name| folder.join(name));
    let key = [("x-goog-api-key", "nobody".to_owned())];
    script(&unary, &question(), &key).map_err(|error| error.to_string())?;
    let bearer = [
        ("Authorization", "Bearer nobody".to_owned()),
        ("x-portkey-provider", "openai".to_owned()),
        ("x-portkey-custom-host", format!("http://{}/v1beta/openai", all[0].server.address)),
    ];
    script(&chat, &chat_question(), &bearer).map_err(|error| error.to_string())?;
    let mut results = Results { names: all.iter().map(|one| one.name.clone()).collect(), ..Results::default() };
    // Beside other gateways only their language is measured: OpenAI's.
    let is_own = |one: &Contestant| [DIRECT, NGINX, FLOOR, RELAY, BEFORE].contains(&&*one.name);
    let with_peers = !all.iter().all(is_own);
    for one in all {
        results.add_memory([IDLE, IDLE_OWN], &one.name, one.idle);
    }
    for round in 0..=plan.rounds {
        // The first round warms everything up, and is not counted.
        let warms = round == 0;
        let seconds = if warms { 1 } else { plan.flood };
        for one in all.iter().filter(|_| with_peers) {
            // A gateway that answers a few hundred calls a second needs more of them for a figure.
            let (path, seconds) = if is_own(one) { (CHAT, seconds) } else { ("/v1/chat/completions", 10) };
            let flooded = flood(&one.server, path, &chat, seconds)?;
            if !warms {
                results.add_flood([CHATS, CHATS_CPU], &one.name, &flooded);
                results.add_memory([LOADED, LOADED_OWN], &one.name, flooded.memory);
            }
        }
        for one in all.iter().filter(|_| !with_peers) {
            let flooded = flood(&one.server, UNARY, &unary, seconds)?;
            let streamed = flood(&one.server, STREAM, &unary, seconds)?;
            if !warms {
                results.add_flood([UNARY_CALLS, UNARY_CPU], &one.name, &flooded);
                results.add_memory([LOADED, LOADED_OWN], &one.name, flooded.memory);
                results.add_flood([STREAMS, STREAMS_CPU], &one.name, &streamed);
            }
        }
        for one in all.iter().filter(|_| !with_peers && !warms) {
            at_fixed_rates(&mut results, one, plan.load)?;
        }
    }
    Ok(results)
}

/// Measures the times of one contestant while it has little to do.
fn at_fixed_rates(results: &mut Results, one: &Contestant, lasts: Duration) -> Result<(), String> {
    let address = one.server.address;
    let failed = |error| format!("{}: {error}", one.name);
    for (rate, connections, p50, p99) in [(100.0, 4, SLOW_P50, SLOW_P99), (1000.0, 16, FAST_P50, FAST_P99)] {
        let times = Load { rate, connections, lasts }.run(address, UNARY, &question()).map_err(failed)?;
        results.add(p50, &one.name, percentile(&times.whole, 50));
        results.add(p99, &one.name, percentile(&times.whole, 99));
    }
    let paced = Load { rate: 20.0, connections: 8, lasts };
    let times = paced.run(address, PACED, &question()).map_err(failed)?;
    if times.events.is_empty() {
        return Err(format!("{}: a stream without events", one.name));
    }
    for (line, times, percent) in [
        (FIRST_P50, &times.first, 50),
        (FIRST_P99, &times.first, 99),
        (EVENT_P50, &times.events, 50),
        (EVENT_P99, &times.events, 99),
    ] {
        results.add(line, &one.name, percentile(times, percent));
    }
    Ok(())
}
