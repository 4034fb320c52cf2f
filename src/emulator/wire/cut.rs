//! The bound on texts that callers choose.

/// Returns the text up to `bytes` bytes, cut between characters.
pub(crate) fn cut(text: &str, bytes: usize) -> String {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("h\u{e9}llo", 2), "h");
        assert_eq!(cut("abc", 9), "abc");
    }
}
