//! `[prices]`: the money that models cost, in dollars for a million tokens. The relay knows no prices of its own.
//!
//! ```toml
//! [prices]
//! "gemini-2.5-flash" = { input = 0.3, output = 2.5, cached = 0.075 }
//! ```

use crate::config::{
    toml::{NamedTable, Section},
    values::{ModelName, Money, money},
};

pub(crate) const NAMES: &[&str] = &["\"gemini-2.5-flash\" or any other model"];
pub(crate) const MODEL_NAMES: &[&str] = &["input", "output", "cached"];

/// The prices of models, for a million tokens each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PriceList(pub(crate) Vec<(String, ModelPrice)>);

/// The price of a model, for a million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ModelPrice {
    pub(crate) input: Money,
    pub(crate) output: Money,
    /// The price of input that a cache has. `None`: that of other input.
    pub(crate) cached: Option<Money>,
}

/// Reads `[prices]`.
pub(crate) fn read(section: Section<'_>) -> PriceList {
    let tables = section.tables("prices.model");
    PriceList(tables.into_iter().filter_map(price).collect())
}

fn price(table: NamedTable<'_>) -> Option<(String, ModelPrice)> {
    let NamedTable { name, named_at, mut section } = table;
    let dotted = section.dotted();
    if !dotted.is_empty() {
        for (rest, place) in dotted {
            section.mistake(place, format!("a name with dots needs quotes: [prices.\"{name}.{rest}\"]"));
        }
        return None;
    }
    let right = "dollars for a million tokens, like 0.3";
    let input = section.require_placed("input", right, money);
    let output = section.require_placed("output", right, money);
    let cached = section.get_placed("cached", money);
    let bare = name.strip_prefix("agents/").unwrap_or(&name);
    let mistake = match ModelName::of(bare) {
        ModelName::Bare | ModelName::OfProject => None,
        ModelName::Prefixed(bare) => {
            Some(format!("{name:?}: a model is named without what stands before it: {bare:?}"))
        }
        ModelName::Malformed => Some(format!("{name:?} is not a model's name; it is one like \"gemini-2.5-flash\"")),
    };
    if let Some(mistake) = mistake {
        section.mistake(named_at, mistake);
    }
    let price = match (input, output) {
        (Some((input, _)), Some((output, _))) => {
            if let Some((cached, place)) = cached.as_ref().filter(|(cached, _)| *cached > input) {
                section.mistake(place.clone(), format!("cached: is {cached}, more than input, which is {input}"));
            }
            Some(ModelPrice { input, output, cached: cached.map(|(cached, _)| cached) })
        }
        _ => None,
    };
    section.finish();
    Some((name, price?))
}
