//! The wordings about money, in a 429.
//!
//! Money stops a project with all of its models. Some of it comes back by itself: a limit of spending over ten minutes. The
//! rest, a monthly cap or credits that are used up, waits for somebody who pays.

use super::{
    Kind,
    ruling::Ruling,
    wording::{any, billing},
};

/// The wordings of a 429 about money spent within some minutes: it comes back by itself.
static SPEND: &[&[&str]] = &[
    &["spend limit"],
    &["spending limit"],
    &["spend-based"],
    &["spend based"],
    &["spend rate"],
    &["spending rate"],
    &["rate of spend"],
    &["limit of spend"],
    &["limit on spend"],
    &["spend quota"],
    &["spending quota"],
    &["spend", "rolling"],
    &["spend", "minute"],
    &["spend", "exceed"],
    &["budget", "exceed"],
    &["budget", "exhausted"],
    &["budget", "reached"],
    &["budget", "minute"],
];

/// The wordings of a 429 about money that does not come back by itself, besides those of any status.
static UNPAID: &[&[&str]] = &[
    &["credits", "used up"],
    &["credits", "run out"],
    &["credits", "ran out"],
    &["credits left"],
    &["not enough credit"],
    &["insufficient credit"],
    &["prepay"],
    &["pre-pay"],
    &["unpaid"],
    &["overdue"],
    &["past due"],
    &["outstanding balance"],
    &["payment method"],
    &["payment failed"],
    &["billing cap"],
    &["billing limit"],
    &["billing hard limit"],
    &["billing quota"],
    &["billing is"],
    &["billing not"],
    &["billing has"],
];

/// The money that a 429 is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MoneyRefusal {
    /// A limit of spending over some minutes: it comes back by itself.
    Rolling,
    /// A cap on spending, of a month mostly: it waits for the next one, or for somebody who raises it.
    Cap,
    /// A bill or credits: they wait for somebody who pays.
    Unpaid,
}

impl MoneyRefusal {
    /// Makes the verdict.
    pub(super) fn ruling(self) -> Ruling {
        match self {
            Self::Rolling => Ruling::of(Kind::QuotaSpend),
            Self::Cap => {
                let mut ruling = Ruling::of(Kind::QuotaSpend);
                ruling.help.same_key = false;
                ruling
            }
            Self::Unpaid => Ruling::of(Kind::BillingRequired),
        }
    }
}

/// Returns the money that the words of a 429 are about.
pub(super) fn of(lower: &str) -> Option<MoneyRefusal> {
    // An address is no word: the ordinary refusal may link to the page of spending.
    let words = lower.split_ascii_whitespace().filter(|word| !word.contains("://"));
    let lower = &*words.collect::<Vec<_>>().join(" ");
    let long = ["month", "spending cap", "spend cap", "lifetime", "annual"].iter().any(|word| lower.contains(word));
    let rolling = any(&[&["10 minutes"], &["10-minute"], &["ten minutes"], &["rolling"]], lower);
    if any(SPEND, lower) && (rolling || !long && !billing(lower)) {
        return Some(MoneyRefusal::Rolling);
    }
    if any(SPEND, lower) || any(&[&["spending cap"], &["spend cap"]], lower) {
        return Some(MoneyRefusal::Cap);
    }
    (billing(lower) || any(UNPAID, lower)).then_some(MoneyRefusal::Unpaid)
}

/// Returns whether a quota's id or metric, in lower case, counts money.
pub(super) fn counts_money(id: &str) -> bool {
    ["spend", "billing", "budget", "usd", "dollar"].iter().any(|word| id.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phrase_is_in_lower_case() {
        for part in [SPEND, UNPAID].into_iter().flatten().flat_map(|parts| parts.iter()) {
            assert_eq!(*part, part.to_lowercase());
        }
    }

    #[test]
    fn the_ordinary_quota_text_is_not_about_of() {
        let ordinary = "you exceeded your current quota, please check your plan and billing details.";
        assert_eq!(of(ordinary), None);
        assert_eq!(of(&format!("{ordinary} limit: 20 requests per minute, please retry in 26s.")), None);
    }

    #[test]
    fn money_that_comes_back_is_told_from_money_that_does_not() {
        for text in [
            "your prepayment credits are depleted.",
            "you have run out of credits.",
            "your billing account has an overdue payment.",
        ] {
            assert_eq!(of(text), Some(MoneyRefusal::Unpaid), "{text}");
        }
        for text in [
            "your project has exceeded its monthly spending cap.",
            "your project has exceeded its monthly spend limit.",
            "the monthly budget of this project is exhausted.",
        ] {
            assert_eq!(of(text), Some(MoneyRefusal::Cap), "{text}");
        }
        for text in [
            "your project has reached its spend limit for tier 1 ($10 in any 10 minutes).",
            "spend-based rate limit exceeded.",
            "you exceeded your spend-based rate limit. your spending rate has exceeded the allowed limit for your account's billing history and tier.",
            "you exceeded the spending limit of your project.",
            "the budget for this window was exceeded.",
            "the rolling spend of your project is over its monthly tier's limit.",
        ] {
            assert_eq!(of(text), Some(MoneyRefusal::Rolling), "{text}");
        }
    }
}
