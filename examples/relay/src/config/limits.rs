//! `[limits]`: the quota of each model, and how a call waits for its turn.
//!
//! `[limits.default]` holds for every model; a model's own table says only what differs. A limit that neither of them
//! sets is unknown until the upstream's first refusal names it.

use std::{num::NonZeroU32, time::Duration};

use tower_gemini::{
    quota::Limits,
    rate_limit::{Limiter, LimiterBuilder, Pacing},
};

use crate::config::{
    diagnostics::Place,
    model_names::remark_if_misspelt,
    toml::{NamedTable, Section, Value, distance},
    values::{ModelName, duration_or_zero},
};

pub(crate) const NAMES: &[&str] = &[DEFAULT, "\"gemini-2.5-flash\" or any other model"];
pub(crate) const TABLE_NAMES: &[&str] = &["rpm", "tpm", "rpd", "pacing", "burst", "max_wait"];

/// The name of the table that holds for all models.
const DEFAULT: &str = "default";

/// Returns the limits of a file without `[limits]`: all are learned, and calls wait for their turn until their deadline.
pub(crate) fn usual() -> LimiterBuilder {
    Limiter::builder().wait_until_deadline()
}

/// Reads `[limits]`. `total_timeout` is the longest time that a call may take at all.
pub(crate) fn read(section: Section<'_>, total_timeout: Duration) -> LimiterBuilder {
    let mut tables = section.tables("limits.default");
    let mut builder = usual();
    let mut default = ModelRules::default();
    if let Some(at) = tables.iter().position(|table| table.name == DEFAULT) {
        let NamedTable { mut section, .. } = tables.remove(at);
        let default_at = section.place_of("max_wait");
        default = ModelRules::read(&mut section, &default);
        builder = builder.limits(default.limits()).pacing(default.pacing());
        if let Some(wait) = default.max_wait {
            builder = builder.max_wait(wait);
            remark_on_wait(&section, default_at, "limits.default", wait, total_timeout);
        }
        section.finish();
    }
    for NamedTable { name, named_at, mut section } in tables.into_iter().filter(is_model) {
        remark_if_misspelt(&section, named_at, "[limits]", &name);
        let wait_at = section.place_of("max_wait");
        let own = ModelRules::read(&mut section, &default);
        builder = builder.limits_for(name.as_str(), own.limits()).pacing_for(name.as_str(), own.pacing());
        if let Some(wait) = own.max_wait {
            builder = builder.max_wait_for(name.as_str(), wait);
            if own.max_wait != default.max_wait {
                remark_on_wait(&section, wait_at, &format!("limits.{name:?}"), wait, total_timeout);
            }
        }
        section.finish();
    }
    builder
}

/// The rules for a model.
#[derive(Clone, Copy, Debug, Default)]
struct ModelRules {
    rpm: Option<u64>,
    tpm: Option<u64>,
    rpd: Option<u64>,
    smooth: bool,
    burst: Option<NonZeroU32>,
    max_wait: Option<Duration>,
}

impl ModelRules {
    /// Reads a table, which inherits the rules that it does not set.
    fn read(section: &mut Section<'_>, inherited: &Self) -> Self {
        let of_minute = section.get_placed("rpm", limit);
        let rpm = of_minute.as_ref().map(|(rpm, _)| *rpm).or(inherited.rpm);
        let tpm = section.get("tpm", limit).or(inherited.tpm);
        let of_day = section.get_placed("rpd", limit);
        let rpd = of_day.as_ref().map(|(rpd, _)| *rpd).or(inherited.rpd);
        if let (Some(rpm), Some(rpd)) = (rpm, rpd)
            && rpm > rpd
            && let Some((_, place)) = of_minute.as_ref().or(of_day.as_ref())
        {
            section.remark_at(place.clone(), format!("rpm has no effect: it is {rpm}, more than rpd, which is {rpd}"));
        }
        let smooth = section.get("pacing", is_smooth).unwrap_or(inherited.smooth);
        let burst = section.get_placed("burst", burst);
        let max_wait = section.get("max_wait", max_wait).or(inherited.max_wait);
        if let Some((burst, place)) = &burst {
            if !smooth {
                section.mistake(
                    place.clone(),
                    "burst: needs pacing = \"smooth\"; with pacing = \"burst\", all that a minute has left may go at once",
                );
            } else if let Some(rpm) = rpm.filter(|rpm| *rpm < u64::from(burst.get())) {
                section.mistake(place.clone(), format!("burst: is {burst}, more than rpm, which is {rpm}"));
            }
        }
        // A burst that another table sets is no mistake of this one's, unless this one's own minute is too small for it.
        if let (None, Some(burst), Some((rpm, place)), true) = (&burst, inherited.burst, &of_minute, smooth)
            && *rpm < u64::from(burst.get())
        {
            let mistake =
                format!("rpm: is {rpm}, less than burst, which is {burst} in [limits.default]; set burst here, too");
            section.mistake(place.clone(), mistake);
        }
        let burst = burst.map(|(burst, _)| burst).or(inherited.burst);
        Self { rpm, tpm, rpd, smooth, burst, max_wait }
    }

