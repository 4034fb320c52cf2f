//! The prices of tokens, as data: what a call costs, in exact money.
//!
//! Prices change and differ by contract, so that this crate has no list of its own: a program gives one, by a
//! [builder](Prices::builder) or as [JSON](Prices::from_json). Sums are whole numbers of a millionth of a micro-dollar, which
//! is a micro-dollar a million tokens for one token: nothing is rounded on the way.
//!
//! ```
//! use tower_gemini::{call::ServiceTier, prices::{Money, Prices}};
//!
//! // The numbers are made up.
//! let prices = Prices::from_json(r#"{
//!     "models": {
//!         "model-a": {
//!             "input": "1.25", "output": "10", "cached_input": "0.25",
//!             "long": {"above": 200000, "input": "2.50", "output": "15"}
//!         },
//!         "model-b-*": {"input": 0.10, "output": 0.40}
//!     },
//!     "tiers": {"flex": 50}
//! }"#)?;
//! let price = prices.price("model-a").unwrap();
//! assert_eq!(price.cost(1_000_000, 0, 0), "2.50".parse::<Money>()?, "more than 200,000 input tokens cost more");
//! assert_eq!(price.cost(100_000, 100_000, 1_000), "0.035".parse::<Money>()?, "all of the input was cached");
//! assert_eq!(prices.cost("model-b-001", ServiceTier::Flex, 1_000, 0, 1_000).to_string(), "$0.00025");
//! # Ok::<_, tower_gemini::ConfigError>(())
//! ```
//!
//! # What is not in it
//!
//! One price of a model holds for tokens of all modalities: where they differ, the dearest is the safe one. The upstream
//! charges for more than tokens (searches, the storage of caches, seconds of video), which no answer tells.

mod money;
mod parse;

use std::collections::HashMap;

pub use self::money::Money;
use crate::{call::ServiceTier, context::ConfigError};

/// The tokens for which a price is named.
const MILLION: u128 = 1_000_000;

/// The percentages of the standard price, in the order of [`ServiceTier::ALL`]: flex costs half and priority 80 % more,
/// by Google's pages of November 2026. They name no price of the deferred tier.
const TIERS: [u32; 4] = [100, 50, 180, 100];

/// The price of a model's tokens, in money a million.
///
/// ```
/// use tower_gemini::prices::{Money, Price};
///
/// let price = Price::new(Money::cents(30), Money::cents(250)).cached_input(Money::cents(3));
/// assert_eq!(price.cost(1_000_000, 500_000, 100_000), Money::cents(15) + Money::micros(15_000) + Money::cents(25));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Price {
    base: Rates,
    /// The rates above a number of input tokens.
    long: Option<(u64, Rates)>,
}

/// The money for a million tokens of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rates {
    input: Money,
    output: Money,
    cached: Option<Money>,
}

impl Price {
    /// Creates a price from the money for a million input tokens and for a million output tokens, thoughts included.
    pub const fn new(input: Money, output: Money) -> Self {
        Self { base: Rates { input, output, cached: None }, long: None }
    }

    /// Sets the price of input that came from a cache, of long calls as well unless they have a price of their own.
    /// Default: that of other input.
    pub const fn cached_input(mut self, money: Money) -> Self {
        self.base.cached = Some(money);
        self
    }

    /// Sets the prices of calls with more than `above` input tokens: they hold for all tokens of such a call.
    pub const fn long(mut self, above: u64, input: Money, output: Money) -> Self {
        self.long = Some((above, Rates { input, output, cached: None }));
        self
    }

    /// Sets the price of cached input of a long call. Without [`long`](Self::long) it has no effect.
    pub const fn long_cached_input(mut self, money: Money) -> Self {
        if let Some((_, rates)) = &mut self.long {
            rates.cached = Some(money);
        }
        self
    }

    /// Returns the price of a call with `input` tokens, of which `cached` came from a cache, and `output` tokens.
    pub fn cost(&self, input: u64, cached: u64, output: u64) -> Money {
        let rates = self.long_rates().filter(|(above, _)| input > *above).map_or(self.base, |(_, long)| long);
        let cached = cached.min(input);
        let part = |tokens: u64, rate: Money| rate.share(tokens.into(), MILLION);
        part(input - cached, rates.input)
            + part(cached, rates.cached.unwrap_or(rates.input))
            + part(output, rates.output)
    }

    /// Returns the rates of long calls, with what they take over from the others.
    fn long_rates(&self) -> Option<(u64, Rates)> {
        let (above, long) = self.long?;
        Some((above, Rates { cached: long.cached.or(self.base.cached), ..long }))
    }

