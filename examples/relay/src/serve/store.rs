//! The store that several relays share: a connection that outlives reloads which leave `[store]` as it is.

use tower_gemini::{
    rate_limit::LimiterBuilder,
    redis_store::{RedisStore, RedisStoreError},
};

use crate::config::{Shares, StoreSettings};

/// The store, and the knowledge that is shared over it. Its connection ends with the last clone.
#[derive(Clone, Debug)]
pub(crate) struct SharedStore {
    store: RedisStore,
    shares: Shares,
}

impl SharedStore {
    /// Connects in the background: a server that is away keeps no relay from its start.
    pub(crate) fn connect(settings: &StoreSettings) -> Result<Self, RedisStoreError> {
        Ok(Self { store: settings.builder()?.connect(), shares: settings.shares })
    }

    /// Has a limiter ask the store, if quota is shared.
    pub(crate) fn of_limiter(&self, limiter: LimiterBuilder) -> LimiterBuilder {
        match self.shares.quota {
            true => limiter.store(self.store.clone()),
            false => limiter,
        }
    }

    /// Returns the handle that is shown.
    pub(crate) fn handle(&self) -> &RedisStore {
        &self.store
    }
}
