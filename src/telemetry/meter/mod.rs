//! The metrics of a record, through the `metrics` facade; without the feature, none.

#[cfg(feature = "metrics")]
mod models;
#[cfg(feature = "metrics")]
mod names;
#[cfg(feature = "metrics")]
mod recorded;
#[cfg(feature = "metrics")]
mod series;
#[cfg(not(feature = "metrics"))]
mod silent;

#[cfg(not(feature = "metrics"))]
pub(super) use self::silent::{NoMeter as RecordMeter, NoMeters as Meters};
#[cfg(feature = "metrics")]
pub(super) use self::{
    models::ModelLabels,
    names::{Instrument, metrics},
    recorded::{Meters, RecordMeter},
};
