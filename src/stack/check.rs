//! The checks of a stack's settings: mistakes are found when it is built, not when the first call hangs. Pure.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

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
    warnings.extend(warning_of_thinking(settings));
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

/// Collects the models that the settings name: those with limits of their own, and those of the chains.
fn named_models(settings: &Settings) -> BTreeSet<&str> {
    let mut named = BTreeSet::new();
    if let Wired::Settings(limiter) = &settings.limiter {
        named.extend(limiter.limits_by_model().map(|(model, _)| model));
    }
    if let Wired::Settings(chains) = &settings.fallback {
        named.extend(chains.models());
    }
    named
}

/// The time that slow answers of a model that thinks take.
const THINKING: Duration = Duration::from_secs(120);

/// Warns of models that think for longer than an attempt may take: a call of them would never be answered.
fn warning_of_thinking(settings: &Settings) -> Option<String> {
    let clocks = [("attempt", settings.clocks.attempt), ("first_content", settings.clocks.first_content)];
    let short = clocks.into_iter().filter_map(|(name, limit)| limit.filter(|limit| *limit < THINKING).zip(Some(name)));
    let short: Vec<_> = short.map(|(limit, name)| format!("{name} is {limit:?}")).collect();
    let thinking: Vec<_> = named_models(settings).into_iter().filter(|model| thinks_for_long(model)).collect();
    if short.is_empty() || thinking.is_empty() {
        return None;
    }
    Some(format!(
        "{} but answers of models that think, here {}, take 60 to {} s and would be cut; begin with GeminiLayer::thinking(), set \
         longer clocks, or stream with the thoughts",
        short.join(" and ") + ",",
        thinking.join(", "),
        THINKING.as_secs(),
    ))
}

/// Returns whether a model of this name thinks for a minute or two, as far as names tell: agents, and Pro models from 2.5
/// on. No list says it before it was read from the upstream.
fn thinks_for_long(model: &str) -> bool {
    if model.starts_with("agents/") || model.starts_with("deep-research") {
        return true;
    }
    let Some((version, rest)) = model.strip_prefix("gemini-").and_then(|name| name.split_once('-')) else {
        return false;
    };
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    let (Ok(major), Ok(minor)) = (major.parse::<u32>(), minor.parse::<u32>()) else { return false };
    // Images and speech are drawn and spoken, not thought out.
    let mut words = rest.split('-');
    (major, minor) >= (2, 5) && words.next() == Some("pro") && !words.any(|word| matches!(word, "image" | "tts"))
}

/// Warns of limits whose tokens a minute are fewer than one request may have.
fn warn_of_small_minutes(settings: &Settings, limiter: &LimiterBuilder, warnings: &mut Vec<String>) {
    let Some(models) = settings.precheck.models() else { return };
    for model in named_models(settings) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_think_are_known_by_their_names() {
        for model in
            ["gemini-2.5-pro", "gemini-3-pro-preview", "gemini-3.1-pro", "agents/a", "deep-research-pro-preview"]
        {
            assert!(thinks_for_long(model), "{model}");
        }
        for model in [
            "gemini-2.0-pro-exp",
            "gemini-1.5-pro",
            "gemini-3-pro-image",
            "gemini-2.5-pro-preview-tts",
            "gemini-2.5-flash",
            "gemini-4-argon",
            "gemini-pro-latest",
            "my-model",
        ] {
            assert!(!thinks_for_long(model), "{model}");
        }
    }
}
