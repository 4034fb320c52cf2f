//! The errors of the room. Each says what happened, what it was measured against, and what to do: in one message for
//! operators, and in one for callers, who know their own name.

use tokio::time::Instant;

use std::time::Duration;

use super::{NAME, account::CallerShortage, scopes::CallerRefusal};
use crate::{
    context::{BoxError, Error, GaveUp},
    failure::{Failure, Kind},
    quota::{Dimension, Question},
};

/// Returns the refusal of a call that is past a limit. `model` is set if the limit is one of that model's calls.
pub(super) fn refused(caller: &str, model: Option<&str>, shortage: CallerShortage, now: Instant) -> BoxError {
    let CallerShortage { dimension, used, limit, needs, at } = shortage;
    let limit = dimension.with_unit(limit);
    let of_model = model.map(|model| format!(" of model {model}")).unwrap_or_default();
    let Some(at) = at else {
        let message = |whose: &str, cure: &str| {
            format!(
                "the call needs {needs}, and the limit{whose}{of_model} is {limit}: it would never be admitted; {cure}"
            )
        };
        let failure =
            Failure::local(Kind::LargerThanQuota, message(&format!(" of caller {caller}"), "raise the limit"))
                .with_caller_message(message("", "send less in one call"));
        return Error::refusal(NAME, failure).into();
    };
    let wait = at.saturating_duration_since(now);
    let operator = format!(
        "caller {caller} has used {used} of {limit}{of_model}, and this call needs {needs}, for which there is room after \
         {wait:.1?}; raise the limit, or let the caller wait"
    );
    let caller = format!("you have used {used} of {limit}{of_model}, and this call needs {needs}");
    limited(operator, caller, wait)
}

/// Returns the refusal of a call that is past a limit with what its caller has used at other instances.
pub(super) fn refused_by_store(
    caller: &str,
    model: Option<&str>,
    asked: Question,
    refusal: CallerRefusal,
    now: Instant,
) -> BoxError {
    let wait = refusal.until.saturating_duration_since(now);
    let of_model = model.map(|model| format!(" of model {model}")).unwrap_or_default();
    let limit = refusal.dimension.and_then(|dimension| Some((dimension, asked.limits.get(dimension)?)));
    let Some((dimension, limit)) = limit else {
        let message = |whose: &str| {
            format!(
                "it is not known yet how much {whose} used{of_model} at other instances; ask again after {wait:.1?}"
            )
        };
        return limited(message(&format!("caller {caller} has")), message("you have"), wait);
    };
    let needs = match dimension {
        Dimension::InputTokensPerMinute => asked.tokens,
        Dimension::RequestsPerMinute | Dimension::RequestsPerDay => asked.requests,
    };
    let operator = format!(
        "caller {caller} has used so much of {limit} {dimension}{of_model}, at all instances together, that this call, which \
         needs {needs}, has room after {wait:.1?}; raise the limit, or let the caller wait"
    );
    let caller = format!(
        "you have used so much of {limit} {dimension}{of_model} that this call, which needs {needs}, has no room"
    );
    limited(operator, caller, wait)
}

fn limited(operator: String, caller: String, wait: Duration) -> BoxError {
    let failure = Failure::local(Kind::CallerLimited, operator).with_caller_message(caller).with_hint(wait);
    Error::refusal(NAME, failure).map_outcome(|outcome| outcome.with_gave_up(GaveUp::Wait)).into()
}
