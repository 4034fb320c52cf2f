//! A lenient reader, which tells what is certainly not JSON.
//!
//! Google's own reader is more lenient than JSON is: it takes a comma behind the last element, strings in single
//! quotes, keys without quotes, line breaks and unknown escapes in strings, and numbers in hexadecimal. Whatever it
//! might take is left for the upstream to judge. What remains are common mistakes: a body that was cut off, a bracket
//! too many or too few, a missing comma or colon, something that never was JSON.

use serde_json::error::Category;

use super::scan::Unread;

/// The deepest nesting that is followed.
const DEEPEST: usize = 1_000;

/// Returns the reason why a body could not be read.
pub(super) fn unread(body: &[u8], error: &serde_json::Error) -> Unread {
    let message = error.to_string();
    // serde_json has no category for it.
    if message.starts_with("recursion limit exceeded") {
        return Unread::TooDeep;
    }
    let certain = match error.classify() {
        Category::Eof => true,
        Category::Syntax => !Lenient { rest: body }.might_take(),
        Category::Data | Category::Io => false,
    };
    if !certain {
        return Unread::Odd;
    }
    let message = message.split(" at line ").next().unwrap_or_default().to_owned();
    Unread::Malformed { message, line: error.line(), column: error.column() }
}

/// A reader that takes whatever Google's reader might.
struct Lenient<'a> {
    rest: &'a [u8],
}

/// The token that may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Value,
    /// A key, or the end of the object.
    Key,
    Colon,
    /// A comma, or the end of what is open.
    Comma,
}

impl Lenient<'_> {
    /// Returns whether Google's reader might take the text.
    fn might_take(mut self) -> bool {
        if let Some(rest) = self.rest.strip_prefix(b"\xef\xbb\xbf") {
            self.rest = rest;
        }
        // The closing brackets of what is open.
        let mut open: Vec<u8> = Vec::new();
        let mut next = Expected::Value;
        loop {
            let space = self.rest.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == 0x0b).count();
            self.skip(space);
            let Some(byte) = self.rest.first().copied() else {
                return open.is_empty() && next == Expected::Comma;
            };
            // It may be a comment.
            if byte == b'/' {
                return true;
            }
            next = match (next, byte) {
                (Expected::Value, b'{' | b'[') => {
                    if open.len() >= DEEPEST {
                        return true;
                    }
                    self.skip(1);
                    open.push(if byte == b'{' { b'}' } else { b']' });
                    if byte == b'{' { Expected::Key } else { Expected::Value }
                }
                (Expected::Value, b'"' | b'\'') if self.skip_text(byte) => Expected::Comma,
                (Expected::Value, b'0'..=b'9' | b'-' | b'+' | b'.') => {
                    self.skip_word();
                    Expected::Comma
                }
                (Expected::Value, b't' | b'f' | b'n' | b'N' | b'I') if self.skip_literal() => Expected::Comma,
                // A value is missing: between commas, behind a colon, in an empty list.
                (Expected::Value, b',' | b']') if open.last() == Some(&b']') => Expected::Comma,
                (Expected::Value, b',' | b'}') if open.last() == Some(&b'}') => Expected::Comma,
                (Expected::Key, b'"' | b'\'') if self.skip_text(byte) => Expected::Colon,
                (Expected::Key, b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' | b'0'..=b'9') => {
                    self.skip_word();
                    Expected::Colon
                }
                (Expected::Key, b'}') => Expected::Comma,
                (Expected::Colon, b':') => {
                    self.skip(1);
                    Expected::Value
                }
                (Expected::Comma, b',') if !open.is_empty() => {
                    self.skip(1);
                    if open.last() == Some(&b'}') { Expected::Key } else { Expected::Value }
                }
                (Expected::Comma, b'}' | b']') if open.pop() == Some(byte) => {
                    self.skip(1);
                    Expected::Comma
                }
                _ => return false,
            };
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    /// Skips a string to its closing quote, and returns whether it has one.
    fn skip_text(&mut self, quote: u8) -> bool {
        let mut at = 1;
        while let Some(byte) = self.rest.get(at) {
            at += 1;
            match *byte {
                b'\\' => at += 1,
                byte if byte == quote => {
                    self.skip(at);
                    return true;
                }
                _ => {}
            }
        }
        false
    }

    /// Skips a number in any notation, or a name.
    fn skip_word(&mut self) {
        let is_inside = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-._$".contains(byte);
        let length = self.rest.iter().take_while(|byte| is_inside(byte)).count();
        self.skip(length);
    }

    fn skip_literal(&mut self) -> bool {
        let names: [&[u8]; 5] = [b"true", b"false", b"null", b"NaN", b"Infinity"];
        let found = names.into_iter().find(|name| self.rest.starts_with(name));
        found.map(|name| self.skip(name.len())).is_some()
    }
}
