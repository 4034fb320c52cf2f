//! Reads the numbers in "The input token count (314175) exceeds the maximum number of tokens allowed (131072)."
//!
//! The limit that the upstream really serves can be lower than the published one, and this refusal is the only place
//! that names it. Several wordings are known; the limit stands in brackets, bare at the end, or before the count.

/// The words before the limit, most telling first.
const BEFORE_LIMIT: [&str; 10] = [
    "tokens allowed",
    "supports up to",
    "maximum context length",
    "context length is",
    "maximum of",
    "limit of",
    "limit is",
    "at most",
    "max ",
    "maximum",
];

/// The most bytes between such words and the number.
const NEAR: usize = 32;

/// The number of tokens in the request, and the number allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TokenNumbers {
    pub(super) count: Option<u64>,
    pub(super) limit: Option<u64>,
}

/// Reads the numbers from a message in lower case.
pub(super) fn read(lower: &str) -> TokenNumbers {
    let numbers: Vec<(usize, u64)> = numbers(lower).take(16).collect();
    let after = |words: &str| {
        let end = lower.find(words)? + words.len();
        numbers.iter().find(|(at, _)| (end..end + NEAR).contains(at)).map(|(_, value)| *value)
    };
    let named = BEFORE_LIMIT.iter().find_map(|words| after(words));
    let values = || numbers.iter().map(|(_, value)| *value);
    match named {
        // A refused request had more tokens than the limit.
        Some(limit) => TokenNumbers { limit: Some(limit), count: values().filter(|value| *value > limit).max() },
        None => match numbers.as_slice() {
            [(_, one), (_, other)] => TokenNumbers { count: Some(*one.max(other)), limit: Some(*one.min(other)) },
            [(_, count)] => TokenNumbers { count: Some(*count), limit: None },
            _ => TokenNumbers::default(),
        },
    }
}

/// Finds whole numbers of two digits or more that are not part of a name, with the offset of each; "1,048,576" is one.
fn numbers(text: &str) -> impl Iterator<Item = (usize, u64)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            while at < bytes.len() && !bytes[at].is_ascii_digit() {
                at += 1;
            }
            if at >= bytes.len() {
                return None;
            }
            let start = at;
            let mut value = 0u64;
            let mut digits = 0;
            while let Some(byte) = bytes.get(at) {
                match byte {
                    b'0'..=b'9' => {
                        value = value.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
                        digits += 1;
                    }
                    b',' | b'_' if bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => {}
                    _ => break,
                }
                at += 1;
            }
            let glued = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'-');
            let version = start > 0 && bytes[start - 1] == b'.';
            let name = glued(start.checked_sub(1).and_then(|before| bytes.get(before))) || glued(bytes.get(at));
            if digits >= 2 && !version && !name {
                return Some((start, value));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_wordings_give_both_numbers() {
        for (text, count, limit) in [
            (
                "The input token count (314175) exceeds the maximum number of tokens allowed (131072).",
                Some(314_175),
                Some(131_072),
            ),
            ("The input token count exceeds the maximum number of tokens allowed (1048576).", None, Some(1_048_576)),
            ("The input token count exceeds the maximum number of tokens allowed 1048576.", None, Some(1_048_576)),
            (
                "Unable to submit request because the input token count is 40000 but model only supports up to 32768. Reduce \
                 the input token count and try again.",
                Some(40_000),
                Some(32_768),
            ),
            ("prompt is too long: 205000 tokens > 200000 maximum", Some(205_000), Some(200_000)),
            (
                "This model's maximum context length is 8,192 tokens. However, your messages resulted in 9,001 tokens (8,001 \
                 in the messages, 1,000 in the functions).",
                Some(9_001),
                Some(8_192),
            ),
            ("gemini-2.5-pro: 1,200,000 tokens exceeds the limit of 1,048,576", Some(1_200_000), Some(1_048_576)),
            ("Your input context is too long.", None, None),
            ("input token count (70000) is too large", Some(70_000), None),
        ] {
            assert_eq!(read(&text.to_lowercase()), TokenNumbers { count, limit }, "{text}");
        }
    }

    #[test]
    fn absurd_numbers_saturate() {
        let text = "tokens allowed (99999999999999999999999999)";
        assert_eq!(read(text).limit, Some(u64::MAX));
    }
}
