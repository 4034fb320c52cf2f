//! The settings: a file for each section, the readers of values, and the place from which they come.
//!
//! `source` reads the file, `settings` reads all sections of it, `plan` proves that they fit together. Nothing here
//! serves calls or knows those who do.

mod access;
mod breaker;
mod caller_models;
mod caller_quota;
mod callers;
mod diagnostics;
mod errors;
mod fallback;
mod hidden;
mod keys;
mod limits;
mod memory;
mod model_names;
mod named;
mod operators;
mod origins;
mod plan;
mod precheck;
mod prices;
mod retry;
mod server;
mod settings;
mod source;
pub(crate) mod state;
mod store;
mod store_address;
mod telemetry;
mod timeout;
mod toml;
mod upstream;
mod values;

pub(crate) use self::{
    access::Access,
    callers::{CallerRules, Token},
    origins::Origins,
    plan::{Plan, breaker_layer, builder, caller_layer},
    settings::{Overrides, Settings, Topic},
    source::Source,
    store::{Shares, StoreSettings},
    store_address::StoreAddress,
    telemetry::TelemetrySettings,
    upstream::Upstream,
};
