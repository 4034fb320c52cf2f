//! The mistakes in a settings file, each with its place, and remarks about it.

use std::{cell::RefCell, fmt::Write as _, ops::Range};

use crate::config::hidden::Hidden;

/// A range of bytes of the file.
pub(crate) type Place = Range<usize>;

/// Collects mistakes and remarks while a file is read, so that all of them are reported at once. None repeats a secret of
/// the file.
#[derive(Debug, Default)]
pub(crate) struct Diagnostics {
    mistakes: RefCell<Vec<(Place, String)>>,
    remarks: RefCell<Vec<(Option<Place>, String)>>,
    hidden: Hidden,
}

impl Diagnostics {
    /// Begins to collect, for a file with these secrets.
    pub(crate) fn hiding(hidden: Hidden) -> Self {
        Self { hidden, ..Self::default() }
    }

    /// Reports a mistake: the file cannot be used.
    pub(crate) fn mistake(&self, place: Place, text: impl Into<String>) {
        self.mistakes.borrow_mut().push((place, self.hidden.clean(&text.into())));
    }

    /// Reports something that is not wrong but may surprise.
    pub(crate) fn remark(&self, place: Option<Place>, text: impl Into<String>) {
        self.remarks.borrow_mut().push((place, self.hidden.clean(&text.into())));
    }

    /// Returns the remarks if there was no mistake, in the file's order and with line and column in front. The name of the
    /// file belongs before them.
    pub(crate) fn into_remarks(self, text: &str) -> Result<Vec<String>, Self> {
        if !self.mistakes.borrow().is_empty() {
            return Err(self);
        }
        let mut remarks = self.remarks.into_inner();
        remarks.sort_by_key(|(place, _)| place.as_ref().map(|place| place.start));
        let written = remarks.into_iter().map(|(place, remark)| match place {
            Some(place) => {
                let (line, column) = line_and_column(text, place.start);
                format!(":{line}:{column}: {remark}")
            }
            None => format!(": {remark}"),
        });
        Ok(written.collect())
    }

    /// Writes the mistakes for people: one line each, in the file's order, with file, line and column in front.
    pub(crate) fn render(self, file: &str, text: &str) -> String {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort_by_key(|(place, _)| place.start);
        let mut lines = String::new();
        for (place, mistake) in mistakes {
            let (line, column) = line_and_column(text, place.start);
            let separator = if lines.is_empty() { "" } else { "\n" };
            let _ = write!(lines, "{separator}{file}:{line}:{column}: {mistake}"); // a String takes everything
        }
        lines
    }
}

/// Returns the line and the column of a byte, as people count them.
fn line_and_column(text: &str, start: usize) -> (usize, usize) {
    let before = &text[..start.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|character| *character != '\n').count() + 1;
    (line, column)
}
