//! The rows that were measured, and the table that is made of them.

use std::fmt::Write as _;

use crate::measure::is_bare;

/// The figures of one service.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) group: String,
    pub(crate) name: String,
    /// The time of a call in nanoseconds.
    pub(crate) nanos: f64,
    /// The time of a call that the bare control does not take.
    pub(crate) over: f64,
    /// The allocations of a warm call, once they are counted.
    pub(crate) allocations: Option<u64>,
    /// Those that the bare control does not make.
    pub(crate) more_allocations: Option<u64>,
    /// The length of an answer.
    pub(crate) bytes: usize,
    pub(crate) frames: usize,
}

/// All rows of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows(Vec<Row>);

impl Rows {
    pub(crate) fn push(&mut self, row: Row) {
        self.0.push(row);
    }

    pub(crate) fn get(&self, group: &str, name: &str) -> Option<&Row> {
        self.0.iter().find(|row| row.group == group && row.name == name)
    }

    /// Returns lines for another program, which [`Rows::read`] reads.
    pub(crate) fn lines(&self) -> String {
        let mut text = String::new();
        for row in &self.0 {
            let Row { group, name, nanos, over, allocations, more_allocations, bytes, frames } = row;
            let [allocations, more_allocations] = [allocations, more_allocations].map(|count| shown(*count));
            let _ = writeln!(
                text,
                "{group}\t{name}\t{nanos}\t{over}\t{allocations}\t{more_allocations}\t{bytes}\t{frames}"
            );
        }
        text
    }

    /// Reads the lines of another build; whatever else it prints is passed over.
    pub(crate) fn read(&mut self, text: &str) {
        for line in text.lines() {
            let columns: Vec<_> = line.split('\t').collect();
            let [group, name, nanos, over, allocations, more_allocations, bytes, frames] = columns[..] else {
                continue;
            };
            let number = |text: &str| text.parse::<f64>().expect("a number in a row");
            self.push(Row {
                group: group.into(),
                name: name.into(),
                nanos: number(nanos),
                over: number(over),
                allocations: allocations.parse().ok(),
                more_allocations: more_allocations.parse().ok(),
                bytes: number(bytes) as usize,
                frames: number(frames) as usize,
            });
        }
    }

    /// Takes over the allocations that were counted elsewhere.
    pub(crate) fn count(&mut self, counted: &Rows) {
        for row in &mut self.0 {
            if let Some(counted) = counted.get(&row.group, &row.name) {
                (row.allocations, row.more_allocations) = (counted.allocations, counted.more_allocations);
            }
        }
    }

    /// Returns the table, with a column for another build's rows if there are any.
    pub(crate) fn table(&self, before: Option<&Rows>) -> String {
        let mut text =
            String::from("| group | service | ns | over bare | allocations | over bare | ns a frame | MB/s |");
        text.push_str(if before.is_some() { " before: over bare |\n" } else { "\n" });
        text.push_str("|---|---|---|---|---|---|---|---|");
        text.push_str(if before.is_some() { "---|\n" } else { "\n" });
        let mut group = "";
        for row in &self.0 {
            let name = if row.group == group { "" } else { &*row.group };
            group = &row.group;
            let (over, more) = if is_bare(&row.name) {
                ("–".into(), "–".into())
            } else {
                (format!("{:.0}", row.over), shown(row.more_allocations))
            };
            let _ = write!(
                text,
                "| {name} | {} | {:.0} | {over} | {} | {more} |",
                row.name,
                row.nanos,
                shown(row.allocations)
            );
            if row.frames > 1 && !is_bare(&row.name) {
                let _ = write!(
                    text,
                    " {:.1} | {:.0} |",
                    row.over / row.frames as f64,
                    row.bytes as f64 * 1e3 / row.nanos.max(1.0)
                );
            } else {
                text.push_str(" | |");
            }
            if let Some(before) = before {
                match before.get(&row.group, &row.name).filter(|_| !is_bare(&row.name)) {
                    Some(before) => {
                        let _ = write!(text, " {:.0} |", before.over);
                    }
                    None => text.push_str(" |"),
                }
            }
            text.push('\n');
        }
        text
    }
}

fn shown(count: Option<u64>) -> String {
    count.map_or_else(|| "–".to_owned(), |count| count.to_string())
}
