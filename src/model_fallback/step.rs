//! What becomes of a call whose model has failed it.
//!
//! A failure of the model that was asked for is what the caller hears, unless it is a reason to move. Of another model, which
//! nobody asked for, only an answer counts: what it refuses says nothing about the request.

use super::reason::{Reason, Reasons};
use crate::failure::{Failure, Fault, Kind};

/// Where to, next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nowhere: the failure goes back.
    Back,
    /// To the next model.
    Next,
    /// To the models that take more.
    Larger,
    /// Straight to the model that was asked for, if it is still to come.
    Asked,
}

/// Decides after a failure of the model that was asked for, or of another one.
pub(super) fn step(reasons: Reasons, failure: &Failure, sent: bool, is_asked: bool) -> Step {
    if failure.is_after_commit() {
        return Step::Back;
    }
    let reason = Reason::of(failure);
    if reason.is_some_and(|reason| reasons.has(reason)) {
        return Step::Next;
    }
    match (is_asked, failure.kind()) {
        (true, Kind::ContextTooLong) => Step::Larger,
        (true, _) => Step::Back,
        // It is not for this model.
        (false, Kind::ContextTooLong | Kind::ModelNotFound | Kind::Unimplemented) => Step::Next,
        (false, _) if failure.fault() == Fault::Caller && !sent => Step::Next,
        // It may be for none: the one that was asked for decides.
        (false, _) if failure.fault() == Fault::Caller || reason.is_some() => Step::Asked,
        // The same key, and the same way.
        (false, _) => Step::Back,
    }
}

