//! A [`QuotaStore`](crate::quota::QuotaStore) on Redis or Valkey: several processes share one quota.

mod address;
mod builder;
mod error;
mod handle;
mod health;
mod lease;
mod ledger;
mod report;
mod script;
mod server_clock;
mod share;

pub use self::{
    builder::RedisStoreBuilder,
    error::RedisStoreError,
    handle::RedisStore,
    report::{AwayReason, Overshoot, StoreCounts, StoreReport, StoreState},
};
