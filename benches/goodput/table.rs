//! The table: a line for each figure, a column for each contestant.

use std::fmt::Write as _;

use crate::{
    caller::Contestant,
    row::{Figure, Row},
};

/// The figures of this crate before its rooms learned to wait, at the commit that `benches/README.md` names: a line for each.
const BEFORE: &str = include_str!("before.md");

/// Returns the head of the table.
pub(crate) fn head() -> String {
    let mut head = "| scenario | figure | row | seeds |".to_owned();
    let mut rule = "|---|---|---|---|".to_owned();
    for contestant in Contestant::ALL {
        if contestant == Contestant::Ours {
            head.push_str(" bar | before |");
            rule.push_str("---|---|");
        }
        let _ = write!(head, " {} |", contestant.name());
        rule.push_str("---|");
    }
    format!("{head}\n{rule}\n")
}

/// A row that was measured.
pub(crate) struct Measured {
    pub(crate) lines: String,
    /// The bars that were not reached, each in a sentence.
    pub(crate) missed: Vec<String>,
}

/// Measures a row with all contestants.
pub(crate) fn measure(row: &Row, seeds: u64) -> Measured {
    let columns = Contestant::ALL.map(|contestant| row.measure(contestant, seeds));
    let of = |wanted| Contestant::ALL.iter().zip(&columns).find(|(one, _)| **one == wanted).map(|(_, column)| column);
    let (ours, optimum) = (of(Contestant::Ours).expect("a column"), of(Contestant::Optimum).expect("a column"));
    let (mut lines, mut missed) = (String::new(), Vec::new());
    for (nth, figure) in row.figures.iter().enumerate() {
        let bar = row.bars.iter().find(|(of, _)| *of == nth).map(|(_, bar)| bar);
        if let Some(bar) = bar.filter(|bar| !bar.is_reached(ours[nth], optimum[nth])) {
            missed.push(format!("{}, {}: {}, and the bar is {bar}", row.name, figure.name, shown(figure, ours[nth])));
        }
        let scenario = if nth == 0 { format!("{}; `{}`", row.scenario, row.preset.name()) } else { String::new() };
        let name = if nth == 0 { row.name } else { "" };
        let seeds = if nth == 0 { seeds.to_string() } else { String::new() };
        let _ = write!(lines, "| {scenario} | {} | {name} | {seeds} |", figure.name);
        for (contestant, column) in Contestant::ALL.iter().zip(&columns) {
            if *contestant == Contestant::Ours {
                let bar = bar.map_or_else(|| NONE.to_owned(), |bar| bar.to_string());
                let _ = write!(lines, " {bar} | {} |", before(row, figure));
            }
            let _ = write!(lines, " {} |", shown(figure, column[nth]));
        }
        lines.push('\n');
    }
    Measured { lines, missed }
}

/// Returns the figure as it was before.
fn before(row: &Row, figure: &Figure) -> &'static str {
    let key = format!("| {} | {} | ", row.name, figure.name);
    let kept = BEFORE.lines().find_map(|line| line.strip_prefix(&key)?.strip_suffix(" |"));
    kept.unwrap_or(NONE)
}

/// The sign of a figure that there is not.
const NONE: &str = "–";

fn shown(figure: &Figure, value: f64) -> String {
    if value.is_nan() { NONE.to_owned() } else { format!("{value:.*}", figure.digits) }
}
