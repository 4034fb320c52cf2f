//! Showing what is going on: `/` for people, `/status` as JSON, `/metrics` for Prometheus.
//!
//! `status` reads the handles into a `view`, `state` says of each model how it is, and `problems` what is wrong; `history`
//! counts the calls of the last hour. Nothing here knows the settings or those who serve: all it gets are the handles of
//! the layers, and the last failures.

mod advice;
mod call_news;
mod failures;
mod history;
mod kept;
mod metrics;
mod model;
mod page;
mod parked;
mod problems;
mod record;
mod reloads;
mod state;
mod status;
mod store;
mod view;

pub(crate) use self::{
    call_news::CallNews,
    failures::Failures,
    record::RecordFailures,
    reloads::Reloads,
    status::{PATHS, Shown, router},
    store::ShownStore,
};
