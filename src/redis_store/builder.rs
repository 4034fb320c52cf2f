//! The settings of a store.

use std::{sync::Arc, time::Duration};

use super::{RedisStore, SharedNews, address::ServerAddress, error::RedisStoreError};

/// The settings of a [`RedisStore`]. Made by [`RedisStore::builder`].
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::redis_store::RedisStore;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_gemini::redis_store::RedisStoreError> {
/// let store = RedisStore::builder("redis://127.0.0.1:6379/1")?
///     .prefix("team-a")
///     .instance("relay-1")
///     .call_timeout(Duration::from_millis(50))
///     .connect();
/// # drop(store);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RedisStoreBuilder {
    pub(super) settings: StoreSettings,
}

/// The settings of a store.
#[derive(Clone, Debug)]
pub(super) struct StoreSettings {
    pub(super) address: ServerAddress,
    pub(super) prefix: Box<str>,
    pub(super) instance: Arc<str>,
    pub(super) instances_unless_seen: u32,
    pub(super) leases: bool,
    pub(super) call_timeout: Duration,
    pub(super) probe_every: Duration,
    pub(super) news: Option<SharedNews>,
}

impl RedisStoreBuilder {
    pub(super) fn new(url: &str) -> Result<Self, RedisStoreError> {
        let settings = StoreSettings {
            address: ServerAddress::parse(url)?,
            prefix: "tower-gemini".into(),
            instance: format!("{:016x}", fastrand::u64(..)).into(),
            instances_unless_seen: 4,
            leases: true,
            call_timeout: Duration::from_millis(20),
            probe_every: Duration::from_millis(250),
            news: None,
        };
        Ok(Self { settings })
    }

    /// Sets the beginning of the names of all keys on the server, `tower-gemini` by default. Instances with another one share
    /// nothing with these.
    pub fn prefix(mut self, prefix: impl Into<Box<str>>) -> Self {
        self.settings.prefix = prefix.into();
        self
    }

    /// Sets the name of this instance among those that share the quota: 16 random digits by default. Two that run at once
    /// must not have one name, because they would be counted as one.
    pub fn instance(mut self, name: impl Into<Arc<str>>) -> Self {
        self.settings.instance = name.into();
        self
    }

    /// Sets the number of instances to assume before the server has ever been reached, 4 by default: each has the part of the
    /// quota that leaves as much for the others.
    pub fn instances_unless_seen(mut self, instances: u32) -> Self {
        self.settings.instances_unless_seen = instances.max(1);
        self
    }

    /// Sets whether more than one call's quota may be taken at a time, for at most half a second: on by default. It is done
    /// from a limit of 600 requests a minute on, and saves the way to the server for most calls.
    pub fn leases(mut self, leases: bool) -> Self {
        self.settings.leases = leases;
        self
    }

    /// Sets the time after which the server's answer is no longer awaited, 20 ms by default: the store then takes its
    /// own share until the server answers in time again. At least 2 ms.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.settings.call_timeout = timeout.max(Duration::from_millis(2));
        self
    }

    /// Sets the time from one look at the server to the next, 250 ms by default, a fifth more or less at random. From 50 ms
    /// to 1 s.
    pub fn probe_every(mut self, every: Duration) -> Self {
        self.settings.probe_every = every.clamp(Duration::from_millis(50), Duration::from_secs(1));
        self
    }

    /// Sets what this instance tells the others that use the same server and prefix, and takes up from them: dead keys, blocked
    /// projects, open breakers. Default: nothing.
    ///
    /// ```
    /// use tower_gemini::{circuit_breaker::CircuitBreakers, key_pool::{ApiKey, Key, KeyPool}};
    /// use tower_gemini::redis_store::{RedisStore, SharedNews};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = KeyPool::builder().key(Key::new(ApiKey::new("AIza-nobodys")?)).build()?;
    /// let breakers = CircuitBreakers::new();
    /// let news = SharedNews::new();
    /// news.share_keys(pool.clone());
    /// news.share_parks(pool.clone());
    /// news.share_breakers(breakers.clone());
    /// let store = RedisStore::builder("redis://127.0.0.1:6379")?.news(news.clone()).connect();
    /// # drop(store);
    /// # Ok(())
    /// # }
    /// ```
    pub fn news(mut self, news: SharedNews) -> Self {
        self.settings.news = Some(news);
        self
    }

    /// Makes the store, which connects in the background: it never fails for a server that cannot be reached.
    ///
    /// Its one task runs on the current runtime, and ends when the last handle is dropped.
    ///
    /// # Panics
    ///
    /// It panics outside of a tokio runtime.
    pub fn connect(self) -> RedisStore {
        RedisStore::start(self.settings)
    }
}