/// Whether other calls to the model would fail as well, so that they need not try.
///
/// An empty answer, the same 500 twice, a time that ran out (callers choose how much there is to think about, and may send a
/// time of their own) or a turn that comes too late may be due to the request. If it is not, the breaker notices.
pub(super) fn is_for_everybody(failure: &Failure) -> bool {
    match Reason::of(failure) {
        None | Some(Reason::Timeout | Reason::RateLimited) => false,
        Some(Reason::Service) => {
            let in_time = !matches!(failure.kind(), Kind::DeadlineExceeded | Kind::Cancelled);
            in_time && failure.counts_against_upstream() && !failure.is_content_suspected()
        }
        Some(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::failure::TimeoutKind;

    #[test]
    fn the_table() {
        use Step::*;
        // Kind; of the model that was asked for; of another one, sent and not sent; whether everybody's calls fail.
        let rows = [
            (Kind::Overloaded, Next, Next, Next, true),
            (Kind::Capacity, Next, Next, Next, true),
            (Kind::ServerError, Next, Next, Next, true),
            (Kind::BadGateway, Next, Next, Next, true),
            (Kind::Unavailable, Next, Next, Next, true),
            (Kind::DeadlineExceeded, Next, Next, Next, false),
            (Kind::Cancelled, Next, Next, Next, false),
            (Kind::EmptyResponse, Next, Next, Next, false),
            (Kind::EmptyMalformedFunctionCall, Next, Next, Next, false),
            (Kind::Timeout(TimeoutKind::Attempt), Next, Next, Next, false),
            (Kind::Timeout(TimeoutKind::FirstContent), Next, Next, Next, false),
            (Kind::CircuitOpen, Next, Next, Next, true),
            (Kind::QuotaDay, Next, Next, Next, true),
            (Kind::QuotaZero, Next, Next, Next, true),
            (Kind::KeysExhausted, Next, Next, Next, true),
            (Kind::QuotaMinute, Back, Asked, Asked, true),
            (Kind::QuotaTokensMinute, Back, Asked, Asked, true),
            (Kind::QuotaUnknown, Back, Asked, Asked, true),
            (Kind::RateLimited, Back, Asked, Asked, false),
            (Kind::ModelNotFound, Back, Next, Next, true),
            (Kind::ContextTooLong, Larger, Next, Next, false),
            (Kind::Unimplemented, Back, Next, Next, false),
            (Kind::InvalidRequest, Back, Asked, Next, false),
            (Kind::LargerThanQuota, Back, Asked, Next, false),
            (Kind::PayloadTooLarge, Back, Asked, Next, false),
            (Kind::ContentBlocked, Back, Asked, Next, false),
            (Kind::ResourceNotAccessible, Back, Asked, Next, false),
            (Kind::AuthKeyInvalid, Back, Back, Back, false),
            (Kind::PermissionDenied, Back, Back, Back, false),
            (Kind::BillingRequired, Back, Back, Back, false),
            (Kind::Connect, Back, Back, Back, false),
            (Kind::NotSent, Back, Back, Back, false),
            (Kind::Reset, Back, Back, Back, false),
            (Kind::Transport, Back, Back, Back, false),
            (Kind::StreamCut, Back, Back, Back, false),
            (Kind::Timeout(TimeoutKind::Idle), Back, Back, Back, false),
            (Kind::Timeout(TimeoutKind::Total), Back, Back, Back, false),
            (Kind::KeysDisabled, Back, Back, Back, false),
            (Kind::BodyTooLarge, Back, Back, Back, false),
            (Kind::BadRequest, Back, Back, Back, false),
            (Kind::RequestBody, Back, Back, Back, false),
        ];
        for (kind, asked, sent, not_sent, everybody) in rows {
            let failure = Failure::local(kind, "no");
            let reasons = Reasons::default();
            let steps = [(true, true), (true, false), (false, true), (false, false)];
            let steps = steps.map(|(is_asked, sent)| step(reasons, &failure, sent, is_asked));
            assert_eq!(steps, [asked, asked, sent, not_sent], "{kind}");
            assert_eq!(is_for_everybody(&failure), everybody, "{kind}");
            let late = failure.into_after_commit();
            assert_eq!(step(reasons, &late, true, true), Back, "{kind}");
            assert_eq!(step(reasons, &late, true, false), Back, "{kind}");
        }
        let timeout = Failure::timeout(TimeoutKind::FirstContent, Duration::from_secs(1));
        assert_eq!(step(Reasons::default(), &timeout, true, true), Next);
    }

    #[test]
    fn each_reason_can_be_switched() {
        let kinds = [
            (Reason::Model, Kind::Overloaded),
            (Reason::Service, Kind::ServerError),
            (Reason::Timeout, Kind::Timeout(TimeoutKind::Attempt)),
            (Reason::CircuitOpen, Kind::CircuitOpen),
            (Reason::QuotaDay, Kind::QuotaDay),
            (Reason::QuotaZero, Kind::QuotaZero),
            (Reason::KeysExhausted, Kind::KeysExhausted),
            (Reason::QuotaMinute, Kind::QuotaTokensMinute),
            (Reason::RateLimited, Kind::RateLimited),
            (Reason::ModelNotFound, Kind::ModelNotFound),
        ];
        for (reason, kind) in kinds {
            let failure = Failure::local(kind, "no");
            assert_eq!(Reason::of(&failure), Some(reason));
            let mut reasons = Reasons::default();
            assert_eq!(reasons.has(reason), reason.is_on_by_default(), "{reason}");
            reasons.set(reason, true);
            assert_eq!(step(reasons, &failure, true, true), Step::Next, "{reason}");
            reasons.set(reason, false);
            assert_eq!(step(reasons, &failure, true, true), Step::Back, "{reason}");
            for (other, kind) in kinds.into_iter().filter(|(other, _)| *other != reason) {
                let moves = step(reasons, &Failure::local(kind, "no"), true, true) == Step::Next;
                assert_eq!(moves, other.is_on_by_default(), "{other} after {reason}");
            }
        }
    }

    #[test]
    fn what_would_take_longer_than_anybody_waits_is_as_a_days_quota() {
        for kind in [Kind::RateLimited, Kind::QuotaMinute, Kind::QuotaTokensMinute, Kind::QuotaUnknown] {
            let failure = |secs| Failure::local(kind, "no").with_hint(Duration::from_secs(secs));
            assert_eq!(step(Reasons::default(), &failure(300), false, true), Step::Back, "{kind}");
            assert_eq!(step(Reasons::default(), &failure(301), false, true), Step::Next, "{kind}");
            assert_eq!(Reason::of(&failure(301)), Some(Reason::QuotaDay));
        }
        let zero = Failure::local(Kind::QuotaZero, "no").with_hint(Duration::from_secs(301));
        assert_eq!(Reason::of(&zero), Some(Reason::QuotaZero));
    }

    #[test]
    fn a_500_that_may_be_the_requests_own_is_for_nobody_else() {
        let mut failure = Failure::from_status(StatusCode::INTERNAL_SERVER_ERROR, &HeaderMap::new());
        assert!(is_for_everybody(&failure));
        failure.mark_content_suspected();
        assert!(!is_for_everybody(&failure));
    }
}
