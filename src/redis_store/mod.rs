//! A [`QuotaStore`](crate::quota::QuotaStore) on Redis or Valkey: several processes share one quota.

mod script;