    fn limits(&self) -> Limits {
        let mut limits = Limits::new();
        if let Some(rpm) = self.rpm {
            limits = limits.requests_per_minute(rpm);
        }
        if let Some(tpm) = self.tpm {
            limits = limits.input_tokens_per_minute(tpm);
        }
        if let Some(rpd) = self.rpd {
            limits = limits.requests_per_day(rpd);
        }
        limits
    }

    fn pacing(&self) -> Pacing {
        match self.smooth {
            true => Pacing::Smooth { burst: self.burst.unwrap_or(NonZeroU32::MIN) },
            false => Pacing::Burst,
        }
    }
}

/// Returns whether a table has the name of a model, and reports what is wrong with the name otherwise.
fn is_model(table: &NamedTable<'_>) -> bool {
    let NamedTable { name, named_at, section } = table;
    let dotted = section.dotted();
    if !dotted.is_empty() {
        for (rest, place) in dotted {
            section.mistake(place, format!("a name with dots needs quotes: [limits.\"{name}.{rest}\"]"));
        }
        return false;
    }
    let mistake = match ModelName::of(name) {
        _ if distance(name, DEFAULT) <= 2 => format!("{name:?} is not a model: did you mean [limits.{DEFAULT}]?"),
        ModelName::Bare | ModelName::OfProject => return true,
        ModelName::Prefixed(bare) => {
            format!("{name:?}: a model is named without what stands before it: [limits.{bare:?}]")
        }
        ModelName::Malformed => format!("{name:?} is not a model's name; it is one like \"gemini-2.5-flash\""),
    };
    section.mistake(named_at.clone(), mistake);
    false
}

fn remark_on_wait(section: &Section<'_>, place: Option<Place>, table: &str, wait: Duration, total: Duration) {
    if wait > total {
        let [wait, total] = [wait, total].map(humantime::format_duration);
        let remark = format!("[{table}] max_wait is {wait}, but no call waits longer than the total time-out, {total}");
        section.remark_at(place.unwrap_or_else(|| section.place()), remark);
    }
}

fn limit(value: &Value<'_>) -> Result<u64, String> {
    const RIGHT: &str = "a whole number from 1, like 30";
    match value.integer(RIGHT)? {
        0 => Err(format!(
            "is 0, and so no call would ever go; it is {RIGHT}, or take the line out, and the limit is learned from the \
             upstream's refusals"
        )),
        number => u64::try_from(number).map_err(|_| format!("is {number}; it is {RIGHT}")),
    }
}

fn is_smooth(value: &Value<'_>) -> Result<bool, String> {
    const RIGHT: &str = "\"burst\" (as soon as there is room) or \"smooth\" (evenly, after a first `burst`)";
    match value.text(RIGHT)? {
        "burst" => Ok(false),
        "smooth" => Ok(true),
        other => Err(format!("is {other:?}; it is {RIGHT}")),
    }
}

fn burst(value: &Value<'_>) -> Result<NonZeroU32, String> {
    const RIGHT: &str = "how many may go at once before the even pace begins: a whole number from 1, like 5";
    let number = value.integer(RIGHT)?;
    let burst = u32::try_from(number).ok().and_then(NonZeroU32::new);
    burst.ok_or_else(|| format!("is {number}; it is {RIGHT}"))
}

fn max_wait(value: &Value<'_>) -> Result<Duration, String> {
    match value.integer("") {
        Ok(0) => Err("is a number without a unit; write \"0s\" if no call is to wait".to_owned()),
        _ => duration_or_zero(value),
    }
}
