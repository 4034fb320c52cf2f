//! The current state of a handle, in numbers.
//!
//! Layers report what becomes of each call. What no call tells (how full a quota is, which breaker is open) stands in
//! the handles, and is read from time to time: by [`telemetry::Gauges`](crate::telemetry), or by any program. A handle
//! of your own that implements [`Observe`] is reported with the others.
//!
//! ```
//! use tower_gemini::{observe::{Observe, Value}, quota::{Limits, Scope}, rate_limit::Limiter};
//!
//! let limiter = Limiter::new();
//! let mut open = 0.0;
//! limiter.observe(&mut |reading| {
//!     if let ("tower_gemini.limit.waiting", Value::Gauge(waiting)) = (reading.name, reading.value) {
//!         open += waiting;
//!     }
//! });
//! assert_eq!(open, 0.0);
//! ```

/// A handle that reports its current state.
pub trait Observe {
    /// Reports the current state, reading by reading.
    fn observe(&self, say: &mut dyn FnMut(Reading<'_>));
}

/// One number of a handle's state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading<'a> {
    /// The metric's name.
    pub name: &'static str,
    /// The number.
    pub value: Value,
    /// The model that the number is about; empty where it is about none. Metrics know a bounded number of models by
    /// name, and add up the others.
    pub model: &'a str,
    /// More labels: names and values.
    pub labels: &'a [(&'static str, &'a str)],
}

/// The number of a reading.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A level that rises and falls.
    Gauge(f64),
    /// A count that only grows.
    Counter(u64),
}
