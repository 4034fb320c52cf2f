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
            head.push_str(" before |");
            rule.push_str("---|");
        }
        let _ = write!(head, " {} |", contestant.name());
        rule.push_str("---|");
    }
    format!("{head}\n{rule}\n")
}

/// Measures a row with all contestants, and returns its lines.
pub(crate) fn lines(row: &Row, seeds: u64) -> String {
    let columns = Contestant::ALL.map(|contestant| row.measure(contestant, seeds));
    let mut lines = String::new();
    for (nth, figure) in row.figures.iter().enumerate() {
        let scenario = if nth == 0 { format!("{}; `{}`", row.scenario, row.preset.name()) } else { String::new() };
        let name = if nth == 0 { row.name } else { "" };
        let seeds = if nth == 0 { seeds.to_string() } else { String::new() };
        let _ = write!(lines, "| {scenario} | {} | {name} | {seeds} |", figure.name);
        for (contestant, column) in Contestant::ALL.iter().zip(&columns) {
            if *contestant == Contestant::Ours {
                let _ = write!(lines, " {} |", before(row, figure));
            }
            let _ = write!(lines, " {} |", shown(figure, column[nth]));
        }
        lines.push('\n');
    }
    lines
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
