//! `[breaker]`: when calls to a model that is down are refused at once, and for how long.

use std::time::Duration;

use tower_gemini::circuit_breaker::{CircuitBreakers, Trip, Window};

use crate::config::{
    toml::{Section, Value},
    values::{boolean, duration},
};

pub(crate) const NAMES: &[&str] = &["enabled", "mode", "open", "max_open"];

/// The defaults of `open` and `max_open`.
const OPEN: Duration = Duration::from_secs(2);
const MAX_OPEN: Duration = Duration::from_secs(10);

/// Reads `[breaker]`. Returns `None` if it is disabled.
pub(crate) fn read(mut section: Section<'_>) -> Option<CircuitBreakers> {
    let enabled = section.get("enabled", boolean).unwrap_or(true);
    if !enabled {
        section.remark_on_effect(&["mode", "open", "max_open"], "enabled is false");
    }
    let trip = section.get("mode", mode).unwrap_or_default();
    let open = section.get_placed("open", duration);
    let max_open = section.get_placed("max_open", duration);

    let place = max_open.as_ref().or(open.as_ref()).map(|(_, place)| place.clone());
    let [least, most] = [(open, OPEN), (max_open, MAX_OPEN)].map(|(set, default)| set.map_or(default, |(set, _)| set));
    if let Some(place) = place.filter(|_| most < least) {
        let [least, most] = [least, most].map(humantime::format_duration);
        section.mistake(place, format!("max_open is {most}, less than open, which is {least}"));
    }
    section.finish();
    let builder = CircuitBreakers::builder().trip(trip).open_duration(least).max_open_duration(most);
    builder.build().ok().filter(|_| enabled)
}

fn mode(value: &Value<'_>) -> Result<Trip, String> {
    const RIGHT: &str = "\"silence\" (nothing succeeds any more), \"failure_rate\" (80 % of 30 s) or \"consecutive\" \
                         (5 in a row)";
    match value.text(RIGHT)? {
        "silence" => Ok(Trip::silence()),
        "failure_rate" => Ok(Trip::failure_rate(0.8, Window::Time(Duration::from_secs(30)))),
        "consecutive" => Ok(Trip::consecutive(5)),
        other => Err(format!("is {other:?}; it is {RIGHT}")),
    }
}
