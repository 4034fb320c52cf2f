//! The table: a line for each figure, a column for each contestant.

use std::fmt::Write as _;

use crate::{
    caller::Contestant,
    row::{Figure, Row},
};

/// Returns the head of the table.
pub(crate) fn head() -> String {
    let mut head = "| scenario | figure | row | seeds |".to_owned();
    let mut rule = "|---|---|---|---|".to_owned();
    for contestant in Contestant::ALL {
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
        for column in &columns {
            let _ = write!(lines, " {} |", shown(figure, column[nth]));
        }
        lines.push('\n');
    }
    lines
}

fn shown(figure: &Figure, value: f64) -> String {
    if value.is_nan() { "–".to_owned() } else { format!("{value:.*}", figure.digits) }
}
