//! Serving: the listener, the way of a call through the relay, and the stack of layers in force.
//!
//! A connection comes in by `server`, and `connection` serves it to its end. `app` leads a request through the rest: it
//! passes `cors`, is logged by `log`, cleaned by `proxy`, let in by `admission` as a caller that is `known`, and goes through
//! the `stack` that `current` holds at that moment.

mod admission;
mod always_ready;
mod app;
mod body_timeout;
mod connection;
mod connection_body;
mod connection_life;
mod connections;
mod cors;
mod current;
mod headers;
mod health_check;
mod held;
mod known;
mod lift;
mod line_text;
mod linger;
mod live;
pub(crate) mod log;
mod operators;
mod owners;
mod path;
mod peer;
mod proxy;
mod refusal;
mod reload;
mod server;
mod signals;
mod stack;
mod state;
mod store;
mod transport;
mod unread;
mod uploads;
mod watched_io;
mod wired;

pub(crate) use self::{health_check::health_check, server::run};
