//! The tokens with which an answer goes on in another call: `continuationToken`.
//!
//! They are opaque, of any length, and of use in the project alone that has given them out. A hash is enough to know
//! one again; the answer that has one passes in pieces, and is not copied.

use std::sync::LazyLock;

use memchr::{memchr2, memmem::Finder, memrchr};

use super::Resource;

/// The beginning of the member's name in both spellings. No other byte of it is like its first, so that a part of it at
/// the end of a piece is the whole of what has to be remembered.
const WORD: &[u8] = b"continuation";

static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(WORD));

/// A search of an answer for tokens, piece by piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenFinder(State);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of [`WORD`] have come.
    Word(usize),
    /// So many bytes of the rest have come: `Token"`, or `_token"`.
    Rest {
        snake: bool,
        len: usize,
    },
    Colon,
    Quote,
    Token(TokenHash),
}

impl TokenFinder {
    pub(crate) fn new() -> Self {
        Self(State::Word(0))
    }

    /// Takes the next bytes, cut wherever they are, and hands out each token that they end.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut found: impl FnMut(Resource)) {
        while let Some((&byte, rest)) = bytes.split_first() {
            let (state, left) = match self.0 {
                State::Word(len) => word(len, bytes),
                State::Rest { snake: false, len: 0 } if byte == b'_' => (State::Rest { snake: true, len: 0 }, rest),
                State::Rest { snake, len } => {
                    let expected: &[u8; 6] = if snake { b"token\"" } else { b"Token\"" };
                    match () {
                        () if byte != expected[len] => (State::Word(0), bytes),
                        () if len + 1 == expected.len() => (State::Colon, rest),
                        () => (State::Rest { snake, len: len + 1 }, rest),
                    }
                }
                State::Colon | State::Quote if byte.is_ascii_whitespace() => (self.0, rest),
                State::Colon if byte == b':' => (State::Quote, rest),
                State::Quote if byte == b'"' => (State::Token(TokenHash::default()), rest),
                State::Colon | State::Quote => (State::Word(0), bytes),
                State::Token(mut hash) => match hash.push(bytes) {
                    Some((token, rest)) => {
                        found(token);
                        (State::Word(0), rest)
                    }
                    None => (State::Token(hash), &[][..]),
                },
            };
            (self.0, bytes) = (state, left);
        }
    }
}

/// Looks for [`WORD`], of which `len` bytes have come. Returns what has come then, and the bytes that are left.
fn word(len: usize, bytes: &[u8]) -> (State, &[u8]) {
    const FOUND: State = State::Rest { snake: false, len: 0 };
    if len > 0 {
        let missing = &WORD[len..];
        if let Some(rest) = bytes.strip_prefix(missing) {
            return (FOUND, rest);
        }
        if missing.starts_with(bytes) {
            return (State::Word(len + bytes.len()), &[]);
        }
    }
    if let Some(at) = FINDER.find(bytes) {
        return (FOUND, &bytes[at + WORD.len()..]);
    }
    let tail = &bytes[bytes.len().saturating_sub(WORD.len() - 1)..];
    let part = memrchr(WORD[0], tail).map(|at| &tail[at..]).filter(|part| WORD.starts_with(part));
    (State::Word(part.map_or(0, <[u8]>::len)), &[])
}

/// The hash of a token, which is read as the JSON string that it is: one side may escape what the other does not.
///
/// FNV-1a with 64 bits takes a byte at a time. A caller who makes two tokens of one hash has gained nothing: a token is
/// checked by the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TokenHash {
    hash: u64,
    escape: Escape,
}

/// The part of an escape that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    None,
    Backslash,
    /// `\u`, and so many digits.
    Unicode {
        digits: u8,
        value: u16,
    },
}

impl Default for TokenHash {
    fn default() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, escape: Escape::None }
    }
}

