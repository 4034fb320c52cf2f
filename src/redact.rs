//! Removes API keys from text that comes from others.
//!
//! Upstream error bodies echo the caller's API key, up to three times in one body: in the message, in the metadata, and
//! in the localized message. Relays add the whole URL, `?key=` included. A rule by field would miss the next place, so
//! this module scans the bytes for everything that looks like a key, whatever surrounds it.
//!
//! [`redact`] is for text that goes into messages and logs. [`Masker`] is for a body that passes in chunks; it keeps
//! the length, so that `Content-Length` stays true.

use std::{borrow::Cow, fmt, ops::Range, sync::Arc};

/// The text that replaces a key.
const REDACTED: &str = "[redacted]";

/// The shape of one type of credential.
struct Pattern {
    prefix: &'static [u8],
    /// The least characters after the prefix that make a key.
    min: usize,
    /// The most characters after the prefix that belong to a key.
    max: usize,
    /// True where dots belong to a key.
    dots: bool,
}

/// The known shapes. API keys of Google Cloud are `AIza` and 35 characters; the minimum is lower, so that a key that
/// was cut by a proxy or by the end of a body does not leak most of itself. `AQ.` begins the auth keys that AI Studio
/// issues now, and `ya29.` OAuth access tokens; neither has a fixed length.
static PATTERNS: [Pattern; 3] = [
    Pattern { prefix: b"AIza", min: 20, max: 35, dots: false },
    Pattern { prefix: b"AQ.", min: 20, max: usize::MAX, dots: true },
    Pattern { prefix: b"ya29.", min: 20, max: usize::MAX, dots: true },
];

impl Pattern {
    fn takes(&self, byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') || (self.dots && byte == b'.')
    }

    /// Returns how many of the first bytes belong to the tail of a key.
    fn tail(&self, bytes: &[u8]) -> usize {
        bytes.iter().take(self.max).take_while(|byte| self.takes(**byte)).count()
    }
}

/// The result of looking for a key at one place.
enum KeyMatch {
    Nothing,
    /// A key, whose tail may be longer than what was looked at.
    Key(&'static Pattern),
    /// Undecided, because the bytes end too early.
    Open,
}

/// Looks for a key at the beginning of `bytes`.
fn at(bytes: &[u8]) -> KeyMatch {
    for pattern in &PATTERNS {
        let (prefix, min) = (pattern.prefix, pattern.min);
        let known = prefix.len().min(bytes.len());
        if bytes[..known] != prefix[..known] {
            continue;
        }
        let tail = &bytes[known..];
        let window = &tail[..tail.len().min(min)];
        if window.iter().all(|byte| pattern.takes(*byte)) {
            return if window.len() == min { KeyMatch::Key(pattern) } else { KeyMatch::Open };
        }
    }
    KeyMatch::Nothing
}

/// Returns the range of the first key at or after `from`.
fn next_key(bytes: &[u8], mut from: usize) -> Option<Range<usize>> {
    while let Some(skip) = memchr::memchr2(b'A', b'y', &bytes[from..]) {
        let start = from + skip;
        if let KeyMatch::Key(pattern) = at(&bytes[start..]) {
            let tail = start + pattern.prefix.len();
            return Some(start..tail + pattern.tail(&bytes[tail..]));
        }
        from = start + 1;
    }
    None
}

/// Replaces every key in the text. The text is borrowed where it has none.
pub(crate) fn redact(text: &str) -> Cow<'_, str> {
    let Some(mut key) = next_key(text.as_bytes(), 0) else {
        return Cow::Borrowed(text);
    };
    let mut clean = String::with_capacity(text.len());
    let mut done = 0;
    loop {
        // A key is ASCII, so that both of its ends are character boundaries.
        clean.push_str(text.get(done..key.start).unwrap_or_default());
        clean.push_str(REDACTED);
        done = key.end;
        match next_key(text.as_bytes(), done) {
            Some(next) => key = next,
            None => break,
        }
    }
    clean.push_str(text.get(done..).unwrap_or_default());
    Cow::Owned(clean)
}

/// A masker that overwrites keys with `*` in a body that comes in chunks. Wherever a key is cut, the output is the same
/// as if it had come whole.
///
/// It holds back at most [`Masker::MOST_HELD`] bytes: the beginning of a possible key.
#[derive(Debug, Default)]
pub(crate) struct Masker {
    held: Vec<u8>,
    /// Inside a key: the index of its pattern, and how many more characters may belong to it.
    run: Option<(usize, usize)>,
}

impl Masker {
    /// The longest prefix, and all but one of the characters that make it a key.
    pub(crate) const MOST_HELD: usize = 5 + 19;

