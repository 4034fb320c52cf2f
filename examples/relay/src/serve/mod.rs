//! Serving: the listener, the way of a call through the relay, and the stack of layers in force.
//!
//! A request comes in by `server`, passes `cors`, is logged by `log`, cleaned by `proxy`, let in by `admission` as a caller that is `known`, and goes through the
//! `stack` that `current` holds at that moment.

mod admission;
mod body_timeout;
mod cors;
mod current;
mod headers;
mod held;
mod known;
mod lift;
mod linger;
mod live;
pub(crate) mod log;
mod path;
mod peer;
mod proxy;
mod refusal;
mod reload;
mod server;
mod signals;
mod stack;
mod transport;
mod unread;
mod uploads;
mod wired;

pub(crate) use self::server::run;
