//! Measures what the relay costs beside nginx and beside a proxy of hyper without layers, on loopback.
//!
//! # How it measures
//!
//! All contestants are processes of their own before the same upstream: hyper's server on one thread, which answers a call with
//! 1 KiB, or with a stream of 20 events of 150 bytes, each written by itself. *nginx* is a proxy with a worker a core and connections that are kept. The
//! *bare hyper proxy* is hyper's server and hyper-util's client and nothing else: the floor of every relay on that stack. The
//! *relay* is the program that users run, in the profile of releases, with a key, limits in three dimensions, and a chain.
//! They take turns in rounds; a figure is the median of its rounds, and a ratio the median of the rounds' ratios.
//!
//! - *Calls a second*: wrk with 64 connections and one thread, on the same machine. All share its cores, so that the CPU of a call
//!   decides who answers most.
//! - *CPU a call*: `utime` and `stime` of the process and its children in `/proc` during a run of wrk, over its calls.
//! - *Times*: a generator of the bench's own at a fixed rate. A call's time begins when it is due, so that a server that stalls
//!   pays for all calls that had to wait (no coordinated omission). The lines below the table say how much more the relay takes
//!   than nginx.
//! - *Events*: a stream whose events are 5 ms apart, each with the time at which it was made; the delay of an event is the time
//!   from there to its arrival. The relay sends the head with the first event, so that the time to the first byte is that to the first event.
//! - *Memory*: `VmRSS` of the process and its children, before the first call and under wrk's 64 connections, and `RssAnon`, which
//!   leaves the pages of the program's file out.
//!
//! # How it is run
//!
//! `cargo bench -p benches --bench relay` builds the relay and measures; it needs wrk and nginx. Behind `--`, `--bars` makes a bar
//! that is missed, or not measured, an error, `--readme` writes the tables and the picture into `benches/`, and `--test` makes one
//! short round without bars.
//! `RELAY` names a relay that is built already, `RELAY_BEFORE` another one to measure beside it, and `RELAY_PEERS` a file with
//! commands that start other gateways, beside which calls of OpenAI's form alone are measured (`benches/peers` makes it).

#[path = "../shared/mod.rs"]
mod shared;

mod contestants;
mod open_loop;
mod process;
mod report;
mod rounds;
mod servers;
mod wrk;

use std::process::ExitCode;

use rounds::Plan;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    match &arguments[..] {
        [only] if only == "--serve-upstream" => servers::upstream(),
        [only, upstream] if only == "--serve-floor" => servers::floor(upstream),
        _ => {}
    }
    let is_test = has("--test");
    if is_test && has("--readme") {
        eprintln!("--readme writes the tables of a whole run: leave --test out");
        return ExitCode::FAILURE;
    }
    if has("--bars") && !is_test && std::env::var_os("RELAY_PEERS").is_some() {
        eprintln!("no bar is measured beside RELAY_PEERS: leave --bars out");
        return ExitCode::FAILURE;
    }
    let missing: Vec<_> = ["wrk", "nginx"].into_iter().filter(|program| process::find(program).is_none()).collect();
    if !missing.is_empty() {
        println!("missing: {0}; on Debian: apt-get install --no-install-recommends {0}", missing.join(" "));
        return if is_test { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let plan = if is_test { Plan::TEST } else { Plan::FULL };
    match measure(plan, is_test, has("--readme")) {
        Ok(missed) if has("--bars") && missed => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and prints, and returns whether a bar is missed. A test has none.
fn measure(plan: Plan, is_test: bool, writes: bool) -> Result<bool, String> {
    let relay = contestants::relay(is_test)?;
    let folder = std::env::temp_dir().join(format!("tower-gemini-relay-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let measured = contestants::start(&folder, &relay).and_then(|all| rounds::measure(&all, &folder, plan));
    let _ = std::fs::remove_dir_all(&folder);
    let results = measured?;
    let table = report::table(&results);
    if is_test {
        println!("{table}");
        return Ok(false);
    }
    if std::env::var_os("RELAY_PEERS").is_some() {
        println!("{table}");
        if writes {
            shared::readme::write("benches/peers", &table)?;
        }
        return Ok(false);
    }
    let bars = report::bars(&results);
    println!("{table}\n{bars}");
    if writes {
        shared::readme::write("cargo bench -p benches --bench relay", &format!("{table}\n{bars}"))?;
        shared::picture::write("relay.svg", &report::picture(&results))?;
    }
    Ok(bars.missed())
}