impl TokenHash {
    /// Takes the next bytes of the string. Once it has ended, returns the token's name and the bytes behind the string.
    pub(super) fn push<'a>(&mut self, mut bytes: &'a [u8]) -> Option<(Resource, &'a [u8])> {
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.escape {
                Escape::None => {
                    let plain = memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
                    bytes[..plain].iter().for_each(|byte| self.add(*byte));
                    bytes = &bytes[plain..];
                    match bytes.split_first() {
                        Some((b'"', behind)) => return Some((Resource::continuation(self.hash), behind)),
                        Some((_, behind)) => (self.escape, bytes) = (Escape::Backslash, behind),
                        None => {}
                    }
                    continue;
                }
                Escape::Backslash if byte == b'u' => self.escape = Escape::Unicode { digits: 0, value: 0 },
                Escape::Backslash => {
                    self.add(match byte {
                        b'b' => 0x08,
                        b'f' => 0x0c,
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        other => other,
                    });
                    self.escape = Escape::None;
                }
                Escape::Unicode { digits, value } => {
                    let digit = char::from(byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok());
                    let value = value << 4 | digit.unwrap_or_default();
                    self.escape = Escape::Unicode { digits: digits + 1, value };
                    if digits == 3 {
                        let mut utf8 = [0; 4];
                        let text = char::from_u32(value.into()).unwrap_or(char::REPLACEMENT_CHARACTER);
                        text.encode_utf8(&mut utf8).bytes().for_each(|byte| self.add(byte));
                        self.escape = Escape::None;
                    }
                }
            }
            bytes = rest;
        }
        None
    }

    fn add(&mut self, byte: u8) {
        self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(pieces: &[&[u8]]) -> Vec<Resource> {
        let (mut finder, mut all) = (TokenFinder::new(), Vec::new());
        pieces.iter().for_each(|piece| finder.push(piece, |token| all.push(token)));
        all
    }

    fn token(text: &str) -> Resource {
        TokenHash::default().push(format!("{text}\"").as_bytes()).unwrap().0
    }

    #[test]
    fn a_token_is_found_however_the_answer_is_cut() {
        let answer = r#"{"candidates":[{"content":{"parts":[{"text":"a continuation, \"continuationToken\": \"no\""}]},
            "finishReason":"CONTINUATION","continuationToken" : "AB\u003d\/c"}],"continuation_token":"d"}"#;
        let expected = [token("AB=/c"), token("d")];
        for cut in 0..answer.len() {
            let (one, other) = answer.as_bytes().split_at(cut);
            assert_eq!(found(&[one, other]), expected, "{cut}");
        }
        let bytes: Vec<&[u8]> = answer.as_bytes().chunks(1).collect();
        assert_eq!(found(&bytes), expected);
    }

    #[test]
    fn what_is_no_token_is_none() {
        for nothing in [
            r#"{"continuationToken": null}"#,
            r#"{"continuationToken": 7, "continuation": "x"}"#,
            r#"{"continuation_Token": "x", "continuationtoken": "y"}"#,
            r#"["continuationToken", "x"]"#,
            r#"{"continuationToken": "cut"#,
        ] {
            assert_eq!(found(&[nothing.as_bytes()]), [], "{nothing}");
        }
        let doubled = br#"{"continuatcontinuationToken":"x"}"#;
        assert_eq!(found(&[&doubled[..14], &doubled[14..]]), [token("x")]);
    }

    proptest! {
        #[test]
        fn an_escaped_token_is_the_same_token(text in "[ -~\n\t\u{e9}]{0,40}") {
            let plain = serde_json::to_string(&text).unwrap();
            let escaped: String = text.chars().map(|c| format!("\\u{:04X}", u32::from(c))).collect();
            let hash = |json: &str| TokenHash::default().push(json.as_bytes()).map(|(token, _)| token);
            prop_assert_eq!(hash(&plain[1..]), hash(&format!("{escaped}\"")));
        }

        #[test]
        fn pieces_say_what_the_whole_says(text in "[continuationTk_\":\\\\ ]{0,60}", cut in 0usize..60) {
            let (one, other) = text.as_bytes().split_at(cut.min(text.len()));
            prop_assert_eq!(found(&[one, other]), found(&[text.as_bytes()]));
        }
    }
}
