//! `[prices]`: the money that models cost, in dollars for a million tokens. The relay knows no prices of its own.
//!
//! ```toml
//! [prices]
//! "gemini-2.5-pro" = { input = 1.25, output = 10, cached = 0.125, long = { above = 200000, input = 2.5, output = 15 } }
//! "gemini-2.5-flash*" = { input = 0.3, output = 2.5 }
//! ```

use tower_gemini::prices::{Money, Price, Prices};

use crate::config::{
    model_names::remark_if_misspelt,
    toml::{NamedTable, Section, Value},
    values::{ModelName, money},
};

pub(crate) const NAMES: &[&str] = &["\"gemini-2.5-flash\" or any other model"];
pub(crate) const MODEL_NAMES: &[&str] = &["input", "output", "cached", "long"];
pub(crate) const LONG_NAMES: &[&str] = &["above", "input", "output", "cached"];

/// Reads `[prices]`.
pub(crate) fn read(section: Section<'_>) -> Prices {
    let tables = section.tables("prices.model");
    let priced = tables.into_iter().filter_map(price);
    priced.fold(Prices::builder(), |prices, (name, price)| prices.model(&name, price)).build()
}

fn price(table: NamedTable<'_>) -> Option<(String, Price)> {
    let NamedTable { name, named_at, section } = table;
    // The names of models have dots, so that they are shown as they can always be written.
    let mut section = section.titled(format!("[prices.{name:?}]"));
    let long = section.subsection("long", "prices.model.long");
    let dotted = section.dotted();
    if !dotted.is_empty() {
        for (rest, place) in dotted {
            section.mistake(place, format!("a name with dots needs quotes: [prices.\"{name}.{rest}\"]"));
        }
        return None;
    }
    if let Err(mistake) = ModelName::or_beginning(&name) {
        section.mistake(named_at.clone(), mistake);
    }
    remark_if_misspelt(&section, named_at, "[prices]", &name);
    let rates = Rates::read(&mut section);
    let long = long.and_then(read_long);
    section.finish();
    let Rates { input, output, cached } = rates?;
    let mut price = Price::new(input, output);
    if let Some(cached) = cached {
        price = price.cached_input(cached);
    }
    if let Some((above, Rates { input, output, cached })) = long {
        price = price.long(above, input, output);
        if let Some(cached) = cached {
            price = price.long_cached_input(cached);
        }
    }
    Some((name, price))
}

/// Reads the price of calls with many input tokens, and their number.
fn read_long(mut section: Section<'_>) -> Option<(u64, Rates)> {
    let above = section.require_placed("above", "a number of input tokens, like 200000", tokens);
    let rates = Rates::read(&mut section);
    section.finish();
    Some((above?.0, rates?))
}

struct Rates {
    input: Money,
    output: Money,
    cached: Option<Money>,
}

impl Rates {
    fn read(section: &mut Section<'_>) -> Option<Self> {
        const RIGHT: &str = "dollars for a million tokens, like 0.3";
        let input = section.require_placed("input", RIGHT, money);
        let output = section.require_placed("output", RIGHT, money);
        let cached = section.get_placed("cached", money);
        let ((input, _), (output, _)) = (input?, output?);
        if let Some((cached, place)) = cached.as_ref().filter(|(cached, _)| *cached > input) {
            section.mistake(place.clone(), format!("cached: is {cached}, more than input, which is {input}"));
        }
        Some(Self { input, output, cached: cached.map(|(cached, _)| cached) })
    }
}

fn tokens(value: &Value<'_>) -> Result<u64, String> {
    const RIGHT: &str = "a whole number of tokens, like 200000";
    let number = value.integer(RIGHT)?;
    u64::try_from(number).map_err(|_| format!("is {number}; it is {RIGHT}"))
}
