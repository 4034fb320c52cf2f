//! The store that several relays share: a connection that outlives reloads which leave `[store]` as it is.

use tower_gemini::{
    caller_limit::CallerLimitsBuilder,
    circuit_breaker::CircuitBreakers,
    key_pool::KeyPool,
    rate_limit::LimiterBuilder,
    redis_store::{RedisStore, RedisStoreError, SharedNews},
};

use crate::{
    config::{Shares, StoreSettings},
    show::ShownStore,
};

/// The store, and the knowledge that is shared over it. Its connection ends with the last clone.
#[derive(Clone)]
pub(crate) struct SharedStore {
    store: RedisStore,
    news: SharedNews,
    shares: Shares,
}

impl SharedStore {
    /// Connects in the background: a server that is away keeps no relay from its start.
    pub(crate) fn connect(settings: &StoreSettings) -> Result<Self, RedisStoreError> {
        let news = SharedNews::new();
        let store = settings.builder()?.news(news.clone()).connect();
        Ok(Self { store, news, shares: settings.shares })
    }

    /// Has a limiter ask the store, if quota is shared.
    pub(crate) fn of_limiter(&self, limiter: LimiterBuilder) -> LimiterBuilder {
        match self.shares.quota {
            true => limiter.store(self.store.clone()),
            false => limiter,
        }
    }

    /// Has the callers' limits ask the store, if quota is shared.
    pub(crate) fn of_callers(&self, callers: CallerLimitsBuilder) -> CallerLimitsBuilder {
        match self.shares.quota {
            true => callers.store(self.store.clone()),
            false => callers,
        }
    }

    /// Tells the others of these keys and breakers from now on, and takes up what they tell, as far as each is shared.
    pub(crate) fn tell(&self, pool: &KeyPool, breakers: Option<&CircuitBreakers>) {
        let pool_if = |is_shared: bool| is_shared.then(|| pool.clone());
        self.news.share_keys(pool_if(self.shares.keys));
        self.news.share_parks(pool_if(self.shares.parks));
        self.news.share_breakers(breakers.filter(|_| self.shares.breakers).cloned());
    }

    /// Ends that: another store is in force. The pool asks a limiter that has this store, so that each would keep the other
    /// for good.
    pub(crate) fn end(&self) {
        self.news.share_keys(None);
        self.news.share_parks(None);
        self.news.share_breakers(None);
    }

    /// Returns the handles that are shown.
    pub(crate) fn shown(&self) -> ShownStore {
        ShownStore { store: self.store.clone(), news: self.news.clone() }
    }
}
