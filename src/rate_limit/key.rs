//! Scopes as keys of a map that is asked with borrowed names, so that looking one up allocates nothing.

use std::{
    borrow::Borrow,
    hash::{Hash, Hasher},
};

use crate::quota::Scope;

/// A scope in a map.
#[derive(Clone, Debug)]
pub(super) struct Key(pub(super) Scope);

/// Whatever names a scope.
pub(super) trait Named {
    /// The project and the model.
    fn names(&self) -> (&str, &str);
}

impl Named for Key {
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

impl<'a> Borrow<dyn Named + 'a> for Key {
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

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.names().hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.names() == other.names()
    }
}

impl Eq for Key {}
