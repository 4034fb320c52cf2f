//! The dimensions in which a caller is counted, and their amounts.

use std::fmt;

use crate::prices::Money;

/// A dimension in which a caller is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallerDimension {
    /// Requests in any 60 seconds.
    RequestsPerMinute,
    /// Input tokens in any 60 seconds.
    InputTokensPerMinute,
    /// Requests until midnight Pacific.
    RequestsPerDay,
    /// Input and output tokens until midnight Pacific.
    TokensPerDay,
    /// Money until midnight Pacific.
    MoneyPerDay,
    /// Money until the first midnight Pacific of the next month.
    MoneyPerMonth,
}

impl CallerDimension {
    /// All dimensions, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::RequestsPerMinute,
        Self::InputTokensPerMinute,
        Self::RequestsPerDay,
        Self::TokensPerDay,
        Self::MoneyPerDay,
        Self::MoneyPerMonth,
    ];

    /// Returns the name in logs and messages: `requests a minute`, …, `money a month`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "requests a minute",
            Self::InputTokensPerMinute => "input tokens a minute",
            Self::RequestsPerDay => "requests a day",
            Self::TokensPerDay => "tokens a day",
            Self::MoneyPerDay => "money a day",
            Self::MoneyPerMonth => "money a month",
        }
    }

    /// Returns the short name in reports: `minute`, `tokens_minute`, `day`, `tokens_day`, `money_day`, `money_month`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "minute",
            Self::InputTokensPerMinute => "tokens_minute",
            Self::RequestsPerDay => "day",
            Self::TokensPerDay => "tokens_day",
            Self::MoneyPerDay => "money_day",
            Self::MoneyPerMonth => "money_month",
        }
    }

    /// Returns whether money is counted.
    #[must_use]
    pub const fn is_money(self) -> bool {
        matches!(self, Self::MoneyPerDay | Self::MoneyPerMonth)
    }

    /// Returns whether requests are counted, whatever their size.
    pub(super) const fn is_of_requests(self) -> bool {
        matches!(self, Self::RequestsPerMinute | Self::RequestsPerDay)
    }

    /// Returns the limit with its unit: `30 requests a minute`, `$5.00 a day`.
    pub(super) fn with_unit(self, limit: CallerAmount) -> String {
        match self {
            Self::MoneyPerDay => format!("{limit} a day"),
            Self::MoneyPerMonth => format!("{limit} a month"),
            _ => format!("{limit} {self}"),
        }
    }
}

impl fmt::Display for CallerDimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An amount in one dimension. Those of one dimension are of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CallerAmount {
    /// Requests or tokens.
    Count(u64),
    /// Money.
    Money(Money),
}

impl CallerAmount {
    /// Returns the number of requests, of tokens or of dollars.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Count(count) => count as f64,
            Self::Money(money) => money.as_dollars(),
        }
    }

    /// Returns whether it is nothing.
    pub(super) fn is_zero(self) -> bool {
        matches!(self, Self::Count(0) | Self::Money(Money::ZERO))
    }

    /// Returns the sum of two amounts of one kind.
    pub(super) fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Count(one), Self::Count(other)) => Self::Count(one.saturating_add(other)),
            (Self::Money(one), Self::Money(other)) => Self::Money(one + other),
            _ => self,
        }
    }
}

impl fmt::Display for CallerAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => fmt::Display::fmt(count, f),
            Self::Money(money) => fmt::Display::fmt(money, f),
        }
    }
}
