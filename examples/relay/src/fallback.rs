//! `[fallback]`: which models answer in place of one that fails for everybody.
//!
//! ```toml
//! [fallback]
//! "gemini-2.5-pro" = ["gemini-2.5-flash", "gemini-2.5-flash-lite"]
//! sticky = "30s"
//! strip = false
//! [fallback.larger]                   # only where the context is too long
//! "gemma-3-27b-it" = ["gemini-2.5-flash"]
//! ```

use tower_gemini::model_fallback::{FallbackChains, ModelFallbackLayer};

use crate::{
    settings::{boolean, duration_or_none},
    toml_file::{Entry, Mistakes, Section},
};

/// Reads `[fallback]`.
pub(crate) fn read(mut section: Section<'_>, mistakes: &mut Mistakes) -> ModelFallbackLayer {
    let sticky = section.get("sticky", duration_or_none, mistakes).unwrap_or(FallbackChains::STICKY);
    let strip = section.get("strip", boolean, mistakes).unwrap_or(false);
    let larger = section.subsection("larger", "fallback.larger", mistakes);
    let mut chains = FallbackChains::builder().sticky(sticky).strip(strip);
    for (model, next) in lists(section, mistakes) {
        chains = chains.chain(model, next);
    }
    for (model, next) in larger.map_or_else(Vec::new, |section| lists(section, mistakes)) {
        chains = chains.larger(model, next);
    }
    // What could be wrong with them has been complained of, with its place.
    chains.build().map_or_else(|_| ModelFallbackLayer::disabled(), ModelFallbackLayer::new)
}

/// `"model" = ["next", "the one after"]`, as often as there are.
fn lists(mut section: Section<'_>, mistakes: &mut Mistakes) -> Vec<(String, Vec<String>)> {
    let entries = section.rest();
    entries.into_iter().filter_map(|entry| list(&section, entry, mistakes)).collect()
}

fn list(section: &Section<'_>, entry: Entry<'_>, mistakes: &mut Mistakes) -> Option<(String, Vec<String>)> {
    const RIGHT: &str = "a list of models, like [\"gemini-2.5-flash\"]";
    let Entry { name, named_at, value } = entry;
    let is_setting = !name.contains(['-', '.']); // as no model's name is
    if let Some(rest) = value.dotted().filter(|_| !is_setting) {
        mistakes.add(named_at, format!("a name with dots needs quotes: \"{name}.{rest}\""));
        return None;
    }
    let named_right = model(&name);
    let next = match value.texts(RIGHT) {
        Ok(next) => next,
        Err(_) if is_setting => {
            mistakes.add(named_at, section.unknown(&name));
            return None;
        }
        Err(what) => {
            mistakes.add(value.span(), format!("{name}: {what}"));
            return None;
        }
    };
    if let Err(what) = &named_right {
        mistakes.add(named_at, what);
    }
    if next.is_empty() {
        mistakes.add(value.span(), format!("{name}: is empty; it is {RIGHT}, or take the line out"));
    }
    let mut models = Vec::<String>::new();
    for (place, next) in next {
        let what = match next.and_then(|next| model(&next).map(|()| next)) {
            Ok(next) if next == name => format!("{next:?} is the model itself: a chain never comes back to it"),
            Ok(next) if models.contains(&next) => format!("{next:?} is in the list twice"),
            Ok(next) => {
                models.push(next);
                continue;
            }
            Err(what) => what,
        };
        mistakes.add(place, format!("{name}: {what}"));
    }
    (named_right.is_ok() && !models.is_empty()).then_some((name, models))
}

/// Which models there are, only the upstream knows; how one is called is clear.
fn model(name: &str) -> Result<(), String> {
    let is_right = |byte: u8| byte.is_ascii_alphanumeric() || b"-._@".contains(&byte);
    match name.rsplit_once('/') {
        Some((collection, _)) if collection.ends_with("tunedModels") || collection.ends_with("endpoints") => {
            Err(format!("{name:?} is one project's own, and no call is moved from it or to it"))
        }
        Some((_, bare)) => Err(format!("{name:?}: a model is named without what stands before it: {bare:?}")),
        None if name.is_empty() || !name.bytes().all(is_right) => {
            Err(format!("{name:?} is no model's name; it is one like \"gemini-2.5-flash\""))
        }
        None => Ok(()),
    }
}
