//! The mistakes in a settings file, each with its place, and remarks about it.

use std::{cell::RefCell, fmt::Write as _, ops::Range};

/// A range of bytes of the file.
pub(crate) type Place = Range<usize>;

/// Collects mistakes and remarks while a file is read, so that all of them are reported at once.
#[derive(Debug, Default)]
pub(crate) struct Diagnostics {
    mistakes: RefCell<Vec<(Place, String)>>,
    remarks: RefCell<Vec<String>>,
}

impl Diagnostics {
    /// Reports a mistake: the file cannot be used.
    pub(crate) fn mistake(&self, place: Place, text: impl Into<String>) {
        self.mistakes.borrow_mut().push((place, text.into()));
    }

    /// Reports something that is not wrong but may surprise.
    pub(crate) fn remark(&self, text: impl Into<String>) {
        self.remarks.borrow_mut().push(text.into());
    }

    /// Returns the remarks if there was no mistake.
    pub(crate) fn into_remarks(self) -> Result<Vec<String>, Self> {
        if self.mistakes.borrow().is_empty() { Ok(self.remarks.into_inner()) } else { Err(self) }
    }

    /// Writes the mistakes for people: one line each, in the file's order, with file, line and column in front.
    pub(crate) fn render(self, file: &str, text: &str) -> String {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort_by_key(|(place, _)| place.start);
        let mut lines = String::new();
        for (place, mistake) in mistakes {
            let before = &text[..place.start.min(text.len())];
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|character| *character != '\n').count() + 1;
            let separator = if lines.is_empty() { "" } else { "\n" };
            let _ = write!(lines, "{separator}{file}:{line}:{column}: {mistake}"); // a String takes everything
        }
        lines
    }
}
