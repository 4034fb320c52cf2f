//! What goes to the `metrics` facade, where the feature is on.

#[cfg(feature = "metrics")]
mod models;
#[cfg(feature = "metrics")]
mod names;
#[cfg(feature = "metrics")]
mod recorded;
#[cfg(not(feature = "metrics"))]
mod silent;

#[cfg(not(feature = "metrics"))]
pub(super) use self::silent::{Meter, Meters};
#[cfg(feature = "metrics")]
pub(super) use self::{
    models::Models,
    names::{METRICS, Type},
    recorded::{Meter, Meters},
};
