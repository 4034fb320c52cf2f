//! What is certainly no JSON.
//!
//! Google's own reader is more lenient than JSON is: it takes a comma behind the last element, strings in single quotes, keys
//! without quotes, line breaks and unknown escapes in strings, and numbers in hexadecimal. Whatever it might take is the
//! upstream's to judge. What is left is what people do get wrong: a body that was cut off, a bracket too many or too few, a
//! comma or a colon that is missing.

use serde_json::error::Category;

use super::scan::Unread;

/// Why a body could not be read.
pub(super) fn unread(body: &[u8], error: &serde_json::Error) -> Unread {
    let message = error.to_string();
    // serde_json has no name for it.
    if message.starts_with("recursion limit exceeded") {
        return Unread::TooDeep;
    }
    let message = message.split(" at line ").next().unwrap_or_default().to_owned();
    let certain = match error.classify() {
        Category::Eof => true,
        Category::Syntax => offset(body, error).is_some_and(|at| is_certain(&message, &body[..at], body[at])),
        Category::Data | Category::Io => false,
    };
    if !certain {
        return Unread::Odd;
    }
    Unread::Malformed { message, line: error.line(), column: error.column() }
}

/// Where the byte is that was not expected.
fn offset(body: &[u8], error: &serde_json::Error) -> Option<usize> {
    let mut from = 0;
    for _ in 1..error.line() {
        from += memchr::memchr(b'\n', &body[from..])? + 1;
    }
    let at = from + error.column().checked_sub(1)?;
    (at < body.len()).then_some(at)
}

/// Whether Google's reader refuses this byte behind that beginning too.
fn is_certain(message: &str, before: &[u8], byte: u8) -> bool {
    // A form feed is space to it.
    if matches!(byte, b'\x0b' | b'\x0c') {
        return false;
    }
    match message {
        "expected `:`" | "trailing characters" => true,
        // `0x1F`
        "expected `,` or `}`" | "expected `,` or `]`" => !before.last().is_some_and(u8::is_ascii_digit),
        // `[}`, but not `{"a":}`, which may stand for null.
        "expected value" => b"}]:".contains(&byte) && last(before).is_some_and(|last| last != b':'),
        _ => false,
    }
}

/// The last byte that is no space.
fn last(before: &[u8]) -> Option<u8> {
    before.trim_ascii_end().last().copied()
}
