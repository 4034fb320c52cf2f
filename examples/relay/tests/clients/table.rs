//! The matrix as a text: a part for each way to call, in it a row for each client, in that a cell for each ending.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::Value;

use crate::upstream::{TEXT, prompt};

/// A part of the matrix.
pub(crate) struct Part {
    /// The way to call: in one piece, as a stream, or as a chat's stream.
    pub(crate) way: &'static str,
    pub(crate) title: &'static str,
    pub(crate) endings: &'static [&'static str],
}

/// The cells, by client, ending and way.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Table {
    cells: BTreeMap<(String, String, String), String>,
}

/// The words for cells in which the client's user is misled.
const FAULTS: [&str; 6] = ["LOST", "HALF", "HANG", "WRONG", "FORGOT", "FAILED"];

impl Table {
    /// Reads a table as it is printed.
    pub(crate) fn read(text: &str, parts: &[Part]) -> Self {
        let mut cells = BTreeMap::new();
        for block in text.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
            let mut lines = block.lines();
            let title = lines.next().unwrap();
            let part = parts.iter().find(|part| part.title == title).unwrap_or_else(|| panic!("no part {title:?}"));
            let endings: Vec<_> = lines.next().unwrap().split_whitespace().collect();
            for line in lines {
                let mut words = line.split_whitespace();
                let client = words.next().unwrap();
                for (ending, cell) in endings.iter().zip(words) {
                    cells.insert(Self::key(client, ending, part.way), cell.to_owned());
                }
            }
        }
        Self { cells }
    }

    pub(crate) fn insert(&mut self, client: &str, ending: &str, way: &str, report: Option<&Value>) {
        self.cells.insert(Self::key(client, ending, way), cell(client, ending, way, report));
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.cells.extend(other.cells);
    }

    /// Returns the cells that mislead a user, and those that are not as another table says.
    pub(crate) fn faults(&self, expected: &Self) -> Vec<String> {
        let wrong = |(key, cell): (&(String, String, String), &String)| {
            let expected = expected.cells.get(key).map_or("nothing", String::as_str);
            let (client, ending, way) = key;
            let is_wrong = expected != cell || FAULTS.iter().any(|fault| cell.contains(fault));
            is_wrong.then(|| format!("{client}, {ending}, {way}: {cell}, and {expected} was expected"))
        };
        self.cells.iter().filter_map(wrong).collect()
    }

    /// Prints the table, with the rows and columns in this order.
    pub(crate) fn print(&self, clients: &[&str], parts: &[Part]) -> String {
        let mut out = String::new();
        for part in parts {
            let cell = |client: &str, ending: &str| self.cells.get(&Self::key(client, ending, part.way));
            let width = |ending: &&str| {
                let cells = clients.iter().filter_map(|client| cell(client, ending)).map(String::len);
                cells.chain([ending.len()]).max().unwrap()
            };
            let widths: Vec<_> = part.endings.iter().map(width).collect();
            let mut line = |first: &str, cells: &mut dyn Iterator<Item = &str>| {
                let cells = cells.zip(&widths).fold(format!("{first:23}"), |mut line, (cell, width)| {
                    let _ = write!(line, "  {cell:width$}");
                    line
                });
                out.push_str(cells.trim_end());
                out.push('\n');
            };
            line(part.title, &mut [].into_iter());
            line("", &mut part.endings.iter().copied());
            for client in clients {
                let cells: Vec<_> = part.endings.iter().map_while(|ending| cell(client, ending)).collect();
                if !cells.is_empty() {
                    line(client, &mut cells.into_iter().map(String::as_str));
                }
            }
            out.push('\n');
        }
        out
    }

    fn key(client: &str, ending: &str, way: &str) -> (String, String, String) {
        (client.to_owned(), ending.to_owned(), way.to_owned())
    }
}

/// Returns what a client's user saw: `ok` for the whole answer, else the error's code, or `error` where it has none. An
/// error that was thrown has nothing around it, one that was only among the events has brackets; behind `!` is a rejection
/// that nobody handles, which ends a process of Node.
fn cell(client: &str, ending: &str, way: &str, report: Option<&Value>) -> String {
    let Some(report) = report else { return "HANG".to_owned() };
    let code = match &report["code"] {
        Value::Null => "error".to_owned(),
        Value::String(words) => words.replace(char::is_whitespace, "_"),
        number => number.to_string(),
    };
    let (thrown, told) = (report["thrown"] == true, report["told"] == true);
    let text = report["text"].as_str().unwrap();
    if ending.trim_start_matches("quiet-") == "good" {
        let keeps = |turns: &Vec<Value>| {
            let turns: Vec<_> = turns.iter().filter_map(Value::as_str).collect();
            turns.first() == Some(&&*prompt(client, ending, way)) && turns[1..].concat() == TEXT
        };
        return match () {
            () if thrown || told => format!("FAILED:{code}"),
            () if text != TEXT => "WRONG".to_owned(),
            () if way == "chat" && !report["history"].as_array().is_some_and(keeps) => "FORGOT".to_owned(),
            () => "ok".to_owned(),
        };
    }
    let noticed = match (thrown, told) {
        (true, _) => code,
        (false, true) => format!("({code})"),
        (false, false) => "LOST".to_owned(),
    };
    // Some leave a promise behind that is rejected, and that nobody can handle.
    let noticed = if report["unhandled"] == true { format!("{noticed}!") } else { noticed };
    // The text of the events that came whole.
    let whole = match ending.trim_start_matches("quiet-") {
        "cut" | "short" | "told" => "alpha beta",
        "half" | "half-long" => "alpha",
        _ => "",
    };
    if whole.starts_with(text.trim_end()) { noticed } else { format!("{noticed}+HALF") }
}
