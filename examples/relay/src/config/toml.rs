//! A TOML file that is read name by name and knows the place of everything in it: each mistake is reported at its place,
//! with the name that was probably meant.

use std::mem;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::config::diagnostics::{Diagnostics, Place};

/// The known names of each section; `""` is the top level.
pub(crate) type KnownNames = &'static [(&'static str, &'static [&'static str])];

/// A table of the file. Reading takes names out of it, and every name that is left in the end is unknown.
pub(crate) struct Section<'a> {
    /// The section's name in `known`.
    name: &'static str,
    /// The section as people write it.
    title: String,
    known: KnownNames,
    table: DeTable<'a>,
    place: Place,
    diagnostics: &'a Diagnostics,
}

impl<'a> Section<'a> {
    /// Returns the top level of a file, or `None` if `text` is not TOML.
    pub(crate) fn file(text: &'a str, known: KnownNames, diagnostics: &'a Diagnostics) -> Option<Self> {
        match DeTable::parse(text) {
            Ok(table) => {
                let (title, place) = ("the top level".to_owned(), text.len()..text.len());
                Some(Self { name: "", title, known, table: table.into_inner(), place, diagnostics })
            }
            Err(error) => {
                diagnostics.mistake(error.span().unwrap_or_default(), error.message().trim_end());
                None
            }
        }
    }

    /// Returns the place of the section's head; for the top level, the end of the file, where something could be added.
    pub(crate) fn place(&self) -> Place {
        self.place.clone()
    }

    /// Reports a mistake at a place of the file.
    pub(crate) fn mistake(&self, place: Place, text: impl Into<String>) {
        self.diagnostics.mistake(place, text);
    }

    /// Reports something that may surprise, and has no place in the file.
    pub(crate) fn remark(&self, text: impl Into<String>) {
        self.diagnostics.remark(None, text);
    }

    /// Reports something that may surprise at a place of the file.
    pub(crate) fn remark_at(&self, place: Place, text: impl Into<String>) {
        self.diagnostics.remark(Some(place), text);
    }

    /// Returns the place of a setting's value, if it is there and has not been taken yet.
    pub(crate) fn place_of(&self, name: &str) -> Option<Place> {
        self.table.get(name).map(Spanned::span)
    }

    /// Remarks on each of these settings that is there although it has no effect, for a reason.
    pub(crate) fn remark_on_effect(&self, names: &[&str], why: &str) {
        for name in names {
            if let Some(place) = self.place_of(name) {
                self.remark_at(place, format!("{name} has no effect: {why}"));
            }
        }
    }

    /// Returns whether a setting is there and has not been taken yet.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// Sets the title by which mistakes name the section.
    pub(crate) fn titled(self, title: String) -> Self {
        Self { title, ..self }
    }

