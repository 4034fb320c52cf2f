//! How things stand with a handle, in numbers.
//!
//! Layers say what becomes of each call. What no call says (how full a quota is, which breaker is open) stands in the
//! handles, and is asked for from time to time: by [`telemetry::Gauges`](crate::telemetry), or by any program. A handle of
//! your own that is [`Observe`] is reported with the others.
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

/// A handle that can say how things stand.
pub trait Observe {
    /// Says how things stand now, reading by reading.
    fn observe(&self, say: &mut dyn FnMut(Reading<'_>));
}

/// One number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading<'a> {
    /// What is measured, as metrics call it.
    pub name: &'static str,
    /// The number.
    pub value: Value,
    /// The model that it is about; empty where it is about none. Metrics know only so many models by name, and add the
    /// others up.
    pub model: &'a str,
    /// What else it is about: names and values.
    pub labels: &'a [(&'static str, &'a str)],
}

/// The number of a reading.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// So much at the moment.
    Gauge(f64),
    /// So often so far.
    Counter(u64),
}
