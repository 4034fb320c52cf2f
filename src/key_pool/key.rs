//! A key as it is configured: what signs, whose quota it uses, how much of the load it takes.

use std::{fmt, num::NonZeroU32, sync::Arc};

use http::{HeaderName, HeaderValue};

use super::{ApiKey, Fingerprint};
use crate::call::Surface;

/// The project of keys of which none is said. It is the limiter's default, too.
pub(super) const DEFAULT_PROJECT: &str = "default";

/// Anything else that can sign a request: a source of OAuth tokens, as Vertex AI wants them.
///
/// It is asked in the middle of a call and has to answer at once: fetch tokens elsewhere, and hand over the one at hand.
///
/// ```
/// use std::sync::RwLock;
/// use http::{HeaderName, HeaderValue, header::AUTHORIZATION};
/// use tower_gemini::{call::Surface, key_pool::{Credential, Fingerprint, Key, KeyPool}};
///
/// /// A token that somebody else keeps fresh.
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
    /// What may be shown of it, and tells it from the pool's other keys. Always the same.
    fn fingerprint(&self) -> Fingerprint;

    /// The one header that signs a request of that surface. `None`: it has none just now, and the key is passed over.
    fn header(&self, surface: Surface) -> Option<(HeaderName, HeaderValue)>;
}

/// What signs: the common kind needs no virtual call.
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
                // Whoever has written the source may have forgotten it.
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
    /// An API key of the project `default`, of weight 1.
    pub fn new(key: ApiKey) -> Self {
        let fingerprint = key.fingerprint();
        Self::of(Signer::ApiKey(key), fingerprint)
    }

    /// Anything that can sign, of the project `default`, of weight 1.
    pub fn from_credential(credential: impl Credential + 'static) -> Self {
        let fingerprint = credential.fingerprint();
        Self::of(Signer::Other(Arc::new(credential)), fingerprint)
    }

    fn of(signer: Signer, fingerprint: Fingerprint) -> Self {
        Self { signer, fingerprint, project: DEFAULT_PROJECT.into(), weight: NonZeroU32::MIN, name: None }
    }

    /// The project whose quota it uses: keys of one project share it. The name is yours; Google's is a good one.
    /// Default: `default`.
    pub fn project(mut self, project: impl Into<Arc<str>>) -> Self {
        self.project = project.into();
        self
    }

    /// How much of the load it takes, beside keys of other weights, where none has to wait. Default: 1.
    pub fn weight(mut self, weight: NonZeroU32) -> Self {
        self.weight = weight;
        self
    }

    /// What it is called in reports and messages, beside its fingerprint. Default: nothing.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }
}
