//! The settings of a layer in one line, as `GeminiLayer` shows them.

use std::fmt;

/// A layer that describes what it does in one line, with its numbers: `60 s up to the commit`. There is no end of line.
pub(crate) trait Describe {
    /// Writes the line. A layer that is disabled says so.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// The line of a layer that is disabled.
pub(crate) const LEFT_OUT: &str = "left out";
