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
    /// What it is, for `names`.
    name: &'static str,
    /// As people write it.
    title: String,
    names: Names,
    table: DeTable<'i>,
    place: Range<usize>,
}

impl<'i> Section<'i> {
    /// The top level of a file.
    pub(crate) fn file(text: &'i str, names: Names, mistakes: &mut Mistakes) -> Option<Self> {
        match DeTable::parse(text) {
            Ok(table) => {
                let (title, place) = ("the top level".to_owned(), text.len()..text.len());
                Some(Self { name: "", title, names, table: table.into_inner(), place })
            }
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
            mistakes.add(self.place.clone(), format!("{} has no {name}; it is {right}", self.title));
        }
        self.get(name, read, mistakes)
    }

    /// `[name]`
    pub(crate) fn section(&mut self, name: &'static str, mistakes: &mut Mistakes) -> Option<Section<'i>> {
        let value = Value(self.table.remove(name)?);
        let place = value.span();
        match value.0.into_inner() {
            DeValue::Table(table) => {
                Some(Section { name, title: format!("[{name}]"), names: self.names, table, place })
            }
            other => {
                mistakes.add(place, format!("{name} is {} here; it is a section, [{name}]", kind(&other)));
                None
            }
        }
    }

    /// `[section.name]`; `names` knows it by that name as a whole.
    pub(crate) fn subsection(
        &mut self,
        name: &'static str,
        whole: &'static str,
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        let section = self.section(name, mistakes)?;
        Some(Section { name: whole, title: format!("[{whole}]"), ..section })
    }

    /// Whatever has not been asked for, in the file's order: names that are the user's own.
    pub(crate) fn rest(&mut self) -> Vec<Entry<'i>> {
        let entry = |(key, value): (Spanned<_>, _)| {
            let (named_at, name): (_, std::borrow::Cow<'_, str>) = (key.span(), key.into_inner());
            Entry { named_at, name: name.into_owned(), value: Value(value) }
        };
        let mut rest: Vec<_> = mem::take(&mut self.table).into_iter().map(entry).collect();
        rest.sort_by_key(|entry| entry.named_at.start);
        rest
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
                DeValue::Table(table) => {
                    sections.push(Section { name, title: format!("[[{name}]]"), names: self.names, table, place });
                }
                other => mistakes.add(place, format!("{name} has {} in it; it is a list, [[{name}]]", kind(&other))),
            }
        }
        sections
    }

    /// `[section.any-name]`: the tables in it, whose names are the user's own. `names` knows each of them as `name`.
    pub(crate) fn tables(mut self, name: &'static str, mistakes: &mut Mistakes) -> Vec<Table<'i>> {
        let mut tables = Vec::new();
        let parent = self.name;
        for (key, value) in mem::take(&mut self.table) {
            let belongs_elsewhere = self.names.iter().any(|(section, names)| {
                *section != parent && names.contains(&key.get_ref().as_ref()) // a setting that is one level too high
            });
            if belongs_elsewhere {
                self.table.insert(key, value);
                continue;
            }
            let (named_at, key, place) = (key.span(), key.into_inner().into_owned(), value.span());
            let title = format!("[{parent}.{}]", quoted(&key));
            match value.into_inner() {
                DeValue::Table(table) => {
                    let section = Section { name, title, names: self.names, table, place };
                    tables.push(Table { name: key, named_at, section });
                }
                other => mistakes.add(place, format!("{key} is {} here; it is a section, {title}", kind(&other))),
            }
        }
        self.finish(mistakes);
        tables
    }

    /// Tables within this one, where no table belongs: a name with dots was not quoted. Each with the rest of that name.
    pub(crate) fn dotted(&self) -> Vec<(String, Range<usize>)> {
        fn look(table: &DeTable<'_>, found: &mut Vec<(String, Range<usize>)>, before: &str) {
            for (key, value) in table {
                let DeValue::Table(inner) = value.get_ref() else { continue };
                let (name, count) = (format!("{before}{}", key.get_ref()), found.len());
                look(inner, found, &format!("{name}."));
                if found.len() == count {
                    found.push((name, key.span()));
                }
            }
        }
        let mut found = Vec::new();
        look(&self.table, &mut found, "");
        found
    }

    /// Whatever has not been asked for is unknown.
    pub(crate) fn finish(self, mistakes: &mut Mistakes) {
        for unknown in self.table.keys() {
            mistakes.add(unknown.span(), self.unknown(unknown.get_ref()));
        }
    }

    pub(crate) fn unknown(&self, name: &str) -> String {
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
        let title = &self.title;
        format!("{name:?} is no setting of {title}{meant} ({title} has {})", own.join(", "))
    }
}

/// A table with a name of the user's own.
pub(crate) struct Table<'i> {
    pub(crate) name: String,
    pub(crate) named_at: Range<usize>,
    pub(crate) section: Section<'i>,
}

/// A setting with a name of the user's own.
pub(crate) struct Entry<'i> {
    pub(crate) name: String,
    pub(crate) named_at: Range<usize>,
    pub(crate) value: Value<'i>,
}

/// A name as TOML has it: in quotes, unless it needs none.
fn quoted(name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !name.is_empty() && name.bytes().all(bare) { name.to_owned() } else { format!("{name:?}") }
}

/// The texts of a list, or what is wrong with them, each with its place.
type Texts = Vec<(Range<usize>, Result<String, String>)>;

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

    /// A list of texts, each with its place.
    pub(crate) fn texts(&self, right: &str) -> Result<Texts, String> {
        let list = self.0.get_ref().as_array().ok_or_else(|| self.other_than(right))?;
        let text = |value: &Spanned<DeValue<'_>>| match value.get_ref().as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(format!("is {} in the list; it is {right}", kind(value.get_ref()))),
        };
        Ok(list.iter().map(|value| (value.span(), text(value))).collect())
    }

    /// What a name goes on with that has dots and was not quoted.
    pub(crate) fn dotted(&self) -> Option<String> {
        let (name, value) = self.0.get_ref().as_table()?.iter().next()?;
        let mut dotted = name.get_ref().to_string();
        let mut value = value.get_ref();
        while let Some((name, inner)) = value.as_table().and_then(|table| table.iter().next()) {
            dotted = format!("{dotted}.{}", name.get_ref());
            value = inner.get_ref();
        }
        Some(dotted)
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
pub(crate) fn distance(one: &str, other: &str) -> usize {
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
