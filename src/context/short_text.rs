//! A text that needs no memory of its own unless it is long.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

/// The most bytes of a text that needs no memory of its own. The ids of Gemini's answers have 23, and the names of its models
/// rarely more than 30.
const INLINE: usize = 30;

/// A text of an answer: an id, the name of a model, a reason. It is read as a `str`; a copy of it costs next to nothing.
///
/// ```
/// use std::{collections::HashMap, sync::Arc};
/// use tower_gemini::context::ShortText;
///
/// let model = ShortText::from("gemini-2.5-pro");
/// assert!(model == "gemini-2.5-pro" && model.starts_with("gemini"));
///
/// // A map is asked by a `str`.
/// let answers = HashMap::from([(model.clone(), 1)]);
/// assert_eq!(answers.get("gemini-2.5-pro"), Some(&1));
///
/// let shared: Arc<str> = model.into();
/// assert_eq!(&*shared, "gemini-2.5-pro");
/// ```
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

impl Default for ShortText {
    fn default() -> Self {
        "".into()
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

impl From<Arc<str>> for ShortText {
    fn from(text: Arc<str>) -> Self {
        if text.len() > INLINE { Self(TextPlace::Shared(text)) } else { (*text).into() }
    }
}

impl From<ShortText> for Arc<str> {
    fn from(text: ShortText) -> Self {
        match text.0 {
            TextPlace::Inline { .. } => (*text).into(),
            TextPlace::Shared(text) => text,
        }
    }
}

impl From<ShortText> for String {
    fn from(text: ShortText) -> Self {
        (*text).into()
    }
}

impl AsRef<str> for ShortText {
    fn as_ref(&self) -> &str {
        self
    }
}

impl Borrow<str> for ShortText {
    fn borrow(&self) -> &str {
        self
    }
}

impl PartialEq for ShortText {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for ShortText {}

impl PartialEq<str> for ShortText {
    fn eq(&self, other: &str) -> bool {
        self.bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for ShortText {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

impl Ord for ShortText {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

impl PartialOrd for ShortText {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

// A `str`'s own hash, as `Borrow` asks for.
impl Hash for ShortText {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

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
    use std::collections::{BTreeMap, HashMap};

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

    #[test]
    fn a_text_compares_and_hashes_as_its_str() {
        let long = "x".repeat(INLINE + 1);
        let texts = ["", "a", &long[1..], &long, "z", "éé", &"é".repeat(INLINE), "é"];
        for text in texts {
            let short = ShortText::from(text);
            assert!(short == *text && short == text && short != "other" && short != *"other");
            assert_eq!(HashMap::from([(short.clone(), ())]).get(text), Some(&()), "{text}");
            assert_eq!(BTreeMap::from([(short.clone(), ())]).get(text), Some(&()), "{text}");
            for other in texts {
                let other_short = ShortText::from(other);
                assert_eq!(short.cmp(&other_short), text.cmp(other), "{text} {other}");
                assert_eq!(short == other_short, text == other);
            }
        }
        assert_eq!(ShortText::default(), "");
    }

    #[test]
    fn a_text_comes_from_and_goes_to_what_holds_texts() {
        // 15 letters of two bytes have 30 of them.
        for text in ["x".repeat(30), "x".repeat(31), "é".repeat(15), "é".repeat(15) + "x", String::new()] {
            let shared: Arc<str> = text.as_str().into();
            let short = ShortText::from(shared.clone());
            assert_eq!(
                (&short, text.len() <= INLINE),
                (&text.clone().into(), matches!(short.0, TextPlace::Inline { .. }))
            );
            assert_eq!(String::from(short.clone()), text);
            let back = Arc::<str>::from(short);
            assert_eq!(
                (&back, Arc::ptr_eq(&back, &shared)),
                (&shared, text.len() > INLINE),
                "a long text is not copied"
            );
        }
    }
}