    /// Takes a chunk, and appends the bytes that are decided to `out`.
    pub(crate) fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        let joined;
        let mut bytes = if self.held.is_empty() {
            chunk
        } else {
            self.held.extend_from_slice(chunk);
            joined = std::mem::take(&mut self.held);
            &joined
        };
        if let Some((index, left)) = self.run.take() {
            bytes = self.go_on(index, left, bytes, out);
        }
        while !bytes.is_empty() {
            let Some(skip) = memchr::memchr2(b'A', b'y', bytes) else {
                out.extend_from_slice(bytes);
                return;
            };
            let (before, rest) = bytes.split_at(skip);
            out.extend_from_slice(before);
            match at(rest) {
                KeyMatch::Open => {
                    self.held.extend_from_slice(rest);
                    return;
                }
                KeyMatch::Key(pattern) => {
                    let index = PATTERNS.iter().position(|p| p.prefix == pattern.prefix).unwrap_or_default();
                    let (prefix, tail) = rest.split_at(pattern.prefix.len());
                    out.resize(out.len() + prefix.len(), b'*');
                    bytes = self.go_on(index, pattern.max, tail, out);
                }
                KeyMatch::Nothing => {
                    out.push(rest[0]);
                    bytes = &rest[1..];
                }
            }
        }
    }

    /// Returns how many bytes are held back.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Ends the body: the bytes that were held back are not a key.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
        self.run = None;
    }

    /// Masks the rest of a key, and returns the bytes after it.
    fn go_on<'a>(&mut self, index: usize, left: usize, bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let masked = PATTERNS[index].tail(&bytes[..bytes.len().min(left)]);
        out.resize(out.len() + masked, b'*');
        if masked == bytes.len() && masked < left {
            self.run = Some((index, left - masked));
        }
        &bytes[masked..]
    }
}

/// A server's own credentials, which callers must not see. They have no known shape, so each is kept as it is.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Option<Arc<[Box<[u8]>]>>);

/// The least bytes of a secret. A shorter one would be found in every text.
const SHORTEST_SECRET: usize = 8;

impl Secrets {
    /// Adds a secret, unless it is shorter than 8 bytes.
    pub(crate) fn with(self, secret: &[u8]) -> Self {
        if secret.len() < SHORTEST_SECRET {
            return self;
        }
        let known = self.0.iter().flat_map(|known| known.iter().cloned());
        Self(Some(known.chain([secret.into()]).collect()))
    }

    /// Overwrites each secret and each key of a known shape with `*`. Returns `None` where there was none.
    pub(crate) fn mask(&self, text: &[u8]) -> Option<Vec<u8>> {
        let is_in = |secret: &[u8]| memchr::memmem::find(text, secret).is_some();
        if next_key(text, 0).is_none() && !self.iter().any(is_in) {
            return None;
        }
        let mut masked = Vec::with_capacity(text.len());
        let mut masker = SecretMasker::new(self.clone());
        masker.push(text, &mut masked);
        masker.finish(&mut masked);
        (masked != text).then_some(masked)
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().flat_map(|known| known.iter().map(|secret| &**secret))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.iter().count())
    }
}

/// A [`Masker`] that masks [`Secrets`] as well.
///
/// It also holds back the beginning of a possible secret: fewer bytes than the longest has.
#[derive(Debug, Default)]
pub(crate) struct SecretMasker {
    secrets: Secrets,
    held: Vec<u8>,
    shapes: Masker,
}

impl SecretMasker {
    pub(crate) fn new(secrets: Secrets) -> Self {
        Self { secrets, ..Self::default() }
    }

