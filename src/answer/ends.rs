//! The ends of strings and of white space.

use memchr::memchr2;

/// The place at which the bytes ended within a string.
pub(super) enum Cut {
    Inside,
    InEscape,
}

impl Cut {
    pub(super) fn pick<T>(self, inside: T, in_escape: T) -> T {
        match self {
            Self::Inside => inside,
            Self::InEscape => in_escape,
        }
    }
}

/// Returns the length of the rest of a string, with its closing quote.
pub(super) fn end_of_string(bytes: &[u8]) -> Result<usize, Cut> {
    let mut from = 0;
    while let Some(rest) = bytes.get(from..) {
        let at = quote_or_escape(rest).ok_or(Cut::Inside)?;
        if rest[at] == b'"' {
            return Ok(from + at + 1);
        }
        from += at + 2;
    }
    Err(Cut::InEscape)
}

/// Returns the place of the next quote or backslash.
#[inline]
pub(super) fn quote_or_escape(bytes: &[u8]) -> Option<usize> {
    memchr2(b'"', b'\\', bytes)
}

/// Returns the bytes from the first one that is no white space. What the API indents, it indents by more than eight spaces.
pub(super) fn after_space(mut bytes: &[u8]) -> &[u8] {
    while let Some(rest) = bytes.strip_prefix(b"        ") {
        bytes = rest;
    }
    let end = bytes.iter().position(|byte| !is_space(*byte)).unwrap_or(bytes.len());
    &bytes[end..]
}

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}
