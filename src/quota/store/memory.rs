//! The store in memory: one quota for several limiters of one process.

use super::{Closing, Correction, Question, QuotaStore, Reply, StoreCharge};
use crate::quota::Scope;

/// A store for several limiters of one process.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {}

impl QuotaStore for MemoryStore {
    fn take(&self, _scope: &Scope, _question: Question) -> Reply {
        todo!()
    }

    fn correct(&self, _scope: &Scope, _charge: StoreCharge, _by: Correction) {}

    fn close(&self, _scope: &Scope, _closing: Closing) {}

    fn open(&self, _scope: &Scope) {}
}