    /// Takes a setting. Returns `None` if it is missing, or wrong, which is reported.
    pub(crate) fn get<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Value<'a>) -> Result<T, String>,
    ) -> Option<T> {
        self.get_placed(name, read).map(|(value, _)| value)
    }

    /// Takes a setting and its place.
    pub(crate) fn get_placed<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Value<'a>) -> Result<T, String>,
    ) -> Option<(T, Place)> {
        let value = Value(self.table.remove(name)?);
        match read(&value) {
            Ok(read) => Some((read, value.place())),
            Err(mistake) => {
                self.mistake(value.place(), format!("{name}: {mistake}"));
                None
            }
        }
    }

    /// Takes a setting that must be there, and its place. `right` is shown if it is missing.
    pub(crate) fn require_placed<T>(
        &mut self,
        name: &'static str,
        right: &str,
        read: impl FnOnce(&Value<'a>) -> Result<T, String>,
    ) -> Option<(T, Place)> {
        if !self.table.contains_key(name) {
            self.mistake(self.place(), format!("{} has no {name}; it is {right}", self.title));
        }
        self.get_placed(name, read)
    }

    /// Takes `[name]`.
    pub(crate) fn section(&mut self, name: &'static str) -> Option<Self> {
        let value = self.table.remove(name)?;
        let place = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Some(self.child(name, format!("[{name}]"), table, place)),
            other => {
                self.mistake(place, format!("{name} is {} here; it is a section, [{name}]", kind(&other)));
                None
            }
        }
    }

    /// Takes `[section.name]`, which is known as `whole`.
    pub(crate) fn subsection(&mut self, name: &'static str, whole: &'static str) -> Option<Self> {
        let title = format!("{}.{name}]", self.title.trim_end_matches(']'));
        let section = self.section(name)?;
        Some(Self { name: whole, title, ..section })
    }

    /// Takes every `[[name]]`.
    pub(crate) fn sections(&mut self, name: &'static str) -> Vec<Self> {
        let Some(value) = self.table.remove(name) else { return Vec::new() };
        let place = value.span();
        let tables = match value.into_inner() {
            DeValue::Array(tables) => tables,
            other => {
                self.mistake(place, format!("{name} is {} here; it is a list, [[{name}]]", kind(&other)));
                return Vec::new();
            }
        };
        let mut sections = Vec::new();
        for table in tables {
            let place = table.span();
            match table.into_inner() {
                DeValue::Table(table) => sections.push(self.child(name, format!("[[{name}]]"), table, place)),
                other => {
                    self.mistake(place, format!("{name} has {} in it; it is a list, [[{name}]]", kind(&other)));
                }
            }
        }
        sections
    }

    /// Takes every `[section.any-name]`: tables that the user named. Each is known as `name`.
    pub(crate) fn tables(mut self, name: &'static str) -> Vec<NamedTable<'a>> {
        let mut tables = Vec::new();
        for (key, value) in mem::take(&mut self.table) {
            let belongs_elsewhere = self.known.iter().any(|(section, names)| {
                *section != self.name && names.contains(&key.get_ref().as_ref()) // a setting one level too high
            });
            if belongs_elsewhere {
                self.table.insert(key, value);
                continue;
            }
            let (named_at, key, place) = (key.span(), key.into_inner().into_owned(), value.span());
            let title = format!("[{}.{}]", self.name, quoted(&key));
            match value.into_inner() {
                DeValue::Table(table) => {
                    let section = self.child(name, title, table, place);
                    tables.push(NamedTable { name: key, named_at, section });
                }
                other => self.mistake(place, format!("{key} is {} here; it is a section, {title}", kind(&other))),
            }
        }
        self.finish();
        tables
    }

    /// Takes everything that is left, in the file's order: settings that the user named.
    pub(crate) fn rest(&mut self) -> Vec<Entry<'a>> {
        let entry = |(key, value): (Spanned<std::borrow::Cow<'a, str>>, _)| {
            let named_at = key.span();
            Entry { named_at, name: key.into_inner().into_owned(), value: Value(value) }
        };
        let mut rest: Vec<_> = mem::take(&mut self.table).into_iter().map(entry).collect();
        rest.sort_by_key(|entry| entry.named_at.start);
        rest
    }

    /// Returns the tables in this one, where no table belongs, because a name with dots was not quoted: for each the
    /// rest of that name and its place.
    pub(crate) fn dotted(&self) -> Vec<(String, Place)> {
        fn collect(table: &DeTable<'_>, found: &mut Vec<(String, Place)>, before: &str) {
            for (key, value) in table {
                let DeValue::Table(inner) = value.get_ref() else { continue };
                let (name, count) = (format!("{before}{}", key.get_ref()), found.len());
                collect(inner, found, &format!("{name}."));
                if found.len() == count {
                    found.push((name, key.span()));
                }
            }
        }
        let mut found = Vec::new();
        collect(&self.table, &mut found, "");
        found
    }

    /// Reports every name that was not taken as unknown.
    pub(crate) fn finish(self) {
        for unknown in self.table.keys() {
            self.mistake(unknown.span(), self.unknown(unknown.get_ref()));
        }
    }

    /// Describes an unknown name: the section where it belongs, or the name that was probably meant.
    pub(crate) fn unknown(&self, name: &str) -> String {
        let own = self.known.iter().find(|(section, _)| *section == self.name).map_or(&[][..], |(_, names)| names);
        let elsewhere = self.known.iter().find(|(_, names)| names.contains(&name)).map(|(section, _)| section);
        let nearest =
            own.iter().map(|own| (distance(own, name), own)).min().filter(|(far, _)| *far * 2 < name.len().max(3));
        let meant = match (elsewhere, nearest) {
            (Some(&""), _) => ": it belongs above all sections".to_owned(),
            (Some(section), _) => format!(": it belongs in [{section}]"),
            (None, Some((_, nearest))) => format!(": did you mean {nearest}?"),
            (None, None) => String::new(),
        };
        let title = &self.title;
        format!("{name:?} is not a setting of {title}{meant} ({title} has {})", own.join(", "))
    }

    fn child(&self, name: &'static str, title: String, table: DeTable<'a>, place: Place) -> Self {
        Self { name, title, known: self.known, table, place, diagnostics: self.diagnostics }
    }
}

/// A table that the user named.
pub(crate) struct NamedTable<'a> {
    pub(crate) name: String,
    pub(crate) named_at: Place,
    pub(crate) section: Section<'a>,
}

/// A setting that the user named.
pub(crate) struct Entry<'a> {
    pub(crate) name: String,
    pub(crate) named_at: Place,
    pub(crate) value: Value<'a>,
}

/// The texts of a list, or the mistakes in their stead, each with its place.
pub(crate) type Texts = Vec<(Result<String, String>, Place)>;

/// A value and its place.
pub(crate) struct Value<'a>(Spanned<DeValue<'a>>);

impl Value<'_> {
    pub(crate) fn place(&self) -> Place {
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

    /// Returns a number, whole or with a fraction, as digits.
    pub(crate) fn decimal(&self, right: &str) -> Result<&str, String> {
        match self.0.get_ref() {
            DeValue::Integer(integer) if integer.radix() == 10 => Ok(integer.as_str()),
            DeValue::Float(float) => Ok(float.as_str()),
            _ => Err(self.other_than(right)),
        }
    }

    /// Returns the texts of a list.
    pub(crate) fn texts(&self, right: &str) -> Result<Texts, String> {
        let list = self.0.get_ref().as_array().ok_or_else(|| self.other_than(right))?;
        let text = |value: &Spanned<DeValue<'_>>| match value.get_ref().as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(format!("is {} in the list; it is {right}", kind(value.get_ref()))),
        };
        Ok(list.iter().map(|value| (text(value), value.span())).collect())
    }

    /// Returns the rest of a name with dots that was not quoted, and so has become a table.
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

/// Writes a name as TOML has it: in quotes, unless it needs none.
fn quoted(name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !name.is_empty() && name.bytes().all(bare) { name.to_owned() } else { format!("{name:?}") }
}

/// Returns the number of letters that have to be added, removed, changed or swapped with their neighbour to turn one
/// word into the other (the optimal string alignment distance).
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
