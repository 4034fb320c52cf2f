//! A [`QuotaStore`](crate::quota::QuotaStore) on Redis or Valkey: several processes share one quota.

mod news;
mod script;

pub use self::news::{NewsReport, SharedNews};
