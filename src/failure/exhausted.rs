//! The verdict on a 429: which quota it is about, and what follows.
//!
//! A 429 is the hardest answer to read. It stands for a minute's quota, a day's quota, a quota of zero, an unpaid bill,
//! and a model that is at capacity for all callers; and the wait that it suggests is right for the first only, because
//! a day's quota says "retry in 5s" as well. The evidence, most telling first: the `quotaId`s, the words of the
//! message, the reason, and last the wait itself.

use std::time::Duration;

use super::{
    Kind, Quota,
    money::{self, MoneyRefusal},
    quota::SOON,
    ruling::Ruling,
    wording::{self, names_model},
};
use crate::{
    quota::Dimension,
    status::{Status, Violation},
};

/// Judges a refusal that is about quota, or looks like it.
///
/// `wait` is the one that the body asks for, or else the header.
pub(super) fn judge(error: &Status, lower: &str, wait: Option<Duration>) -> Ruling {
    if let Some(money) = about_money(error, lower) {
        return money.ruling();
    }
    if error.reason() == Some("MODEL_CAPACITY_EXHAUSTED") {
        return Ruling::of(Kind::Capacity);
    }
    if error.violations().is_empty()
        && error.reason() != Some("QUOTA_EXHAUSTED")
        && let Some(kind) = wording::capacity(lower)
    {
        return Ruling::of(kind);
    }

    let names = QuotaWords::of(error, lower, wait);
    let period = names.period(error);
    let (kind, dimension) = match period {
        Period::Zero => (Kind::QuotaZero, None),
        Period::Day | Period::Long => (Kind::QuotaDay, Some(Dimension::RequestsPerDay)),
        Period::TokensMinute => (Kind::QuotaTokensMinute, Some(Dimension::InputTokensPerMinute)),
        Period::Minute => (Kind::QuotaMinute, Some(Dimension::RequestsPerMinute)),
        Period::Unknown => (Kind::QuotaUnknown, None),
    };
    let winner = names.winner(error, period);
    let per_model = names.per_model(error);
    let quota = Quota {
        dimension,
        limit: match period {
            Period::Zero => Some(0),
            _ => winner.and_then(Violation::value).filter(|value| *value > 0).or(error.message_limit().value),
        },
        id: winner.and_then(Violation::quota_id).map(Into::into),
        model: error.model().map(Into::into),
        per_model,
    };

    let mut help = kind.facts().help;
    // The help is that of the period, for the calls that search.
    let kind = if counts_searches(error) { Kind::QuotaGrounding } else { kind };
    match period {
        // A minute's quota that all models are known to share blocks the other models as well.
        Period::Minute | Period::TokensMinute => help.other_model = per_model || !names.are_telling(),
        Period::Long => help.same_key = names.wait.is_some_and(|wait| wait <= SOON),
        _ => {}
    }
    // The wait in a day's refusal belongs to a minute's quota, which is used up as well. Code Assist names its long
    // quotas by the reason only, and its wait is true.
    let ignore_hint = matches!(period, Period::Zero | Period::Day);
    Ruling { kind, help, quota: Some(quota), ignore_hint }
}

/// Returns the money that a refusal is about, and with it the project with all of its models.
fn about_money(error: &Status, lower: &str) -> Option<MoneyRefusal> {
    let names = || error.violations().iter().flat_map(|violation| [violation.quota_id(), violation.quota_metric()]);
    let mut counted = names().flatten().map(str::to_ascii_lowercase);
    match counted.find(|name| money::counts_money(name)) {
        Some(name) if name.contains("month") => Some(MoneyRefusal::Cap),
        Some(_) => money::of(lower).or(Some(MoneyRefusal::Rolling)),
        // A quota of requests or tokens is named, whatever else the message mentions.
        None if !error.violations().is_empty() || error.reason() == Some("QUOTA_EXHAUSTED") => None,
        None => money::of(lower).or_else(|| money::of(error.status()?)),
    }
}

/// Returns whether the refusal is about the quota of calls that search the web or maps, and of nothing else.
fn counts_searches(error: &Status) -> bool {
    let is_search = |name: &str| {
        let name = name.to_ascii_lowercase();
        ["grounding", "googlesearch", "google_search", "googlemaps", "google_maps"]
            .iter()
            .any(|word| name.contains(word))
    };
    let mut violations = error.violations().iter();
    !error.violations().is_empty()
        && violations
            .all(|violation| [violation.quota_id(), violation.quota_metric()].into_iter().flatten().any(is_search))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Period {
    Zero,
    Day,
    /// Longer than [`SOON`], by the wait or the reason alone.
    Long,
    Minute,
    TokensMinute,
    Unknown,
}

/// The words of a refusal that may name the quota.
struct QuotaWords<'a> {
    lower: &'a str,
    /// The ids, or else the metrics, of the violations, in lower case.
    ids: Vec<String>,
    wait: Option<Duration>,
}

