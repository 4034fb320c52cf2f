//! The table, the bars and the picture of a run.

use std::fmt::Write as _;

use crate::{
    contestants::{BEFORE, DIRECT, FLOOR, NGINX, RELAY},
    rounds::{Line, Results},
    shared::{
        bars::Bars,
        picture::{Panel, PictureBar, draw},
    },
};

/// Returns the medians of all lines, and the ratios of the relay, nginx and the bare proxy.
pub(crate) fn table(results: &Results) -> String {
    let mut text = format!("| | {} | relay ÷ nginx | bare ÷ nginx | relay ÷ bare |\n", results.names.join(" | "));
    text.push_str(&"|---".repeat(results.names.len() + 4));
    text.push_str("|\n");
    for line in Line::ALL.into_iter().filter(|line| results.median(*line, RELAY).is_some()) {
        let _ = write!(text, "| {} |", line.title());
        for name in &results.names {
            let _ = match results.median(line, name) {
                Some(figure) => write!(text, " {} |", rounded(figure)),
                None => write!(text, " – |"),
            };
        }
        for (of, to) in [(RELAY, NGINX), (FLOOR, NGINX), (RELAY, FLOOR)] {
            let _ = match results.ratio(line, of, to) {
                Some(ratio) => write!(text, " {ratio:.2} |"),
                None => write!(text, " – |"),
            };
        }
        text.push('\n');
    }
    for (line, percent) in [(Line::SlowP50, "p50"), (Line::SlowP99, "p99")] {
        if let Some(added) = results.added(line, RELAY, NGINX) {
            let _ = writeln!(text, "\nAt 100 calls a second the relay's {percent} is nginx's and {added:.0} µs.");
        }
    }
    text
}

fn rounded(figure: f64) -> String {
    if figure >= 100.0 { format!("{figure:.0}") } else { format!("{figure:.1}") }
}

/// Returns the bars with the figures of a run.
pub(crate) fn bars(results: &Results) -> Bars {
    let mut bars = Bars::default();
    bars.add("unary, calls a second ÷ nginx's", 0.75.., results.ratio(Line::UnaryCalls, RELAY, NGINX));
    bars.add("streams of 20, calls a second ÷ nginx's", 0.9.., results.ratio(Line::Streams, RELAY, NGINX));
    bars.add("CPU a call ÷ the bare proxy's", ..=1.5, results.ratio(Line::UnaryCpu, RELAY, FLOOR));
    let to_before = "CPU a call ÷ the build of before (RELAY_BEFORE)";
    if results.names.iter().any(|name| name == BEFORE) {
        bars.add(to_before, ..=0.4, results.ratio(Line::UnaryCpu, RELAY, BEFORE));
    } else {
        bars.add_without_older_build(to_before, ..=0.4);
    }
    let added = results.added(Line::SlowP50, RELAY, NGINX).map(|micros| micros / 1e3);
    bars.add("p50 over nginx's at 100 calls a second, ms", ..=0.15, added);
    bars.add("memory, idle, MiB", ..=8.0, results.median(Line::Idle, RELAY));
    bars.add("memory, 64 connections, MiB", ..=14.0, results.median(Line::Loaded, RELAY));
    bars
}

/// Draws the calls a second and the CPU of a call.
pub(crate) fn picture(results: &Results) -> String {
    let panel = |title: &str, line, unit: &str, names: &[&str]| Panel {
        title: title.into(),
        bars: names
            .iter()
            .filter_map(|name| {
                let value = results.median(line, name)?;
                let figure = format!("{value:.0} {unit}");
                Some(PictureBar { label: (*name).into(), value, figure, own: *name == RELAY })
            })
            .collect(),
    };
    let all = [DIRECT, NGINX, FLOOR, RELAY, BEFORE];
    let proxies = &all[1..];
    draw(
        "The relay beside nginx and a bare hyper proxy",
        "64 connections on loopback; wrk, the upstream and the proxy share the machine's cores",
        &[
            panel("Calls a second, 1 KB in and 1 KB out", Line::UnaryCalls, "", &all),
            panel("Streams of 20 events a second", Line::Streams, "", &all),
            panel("CPU a call, 1 KB in and 1 KB out", Line::UnaryCpu, "µs", proxies),
            panel("CPU a stream of 20 events", Line::StreamsCpu, "µs", proxies),
        ],
    )
}
