//! Showing what is going on: `/` for people, `/status` as JSON, `/metrics` for Prometheus.
//!
//! `status` reads the handles into a `view`, and `problems` says what of it is wrong. Nothing here knows the settings or
//! those who serve: all it gets are the handles of the layers, and the last failures.

mod advice;
mod failures;
mod metrics;
mod page;
mod problems;
mod status;
mod view;

pub(crate) use self::{
    failures::{CallerName, Failures},
    status::{PATHS, Shown, router},
};