impl<'a> QuotaWords<'a> {
    fn of(error: &Status, lower: &'a str, wait: Option<Duration>) -> Self {
        let id = |v: &Violation| v.quota_id().or(v.quota_metric()).unwrap_or_default().to_ascii_lowercase();
        Self { lower, ids: error.violations().iter().map(id).collect(), wait }
    }

    /// Returns the period that the quota counts over.
    fn period(&self, error: &Status) -> Period {
        // A missing `quotaValue` does not mean zero where the message states a limit.
        let stated = error.message_limit();
        let left_out = stated.value.is_none() && error.violations().iter().any(|v| v.value() == Some(0));
        // An older wording of a limit of zero: "Gemini 2.5 Pro Preview doesn't have a free quota tier."
        let no_tier = self.lower.contains("have a free quota tier");
        if stated.zero || left_out || no_tier {
            return Period::Zero;
        }
        let code = error.status().unwrap_or_default();
        let daily = matches!(error.legacy_reason(), Some("dailyLimitExceeded")) || code == "quota_exceeded";
        if daily || self.ids.iter().any(|id| is_day(id)) || is_day(self.lower) {
            return Period::Day;
        }
        if let Some(id) = self.ids.iter().find(|id| is_minute(id)) {
            return if id.contains("token") { Period::TokensMinute } else { Period::Minute };
        }
        if is_minute(self.lower) {
            let tokens = ["tokens per minute", "tokens_per_minute", "input tokens", "token_count"];
            let tokens = tokens.iter().any(|name| self.lower.contains(name));
            return if tokens { Period::TokensMinute } else { Period::Minute };
        }
        // Metrics without a period, in the message of a body whose details are gone: requests are counted by the minute
        // and by the day, tokens by the minute (except for one id, which names the day).
        let metrics = self.ids.iter().map(String::as_str).chain([self.lower]);
        let (mut tokens, mut requests) = (false, false);
        for metric in metrics {
            tokens |= metric.contains("token_count");
            requests |= metric.contains("_requests");
        }
        if tokens && !requests {
            return Period::TokensMinute;
        }
        let long = self.wait.is_some_and(|wait| wait > SOON);
        match error.reason() {
            Some("QUOTA_EXHAUSTED") => Period::Long,
            _ if long => Period::Long,
            Some("RATE_LIMIT_EXCEEDED") if error.domain().is_some_and(|domain| domain.starts_with("cloudcode")) => {
                Period::Minute
            }
            // The Interactions API has this one name for a minute's and a second's quota.
            _ if code == "rate_limit_exceeded" => Period::Minute,
            _ => Period::Unknown,
        }
    }

    /// Returns the violation that decided the period.
    fn winner<'s>(&self, error: &'s Status, period: Period) -> Option<&'s Violation> {
        let fits = |(violation, id): &(&Violation, &String)| match period {
            Period::Zero => violation.value() == Some(0),
            Period::Day => is_day(id),
            Period::TokensMinute => is_minute(id) && id.contains("token"),
            Period::Minute => is_minute(id),
            Period::Long | Period::Unknown => true,
        };
        let mut pairs = error.violations().iter().zip(&self.ids);
        pairs.clone().find(fits).or_else(|| pairs.next()).map(|(violation, _)| violation)
    }

    /// Returns whether every model has a quota of its own.
    fn per_model(&self, error: &Status) -> bool {
        let marks = ["permodel", "perbasemodel", "per_model", "per_base_model", "per model", "per base model"];
        let marked = |text: &str| marks.iter().any(|mark| text.contains(mark)) || names_model(text);
        error.model().is_some()
            || self.ids.iter().any(|id| marked(id))
            || marked(self.lower)
            || [", model:", "base model:", "on this model", "for this model"]
                .iter()
                .any(|mark| self.lower.contains(mark))
    }

    /// Returns whether the quota is named in such detail that a missing model means a quota of all models.
    fn are_telling(&self) -> bool {
        !self.ids.is_empty() || is_minute(self.lower)
    }
}

fn is_day(lower: &str) -> bool {
    ["perday", "per_day", "per day", "per-day", "daily", "perweek", "per week", "permonth", "per month"]
        .iter()
        .any(|name| lower.contains(name))
}

fn is_minute(lower: &str) -> bool {
    // Vertex counts this one by the minute, without naming the period.
    if lower.contains("online_prediction_requests_per_base_model") {
        return true;
    }
    ["perminute", "per_minute", "per minute", "per-minute", "persecond", "per_second", "per second"]
        .iter()
        .any(|name| lower.contains(name))
}
