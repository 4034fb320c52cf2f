//! The handle of a store.

use super::{
    builder::{RedisStoreBuilder, StoreSettings},
    error::RedisStoreError,
    report::StoreReport,
};
use crate::quota::{Closing, Correction, Question, QuotaStore, Reply, Scope, StoreCharge};

/// A store on Redis or Valkey: all instances that use one server and one prefix share each quota.
///
/// A cheap handle: all clones are the same store.
#[derive(Clone, Debug)]
pub struct RedisStore {
    settings: StoreSettings,
}

impl RedisStore {
    /// Begins the settings of a store on the server at that address.
    ///
    /// | address | server |
    /// |---|---|
    /// | `redis://[user:password@]host[:port][/database]` | one server; `valkey://` is the same |
    /// | `rediss://…` | the same over TLS, with the roots of Mozilla |
    /// | `unix:///path/of/the.sock` | the same over a socket of this machine |
    /// | `redis+sentinel://[user:password@]host[:port],host[:port]/master[/database]` | the master that one of these Sentinels names; the login is the master's |
    /// | `redis+cluster://[user:password@]host[:port],host[:port]` | a Cluster that has these nodes |
    ///
    /// `rediss+sentinel://` and `rediss+cluster://` use TLS for all connections.
    pub fn builder(url: impl AsRef<str>) -> Result<RedisStoreBuilder, RedisStoreError> {
        RedisStoreBuilder::new(url.as_ref())
    }

    pub(super) fn start(settings: StoreSettings) -> Self {
        Self { settings }
    }

    /// Returns the current state.
    #[must_use]
    pub fn report(&self) -> StoreReport {
        StoreReport { instance: (*self.settings.instance).into(), ..StoreReport::default() }
    }
}

impl QuotaStore for RedisStore {
    fn take(&self, _scope: &Scope, _question: Question) -> Reply {
        todo!()
    }

    fn correct(&self, _scope: &Scope, _charge: StoreCharge, _by: Correction) {}

    fn close(&self, _scope: &Scope, _closing: Closing) {}

    fn open(&self, _scope: &Scope) {}
}
