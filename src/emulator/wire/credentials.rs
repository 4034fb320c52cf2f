//! The credential of a request. No key is kept: a hash stands for it.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
};

use http::{HeaderMap, header};

/// A 64-bit hash of a key, which stands for the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyHash(u64);

/// The credential that a request carries.
#[derive(Clone, Copy)]
pub(crate) enum RequestCredential<'a> {
    None,
    /// A key in `x-goog-api-key` or in `?key=`.
    Key(&'a str),
    /// A token in `Authorization: Bearer`.
    Bearer(&'a str),
    /// An `Authorization` that is not a Bearer token.
    Unreadable,
    /// More than one credential.
    Many,
}

// === impl KeyHash ===

impl KeyHash {
    pub(crate) fn of(key: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        Self(hasher.finish())
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0 >> 32)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key#{self}")
    }
}

// === impl RequestCredential ===

impl<'a> RequestCredential<'a> {
    /// Finds the credential in a request's headers and query.
    pub(crate) fn of(headers: &'a HeaderMap, query: Option<&'a str>) -> Self {
        let in_header = headers.get_all("x-goog-api-key").iter().map(|value| match value.to_str() {
            Ok(key) => Self::Key(key),
            Err(_) => Self::Unreadable,
        });
        let pairs = query.into_iter().flat_map(|query| query.split('&'));
        let in_query = pairs.filter_map(|pair| pair.strip_prefix("key=")).map(Self::Key);
        let bearer = headers.get_all(header::AUTHORIZATION).iter().map(|value| {
            let scheme_and_token = value.to_str().ok().and_then(|value| value.split_once(' '));
            match scheme_and_token {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Self::Bearer(token.trim()),
                _ => Self::Unreadable,
            }
        });
        let mut all = in_header.chain(in_query).chain(bearer);
        match (all.next(), all.next()) {
            (None, _) => Self::None,
            (Some(one), None) => one,
            (Some(_), Some(_)) => Self::Many,
        }
    }

    /// Returns the key or token itself.
    pub(crate) fn secret(self) -> Option<&'a str> {
        match self {
            Self::Key(secret) | Self::Bearer(secret) => Some(secret),
            Self::None | Self::Unreadable | Self::Many => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_key_is_found_wherever_it_stands_and_only_once() {
        let one = headers(&[("x-goog-api-key", "k")]);
        assert!(matches!(RequestCredential::of(&one, Some("alt=sse")), RequestCredential::Key("k")));
        assert!(matches!(RequestCredential::of(&one, Some("alt=sse&key=k")), RequestCredential::Many));
        assert!(matches!(RequestCredential::of(&HeaderMap::new(), Some("key=q")), RequestCredential::Key("q")));
        assert!(matches!(RequestCredential::of(&HeaderMap::new(), Some("monkey=q")), RequestCredential::None));
        let bearer = headers(&[("authorization", "bearer  t")]);
        assert!(matches!(RequestCredential::of(&bearer, None), RequestCredential::Bearer("t")));
        let basic = headers(&[("authorization", "Basic t")]);
        assert!(matches!(RequestCredential::of(&basic, None), RequestCredential::Unreadable));
        let both = headers(&[("authorization", "Bearer t"), ("x-goog-api-key", "k")]);
        assert!(matches!(RequestCredential::of(&both, None), RequestCredential::Many));
    }
}
