//! `[fallback]`: the models that answer in place of one that is down for all callers.
//!
//! ```toml
//! [fallback]
//! "gemini-2.5-pro" = ["gemini-2.5-pro@priority", "gemini-2.5-flash", "gemini-2.5-flash-lite"]
//! "gemini-2.5-pro@flex" = ["gemini-2.5-pro@standard"]    # for calls of the flex tier
//! sticky = "30s"
//! strip = false
//! [fallback.larger]                   # only for a context that is too long
//! "gemma-3-27b-it" = ["gemini-2.5-flash"]
//! ```

use tower_gemini::{
    call::ServiceTier,
    model_fallback::{FallbackChains, FallbackModel, ModelFallbackLayer},
};

use crate::config::{
    model_names::{remark_if_misspelt, remark_if_unknown},
    toml::{Entry, Section},
    values::{ModelName, boolean, duration_or_zero},
};

pub(crate) const NAMES: &[&str] = &["\"gemini-2.5-pro\" or any other model", "sticky", "strip", "larger"];
pub(crate) const LARGER_NAMES: &[&str] = &["\"gemini-2.5-pro\" or any other model"];

/// Reads `[fallback]`.
pub(crate) fn read(mut section: Section<'_>) -> ModelFallbackLayer {
    let rules = ["sticky", "strip"].map(|name| (name, section.place_of(name)));
    let sticky = section.get("sticky", duration_or_zero).unwrap_or(FallbackChains::STICKY);
    let strip = section.get("strip", boolean).unwrap_or(false);
    let larger = section.subsection("larger", "fallback.larger");
    let mut chains = FallbackChains::builder().sticky(sticky).strip(strip);
    let (all, larger) = (lists(&mut section), larger.map_or_else(Vec::new, |mut larger| lists(&mut larger)));
    if all.is_empty() && larger.is_empty() {
        for (name, place) in rules {
            if let Some(place) = place {
                let why = "no model has another one, such as \"gemini-2.5-pro\" = [\"gemini-2.5-flash\"]";
                section.remark_at(place, format!("{name} has no effect: {why}"));
            }
        }
    }
    for (model, next) in all {
        chains = chains.chain(model, next);
    }
    for (model, next) in larger {
        chains = chains.larger(model, next);
    }
    // Every mistake that could stop them has been reported with its place.
    chains.build().map_or_else(|_| ModelFallbackLayer::disabled(), ModelFallbackLayer::new)
}

/// Reads every `"model" = ["next", "the one after"]`.
fn lists(section: &mut Section<'_>) -> Vec<(FallbackModel, Vec<FallbackModel>)> {
    let entries = section.rest();
    entries.into_iter().filter_map(|entry| list(section, entry)).collect()
}

fn list(section: &Section<'_>, entry: Entry<'_>) -> Option<(FallbackModel, Vec<FallbackModel>)> {
    const RIGHT: &str = "a list of models, like [\"gemini-2.5-flash\"]";
    let Entry { name, named_at, value } = entry;
    let is_setting = !name.contains(['-', '.']); // every model's name has one of them
    if let Some(rest) = value.dotted().filter(|_| !is_setting) {
        section.mistake(named_at, format!("a name with dots needs quotes: \"{name}.{rest}\""));
        return None;
    }
    let checked = check(&name);
    let next = match value.texts(RIGHT) {
        Ok(next) => next,
        Err(_) if is_setting => {
            section.mistake(named_at, section.unknown(&name));
            return None;
        }
        Err(mistake) => {
            section.mistake(value.place(), format!("{name}: {mistake}"));
            return None;
        }
    };
    match &checked {
        Err(mistake) => section.mistake(named_at, mistake),
        Ok(()) => remark_if_misspelt(section, named_at, "[fallback]", &name),
    }
    if next.is_empty() {
        section.mistake(value.place(), format!("{name}: is empty; it is {RIGHT}, or take the line out"));
    }
    let asked = FallbackModel::from(&name);
    // In a chain for calls of one tier, a name without a tier means that one.
    let met = |model: &FallbackModel| (model.name().to_owned(), model.tier().or(asked.tier()));
    let mut models = Vec::<FallbackModel>::new();
    for (next, place) in next {
        let mistake = match next.and_then(|next| check(&next).map(|()| FallbackModel::from(next))) {
            Ok(next) if met(&next) == met(&asked) => {
                format!("\"{next}\" is the model itself: a chain never comes back to it")
            }
            Ok(next) if models.iter().any(|known| met(known) == met(&next)) => {
                format!("\"{next}\" is in the list twice")
            }
            Ok(next) => {
                remark_if_unknown(section, place, &name, next.name());
                models.push(next);
                continue;
            }
            Err(mistake) => mistake,
        };
        section.mistake(place, format!("{name}: {mistake}"));
    }
    (checked.is_ok() && !models.is_empty()).then_some((asked, models))
}

/// Checks that a name, with a tier behind it or without, can be a model's in a chain.
fn check(name: &str) -> Result<(), String> {
    if let Some((model, tier)) = name.rsplit_once('@')
        && ServiceTier::from_name(tier).is_none()
        // Vertex AI's versions have numbers or one of these names.
        && !tier.contains(|c: char| c.is_ascii_digit())
        && !matches!(tier, "default" | "latest")
    {
        return Err(format!(
            "{name:?}: {tier:?} is no service tier; it is \"{model}@flex\", \"{model}@priority\" or \"{model}@standard\""
        ));
    }
    match ModelName::of(name) {
        _ if name.starts_with('@') => {
            Err(format!("{name:?} names a tier and no model; it is \"gemini-2.5-flash{name}\""))
        }
        ModelName::Bare => Ok(()),
        ModelName::OfProject => Err(format!("{name:?} is one project's own, and no call is moved from it or to it")),
        ModelName::Prefixed(bare) => Err(format!("{name:?}: a model is named without what stands before it: {bare:?}")),
        ModelName::Malformed => Err(format!("{name:?} is not a model's name; it is one like \"gemini-2.5-flash\"")),
    }
}
