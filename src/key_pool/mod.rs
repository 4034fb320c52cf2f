//! Many keys, of many projects, as one.

mod api_key;
mod body;
mod future;
mod health;
mod key;
mod layer;
mod owners;
mod place;
mod pool;
mod react;
mod refusal;
mod report;
mod roster;
mod service;
mod strip;
mod upkeep;

pub use self::{
    api_key::{ApiKey, Fingerprint},
    body::KeyPoolBody,
    future::ResponseFuture,
    key::{Credential, Key},
    layer::KeyPoolLayer,
    pool::{KeyPool, KeyPoolBuilder},
    report::{DisabledReason, KeyReport, KeyState, ModelReport},
    service::Keyed,
};

/// The room's name in errors.
const NAME: &str = "key_pool";
