//! `[timeout]`: the four time-outs of a call, and two of the flex tier.

use std::time::Duration;

use tower_gemini::timeout::TimeoutLayer;

use crate::config::{
    toml::Section,
    values::{boolean, duration},
};

pub(crate) const NAMES: &[&str] =
    &["total", "attempt", "first_event", "idle", "adaptive", "flex_total", "flex_first_byte"];

/// The time-outs of a call.
#[derive(Clone, Copy)]
pub(crate) struct Timeouts {
    pub(crate) total: Duration,
    pub(crate) attempt: Duration,
    pub(crate) first_event: Duration,
    pub(crate) idle: Duration,
    /// A flag: an attempt gets less time where the model is seen to be faster, so that there is time for another one.
    pub(crate) adaptive: bool,
    pub(crate) flex_total: Duration,
    pub(crate) flex_first_byte: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            total: TimeoutLayer::TOTAL,
            attempt: TimeoutLayer::ATTEMPT,
            first_event: TimeoutLayer::FIRST_CONTENT,
            idle: TimeoutLayer::IDLE,
            adaptive: true,
            flex_total: TimeoutLayer::FLEX_TOTAL,
            flex_first_byte: TimeoutLayer::FLEX_FIRST_BYTE,
        }
    }
}

/// Reads `[timeout]`.
pub(crate) fn read(mut section: Section<'_>) -> Timeouts {
    let default = Timeouts::default();
    let total = section.get("total", duration).unwrap_or(default.total);
    let attempt = within(&mut section, "attempt", default.attempt, ("total", total));
    // A file that sets the time of an attempt and nothing else means streams as well.
    let first_event = within(&mut section, "first_event", default.first_event.min(attempt), ("total", total));
    let idle = section.get("idle", duration).unwrap_or(default.idle);
    let adaptive = section.get("adaptive", boolean).unwrap_or(default.adaptive);
    // Nobody who has longer times for other calls means shorter ones for those that may wait.
    let flex_total = section.get_placed("flex_total", duration);
    if let Some((flex, place)) = flex_total.as_ref().filter(|(flex, _)| *flex < total) {
        let [flex, total] = [*flex, total].map(humantime::format_duration);
        let remark =
            format!("flex_total is {flex}, less than total, which is {total}: calls that may wait get less time");
        section.remark_at(place.clone(), remark);
    }
    let flex_total = flex_total.map_or(default.flex_total.max(total), |(flex, _)| flex);
    let longest = default.flex_first_byte.max(attempt).max(first_event);
    let flex_first_byte = within(&mut section, "flex_first_byte", longest, ("flex_total", flex_total));
    section.finish();
    Timeouts { total, attempt, first_event, idle, adaptive, flex_total, flex_first_byte }
}

/// Reads a time-out that runs within a `total` one, which is given with its name.
fn within(
    section: &mut Section<'_>,
    name: &'static str,
    default: Duration,
    (total_name, total): (&str, Duration),
) -> Duration {
    let Some((limit, place)) = section.get_placed(name, duration) else { return default.min(total) };
    if limit > total {
        let [shown, total] = [limit, total].map(humantime::format_duration);
        let mistake = format!(
            "{name} is {shown}, longer than {total_name}, which is {total}: it could never run out; make it shorter, or \
             {total_name} longer"
        );
        section.mistake(place, mistake);
    }
    limit
}
