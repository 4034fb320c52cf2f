//! The errors of the room. Each says what happened, what it was measured against, and what to do: in one message for
//! operators, and in one for callers, who know their own name. Both are written when they are read.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{NAME, account::CallerShortage, scopes::CallerRefusal};
use crate::{
    context::{BoxError, Error, GaveUp},
    failure::{Failure, Kind, Reader, Words},
    quota::{Dimension, Question},
};

/// Returns the refusal of a call that is past a limit. `model` is set if the limit is one of that model's calls.
pub(super) fn refused(caller: &Arc<str>, model: Option<&str>, shortage: CallerShortage, now: Instant) -> BoxError {
    let CallerShortage { dimension, used, limit, needs, at } = shortage;
    let (caller, of_model) = (caller.clone(), OfModel(model.map(Into::into)));
    let Some(at) = at else {
        let words = move |f: &mut fmt::Formatter<'_>, reader: Reader| {
            write!(f, "the call needs {needs}, and the limit")?;
            let cure = match reader {
                Reader::Operator => {
                    write!(f, " of caller {caller}")?;
                    "raise the limit"
                }
                Reader::Caller => "send less in one call",
            };
            let limit = dimension.with_unit(limit);
            write!(f, "{of_model} is {limit}: it would never be admitted; {cure}")
        };
        return Error::refusal(NAME, Failure::in_words(Kind::LargerThanQuota, words)).into();
    };
    let wait = at.saturating_duration_since(now);
    let words = move |f: &mut fmt::Formatter<'_>, reader: Reader| {
        match reader {
            Reader::Operator => write!(f, "caller {caller} has")?,
            Reader::Caller => f.write_str("you have")?,
        }
        let limit = dimension.with_unit(limit);
        write!(f, " used {used} of {limit}{of_model}, and this call needs {needs}")?;
        match reader {
            Reader::Operator => write!(f, ", for which there is room after {wait:.1?}; {CURE}"),
            Reader::Caller => Ok(()),
        }
    };
    limited(words, wait)
}

/// Returns the refusal of a call that is past a limit with what its caller has used at other instances.
pub(super) fn refused_by_store(
    caller: &Arc<str>,
    model: Option<&str>,
    asked: Question,
    refusal: CallerRefusal,
    now: Instant,
) -> BoxError {
    let wait = refusal.until.saturating_duration_since(now);
    let (caller, of_model) = (caller.clone(), OfModel(model.map(Into::into)));
    let limit = refusal.dimension.and_then(|dimension| Some((dimension, asked.limits.get(dimension)?)));
    let Some((dimension, limit)) = limit else {
        let words = move |f: &mut fmt::Formatter<'_>, reader: Reader| {
            f.write_str("it is not known yet how much ")?;
            match reader {
                Reader::Operator => write!(f, "caller {caller} has")?,
                Reader::Caller => f.write_str("you have")?,
            }
            write!(f, " used{of_model} at other instances; ask again after {wait:.1?}")
        };
        return limited(words, wait);
    };
    let needs = match dimension {
        Dimension::InputTokensPerMinute => asked.tokens,
        Dimension::RequestsPerMinute | Dimension::RequestsPerDay => asked.requests,
    };
    let words = move |f: &mut fmt::Formatter<'_>, reader: Reader| match reader {
        Reader::Operator => write!(
            f,
            "caller {caller} has used so much of {limit} {dimension}{of_model}, at all instances together, that this call, which \
             needs {needs}, has room after {wait:.1?}; {CURE}"
        ),
        Reader::Caller => write!(
            f,
            "you have used so much of {limit} {dimension}{of_model} that this call, which needs {needs}, has no room"
        ),
    };
    limited(words, wait)
}

/// The advice to operators.
const CURE: &str = "raise the limit, or let the caller wait";

fn limited(words: impl Words + 'static, wait: Duration) -> BoxError {
    let failure = Failure::in_words(Kind::CallerLimited, words).with_hint(wait);
    Error::refusal(NAME, failure).map_outcome(|outcome| outcome.with_gave_up(GaveUp::Wait)).into()
}

/// The model whose calls a limit is of, in words, if it is not one of all calls.
struct OfModel(Option<Box<str>>);

impl fmt::Display for OfModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |model| write!(f, " of model {model}"))
    }
}
