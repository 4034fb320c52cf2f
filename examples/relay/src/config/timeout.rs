//! `[timeout]`: the four time-outs of a call.

use std::time::Duration;

use tower_gemini::timeout::TimeoutLayer;

use crate::config::{toml::Section, values::duration};

pub(crate) const NAMES: &[&str] = &["total", "attempt", "first_event", "idle"];

/// The time-outs of a call.
#[derive(Clone, Copy)]
pub(crate) struct Timeouts {
    pub(crate) total: Duration,
    pub(crate) attempt: Duration,
    pub(crate) first_event: Duration,
    pub(crate) idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            total: TimeoutLayer::TOTAL,
            attempt: TimeoutLayer::ATTEMPT,
            first_event: TimeoutLayer::FIRST_CONTENT,
            idle: TimeoutLayer::IDLE,
        }
    }
}

/// Reads `[timeout]`.
pub(crate) fn read(mut section: Section<'_>) -> Timeouts {
    let default = Timeouts::default();
    let total = section.get("total", duration).unwrap_or(default.total);
    let attempt = within(&mut section, "attempt", default.attempt, total);
    // A file that sets the time of an attempt and nothing else means streams as well.
    let first_event = within(&mut section, "first_event", default.first_event.min(attempt), total);
    let idle = section.get("idle", duration).unwrap_or(default.idle);
    section.finish();
    Timeouts { total, attempt, first_event, idle }
}

/// Reads a time-out that runs within `total`.
fn within(section: &mut Section<'_>, name: &'static str, default: Duration, total: Duration) -> Duration {
    let Some((limit, place)) = section.get_placed(name, duration) else { return default.min(total) };
    if limit > total {
        let [shown, total] = [limit, total].map(humantime::format_duration);
        let mistake = format!(
            "{name} is {shown}, longer than total, which is {total}: it could never run out; make it shorter, or total \
             longer"
        );
        section.mistake(place, mistake);
    }
    limit
}
