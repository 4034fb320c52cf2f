//! The run: what the command line asks for, and what is printed.

use std::process::ExitCode;

use crate::{allocations, bars, before::Before, groups, measure::Bench, picture, rows::Rows, shared};

/// Measures what the command line asks for.
pub(crate) fn main() -> ExitCode {
    let mut arguments: Vec<_> = std::env::args().skip(1).collect();
    let mut takes = |flag: &str| {
        let before = arguments.len();
        arguments.retain(|argument| argument != flag);
        arguments.len() < before
    };
    let (once, bars_count, lines) = (takes("--test"), takes("--bars"), takes("--rows"));
    let writes = takes("--readme");
    let name = arguments.into_iter().find(|argument| !argument.starts_with("--"));
    if writes && (once || name.is_some()) {
        eprintln!("--readme writes the tables of a whole run: leave --test and the name of a group or row out");
        return ExitCode::FAILURE;
    }
    let (filter, only) = if lines { (None, name) } else { (name, None) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _clock = runtime.enter();
    let mut bench = Bench { runtime: &runtime, once, filter, only, before: Before::from_env(), rows: Rows::default() };
    groups::measure(&mut bench);
    if lines {
        print!("{}", bench.rows.lines());
        return ExitCode::SUCCESS;
    }
    if once {
        println!("{}", bench.rows.table(None));
        return ExitCode::SUCCESS;
    }
    if let Err(error) = allocations::add(&mut bench.rows) {
        eprintln!("the allocations are not counted: {error}");
    }
    let before = bench.before.as_ref().map(|before| &before.rows);
    println!("{}", bench.rows.table(before));
    let bars = bars::of(&bench.rows, before);
    println!("{bars}");
    if before.is_none() {
        println!("OVERHEAD_BEFORE=PROGRAM measures an older build of this bench beside it.");
    }
    if writes {
        let written = shared::readme::write(
            "cargo bench -p benches --bench overhead",
            &format!("{}\n{bars}", bench.rows.table(before)),
        );
        let drawn = shared::picture::write("overhead.svg", &picture::draw(&bench.rows));
        if let Err(error) = written.and(drawn) {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    if bars_count && bars.missed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
