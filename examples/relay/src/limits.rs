//! `[limits]`: how much of each model may be asked, and how a call waits for its turn.
//!
//! `[limits.default]` holds for every model; a model's own table says only what differs. What neither of them says has no
//! limit until the upstream's first refusal names it.

use std::{num::NonZeroU32, ops::Range, time::Duration};

use tower_gemini::{
    quota::Limits,
    rate_limit::{Limiter, LimiterBuilder, Pacing},
};

use crate::{
    settings::duration_or_none,
    toml_file::{Mistakes, Section, Table, Value, distance},
};

/// The name of the table that holds for all models.
const DEFAULT: &str = "default";

/// Reads `[limits]`. `total` is the longest that a call may take at all.
pub(crate) fn read(
    section: Section<'_>,
    total: Duration,
    mistakes: &mut Mistakes,
    remarks: &mut Vec<String>,
) -> LimiterBuilder {
    let mut tables = section.tables("limits.default", mistakes);
    let mut builder = Limiter::builder();
    let mut default = Rules::default();
    if let Some(at) = tables.iter().position(|table| table.name == DEFAULT) {
        default = Rules::read(tables.remove(at).section, &default, mistakes);
        builder = builder.limits(default.limits()).pacing(default.pacing());
        if let Some(wait) = default.max_wait {
            builder = builder.max_wait(wait);
            remark_on(wait, total, "limits.default", remarks);
        }
    }
    for Table { name, named_at, section } in tables {
        if !is_model(&name, &section, named_at, mistakes) {
            continue;
        }
        let own = Rules::read(section, &default, mistakes);
        builder = builder.limits_for(name.as_str(), own.limits()).pacing_for(name.as_str(), own.pacing());
        if let Some(wait) = own.max_wait {
            builder = builder.max_wait_for(name.as_str(), wait);
            if own.max_wait != default.max_wait {
                remark_on(wait, total, &format!("limits.{name:?}"), remarks);
            }
        }
    }
    builder
}

/// What holds for a model.
#[derive(Clone, Copy, Debug, Default)]
struct Rules {
    rpm: Option<u64>,
    tpm: Option<u64>,
    rpd: Option<u64>,
    smooth: bool,
    burst: Option<NonZeroU32>,
    max_wait: Option<Duration>,
}

impl Rules {
    /// What a table says, and for the rest what is inherited.
    fn read(mut section: Section<'_>, inherited: &Self, mistakes: &mut Mistakes) -> Self {
        let rpm = section.get("rpm", limit, mistakes).or(inherited.rpm);
        let tpm = section.get("tpm", limit, mistakes).or(inherited.tpm);
        let rpd = section.get("rpd", limit, mistakes).or(inherited.rpd);
        let smooth = section.get("pacing", is_smooth, mistakes);
        let burst = section.get("burst", |value| Ok((burst(value)?, value.span())), mistakes);
        let max_wait = section.get("max_wait", max_wait, mistakes).or(inherited.max_wait);
        section.finish(mistakes);

        let smooth = smooth.unwrap_or(inherited.smooth);
        if let Some((burst, place)) = &burst {
            if !smooth {
                mistakes.add(
                    place.clone(),
                    "burst: needs pacing = \"smooth\"; with pacing = \"burst\", all that a minute has left may go at once",
                );
            } else if let Some(rpm) = rpm.filter(|rpm| *rpm < u64::from(burst.get())) {
                mistakes.add(place.clone(), format!("burst: is {burst}, more than rpm, which is {rpm}"));
            }
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

/// Whether a table has the name of a model. Which models there are, only the upstream knows.
fn is_model(name: &str, section: &Section<'_>, named_at: Range<usize>, mistakes: &mut Mistakes) -> bool {
    let dotted = section.dotted();
    for (rest, place) in &dotted {
        mistakes.add(place.clone(), format!("a name with dots needs quotes: [limits.\"{name}.{rest}\"]"));
    }
    if !dotted.is_empty() {
        return false;
    }
    if distance(name, DEFAULT) <= 2 {
        mistakes.add(named_at, format!("{name:?} is no model: did you mean [limits.{DEFAULT}]?"));
        return false;
    }
    let bare = match name.rsplit_once('/') {
        Some((collection, _)) if collection.ends_with("tunedModels") || collection.ends_with("endpoints") => name,
        Some((_, bare)) => bare,
        None => name,
    };
    let is_right = |byte: u8| byte.is_ascii_alphanumeric() || b"-._@/".contains(&byte);
    if bare.is_empty() || !bare.bytes().all(is_right) {
        mistakes.add(named_at, format!("{name:?} is no model's name; it is one like \"gemini-2.5-flash\""));
        return false;
    }
    if bare != name {
        mistakes.add(named_at, format!("{name:?}: a model is named without what stands before it: [limits.{bare:?}]"));
        return false;
    }
    true
}

fn remark_on(wait: Duration, total: Duration, table: &str, remarks: &mut Vec<String>) {
    if wait > total {
        let [wait, total] = [wait, total].map(humantime::format_duration);
        remarks
            .push(format!("[{table}] max_wait is {wait}, but no call waits longer than the total time-out, {total}"));
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
    let number_ = u32::try_from(number).ok().and_then(NonZeroU32::new);
    number_.ok_or_else(|| format!("is {number}; it is {RIGHT}"))
}

fn max_wait(value: &Value<'_>) -> Result<Duration, String> {
    match value.integer("") {
        Ok(0) => Err("is a number without a unit; write \"0s\" if nobody is to wait".to_owned()),
        _ => duration_or_none(value),
    }
}
