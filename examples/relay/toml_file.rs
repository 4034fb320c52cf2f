//! A TOML file, read name by name, that remembers where everything stands: so that every mistake can be shown in its
//! place, with the name that was probably meant.

use std::{fmt::Write as _, mem, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// What is wrong with a file, all of it.
#[derive(Debug, Default)]
pub(crate) struct Mistakes(Vec<(Range<usize>, String)>);

impl Mistakes {
    pub(crate) fn add(&mut self, place: Range<usize>, what: impl Into<String>) {
        self.0.push((place, what.into()));
    }

    /// Whether there are none after all.
    pub(crate) fn none(&mut self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(mem::take(self)) }
    }

    /// For people: a line for each, in the file's order, with file, line and column in front.
    pub(crate) fn of(mut self, file: &str, text: &str) -> String {
        self.0.sort_by_key(|(place, _)| place.start);
        let mut lines = String::new();
        for (place, what) in self.0 {
            let before = &text[..place.start.min(text.len())];
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|character| *character != '\n').count() + 1;
            let separator = if lines.is_empty() { "" } else { "\n" };
            let _ = write!(lines, "{separator}{file}:{line}:{column}: {what}"); // a String takes everything
        }
        lines
    }
}

/// Known names by section; `""` is the top level.
type Names = &'static [(&'static str, &'static [&'static str])];

/// One table of the file. Names are taken out of it, and what is left in the end is unknown.
pub(crate) struct Section<'i> {
    name: &'static str,
    names: Names,
    table: DeTable<'i>,
    place: Range<usize>,
}

impl<'i> Section<'i> {
    /// The top level of a file.
    pub(crate) fn file(text: &'i str, names: Names, mistakes: &mut Mistakes) -> Option<Self> {
        match DeTable::parse(text) {
            Ok(table) => Some(Self { name: "", names, place: text.len()..text.len(), table: table.into_inner() }),
            Err(error) => {
                mistakes.add(error.span().unwrap_or_default(), error.message().trim_end());
                None
            }
        }
    }

    /// Where something could be added: the end of the file, or the section's head.
    pub(crate) fn end(&self) -> Range<usize> {
        self.place.clone()
    }

    /// A setting, if it is there and right.
    pub(crate) fn get<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Value<'i>) -> Result<T, String>,
        mistakes: &mut Mistakes,
    ) -> Option<T> {
        let value = Value(self.table.remove(name)?);
        let read = read(&value);
        read.map_err(|what| mistakes.add(value.span(), format!("{name}: {what}"))).ok()
    }

    /// A setting that has to be there.
    pub(crate) fn require<T>(
        &mut self,
        name: &'static str,
        right: &str,
        read: impl FnOnce(&Value<'i>) -> Result<T, String>,
        mistakes: &mut Mistakes,
    ) -> Option<T> {
        if !self.table.contains_key(name) {
            mistakes.add(self.place.clone(), format!("[[{}]] has no {name}; it is {right}", self.name));
        }
        self.get(name, read, mistakes)
    }

    /// `[name]`
    pub(crate) fn section(&mut self, name: &'static str, mistakes: &mut Mistakes) -> Option<Section<'i>> {
        let value = Value(self.table.remove(name)?);
        let place = value.span();
        match value.0.into_inner() {
            DeValue::Table(table) => Some(Section { name, names: self.names, table, place }),
            other => {
                mistakes.add(place, format!("{name} is {} here; it is a section, [{name}]", kind(&other)));
                None
            }
        }
    }

    /// `[[name]]`
    pub(crate) fn sections(&mut self, name: &'static str, mistakes: &mut Mistakes) -> Vec<Section<'i>> {
        let Some(value) = self.table.remove(name) else { return Vec::new() };
        let place = value.span();
        let tables = match value.into_inner() {
            DeValue::Array(tables) => tables,
            other => {
                mistakes.add(place, format!("{name} is {} here; it is a list, [[{name}]]", kind(&other)));
                return Vec::new();
            }
        };
        let mut sections = Vec::new();
        for table in tables {
            let place = table.span();
            match table.into_inner() {
                DeValue::Table(table) => sections.push(Section { name, names: self.names, table, place }),
                other => mistakes.add(place, format!("{name} has {} in it; it is a list, [[{name}]]", kind(&other))),
            }
        }
        sections
    }

    /// Whatever has not been asked for is unknown.
    pub(crate) fn finish(self, mistakes: &mut Mistakes) {
        for unknown in self.table.keys() {
            mistakes.add(unknown.span(), self.unknown(unknown.get_ref()));
        }
    }

    fn unknown(&self, name: &str) -> String {
        let own = self.names.iter().find(|(section, _)| *section == self.name).map_or(&[][..], |(_, names)| names);
        let elsewhere = self.names.iter().find(|(_, names)| names.contains(&name)).map(|(section, _)| section);
        let nearest =
            own.iter().map(|own| (distance(own, name), own)).min().filter(|(far, _)| *far * 2 < name.len().max(3));
        let meant = match (elsewhere, nearest) {
            (Some(&""), _) => ": it belongs above all sections".to_owned(),
            (Some(section), _) => format!(": it belongs in [{section}]"),
            (None, Some((_, nearest))) => format!(": did you mean {nearest}?"),
            (None, None) => String::new(),
        };
        let place = match self.name {
            "" => "the top level".to_owned(),
            "keys" => "[[keys]]".to_owned(),
            name => format!("[{name}]"),
        };
        format!("{name:?} is no setting of {place}{meant} ({place} has {})", own.join(", "))
    }
}

/// A value and its place.
pub(crate) struct Value<'i>(Spanned<DeValue<'i>>);

impl Value<'_> {
    pub(crate) fn span(&self) -> Range<usize> {
        self.0.span()
    }

    pub(crate) fn text(&self, right: &str) -> Result<&str, String> {
        self.0.get_ref().as_str().ok_or_else(|| self.other_than(right))
    }

    pub(crate) fn boolean(&self, right: &str) -> Result<bool, String> {
        self.0.get_ref().as_bool().ok_or_else(|| self.other_than(right))
    }

    pub(crate) fn integer(&self, right: &str) -> Result<i64, String> {
        let integer = self.0.get_ref().as_integer().ok_or_else(|| self.other_than(right))?;
        i64::from_str_radix(integer.as_str(), integer.radix())
            .map_err(|_| format!("{integer} is too large; it is {right}"))
    }

    fn other_than(&self, right: &str) -> String {
        format!("is {} here; it is {right}", kind(self.0.get_ref()))
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

/// How many letters have to be added, taken away, changed or swapped with their neighbour to make one word of the other.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![(0..=other.len()).collect::<Vec<_>>()];
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let mut least = (rows[i][j] + usize::from(a != b)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && one[i - 1] == *b && other[j - 1] == *a {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}
