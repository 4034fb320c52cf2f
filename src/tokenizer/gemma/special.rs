//! Special pieces: those that are written out in a text and taken whole, before anything is merged.

/// The special pieces of a vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    /// Tags of HTML, marks of turns and images, and the unused ones.
    Gemma3,
    /// Marks of turns, tools and media, but no tags.
    Gemma4,
}

/// The longest special piece, in bytes.
const LONGEST: usize = 16;

impl Special {
    /// Returns the length of the special piece that `bytes` begins with, if any. All but one are in angle brackets, and
    /// none has another bracket inside.
    #[inline]
    pub(super) fn length(self, bytes: &[u8]) -> Option<usize> {
        match bytes.first()? {
            b'<' => {}
            b'[' if self == Special::Gemma3 => return bytes.starts_with(MULTIMODAL).then_some(MULTIMODAL.len()),
            _ => return None,
        }
        // Most texts after a `<` end the search here.
        if bytes.get(1).is_some_and(|byte| matches!(byte, b' ' | b'=' | b'<' | b'0'..=b'9')) {
            return None;
        }
        let window = bytes.get(..LONGEST).unwrap_or(bytes);
        let end = window.iter().position(|&byte| byte == b'>')?;
        self.has(&window[1..end]).then_some(end + 1)
    }

    /// Returns whether `name` is a special piece without its brackets.
    fn has(self, name: &[u8]) -> bool {
        let Ok(name) = std::str::from_utf8(name) else { return false };
        match self {
            Special::Gemma3 => GEMMA3.binary_search(&name).is_ok() || is_unused(name),
            Special::Gemma4 => GEMMA4.binary_search(&name).is_ok(),
        }
    }
}

const MULTIMODAL: &[u8] = b"[multimodal]";

/// Returns whether the name is one of `unused0` to `unused6241`, without leading zeros.
fn is_unused(name: &str) -> bool {
    let Some(number) = name.strip_prefix("unused") else { return false };
    let digits = number.bytes().all(|byte| byte.is_ascii_digit()) && (number == "0" || !number.starts_with('0'));
    digits && number.parse::<u32>().is_ok_and(|number| number <= 6241)
}

/// Gemma 3's special pieces without their brackets, sorted.
#[rustfmt::skip]
pub(super) const GEMMA3: [&str; 75] = [
    "/a", "/b", "/bbox", "/blockquote", "/body", "/caption", "/code", "/div", "/em", "/footer", "/h1", "/h2", "/h3",
    "/h4", "/h5", "/h6", "/html", "/i", "/iframe", "/img", "/li", "/s", "/span", "/strong", "/sub", "/sup", "/table",
    "/tbody", "/td", "/tfoot", "/th", "/thead", "/tr", "/u", "/ul", "a", "b", "bbox", "blockquote", "body", "caption",
    "code", "div", "em", "end_of_image", "end_of_turn", "footer", "h1", "h2", "h3", "h4", "h5", "h6", "html", "i",
    "iframe", "img", "li", "mask", "s", "span", "start_of_image", "start_of_turn", "strong", "sub", "sup", "table",
    "tbody", "td", "tfoot", "th", "thead", "tr", "u", "ul",
];

/// Gemma 4's special pieces without their brackets, sorted.
#[rustfmt::skip]
pub(super) const GEMMA4: [&str; 24] = [
    "audio|", "bos", "channel|", "eos", "image|", "mask", "pad", "tool_call|", "tool_response|", "tool|", "turn|",
    "unk", "|\"|", "|audio", "|audio|", "|channel", "|image", "|image|", "|think|", "|tool", "|tool_call",
    "|tool_response", "|turn", "|video|",
];
