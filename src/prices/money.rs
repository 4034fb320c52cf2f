//! An exact amount of money.

use std::{
    fmt,
    ops::{Add, AddAssign},
    str::FromStr,
};

use crate::context::ConfigError;

/// The millionth parts of a micro-dollar in a micro-dollar.
const MICRO: u128 = 1_000_000;

/// The same in a dollar.
const DOLLAR: u128 = 1_000_000 * MICRO;

/// The digits after the point of a dollar that can be told apart.
const DIGITS: usize = 12;

/// An amount of US dollars, exact to a millionth of a micro-dollar. Sums end at the largest amount.
///
/// ```
/// use tower_gemini::prices::Money;
///
/// assert_eq!("12.5".parse::<Money>()?, Money::dollars(12) + Money::cents(50));
/// assert_eq!(Money::micros(1_250_000).to_string(), "$1.25");
/// # Ok::<_, tower_gemini::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(u128);

impl Money {
    /// No money.
    pub const ZERO: Self = Self(0);

    /// Creates an amount of whole dollars.
    #[must_use]
    pub const fn dollars(dollars: u64) -> Self {
        Self(dollars as u128 * DOLLAR)
    }

    /// Creates an amount of cents.
    #[must_use]
    pub const fn cents(cents: u64) -> Self {
        Self(cents as u128 * (DOLLAR / 100))
    }

    /// Creates an amount of millionths of a dollar.
    #[must_use]
    pub const fn micros(micros: u64) -> Self {
        Self(micros as u128 * MICRO)
    }

    /// Returns the amount in millionths of a dollar, rounded up.
    #[must_use]
    pub fn as_micros(self) -> u64 {
        u64::try_from(self.0.div_ceil(MICRO)).unwrap_or(u64::MAX)
    }

    /// Returns the amount in dollars, as exactly as a float can.
    #[must_use]
    pub fn as_dollars(self) -> f64 {
        self.0 as f64 / DOLLAR as f64
    }

    /// Returns the `parts`-fold of a share of `of`.
    pub(super) fn share(self, parts: u128, of: u128) -> Self {
        Self(self.0.saturating_mul(parts) / of)
    }

    /// Returns the difference, or nothing where `other` is more.
    pub(crate) const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Add for Money {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Money {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl fmt::Display for Money {
    /// Writes the amount in dollars, with two to six digits after the point; what is less is rounded up.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.div_ceil(MICRO);
        let digits = format!("{:06}", micros % 1_000_000);
        let (cents, rest) = digits.split_at(2);
        write!(f, "${}.{cents}{}", micros / 1_000_000, rest.trim_end_matches('0'))
    }
}

impl FromStr for Money {
    type Err = ConfigError;

    /// Reads dollars: `12`, `12.50`, `$0.075`.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let refusal = || ConfigError::new(format!("{text:?} is no amount of dollars; write it as 12 or 12.50"));
        let bare = text.strip_prefix('$').unwrap_or(text);
        let (whole, part) = bare.split_once('.').unwrap_or((bare, "0"));
        let are_digits = |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        if !are_digits(whole) || !are_digits(part) || part.len() > DIGITS {
            return Err(refusal());
        }
        let dollars: u64 = whole.parse().map_err(|_| refusal())?;
        let part: u128 = format!("{part:0<DIGITS$}").parse().map_err(|_| refusal())?;
        Ok(Self(Self::dollars(dollars).0 + part))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_amount_is_refused_with_its_text() {
        for text in ["", "$", "-1", "1e3", "1.", ".5", "1,5", "1.0000000000001", "99999999999999999999", "é", "1 "] {
            let error = text.parse::<Money>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
        assert_eq!("$0.000000000001".parse::<Money>().unwrap(), Money(1));
    }

    #[test]
    fn an_amount_is_written_with_the_digits_that_it_has() {
        for (money, text) in [
            (Money::ZERO, "$0.00"),
            (Money::dollars(5), "$5.00"),
            (Money::cents(507), "$5.07"),
            (Money::micros(75_000), "$0.075"),
            (Money(1), "$0.000001"),
            (Money(u128::MAX), "$340282366920938463463374607.431769"),
        ] {
            assert_eq!(money.to_string(), text);
        }
        assert_eq!((Money(1).as_micros(), Money::MAX.as_micros()), (1, u64::MAX));
        assert_eq!(Money::MAX + Money::MAX, Money::MAX);
    }

    impl Money {
        const MAX: Self = Self(u128::MAX);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(micros: u64) {
            let money = Money::micros(micros);
            prop_assert_eq!(money.to_string().parse::<Money>().unwrap(), money);
            prop_assert_eq!(money.as_micros(), micros);
        }
    }
}