    /// Returns a price that is no lower than either, for any call.
    fn or_dearer(self, other: Self) -> Self {
        let base = self.base.or_dearer(other.base);
        let both = [self, other].into_iter().filter_map(|price| price.long_rates());
        // Between the two steps one of the calls is a short one still.
        let long = both.reduce(|one, two| (one.0.min(two.0), one.1.or_dearer(two.1)));
        Self { base, long: long.map(|(above, rates)| (above, rates.or_dearer(base))) }
    }
}

impl Rates {
    fn or_dearer(self, other: Self) -> Self {
        // Whoever has no price of cached input charges that of other input.
        let cached = self.cached.unwrap_or(self.input).max(other.cached.unwrap_or(other.input));
        Self { input: self.input.max(other.input), output: self.output.max(other.output), cached: Some(cached) }
    }
}

/// The prices of all models that a program uses.
///
/// A model is looked up by its name; without a version of three digits at its end (`-001`) where the list has only that;
/// and then by the longest name that ends in `*` and begins alike.
#[derive(Clone, Debug, Default)]
pub struct Prices {
    models: HashMap<Box<str>, Price>,
    /// The beginnings of names, the longest first.
    families: Vec<(Box<str>, Price)>,
    tiers: Percentages,
    dearest: Option<Price>,
}

#[derive(Clone, Copy, Debug)]
struct Percentages([u32; 4]);

impl Default for Percentages {
    fn default() -> Self {
        Self(TIERS)
    }
}

impl Prices {
    /// Returns a builder of a list.
    pub fn builder() -> PricesBuilder {
        PricesBuilder::default()
    }

    /// Reads a list. See the [module](self) for its form: prices are dollars a million tokens, as numbers or texts;
    /// `output`, `cached_input`, `long` and `tiers` may be left out.
    ///
    /// # Errors
    ///
    /// A text that is no such list. The message names the line.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        parse::parse(text)
    }

    /// Returns the price of a model, if the list has one.
    pub fn price(&self, model: &str) -> Option<&Price> {
        let name = model.strip_prefix("models/").unwrap_or(model);
        let family = || self.families.iter().find(|(family, _)| name.starts_with(&**family)).map(|(_, price)| price);
        self.models.get(name).or_else(|| self.models.get(without_version(name)?)).or_else(family)
    }

    /// Returns the price of a call of that service tier. A model without a price is charged by the dearest price of the
    /// list in each kind of token; an empty list charges nothing.
    pub fn cost(&self, model: &str, tier: ServiceTier, input: u64, cached: u64, output: u64) -> Money {
        let price = self.price(model).or(self.dearest.as_ref());
        let percent = ServiceTier::ALL.iter().zip(self.tiers.0).find(|(known, _)| **known == tier);
        let percent = percent.map_or(100, |(_, percent)| percent);
        price.map_or(Money::ZERO, |price| price.cost(input, cached, output).share(percent.into(), 100))
    }

    /// Returns whether the list has no price.
    pub fn is_empty(&self) -> bool {
        self.dearest.is_none()
    }
}

/// Returns the name without a version of three digits at its end.
fn without_version(name: &str) -> Option<&str> {
    let (name, version) = name.rsplit_once('-')?;
    (version.len() == 3 && version.bytes().all(|digit| digit.is_ascii_digit())).then_some(name)
}

/// A builder of [`Prices`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct PricesBuilder {
    prices: Prices,
}

impl PricesBuilder {
    /// Sets the price of a model, or of all models whose names begin as a name that ends in `*`; in place of the one that was
    /// set before.
    pub fn model(mut self, name: &str, price: Price) -> Self {
        let Prices { models, families, .. } = &mut self.prices;
        let name = name.strip_prefix("models/").unwrap_or(name);
        match name.strip_suffix('*') {
            Some(family) => {
                families.retain(|(known, _)| **known != *family);
                families.push((family.into(), price));
                families.sort_by_key(|(family, _)| std::cmp::Reverse(family.len()));
            }
            None => _ = models.insert(name.into(), price),
        }
        self
    }

    /// Sets the price of a service tier, in percent of the standard one. Default: flex 50, priority 180, others 100.
    pub fn tier(mut self, tier: ServiceTier, percent: u32) -> Self {
        let percents = ServiceTier::ALL.iter().zip(&mut self.prices.tiers.0);
        percents.filter(|(known, _)| **known == tier).for_each(|(_, known)| *known = percent);
        self
    }

