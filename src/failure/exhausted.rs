//! Which quota a 429 is about, and what follows.
//!
//! The hardest answer to read: one status stands for a minute's quota, a day's quota, a quota of zero, a bill that was
//! not paid, and a model that is full for everybody; and the wait that it suggests is right for the first only. A day's
//! quota says "retry in 5s". What counts, in this order: the `quotaId`s, the words of the message, the reason, and at last
//! the wait itself.

use std::time::Duration;

use super::{
    Kind, Quota,
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
/// `wait` is what the body, or else the header, asks for.
pub(super) fn judge(said: &Status, lower: &str, wait: Option<Duration>) -> Ruling {
    if wording::billing(lower) || said.status().is_some_and(wording::billing) {
        return Ruling::of(Kind::BillingRequired);
    }
    if said.reason() == Some("MODEL_CAPACITY_EXHAUSTED") {
        return Ruling::of(Kind::Capacity);
    }
    if said.violations().is_empty()
        && said.reason() != Some("QUOTA_EXHAUSTED")
        && let Some(kind) = wording::capacity(lower)
    {
        return Ruling::of(kind);
    }

    let names = QuotaWords::of(said, lower, wait);
    let period = names.period(said);
    let (kind, dimension) = match period {
        Period::Zero => (Kind::QuotaZero, None),
        Period::Day | Period::Long => (Kind::QuotaDay, Some(Dimension::RequestsPerDay)),
        Period::TokensMinute => (Kind::QuotaTokensMinute, Some(Dimension::InputTokensPerMinute)),
        Period::Minute => (Kind::QuotaMinute, Some(Dimension::RequestsPerMinute)),
        Period::Unknown => (Kind::QuotaUnknown, None),
    };
    let winner = names.winner(said, period);
    let per_model = names.per_model(said);
    let quota = Quota {
        dimension,
        limit: match period {
            Period::Zero => Some(0),
            _ => winner.and_then(Violation::value).filter(|value| *value > 0).or(said.message_limit().value),
        },
        id: winner.and_then(Violation::quota_id).map(Into::into),
        model: said.model().map(Into::into),
        per_model,
    };

    let mut help = kind.facts().help;
    match period {
        // A minute's quota that is known, and known to be shared by all models: another model is blocked as well.
        Period::Minute | Period::TokensMinute => help.other_model = per_model || !names.are_telling(),
        Period::Long => help.same_key = names.wait.is_some_and(|wait| wait <= SOON),
        _ => {}
    }
    // Whatever a day's quota says of waiting is about a minute's, which is used up as well. Code Assist names its long
    // quotas by the reason only, and says truly when they come back.
    let ignore_hint = matches!(period, Period::Zero | Period::Day);
    Ruling { kind, help, quota: Some(quota), ignore_hint }
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

/// Everything that names the quota.
struct QuotaWords<'a> {
    lower: &'a str,
    /// Ids and metrics, in lower case.
    ids: Vec<String>,
    wait: Option<Duration>,
}

impl<'a> QuotaWords<'a> {
    fn of(said: &Status, lower: &'a str, wait: Option<Duration>) -> Self {
        let id = |v: &Violation| v.quota_id().or(v.quota_metric()).unwrap_or_default().to_ascii_lowercase();
        Self { lower, ids: said.violations().iter().map(id).collect(), wait }
    }

    fn period(&self, said: &Status) -> Period {
        // A limit that the message states speaks against a zero that was only left out.
        let stated = said.message_limit();
        let left_out = stated.value.is_none() && said.violations().iter().any(|v| v.value() == Some(0));
        // Older than the zero: "Gemini 2.5 Pro Preview doesn't have a free quota tier."
        let no_tier = self.lower.contains("have a free quota tier");
        if stated.zero || left_out || no_tier {
            return Period::Zero;
        }
        let code = said.status().unwrap_or_default();
        let daily = matches!(said.legacy_reason(), Some("dailyLimitExceeded")) || code == "quota_exceeded";
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
        // Metrics without a period, in the message of a body whose details are gone: requests are counted a minute and a
        // day, tokens a minute, but for one id that says so.
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
        match said.reason() {
            Some("QUOTA_EXHAUSTED") => Period::Long,
            _ if long => Period::Long,
            Some("RATE_LIMIT_EXCEEDED") if said.domain().is_some_and(|domain| domain.starts_with("cloudcode")) => {
                Period::Minute
            }
            // The Interactions API's name for "a minute or a second".
            _ if code == "rate_limit_exceeded" => Period::Minute,
            _ => Period::Unknown,
        }
    }

    /// The violation that decided.
    fn winner<'s>(&self, said: &'s Status, period: Period) -> Option<&'s Violation> {
        let fits = |(violation, id): &(&Violation, &String)| match period {
            Period::Zero => violation.value() == Some(0),
            Period::Day => is_day(id),
            Period::TokensMinute => is_minute(id) && id.contains("token"),
            Period::Minute => is_minute(id),
            Period::Long | Period::Unknown => true,
        };
        let mut pairs = said.violations().iter().zip(&self.ids);
        pairs.clone().find(fits).or_else(|| pairs.next()).map(|(violation, _)| violation)
    }

    fn per_model(&self, said: &Status) -> bool {
        let marks = ["permodel", "perbasemodel", "per_model", "per_base_model", "per model", "per base model"];
        let marked = |text: &str| marks.iter().any(|mark| text.contains(mark)) || names_model(text);
        said.model().is_some()
            || self.ids.iter().any(|id| marked(id))
            || marked(self.lower)
            || [", model:", "base model:", "on this model", "for this model"]
                .iter()
                .any(|mark| self.lower.contains(mark))
    }

    /// Whether the names say so much of the quota that the model's absence means something.
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
    // Vertex counts it a minute and does not say so.
    if lower.contains("online_prediction_requests_per_base_model") {
        return true;
    }
    ["perminute", "per_minute", "per minute", "per-minute", "persecond", "per_second", "per second"]
        .iter()
        .any(|name| lower.contains(name))
}
