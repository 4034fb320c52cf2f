//! Advice about failures: whose fault each is, what to do, and the setting that helps.

use std::borrow::Cow;

use tower_gemini::failure::{Kind, TimeoutKind};

use crate::show::failures::FailureRecord;

/// The name of a failure's kind, whose fault it is, and what to do about it.
pub(crate) struct FailureAdvice {
    pub(crate) kind: &'static str,
    pub(crate) fault: &'static str,
    pub(crate) what_to_do: Cow<'static, str>,
}

impl FailureAdvice {
    pub(crate) fn of(record: &FailureRecord) -> Self {
        if record.at_admission {
            return Self::at_admission(record.code);
        }
        let remedy = record.kind.advice().remedy;
        let what_to_do = match setting(record.kind) {
            Some(setting) => format!("{remedy} (In the settings: {setting}.)").into(),
            None => remedy.into(),
        };
        Self { kind: record.kind.as_str(), fault: record.fault.as_str(), what_to_do }
    }

    /// Returns the advice about a refusal by the relay's own admission, by its status code.
    fn at_admission(code: u16) -> Self {
        let (kind, fault, what_to_do) = match code {
            400 => (
                "refused_call",
                "caller",
                "Tell the caller the message: it names the header or the path that this relay does not take.",
            ),
            403 => ("not_allowed", "caller", "Tell the caller the message, or change its models under [[callers]]."),
            408 => (
                "slow_request",
                "caller",
                "Nothing, if it is rare: the request's body came too slowly. Else raise body_timeout.",
            ),
            429 => (
                "caller_full",
                "caller",
                "Tell the caller to send fewer calls at a time, or raise max_concurrent_per_caller.",
            ),
            501 => ("live_api", "caller", "Tell the caller: the Live API needs a direct connection to Google."),
            _ => ("relay_full", "local", "Raise max_concurrent or max_queued, or run another relay beside this one."),
        };
        Self { kind, fault, what_to_do: what_to_do.into() }
    }
}

/// Returns the settings of the relay that help against a kind of failure.
fn setting(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::ContextTooLong => "a larger model under [fallback.larger]",
        Kind::ResourceNotAccessible => "default_project",
        Kind::QuotaMinute => "[[keys]], or rpm under [limits]",
        Kind::QuotaTokensMinute => "[[keys]], or tpm under [limits]",
        Kind::QuotaDay
        | Kind::QuotaZero
        | Kind::QuotaGrounding
        | Kind::ModelClosed
        | Kind::QuotaUnknown
        | Kind::KeysExhausted => "[[keys]], or [fallback]",
        Kind::QuotaSpend => "[[keys]]",
        Kind::Overloaded | Kind::Capacity | Kind::CircuitOpen => "[fallback]",
        Kind::Connect => "upstream",
        Kind::Timeout(TimeoutKind::Attempt) => "attempt under [timeout]",
        Kind::Timeout(TimeoutKind::FirstContent) => "first_event under [timeout]",
        Kind::Timeout(TimeoutKind::Idle) => "idle under [timeout]",
        Kind::Timeout(TimeoutKind::Total) => "total under [timeout]",
        Kind::RateLimited => "[[keys]], or the limit or max_wait under [limits]",
        Kind::CallerLimited => "the limits of the caller under [[callers]]",
        Kind::KeysDisabled => "[[keys]]",
        Kind::BodyTooLarge => "max_body",
        _ => return None,
    })
}
