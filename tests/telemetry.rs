//! `TelemetryLayer`: its spans and metrics of calls that succeed, that fail, and that are given up, over the emulator and
//! under a paused clock.

mod support;
mod telemetry {
    pub(crate) mod bounds;
    pub(crate) mod conventions;
    pub(crate) mod interactions;
    pub(crate) mod listen;
    pub(crate) mod metrics;
    pub(crate) mod secrets;
    pub(crate) mod spans;
    pub(crate) mod table;
}
