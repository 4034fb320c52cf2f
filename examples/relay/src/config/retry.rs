//! `[retry]`: how often a failed call is tried again, and how long it waits before that.

use std::time::Duration;

use tower_gemini::retry::{Cause, OnOpen, RetryBudget, RetryPolicy, Rule};

use crate::config::{
    toml::{Section, Value},
    values::{boolean, duration},
};

pub(crate) const NAMES: &[&str] = &["max_attempts", "persistent", "base_delay", "max_delay", "on_open"];

/// The most attempts, the first one included. While few calls come, an outage of minutes takes that many until the breaker
/// knows of it.
const ATTEMPTS: u32 = 20;

/// The retries, and the budget that all calls share.
#[derive(Clone, Debug)]
pub(crate) struct Retries {
    pub(crate) policy: RetryPolicy,
    /// The most retries of a model at once, before one has to wait for the next.
    pub(crate) budget: u32,
}

impl Default for Retries {
    fn default() -> Self {
        // As many time-outs as the total one leaves room for.
        let policy = RetryPolicy::default().max_attempts(ATTEMPTS).on(Cause::Timeout, Rule::unlimited());
        Self { policy, budget: RetryBudget::PERSISTENT_CAPACITY }
    }
}

/// Reads `[retry]`.
pub(crate) fn read(mut section: Section<'_>) -> Retries {
    let persistent_at = section.place_of("persistent");
    let persistent = section.get("persistent", boolean).unwrap_or(false);
    let Retries { mut policy, budget } = match persistent {
        true => Retries { policy: RetryPolicy::persistent(), budget: RetryBudget::PERSISTENT_CAPACITY },
        false => Retries::default(),
    };
    let max_attempts = section.get("max_attempts", attempts);
    if max_attempts == Some(1) {
        section.remark_on_effect(&["base_delay", "max_delay"], "max_attempts is 1, and so nothing is tried again");
        if persistent {
            let remark = "persistent has no effect: max_attempts is 1, and so nothing is tried again";
            section.remark_at(persistent_at.unwrap_or_else(|| section.place()), remark);
        }
    }
    if let Some(attempts) = max_attempts {
        policy = policy.max_attempts(attempts);
    }
    let base = section.get_placed("base_delay", duration);
    let max = section.get_placed("max_delay", duration);
    if let Some((_, place)) = max.as_ref().or(base.as_ref()) {
        let least = base.as_ref().map_or(Duration::from_millis(500), |(base, _)| *base);
        let default = Duration::from_secs(if persistent { 8 } else { 20 });
        let most = max.as_ref().map_or(default, |(max, _)| *max);
        if most < least {
            let [least, most] = [least, most].map(humantime::format_duration);
            let mistake = format!("max_delay is {most}, less than base_delay, which is {least}");
            section.mistake(place.clone(), mistake);
        }
    }
    if let Some((base, _)) = base {
        policy = policy.base_delay(base);
    }
    if let Some((max, _)) = max {
        policy = policy.max_delay(max);
    }
    if let Some(on_open) = section.get("on_open", on_open) {
        policy = policy.on_open(on_open);
    }
    section.finish();
    Retries { policy, budget }
}

fn attempts(value: &Value<'_>) -> Result<u32, String> {
    const RIGHT: &str = "a whole number from 1, the first attempt included, like 20";
    match value.integer(RIGHT)? {
        number @ 1.. => u32::try_from(number).map_err(|_| format!("{number} is too many; it is {RIGHT}")),
        number => Err(format!("is {number}; it is {RIGHT}")),
    }
}

fn on_open(value: &Value<'_>) -> Result<OnOpen, String> {
    const RIGHT: &str = "\"wait\" (for the circuit to close or the limiter to admit, within the deadline) or \"fail\"";
    match value.text(RIGHT)? {
        "wait" => Ok(OnOpen::Wait),
        "fail" => Ok(OnOpen::Fail),
        other => Err(format!("is {other:?}; it is {RIGHT}")),
    }
}