    /// Returns the list.
    pub fn build(mut self) -> Prices {
        let Prices { models, families, dearest, .. } = &mut self.prices;
        let all = models.values().chain(families.iter().map(|(_, price)| price));
        *dearest = all.copied().reduce(Price::or_dearer);
        self.prices
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn price(cents: u64) -> Price {
        Price::new(Money::cents(cents), Money::cents(cents * 4))
    }

    fn input(price: &Price) -> Money {
        price.cost(1_000_000, 0, 0)
    }

    #[test]
    fn a_model_is_found_by_its_name_its_version_or_its_family() {
        let prices = Prices::builder()
            .model("flash", price(30))
            .model("flash-lite", price(10))
            .model("flash-*", price(50))
            .model("*", price(99))
            .build();
        for (name, cents) in [
            ("flash", 30),
            ("models/flash", 30),
            ("flash-001", 30),
            ("flash-lite", 10),
            ("flash-lite-002", 10),
            ("flash-image", 50),
            ("flash-0011", 50),
            ("pro", 99),
        ] {
            assert_eq!(prices.price(name).map(input), Some(Money::cents(cents)), "{name}");
        }
        assert_eq!(Prices::builder().model("flash", price(30)).build().price("flash-lite"), None);
    }

    #[test]
    fn a_long_call_is_charged_by_its_own_prices_for_all_tokens() {
        let price = price(100).cached_input(Money::cents(10)).long(200_000, Money::cents(200), Money::cents(800));
        assert_eq!(price.cost(200_000, 0, 0), Money::cents(20));
        assert_eq!(price.cost(200_001, 0, 1_000_000), Money::micros(400_002) + Money::cents(800));
        // Cached input has its own price, which is that of short calls unless it is set.
        assert_eq!(price.cost(1_000_000, 1_000_000, 0), Money::cents(10));
        assert_eq!(price.long_cached_input(Money::cents(40)).cost(1_000_000, 1_000_000, 0), Money::cents(40));
    }

    #[test]
    fn a_tier_has_its_percentage() {
        let prices = Prices::builder().model("m", price(100)).tier(ServiceTier::Deferred, 25).build();
        let cost = |tier| prices.cost("m", tier, 1_000_000, 0, 0);
        assert_eq!(ServiceTier::ALL.map(cost), [100, 50, 180, 25].map(Money::cents));
    }

    #[test]
    fn a_price_that_is_set_again_takes_the_place_of_the_first_one() {
        let prices = Prices::builder()
            .model("m", price(900))
            .model("models/m", price(30))
            .model("f-*", price(900))
            .model("f-*", price(20))
            .build();
        assert_eq!(prices.price("m").map(input), Some(Money::cents(30)));
        assert_eq!(prices.cost("unknown", ServiceTier::Standard, 1_000_000, 0, 0), Money::cents(30));
        assert!(Prices::builder().build().is_empty() && !prices.is_empty());
    }

    #[test]
    fn one_token_costs_what_it_costs() {
        let prices = Prices::builder().model("m", Price::new(Money::cents(10), Money::ZERO)).build();
        let one = prices.cost("m", ServiceTier::Flex, 1, 0, 0);
        let sum = (0..20_000_000).step_by(1_000_000).fold(Money::ZERO, |sum, _| sum + one);
        assert_eq!(sum, Money::micros(1), "twenty tokens at half of $0.10 a million");
    }

    fn prices_of() -> impl Strategy<Value = Price> {
        let cents = || 0u64..1_000;
        let long = prop::option::of((0u64..400_000, cents(), cents(), prop::option::of(cents())));
        (cents(), cents(), prop::option::of(cents()), long).prop_map(|(input, output, cached, long)| {
            let price = Price::new(Money::cents(input), Money::cents(output));
            let price = cached.map_or(price, |cached| price.cached_input(Money::cents(cached)));
            long.map_or(price, |(above, input, output, cached)| {
                let price = price.long(above, Money::cents(input), Money::cents(output));
                cached.map_or(price, |cached| price.long_cached_input(Money::cents(cached)))
            })
        })
    }

    proptest! {
        #[test]
        fn a_model_without_a_price_never_costs_less_than_one_with(
            all in prop::collection::vec(prices_of(), 1..5),
            input in 0u64..500_000, cached in 0u64..500_000, output in 0u64..100_000,
        ) {
            let named = |builder: PricesBuilder, (nth, price): (usize, &Price)| builder.model(&format!("m{nth}"), *price);
            let prices = all.iter().enumerate().fold(Prices::builder(), named).build();
            let unknown = prices.cost("other", ServiceTier::Standard, input, cached, output);
            for price in &all {
                prop_assert!(unknown >= price.cost(input, cached, output));
            }
        }
    }
}
