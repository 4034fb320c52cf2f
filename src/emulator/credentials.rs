//! Keys: how they come, and to which project they belong. None is kept: a fingerprint stands for each.

use std::{
    collections::HashMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use http::{HeaderMap, header};

/// What stands for a key: 64 bits of a hash of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint(u64);

/// The keys that are good, and their projects.
#[derive(Clone, Debug, Default)]
pub(super) struct Keyring {
    projects: HashMap<Fingerprint, Arc<str>>,
}

/// What a request shows.
#[derive(Clone, Copy)]
pub(super) enum Credential<'a> {
    None,
    /// In `x-goog-api-key` or in `?key=`.
    Key(&'a str),
    /// In `Authorization: Bearer`.
    Bearer(&'a str),
    /// An `Authorization` that is no Bearer token.
    Unreadable,
    Many,
}

/// The project of keys that were not configured.
pub(super) const DEFAULT_PROJECT: &str = "emulated-project";

// === impl Fingerprint ===

impl Fingerprint {
    pub(super) fn of(key: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        Self(hasher.finish())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0 >> 32)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key#{self}")
    }
}

// === impl Keyring ===

impl Keyring {
    pub(super) fn insert(&mut self, key: &str, project: &str) {
        self.projects.insert(Fingerprint::of(key), project.into());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.projects.is_empty()
    }

    /// The key's project. Without any configured key, every key is good.
    pub(super) fn project(&self, key: &str) -> Option<Arc<str>> {
        match self.projects.is_empty() {
            true => Some(DEFAULT_PROJECT.into()),
            false => self.projects.get(&Fingerprint::of(key)).cloned(),
        }
    }
}

// === impl Credential ===

impl<'a> Credential<'a> {
    pub(super) fn of(headers: &'a HeaderMap, query: Option<&'a str>) -> Self {
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

    pub(super) fn secret(self) -> Option<&'a str> {
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
        assert!(matches!(Credential::of(&one, Some("alt=sse")), Credential::Key("k")));
        assert!(matches!(Credential::of(&one, Some("alt=sse&key=k")), Credential::Many));
        assert!(matches!(Credential::of(&HeaderMap::new(), Some("key=q")), Credential::Key("q")));
        assert!(matches!(Credential::of(&HeaderMap::new(), Some("monkey=q")), Credential::None));
        let bearer = headers(&[("authorization", "bearer  t")]);
        assert!(matches!(Credential::of(&bearer, None), Credential::Bearer("t")));
        let basic = headers(&[("authorization", "Basic t")]);
        assert!(matches!(Credential::of(&basic, None), Credential::Unreadable));
        let both = headers(&[("authorization", "Bearer t"), ("x-goog-api-key", "k")]);
        assert!(matches!(Credential::of(&both, None), Credential::Many));
    }

    #[test]
    fn nothing_shows_a_key() {
        let mut keyring = Keyring::default();
        keyring.insert("test-key-secret", "p");
        assert!(!format!("{keyring:?}").contains("secret"));
        assert_eq!(keyring.project("test-key-secret").as_deref(), Some("p"));
        assert_eq!(keyring.project("other"), None);
        assert_eq!(Keyring::default().project("other").as_deref(), Some(DEFAULT_PROJECT));
    }
}
