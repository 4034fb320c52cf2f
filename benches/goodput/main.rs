//! Measures what is answered, and when: this crate's presets beside the retry policies that people use, over upstreams that shed,
//! fail, hang, count and err.
//!
//! # How it measures
//!
//! All of it happens in virtual time: the clock is paused, and jumps to the next timer when nobody has anything to do. Half an hour of
//! traffic takes less than a second, and a figure depends neither on the machine nor on its load. Everything is seeded: the arrivals,
//! the upstream, and the jitter of all contestants. So a run prints the same bytes each time, which `--test` checks.
//!
//! The real layers are measured, as [`GeminiLayer`](tower_gemini::GeminiLayer)'s presets make them, over a service in the place of the
//! transport that answers with Google's bodies. The peers are their policies, rewritten from the sources that `peers.rs` names,
//! over the same service and under the same total clock. The figures of a row are sums over its seeds, 1 and up.
//!
//! The optimum is what can be known only afterwards: attempts at once and without end, where each attempt is decided for itself;
//! elsewhere it is computed, and the row says how.
//!
//! `cargo bench -p goodput` prints the table, `cargo bench -p goodput -- outage` the rows whose names contain "outage",
//! `cargo bench -p goodput -- --list` the names, and `cargo bench -p goodput -- --test` each row with one seed, and measures it
//! twice. The bars that are not reached are said at the end; with `-- --bars` they are an error.

mod caller;
mod calls;
mod models;
mod peers;
mod row;
mod rows;
mod table;
mod upstream;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let has = |flag| words.iter().any(|word| word == flag);
    let names: Vec<_> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let mut rows = rows::all();
    rows.retain(|row| names.is_empty() || names.iter().any(|name| row.name.contains(name.as_str())));
    if rows.is_empty() {
        eprintln!("no row has such a name; `-- --list` shows all");
        return ExitCode::FAILURE;
    }
    if has("--list") {
        rows.iter().for_each(|row| println!("{}", row.name));
        return ExitCode::SUCCESS;
    }
    print!("{}", table::head());
    let is_test = has("--test");
    let mut missed = Vec::new();
    for row in &rows {
        let seeds = if is_test { 1 } else { row.seeds };
        let measured = table::measure(row, seeds);
        print!("{}", measured.lines);
        missed.extend(measured.missed);
        if is_test && measured.lines != table::measure(row, seeds).lines {
            eprintln!("{}: two runs with the same seed differ", row.name);
            return ExitCode::FAILURE;
        }
    }
    // One seed says nothing of the bars.
    if is_test {
        return ExitCode::SUCCESS;
    }
    missed.iter().for_each(|bar| eprintln!("not reached: {bar}"));
    if has("--bars") && !missed.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
