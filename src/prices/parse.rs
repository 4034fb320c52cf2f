//! Reads a list of prices from JSON, with its amounts as exact as they are written.

use std::{collections::HashSet, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Money, Price, Prices};
use crate::{call::ServiceTier, context::ConfigError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceList {
    models: NamedOnce<PriceRow>,
    #[serde(default)]
    tiers: NamedOnce<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceRow {
    input: WrittenMoney,
    output: Option<WrittenMoney>,
    cached_input: Option<WrittenMoney>,
    long: Option<LongRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LongRow {
    above: u64,
    input: WrittenMoney,
    output: Option<WrittenMoney>,
    cached_input: Option<WrittenMoney>,
}

/// The members of an object of which no two have one name: of two prices, the wrong one may be the last.
struct NamedOnce<T>(Vec<(String, T)>);

impl<T> Default for NamedOnce<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for NamedOnce<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(NamedOnceVisitor(PhantomData))
    }
}

/// The visitor of the members.
struct NamedOnceVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for NamedOnceVisitor<T> {
    type Value = NamedOnce<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut seen, mut all) = (HashSet::new(), Vec::new());
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("{name:?} stands there twice")));
            }
            all.push((name, map.next_value()?));
        }
        Ok(NamedOnce(all))
    }
}

/// An amount as it is written, a number or a text: a float would have lost its last digits.
struct WrittenMoney(Money);

impl<'de> Deserialize<'de> for WrittenMoney {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        let bare = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')).unwrap_or(raw);
        bare.parse().map(Self).map_err(D::Error::custom)
    }
}

/// Reads a list.
pub(super) fn parse(text: &str) -> Result<Prices, ConfigError> {
    let PriceList { models, tiers } = serde_json::from_str(text)
        .map_err(|error| ConfigError::new(format!("the list of prices cannot be read: {error}")))?;
    let mut prices = Prices::builder();
    for (name, row) in models.0 {
        prices = prices.model(&name, row.price());
    }
    for (name, percent) in tiers.0 {
        let tier = ServiceTier::from_name(&name).ok_or_else(|| {
            let known = ServiceTier::ALL.map(ServiceTier::as_str).join(", ");
            ConfigError::new(format!("the list of prices names the service tier {name:?}, which is none of {known}"))
        })?;
        prices = prices.tier(tier, percent);
    }
    Ok(prices.build())
}

impl PriceRow {
    fn price(self) -> Price {
        let money = |written: Option<WrittenMoney>| written.map_or(Money::ZERO, |written| written.0);
        let mut price = Price::new(self.input.0, money(self.output));
        if let Some(WrittenMoney(cached)) = self.cached_input {
            price = price.cached_input(cached);
        }
        if let Some(long) = self.long {
            price = price.long(long.above, long.input.0, money(long.output));
            if let Some(WrittenMoney(cached)) = long.cached_input {
                price = price.long_cached_input(cached);
            }
        }
        price
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_exactly_as_they_are_written() {
        let prices = Prices::from_json(r#"{"models": {"m": {"input": 0.1, "output": "0.3"}}}"#).unwrap();
        let price = Price::new(Money::cents(10), Money::cents(30));
        assert_eq!(prices.price("m"), Some(&price));
        let text = r#"{"models": {"e": {"input": "0.15"}}, "tiers": {"FLEX": 40}}"#;
        let prices = Prices::from_json(text).unwrap();
        assert_eq!(prices.cost("e", ServiceTier::Flex, 1_000_000, 0, 5), Money::cents(6));
    }

    #[test]
    fn what_is_no_list_is_refused_with_its_place() {
        for (text, says) in [
            ("", "line 1"),
            ("{}", "missing field `models`"),
            ("{\"models\": {\n\"m\": {\"output\": 1}}}", "missing field `input` at line 2"),
            (r#"{"models": {"m": {"input": -1}}}"#, "\"-1\" is no amount of dollars"),
            (r#"{"models": {"m": {"input": 1e-3}}}"#, "\"1e-3\" is no amount of dollars"),
            (r#"{"models": {"m": {"input": 1, "outptu": 1}}}"#, "unknown field `outptu`"),
            (r#"{"models": {}, "tiers": {"batch": 50}}"#, "standard, flex, priority, deferred"),
            (r#"{"models": {}, "tiers": {"flex": -1}}"#, "line 1"),
            ("{\"models\": {\"m\": {\"input\": 1},\n\"m\": {\"input\": 2}}}", "\"m\" stands there twice at line 2"),
            (r#"{"models": {}, "tiers": {"flex": 50, "flex": 60}}"#, "\"flex\" stands there twice"),
        ] {
            let error = Prices::from_json(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
