//! The configuration of a key: its secret, the project whose quota it uses, and its share of the load.

use std::{fmt, num::NonZeroU32, sync::Arc};

use http::{HeaderName, HeaderValue};

use super::{ApiKey, Fingerprint};
use crate::call::Surface;

/// The project of keys for which none was set. It is the limiter's default, too.
pub(super) const DEFAULT_PROJECT: &str = "default";

/// A source of credentials other than API keys: of OAuth tokens, for example, which Vertex AI takes.
///
/// It is called in the middle of a call and must not block: fetch tokens elsewhere, and return the current one.
///
/// ```
/// use std::sync::RwLock;
/// use http::{HeaderName, HeaderValue, header::AUTHORIZATION};
/// use tower_gemini::{call::Surface, key_pool::{Credential, Fingerprint, Key, KeyPool}};
///
/// /// A token that another task keeps fresh.
/// struct Token(RwLock<Option<HeaderValue>>);
///
/// impl std::fmt::Debug for Token {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         f.write_str("Token")
///     }
/// }
///
/// impl Credential for Token {
///     fn fingerprint(&self) -> Fingerprint {
///         // Of the account: tokens come and go.
///         Fingerprint::of("robot@p1.iam.gserviceaccount.com")
///     }
///
///     fn header(&self, _: Surface) -> Option<(HeaderName, HeaderValue)> {
///         let mut value = self.0.read().ok()?.clone()?;
///         value.set_sensitive(true);
///         Some((AUTHORIZATION, value))
///     }
/// }
///
/// let token = Token(RwLock::new(Some(HeaderValue::from_static("Bearer ya29.nobodys"))));
/// let pool = KeyPool::builder().key(Key::from_credential(token).project("p1")).build()?;
/// # drop(pool);
/// # Ok::<_, tower_gemini::ConfigError>(())
/// ```
pub trait Credential: fmt::Debug + Send + Sync {
    /// Returns the part that may be shown, which tells it from the pool's other keys. Must always be the same.
    fn fingerprint(&self) -> Fingerprint;

    /// Returns the header that signs a request of that surface. `None`: there is currently none, and the pool takes
    /// another key.
    fn header(&self, surface: Surface) -> Option<(HeaderName, HeaderValue)>;
}

/// The signing part of a key: the common kind needs no virtual call.
#[derive(Clone, Debug)]
pub(super) enum Signer {
    ApiKey(ApiKey),
    Other(Arc<dyn Credential>),
}

impl Signer {
    pub(super) fn header(&self, surface: Surface) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::ApiKey(key) => Some(key.header(surface)),
            Self::Other(credential) => credential.header(surface).map(|(name, mut value)| {
                // The author of the source may have forgotten it.
                value.set_sensitive(true);
                (name, value)
            }),
        }
    }
}

/// A key for a [`KeyPool`](super::KeyPool).
///
/// ```
/// use tower_gemini::key_pool::{ApiKey, Key};
///
/// let key = Key::new(ApiKey::new("AIza-nobodys")?).project("p1").name("the first");
/// # drop(key);
/// # Ok::<_, tower_gemini::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Key {
    pub(super) signer: Signer,
    pub(super) fingerprint: Fingerprint,
    pub(super) project: Arc<str>,
    pub(super) weight: NonZeroU32,
    pub(super) name: Option<Arc<str>>,
}

impl Key {
    /// Makes a key from an API key, of the project `default` and of weight 1.
    pub fn new(key: ApiKey) -> Self {
        let fingerprint = key.fingerprint();
        Self::of(Signer::ApiKey(key), fingerprint)
    }

    /// Makes a key from a source of credentials, of the project `default` and of weight 1.
    pub fn from_credential(credential: impl Credential + 'static) -> Self {
        let fingerprint = credential.fingerprint();
        Self::of(Signer::Other(Arc::new(credential)), fingerprint)
    }

    fn of(signer: Signer, fingerprint: Fingerprint) -> Self {
        Self { signer, fingerprint, project: DEFAULT_PROJECT.into(), weight: NonZeroU32::MIN, name: None }
    }

    /// Sets the project whose quota the key uses: keys of one project share it. Any name will do; Google's is a good
    /// one. Default: `default`.
    pub fn project(mut self, project: impl Into<Arc<str>>) -> Self {
        self.project = project.into();
        self
    }

    /// Sets the share of the load that the key takes, relative to the weights of other keys, where no call has to wait.
    /// Default: 1.
    pub fn weight(mut self, weight: NonZeroU32) -> Self {
        self.weight = weight;
        self
    }

    /// Sets the name that reports and messages show beside the fingerprint. Default: none.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }
}
