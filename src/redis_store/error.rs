//! The error of an address with which no store can be made.

use std::{error::Error as StdError, fmt};

/// The reason why no store can be made: an address that is none.
///
/// A server that cannot be reached is no error: the store connects to it when it is there. No message says a password.
///
/// ```
/// use tower_gemini::redis_store::RedisStore;
///
/// let error = RedisStore::builder("http://127.0.0.1:6379").unwrap_err();
/// assert!(error.is_scheme());
/// assert!(error.to_string().contains("redis://"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisStoreError {
    kind: ErrorSort,
    message: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ErrorSort {
    Scheme,
    Address,
}

impl RedisStoreError {
    pub(super) fn address(message: impl Into<Box<str>>) -> Self {
        Self { kind: ErrorSort::Address, message: message.into() }
    }

    pub(super) fn scheme(message: impl Into<Box<str>>) -> Self {
        Self { kind: ErrorSort::Scheme, message: message.into() }
    }

    /// Returns whether the scheme is missing, or is none of a store's.
    pub fn is_scheme(&self) -> bool {
        self.kind == ErrorSort::Scheme
    }

    /// Returns whether what follows the scheme is to blame: the login, a host, a port, or the path.
    pub fn is_address(&self) -> bool {
        self.kind == ErrorSort::Address
    }
}

impl fmt::Display for RedisStoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for RedisStoreError {}
