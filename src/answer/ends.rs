//! The ends of strings and of white space.

use memchr::{memchr, memchr2};

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

/// Returns the length of the rest of a string, with its closing quote. Only quotes are looked for: texts have many escaped line
/// breaks, and few escaped quotes.
pub(super) fn end_of_string(bytes: &[u8]) -> Result<usize, Cut> {
    let mut rest = bytes;
    while let Some(at) = memchr(b'"', rest) {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        if !ends_in_escape(before) {
            return Ok(bytes.len() - after.len());
        }
        rest = after;
    }
    Err(if ends_in_escape(rest) { Cut::InEscape } else { Cut::Inside })
}

/// Returns whether the byte behind a piece of a string is escaped. The piece begins with no escaped byte.
fn ends_in_escape(piece: &[u8]) -> bool {
    piece.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The plain model: byte by byte.
    fn plain(bytes: &[u8]) -> Result<usize, bool> {
        let mut is_escaped = false;
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'"' => return Ok(at + 1),
                byte => is_escaped = *byte == b'\\',
            }
        }
        Err(is_escaped)
    }

    proptest::proptest! {
        #[test]
        fn a_string_ends_at_its_first_quote_that_is_not_escaped(text in r#"[a"\\]{0,12}"#) {
            let end = end_of_string(text.as_bytes()).map_err(|cut| cut.pick(false, true));
            proptest::prop_assert_eq!(end, plain(text.as_bytes()));
        }
    }
}