    /// Takes a chunk, and appends the bytes that are decided to `out`.
    pub(crate) fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        if self.secrets.0.is_none() {
            return self.shapes.push(chunk, out);
        }
        self.held.extend_from_slice(chunk);
        for secret in self.secrets.iter() {
            let mut from = 0;
            while let Some(at) = memchr::memmem::find(&self.held[from..], secret) {
                let end = from + at + secret.len();
                self.held[from + at..end].fill(b'*');
                from = end;
            }
        }
        // The last bytes may be the beginning of a secret.
        let may_begin = |tail: &[u8]| self.secrets.iter().any(|secret| secret.starts_with(tail));
        let longest = self.secrets.iter().map(<[u8]>::len).max().unwrap_or_default();
        let earliest = self.held.len().saturating_sub(longest);
        let certain = (earliest..self.held.len()).find(|at| may_begin(&self.held[*at..])).unwrap_or(self.held.len());
        let rest = self.held.split_off(certain);
        self.shapes.push(&self.held, out);
        self.held = rest;
    }

    /// Returns how many bytes are held back.
    pub(crate) fn held(&self) -> usize {
        self.held.len() + self.shapes.held()
    }

    /// Ends the body: the bytes that were held back are not a secret.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        self.shapes.push(&std::mem::take(&mut self.held), out);
        self.shapes.finish(out);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "AIzaSyA-0123456789_abcdefghijklmnopqrst";

    /// Overwrites every key with `*` in a body that came whole, as the masker has to. Returns whether there was one.
    fn mask(bytes: &mut [u8]) -> bool {
        let mut from = 0;
        let mut any = false;
        while let Some(key) = next_key(bytes, from) {
            from = key.end;
            bytes[key].fill(b'*');
            any = true;
        }
        any
    }

    #[test]
    fn a_key_is_found_whatever_surrounds_it() {
        assert_eq!(KEY.len(), 39);
        for text in [
            format!("Consumer 'api_key:{KEY}' has been suspended."),
            format!("https://host/v1beta/models/m:generateContent?key={KEY}&alt=sse"),
            format!(r#"{{"a":"\u003d{KEY}\n"}}"#),
            format!("AAI{KEY}"),
        ] {
            let clean = redact(&text);
            assert!(!clean.contains("AIzaSyA"), "{clean}");
            assert!(clean.contains(REDACTED));
        }
        assert_eq!(redact(&format!("{KEY}{KEY}")), "[redacted][redacted]");
        assert_eq!(redact("AQ.Ab8RN6abcdefghijklmnop-_.q, then"), "[redacted], then");
        assert_eq!(redact("Bearer ya29.a0AfH6SMBabcdefghijklmnop"), "Bearer [redacted]");
    }

    #[test]
    fn what_only_looks_like_a_key_stays() {
        for text in ["AIza", "AIzaSyShort", "FAQ. Answers", "AQ.short", "ya29.", "a yard of Allium", ""] {
            assert!(matches!(redact(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn masking_keeps_the_length_and_what_is_around() {
        let mut bytes = format!("x{KEY}y").into_bytes();
        assert!(mask(&mut bytes));
        assert_eq!(bytes, [b"x".as_slice(), &[b'*'; 39], b"y"].concat());
        assert!(!mask(&mut bytes));
    }

    fn text_with_keys() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            3 => "[AIzaQy29._ -]{0,12}",
            2 => Just(KEY.to_owned()),
            1 => Just("AQ.Ab8RN6abcdefghij.klmnop".to_owned()),
            1 => Just("ya29.a0AfH6SMBabcdefghijkl".to_owned()),
            1 => "\\PC{0,8}",
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn chunks_are_masked_like_the_whole(
            bytes in text_with_keys(),
            cuts in proptest::collection::vec(1usize..16, 0..64),
        ) {
            let mut whole = bytes.clone();
            mask(&mut whole);
            prop_assert_eq!(whole.len(), bytes.len());

            let (mut masker, mut out, mut rest) = (Masker::default(), Vec::new(), bytes.as_slice());
            for cut in cuts.into_iter().chain(std::iter::repeat(7)) {
                if rest.is_empty() {
                    break;
                }
                let (chunk, left) = rest.split_at(cut.min(rest.len()));
                masker.push(chunk, &mut out);
                prop_assert!(masker.held.len() <= Masker::MOST_HELD);
                rest = left;
            }
            masker.finish(&mut out);
            prop_assert_eq!(out, whole);
        }

        #[test]
        fn no_key_survives(bytes in text_with_keys()) {
            let text = String::from_utf8(bytes).unwrap();
            let clean = redact(&text);
            prop_assert!(!clean.contains(KEY));
            let mut masked = text.into_bytes();
            mask(&mut masked);
            prop_assert!(next_key(&masked, 0).is_none());
        }
    }

    proptest! {
        #[test]
        fn a_secret_of_no_known_shape_is_masked_however_it_is_cut(
            before in "[a-z *-]{0,20}",
            between in "[a-z-]{0,12}",
            cuts in proptest::collection::vec(0usize..120, 0..6),
        ) {
            let secrets = Secrets::default().with(b"relay-secret-1").with(b"relay-other-secret-22").with(b"short");
            let text = format!("{before}relay-secret-1{between}relay-other-secret-22relay-{KEY}relay-sec");
            let expected = format!("{before}{}{between}{}relay-{}relay-sec", "*".repeat(14), "*".repeat(21), "*".repeat(39));
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let (mut masker, mut out) = (SecretMasker::new(secrets.clone()), Vec::new());
            for cut in cuts.windows(2) {
                masker.push(&text.as_bytes()[cut[0]..cut[1]], &mut out);
                assert!(masker.held() < 21 + Masker::MOST_HELD);
            }
            masker.finish(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
            assert_eq!(secrets.mask(text.as_bytes()), Some(expected.into_bytes()));
            assert_eq!(secrets.mask(b"nothing here, nor is short"), None);
        }
    }
}
