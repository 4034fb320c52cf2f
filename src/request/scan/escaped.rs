//! Strings as they stand in a body, with their escapes.
//!
//! A string's length is known without a copy of it, and a string that has to be copied is copied once. The reader of the body
//! has looked at each string before, so that its escapes are those of JSON; only the halves of surrogates are not checked
//! there.

use std::borrow::Cow;

use memchr::memchr;

/// A piece of the inside of a string.
enum StringPiece<'s> {
    Plain(&'s str),
    Escaped(char),
}

/// Returns the number of bytes of the string with this inside. `None`: it has half of a surrogate.
pub(super) fn decoded_len(inside: &str) -> Option<usize> {
    let (mut rest, mut len) = (inside, 0);
    while !rest.is_empty() {
        len += match next(&mut rest)? {
            StringPiece::Plain(text) => text.len(),
            StringPiece::Escaped(character) => character.len_utf8(),
        };
    }
    Some(len)
}

/// Returns the string with this inside. `None`: it has half of a surrogate.
pub(super) fn decoded(inside: &str) -> Option<Cow<'_, str>> {
    if memchr(b'\\', inside.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inside));
    }
    // Each escape is longer than its character.
    let mut text = String::with_capacity(inside.len());
    let mut rest = inside;
    while !rest.is_empty() {
        match next(&mut rest)? {
            StringPiece::Plain(plain) => text.push_str(plain),
            StringPiece::Escaped(character) => text.push(character),
        }
    }
    Some(Cow::Owned(text))
}

/// Takes the next piece. `None`: there is none, or it is half of a surrogate.
fn next<'s>(rest: &mut &'s str) -> Option<StringPiece<'s>> {
    let at = memchr(b'\\', rest.as_bytes()).unwrap_or(rest.len());
    if at > 0 {
        let (plain, after) = rest.split_at(at);
        *rest = after;
        return Some(StringPiece::Plain(plain));
    }
    let (name, mut after) = (*rest.as_bytes().get(1)?, rest.get(2..)?);
    let character = match name {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let first = unit(&mut after)?;
            match char::from_u32(first) {
                Some(character) => character,
                None => {
                    after = after.strip_prefix("\\u")?;
                    let units = [first as u16, unit(&mut after)? as u16];
                    char::decode_utf16(units).next()?.ok()?
                }
            }
        }
        itself => char::from(itself),
    };
    *rest = after;
    Some(StringPiece::Escaped(character))
}

/// Takes the four digits of a unit of UTF-16.
fn unit(rest: &mut &str) -> Option<u32> {
    let (digits, after) = rest.split_at_checked(4)?;
    *rest = after;
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_string_is_what_the_reader_of_json_takes_it_for(
            inside in r#"([a-zé😀 ]{0,3}|\\["\\/bfnrt]|\\u(00[0-9a-f]{2}|[0-9a-fA-F]{4}|d83d|dE0[0-9]|d83d\\ude0[0-9])){0,8}"#,
        ) {
            let expected = serde_json::from_str::<String>(&format!("\"{inside}\"")).ok();
            prop_assert_eq!(decoded_len(&inside), expected.as_ref().map(String::len));
            prop_assert_eq!(decoded(&inside).map(Cow::into_owned), expected);
        }
    }
}
