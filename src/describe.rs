//! A layer's settings in a line, for whoever wants to see what a stack came to.

use std::fmt;

/// What a layer does, with its numbers: `60 s up to the commit`. One line, no end of line.
pub(crate) trait Describe {
    /// Writes the line. A layer that is disabled says so.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// What a disabled layer writes.
pub(crate) const LEFT_OUT: &str = "left out";
