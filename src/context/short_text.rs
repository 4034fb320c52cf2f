//! A text that needs no memory of its own unless it is long.

use std::{fmt, ops::Deref, sync::Arc};

/// The most bytes of a text that needs no memory of its own. The ids of Gemini's answers have 23, and the names of its models
/// rarely more than 30.
const INLINE: usize = 30;

/// A text of an answer: an id, the name of a model, a reason. It is read as a `str`; a copy of it costs next to nothing.
#[derive(Clone)]
pub struct ShortText(TextPlace);

/// The place of the text.
#[derive(Clone)]
enum TextPlace {
    Inline { len: u8, bytes: [u8; INLINE] },
    Shared(Arc<str>),
}

impl ShortText {
    fn bytes(&self) -> &[u8] {
        match &self.0 {
            TextPlace::Inline { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            TextPlace::Shared(text) => text.as_bytes(),
        }
    }
}

impl Deref for ShortText {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            TextPlace::Inline { .. } => str::from_utf8(self.bytes()).unwrap_or_default(),
            TextPlace::Shared(text) => text,
        }
    }
}

impl From<&str> for ShortText {
    fn from(text: &str) -> Self {
        let mut bytes = [0; INLINE];
        match bytes.get_mut(..text.len()) {
            Some(room) => {
                room.copy_from_slice(text.as_bytes());
                Self(TextPlace::Inline { len: text.len() as u8, bytes })
            }
            None => Self(TextPlace::Shared(text.into())),
        }
    }
}

impl From<String> for ShortText {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl AsRef<str> for ShortText {
    fn as_ref(&self) -> &str {
        self
    }
}

impl PartialEq for ShortText {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for ShortText {}

impl fmt::Debug for ShortText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for ShortText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_the_same_at_either_place() {
        for len in 0..2 * INLINE {
            let text = "é".repeat(len / 2) + &"x".repeat(len % 2);
            let short = ShortText::from(text.as_str());
            assert_eq!((&*short, short.clone()), (text.as_str(), text.clone().into()));
            assert_eq!(format!("{short} {short:?}"), format!("{text} {text:?}"));
            assert_eq!(matches!(short.0, TextPlace::Inline { .. }), len <= INLINE);
        }
    }
}
