//! An API key: shows a fingerprint, and goes into headers only.

use std::fmt;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header::AUTHORIZATION};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{call::Surface, context::ConfigError};

const X_GOOG_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");

/// An API key. It is overwritten in memory when its last clone and the last request that carries it are dropped, and
/// `Debug` shows the fingerprint only.
///
/// ```
/// use tower_gemini::key_pool::ApiKey;
///
/// let key = ApiKey::new("AIza-nobodys")?;
/// assert_eq!(format!("{key:?}"), format!("ApiKey({})", key.fingerprint()));
/// assert!(ApiKey::new("a key\n").is_err());
/// # Ok::<_, tower_gemini::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct ApiKey {
    fingerprint: Fingerprint,
    /// Both header values, ready-made, so that a request takes a reference and no copy.
    plain: HeaderValue,
    bearer: HeaderValue,
}

impl ApiKey {
    /// Takes a key as it is; nothing is trimmed. An owned text (a `String`) is overwritten too; of a borrowed one the
    /// caller keeps the original.
    ///
    /// # Errors
    ///
    /// Fails if the key is empty, or has anything but visible ASCII in it: whitespace and line ends come from files,
    /// and no header takes them. The error does not show the key.
    pub fn new(text: impl Into<String>) -> Result<Self, ConfigError> {
        let text = Zeroizing::new(text.into().into_bytes());
        if text.is_empty() {
            return Err(ConfigError::new("the API key is empty: check the variable or the file that it is read from"));
        }
        if let Some(at) = text.iter().position(|byte| !byte.is_ascii_graphic()) {
            let what = if text[at].is_ascii_whitespace() { "whitespace" } else { "a byte that is not visible ASCII" };
            let (at, of) = (at + 1, text.len());
            return Err(ConfigError::new(format!("the API key has {what} in it, at byte {at} of {of}: cut it out")));
        }
        let fingerprint = Fingerprint::of(&text);
        let mut bearer = Zeroizing::new(Vec::with_capacity("Bearer ".len() + text.len()));
        bearer.extend_from_slice(b"Bearer ");
        bearer.extend_from_slice(&text);
        Ok(Self { fingerprint, plain: header(text)?, bearer: header(bearer)? })
    }

    /// Returns the part of the key that may be shown.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Returns the header that signs a request of that surface.
    pub(super) fn header(&self, surface: Surface) -> (HeaderName, HeaderValue) {
        match surface {
            Surface::OpenAi => (AUTHORIZATION, self.bearer.clone()),
            _ => (X_GOOG_API_KEY, self.plain.clone()),
        }
    }
}

fn header(secret: Zeroizing<Vec<u8>>) -> Result<HeaderValue, ConfigError> {
    let value = HeaderValue::from_maybe_shared(Bytes::from_owner(secret));
    let mut value = value.map_err(|_| ConfigError::new("the API key cannot stand in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({})", self.fingerprint)
    }
}

/// The part of a secret that may be shown: the first 8 hexadecimal digits of its SHA-256.
///
/// ```
/// use tower_gemini::key_pool::Fingerprint;
///
/// assert_eq!(Fingerprint::of("abc").to_string(), "ba7816bf");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 4]);

impl Fingerprint {
    /// Computes the fingerprint of a secret, or of a text that tells a source of tokens from others.
    pub fn of(secret: impl AsRef<[u8]>) -> Self {
        let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(secret.as_ref()).into();
        Self([a, b, c, d])
    }

    /// Reads a fingerprint that was written.
    #[cfg(feature = "redis")]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_digits = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u32::from_str_radix(text, 16).ok().filter(|_| is_digits)?;
        Some(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_taken_as_it_is_or_not_at_all() {
        let key = ApiKey::new("AIza-nobodys").unwrap();
        assert_eq!(key.header(Surface::Developer), (X_GOOG_API_KEY, HeaderValue::from_static("AIza-nobodys")));
        assert_eq!(key.header(Surface::OpenAi), (AUTHORIZATION, HeaderValue::from_static("Bearer AIza-nobodys")));
        assert!(key.header(Surface::Vertex).1.is_sensitive() && key.header(Surface::OpenAi).1.is_sensitive());
        for wrong in ["", " AIza-x", "AIza-x ", "AIza x", "AIza-x\n", "AIza\0x", "AIza-\u{e9}", "\u{feff}AIza"] {
            let error = ApiKey::new(wrong).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("AIza"), "{error}");
        }
    }

    #[test]
    fn a_request_takes_a_reference_and_no_copy() {
        let key = ApiKey::new("AIza-nobodys").unwrap();
        for surface in [Surface::Developer, Surface::OpenAi] {
            let (one, other) = (key.header(surface).1, key.header(surface).1);
            assert_eq!(one.as_bytes().as_ptr(), other.as_bytes().as_ptr());
        }
    }
}
