//! A [`QuotaStore`](crate::quota::QuotaStore) on Redis or Valkey: several processes share one quota.

mod address;
mod ask;
mod builder;
mod driver;
mod error;
mod handle;
mod health;
mod lease;
mod ledger;
mod link;
mod news;
mod probe;
mod registry;
mod report;
mod scope;
mod script;
mod server_clock;
mod share;
mod shared;

pub use self::{
    builder::RedisStoreBuilder,
    error::RedisStoreError,
    handle::RedisStore,
    news::{NewsReport, SharedNews},
    report::{AwayReason, Overshoot, StoreCounts, StoreOutage, StoreReport, StoreState},
};
