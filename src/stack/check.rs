//! The checks of a stack's settings: mistakes are found when it is built, not when the first call hangs. Pure.

use std::collections::{BTreeSet, HashMap};

use super::settings::{Settings, Wired};
use crate::{context::ConfigError, quota::Dimension, rate_limit::LimiterBuilder};

/// Refuses settings that could never work.
pub(super) fn refuse(settings: &Settings) -> Result<(), ConfigError> {
    let clocks = settings.clocks;
    let inner = [("attempt", clocks.attempt), ("first_content", clocks.first_content), ("idle", clocks.idle)];
    let flex = [("flex_total", clocks.flex.total), ("flex_first_byte", clocks.flex.first_byte)];
    for (name, limit) in inner.into_iter().chain([("total", clocks.total)]).chain(flex) {
        if limit.is_some_and(|limit| limit.is_zero()) {
            let message =
                format!("{name} is 0 s: every call would end before it begins; give it the time of a slow answer");
            return Err(ConfigError::new(message));
        }
    }
    for (name, limit) in &inner[..2] {
        if let (Some(limit), Some(total)) = (limit, clocks.total)
            && *limit > total
        {
            let message = format!(
                "{name} is {limit:?}, longer than total, which is {total:?}: the total clock would end every call before \
                 an attempt could be given up for another; make total longer or {name} shorter"
            );
            return Err(ConfigError::new(message));
        }
    }
    if let (Some(limit), Some(total)) = (clocks.flex.first_byte, clocks.total(true, None))
        && limit > total
    {
        let message = format!(
            "flex_first_byte is {limit:?}, longer than the flex tier's total, which is {total:?}; make flex_total longer or \
             flex_first_byte shorter"
        );
        return Err(ConfigError::new(message));
    }
    if let Wired::Settings(limiter) = &settings.limiter {
        for (whose, limits) in limiter.all_limits() {
            for dimension in [Dimension::RequestsPerMinute, Dimension::InputTokensPerMinute, Dimension::RequestsPerDay]
            {
                if limits.get(dimension) == Some(0) {
                    let message = format!(
                        "the limit for {whose} is 0 {dimension}: no call would ever be sent; leave it out, and it is \
                         learned from the upstream's refusals"
                    );
                    return Err(ConfigError::new(message));
                }
            }
        }
    }
    Ok(())
}

/// Collects the warnings: settings that are possible, but may surprise.
pub(super) fn warn(settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Wired::Settings(limiter) = &settings.limiter {
        if let Some(total) = settings.clocks.total.filter(|total| limiter.longest_wait() > *total) {
            warnings.push(format!(
                "max_wait is {:?}, but no call waits longer than the total clock, {total:?}; make max_wait shorter or total longer",
                limiter.longest_wait()
            ));
        }
        warn_of_small_minutes(settings, limiter, &mut warnings);
    }
    if let Wired::Settings(keys) = &settings.keys {
        let mut of_project: HashMap<&str, usize> = HashMap::new();
        for project in keys.projects() {
            *of_project.entry(project).or_default() += 1;
        }
        let mut shared: Vec<_> = of_project.into_iter().filter(|(_, keys)| *keys > 1).collect();
        shared.sort_unstable();
        for (project, keys) in shared {
            warnings.push(format!(
                "{keys} keys are of project {project}: they share one quota, so that more of them help only when one is refused; \
                 add keys of other projects for more quota"
            ));
        }
    }
    warnings
}

/// Warns of limits whose tokens a minute are fewer than one request may have.
fn warn_of_small_minutes(settings: &Settings, limiter: &LimiterBuilder, warnings: &mut Vec<String>) {
    let Some(models) = settings.precheck.models() else { return };
    let chained = match &settings.fallback {
        Wired::Settings(chains) => chains.models().collect(),
        Wired::Layer(_) => Vec::new(),
    };
    // Every model that the settings name, each with the limit that holds for it.
    let named: BTreeSet<&str> = limiter.limits_by_model().map(|(model, _)| model).chain(chained).collect();
    for model in named {
        let tokens = limiter.limits_of_model(model).get(Dimension::InputTokensPerMinute);
        if let (Some(tokens), Some(context)) = (tokens, models.effective_input_limit(model))
            && tokens < context.tokens
        {
            warnings.push(format!(
                "{model} has {tokens} input tokens a minute, and takes {} in one request: longer requests than a minute's \
                 quota are refused here, because they would never be admitted",
                context.tokens
            ));
        }
    }
}
