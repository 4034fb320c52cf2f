//! A [`QuotaStore`](crate::quota::QuotaStore) on Redis or Valkey: several processes share one quota.

mod address;
mod builder;
mod error;
mod handle;
mod report;
mod script;

pub use self::{
    builder::RedisStoreBuilder,
    error::RedisStoreError,
    handle::RedisStore,
    report::{AwayReason, Overshoot, StoreCounts, StoreReport, StoreState},
};
