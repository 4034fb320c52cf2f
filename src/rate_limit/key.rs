//! Scopes as keys of a map that is looked up by borrowed names, so that a lookup allocates nothing.

use std::{
    borrow::Borrow,
    hash::{Hash, Hasher},
};

use crate::quota::Scope;

/// A scope as the key of a map.
#[derive(Clone, Debug)]
pub(super) struct ScopeKey(pub(super) Scope);

/// Anything that names a scope: a scope, a key, or a pair of borrowed names.
pub(super) trait Named {
    /// Returns the project and the model.
    fn names(&self) -> (&str, &str);
}

impl Named for ScopeKey {
    fn names(&self) -> (&str, &str) {
        self.0.names()
    }
}

impl Named for Scope {
    fn names(&self) -> (&str, &str) {
        (self.project(), self.model())
    }
}

impl Named for (&str, &str) {
    fn names(&self) -> (&str, &str) {
        *self
    }
}

impl<'a> Borrow<dyn Named + 'a> for ScopeKey {
    fn borrow(&self) -> &(dyn Named + 'a) {
        self
    }
}

impl Hash for dyn Named + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.names().hash(state);
    }
}

impl PartialEq for dyn Named + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.names() == other.names()
    }
}

impl Eq for dyn Named + '_ {}

impl Hash for ScopeKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.names().hash(state);
    }
}

impl PartialEq for ScopeKey {
    fn eq(&self, other: &Self) -> bool {
        self.names() == other.names()
    }
}

impl Eq for ScopeKey {}
