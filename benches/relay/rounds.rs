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
    /// Set if a round that is not counted warms everything up.
    warms: bool,
    rounds: usize,
    /// Seconds of wrk, for each contestant and way to call.
    flood: u64,
    /// The time of each fixed rate.
    load: Duration,
}

impl Plan {
    pub(crate) const FULL: Self = Self { warms: true, rounds: 5, flood: 3, load: Duration::from_secs(3) };
    pub(crate) const TEST: Self = Self { warms: false, rounds: 1, flood: 1, load: Duration::from_millis(300) };
}

/// A line of the table: one figure of every contestant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Line {
    UnaryCalls,
    UnaryCpu,
    Streams,
    StreamsCpu,
    Chats,
    ChatsCpu,
    SlowP50,
    SlowP99,
    FastP50,
    FastP99,
    FirstP50,
    FirstP99,
    EventP50,
    EventP99,
    Idle,
    IdleOwn,
    Loaded,
    LoadedOwn,
}

impl Line {
    pub(crate) const ALL: [Self; 18] = [
        Self::UnaryCalls,
        Self::UnaryCpu,
        Self::Streams,
        Self::StreamsCpu,
        Self::Chats,
        Self::ChatsCpu,
        Self::SlowP50,
        Self::SlowP99,
        Self::FastP50,
        Self::FastP99,
        Self::FirstP50,
        Self::FirstP99,
        Self::EventP50,
        Self::EventP99,
        Self::Idle,
        Self::IdleOwn,
        Self::Loaded,
        Self::LoadedOwn,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::UnaryCalls => "unary, calls/s",
            Self::UnaryCpu => "unary, CPU a call, µs",
            Self::Streams => "streams of 20 events, calls/s",
            Self::StreamsCpu => "streams, CPU a call, µs",
            Self::Chats => "OpenAI's form, calls/s",
            Self::ChatsCpu => "OpenAI's form, CPU a call, µs",
            Self::SlowP50 => "100 calls/s on 4 connections, p50, µs",
            Self::SlowP99 | Self::FastP99 => "– p99, µs",
            Self::FastP50 => "1,000 calls/s on 16 connections, p50, µs",
            Self::FirstP50 => "stream, to its first event after 5 ms, p50, µs",
            Self::FirstP99 => "stream, to its first event after 5 ms, p99, µs",
            Self::EventP50 => "event of a stream, delay, p50, µs",
            Self::EventP99 => "event of a stream, delay, p99, µs",
            Self::Idle => "memory, idle, MiB",
            Self::IdleOwn | Self::LoadedOwn => "– of it allocated",
            Self::Loaded => "memory, 64 connections, MiB",
        }
    }
}

/// The figures of all rounds, by line and contestant.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) names: Vec<String>,
    figures: BTreeMap<(Line, String), Vec<Option<f64>>>,
}

impl Results {
    fn add(&mut self, line: Line, name: &str, figure: Option<f64>) {
        self.figures.entry((line, name.to_owned())).or_default().push(figure);
    }

    fn add_flood(&mut self, [calls, cpu]: [Line; 2], name: &str, flood: &Flood) {
        self.add(calls, name, Some(flood.calls_a_second));
        self.add(cpu, name, flood.cpu);
    }

    fn add_memory(&mut self, [resident, own]: [Line; 2], name: &str, memory: Memory) {
        self.add(resident, name, memory.resident);
        self.add(own, name, memory.own);
    }

    /// Returns the figures of all rounds, if each round has one.
    fn rounds(&self, line: Line, name: &str) -> Option<Vec<f64>> {
        self.figures.get(&(line, name.to_owned()))?.iter().copied().collect()
    }

    /// Returns the median of the rounds.
    pub(crate) fn median(&self, line: Line, name: &str) -> Option<f64> {
        self.rounds(line, name).map(|rounds| percentile(&rounds, 50))
    }

    /// Returns the median of what the one has of the other in each round, if both have something in all of them.
    pub(crate) fn ratio(&self, line: Line, name: &str, to: &str) -> Option<f64> {
        self.paired(line, name, to, |this, other| (this > 0.0 && other > 0.0).then_some(this / other))
    }

    /// Returns the median of what the one has more than the other in each round.
    pub(crate) fn added(&self, line: Line, name: &str, to: &str) -> Option<f64> {
        self.paired(line, name, to, |this, other| Some(this - other))
    }

    fn paired(&self, line: Line, name: &str, to: &str, of: impl Fn(f64, f64) -> Option<f64>) -> Option<f64> {
        let (this, other) = (self.rounds(line, name)?, self.rounds(line, to)?);
        let all: Option<Vec<_>> = this.into_iter().zip(other).map(|(this, other)| of(this, other)).collect();
        Some(percentile(&all?, 50))
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
        results.add_memory([Line::Idle, Line::IdleOwn], &one.name, one.idle);
    }
    for round in usize::from(!plan.warms)..=plan.rounds {
        let warms = round == 0;
        let seconds = if warms { 1 } else { plan.flood };
        for one in all.iter().filter(|_| with_peers) {
            // A gateway that answers a few hundred calls a second needs more of them for a figure.
            let (path, seconds) = if is_own(one) { (CHAT, seconds) } else { ("/v1/chat/completions", 10) };
            let flooded = flood(&one.server, path, &chat, seconds)?;
            if !warms {
                results.add_flood([Line::Chats, Line::ChatsCpu], &one.name, &flooded);
                results.add_memory([Line::Loaded, Line::LoadedOwn], &one.name, flooded.memory);
            }
        }
        for one in all.iter().filter(|_| !with_peers) {
            let flooded = flood(&one.server, UNARY, &unary, seconds)?;
            let streamed = flood(&one.server, STREAM, &unary, seconds)?;
            if !warms {
                results.add_flood([Line::UnaryCalls, Line::UnaryCpu], &one.name, &flooded);
                results.add_memory([Line::Loaded, Line::LoadedOwn], &one.name, flooded.memory);
                results.add_flood([Line::Streams, Line::StreamsCpu], &one.name, &streamed);
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
    for (rate, connections, p50, p99) in
        [(100.0, 4, Line::SlowP50, Line::SlowP99), (1000.0, 16, Line::FastP50, Line::FastP99)]
    {
        let times = Load { rate, connections, lasts }.run(address, UNARY, &question()).map_err(failed)?;
        results.add(p50, &one.name, Some(percentile(&times.whole, 50)));
        results.add(p99, &one.name, Some(percentile(&times.whole, 99)));
    }
    let paced = Load { rate: 20.0, connections: 8, lasts };
    let times = paced.run(address, PACED, &question()).map_err(failed)?;
    if times.events.is_empty() {
        return Err(format!("{}: a stream without events", one.name));
    }
    for (line, times, percent) in [
        (Line::FirstP50, &times.first, 50),
        (Line::FirstP99, &times.first, 99),
        (Line::EventP50, &times.events, 50),
        (Line::EventP99, &times.events, 99),
    ] {
        results.add(line, &one.name, Some(percentile(times, percent)));
    }
    Ok(())
}
